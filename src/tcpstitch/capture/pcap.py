"""pcap files (draft-ietf-opsawg-pcap) and its dialects."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, Callable, Iterator, Optional, Tuple

from ..uncut import PYPY
from .block import Block
from .report import CUT, MAX_RECORD, Begin, Record, Report, packet_class
from .share import HEAD, Share
from .source import Source
from .variants import aix_linktype, record_bytes, unpacker

HEADER_BYTES = 24
# number: (units per second, sizes of a record's header, the usual one first, size of the file's header)
_NUMBERS = {
    0xA1B2C3D4: (10**6, (16, 24, 20), 24),
    0xA1B23C4D: (10**9, (16,), 24),
    0xA1B2CD34: (10**6, (24, 28), 24),  # Kuznetzov's patches
    0x1C0001AC: (10**9, (16,), 28),  # Ixia's lcap, from hardware
    0x1C0001AB: (10**6, (16,), 28),  # and from software
}
MAGICS = {
    number.to_bytes(4, "little" if order == "<" else "big"): (order, *rest)
    for number, rest in _NUMBERS.items()
    for order in "<>"
}


def read_pcap(
    source: Source, held: bytes, report: Report, share: Optional[Share] = None
) -> Tuple[Begin, Optional[Block]]:
    """Packets of a pcap file whose first bytes, at least `HEADER_BYTES`, are `held`, one by one; and the same in
    blocks, for as long as none was taken one by one, where they are Ethernet frames behind the usual headers."""
    order, units, sizes, first = MAGICS[held[:4]]
    held = source.at_least(held, first)
    major, minor, _, _, _, network = struct.unpack_from(order + "HHiIII", held, 4)
    version = (major, minor)
    linktype = network & 0xFFFF
    if network & 0x04000000:
        report.fcs_bytes = (network >> 28) * 2
    head = record_bytes(held, first, order, units, sizes if version == (2, 4) else sizes[:1])
    if aix_linktype(version, linktype) >= 0:
        linktype, units = aix_linktype(version, linktype), 10**9
    report.linktype = linktype
    make = None if packet_class(linktype) is bytes else packet_class(linktype)
    scale = 1e-6 if units == 10**6 else 1e-9
    buffer = memoryview(held) if PYPY else held
    block = Block(source, buffer, first, unpacker(order, head, version), scale, share, order)
    records = partial(_records, block, report, head, memoryview.tobytes if make is None and PYPY else make)
    usual = make is None and head == HEAD and version == (2, 4)
    if PYPY and (order != "<" or share is not None):
        usual = False  # what reads these from memory makes objects there
    return records if share is None else lambda: share.of(records()), block if usual else None


def _records(block: Block, report: Report, head: int, make: Optional[Callable[[Any], bytes]]) -> Iterator[Record]:
    source, unpack, scale = block.source, block.record, block.scale
    block.usable = False
    if block.share is not None:
        block.share.leave()
    problem: Optional[str] = None
    second, time = -1, -1.0  # a second has many packets: adding an int of more than 30 bits to a float is slow
    while problem is None:
        buffer, pos, size = block.buffer, block.pos, block.size
        last = size - head
        need = head
        while pos <= last:
            seconds, fraction, length = unpack(buffer, pos)
            start = pos + head
            stop = start + length
            if stop > size:
                need = head + length
                break
            if seconds != second:
                second, time = seconds, float(seconds)
            data = buffer[start:stop] if make is None else make(buffer[start:stop])
            block.pos = pos = stop  # whatever ends this loop, the next one begins here
            yield time + scale * fraction, data
        if need > MAX_RECORD:
            problem = f"a packet of {need - head} bytes is claimed: damaged, the rest is not read"
        elif block.over or not (source.can_hold(need - (size - pos)) and block.refill(need)):
            problem = CUT + "packet"
    source.end(report, block.base + block.pos, problem if block.size > block.pos or source.unread() else "")
