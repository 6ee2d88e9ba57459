"""Ranges of one direction that the snap length cut off: in the packets' headers, but not in the capture."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Tuple

FREE_CUTS = 16  # a direction remembers so many, and `CUTS_PER_PAGE` for each page that its connection holds
CUTS_PER_PAGE = 2


class Cuts:
    """Sorted ranges, a few bytes each. They are claims, and may overlap."""

    __slots__ = ("_starts", "_ends")

    def __init__(self) -> None:
        self._starts = array("q")
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._starts)

    def first(self) -> Tuple[int, int]:
        """The lowest range; only while there is one."""
        return self._starts[0], self._ends[0]

    def pop_first(self) -> None:
        del self._starts[0], self._ends[0]

    def add(self, start: int, end: int, most: int) -> None:
        """Remember `[start, end)`; of more than `most` ranges the highest is forgotten. O(ranges)."""
        index = bisect_right(self._starts, start)
        if index and self._starts[index - 1] == start and self._ends[index - 1] == end:
            return
        self._starts.insert(index, start)
        self._ends.insert(index, end)
        if len(self._starts) > most:
            del self._starts[-1], self._ends[-1]

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later."""
        self._starts = array("q", (start - delta for start in self._starts))
        self._ends = array("q", (end - delta for end in self._ends))
