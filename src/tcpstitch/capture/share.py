"""A share of a capture: the packets of some of its connections, the others skipped for a part of what reading costs.

A connection's share is told by the sum of the 16-bit words of its ports and of the last four bytes of its addresses,
which both directions have in common. What must be decoded to be told apart (fragments, tunnels, several tags) belongs
to every share: who reads it looks at the key of the segment that comes out.
"""

from __future__ import annotations

import struct
from typing import Any, Iterator, List, Optional, Tuple

from ..decode import as_ethernet
from ..errors import UsageError, whole
from .report import ETHERNET, Record, packet_class

# 2**16 leaves 1 when divided by 257: the remainder of a key is that of the sum of its words, whatever their order. With
# the bytes of each word swapped it is what was missing to 257, as 2**8 leaves -1.
MOST_SHARES = 257

# From the EtherType on: that, version, IHL and type of service; fragment word, TTL and protocol; addresses; ports.
_IPV4 = "I4xI2xQI"
_HEADERS = struct.Struct("<" + _IPV4).unpack_from
# From the next header of IPv6 on: that; addresses and ports.
_HEADERS6 = struct.Struct("Bx36s").unpack_from
# The bits of the first word that are EtherType, version and IHL, and what they are for plain IPv4; the bits of the
# second that are the fragment's offset, "more fragments" and the protocol, and what they are for plain TCP.
_PLAIN_BITS, _PLAIN, _PATH_BITS, _TCP_PATH = 0x00FFFFFF, 0x00450008, 0xFF00FF3F, 0x06000000
# EtherType 0x86DD and version 6, and their bits.
_IPV6, _IPV6_BITS = 0x0060DD86, 0x00F0FFFF
HEAD = 16  # bytes of a pcap record's header
_LONGEST = 128  # bytes of a packet beyond which nothing is looked at


Piece = Tuple[int, int, Any]  # of a pcap file: offset, size, and an array of places in it (see `places`)


def _bucket(key: bytes) -> int:
    words = key if len(key) == 12 else key[12:16] + key[28:]
    return int.from_bytes(words, "little") % MOST_SHARES


def bucket_of(buffer: bytes, at: int, length: int) -> Optional[int]:
    """The remainder that tells the share of the `length` bytes from the EtherType at `at` on; None where they must be
    decoded for it. O(1)."""
    if length < 42:  # no whole TCP header
        return None
    if buffer[at] == 0x81 and buffer[at + 1] == 0:  # behind a VLAN tag
        at += 4
        length -= 4
        if length < 42:
            return None
    first, path, addresses, ports = _HEADERS(buffer, at)
    if first & _PLAIN_BITS == _PLAIN:
        return None if path & _PATH_BITS != _TCP_PATH else (addresses + ports) % MOST_SHARES
    if first & _IPV6_BITS != _IPV6 or length < 62:
        return None
    protocol, key = _HEADERS6(buffer, at + 8)
    return None if protocol != 6 else _bucket(key)


class Share:
    """Share `index` of `count` of a capture's connections. `number` is the packet read last, counted from 1. Where it
    need not be `counted`, `Assembler.run` may take the packets in place, for less, and only `place` is right."""

    __slots__ = ("index", "count", "counted", "number", "mine", "block", "pieces", "_bytes")

    def __init__(self, index: int, count: int, counted: bool = True) -> None:
        if not whole("index", index, 0) < whole("count", count, 1) <= MOST_SHARES:
            raise UsageError(f"share {index} of {count}: there are at most {MOST_SHARES}, counted from 0")
        self.index = index
        self.count = count
        self.number = self._bytes = 0
        self.counted = counted
        self.block: Any = None  # from which packets are taken at present
        self.pieces: List[Piece] = []  # in which they are known to lie, the last one first
        self.mine: List[bool] = [bucket % count == index for bucket in range(MOST_SHARES)]

    def owns(self, key: bytes) -> bool:
        """Whether the connection with these addresses and ports belongs to this share. O(1)."""
        return self.mine[_bucket(key)]

    def place(self) -> int:
        """How far the capture was read: a number that grows with each packet, and is the same for it in each share. It
        is the sum of the packets' lengths and of `HEAD` for each."""
        block = self.block
        place: int = self._bytes if block is None else block.base + block.pos - block.first
        return place

    def leave(self) -> None:
        """From now on packets are read one by one."""
        self._bytes, self.block = self.place(), None

    def takes(self, buffer: bytes, start: int, length: int, linktype: int) -> bool:
        """Count the packet of `length` bytes at `start`; False if it is sure to belong to another share. O(1)."""
        self.number += 1
        self._bytes += HEAD + length
        if linktype == ETHERNET:
            return self._may_own(buffer, start + 12, length - 12)
        # What the assembler takes for a frame must be told apart here: it asks no more whose that is.
        frame = as_ethernet(packet_class(linktype)(buffer[start : start + min(length, _LONGEST)]))
        return frame is None or self._may_own(frame, 12, len(frame) - 12)

    def _may_own(self, buffer: bytes, at: int, length: int) -> bool:
        bucket = bucket_of(buffer, at, length)
        return bucket is None or self.mine[bucket]

    def takes_record(self, record: Record) -> bool:
        """The same of a packet that was read already."""
        packet = record[1]
        linktype = ETHERNET if packet.__class__ is bytes else packet.linktype  # type: ignore[attr-defined]
        return self.takes(packet, 0, len(packet), linktype)

    def of(self, records: Iterator[Record]) -> Iterator[Record]:
        """Those of `records` that belong to this share, or may."""
        for record in records:  # no `filter`, of which nobody can tell that an exception ended it
            if self.takes_record(record):
                yield record
