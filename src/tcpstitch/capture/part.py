"""One source of a capture, and how several become one without all of them being open."""

from __future__ import annotations

import errno
import heapq
import os
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from ..errors import CaptureError
from . import pcap
from .report import ETHERNET, Begin, Record, Report
from .share import Share
from .source import Source


class Part:
    """A source that is known to be a capture. `records` opens it, if it is not open already.

    With `later`, a regular file is closed again as soon as its first packet's time is known: the files of a ring
    buffer may be thousands, of which hardly two overlap. The newest of them may be empty yet, which costs a warning.
    """

    def __init__(
        self, what: Any, shared: Optional[Report], later: bool, share: Optional[Share], follow: bool, *waits: Any
    ) -> None:
        self._arguments = (what, follow, *waits)
        self._closed = False
        self.start: Optional[float] = None
        self.source: Optional[Source] = Source(*self._arguments)
        self.report = Report(self.source.name, shared)
        self._begin: Optional[Begin] = None
        self._records: Optional[Iterator[Record]] = None
        self.block: Any = None
        try:
            # A pipe with a path cannot be read twice.
            if later and isinstance(what, (str, os.PathLike)) and what != "-" and os.path.isfile(what):
                probe = Report(self.source.name, quiet=True)
                first = next(find_reader(self.source, probe, None, True)[0](), None)
                self.start = None if first is None else first[0]
                self.report.linktype, self.report.fcs_bytes = probe.linktype, probe.fcs_bytes
                self.source.close()
                self.source = None
            else:
                self._begin, self.block = find_reader(self.source, self.report, share, later)
        except BaseException:
            self.close()
            raise

    def records(self) -> Iterator[Record]:
        """The packets that are left, also where an exception, of a signal's handler perhaps, ended a loop."""
        if self._closed:
            return self._records or iter(())
        if self._begin is None:
            self._begin = self._open_again()
        if self._records is None or getattr(self._records, "gi_frame", self) is None and not self.over:
            self._records = self._begin()
        return self._records

    def _open_again(self) -> Begin:
        """What was a capture when its first packet was read may be none any more: a ring's files are written over, and
        removed. That costs a warning, and not the packets of the others; too many open files are no fault of its."""
        try:
            self.source = Source(*self._arguments)
            return find_reader(self.source, self.report, None, True)[0]
        except CaptureError as error:
            self.close()
            if getattr(error.__cause__, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise
            reason = str(error).replace(f"{self.report.name}: ", "", 1)
            self.report.warn(0, f"since it was looked at first, it has changed: {reason}")
            return lambda: iter(())

    @property
    def over(self) -> bool:
        """Whether all was read, or it is closed."""
        return self._closed or self.source is not None and bool(self.source.stopped)

    def close(self) -> None:
        self._closed = True
        source = self.source  # which another thread may let go of
        if source is not None:
            source.close()

    def let_go(self) -> None:
        """All was read: close it, and hold no more of it, of which the buffers may be the whole file."""
        self.close()
        self.source = self.block = self._begin = self._records = None


def find_reader(
    source: Source, report: Report, share: Optional[Share] = None, may_be_empty: bool = False
) -> Tuple[Begin, Any]:
    """The packets of `source`, or of a share of it, and where it can be had the same in blocks; `CaptureError` if its
    format is unknown."""
    held = source.unpack(source.at_least(b"", pcap.HEADER_BYTES))
    if not held and may_be_empty and source.damage is None:
        source.end(report, 0, "the file is empty")
        return lambda: iter(()), None
    if held[:4] in pcap.MAGICS and len(held) >= pcap.HEADER_BYTES:
        return pcap.read_pcap(source, held, report, share)
    from . import pcapng, snoop  # here: most captures need neither

    if held[:4] == pcapng.MAGIC and len(held) >= 12 and pcapng.check_section(held):
        return pcapng.read_pcapng(source, held, report, share)
    if held[:8] == snoop.MAGIC and len(held) >= snoop.HEADER_BYTES:
        records = snoop.read_snoop(source, held, report)
        return records if share is None else lambda: share.of(records()), None
    if len(held) < pcap.HEADER_BYTES and held[:4] in (*pcap.MAGICS, pcapng.MAGIC, snoop.MAGIC[:4]):
        found = "ends inside the header of the file, before any packet"
    else:
        # As text where it is some: a web page, the pointer of a large file, the name of another format.
        begins = f"begins with {held[:16]!r}" if held else "is empty"
        found = f"is no pcap, pcapng or snoop capture: it {begins}"
    if source.damage is not None:
        found += f" ({source.damage})"
    raise CaptureError(f"{source.name}: {found}")


def merge(report: Report, parts: Sequence[Part]) -> Iterator[Record]:
    """Records in the order of time, equal times in the order of `parts`; each part in its own order."""
    waiting = [(part.start, index) for index, part in enumerate(parts) if part.start is not None]
    heapq.heapify(waiting)
    heads: List[Tuple[float, int, bytes, Iterator[Record]]] = []
    for index, part in enumerate(parts):
        if part.start is None:
            _begin(heads, index, part)
    while heads or waiting:
        while waiting and (not heads or waiting[0] <= heads[0][:2]):
            index = heapq.heappop(waiting)[1]
            _begin(heads, index, parts[index])
        if not heads:
            continue
        timestamp, index, packet, records = heads[0]
        report.linktype = getattr(packet, "linktype", ETHERNET)
        yield timestamp, packet
        following = next(records, None)
        if following is None:
            heapq.heappop(heads)
            parts[index].let_go()
        else:
            heapq.heapreplace(heads, (following[0], index, following[1], records))


def _begin(heads: List[Tuple[float, int, bytes, Iterator[Record]]], index: int, part: Part) -> None:
    records = part.records()
    record = next(records, None)
    if record is None:
        part.let_go()
    else:
        heapq.heappush(heads, (record[0], index, record[1], records))
