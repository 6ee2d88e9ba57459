"""A queue whose offsets count from elsewhere since the start of its stream was found, or was found anew: a peer that
offers one initial sequence number after the other makes nothing move."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

from .overlap import Conflict, Sent
from .page import Mark

Owners = List[Tuple[int, int, Sent]]


class Shifted:
    """Stands in for `queue`, whose offsets are higher by `ahead`. All that is O(1) more."""

    __slots__ = ("queue", "ahead")

    appends = False  # see ReorderQueue

    def __init__(self, queue: Any, ahead: int) -> None:
        self.queue = queue
        self.ahead = ahead

    def __bool__(self) -> bool:
        return bool(self.queue)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)  # what has no offsets

    def _sent(self, sent: Sent) -> Sent:
        return Sent(sent.start + self.ahead, sent.end + self.ahead, sent.arrival)

    def _owners(self, owners: Owners) -> Owners:
        by = self.ahead
        return [(low - by, high - by, Sent(a - by, b - by, arrival)) for low, high, (a, b, arrival) in owners]

    def _marks(self, marks: List[Mark]) -> List[Mark]:
        return [(offset - self.ahead, timestamp, context) for offset, timestamp, context in marks]

    def take_conflicts(self) -> Sequence[Conflict]:
        return [each._replace(offset=each.offset - self.ahead) for each in self.queue.take_conflicts()]

    @property
    def first_offset(self) -> int:
        offset: int = self.queue.first_offset
        return offset - self.ahead

    @property
    def end_offset(self) -> int:
        offset: int = self.queue.end_offset
        return offset - self.ahead

    def end_of_older(self, timestamp: float) -> Optional[int]:
        end: Optional[int] = self.queue.end_of_older(timestamp)
        return None if end is None else end - self.ahead

    def pages_needed(self, start: int, end: int) -> int:
        needed: int = self.queue.pages_needed(start + self.ahead, end + self.ahead)
        return needed

    def insert(self, start: int, data: bytes, sent: Sent, *rest: Any) -> int:
        added: int = self.queue.insert(start + self.ahead, data, self._sent(sent), *rest)
        return added

    def overlay(self, data: bytes, sent: Sent, mark: Mark) -> Tuple[bytes, List[Mark]]:
        start, timestamp, context = mark
        data, marks = self.queue.overlay(data, self._sent(sent), (start + self.ahead, timestamp, context))
        return data, self._marks(marks)

    def owners_under(self, start: int, end: int, sent: Sent) -> Owners:
        return self._owners(self.queue.owners_under(start + self.ahead, end + self.ahead, self._sent(sent)))

    def pop(self, offset: int, *, owners: Optional[Owners] = None) -> Tuple[bytes, List[Mark]]:
        found: Optional[Owners] = None if owners is None else []
        data, marks = self.queue.pop(offset + self.ahead, owners=found)
        if owners is not None and found:
            owners += self._owners(found)
        return data, self._marks(marks)

    def discard_below(self, offset: int) -> None:
        self.queue.discard_below(offset + self.ahead)

    def discard_from(self, offset: int) -> None:
        self.queue.discard_from(offset + self.ahead)


def shifted(queue: Any, delta: int) -> Any:
    """`queue` with offsets from `delta` bytes later. O(1)."""
    if queue.__class__ is Shifted:
        queue, delta = queue.queue, queue.ahead + delta
    return Shifted(queue, delta) if delta else queue
