"""One page: a window of one direction's stream, which of its bytes are here, and where they came from.

A page is kept small, because a flood of tiny segments needs as many of them as a flood of full ones. What only some
pages need (holes, more than one origin, claims of the overlap policy) lies in objects made on demand, all bounded by
the page: `PAGE_RECORD_BYTES` and a bit per byte. Claims are not, and are counted by their owner.
"""

from __future__ import annotations

from array import array
from typing import Any, Dict, Iterator, List, Optional, Protocol, Tuple

ORIGINS_PER_PAGE = 8  # records of origin; beyond that they coarsen
MOST_LATER = 2 * (ORIGINS_PER_PAGE - 1)
# The Page with its integers, its origins, its places in slab and index, and the queue if it is the only page there;
# measured by `benchmarks/parts.py`, rounded up.
PAGE_RECORD_BYTES = 720

Mark = Tuple[int, float, Any]  # offset of the first byte, capture time, user context


def page_cost(page_size: int) -> int:
    """The most bytes that a page of this size takes, all records included."""
    return page_size + PAGE_RECORD_BYTES + page_size // 7


class Memory(Protocol):
    """A slab, as a page sees it."""

    memory: Any


class Page:
    """The window `[base, limit)` of the stream, `at` the place of byte `base` in the slab.

    The covered bytes are `[start, end)` while `mask` is None; else bit i of `mask` says that byte `base + i` is here
    and `[start, end)` is the hull. `timestamp` and `context` are the origin of the lowest byte; `later` holds the
    origins of bytes behind it as pairs (offset from base, capture time), sorted.
    """

    __slots__ = (
        "slab", "at", "owner", "base", "limit", "start", "end", "mask", "timestamp", "context", "later", "contexts",
        "claims",
    )  # fmt: skip

    slab: Memory
    at: int  # in bytes

    def __init__(self, owner: Any, base: int, limit: int) -> None:
        self.owner = owner  # who gives it a place sets `slab` and `at`
        self.base = self.start = self.end = base
        self.limit = limit
        self.mask: Optional[int] = None
        self.timestamp = 0.0
        self.context: Any = None
        self.later: Optional[array[float]] = None
        self.contexts: Optional[Dict[int, Any]] = None  # of the later origins that have one, by offset from base
        self.claims: Any = None  # the overlap policy's, see reorder

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later."""
        self.base -= delta
        self.limit -= delta
        self.start -= delta
        self.end -= delta

    # -- bytes

    def read(self, start: int, end: int) -> bytes:
        at = self.at - self.base
        return self.slab.memory[at + start : at + end]  # type: ignore[no-any-return]

    def replace(self, start: int, data: bytes, timestamp: float, context: Any) -> None:
        """Let `data`, from one packet, take the place of bytes that are here."""
        stop = start + len(data)
        if self.read(start, stop) != data:
            at = self.at - self.base
            self.slab.memory[at + start : at + stop] = data
            self._note_change(start, stop, timestamp, context)

    def put(self, start: int, data: bytes, timestamp: float, context: Any) -> None:
        """Take `data` in, none of which is here, from one packet."""
        end = start + len(data)
        if self.start == self.end:
            self.timestamp, self.context = timestamp, context
            self.start, self.end = start, end
        elif start == self.end and self.mask is None and context is None:  # what the next two would do with it
            later = self.later
            if later is None:
                later = self.later = array("d")
            if len(later) < MOST_LATER:
                later.append(start - self.base)
                later.append(timestamp)
            self.end = end
        else:
            self.note_origin(start, timestamp, context)
            self.cover(start, end)
        at = self.at - self.base
        self.slab.memory[at + start : at + end] = data

    # -- which bytes are here

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

    def cover(self, start: int, end: int) -> None:
        """Note that `[start, end)` is here now, as some bytes are already."""
        if self.mask is None:
            if start <= self.end and end >= self.start:
                self.start = min(self.start, start)
                self.end = max(self.end, end)
                return
            self.mask = ((1 << (self.end - self.start)) - 1) << (self.start - self.base)
        self.mask |= ((1 << (end - start)) - 1) << (start - self.base)
        self.start = min(self.start, start)
        self.end = max(self.end, end)
        self._simplify()

    def _simplify(self) -> None:
        if self.mask == ((1 << (self.end - self.start)) - 1) << (self.start - self.base):
            self.mask = None

    def uncover_below(self, offset: int) -> None:
        """Forget the bytes below `offset`; some byte at or above it is here."""
        if self.mask is None:
            self.start = offset if offset > self.start else self.start
        else:
            gone = max(0, offset - self.base)
            self.mask = self.mask >> gone << gone
            self.start = self.base + (self.mask & -self.mask).bit_length() - 1
            self._simplify()
        later = self.later
        while later and self.base + later[0] <= self.start:
            self.timestamp = later[1]
            self.context = self.contexts.pop(int(later[0]), None) if self.contexts else None
            del later[:2]

    def uncover_from(self, offset: int) -> None:
        """Forget the bytes at and above `offset`; some byte below it is here."""
        if self.mask is None:
            self.end = min(self.end, offset)
        else:
            self.mask &= (1 << (offset - self.base)) - 1
            self.end = self.base + self.mask.bit_length()
            self._simplify()
        later = self.later
        while later and self.base + later[-2] >= self.end:
            if self.contexts:
                self.contexts.pop(int(later[-2]), None)
            del later[-2:]

    def run_end(self, offset: int) -> int:
        """The end of the covered run that starts at `offset`, or `offset` if that byte is not here."""
        if not self.start <= offset < self.end:
            return offset
        if self.mask is None:
            return self.end
        probe = ~(self.mask >> (offset - self.base))
        return offset + (probe & -probe).bit_length() - 1

    def has_some(self, start: int, end: int) -> bool:
        """Whether some byte of `[start, end)` is here."""
        start = start if start > self.start else self.start
        end = end if end < self.end else self.end
        return start < end and (self.mask is None or self.mask >> (start - self.base) & ((1 << (end - start)) - 1) != 0)

    def covered_bytes(self) -> int:
        return self.end - self.start if self.mask is None else bin(self.mask).count("1")

    # -- where they came from

    def note_origin(self, start: int, timestamp: float, context: Any) -> None:
        """Bytes from `start` on come from this packet. For bytes that were not here call it before `cover`.

        A page remembers `ORIGINS_PER_PAGE`; what does not fit takes the origin below it. The lowest byte always keeps
        its own.
        """
        if start == self.start:
            self.timestamp, self.context = timestamp, context
        elif start < self.start:
            self._note_later(self.start, self.timestamp, self.context)
            self.timestamp, self.context = timestamp, context
        else:
            self._note_later(start, timestamp, context)

    def _note_later(self, start: int, timestamp: float, context: Any) -> None:
        later = self.later
        if later is None:
            later = self.later = array("d")
        elif len(later) >= MOST_LATER:
            return
        relative = start - self.base
        if start >= self.end:
            later.append(relative)
            later.append(timestamp)
        else:
            index = len(later)
            while index and later[index - 2] > relative:
                index -= 2
            later.insert(index, relative)
            later.insert(index + 1, timestamp)
        if context is not None:
            if self.contexts is None:
                self.contexts = {}
            self.contexts[relative] = context

    def _note_change(self, start: int, stop: int, timestamp: float, context: Any) -> None:
        """The bytes `[start, stop)` are this packet's now. How long the page has waited is still told by its first
        record, or a sender could keep it young."""
        behind = self.origins(stop, stop + 1) if self.run_end(stop) > stop else []
        later: Any = self.later or ()
        for index in range(len(later) - 2, -1, -2):
            place = self.base + int(later[index])
            if start <= place < stop or behind and place == stop:
                if self.contexts:
                    self.contexts.pop(place - self.base, None)
                del later[index : index + 2]
        for mark in ((start, timestamp, context), *behind):
            self._note_later(*mark)

    def add_origins(self, marks: List[Mark], start: int, stop: int) -> None:
        """Append the origins of `[start, stop)`, lowest first, to `marks`; `start` is covered."""
        later = self.later
        if not later:
            marks.append((start, self.timestamp, self.context))
        elif self.contexts is None and start == self.start < self.base + later[0] and stop == self.end:
            marks.append((start, self.timestamp, self.context))
            for index in range(0, len(later), 2):
                marks.append((self.base + int(later[index]), later[index + 1], None))
        else:
            marks += self.origins(start, stop)

    def origins(self, start: int, stop: int) -> List[Mark]:
        """The origins of `[start, stop)`, lowest first; `start` is covered."""
        timestamp, context = self.timestamp, self.context
        later = self.later
        if not later:
            return [(start, timestamp, context)]
        found: List[Mark] = []
        contexts = self.contexts or {}
        for index in range(0, len(later), 2):
            relative = int(later[index])
            if self.base + relative > start:
                if not found:
                    found.append((start, timestamp, context))
                if self.base + relative >= stop:
                    return found
                found.append((self.base + relative, later[index + 1], contexts.get(relative)))
            else:
                timestamp, context = later[index + 1], contexts.get(relative)
        return found or [(start, timestamp, context)]

    def time_at(self, offset: int) -> float:
        """The capture time of the byte at `offset`, which is covered."""
        return self.origins(offset, offset + 1)[0][1]

    def oldest_timestamp(self) -> float:
        """The earliest capture time among the origins."""
        return min(self.timestamp, *self.later[1::2]) if self.later else self.timestamp
