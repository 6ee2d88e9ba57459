"""The delivered bytes that later versions of them are compared with."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Iterator, List, Tuple

from .page import Mark

FREE_PIECES, BYTES_PER_PIECE = 8, 64  # how many packets a history tells apart: so many, and one for so many bytes


class History:
    """The last bytes that a direction delivered, at most `bound`, and when each was captured.

    They lie one behind the other in pieces, of one packet each; a gap lies between two. `_places` counts from the first
    byte that was ever added, `_dropped` of which are gone. Small packets beyond the bound on pieces pass for the one
    before them.
    """

    __slots__ = ("_data", "_dropped", "_offsets", "_places", "_times")

    def __init__(self) -> None:
        self._data = b""
        self._dropped = 0
        self._offsets, self._places, self._times = array("q"), array("q"), array("d")

    def add(self, start: int, data: bytes, marks: List[Mark], bound: int) -> None:
        """Take in `data`, delivered at `start`, which came as `marks` say. O(bound)."""
        before = len(self._data)
        self._drop(min(before, before + len(data) - bound))  # first: its pieces make room
        place = self._dropped + len(self._data) - start
        oldest = start + len(data) - bound
        for (offset, timestamp, _), behind in zip(marks, [*marks[1:], None]):
            if behind is None or behind[0] > oldest:
                self._add_piece(offset, offset + place, timestamp, bound)
        self._data += data
        self.trim(bound)

    def _add_piece(self, offset: int, place: int, timestamp: float, bound: int) -> None:
        offsets, places = self._offsets, self._places
        if len(offsets) >= FREE_PIECES + bound // BYTES_PER_PIECE:
            if offset - place == offsets[-1] - places[-1]:
                return
            self._drop(places[1] - self._dropped)  # behind a gap it has to be known: the oldest makes room
        offsets.append(offset)
        places.append(place)
        self._times.append(timestamp)

    def trim(self, bound: int) -> None:
        """Keep the last `bound` bytes, or fewer where their pieces are too many for that. O(bound)."""
        excess = len(self._data) - bound
        most = FREE_PIECES + bound // BYTES_PER_PIECE
        if len(self._places) > most:
            excess = max(excess, self._places[-most] - self._dropped)
        self._drop(excess)

    def _drop(self, excess: int) -> None:
        if excess > 0:
            self._data = self._data[excess:]
            self._dropped += excess
            gone = max(0, bisect_right(self._places, self._dropped) - 1)
            del self._offsets[:gone], self._places[:gone], self._times[:gone]

    def within(self, start: int, end: int) -> Iterator[Tuple[int, bytes]]:
        """(offset, bytes) of what is known of `[start, end)`, in order, contiguous bytes together. O(end - start)."""
        offsets, places = self._offsets, self._places
        index = max(0, bisect_right(offsets, start) - 1)
        while index < len(offsets) and offsets[index] < end:
            shift = offsets[index] - places[index]
            low = max(start, shift + max(places[index], self._dropped))
            index += 1
            while index < len(offsets) and offsets[index] < end and offsets[index] - places[index] == shift:
                index += 1
            stop = places[index] if index < len(offsets) else self._dropped + len(self._data)
            high = min(end, shift + stop)
            if low < high:
                base = shift + self._dropped
                yield low, self._data[low - base : high - base]

    def time_at(self, offset: int) -> float:
        """When the byte at `offset` was captured, which is one of those known. O(log pieces)."""
        return self._times[bisect_right(self._offsets, offset) - 1]
