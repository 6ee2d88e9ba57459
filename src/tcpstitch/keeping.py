"""What a handler holds back with `Chunk.keep_from`, inside the page bounds.

Kept bytes stay in their pages while the handler sees them again, so that keeping them once more costs only the bytes
that are new. Showing them costs one copy of them per chunk, and the page limit of the connection bounds that.
"""

from __future__ import annotations

from array import array
from typing import Any, List, Optional, Sequence

from .chunk import Chunk, DetailedChunk, SplicedChunk
from .overlap import FIRST, Sent
from .page import Mark
from .reorder import ReorderQueue

MAX_REMOVED = 16  # places in what is kept; before the lowest that is known, offsets are too high where there were more


class Kept(ReorderQueue):
    """Kept bytes, without a hole: where an urgent byte was taken out between them, those before it lie at offsets that
    are too high by one."""

    __slots__ = ("removed",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.removed: Sequence[int] = ()  # the offsets of those bytes, sorted; some below what is kept now

    def close_up(self, offset: int) -> None:
        """Let what is kept end at `offset`, where the next bytes begin. O(pages) where a byte was taken out there."""
        gone = offset - self.end_offset
        if gone:
            self.shift(-gone)
            newest = range(max(offset - gone, offset - MAX_REMOVED), offset)
            self.removed = array("q", [*self.removed, *newest][-MAX_REMOVED:])

    def removed_inside(self) -> Sequence[int]:
        """Those between the bytes that are kept now, or behind them."""
        removed, offset = self.removed, self.first_offset
        known = len(removed)
        while known and removed[known - 1] >= offset:
            offset -= 1
            known -= 1
        return removed[known:]


class Keeping:
    """The part of a `HalfStream` that puts delivered bytes back."""

    __slots__ = ()

    kept: Any
    state: Any
    skip: int

    def make_chunk(
        self, data: bytes, offset: int, timestamp: float, marks: Optional[List[Mark]], start: bool, end: bool
    ) -> DetailedChunk:
        """`data` at `offset`, with what is kept before it; to be sent at once. O(bytes)."""
        kept = self.kept
        if not kept:
            return DetailedChunk(data, offset, timestamp, self, self.skip, start, end, tuple(marks or ()))
        kept.close_up(offset)
        self.state.host._counters.bytes -= kept.buffered_bytes  # which were counted when they came first
        parts, kept_marks = kept.peek()
        data = b"".join([*parts, data])
        marks = kept_marks + (marks or [(offset, timestamp, None)])
        rest = kept_marks[0][1], self, self.skip, start, end, tuple(marks)
        removed = kept.removed_inside()
        if not removed:
            return DetailedChunk(data, kept.first_offset, *rest)
        chunk = SplicedChunk(data, kept.first_offset - len(removed), *rest)
        chunk._removed = removed
        return chunk

    def keep(self, chunk: Chunk, offset: int) -> None:
        """Keep what lies at and behind `offset` of the chunk, as far as the bounds allow. O(bytes not kept before)."""
        host = self.state.host
        if self.kept is None:
            self.kept = Kept(host._pages, self.state, FIRST)  # its bytes never overlap
        kept = self.kept
        start, end, page_size = chunk._base, chunk._base + len(chunk.data), host._pages.page_size
        if kept:
            start = kept.end_offset
            kept.discard_below(offset)
        start = max(start, offset)
        while start < end:
            room = host._kept_room(self.state)
            missing = kept.pages_needed(start, end) - room
            if missing <= 0:
                break
            if kept:
                host._counters.kept_bytes_dropped += kept.drop_pages(missing)
            else:  # pages lie on a grid: from its next line on it may be one page less
                fits = min(end, max(end - room * page_size, start + page_size - start % page_size))
                host._counters.kept_bytes_dropped += fits - start
                start = fits
        if start < end:
            self._append(chunk, start, end)

    def _append(self, chunk: Chunk, start: int, end: int) -> None:
        marks = chunk._marks or ((chunk.offset, chunk.timestamp, None),)
        first = max((mark for mark in marks if mark[0] <= start), key=lambda mark: mark[0], default=marks[0])
        self.kept.insert(start, chunk.data[start - chunk._base :], Sent(start, end, 0), first[1], first[2])
        self.kept.note_origins([mark for mark in marks if mark[0] > start], end)

    def drop_kept(self) -> None:
        if self.kept:
            self.state.host._counters.kept_bytes_dropped += self.kept.buffered_bytes
            self.kept.clear()
