"""Ethernet frames with one TCP segment, built from plain values; every field can be made wrong on purpose."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any, Optional, Tuple

Address = Tuple[str, int]

CLIENT: Address = ("10.0.0.1", 40000)
SERVER: Address = ("10.0.0.2", 80)
CLIENT6: Address = ("2001:db8::1", 40000)
SERVER6: Address = ("2001:db8::2", 80)

_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}
_SHORTEST_FRAME = 60  # IEEE 802.3, without the check sequence


def _ones_complement_sum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def timestamps_option(value: int, echo: int) -> bytes:
    return b"\x01\x01\x08\x0a" + struct.pack("!II", value, echo)


def md5_option() -> bytes:
    return b"\x13\x12" + bytes(range(16)) + b"\x01\x01"


def fast_open_option() -> bytes:
    return b"\x22\x0a" + b"cookie!!" + b"\x01\x01"


def flag_bits(letters: str) -> int:
    return sum(_BITS[letter] for letter in letters)


def tcp_segment(
    source: Address,
    destination: Address,
    seq: int,
    payload: bytes = b"",
    flags: str = "A",
    ack: int = 0,
    window: int = 65535,
    options: bytes = b"",
    urgent_pointer: int = 0,
    doff: Optional[int] = None,
    bad_checksum: bool = False,
) -> bytes:
    """The TCP header with its payload. `doff` in 32-bit words, if not the true one."""
    words = 5 + len(options) // 4 if doff is None else doff
    header = struct.pack(
        "!HHIIBBHHH",
        source[1], destination[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, words << 4, flag_bits(flags), window, 0,
        urgent_pointer,
    )  # fmt: skip
    body = header + options + payload
    pseudo = ip_address(source[0]).packed + ip_address(destination[0]).packed + struct.pack("!II", 6, len(body))
    checksum = ~_ones_complement_sum(pseudo + body) & 0xFFFF
    if bad_checksum:
        checksum ^= 0x5555
    return body[:16] + struct.pack("!H", checksum) + body[18:]


def ip_packet(source: str, destination: str, body: bytes, ttl: int = 64, protocol: int = 6) -> bytes:
    """An IPv4 or IPv6 packet around `body`; the version is that of the addresses."""
    sender, receiver = ip_address(source).packed, ip_address(destination).packed
    if len(sender) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + sender + receiver + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0x4000, ttl, protocol, 0) + sender + receiver
    checksum = ~_ones_complement_sum(header) & 0xFFFF
    return header[:10] + struct.pack("!H", checksum) + header[12:] + body


def ethernet(packet: bytes) -> bytes:
    """The frame around an IP packet, padded as a network card does."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    frame = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + struct.pack("!H", kind) + packet
    return frame.ljust(_SHORTEST_FRAME, b"\xa5")


def tcp_frame(source: Address, destination: Address, seq: int, *rest: Any, ttl: int = 64, **fields: Any) -> bytes:
    """A whole frame with one TCP segment; what is not named here goes to `tcp_segment`."""
    body = tcp_segment(source, destination, seq, *rest, **fields)
    return ethernet(ip_packet(source[0], destination[0], body, ttl))
