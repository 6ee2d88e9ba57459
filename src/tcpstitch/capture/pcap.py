"""pcap files (draft-ietf-opsawg-pcap) and the variant with 24-byte record headers."""

from __future__ import annotations

import struct
from typing import Any, Callable, Iterator, Optional, Tuple, Type

from .report import MAX_RECORD, Record, Report, packet_class
from .source import Source

HEADER_BYTES = 24
# magic: (byte order, seconds per unit of the fraction, bytes of a record's header)
MAGICS = {
    magic.to_bytes(4, "little" if order == "<" else "big"): (order, scale, size)
    for magic, scale, size in ((0xA1B2C3D4, 1e-6, 16), (0xA1B23C4D, 1e-9, 16), (0xA1B2CD34, 1e-6, 24))
    for order in "<>"
}


def read_pcap(source: Source, held: bytes, report: Report) -> Iterator[Record]:
    """Packets of a pcap file whose first bytes, at least `HEADER_BYTES`, are `held`. Reads 256 KiB at a time."""
    order, scale, head = MAGICS[held[:4]]
    _, minor, _, _, _, network = struct.unpack_from(order + "HHiIII", held, 4)
    linktype = report.linktype = network & 0xFFFF
    if network & 0x04000000:
        report.fcs_bytes = (network >> 28) * 2
    # Before version 2.3 the two lengths stood the other way round.
    fields = "IIxxxxI" if minor < 3 else "IIIxxxx"
    unpack = struct.Struct(f"{order}{fields}{head - 16}x").unpack_from
    make = None if packet_class(linktype) is bytes else packet_class(linktype)
    return _records(source, held, report, unpack, scale, head, make)


def _records(
    source: Source,
    held: bytes,
    report: Report,
    unpack: Callable[[bytes, int], Tuple[Any, ...]],
    scale: float,
    head: int,
    make: Optional[Type[bytes]],
) -> Iterator[Record]:
    base = 0  # offset in the file of buffer[0]
    buffer = held
    pos = HEADER_BYTES
    problem: Optional[str] = None
    while problem is None:
        size = len(buffer)
        last = size - head
        need = head
        while pos <= last:
            seconds, fraction, length = unpack(buffer, pos)
            start = pos + head
            stop = start + length
            if stop > size:
                need = head + length
                break
            if make is None:
                yield seconds + fraction * scale, buffer[start:stop]
            else:
                yield seconds + fraction * scale, make(buffer[start:stop])
            pos = stop
        have = size - pos
        if need > MAX_RECORD:
            problem = f"a packet of {need - head} bytes is claimed: damaged, the rest is not read"
        elif not source.can_hold(need - have):
            problem = "the file ends in the middle of a packet"
        else:
            base += pos
            buffer = source.at_least(buffer[pos:], need)
            pos = 0
            if len(buffer) < need:
                problem = "the file ends in the middle of a packet" if buffer else ""
    end(source, report, base + pos, problem if len(buffer) > pos else "")


def end(source: Source, report: Report, offset: int, problem: Optional[str]) -> None:
    """Say how a source ended. A followed file's last packet is not cut but still being written."""
    if source.damage is not None:
        problem = f"{problem} ({source.damage})" if problem else source.damage
    elif source.follow and problem is not None and problem.startswith("the file ends"):
        return
    if problem:
        report.warn(offset, problem)
