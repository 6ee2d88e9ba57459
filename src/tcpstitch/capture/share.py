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

# 2**16 leaves 1 when divided by 257: the remainder of a key is that of the sum of its words, whatever their order. With
# the bytes of each word swapped it is what was missing to 257, as 2**8 leaves -1.
_BUCKETS = 257
_RAW = frozenset((12, 14, 101, 228, 229))  # link types that begin with the IP header
_RAW_KINDS = {b"\x45": b"\x08\x00", b"\x60": b"\x86\xdd"}

# From the EtherType on: that, version, IHL and type of service; fragment word; protocol; addresses; ports.
_IPV4 = "I4xHxB2xQI"
_HEADERS = struct.Struct("<" + _IPV4).unpack_from
# From the next header of IPv6 on: that; addresses and ports.
_HEADERS6 = struct.Struct("Bx36s").unpack_from
# By byte order: EtherType 0x0800, version and IHL of the first word above, and their bits; the bits of the fragment
# word that are its offset and "more fragments".
_MARKS = {"<": (0x00450008, 0x00FFFFFF, 0xFF3F), ">": (0x08004500, 0xFFFFFF00, 0x3FFF)}
_PLAIN, _PLAIN_BITS, _FRAGMENT = _MARKS["<"]
# EtherType 0x86DD and version 6, and their bits.
_IPV6, _IPV6_BITS = 0x0060DD86, 0x00F0FFFF
_LONGEST = 128  # bytes of a packet beyond which nothing is looked at


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

    def takes(self, buffer: bytes, start: int, length: int, linktype: int) -> bool:
        """Count the packet of `length` bytes at `start`; False if it is sure to belong to another share. O(1)."""
        self.number += 1
        if linktype == ETHERNET:
            return self.may_own(buffer, start + 12, length - 12)
        if linktype == 113:  # Linux cooked
            return self.may_own(buffer, start + 14, length - 14)
        stop = start + min(length, _LONGEST)
        if linktype in _RAW:
            packet = _RAW_KINDS.get(buffer[start : start + 1], b"") + buffer[start:stop]
        elif linktype == 276:  # Linux cooked, version 2
            packet = buffer[start : start + 2] + buffer[start + 20 : stop]
        else:
            return True
        return self.may_own(packet, 0, len(packet))

    def may_own(self, buffer: bytes, at: int, length: int) -> bool:
        """False if the `length` bytes from the EtherType at `at` on are sure to belong to another share. O(1)."""
        if length < 42:  # no whole TCP header
            return True
        if buffer[at] == 0x81 and buffer[at + 1] == 0:  # behind a VLAN tag
            at += 4
            length -= 4
            if length < 42:
                return True
        first, fragment, protocol, addresses, ports = _HEADERS(buffer, at)
        if first & _PLAIN_BITS == _PLAIN:
            if protocol != 6 or fragment & _FRAGMENT:
                return True
            words: int = addresses + ports
            return self.mine[words % _BUCKETS]
        if first & _IPV6_BITS != _IPV6 or length < 62:
            return True
        protocol, key = _HEADERS6(buffer, at + 8)
        return protocol != 6 or self.owns(key)

    def takes_record(self, record: Record) -> bool:
        """The same of a packet that was read already."""
        packet = record[1]
        linktype = ETHERNET if packet.__class__ is bytes else packet.linktype  # type: ignore[attr-defined]
        return self.takes(packet, 0, len(packet), linktype)

    def of(self, records: Iterator[Record]) -> Iterator[Record]:
        """Those of `records` that belong to this share, or may."""
        return filter(self.takes_record, records)


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
    share: Share, source: Source, rest: Rest, order: str, scale: float, usual: Iterator[Record]
) -> Iterator[Record]:
    """The packets of a share out of an Ethernet pcap file of either byte order; at what is odd `usual` takes over.

    A packet of another share costs no slice, no time stamp and no switch between generators.
    """
    record = struct.Struct(f"{order}III16x{_IPV4}")  # a record's header and the frame in it
    unpack, need = record.unpack_from, record.size
    plain, plain_bits, fragment_bits = _MARKS[order]
    mine = share.mine if order == "<" else [share.mine[-bucket % _BUCKETS] for bucket in range(_BUCKETS)]
    number = share.number
    while True:
        buffer, pos, size = rest.buffer, rest.pos, rest.size
        need, last = record.size, size - record.size
        while True:  # so written since CPython 3.11 makes a loop quick at unconditional jumps only
            if pos > last:
                break
            seconds, fraction, length, first, fragment, protocol, addresses, ports = unpack(buffer, pos)
            start = pos + 16
            pos = start + length
            number += 1
            if first == plain or first & plain_bits == plain:
                if mine[(addresses + ports) % 257] or protocol != 6 or fragment & fragment_bits or length < 54:
                    if pos <= size:
                        share.number = number
                        yield seconds + fraction * scale, buffer[start:pos]
            elif pos <= size and share.may_own(buffer, start + 12, length - 12):
                share.number = number
                yield seconds + fraction * scale, buffer[start:pos]
        if pos > size:  # the last one is not all there
            number -= 1
            need = pos - start + 16
            pos = start - 16
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
