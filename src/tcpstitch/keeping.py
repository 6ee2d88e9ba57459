"""What a handler holds back with `Chunk.keep_from`, inside the page bounds."""

from __future__ import annotations

from typing import Any, Optional

from .chunk import Chunk
from .overlap import Sent
from .reorder import ReorderQueue


class Keeping:
    """The part of a `HalfStream` that puts delivered bytes back."""

    __slots__ = ("keep_offset", "kept")

    keep_offset: Any
    kept: Optional[ReorderQueue]
    state: Any
    next_offset: int

    def keep(self, chunk: Chunk) -> None:
        """Put back what `keep_from` asked for, as far as the bounds allow."""
        offset = self.keep_offset
        self.keep_offset = None
        if offset is None:
            return
        host = self.state.host
        data = chunk.data[offset - chunk.offset :]
        room = host.kept_room(self.state) * host.pages.page_size
        if len(data) > room:
            host.counters.kept_bytes_dropped += len(data) - room
            data = data[len(data) - room :]
        if not data:
            return
        if self.kept is None:
            self.kept = ReorderQueue(host.pages, self.state, host.policies.default)
        start = self.next_offset - len(data)
        marks = chunk._marks or ((chunk.offset, chunk.timestamp, None),)
        first = max((mark for mark in marks if mark[0] <= start), key=lambda mark: mark[0], default=marks[0])
        self.kept.insert(start, data, Sent(start, self.next_offset, 0), first[1], first[2])
        for mark in marks:
            if mark[0] > start:
                self.kept.note_origin(*mark)

    def drop_kept(self) -> None:
        if self.kept:
            self.state.host.counters.kept_bytes_dropped += self.kept.buffered_bytes
            self.kept.clear()
