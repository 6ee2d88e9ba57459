"""The shared pool of pages: who may take one, who has to give, and when memory goes back.

Pages lie in slabs, anonymous mmap regions, so that a released slab returns to the operating system at once whatever
the allocator does. The cache knows the owners of pages only as opaque objects with a place in the order of last
activity; it names a victim, and the assembler decides what happens to it. No user code runs in here.

What grows with traffic but lies outside of the slabs is charged in whole pages, so that one bound covers both.

Invariants (verified by `check`):
 1. used + free == allocated; allocated is the number of slots in all slabs plus the charged pages, used the number of
    pages taken plus the charged pages.
 2. Every page sits in exactly one slot of one slab, and the slot names it.
 3. `owner.page_count` sums to used, and the owners with pages are exactly those in the LRU order.
 4. After any release, the slots beyond the pages in them are at most as many as these, or the reserve, plus one slab.
 5. allocated exceeds `max_pages` by less than two slabs, and slabs are no larger than the bound asks for (where it has
    become smaller: once `fit` was called).
"""

from __future__ import annotations

import mmap
from array import array
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Sequence, Set

from .page import Page, page_cost

SLAB_BYTES = 1 << 20
SLABS = 16  # that the bound is cut into at least, since what is vacant in a slab is memory too
RESERVE_SLABS = 2  # stays allocated against thrashing
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)


def anonymous(size: int) -> mmap.mmap:
    """Private where that can be said: a forked process must not write into its parent's pages."""
    return mmap.mmap(-1, size, flags=_PRIVATE) if _PRIVATE else mmap.mmap(-1, size)


class Slab:
    __slots__ = ("memory", "slots", "vacant")

    def __init__(self, page_size: int, count: int) -> None:
        self.memory = anonymous(page_size * count)
        self.slots: List[Optional[Page]] = [None] * count
        self.vacant = array("H", range(count - 1, -1, -1))

    @property
    def used(self) -> int:
        return len(self.slots) - len(self.vacant)


class PageCache:
    """The pool. `max_pages` bounds the pages in use; `take` and `release` are O(1) amortised: a slab is made, moved
    or dropped once for as many pages as it holds. Looking for the slab to move is O(slabs) each time."""

    def __init__(self, page_size: int, max_pages: int) -> None:
        self.page_size = page_size
        self.max_pages = max_pages
        self._size_slabs()
        self.used = 0
        self.peak = 0
        self.charged = 0
        self._slots = 0
        self._slabs: Dict[int, Slab] = {}  # by id
        self._open: Dict[int, Slab] = {}  # slabs with vacant slots, by id
        self.lru: OrderedDict[Any, None] = OrderedDict()  # owners that hold pages, the longest idle first

    def bound(self, max_pages: int) -> None:
        """Allow so many pages; `fit` is to follow, once no more are in use. May come at any time, also in `take`."""
        self.max_pages = max_pages

    def fit(self) -> None:
        """Let slabs be as large as the bound asks for, and give back what it has no place for any more. O(pages in
        use), and O(slabs log slabs)."""
        before = self.pages_per_slab
        if self._slab_pages() != before:
            self._size_slabs()
        if self.pages_per_slab < before:
            self._open = {}
            for slab in list(self._slabs.values()):
                self._vacate(slab)
        self._trim()

    def _slab_pages(self) -> int:
        """How many pages a slab has under this bound."""
        slab_bytes = min(SLAB_BYTES, max(mmap.PAGESIZE, self.max_pages * self.page_size // SLABS))
        return max(1, slab_bytes // self.page_size)

    def _size_slabs(self) -> None:
        """Make new slabs as large as this bound asks for."""
        self.pages_per_slab = self._slab_pages()
        # Of the slots: one object for each, not one for each page, where the table of them is small.
        places = range(0, self.page_size * self.pages_per_slab, self.page_size)
        self._places: Sequence[int] = places if len(places) > 1024 else list(places)

    @property
    def allocated(self) -> int:
        return self._slots + self.charged

    @property
    def free(self) -> int:
        return self._slots + self.charged - self.used

    def room(self) -> int:
        """How many pages may still be taken."""
        return self.max_pages - self.used

    def memory_bytes(self) -> int:
        """An estimate, from above, of what slabs and records take. O(1)."""
        per_page = page_cost(self.page_size)
        return self.used * per_page + self.free * self.page_size + self._slots * 10

    def take(self, owner: Any, base: int, limit: int) -> Page:
        """A page for the bytes `[base, limit)` of `owner`. The caller has checked `room`."""
        page = Page(owner, base, limit)
        self._seat(page)
        self.used = used = self.used + 1
        if used > self.peak:
            self.peak = used
        if not owner.page_count:
            self.lru[owner] = None
        owner.page_count += 1
        return page

    def _seat(self, page: Page) -> None:
        """Give `page` a slot of an open slab, or of a new one."""
        for slab in self._open.values():  # noqa: B007  (the first; half the cost of `next`)
            break
        else:
            slab = Slab(self.page_size, self.pages_per_slab)
            self._slabs[id(slab)] = self._open[id(slab)] = slab
            self._slots += self.pages_per_slab
        slot = slab.vacant.pop()
        if not slab.vacant:
            del self._open[id(slab)]
        slab.slots[slot] = page
        page.slab = slab
        page.at = self._places[slot]

    def charge(self, owner: Any, pages: int) -> None:
        """Count `pages` more (or fewer, if negative) for records outside of the slabs, of an `owner` that holds some
        already. O(1) amortised."""
        self.charged += pages
        self.used += pages
        if self.used > self.peak:
            self.peak = self.used
        owner.page_count += pages
        if not owner.page_count:
            del self.lru[owner]
        if self.allocated >= self.max_pages + 2 * self.pages_per_slab:
            self._trim()

    def release(self, page: Page) -> None:
        """Give a page back; slabs beyond the reserve go back to the operating system as they empty."""
        slab: Any = page.slab
        slot = page.at // self.page_size
        slab.slots[slot] = None
        if not slab.vacant:
            self._open[id(slab)] = slab
        slab.vacant.append(slot)
        owner = page.owner
        self.used -= 1
        owner.page_count -= 1
        if not owner.page_count:
            del self.lru[owner]
        if len(self._slabs) > RESERVE_SLABS:
            self._give_back(slab)

    def _give_back(self, slab: Slab) -> None:
        # Not what is the only room for the next pages, or data could make a slab come and go with every packet.
        if not slab.used and 2 * self.free >= 3 * self.pages_per_slab:
            self._vacate(slab)
        # One slab's pages move only after half as many were released: the cost per release stays constant.
        if self.free > max(self.used - self.charged, RESERVE_SLABS * self.pages_per_slab) + self.pages_per_slab:
            self._compact()

    def _compact(self) -> None:
        """Move the pages of the emptiest slab into the others, so that a few long-lived pages pin no memory."""
        self._vacate(min(self._open.values(), key=_pages_in))

    def _trim(self) -> None:
        """Let allocated exceed the bound by less than a slab: the emptiest ones go, as far as others have room."""
        for slab in sorted(self._open.values(), key=_pages_in):
            if self.allocated < self.max_pages + self.pages_per_slab or self.free < len(slab.slots):
                break
            self._vacate(slab)

    def _vacate(self, slab: Slab) -> None:
        """Drop a slab; what lies in it moves."""
        del self._slabs[id(slab)]
        self._open.pop(id(slab), None)
        self._slots -= len(slab.slots)
        for page in slab.slots if slab.used else ():
            if page is not None:
                data = slab.memory[page.at : page.at + self.page_size]
                self._seat(page)
                page.slab.memory[page.at : page.at + self.page_size] = data
        slab.memory.close()

    def touch(self, owner: Any) -> None:
        """Make `owner`, which holds pages, the most recently active. O(1)."""
        self.lru.move_to_end(owner)

    def victim(self, speaker: Any) -> Optional[Any]:
        """The owner that has been idle longest; `speaker` only when nobody else holds a page. O(1)."""
        for owner in self.lru:
            if owner is not speaker:
                return owner
        return speaker if speaker in self.lru else None

    def check(self) -> None:
        """Verify the invariants above. O(pages)."""
        assert self.used + self.free == self.allocated
        assert self._slots == sum(len(slab.slots) for slab in self._slabs.values())
        seen: Set[int] = set()
        counts: Dict[Any, int] = {}
        for slab in self._slabs.values():
            held = [(slot, page) for slot, page in enumerate(slab.slots) if page is not None]
            assert len(held) == slab.used
            assert (id(slab) in self._open) == (len(slab.vacant) > 0)
            for slot, page in held:
                assert page.slab is slab and page.at == slot * self.page_size and id(page) not in seen
                seen.add(id(page))
                counts[page.owner] = counts.get(page.owner, 0) + 1
        assert len(seen) + self.charged == self.used <= self.max_pages
        assert self._slots <= max(2 * len(seen), RESERVE_SLABS * self.pages_per_slab + len(seen)) + self.pages_per_slab
        assert self.allocated < self.max_pages + 2 * self.pages_per_slab
        assert all(len(slab.slots) <= self._slab_pages() for slab in self._slabs.values())
        assert set(counts) <= set(self.lru)
        assert sum(owner.page_count for owner in self.lru) == self.used
        assert all(owner.page_count >= counts.get(owner, 0) and owner.page_count for owner in self.lru)


def _pages_in(slab: Slab) -> int:
    return slab.used
