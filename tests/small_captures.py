"""Small captures from plain values, for tests of what reads whole files."""

from __future__ import annotations

import io
import struct
from ipaddress import ip_address
from typing import List, Tuple

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
SYN, FIN, ACK, RST = 2, 1, 16, 4


def frame(
    source: Tuple[str, int], target: Tuple[str, int], seq: int, ack: int, flags: int, payload: bytes = b""
) -> bytes:
    """An Ethernet frame with IPv4 or IPv6 and TCP; the TCP checksum is right, the IP one is left out."""
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], seq, ack, 0x50, flags, 65535, 0, 0) + payload
    addresses = ip_address(source[0]).packed + ip_address(target[0]).packed
    summed = addresses + struct.pack("!HH", 6, len(tcp)) + tcp + b"\0" * (len(tcp) % 2)
    tcp = tcp[:16] + struct.pack("!H", 0xFFFF - int.from_bytes(summed, "big") % 0xFFFF) + tcp[18:]
    if len(addresses) == 8:
        network = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
        return b"\2" * 12 + b"\x08\x00" + network + tcp
    return b"\2" * 12 + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + addresses + tcp


def capture(*frames: bytes) -> io.BytesIO:
    """A pcap file, the first packet at second 1000, the others a millisecond apart each."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, data in enumerate(frames):
        seconds, milliseconds = divmod(number, 1000)
        parts.append(struct.pack("<IIII", 1000 + seconds, milliseconds * 1000, len(data), len(data)) + data)
    return io.BytesIO(b"".join(parts))


def exchange(client: Tuple[str, int] = CLIENT, server: Tuple[str, int] = SERVER) -> List[bytes]:
    """A whole connection whose client's data comes out of order."""
    return [
        frame(client, server, 99, 0, SYN),
        frame(server, client, 499, 100, SYN | ACK),
        frame(client, server, 100, 500, ACK),
        frame(client, server, 105, 500, ACK, b" there"),
        frame(client, server, 100, 500, ACK, b"hello"),
        frame(server, client, 500, 111, ACK, b"welcome"),
        frame(client, server, 111, 507, FIN | ACK),
        frame(server, client, 507, 112, FIN | ACK),
        frame(client, server, 112, 508, ACK),
    ]
