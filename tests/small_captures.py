"""Small captures from plain values, for tests of what reads whole files."""

from __future__ import annotations

import io
import struct
from ipaddress import ip_address
from typing import List, Tuple

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
SYN, FIN, ACK, RST = 2, 1, 16, 4


def frame(
    source: Tuple[str, int], target: Tuple[str, int], seq: int, ack: int, flags: int, payload: bytes = b"",
    options: bytes = b"",
) -> bytes:  # fmt: skip
    """An Ethernet frame with IPv4 or IPv6 and TCP; the TCP checksum is right, the IP one is left out."""
    offset = 0x50 + len(options) * 4
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], seq, ack, offset, flags, 65535, 0, 0) + options + payload
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


def numbered(number: int, ipv6: bool = False) -> List[bytes]:
    """A connection of its own addresses and data, complete."""
    client = (f"2001:db8::{number + 1:x}" if ipv6 else f"10.0.{number % 3}.1", 40000 + number)
    server = ("2001:db8::80" if ipv6 else "10.9.9.9", 80)
    frames = exchange(client, server)
    frames[4:5] = [frame(client, server, 100, 500, ACK, b"hello")]
    data = b"number %d " % number + b"x" * (number * 7 % 900)
    frames[5] = frame(server, client, 500, 111, ACK, data)
    last = 500 + len(data)
    frames[6:] = [
        frame(client, server, 111, last, 1 | ACK), frame(server, client, last, 112, 1 | ACK),
        frame(client, server, 112, last + 1, ACK),
    ]  # fmt: skip
    return frames


def tagged(packet: bytes) -> bytes:
    return packet[:12] + b"\x81\x00\x00\x2a" + packet[12:]


def in_fragments(packet: bytes, ident: int) -> List[bytes]:
    """The frame's IPv4 packet in two fragments, the later one first."""
    head, body = packet[14:34], packet[34:]
    cut = len(body) // 2 & ~7

    def fragment(offset: int, more: int, piece: bytes) -> bytes:
        lengths = struct.pack("!HHH", 20 + len(piece), ident, more << 13 | offset // 8)
        return packet[:14] + head[:2] + lengths + head[8:] + piece

    return [fragment(cut, 0, body[cut:]), fragment(0, 1, body[:cut])]


def in_tunnel(packet: bytes) -> bytes:
    """The frame's IPv4 packet in another one (RFC 2003) between two routers."""
    inner = packet[14:]
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), 0, 0, 64, 4, 0) + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    return packet[:14] + outer + inner


def varied() -> List[bytes]:
    """60 connections interleaved: plain, IPv6, behind a VLAN tag, in fragments, in a tunnel; and what is not TCP."""
    lists: List[List[bytes]] = []
    for number in range(60):
        frames = numbered(number, ipv6=number % 5 == 1)
        if number % 5 == 2:
            frames = [tagged(packet) for packet in frames]
        elif number % 5 == 3:
            frames = [piece for n, packet in enumerate(frames) for piece in in_fragments(packet, 50 * number + n)]
        elif number % 5 == 4:
            frames = [in_tunnel(packet) for packet in frames]
        lists.append([*frames, b"\2" * 12 + b"\x08\x06" + b"\0" * 46, b"short"])
    return [packets[step] for step in range(25) for packets in lists if step < len(packets)]
