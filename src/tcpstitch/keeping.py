"""What a handler holds back with `Chunk.keep_from`, inside the page bounds.

Kept bytes stay in their pages while the handler sees them again, so that keeping them once more costs only the bytes
that are new. Showing them costs one copy of them per chunk, and the page limit of the connection bounds that.
"""

from __future__ import annotations

from typing import Any, List, Tuple

from .chunk import Chunk
from .overlap import Sent, policy_named
from .page import Mark
from .reorder import ReorderQueue

_FIRST = policy_named("first")  # kept bytes never overlap, so nothing needs to be known about who owns them


class Keeping:
    """The part of a `HalfStream` that puts delivered bytes back."""

    __slots__ = ()

    kept: Any
    state: Any

    def with_kept(self, data: bytes, offset: int, timestamp: float, marks: List[Mark]) -> Tuple[bytes, List[Mark]]:
        """`data`, which starts at `offset`, with what is kept before it. O(bytes)."""
        parts, kept_marks = self.kept.peek()
        return b"".join([*parts, data]), kept_marks + (marks or [(offset, timestamp, None)])

    def keep(self, chunk: Chunk, offset: int) -> None:
        """Keep what lies at and behind `offset` of the chunk, as far as the bounds allow. O(bytes not kept before)."""
        host = self.state.host
        if self.kept is None:
            self.kept = ReorderQueue(host.pages, self.state, _FIRST)
        kept = self.kept
        start, end, page_size = chunk.offset, chunk.offset + len(chunk.data), host.pages.page_size
        if kept:
            start = kept.end_offset
            kept.discard_below(offset)
        start = max(start, offset)
        while start < end:
            room = host.kept_room(self.state)
            missing = kept.pages_needed(start, end) - room
            if missing <= 0:
                break
            if kept:
                host.counters.kept_bytes_dropped += kept.drop_pages(missing)
            else:  # pages lie on a grid: from its next line on it may be one page less
                fits = min(end, max(end - room * page_size, start + page_size - start % page_size))
                host.counters.kept_bytes_dropped += fits - start
                start = fits
        if start < end:
            self._append(chunk, start, end)

    def _append(self, chunk: Chunk, start: int, end: int) -> None:
        marks = chunk._marks or ((chunk.offset, chunk.timestamp, None),)
        first = max((mark for mark in marks if mark[0] <= start), key=lambda mark: mark[0], default=marks[0])
        self.kept.insert(start, chunk.data[start - chunk.offset :], Sent(start, end, 0), first[1], first[2])
        self.kept.note_origins([mark for mark in marks if mark[0] > start], end)

    def drop_kept(self) -> None:
        if self.kept:
            self.state.host.counters.kept_bytes_dropped += self.kept.buffered_bytes
            self.kept.clear()
