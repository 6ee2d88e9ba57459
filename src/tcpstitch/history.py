"""The delivered bytes that later versions of them are compared with."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Iterator, List, Tuple

from .page import Mark

FREE_PIECES, BYTES_PER_PIECE = 8, 64  # how many packets a history tells apart: so many, and one for so many bytes
MOST_RUNS = 64  # that one segment is compared with: an honest one sent again lies over few gaps


class History:
    """The last bytes that a direction delivered, at most `bound`, and when each was captured.

    They lie in a ring, one behind the other, in pieces of one packet each; a gap lies between two. Places count from
    the first byte that was ever added: those from `_begin` to `_end` are in the ring. Small packets beyond the bound on
    pieces pass for the one before them. The first `_gone` pieces are no longer needed: they are removed together
    once they are more than an eighth of all, since removing one moves all that follow.
    """

    __slots__ = ("_begin", "_end", "_gone", "_offsets", "_places", "_ring", "_times")

    def __init__(self) -> None:
        self._ring = bytearray()
        self._begin = self._end = self._gone = 0
        self._offsets, self._places, self._times = array("q"), array("q"), array("d")

    def add(self, start: int, data: bytes, marks: List[Mark], bound: int) -> None:
        """Take in `data`, delivered at `start`, which came as `marks` say. O(data) amortised."""
        end = self._end + len(data)
        begin = end - bound
        if begin > self._begin:
            self._forget(min(self._end, begin))  # first: its pieces make room
        shift = start - self._end
        for (offset, timestamp, _), behind in zip(marks, [*marks[1:], None]):
            if behind is None or behind[0] - shift > begin:
                self._add_piece(offset, offset - shift, timestamp, bound)
        data = data[-bound:]
        needed = self._end - self._begin + len(data)
        if needed > len(self._ring):
            self._resize(max(needed, min(bound, 2 * len(self._ring))))
        _write(self._ring, end - len(data), data)
        self._end = end
        if begin > self._begin:
            self._forget(begin)

    def _add_piece(self, offset: int, place: int, timestamp: float, bound: int) -> None:
        offsets, places = self._offsets, self._places
        if len(places) - self._gone >= FREE_PIECES + bound // BYTES_PER_PIECE:
            if offset - place == offsets[-1] - places[-1]:
                return
            self._forget(places[self._gone + 1])  # behind a gap it has to be known: the oldest makes room
        offsets.append(offset)
        places.append(place)
        self._times.append(timestamp)

    def trim(self, bound: int) -> None:
        """Keep the last `bound` bytes, or fewer where their pieces are too many for that. O(1) amortised; O(bound)
        where it has become smaller."""
        begin = self._end - bound
        most = FREE_PIECES + bound // BYTES_PER_PIECE
        if len(self._places) - self._gone > most:
            begin = max(begin, self._places[-most])
        self._forget(begin)
        if len(self._ring) > bound:
            self._resize(bound)

    def _resize(self, size: int) -> None:
        data = self._read(self._begin, self._end)
        self._ring = bytearray(size)
        _write(self._ring, self._begin, data)

    def _forget(self, place: int) -> None:
        """What lies before `place`."""
        if place >= self._begin:
            self._begin = place
            self._gone = max(0, bisect_right(self._places, place) - 1)
            if self._gone > len(self._places) // 8:
                del self._offsets[: self._gone], self._places[: self._gone], self._times[: self._gone]
                self._gone = 0

    def within(self, start: int, end: int) -> Iterator[Tuple[int, bytes]]:
        """(offset, bytes) of what is known of `[start, end)`, in order, contiguous bytes together: the first
        `MOST_RUNS` of them. O(log pieces) for each, and their bytes."""
        offsets, places = self._offsets, self._places
        index = max(self._gone, bisect_right(offsets, start) - 1)
        most = bisect_left(offsets, end, index)
        for _ in range(MOST_RUNS):
            if index >= most:
                break
            shift = offsets[index] - places[index]
            low = max(start, shift + max(places[index], self._begin))
            index = self._run_end(index, most)
            high = min(end, shift + (places[index] if index < len(offsets) else self._end))
            if low < high:
                yield low, self._read(low - shift, high - shift)

    def _run_end(self, first: int, most: int) -> int:
        """The first piece behind a gap after the piece `first`; `most` if none of those before that is."""
        shift = self._offsets[first] - self._places[first]
        while first < most:  # from gap to gap a piece's offset and place lie farther apart
            middle = (first + most) // 2
            if self._offsets[middle] - self._places[middle] == shift:
                first = middle + 1
            else:
                most = middle
        return first

    def _read(self, begin: int, end: int) -> bytes:
        if begin == end:
            return b""
        ring = memoryview(self._ring)
        at, to = begin % len(ring), end % len(ring)
        return bytes(ring[at:to]) if at < to else b"".join((ring[at:], ring[:to]))

    def time_at(self, offset: int) -> float:
        """When the byte at `offset` was captured, which is one of those known. O(log pieces)."""
        return self._times[bisect_right(self._offsets, offset) - 1]


def _write(ring: bytearray, place: int, data: bytes) -> None:
    if data:
        at = place % len(ring)
        ahead = data[: len(ring) - at]
        ring[at : at + len(ahead)] = ahead
        ring[: len(data) - len(ahead)] = data[len(ahead) :]
