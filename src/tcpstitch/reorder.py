"""One direction's out-of-order data, in pages, sorted by offset.

A page is a window of the stream, so bytes that arrive in any order, one by one, backwards or with holes, share it.
The first few segments of a connection take a page each, as in gopacket, so that limits of a handful of pages mean
the same here; from `PACK_FROM` pages on, segments are packed.

Invariants (verified by `check`): pages are sorted by base, their windows are disjoint, none is empty.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, List, NamedTuple, Optional, Tuple

from .overlap import OwnerMap, Policy, Sent
from .pages import Mark, Page, PageCache

PACK_FROM = 4
POP_PAGES = 32


def _offset(mark: Mark) -> int:
    return mark[0]


class Conflict(NamedTuple):
    """Two segments with different bytes for `[offset, offset + len(old))`."""

    offset: int
    old: bytes
    new: bytes
    old_timestamp: float


class ReorderQueue:
    """Buffered bytes of one direction. Inserting costs O(log n + k) for n pages and k overlapped ones."""

    __slots__ = ("_cache", "_owner", "_policy", "_bases", "_pages", "_owners", "buffered_bytes", "conflicts")

    def __init__(self, cache: PageCache, owner: Any, policy: Policy) -> None:
        self._cache = cache
        self._owner = owner
        self._policy = policy
        self._bases: List[int] = []
        self._pages: List[Page] = []
        self._owners: Optional[OwnerMap] = OwnerMap() if policy.needs_owner else None
        self.buffered_bytes = 0
        self.conflicts: List[Conflict] = []  # filled by insert and overlay, emptied by the caller

    def __bool__(self) -> bool:
        return bool(self._pages)

    @property
    def page_count(self) -> int:
        return len(self._pages)

    @property
    def first_offset(self) -> int:
        """The lowest buffered offset; only while not empty."""
        return self._pages[0].start

    @property
    def end_offset(self) -> int:
        """The end of the highest buffered byte; only while not empty."""
        return self._pages[-1].end

    @property
    def first_timestamp(self) -> float:
        """Capture time at which the lowest buffered bytes came; only while not empty."""
        return self._pages[0].marks[0][1]

    def oldest_timestamp(self) -> float:
        """The earliest capture time among what is buffered. O(pages)."""
        return min(mark[1] for page in self._pages for mark in page.marks)

    def pages_needed(self, start: int, end: int) -> int:
        """The pages that inserting `[start, end)` takes. O(log n + k)."""
        held = self._owner.page_count
        needed = 0
        position = start
        while position < end:
            page, position = self._window(position, held + needed >= PACK_FROM)
            if page is None:
                needed += 1
        return needed

    def _window(self, position: int, packing: bool) -> Tuple[Optional[Page], int]:
        """The page that takes the byte at `position` and the end of its window; or None and where a new one ends."""
        index = bisect_right(self._bases, position) - 1
        if index >= 0:
            page = self._pages[index]
            if position < page.limit and (packing or position < page.end):
                return page, page.limit
        limit = self._new_base(position, index, packing) + self._cache.page_size
        if index + 1 < len(self._bases):
            limit = min(limit, self._bases[index + 1])
        return None, limit

    def _new_base(self, position: int, index: int, packing: bool) -> int:
        """Where a new window that holds `position` starts: on a grid, so that earlier bytes find room too."""
        if not packing:
            return position
        base = position - position % self._cache.page_size
        return max(base, self._pages[index].limit) if index >= 0 else base

    def _add_page(self, position: int) -> Page:
        index = bisect_right(self._bases, position) - 1
        base = self._new_base(position, index, self._owner.page_count >= PACK_FROM)
        if index >= 0 and self._pages[index].limit > base:
            self._pages[index].limit = base
        limit = base + self._cache.page_size
        if index + 1 < len(self._bases):
            limit = min(limit, self._bases[index + 1])
        page = self._cache.take(self._owner)
        page.place(base, limit)
        self._bases.insert(index + 1, base)
        self._pages.insert(index + 1, page)
        return page

    def insert(self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any = None) -> int:
        """Buffer `data` at `start`; returns how many bytes were new. The caller has seen to `pages_needed`.

        Where bytes are here already the policy decides, and what differs is noted in `conflicts`.
        """
        end = start + len(data)
        mark = (start, timestamp, context)
        position = start
        added = 0
        while position < end:
            page, stop = self._window(position, self._owner.page_count >= PACK_FROM)
            if page is None:
                page = self._add_page(position)
            stop = min(stop, end)
            added += self._insert_in_page(page, position, stop, data[position - start : stop - start], sent, mark)
            position = stop
        self.buffered_bytes += added
        return added

    def _insert_in_page(self, page: Page, start: int, end: int, data: bytes, sent: Sent, mark: Mark) -> int:
        added = 0
        owners = self._owners
        for low, high, covered in list(page.pieces(start, end)):
            piece = data[low - start : high - start]
            if not covered:
                page.write(low, piece)
                page.mark((max(low, mark[0]), mark[1], mark[2]))
                page.cover(low, high)
                added += high - low
                if owners is not None:
                    owners.assign(low, high, sent)
                continue
            self._note_conflict(page, low, high, piece)
            for sub_low, sub_high in self._won(low, high, sent):
                page.write(sub_low, piece[sub_low - low : sub_high - low])
                if owners is not None:
                    owners.assign(sub_low, sub_high, sent)
        return added

    def _won(self, start: int, end: int, sent: Sent) -> List[Tuple[int, int]]:
        """The parts of the covered range `[start, end)` whose bytes the arriving segment owns."""
        wins = self._policy.new_wins
        if self._owners is None:
            return [(start, end)] if wins(sent, sent) else []
        return [(low, high) for low, high, old in self._owners.within(start, end) if wins(old, sent)]

    def _note_conflict(self, page: Page, start: int, end: int, new: bytes) -> None:
        old = page.read(start, end)
        if old != new:
            first = next(i for i in range(len(old)) if old[i] != new[i])
            last = next(i for i in range(len(old), 0, -1) if old[i - 1] != new[i - 1])
            timestamp = max((mark for mark in page.marks if mark[0] <= start), key=_offset, default=page.marks[0])[1]
            self.conflicts.append(Conflict(start + first, old[first:last], new[first:last], timestamp))

    def add_mark(self, mark: Mark) -> None:
        """Note where the buffered byte at `mark`'s offset came from."""
        self._pages[max(bisect_right(self._bases, mark[0]) - 1, 0)].mark(mark)

    def overlay(self, start: int, data: bytes, sent: Sent) -> bytes:
        """`data` as it is to be delivered now, after the policy chose between it and what is buffered."""
        end = start + len(data)
        merged: Optional[bytearray] = None
        for page in self._touched(start, end):
            for low, high, covered in page.pieces(max(start, page.base), min(end, page.limit)):
                if not covered:
                    continue
                piece = data[low - start : high - start]
                self._note_conflict(page, low, high, piece)
                lost = [(low, high)]
                for won_low, won_high in self._won(low, high, sent):
                    lost = [part for a, b in lost for part in ((a, min(b, won_low)), (max(a, won_high), b))]
                for a, b in lost:
                    if a < b:
                        merged = bytearray(data) if merged is None else merged
                        merged[a - start : b - start] = page.read(a, b)
        return data if merged is None else bytes(merged)

    def _touched(self, start: int, end: int) -> List[Page]:
        index = max(bisect_right(self._bases, start) - 1, 0)
        found = []
        for page in self._pages[index:]:
            if page.base >= end:
                break
            if page.limit > start:
                found.append(page)
        return found

    def pop(self, offset: int) -> Tuple[bytes, List[Mark]]:
        """Take contiguous bytes from `offset` on out of the queue: (bytes, marks), empty if there are none.

        At most `POP_PAGES` pages at a time, so that draining a full queue does not hold its bytes twice.
        """
        parts: List[bytes] = []
        marks: List[Mark] = []
        position = offset
        done = 0
        for page in self._pages:
            if page.start > position or done == POP_PAGES:
                break
            stop = page.run_end(position)
            if stop == position:
                break
            parts.append(page.read(position, stop))
            marks.extend(sorted(page.marks, key=_offset))
            position = stop
            if stop < page.end:
                page.uncover_below(stop)
                break
            done += 1
        self._release_first(done)
        self.buffered_bytes -= position - offset
        if self._owners is not None:
            self._owners.discard_below(position)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), marks

    def _release_first(self, count: int) -> None:
        if count:
            for page in self._pages[:count]:
                self._cache.release(page)
            del self._pages[:count], self._bases[:count]

    def discard_below(self, offset: int) -> None:
        """Drop what is buffered below `offset`."""
        done = 0
        for page in self._pages:
            if page.start >= offset:
                break
            before = page.covered_bytes()
            if page.end <= offset:
                self.buffered_bytes -= before
                done += 1
                continue
            page.uncover_below(offset)
            self.buffered_bytes -= before - page.covered_bytes()
            break
        self._release_first(done)
        if self._owners is not None:
            self._owners.discard_below(offset)

    def discard_from(self, offset: int) -> int:
        """Drop what is buffered at or above `offset`; returns the bytes dropped."""
        before = self.buffered_bytes
        while self._pages and self._pages[-1].end > offset:
            page = self._pages[-1]
            covered = page.covered_bytes()
            if page.start < offset:
                page.uncover_from(offset)
                self.buffered_bytes -= covered - page.covered_bytes()
                break
            self.buffered_bytes -= covered
            self._cache.release(self._pages.pop())
            self._bases.pop()
        return before - self.buffered_bytes

    def clear(self) -> None:
        """Drop everything."""
        self._release_first(len(self._pages))
        self.buffered_bytes = 0
        if self._owners is not None:
            self._owners = OwnerMap()

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later: once the start of a stream is known. O(pages)."""
        for page in self._pages:
            page.base -= delta
            page.limit -= delta
            page.start -= delta
            page.end -= delta
            page.marks = [(offset - delta, timestamp, context) for offset, timestamp, context in page.marks]
        self._bases = [base - delta for base in self._bases]
        if self._owners is not None:
            self._owners.shift(delta)

    def drop_first_page(self) -> int:
        """Drop the page with the lowest offsets; returns the bytes dropped."""
        dropped = self._pages[0].covered_bytes()
        self._release_first(1)
        self.buffered_bytes -= dropped
        return dropped

    def check(self) -> None:
        """Verify the invariants above. O(pages)."""
        assert self._bases == [page.base for page in self._pages] == sorted(set(self._bases))
        for page, following in zip(self._pages, self._pages[1:]):
            assert page.end <= page.limit <= following.base
        assert all(page.base <= page.start < page.end <= page.limit for page in self._pages)
        assert self.buffered_bytes == sum(page.covered_bytes() for page in self._pages)
