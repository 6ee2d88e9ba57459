"""One direction's out-of-order data, in pages, sorted by offset.

A page is a window of the stream, so bytes that arrive in any order, one by one, backwards or with holes, share it.
The first few segments of a connection take a page each, as in gopacket, so that limits of a handful of pages mean
the same here; from `PACK_FROM` pages on, segments are packed.

Under a policy that needs to know who owns a byte, each page has its claims. They outgrow the page when segments are
tiny, so beyond `FREE_CLAIMS` a page they are charged as pages: `page_size / CLAIM_BYTES` of them for one.

Invariants (verified by `check`): pages are sorted by base, their windows are disjoint, none is empty; `_claims` counts
the claims in all pages, and what they are charged follows from it.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Tuple

from .apart import apart
from .overlap import Disputed, OwnerMap, Policy, Sent
from .page import Mark, Page
from .pageindex import PageIndex
from .pages import PageCache

PACK_FROM = 4
POP_PAGES = 32
CLAIM_BYTES = 64  # one claim as it lies in its array, with the array's slack
FREE_CLAIMS = 2


class ReorderQueue(Disputed):
    """Buffered bytes of one direction. Inserting costs O(log n + k) for n pages and k overlapped ones, or k holes in
    these that it fills."""

    __slots__ = ("_cache", "_owner", "_policy", "_index", "_claims", "_charged", "buffered_bytes")

    def __init__(self, cache: PageCache, owner: Any, policy: Policy) -> None:
        self._cache = cache
        self._owner = owner
        self._policy = policy
        self._index = PageIndex()
        self._claims = self._charged = self.buffered_bytes = 0
        self._conflicts = ()

    holds_fins = only_fin = fin_reached = fin_dropped = False  # see KernelQueue

    def __bool__(self) -> bool:
        return self.buffered_bytes > 0

    @property
    def appends(self) -> bool:
        """Whether `append` may be used: nothing needs to be known of a segment but its bytes and when it came."""
        return not self._policy.needs_owner

    @apart
    def append(self, start: int, data: bytes, timestamp: float) -> None:
        """Buffer `data` at or behind `end_offset`: the usual segment behind a hole. What `insert` would do.

        The caller knows that there is room for two pages more than the bytes alone would fill. O(pages filled).
        """
        end = start + len(data)
        position = start
        page = self._index.last() if self.buffered_bytes else None
        while True:
            packing = self._owner.page_count >= PACK_FROM
            if page is None or position >= page.limit or not packing:
                base = self._new_base(position, page, packing) if packing else position
                if page is not None and page.limit > base:
                    page.limit = base
                page = self._cache.take(self._owner, base, base + self._cache.page_size)
                self._index.push(page)
            if end <= page.limit:
                page.put(position, data if position == start else data[position - start :], timestamp, None)
                break
            page.put(position, data[position - start : page.limit - start], timestamp, None)
            position = page.limit
        self.buffered_bytes += end - start

    @apart
    def presence(self, start: int, data: bytes) -> Optional[bool]:
        """False where none of `data` is here, True where just these bytes are; None for all between, and where other
        bytes are. Only while not empty. O(log n + k)."""
        position, end = start, start + len(data)
        if start >= self._index.last().end or end <= self._index.first().start:
            return False
        for page in self._index.touching(start, end):
            stop = min(end, page.run_end(position))
            if stop > position and page.read(position, stop) == data[position - start : stop - start]:
                position = stop
            elif position > start or page.has_some(start, end):
                return None
        return None if start < position < end else position == end

    @property
    def first_offset(self) -> int:
        """The lowest buffered offset; only while not empty."""
        return self._index.first().start

    @property
    def end_offset(self) -> int:
        """The end of the highest buffered byte; only while not empty."""
        return self._index.last().end

    @property
    def first_timestamp(self) -> float:
        """Capture time at which the lowest buffered bytes came; only while not empty."""
        return self._index.first().timestamp

    def end_of_older(self, timestamp: float) -> Optional[int]:
        """The end of the highest page with bytes from before `timestamp`. O(pages)."""
        ends = [page.end for page in self._index if page.oldest_timestamp() < timestamp]
        return ends[-1] if ends else None

    def pages_needed(self, start: int, end: int) -> int:
        """The pages that inserting `[start, end)` takes at most. O(log n + k)."""
        held = self._owner.page_count
        needed = 0
        position = start
        while position < end:
            page, position = self._window(position, held + needed >= PACK_FROM)
            if page is None:
                needed += 1
        if self._policy.needs_owner:
            needed += self._claims_needed(start, end, needed)
        return needed

    def _claims_needed(self, start: int, end: int, pages: int) -> int:
        """The charge to come: a new claim for each piece, and one more where an old one is split around it."""
        count = 2 + pages
        for page in self._index.touching(start, end):
            count += 1 + sum(1 for _ in page.pieces(max(start, page.base), min(end, page.limit)))
        return max(0, self._charge_of(self._claims + count, len(self._index) + pages) - self._charged)

    def _charge_of(self, claims: int, pages: int) -> int:
        beyond = claims - FREE_CLAIMS * pages
        return -(-beyond // max(8, self._cache.page_size // CLAIM_BYTES)) if beyond > 0 else 0

    def _settle_charge(self) -> None:
        change = self._charge_of(self._claims, len(self._index)) - self._charged
        if change:
            self._charged += change
            self._cache.charge(self._owner, change)

    def _window(self, position: int, packing: bool) -> Tuple[Optional[Page], int]:
        """The page that takes the byte at `position` and the end of its window; or None and where a new one ends."""
        page, following = self._index.around(position)
        if page is not None and position < page.limit and (packing or position < page.end):
            return page, page.limit
        limit = self._new_base(position, page, packing) + self._cache.page_size
        return None, limit if following is None or limit < following.base else following.base

    def _new_base(self, position: int, below: Optional[Page], packing: bool) -> int:
        """Where a new window that holds `position` starts: on a grid, so that earlier bytes find room too."""
        if not packing:
            return position
        base = position - position % self._cache.page_size
        return base if below is None or below.limit < base else below.limit

    def _add_page(self, position: int, limit: int) -> Page:
        """A page for the window around `position` that ends at `limit`."""
        below, _ = self._index.around(position)
        base = self._new_base(position, below, self._owner.page_count >= PACK_FROM)
        if below is not None and below.limit > base:
            below.limit = base
        page = self._cache.take(self._owner, base, limit)
        self._index.add(page)
        return page

    @apart
    def insert(self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any = None) -> int:
        """Buffer `data` at `start`; returns how many bytes were new. The caller has seen to `pages_needed`.

        Where bytes are here already the policy decides, and `take_conflicts` tells what differs.
        """
        end = start + len(data)
        position = start
        added = 0
        while position < end:
            page, limit = self._window(position, self._owner.page_count >= PACK_FROM)
            if page is None:
                page = self._add_page(position, limit)
            stop = min(limit, end)
            piece = data if stop - position == len(data) else data[position - start : stop - start]
            added += self._insert_in_page(page, position, piece, sent, timestamp, context)
            position = stop
        self.buffered_bytes += added
        if self._claims:
            self._settle_charge()
        return added

    def _insert_in_page(self, page: Page, start: int, data: bytes, sent: Sent, timestamp: float, context: Any) -> int:
        added = 0
        end = start + len(data)
        for low, high, covered in list(page.pieces(start, end)) if page.end > page.start else ((start, end, False),):
            piece = data[low - start : high - start]
            if not covered:
                page.put(low, piece, timestamp, context)
                added += high - low
                self._claim(page, low, high, sent)
                continue
            self._compare_versions(low, page.read(low, high), piece, page.time_at)
            for sub_low, sub_high in self._won(page, low, high, sent):
                page.replace(sub_low, piece[sub_low - low : sub_high - low], timestamp, context)
                self._claim(page, sub_low, sub_high, sent)
        return added

    def _claim(self, page: Page, start: int, end: int, sent: Sent) -> None:
        if self._policy.needs_owner:
            if page.claims is None:
                page.claims = OwnerMap()
            self._claims -= len(page.claims)
            page.claims.assign(start, end, sent, self._policy)
            self._claims += len(page.claims)

    def _won(self, page: Page, start: int, end: int, sent: Sent) -> List[Tuple[int, int]]:
        """The parts of the covered range `[start, end)` whose bytes the arriving segment owns."""
        if page.claims is None:
            return [(start, end)] if self._policy.new_wins(sent, sent) else []
        return page.claims.won(start, end, sent, self._policy)  # type: ignore[no-any-return]

    def note_origins(self, marks: List[Mark], end: int) -> None:
        """Note where the buffered bytes up to `end` came from: those from each mark to the next one. O(marks log n)."""
        for (start, timestamp, context), stop in zip(marks, [*(mark[0] for mark in marks[1:]), end]):
            for page in self._index.touching(start, stop):
                page.note_origin(max(start, page.start), timestamp, context)

    def overlay(self, data: bytes, sent: Sent, mark: Mark) -> Tuple[bytes, List[Mark]]:
        """`data`, which came as `mark` says, as it is to be delivered now, after the policy chose between it and what
        is buffered; and where its bytes come from then."""
        start, timestamp, context = mark
        end = start + len(data)
        marks = [mark]
        merged: Optional[bytearray] = None
        for page in self._index.touching(start, end):
            for low, high, covered in page.pieces(max(start, page.base), min(end, page.limit)):
                if not covered:
                    continue
                piece = data[low - start : high - start]
                self._compare_versions(low, page.read(low, high), piece, page.time_at)
                for a, b in _between(self._won(page, low, high, sent), low, high):
                    merged = bytearray(data) if merged is None else merged
                    merged[a - start : b - start] = page.read(a, b)
                    if marks[-1][0] == a:
                        marks.pop()
                    marks += page.origins(a, b)
                    if b < end:
                        marks.append((b, timestamp, context))
        return data if merged is None else bytes(merged), marks

    def owners_under(self, start: int, end: int, sent: Sent) -> List[Tuple[int, int, Sent]]:
        """Who owns what of `[start, end)` once `sent` is laid over what is here."""
        owners: List[Tuple[int, int, Sent]] = []
        position = start
        for page in self._index.touching(start, end) if self._policy.needs_owner else ():
            for low, high, old in page.claims.within(start, end) if page.claims is not None else ():
                if not self._policy.new_wins(old, sent):
                    if position < low:
                        owners.append((position, low, sent))
                    owners.append((low, high, old))
                    position = high
        return owners if position == end else [*owners, (position, end, sent)]

    @apart
    def pop(
        self, offset: int, limit: Optional[int] = None, owners: Optional[List[Tuple[int, int, Sent]]] = None
    ) -> Tuple[bytes, List[Mark]]:
        """Take contiguous bytes from `offset` on, below `limit`, out of the queue: (bytes, origins), empty if there are
        none; where the policy knows them, who owns them is added to `owners`.

        At most `POP_PAGES` pages at a time, so that draining a full queue does not hold its bytes twice.
        """
        parts: List[bytes] = []
        marks: List[Mark] = []
        position = offset
        done = 0
        for page in self._index:
            if page.start > position or done == POP_PAGES:
                break
            stop = page.end if page.mask is None else page.run_end(position)
            stop = stop if limit is None or stop <= limit else limit
            if stop <= position:
                break
            if owners is not None and page.claims is not None:
                owners += page.claims.within(position, stop)
            parts.append(page.read(position, stop))
            page.add_origins(marks, position, stop)
            position = stop
            if stop < page.end:
                page.uncover_below(stop)
                break
            done += 1
        self.buffered_bytes -= position - offset
        if done:
            self._release(self._index.pop_first(done))
        return (parts[0] if len(parts) == 1 else b"".join(parts)), marks

    def peek(self) -> Tuple[List[bytes], List[Mark]]:
        """All bytes and their origins, where the caller knows that there is no hole between them. O(bytes)."""
        parts: List[bytes] = []
        marks: List[Mark] = []
        for page in self._index:
            parts.append(page.read(page.start, page.end))
            page.add_origins(marks, page.start, page.end)
        return parts, marks

    def _release(self, pages: List[Page]) -> None:
        for page in pages:
            if page.claims is not None:
                self._claims -= len(page.claims)
            self._cache.release(page)
        if self._claims or self._charged:
            self._settle_charge()

    def discard_below(self, offset: int) -> None:
        """Drop what is buffered below `offset`. O(pages dropped)."""
        done = 0
        for page in self._index:
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
        if done:
            self._release(self._index.pop_first(done))

    def discard_from(self, offset: int) -> None:
        """Drop what is buffered at or above `offset`. O(pages dropped)."""
        while self.buffered_bytes and self._index.last().end > offset:
            page = self._index.last()
            covered = page.covered_bytes()
            if page.start < offset:
                page.uncover_from(offset)
                if page.claims is not None:
                    self._claims -= len(page.claims)
                    page.claims.discard_from(offset)
                    self._claims += len(page.claims)
                    self._settle_charge()
                self.buffered_bytes -= covered - page.covered_bytes()
                break
            self.buffered_bytes -= covered
            self._release([self._index.pop_last()])

    def clear(self) -> None:
        """Drop everything."""
        self.buffered_bytes = 0
        self._release(self._index.pop_first(len(self._index)))

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later, where nobody owns a byte. O(pages); `Shifted` is O(1)."""
        self._index.shift(delta)

    def drop_pages(self, count: int = 1) -> int:
        """Drop the `count` pages with the lowest offsets, or all; returns the bytes dropped. O(count)."""
        pages = self._index.pop_first(min(count, len(self._index)))
        dropped = sum(page.covered_bytes() for page in pages)
        self.buffered_bytes -= dropped
        self._release(pages)
        return dropped

    def check(self) -> None:
        """Verify the invariants above. O(pages)."""
        self._index.check()
        pages = list(self._index)
        for page, following in zip(pages, pages[1:]):
            assert page.end <= page.limit <= following.base
        assert all(page.base <= page.start < page.end <= page.limit for page in pages)
        assert self.buffered_bytes == sum(page.covered_bytes() for page in pages)
        assert self._claims == sum(len(page.claims) for page in pages if page.claims is not None)
        assert self._charged == self._charge_of(self._claims, len(pages))


def _between(parts: List[Tuple[int, int]], start: int, end: int) -> Iterator[Tuple[int, int]]:
    """What of `[start, end)` lies outside of these parts of it."""
    for low, high in (*parts, (end, end)):
        if start < low:
            yield start, low
        start = high
