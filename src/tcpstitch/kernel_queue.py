"""The out-of-order queue of the running Linux kernel, for `overlap="linux-kernel"`.

The kernel does not decide byte by byte. It keeps segments in a red-black tree, joins what is contiguous, and looks only
at the nodes it meets on its walk; so nodes may overlap, and which bytes win depends on the shape of the tree
(tcp_data_queue_ofo and tcp_ofo_queue, net/ipv4/tcp_input.c, since Linux 4.9). This queue takes the same steps:

1. A segment that starts where the last node ends is appended to it; behind that end it becomes the new last node.
2. Else the walk from the root goes left below a node's start. Inside a node the segment is dropped if it is all there,
   takes the node's place if it starts with it, and else goes right. At a node's end it is appended. Behind, right.
3. Nodes that follow an inserted segment and lie inside it go, up to the first that reaches past it.
4. Delivery takes nodes by start and cuts what has been delivered; bytes at the next expected offset win over the queue.

Invariants (verified by `check`): nodes are sorted by start, no two have the same, and each is one run of bytes in pages
whose windows follow each other from its start.
"""

from __future__ import annotations

from array import array
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from .overlap import Disputed, Sent
from .page import Mark, Page
from .pages import PageCache
from .redblack import Node, RedBlackTree

DROP, APPEND, REPLACE, INSERT = range(4)
_NO_FLOOR = -(1 << 62)
_MAX_COMPARED = 16  # an honest sender has one or two segments that overlap at a byte
_MAX_FINS = 8  # in one node: an honest sender has one place for its FIN, and what pages do not hold has to be bounded


class _Run:
    """The bytes `[start, end)`; all pages but the last are full."""

    __slots__ = ("start", "end", "pages", "fins")

    def __init__(self, start: int) -> None:
        self.fins: Sequence[int] = ()  # where a byte stands for a FIN, which takes a sequence number and holds no data
        self.start = self.end = start
        self.pages: List[Page] = []

    def put_fins(self, places: List[int]) -> None:
        self.fins = array("q", places) if places else ()  # most have none, and a list takes twice the room

    def pages_of(self, start: int, end: int) -> List[Page]:
        """Those that hold bytes of `[start, end)`, which is not empty. O(pages given)."""
        size = self.pages[0].limit - self.start
        return self.pages[(start - self.start) // size : (end - 1 - self.start) // size + 1]

    def read(self, start: int, end: int) -> bytes:
        pages = self.pages_of(start, end)
        if len(pages) == 1:
            return pages[0].read(start, end)
        return b"".join(page.read(max(start, page.start), min(end, page.end)) for page in pages)

    def time_at(self, offset: int) -> float:
        """The capture time of the byte at `offset`, which is one of these."""
        return self.pages_of(offset, offset + 1)[0].time_at(offset)

    def readable(self, offset: int) -> bytes:
        """What the kernel hands out from `offset` on: it counts from the start, and its buffer holds no FINs."""
        data = bytearray(self.read(self.start, self.end))
        for fin in reversed(self.fins):
            del data[fin - self.start]
        return bytes(data[offset - self.start :])

    def marks_from(self, offset: int) -> List[Mark]:
        """The records of origin of the bytes from `offset` on; the first is that of the byte there."""
        marks: List[Mark] = []
        for page in self.pages_of(offset, self.end):
            marks += page.origins(max(offset, page.start), page.end)
        return marks


class _Place(NamedTuple):
    """What becomes of a segment; for INSERT, `node` is the parent, if any, and `left` the side."""

    verdict: int
    node: Optional[Node[_Run]]
    left: bool = False


class KernelQueue(Disputed):
    """Stands in for `ReorderQueue`. Inserting costs O(log n) for n nodes, and O(log n) for each node that goes."""

    __slots__ = (
        "_cache", "_owner", "_tree", "_floor", "fin_reached", "fin_dropped", "buffered_bytes",
    )  # fmt: skip

    def __init__(self, cache: PageCache, owner: Any) -> None:
        self._cache = cache
        self._owner = owner
        self._tree: RedBlackTree[_Run] = RedBlackTree()
        self._floor = _NO_FLOOR  # below it everything is delivered; nodes keep their start, the tree is ordered by it
        self.fin_reached = False  # the last `pop` came to a FIN
        self.fin_dropped = False  # all was dropped, and ended with a FIN
        self.buffered_bytes = 0  # as stored: a byte in two nodes counts twice
        self._conflicts = ()

    appends = False  # see ReorderQueue
    holds_fins = True  # a FIN waits in it, as a byte does

    def __bool__(self) -> bool:
        return bool(self._tree)

    def _first(self) -> Node[_Run]:
        node = self._tree.first()
        assert node is not None
        return node

    @property
    def first_offset(self) -> int:
        """The lowest buffered offset; only while not empty."""
        return max(self._first().item.start, self._floor)

    @property
    def end_offset(self) -> int:
        """The end of the highest buffered byte; only while not empty."""
        return self._tree.reach

    @property
    def first_timestamp(self) -> float:
        """Capture time at which the lowest buffered bytes came; only while not empty."""
        return self._first().item.pages[0].timestamp

    @property
    def only_fin(self) -> bool:
        """Whether nothing waits but a FIN."""
        return self.buffered_bytes == 1 and bool(self._first().item.fins)

    def end_of_older(self, timestamp: float) -> Optional[int]:
        """The highest end of a page with bytes from before `timestamp`. O(pages)."""
        ends = [page.end for run in self._tree for page in run.pages if page.oldest_timestamp() < timestamp]
        return max(ends) if ends else None

    def _place(self, start: int, end: int) -> _Place:
        """Rules 1 and 2."""
        node = self._tree.last()
        if node is None:
            return _Place(INSERT, None)
        if start >= node.item.end:
            return _Place(APPEND if start == node.item.end else INSERT, node)
        parent, node, left = node, self._tree.root, False
        while node is not None:
            parent, run = node, node.item
            left = start < run.start
            if not left and start < run.end:
                if end <= run.end:
                    return _Place(DROP, node)
                if start == run.start:
                    return _Place(REPLACE, node)
            elif start == run.end:
                return _Place(APPEND, node)
            node = node.left if left else node.right
        return _Place(INSERT, parent, left)

    def pages_needed(self, start: int, end: int) -> int:
        """The most pages that inserting `[start, end)` takes. O(log n)."""
        verdict, node, _ = self._place(start, end)
        if verdict == DROP:
            return 0
        length = end - start
        if verdict == APPEND and node is not None:
            length -= min(length, node.item.pages[-1].limit - start)
        return -(-length // self._cache.page_size)

    def insert(
        self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any = None, fin: bool = False
    ) -> int:
        """Buffer `data` at `start`; returns how many bytes were new. The caller has seen to `pages_needed`.

        With `fin`, the last byte stands for a FIN; a node that holds `_MAX_FINS` takes no further one.

        Where bytes are here already and differ, `take_conflicts` tells.
        """
        verdict, node, left = self._place(start, start + len(data))
        if fin and verdict == APPEND and node is not None and len(node.item.fins) >= _MAX_FINS:
            fin, data = False, data[:-1]
            if not data:
                return 0
        end = start + len(data)
        added = len(data) - self._compare(start, data)
        if verdict == DROP:
            return added
        if verdict == APPEND and node is not None:
            self._fill(node.item, data, timestamp, context)
            if fin:
                node.item.put_fins([*node.item.fins, end - 1])
            self._tree.renew(node)
            return added
        if verdict == REPLACE and node is not None:
            self._release(node.item)
        run = _Run(start)
        self._fill(run, data, timestamp, context)
        if fin:
            run.put_fins([end - 1])
        if verdict == REPLACE and node is not None:
            node.item = run
            self._tree.renew(node)
        else:
            node = self._tree.insert(run, node, left)
        self._drop_covered(node)
        return added

    def _drop_covered(self, node: Node[_Run]) -> None:
        """Rule 3."""
        end = node.item.end
        following = node.following()
        while following is not None and following.item.end <= end:
            self._erase(following)
            following = node.following()

    def _fill(self, run: _Run, data: bytes, timestamp: float, context: Any) -> None:
        """Append to `run`."""
        start = position = run.end
        run.end += len(data)
        self.buffered_bytes += len(data)
        while position < run.end:
            if not run.pages or position == run.pages[-1].limit:
                page = self._cache.take(self._owner, position, position + self._cache.page_size)
                run.pages.append(page)
            page = run.pages[-1]
            stop = min(run.end, page.limit)
            page.put(position, data[position - start : stop - start], timestamp, context)
            position = stop

    def _release(self, run: _Run) -> None:
        for page in run.pages:
            self._cache.release(page)
        self.buffered_bytes -= run.end - run.start

    def _erase(self, node: Node[_Run]) -> None:
        self._tree.erase(node)
        self._release(node.item)
        if not self._tree:
            self._floor = _NO_FLOOR

    def _compare(self, start: int, data: bytes) -> int:
        """Note where `data` differs from what would be delivered otherwise; returns how many of its bytes are here.

        At each offset that is the node which starts first of those that reach past it. Of nodes that hold the first
        byte, those beyond `_MAX_COMPARED` pass for the same bytes; one that starts later goes, or is compared last.
        """
        end = start + len(data)
        position = start
        present = 0
        node = self._tree.first_past(start)
        before = 0
        while node is not None and node.item.start < end:
            run = node.item
            before += run.start < start
            if before > _MAX_COMPARED:
                return present + end - position
            low, high = max(position, run.start), min(end, run.end)
            self._compare_versions(low, run.read(low, high), data[low - start : high - start], run.time_at)
            present += high - low
            position = high
            if high == end:
                break
            node = node.following()
            if node is not None and node.item.end <= position:  # it lies inside what was looked at
                node = self._tree.first_past(position)
        return present

    def overlay(self, data: bytes, sent: Sent, mark: Mark) -> Tuple[bytes, List[Mark]]:
        """`data`, which came as `mark` says, as it is to be delivered now: as it came."""
        self._compare(mark[0], data)
        return data, [mark]

    def owners_under(self, start: int, end: int, sent: Sent) -> List[Tuple[int, int, Sent]]:
        """Bytes at the next expected offset win."""
        return [(start, end, sent)]

    def pop(self, offset: int, *, owners: Any = None) -> Tuple[bytes, List[Mark]]:
        """Take the contiguous bytes from `offset` on out of the queue: (bytes, marks), empty if there are none. Nobody
        owns them: `owners` is for queues that know."""
        parts: List[bytes] = []
        marks: List[Mark] = []
        position = offset
        node = self._tree.first()
        while node is not None and node.item.start <= position:
            run = node.item
            if run.end > position and run.fins:
                parts.append(run.readable(position))
                marks.extend(run.marks_from(position))
                self.fin_reached = True
                self.clear()
                break
            if run.end > position:
                parts.append(run.read(position, run.end))
                marks.extend(run.marks_from(position))
                position = run.end
            self._erase(node)
            node = self._tree.first()
        return (parts[0] if len(parts) == 1 else b"".join(parts)), marks

    def discard_below(self, offset: int) -> None:
        """Drop what is buffered below `offset`.

        Stops at the first node that reaches past it, as the kernel's delivery does: the order of erasures shapes the
        tree, and `pop` goes on from there.
        """
        node = self._tree.first()
        while node is not None and node.item.end <= offset:
            self._erase(node)
            node = self._tree.first()
        if node is not None:
            self._floor = max(self._floor, offset)

    def discard_from(self, offset: int) -> None:
        """Drop what is buffered at or above `offset`."""
        node = self._tree.last_past(offset)
        while node is not None:
            if node.item.start >= offset:
                self._erase(node)
            else:
                self._truncate(node.item, offset)
                self._tree.renew(node)
            node = self._tree.last_past(offset)

    def _truncate(self, run: _Run, end: int) -> None:
        while run.pages[-1].start >= end:
            self._cache.release(run.pages.pop())
        run.pages[-1].uncover_from(end)
        self.buffered_bytes -= run.end - end
        run.end = end
        run.put_fins([fin for fin in run.fins if fin < end])

    def clear(self) -> None:
        """Drop everything."""
        for run in self._tree:
            self._release(run)
        self._tree.clear()
        self._floor = _NO_FLOOR

    def drop_pages(self) -> None:
        """Drop the page with the lowest offsets, or its node if the order of starts needs that."""
        node = self._first()
        run, following = node.item, node.following()
        self.fin_dropped = following is None and len(run.pages) == 1 and run.end - 1 in run.fins
        if len(run.pages) == 1 or (following is not None and following.item.start <= run.pages[1].start):
            self._erase(node)
        else:
            self._cache.release(run.pages.pop(0))
            self.buffered_bytes -= run.pages[0].start - run.start
            run.start = run.pages[0].start
            run.put_fins([fin for fin in run.fins if fin >= run.start])

    def check(self) -> None:
        """Verify the invariants above. O(pages)."""
        self._tree.check()
        runs = list(self._tree)
        starts = [run.start for run in runs]
        assert starts == sorted(set(starts))
        for run in runs:
            assert all(run.start <= fin < run.end for fin in run.fins)
            edges = [run.start, *(page.end for page in run.pages)]
            assert edges[:-1] == [page.start for page in run.pages] and edges[-1] == run.end > run.start
            assert all(page.mask is None for page in run.pages)
        size = self._cache.page_size
        assert all(page.base == run.start + i * size for run in runs for i, page in enumerate(run.pages))
        assert self.buffered_bytes == sum(run.end - run.start for run in runs)
