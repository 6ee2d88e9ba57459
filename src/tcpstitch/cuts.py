"""Ranges of one direction that the snap length cut off: in the packets' headers, but not in the capture."""

from __future__ import annotations

from array import array
from typing import Any, Tuple

FREE_CUTS = 4  # a direction remembers so many, and `CUTS_PER_PAGE` for each page that its connection holds
CUTS_PER_PAGE = 2


class Cuts(array):  # type: ignore[type-arg]  # one object and not two: many connections may have such ranges
    """Sorted ranges, as start, end, start, end, ... They are claims, and may overlap. Numbers in the array
    are offsets and `ahead`, so that offsets may count from elsewhere at no cost."""

    __slots__ = ("ahead", "room")

    ahead: int
    room: int  # the most numbers that it had

    def __new__(cls) -> Cuts:
        cuts: Any = super().__new__(cls, "q")
        cuts.ahead = cuts.room = 0
        return cuts  # type: ignore[no-any-return]

    def first(self) -> Tuple[int, int]:
        """The lowest range; only while there is one."""
        return self[0] - self.ahead, self[1] - self.ahead

    def end(self) -> int:
        """The highest end; -1 without ranges. O(ranges)."""
        return max(self[1::2], default=self.ahead - 1) - self.ahead

    def pop_first(self) -> None:
        del self[:2]

    def add(self, start: int, end: int, most: int) -> None:
        """Remember `[start, end)`; of more than `most` ranges the highest is forgotten. O(ranges)."""
        start, end = start + self.ahead, end + self.ahead
        low, high = 0, len(self) // 2
        while low < high:
            middle = (low + high) // 2
            if self[2 * middle] > start:
                high = middle
            else:
                low = middle + 1
        index = 2 * low
        if index >= 2 * most or index and self[index - 2] == start and self[index - 1] == end:
            return
        del self[2 * most - 2 :]
        self[index:index] = array("q", (start, end))
        self.room = max(self.room, len(self))

    def fitting(self, most: int) -> Any:
        """These, or the `most` lowest where there are or were more: an array that shrinks bit by bit keeps its room.
        O(1), or O(ranges)."""
        if self.room <= 2 * most:
            return self
        fewer = Cuts()
        fewer.ahead = self.ahead
        fewer.extend(self[: 2 * most])
        fewer.room = len(fewer)
        return fewer if fewer else ()

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later. O(1)."""
        self.ahead += delta
