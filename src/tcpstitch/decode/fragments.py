"""IP fragments back to datagrams, bounded in datagrams, bytes and capture time.

Overlap: IPv4 keeps the byte that came first; IPv6 gives up the whole datagram (RFC 5722), a byte-for-byte duplicate
of a fragment excepted (RFC 8200 4.5).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Tuple

from ..limits import context_cost

_MAX_DATAGRAM = 65535
# What the interpreter needs besides the bytes themselves, so that tiny fragments are charged for their real size.
_PIECE_COST = 120
_DATAGRAM_COST = 600
_KEY_COST = 240  # as much of it is for a key without VLANs and tunnels


class _Datagram:
    """`starts` and `pieces` are the fragments in order, `edges` the starts and ends of what they cover without a hole:
    so what a fragment covers anew costs no more steps than there were holes."""

    __slots__ = ("since", "starts", "pieces", "edges", "total", "have", "cost", "least", "number", "dead")

    def __init__(self, since: float, number: int, key_cost: int) -> None:
        self.since = since
        self.starts = array("H")
        self.pieces: List[bytes] = []
        self.edges = array("H")
        self.total: Optional[int] = None
        self.have = 0
        self.cost = self.least = _DATAGRAM_COST + max(0, key_cost - _KEY_COST)  # the latter without any fragment
        self.number = number
        self.dead = False  # an IPv6 datagram with an overlap: its later fragments are dropped too

    def holes(self, start: int, end: int) -> List[Tuple[int, int]]:
        """The parts of `[start, end)` that no earlier fragment holds. O(log pieces + parts)."""
        first, last = bisect_left(self.edges, start), bisect_right(self.edges, end)
        edges = [*([] if first & 1 else [start]), *self.edges[first:last], *([] if last & 1 else [end])]
        return [(low, high) for low, high in zip(edges[::2], edges[1::2]) if low < high]

    def holds_exactly(self, start: int, piece: bytes) -> bool:
        index = bisect_right(self.starts, start) - 1
        return index >= 0 and self.starts[index] == start and self.pieces[index] == piece

    def put(self, start: int, piece: bytes) -> None:
        """Take in what lies in a hole. O(log pieces)."""
        index = bisect_right(self.starts, start)
        self.starts.insert(index, start)
        self.pieces.insert(index, piece)
        end = start + len(piece)
        first, last = bisect_left(self.edges, start), bisect_right(self.edges, end)
        self.edges[first:last] = array("H", [*([] if first & 1 else [start]), *([] if last & 1 else [end])])
        self.have += len(piece)
        self.cost += _PIECE_COST + len(piece)

    @property
    def reach(self) -> int:
        return self.edges[-1] if self.edges else 0


class FragmentTable:
    """Datagrams waiting for their missing fragments; the least recently used goes first when a bound is reached.

    After `add` returned None, `reason` says why: "fragment" (kept, datagram not whole yet), "fragment_duplicate" or
    "fragment_dropped". Datagrams given up are counted in `counts`: "fragments_expired", "fragments_evicted".
    """

    def __init__(self, max_datagrams: int, max_bytes: int, timeout: float, counts: Dict[str, int]) -> None:
        self.max_datagrams = max_datagrams
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.reason = "fragment"
        self.bytes_used = 0
        self._counts = counts
        self._waiting: OrderedDict[Any, _Datagram] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def limit(self, max_datagrams: int, max_bytes: int) -> None:
        """Change the bounds; smaller ones evict at once."""
        self.max_datagrams, self.max_bytes = max_datagrams, max_bytes
        self._shrink()

    def clear(self) -> None:
        """Forget every incomplete datagram."""
        self._waiting.clear()
        self.bytes_used = 0

    def add(
        self, key: Any, offset: int, more: bool, piece: bytes, number: int, version6: bool, now: float
    ) -> Optional[Tuple[bytes, int]]:
        """One more fragment of datagram `key`; (payload, its protocol number) once whole. O(log n) plus its bytes."""
        self._expire(now)
        self.reason = "fragment_dropped"
        if more and len(piece) & 7:
            if version6:
                return None  # RFC 8200 4.5
            piece = piece[: len(piece) & ~7]
        if offset + len(piece) > _MAX_DATAGRAM or not piece:
            return None
        datagram = self._waiting.get(key)
        if datagram is not None and now - datagram.since > self.timeout:
            self._give_up(key, "fragments_expired")
            datagram = None
        if datagram is None:
            datagram = self._waiting[key] = _Datagram(now, number, context_cost(key))
            self.bytes_used += datagram.cost
        else:
            self._waiting.move_to_end(key)
        if datagram.dead or not self._store(datagram, offset, more, piece, version6):
            return None
        if offset == 0:
            datagram.number = number  # RFC 8200 4.5: the first fragment's next header counts
        if datagram.have == datagram.total:
            self._drop(key)
            return b"".join(datagram.pieces), datagram.number
        self.reason = "fragment"
        self._shrink()
        return None

    def _store(self, datagram: _Datagram, offset: int, more: bool, piece: bytes, version6: bool) -> bool:
        end = offset + len(piece)
        before = datagram.cost
        if version6 and datagram.holes(offset, end) != [(offset, end)]:
            if datagram.holds_exactly(offset, piece):
                self.reason = "fragment_duplicate"
                return False
            return self._kill(datagram)
        if not more and datagram.total is None:
            if datagram.reach > end:
                return self._kill(datagram) if version6 else False
            datagram.total = end
        elif datagram.total is not None and (end > datagram.total or (not more and end != datagram.total)):
            return self._kill(datagram) if version6 else False
        for low, high in datagram.holes(offset, end):  # only of what is filled now: it may be many
            datagram.put(low, piece[low - offset : high - offset])
        self.bytes_used += datagram.cost - before
        return True

    def _kill(self, datagram: _Datagram) -> bool:
        self.bytes_used -= datagram.cost - datagram.least
        datagram.starts, datagram.pieces, datagram.edges = array("H"), [], array("H")
        datagram.cost = datagram.least
        datagram.dead = True
        return False

    def _drop(self, key: Any) -> None:
        self.bytes_used -= self._waiting.pop(key).cost

    def _give_up(self, key: Any, reason: str) -> None:
        self._drop(key)
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def _expire(self, now: float) -> None:
        waiting = self._waiting
        while waiting:
            key = next(iter(waiting))
            if now - waiting[key].since <= self.timeout:
                return
            self._give_up(key, "fragments_expired")

    def _shrink(self) -> None:
        while self._waiting and (len(self._waiting) > self.max_datagrams or self.bytes_used > self.max_bytes):
            self._give_up(next(iter(self._waiting)), "fragments_evicted")
