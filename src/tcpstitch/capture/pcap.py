"""pcap files (draft-ietf-opsawg-pcap) and its dialects."""

from __future__ import annotations

import struct
from typing import Iterator, Optional, Type

from .report import MAX_RECORD, Record, Report, packet_class
from .share import Rest, Share, quick_share
from .source import Source
from .variants import Unpack, aix_linktype, record_bytes, unpacker

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


def read_pcap(source: Source, held: bytes, report: Report, share: Optional[Share] = None) -> Iterator[Record]:
    """Packets of a pcap file whose first bytes, at least `HEADER_BYTES`, are `held`. Reads a block at a time."""
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
    unpack = unpacker(order, head, version)
    rest = Rest(held, first)
    records = _records(source, rest, report, unpack, scale, head, make)
    if share is None:
        return records
    quick = make is None and head == 16 and version == (2, 4)
    return quick_share(share, source, rest, order, scale, records) if quick else share.of(records)


def _records(
    source: Source,
    rest: Rest,
    report: Report,
    unpack: Unpack,
    scale: float,
    head: int,
    make: Optional[Type[bytes]],
) -> Iterator[Record]:
    buffer, pos, size, base = rest.buffer, rest.pos, rest.size, rest.base
    problem: Optional[str] = None
    second, time = -1, -1.0  # a second has many packets: adding an int of more than 30 bits to a float is slow
    while problem is None:
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
            if make is None:
                yield time + fraction * scale, buffer[start:stop]
            else:
                yield time + fraction * scale, make(buffer[start:stop])
            pos = stop
        have = size - pos
        if need > MAX_RECORD:
            problem = f"a packet of {need - head} bytes is claimed: damaged, the rest is not read"
        elif not source.can_hold(need - have):
            problem = "the file ends in the middle of a packet"
        else:
            base += pos
            buffer, size = source.refill(buffer, pos, size, need)
            pos = 0
            if size < need:
                problem = "the file ends in the middle of a packet"
    end(source, report, base + pos, problem if size > pos else "")


def end(source: Source, report: Report, offset: int, problem: Optional[str]) -> None:
    """Say how a source ended, and let go of it. A followed file's last packet is not cut but still being written."""
    if source.stopped:
        problem = None  # closed by the caller, who did not want the rest
    elif source.damage is not None:
        problem = f"{problem} ({source.damage})" if problem else source.damage
    elif source.follow and problem is not None and problem.startswith("the file ends"):
        problem = None
    # Closed before the warning, which may be turned into an exception.
    source.close()
    if problem:
        report.warn(offset, problem)
