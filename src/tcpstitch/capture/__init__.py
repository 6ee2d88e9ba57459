"""Capture files, compressed or not, as an iterable of `(timestamp, packet)`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Type, Union

from ..errors import UsageError, are_seconds
from .part import Part, merge
from .report import Comment, Record, Report, make_packet, packet_class
from .share import Share

if TYPE_CHECKING:
    from typing import Protocol

    class BinaryFile(Protocol):
        """What has `read`: files, `gzip.GzipFile`, sockets' `makefile`, ..."""

        def read(self, size: int, /) -> Optional[bytes]: ...

    OneSource = Union[str, "os.PathLike[str]", BinaryFile]
    Sources = Union[OneSource, Sequence[OneSource]]

__all__ = ["Capture", "Comment", "Share", "make_packet", "open_capture", "packet_class"]

_DAY = 86400  # longer than some systems can wait at a time


class Capture:
    """Packets of one or several captures, to be iterated once; a context manager that closes what it opened.

    Yields `(timestamp, packet)`: seconds as a float and the captured bytes. Packets whose link type is not Ethernet
    are instances of a `bytes` subclass with the attribute `linktype`. Memory does not grow with the capture. A loop
    that an exception left goes on in the next one, also where a signal's handler raised it between two packets or
    during a wait for more.
    """

    def __init__(self, parts: Sequence[Part], share: Optional[Share] = None) -> None:
        self._parts = parts
        self._begun = self._closed = self._lent = False
        self._report = parts[0].report
        if len(parts) > 1:
            self._report = Report(", ".join(part.report.name for part in parts), parts[0].report)
            self._report.linktype = parts[0].report.linktype
            merged = merge(self._report, parts)
            self._merged = merged if share is None else share.of(merged)

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
        return self._parts[0].report.fcs_bytes

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

    def _begin(self) -> None:
        if self._closed and not self._begun:
            raise UsageError(f"{self.name}: the capture is closed, nothing was read of it: open it again")
        if self._lent:  # what is taken in place would come twice, or never
            raise UsageError(f"{self.name}: run() has its packets: to read on in a handler, use assemble() in a loop")
        self._begun = True

    def __iter__(self) -> Iterator[Record]:
        self._begin()
        if len(self._parts) == 1:
            return self._parts[0].records()
        if getattr(self._merged, "gi_frame", None) is None and not all(part.over for part in self._parts):
            raise UsageError(f"{self.name}: an exception ended the reading: open them again")
        return self._merged

    def packet_blocks(self) -> Iterator[Any]:
        """For `Assembler.run`, instead of iteration: pieces of the file, each to be used up before the next is asked
        for, and in pcapng (timestamp, packet) of what is not as usual. None where packets are no Ethernet frames as
        pcap and pcapng have them, or were taken already, or have to be counted for a share. Iteration gives what is
        left."""
        self._begin()
        block = self._parts[0].block if len(self._parts) == 1 else None
        if block is None or not block.usable or block.share is not None and block.share.counted:
            return
        if block.share is not None:
            block.share.block = block
        following: Any = block
        while following is not None:
            self._lent = True
            try:
                yield following
            finally:
                self._lent = False
            following = block.more()

    def close(self) -> None:
        """End the iteration, also one that waits for a followed file in another thread. May be called again. One that
        begins only then raises `UsageError`."""
        self._closed = True
        for part in self._parts:
            part.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Any, trace: Any) -> None:
        self.close()


def open_capture(
    source: Sources,
    follow: bool = False,
    *,
    poll_seconds: float = 0.2,
    idle_seconds: Optional[float] = None,
    share: Optional[Share] = None,
) -> Capture:
    """Open pcap, pcapng or snoop, plain or compressed with gzip, bz2, xz, zstd or lz4 (the last two are extras).

    `source` is a path, a binary file object, `"-"` for standard input, or a list of them, which is merged in the order
    of time while each keeps its own order; of regular files only those are open whose times overlap. With `follow` a
    single file that grows is waited for: looked at every `poll_seconds`, until `close` is called or nothing came for
    `idle_seconds` (None: wait for ever); a pipe as standard input ends with its writer all the same. This call waits in
    the same way for the header of a file that has none yet; a packet of which only a part came is no damage then. With
    `share` only packets of some connections come (see `tcpstitch.parallel`).

    Raises `CaptureError` if a source cannot be opened or is no capture, `UsageError` for an argument that cannot work.
    A capture that is cut or damaged gives its whole packets, then a `CaptureWarning`; an empty one among several gives
    just that.
    """
    wanted = checked_sources(source)
    if follow and len(wanted) > 1:
        raise UsageError("follow takes one source: merging cannot wait for several at once")
    if not (are_seconds(poll_seconds) and 0 < poll_seconds <= _DAY):
        raise UsageError(f"poll_seconds={poll_seconds!r}: give seconds above 0, a day of them at most")
    if idle_seconds is not None and not are_seconds(idle_seconds):
        raise UsageError(f"idle_seconds={idle_seconds!r}: give seconds of at least 0, or None for ever")
    if share is not None and not isinstance(share, Share):
        raise UsageError(f"share={share!r}: give a Share(index, count), or None for all packets")
    parts: List[Part] = []
    try:
        for what in wanted:
            shared = parts[0].report if parts else None
            own = share if len(wanted) == 1 else None
            idle = idle_seconds if follow else None
            parts.append(Part(what, shared, len(wanted) > 1, own, follow, poll_seconds, idle))
    except BaseException:
        for part in parts:
            part.close()
        raise
    return Capture(parts, share)


def checked_sources(source: Sources) -> List[Any]:
    """`source` as a list. Raises `UsageError` for what `open_capture` does not take."""
    wanted: List[Any] = list(source) if isinstance(source, (list, tuple)) else [source]
    if not wanted:
        raise UsageError("open_capture needs at least one source, the list is empty")
    for what in wanted:
        if not isinstance(what, (str, os.PathLike)) and not hasattr(what, "read"):
            advice = ""
            if isinstance(what, (bytes, bytearray, memoryview)):
                advice = ": wrap what a file holds in io.BytesIO, decode a path"
            elif hasattr(what, "__next__"):
                advice = ": make a list of the paths that it gives; packets are for Assembler.run"
            elif isinstance(what, tuple):
                advice = ": packets with their times are for Assembler.run"
            found = type(what).__name__ + advice
            raise UsageError(f"open_capture takes a path, a binary file object, '-' or a list of them, not {found}")
    if wanted.count("-") > 1:
        raise UsageError('standard input, "-", can be read once only')
    return wanted
