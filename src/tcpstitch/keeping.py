"""What a handler holds back with `Chunk.keep_from`, inside the page bounds."""

from __future__ import annotations

from typing import Any

from .chunk import Chunk
from .overlap import Sent
from .reorder import ReorderQueue


class Keeping:
    """The part of a `HalfStream` that puts delivered bytes back."""

    __slots__ = ()

    kept: Any
    state: Any
    next_offset: int

    def keep(self, chunk: Chunk, offset: int) -> None:
        """Put back what lies at and behind `offset` of the chunk, as far as the bounds allow."""
        host = self.state.host
        end = self.next_offset
        kept = self.kept if self.kept is not None else ReorderQueue(host.pages, self.state, host.policies.default)
        pages = host.kept_room(self.state)
        start = max(offset, end - pages * host.pages.page_size)
        if start < end and kept.pages_needed(start, end) > pages:
            start += host.pages.page_size - start % host.pages.page_size  # pages lie on a grid: one page less
        start = min(start, end)
        host.counters.kept_bytes_dropped += start - offset
        if start == end:
            return
        self.kept = kept
        data = chunk.data[start - chunk.offset :]
        marks = chunk._marks or ((chunk.offset, chunk.timestamp, None),)
        first = max((mark for mark in marks if mark[0] <= start), key=lambda mark: mark[0], default=marks[0])
        kept.insert(start, data, Sent(start, end, 0), first[1], first[2])
        for mark in marks:
            if mark[0] > start:
                kept.note_origin(*mark)

    def drop_kept(self) -> None:
        if self.kept:
            self.state.host.counters.kept_bytes_dropped += self.kept.buffered_bytes
            self.kept.clear()
