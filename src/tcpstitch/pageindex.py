"""The pages of one direction in order of their offsets.

Up to `PLAIN_PAGES` pages, well beyond the default bound of a connection, these are two plain lists, which nothing beats
at that size. Beyond it inserting into a list would cost O(n), so a sorted list of lists takes over until the queue is
empty again.

Invariants (verified by `check`): bases rise strictly; while `_sorted` is in use the plain lists are empty.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Any, Iterable, Iterator, List, Optional, Tuple

from .apart import apart
from .page import Page

PLAIN_PAGES = 4096


def _sorted_list(pages: Iterable[Page]) -> Any:
    from sortedcontainers import SortedKeyList  # here: hardly anyone holds so many pages, and all would wait for it

    return SortedKeyList(pages, attrgetter("base"))


class PageIndex:
    """Pages sorted by `base`, which no two share. Only the first and the last can be taken out."""

    __slots__ = ("_bases", "_pages", "_sorted")

    def __init__(self) -> None:
        self._bases: List[int] = []
        self._pages: List[Page] = []
        self._sorted: Any = None

    def __len__(self) -> int:
        return len(self._pages) if self._sorted is None else len(self._sorted)

    def __iter__(self) -> Iterator[Page]:
        return iter(self._pages if self._sorted is None else self._sorted)

    def first(self) -> Page:
        """The page with the lowest offsets; only while not empty. O(1)."""
        return self._pages[0] if self._sorted is None else self._sorted[0]

    def last(self) -> Page:
        """The page with the highest offsets; only while not empty. O(1)."""
        return self._pages[-1] if self._sorted is None else self._sorted[-1]

    def around(self, offset: int) -> Tuple[Optional[Page], Optional[Page]]:
        """The last page with a base of at most `offset`, and the one that follows it. O(log n)."""
        if self._sorted is None:
            pages = self._pages
            index = self._place(offset)
            return pages[index - 1] if index else None, pages[index] if index < len(pages) else None
        below = next(self._sorted.irange_key(None, offset, reverse=True), None)
        return below, next(self._sorted.irange_key(offset, None, (False, True)), None)

    def _place(self, offset: int) -> int:
        """How many of the plain pages have a base of at most `offset`: mostly all, since data mostly comes in order."""
        bases = self._bases
        return len(bases) if not bases or bases[-1] <= offset else bisect_right(bases, offset)

    @apart
    def touching(self, start: int, end: int) -> List[Page]:
        """The pages whose windows meet `[start, end)`, in order. O(log n + k)."""
        found: List[Page] = []
        if self._sorted is None:
            pages = self._pages
            index = max(self._place(start) - 1, 0)
            while index < len(pages) and pages[index].base < end:
                if pages[index].limit > start:
                    found.append(pages[index])
                index += 1
            return found
        below, _ = self.around(start)
        for page in self._sorted.irange_key(None if below is None else below.base, None):
            if page.base >= end:
                break
            if page.limit > start:
                found.append(page)
        return found

    def add(self, page: Page) -> None:
        """O(log n)."""
        if self._sorted is None:
            index = self._place(page.base)
            self._bases.insert(index, page.base)
            self._pages.insert(index, page)
            if len(self._pages) > PLAIN_PAGES:
                self._sorted = _sorted_list(self._pages)
                self._bases, self._pages = [], []
        else:
            self._sorted.add(page)

    def push(self, page: Page) -> None:
        """Add a page behind all others. O(1) amortised."""
        if self._sorted is not None or len(self._pages) >= PLAIN_PAGES:
            return self.add(page)
        self._bases.append(page.base)
        self._pages.append(page)
        return None

    def pop_first(self, count: int) -> List[Page]:
        """Take the `count` lowest pages out. O(count), amortised over those that came in."""
        if self._sorted is None:
            taken = self._pages[:count]
            del self._bases[:count], self._pages[:count]
            return taken
        taken = [self._sorted.pop(0) for _ in range(count)]
        self._calm()
        return taken

    def pop_last(self) -> Page:
        """Take the highest page out. O(1)."""
        if self._sorted is None:
            self._bases.pop()
            return self._pages.pop()
        page: Page = self._sorted.pop()
        self._calm()
        return page

    def _calm(self) -> None:
        if not self._sorted:
            self._sorted = None

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later. O(n)."""
        pages = list(self)
        for page in pages:
            page.shift(delta)
        self._bases = [base - delta for base in self._bases]
        if self._sorted is not None:
            self._sorted = _sorted_list(pages)

    def check(self) -> None:
        """Verify the invariants above. O(n)."""
        bases = [page.base for page in self]
        assert bases == sorted(set(bases))
        assert self._bases == (bases if self._sorted is None else [])
        assert self._sorted is None or not self._pages
