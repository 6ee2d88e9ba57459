"""Capture files, compressed or not, as an iterable of `(timestamp, packet)`."""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Type

from ..errors import CaptureError, UsageError
from . import pcap, pcapng, snoop
from .report import ETHERNET, Comment, Record, Report, make_packet, packet_class
from .source import Source

__all__ = ["Capture", "Comment", "make_packet", "open_capture", "packet_class"]


class Capture:
    """Packets of one or several captures, to be iterated once; a context manager that closes what it opened.

    Yields `(timestamp, packet)`: seconds as a float and the captured bytes. Packets whose link type is not Ethernet
    are instances of a `bytes` subclass with the attribute `linktype`. Memory does not grow with the capture.
    """

    def __init__(self, parts: Sequence[Tuple[Source, Report, Iterator[Record]]]) -> None:
        self._parts = parts
        self._merged: Optional[Report] = None
        self._records = parts[0][2]
        if len(parts) > 1:
            first = parts[0][1]
            self._merged = Report(", ".join(report.name for _, report, _ in parts), first)
            self._merged.linktype = first.linktype
            self._records = _merge(self._merged, [records for _, _, records in parts])
        self._report = self._merged or parts[0][1]

    @property
    def name(self) -> str:
        """The path, `standard input`, or the file object's name; several are joined by commas."""
        return self._report.name

    @property
    def linktype(self) -> int:
        """Link type of the packet that came last; before the first one, what the file's header says, if it does."""
        return self._report.linktype

    @property
    def fcs_bytes(self) -> Optional[int]:
        """Bytes of frame check sequence behind each packet, where a pcap header states it."""
        return self._parts[0][1].fcs_bytes

    @property
    def comments(self) -> List[Comment]:
        """pcapng comments met so far, the first 1000, each cut to 4096 bytes."""
        return self._report.comments

    @property
    def names(self) -> Dict[str, str]:
        """Host names by address from pcapng name resolution blocks met so far, the first 10000."""
        return self._report.names

    @property
    def warnings(self) -> List[str]:
        """What was damaged or cut so far, the first 100; each was a `CaptureWarning` too."""
        return self._report.warnings

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def close(self) -> None:
        """End the iteration, also one that waits for a followed file in another thread. May be called again."""
        for source, _, _ in self._parts:
            source.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Any, trace: Any) -> None:
        self.close()


def open_capture(
    source: Any, follow: bool = False, *, poll_seconds: float = 0.2, idle_seconds: Optional[float] = None
) -> Capture:
    """Open pcap, pcapng or snoop, plain or compressed with gzip, bz2, xz, zstd or lz4 (the last two are extras).

    `source` is a path, a binary file object, `"-"` for standard input, or a list of them, which is merged in the order
    of time while each keeps its own order. With `follow` a file that grows is waited for: looked at every
    `poll_seconds`, until `close` is called or nothing came for `idle_seconds` (None: wait for ever).

    Raises `CaptureError` if a source cannot be opened or is no capture, `UsageError` for an argument that cannot work.
    A capture that is cut or damaged gives its whole packets, then a `CaptureWarning`.
    """
    several = isinstance(source, (list, tuple))
    wanted = list(source) if several else [source]
    if not wanted:
        raise UsageError("open_capture needs at least one source, the list is empty")
    if follow and len(wanted) > 1:
        raise UsageError("follow takes one source: merging cannot wait for several at once")
    if poll_seconds <= 0:
        raise UsageError("poll_seconds must be positive")
    parts: List[Tuple[Source, Report, Iterator[Record]]] = []
    opened: List[Source] = []
    try:
        for what in wanted:
            one = Source(what, follow, poll_seconds, idle_seconds if follow else None)
            opened.append(one)
            report = Report(one.name, parts[0][1] if parts else None)
            parts.append((one, report, _reader(one, report)))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return Capture(parts)


def _reader(source: Source, report: Report) -> Iterator[Record]:
    held = source.unpack(source.at_least(b"", pcap.HEADER_BYTES))
    if held[:4] in pcap.MAGICS and len(held) >= pcap.HEADER_BYTES:
        return pcap.read_pcap(source, held, report)
    if held[:4] == pcapng.MAGIC and len(held) >= 12 and pcapng.check_section(held):
        return pcapng.read_pcapng(source, held, report)
    if held[:8] == snoop.MAGIC and len(held) >= snoop.HEADER_BYTES:
        return snoop.read_snoop(source, held, report)
    found = f"it begins with {held[:16].hex(' ')}" if held else "it is empty"
    if source.damage is not None:
        found += f" ({source.damage})"
    raise CaptureError(f"{source.name}: is no pcap, pcapng or snoop capture: {found}")


def _merge(report: Report, records: List[Iterator[Record]]) -> Iterator[Record]:
    for record in heapq.merge(*records, key=itemgetter(0)):
        report.linktype = getattr(record[1], "linktype", ETHERNET)
        yield record
