"""The shared pool of pages: who may take one, who has to give, and when memory goes back.

Pages lie in slabs, anonymous mmap regions, so that a released slab returns to the operating system at once whatever
the allocator does. The cache knows the owners of pages only as opaque objects with a place in the order of last
activity; it names a victim, and the assembler decides what happens to it. No user code runs in here.

Invariants (verified by `check`):
 1. used + free == allocated, and allocated is the number of slots in all slabs.
 2. Every page sits in exactly one slot of one slab, and the slot names it.
 3. `owner.page_count` sums to used, and the owners with pages are exactly those in the LRU order.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, Optional, Protocol, Set, Tuple

SLAB_BYTES = 1 << 20
RESERVE_SLABS = 2  # stays allocated against thrashing
MARKS_PER_PAGE = 8  # records of origin; beyond that they coarsen

Mark = Tuple[int, float, Any]  # offset of the first byte, capture time, user context


class Owner(Protocol):
    page_count: int


class Slab:
    __slots__ = ("memory", "slots", "vacant", "used")

    def __init__(self, page_size: int, count: int) -> None:
        self.memory = mmap.mmap(-1, page_size * count)
        self.slots: List[Optional[Page]] = [None] * count
        self.vacant = list(range(count - 1, -1, -1))
        self.used = 0


class Page:
    """One slot's worth of one direction's stream: the window `[base, limit)` and which of its bytes are here.

    The covered bytes are `[start, end)` while `mask` is None; else bit i of `mask` says that byte `base + i` is here
    and `[start, end)` is the hull.
    """

    __slots__ = ("slab", "slot", "owner", "base", "limit", "start", "end", "mask", "marks")

    def __init__(self, slab: Slab, slot: int, owner: Any) -> None:
        self.slab = slab
        self.slot = slot
        self.owner = owner
        self.base = self.limit = self.start = self.end = 0
        self.mask: Optional[int] = None
        self.marks: List[Mark] = []

    def place(self, base: int, limit: int) -> None:
        self.base = self.start = self.end = base
        self.limit = limit

    def pieces(self, start: int, end: int) -> Iterator[Tuple[int, int, bool]]:
        """`[start, end)` cut into (from, to, covered), in order. O(1), or O(pieces) on a page with holes."""
        if self.mask is None:
            for low, high, covered in (
                (start, min(end, self.start), False),
                (max(start, self.start), min(end, self.end), True),
                (max(start, self.end), end, False),
            ):
                if low < high:
                    yield low, high, covered
            return
        bits = self.mask >> (start - self.base)
        position = start
        while position < end:
            covered = bool(bits & 1)
            probe = ~bits if covered else bits
            run = (probe & -probe).bit_length() - 1 if probe else end - position
            stop = min(end, position + run)
            yield position, stop, covered
            bits >>= stop - position
            position = stop

    def read(self, start: int, end: int) -> bytes:
        memory = self.slab.memory
        at = self.slot * (len(memory) // len(self.slab.slots)) - self.base
        return memory[at + start : at + end]

    def write(self, start: int, data: bytes) -> None:
        memory = self.slab.memory
        at = self.slot * (len(memory) // len(self.slab.slots)) - self.base + start
        memory[at : at + len(data)] = data

    def cover(self, start: int, end: int) -> None:
        """Note that `[start, end)` is here now."""
        if self.start == self.end:
            self.start, self.end = start, end
            return
        if self.mask is None:
            if start <= self.end and end >= self.start:
                self.start = min(self.start, start)
                self.end = max(self.end, end)
                return
            self.mask = ((1 << (self.end - self.start)) - 1) << (self.start - self.base)
        self.mask |= ((1 << (end - start)) - 1) << (start - self.base)
        self.start = min(self.start, start)
        self.end = max(self.end, end)
        if self.mask == ((1 << (self.end - self.start)) - 1) << (self.start - self.base):
            self.mask = None

    def uncover_below(self, offset: int) -> None:
        """Forget the bytes below `offset`; some byte at or above it is here."""
        if self.mask is None:
            self.start = offset if offset > self.start else self.start
            return
        mask = self.mask >> max(0, offset - self.base) << max(0, offset - self.base)
        self.start = self.base + (mask & -mask).bit_length() - 1
        full = ((1 << (self.end - self.start)) - 1) << (self.start - self.base)
        self.mask = None if mask == full else mask

    def uncover_from(self, offset: int) -> None:
        """Forget the bytes at and above `offset`; some byte below it is here."""
        if self.mask is None:
            self.end = min(self.end, offset)
            return
        mask = self.mask & ((1 << (offset - self.base)) - 1)
        self.end = self.base + mask.bit_length()
        full = ((1 << (self.end - self.start)) - 1) << (self.start - self.base)
        self.mask = None if mask == full else mask

    def run_end(self, offset: int) -> int:
        """The end of the covered run that starts at `offset`, or `offset` if that byte is not here."""
        if not self.start <= offset < self.end:
            return offset
        if self.mask is None:
            return self.end
        probe = ~(self.mask >> (offset - self.base))
        return offset + (probe & -probe).bit_length() - 1

    def covered_bytes(self) -> int:
        return self.end - self.start if self.mask is None else bin(self.mask).count("1")

    def mark(self, mark: Mark) -> None:
        marks = self.marks
        if len(marks) < MARKS_PER_PAGE:
            marks.append(mark)
        elif mark[0] < marks[0][0]:  # the lowest byte always keeps its own record
            marks[0] = mark


class PageCache:
    """The pool. `max_pages` bounds the pages in use; `take` and `release` are O(1) but for slabs made or dropped."""

    def __init__(self, page_size: int, max_pages: int) -> None:
        self.page_size = page_size
        self.max_pages = max_pages
        self.pages_per_slab = max(1, SLAB_BYTES // page_size)
        self.used = 0
        self.peak = 0
        self.allocated = 0
        self._slabs: List[Slab] = []
        self._open: Dict[int, Slab] = {}  # slabs with vacant slots, by id; the newest is filled first
        self.lru: OrderedDict[Any, None] = OrderedDict()  # owners that hold pages, the longest idle first

    @property
    def free(self) -> int:
        return self.allocated - self.used

    def room(self) -> int:
        """How many pages may still be taken."""
        return self.max_pages - self.used

    def take(self, owner: Any) -> Page:
        """A page for `owner`. The caller has checked `room`."""
        if not self._open:
            slab = Slab(self.page_size, self.pages_per_slab)
            self._slabs.append(slab)
            self._open[id(slab)] = slab
            self.allocated += self.pages_per_slab
        slab = next(iter(self._open.values()))
        slot = slab.vacant.pop()
        if not slab.vacant:
            del self._open[id(slab)]
        page = Page(slab, slot, owner)
        slab.slots[slot] = page
        slab.used += 1
        self.used += 1
        if self.used > self.peak:
            self.peak = self.used
        if owner.page_count == 0:
            self.lru[owner] = None
        owner.page_count += 1
        return page

    def release(self, page: Page) -> None:
        """Give a page back; slabs beyond the reserve go back to the operating system as they empty."""
        self._vacate(page)
        self.used -= 1
        owner = page.owner
        owner.page_count -= 1
        if owner.page_count == 0:
            self.lru.pop(owner, None)
        # One slab's pages move only after as many were released: the cost per release stays constant.
        if self.free > max(self.used, RESERVE_SLABS * self.pages_per_slab) + self.pages_per_slab:
            self._compact()

    def _vacate(self, page: Page) -> None:
        slab = page.slab
        slab.slots[page.slot] = None
        slab.vacant.append(page.slot)
        slab.used -= 1
        self._open[id(slab)] = slab
        if slab.used == 0 and len(self._slabs) > RESERVE_SLABS:
            self._drop(slab)

    def _drop(self, slab: Slab) -> None:
        self._slabs.remove(slab)
        self._open.pop(id(slab), None)
        self.allocated -= self.pages_per_slab
        slab.memory.close()

    def _compact(self) -> None:
        """Move the pages of the emptiest slab into the others, so that a few long-lived pages pin no memory."""
        slab = min(self._slabs, key=lambda candidate: candidate.used)
        if self.free - len(slab.vacant) < slab.used:
            return
        self._open.pop(id(slab), None)
        for page in [page for page in slab.slots if page is not None]:
            data = page.read(page.base, page.base + self.page_size)
            target = next(iter(self._open.values()))
            slot = target.vacant.pop()
            if not target.vacant:
                del self._open[id(target)]
            target.slots[slot] = page
            target.used += 1
            page.slab, page.slot = target, slot
            page.write(page.base, data)
        self._drop(slab)

    def touch(self, owner: Any) -> None:
        """Make `owner` the most recently active. O(1)."""
        if owner in self.lru:
            self.lru.move_to_end(owner)

    def victim(self, speaker: Any) -> Optional[Any]:
        """The owner that has been idle longest; `speaker` only when nobody else holds a page. O(1)."""
        for owner in self.lru:
            if owner is not speaker:
                return owner
        return speaker if speaker in self.lru else None

    def check(self) -> None:
        """Verify the invariants above. O(pages)."""
        assert self.used + self.free == self.allocated == len(self._slabs) * self.pages_per_slab
        seen: Set[int] = set()
        counts: Dict[Any, int] = {}
        for slab in self._slabs:
            held = [(slot, page) for slot, page in enumerate(slab.slots) if page is not None]
            assert len(held) == slab.used == len(slab.slots) - len(slab.vacant)
            for slot, page in held:
                assert page.slab is slab and page.slot == slot and id(page) not in seen
                seen.add(id(page))
                counts[page.owner] = counts.get(page.owner, 0) + 1
        assert len(seen) == self.used <= self.max_pages
        assert set(counts) == set(self.lru)
        assert all(owner.page_count == count for owner, count in counts.items())
