"""Ethernet frames with TCP in them, with right checksums, built quickly."""

from __future__ import annotations

import struct
from typing import Optional

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_TCP = struct.Struct("!HHIIBBHHH")
_MSS, _STAMPS = b"\x02\x04\x05\xb4", struct.Struct("!4sII")


def checksum(total: int) -> int:
    """The Internet checksum (RFC 1071) of words whose plain sum is `total`."""
    return 0xFFFF - total % 0xFFFF


def words(data: bytes) -> int:
    """The one's complement sum of `data` modulo 0xFFFF; a big integer does in one step what a loop does in many."""
    return int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big") % 0xFFFF


class Side:
    """One end of a connection: makes the frames that it sends. Addresses are packed, 4 or 16 bytes."""

    __slots__ = ("key", "_ports", "_link", "_ip", "_ip_sum", "_pseudo_sum", "_v6")

    def __init__(self, source: bytes, destination: bytes, ports: tuple[int, int], vlan: Optional[int] = None) -> None:
        self.key = source + destination + struct.pack("!HH", *ports)
        self._ports = ports
        self._v6 = len(source) == 16
        ethertype = 0x86DD if self._v6 else 0x0800
        tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
        self._link = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + tag + struct.pack("!H", ethertype)
        self._ip = source + destination
        addresses = words(self._ip)
        self._ip_sum = 0x4500 + 0x4000 + 0x4006 + addresses
        self._pseudo_sum = addresses + 6

    def frame(self, seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b"") -> bytes:
        """The frame of one segment. O(bytes)."""
        size = 20 + len(options) + len(payload)
        offset = (5 + len(options) // 4) << 4
        seq &= 0xFFFFFFFF
        ack &= 0xFFFFFFFF
        source, destination = self._ports
        total = self._pseudo_sum + size + source + destination + (offset << 8 | flags) + 0xFFFF
        total += (seq >> 16) + (seq & 0xFFFF) + (ack >> 16) + (ack & 0xFFFF) + words(options) + words(payload)
        tcp = _TCP.pack(source, destination, seq, ack, offset, flags, 0xFFFF, checksum(total), 0) + options + payload
        return self._link + self.ip_header(size) + tcp

    def ip_header(self, size: int) -> bytes:
        """The IP header in front of `size` bytes of TCP."""
        if self._v6:
            return struct.pack("!IHBB", 6 << 28, size, 6, 64) + self._ip
        length = size + 20
        return struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, 6, checksum(self._ip_sum + length)) + self._ip


class Connection:
    """Both ends with their sequence numbers; direction 0 is the client's. Payload counts as sent when framed. With
    `options` segments have those that today's systems send: timestamps, and on SYNs SACK and a window scale."""

    __slots__ = ("sides", "next_seq", "options", "_ticks")

    def __init__(self, client: Side, server: Side, isn: int, options: bool = False) -> None:
        self.sides = (client, server)
        self.next_seq = [isn, isn ^ 0x5A5A5A5A]
        self.options = options
        self._ticks = isn >> 4

    def segment(self, direction: int, payload: bytes = b"", flags: int = ACK, options: bytes = b"") -> bytes:
        """The next segment in this direction."""
        if self.options:
            self._ticks += 1
            options = _STAMPS.pack(b"\x01\x01\x08\x0a", self._ticks, self._ticks)
            if flags & SYN:
                options = _MSS + b"\x04\x02" + options[2:] + b"\x01\x03\x03\x07"
        seq = self.next_seq[direction]
        ack = self.next_seq[1 - direction] if flags & ACK else 0
        self.next_seq[direction] = seq + len(payload) + (1 if flags & (SYN | FIN) else 0)
        return self.sides[direction].frame(seq, ack, flags, payload, options)

    def handshake(self) -> list[bytes]:
        """SYN, SYN/ACK, ACK."""
        syn, answer = self.segment(0, flags=SYN, options=_MSS), self.segment(1, flags=SYN | ACK, options=_MSS)
        return [syn, answer, self.segment(0)]

    def goodbye(self) -> list[bytes]:
        """FIN from both ends and the last ACK."""
        return [self.segment(0, flags=FIN | ACK), self.segment(1, flags=FIN | ACK), self.segment(0)]


def numbered(number: int, v6: bool = False, vlan: Optional[int] = None, options: bool = False) -> Connection:
    """Connection `number`, no two alike below 2**24 * 16: clients 10.x.y.z, one server."""
    port = 40_000 + number % 16
    host = struct.pack("!I", (10 << 24) + number // 16 + 1)
    server = b"\xc6\x33\x64\x07"
    if v6:
        prefix = b"\x20\x01\x0d\xb8" + b"\0" * 8
        host, server = prefix + host, prefix + server
    isn = number * 2654435761 & 0xFFFFFFFF
    return Connection(Side(host, server, (port, 443), vlan), Side(server, host, (443, port), vlan), isn, options)
