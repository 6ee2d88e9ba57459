"""A share of a capture: the packets of some of its connections, the others skipped for a part of what reading costs.

A connection's share is told by the sum of the 16-bit words of its addresses and ports, which both directions have in
common. What must be decoded to be told apart (fragments, tunnels, several tags) belongs to every share: who reads it
looks at the key of the segment that comes out.
"""

from __future__ import annotations

import struct
from typing import Any, Iterator, List

from ..errors import UsageError
from .report import ETHERNET, Record
from .source import Source

# 2**16 leaves 1 when divided by 257: the remainder of a key is that of the sum of its words, whatever their order.
_BUCKETS = 257
# Link types in which the EtherType and the IP header stand at fixed places; raw IP has no EtherType.
_LAYOUTS = {ETHERNET: (12, 14), 113: (14, 16), 276: (0, 20), **dict.fromkeys((12, 14, 101, 228, 229), (-1, 0))}
_RAW_KINDS = {b"\x45": b"\x08\x00", b"\x60": b"\x86\xdd"}
# Record header of a little-endian pcap file, then the frame's EtherType, version and IHL; fragment word and protocol;
# addresses; ports. All little-endian, as the sum must be taken in one order: 8 is EtherType 0x0800, the bits 0xFF3F of
# the fragment word are its offset and "more fragments".
_RECORD = struct.Struct("<III16xHB5xHxB2xQI")


class Share:
    """Share `index` of `count` of a capture's connections. `number` is the packet read last, counted from 1."""

    __slots__ = ("index", "count", "number", "mine")

    def __init__(self, index: int, count: int) -> None:
        if not 0 <= index < count <= _BUCKETS:
            raise UsageError(f"share {index} of {count}: there are at most {_BUCKETS}, counted from 0")
        self.index = index
        self.count = count
        self.number = 0
        self.mine: List[bool] = [bucket % count == index for bucket in range(_BUCKETS)]

    def owns(self, key: bytes) -> bool:
        """Whether the connection with these addresses and ports belongs to this share. O(1)."""
        return self.mine[int.from_bytes(key, "little") % _BUCKETS]

    def wants(self, packet: bytes) -> bool:
        """False if `packet` is sure to belong to another share. O(1)."""
        layout = _LAYOUTS.get(getattr(packet, "linktype", ETHERNET))
        if layout is None:
            return True
        kind_at, at = layout
        if kind_at < 0:
            kind = _RAW_KINDS.get(packet[:1], b"")
        else:
            kind = packet[kind_at : kind_at + 2]
            if kind == b"\x81\x00" and kind_at == 12:
                at = 18
                kind = packet[16:18]
        if kind == b"\x08\x00" and len(packet) >= at + 40:
            whole = packet[at] == 0x45 and packet[at + 9] == 6 and not (packet[at + 6] & 0x3F or packet[at + 7])
            return not whole or self.owns(packet[at + 12 : at + 24])
        if kind == b"\x86\xdd" and len(packet) >= at + 60 and packet[at] >> 4 == 6 and packet[at + 6] == 6:
            return self.owns(packet[at + 8 : at + 44])
        return True

    def of(self, records: Iterator[Record]) -> Iterator[Record]:
        """Those of `records` that belong to this share, or may."""
        for record in records:
            self.number += 1
            if self.wants(record[1]):
                yield record


class Rest:
    """Where the quick loop below left a file to the ordinary one: a buffer, the place in it and the end of what was
    read into it, and the place's offset in the file."""

    __slots__ = ("buffer", "pos", "size", "base")

    def __init__(self, buffer: bytes, pos: int) -> None:
        self.buffer: Any = buffer
        self.pos = pos
        self.size = len(buffer)
        self.base = 0


def quick_share(
    share: Share, source: Source, rest: Rest, scale: float, usual: Iterator[Record]
) -> Iterator[Record]:
    """The packets of a share out of an Ethernet pcap file in little-endian order; at what is odd `usual` takes over.

    A packet of another share costs no slice, no time stamp and no switch between generators: about half of a read.
    """
    mine = share.mine
    unpack = _RECORD.unpack_from
    number = share.number
    while True:
        buffer, pos, size = rest.buffer, rest.pos, rest.size
        last = size - _RECORD.size
        need = _RECORD.size
        while pos <= last:
            seconds, fraction, length, kind, version, fragment, protocol, addresses, ports = unpack(buffer, pos)
            stop = pos + 16 + length
            if stop > size:
                need = 16 + length
                break
            number += 1
            if kind == 8 and version == 0x45:
                if mine[(addresses + ports) % 257] or protocol != 6 or fragment & 0xFF3F or length < 54:
                    share.number = number
                    yield seconds + fraction * scale, buffer[pos + 16 : stop]
            elif share.wants(buffer[pos + 16 : stop]):
                share.number = number
                yield seconds + fraction * scale, buffer[pos + 16 : stop]
            pos = stop
        share.number = number
        rest.pos = pos
        if not source.can_hold(need - (size - pos)):
            break
        rest.base += pos
        rest.buffer, rest.size = source.refill(buffer, pos, size, need)
        rest.pos = 0
        if rest.size < need:
            break
    yield from share.of(usual)
