"""snoop files (RFC 1761)."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, Iterator, List

from .report import CUT, MAX_RECORD, Begin, Record, Report, packet_class
from .source import Source

MAGIC = b"snoop\0\0\0"
HEADER_BYTES = 16
# RFC 1761's datalink codes and Solaris' later ones (sys/dlpi.h), as pcap link types.
LINKTYPES = {0: 1, 2: 6, 4: 1, 5: 104, 8: 10, 18: 123, 0x18: 1, 0x19: 1, 0x80000005: 226}
_RECORD = struct.Struct(">xxxxIIxxxxII")


def read_snoop(source: Source, held: bytes, report: Report) -> Begin:
    """Packets of a snoop file whose first bytes are `held`."""
    datalink = int.from_bytes(held[12:16], "big")
    # Unknown codes lie outside of pcap's range, so that they are not taken for something else.
    report.linktype = LINKTYPES.get(datalink, 0x10000 + datalink)
    return partial(_records, source, [held, HEADER_BYTES, 0], report)


def _records(source: Source, place: List[Any], report: Report) -> Iterator[Record]:
    make = packet_class(report.linktype)
    buffer, pos, base = place
    head = _RECORD.size
    problem = ""
    while True:
        need = head
        if len(buffer) - pos >= head:
            length, record, seconds, micros = _RECORD.unpack_from(buffer, pos)
            if record < head + length or record > MAX_RECORD:
                problem = f"a record of {record} bytes is claimed for {length}: damaged, the rest is not read"
                break
            need = record
            if len(buffer) - pos >= need:
                start = pos + head
                data = buffer[start : start + length]
                place[1] = pos = pos + record  # for an exception that ends the loop
                yield seconds + micros * 1e-6, data if make is bytes else make(data)
                continue
        if not source.can_hold(need - (len(buffer) - pos)):
            problem = CUT + "packet"
            break
        base += pos
        buffer, pos = buffer[pos:], 0
        place[:] = buffer, pos, base  # or the wait
        buffer = source.at_least(buffer, need)
        if len(buffer) < need:
            problem = CUT + "packet"
            break
    source.end(report, base + pos, problem if len(buffer) > pos or source.unread() else "")
