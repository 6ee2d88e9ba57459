"""Who owns a byte that several segments carry.

Each policy is a total order on whole segments, by their extent as sent and their order of arrival, so the result does
not depend on how the queue happens to be laid out. Delivered bytes are final under every policy (RFC 9293 3.10).
`linux-kernel` is the exception: there the kernel's own queue decides.
"""

from __future__ import annotations

from array import array
from functools import partial
from typing import Any, Callable, List, NamedTuple, Sequence, Tuple

from .errors import UsageError

MAX_BREAKS = 8  # in the order of a page's owners


class Sent(NamedTuple):
    """A segment as sent: `[start, end)` in stream offsets, and its place in the order of arrival."""

    start: int
    end: int
    arrival: int


_sent = partial(tuple.__new__, Sent)  # of a tuple, without a Python function's call


class Conflict(NamedTuple):
    """Two segments with different bytes for `[offset, offset + len(old))`."""

    offset: int
    old: bytes
    new: bytes
    old_timestamp: float


TimeAt = Callable[[int], float]


def conflicts(start: int, old: bytes, new: bytes, time_at: TimeAt) -> List[Conflict]:
    """One, from the first to the last byte that differs, or none; `time_at` an offset the old version was captured. One
    step whatever the length."""
    if old == new:
        return []
    both, size = int.from_bytes(old, "big") ^ int.from_bytes(new, "big"), len(old)
    first, last = size - (both.bit_length() + 7) // 8, size - ((both & -both).bit_length() - 1) // 8
    return [Conflict(start + first, old[first:last], new[first:last], time_at(start + first))]


class Disputed:
    """A queue that says where bytes came that were there already, and were others."""

    __slots__ = ("_conflicts",)

    _conflicts: Any  # nothing, or a list

    def take_conflicts(self) -> Sequence[Conflict]:
        """What was found since the last time."""
        found, self._conflicts = self._conflicts, ()
        return found  # type: ignore[no-any-return]

    def _compare_versions(self, start: int, old: bytes, new: bytes, time_at: TimeAt) -> None:
        if old != new:
            if not self._conflicts:
                self._conflicts = []
            self._conflicts += conflicts(start, old, new, time_at)


class Policy(NamedTuple):
    """`new_wins(old, new)` decides a byte that both carry; `needs_owner` is False where arrival order alone does.

    `reset_at` says where strict checks take a RST, as stacks of this kind do: "exact" at the next expected byte
    (RFC 5961 3.2), "window" anywhere in the window (RFC 793), "right" there or anywhere behind it. `best_last` says
    that of two owners the one of later bytes is the one to win, where ends decide; where starts do, it is the other.
    """

    name: str
    needs_owner: bool
    new_wins: Callable[[Sent, Sent], bool]
    reset_at: str = "exact"
    best_last: bool = False

    def breaks(self, left: Sent, right: Sent) -> bool:
        """Whether these two, in the order of their bytes, are not in the order in which they win."""
        better = self.new_wins(right, left) if self.best_last else self.new_wins(left, right)
        return better and left[:2] != right[:2]


def _bsd(old: Sent, new: Sent) -> bool:
    return new.start < old.start


def _linux(old: Sent, new: Sent) -> bool:
    return new.start < old.start or new.start == old.start and new.end > old.end


def _old_linux(old: Sent, new: Sent) -> bool:
    return new.start < old.start or new.start == old.start and new.end >= old.end


def _solaris(old: Sent, new: Sent) -> bool:
    return new.end > old.end or new.end == old.end and new.start <= old.start


_POLICIES = {
    "first": Policy("first", False, lambda old, new: False),
    "last": Policy("last", False, lambda old, new: True),
    "bsd": Policy("bsd", True, _bsd),
    "linux": Policy("linux", True, _linux),
    "old-linux": Policy("old-linux", True, _old_linux, "window"),
    "solaris": Policy("solaris", True, _solaris, "window", True),
    "linux-kernel": Policy("linux-kernel", False, lambda old, new: False),  # decided by kernel_queue
}
_ALIASES = {
    "vista": "first", "windows": "bsd", "win-2003": "bsd", "windows2k3": "bsd", "macos": "bsd", "bsd-right": "bsd",
    "irix": "bsd", "hpux10": "bsd", "hpux11": "solaris", "old-solaris": "solaris",
}  # fmt: skip
_RESETS = {  # aliases that share the order of bytes, but not the rule for RST
    "vista": "window", "win-2003": "window", "windows2k3": "window", "irix": "window", "hpux10": "window",
    "hpux11": "right",
}  # fmt: skip


def policy_named(name: str) -> Policy:
    """The policy of this name or alias. Raises `UsageError`."""
    policy = _POLICIES.get(_ALIASES.get(name, name)) if isinstance(name, str) else None
    if policy is None:
        raise UsageError(f"overlap={name!r}: use one of {', '.join([*_POLICIES, *_ALIASES])}")
    return policy._replace(reset_at=_RESETS.get(name, policy.reset_at))


FIRST = policy_named("first")  # the default; also of bytes about which there is nothing to decide


class OwnerMap:
    """Which segment owns which bytes of a page: disjoint ranges in order, five integers each.

    Of two owners the one that wins carried what lies between their bytes as well, unless it was cut. So along the page
    they are in the order in which they win, but for few breaks, and who loses to a segment is found without asking
    each. What would make more than `MAX_BREAKS` of these counts as sent by the owner before it.

    Cost: O(log n) for n ranges, at most the page's bytes, and one call that moves them. `len` is the number of ranges.
    """

    __slots__ = ("_breaks", "_ranges")

    def __init__(self) -> None:
        self._ranges = array("q")  # low, high, and the owner's start, end, arrival
        self._breaks: Sequence[int] = ()  # where ranges begin that break the order; nothing, or an array

    def __len__(self) -> int:
        return len(self._ranges) // 5

    def _first_past(self, offset: int) -> int:
        """The place of the first range that ends behind `offset`."""
        ranges = self._ranges
        low, high = 0, len(ranges) // 5
        while low < high:
            middle = (low + high) // 2
            if ranges[5 * middle + 1] > offset:
                high = middle
            else:
                low = middle + 1
        return 5 * low

    def _owner(self, place: int) -> Sent:
        return _sent(self._ranges[place + 2 : place + 5])

    def assign(self, start: int, end: int, owner: Sent, policy: Policy) -> None:
        """Give `[start, end)` to `owner`, cutting what others had there."""
        ranges = self._ranges
        at = stop = self._first_past(start)
        before, after = array("q"), array("q")
        while stop < len(ranges) and ranges[stop] < end:
            if ranges[stop] < start:
                before = array("q", (ranges[stop], start, *ranges[stop + 2 : stop + 5]))
            if ranges[stop + 1] > end:
                after = array("q", (end, *ranges[stop + 1 : stop + 5]))
            stop += 5
        new = before + array("q", (start, end, *owner)) + after
        if stop - at > len(new):  # an array that shrinks by little keeps its room
            self._ranges = ranges[:at] + new + ranges[stop:]
        else:
            ranges[at:stop] = new
        self._note_breaks(at + len(before), policy)

    def _note_breaks(self, place: int, policy: Policy) -> None:
        """The range at `place` is new."""
        ranges = self._ranges
        start, owner, following = ranges[place], self._owner(place), place + 5
        edge = ranges[following] if following < len(ranges) else ranges[place + 1]
        found = []
        if place and policy.breaks(self._owner(place - 5), owner):
            found.append(start)
        if following < len(ranges) and policy.breaks(owner, self._owner(following)):
            found.append(edge)
        if found or self._breaks:
            others = [offset for offset in self._breaks if not start <= offset <= edge]
            if found and len(others) + len(found) > MAX_BREAKS:
                neighbour = place - 5 if place else following
                ranges[place + 2 : place + 5] = ranges[neighbour + 2 : neighbour + 5]
                return self._note_breaks(place, policy)
            self._breaks = array("q", sorted(others + found)) if others or found else ()
        return None

    def won(self, start: int, end: int, sent: Sent, policy: Policy) -> List[Tuple[int, int]]:
        """The parts of `[start, end)`, all of which somebody owns, that `sent` takes from the owners. O(log n)."""
        wins, ranges = policy.new_wins, self._ranges
        found: List[Tuple[int, int]] = []
        low = start
        for high in (*(offset for offset in self._breaks if start < offset < end), end):
            first, last = self._first_past(low), self._first_past(high - 1)
            begins, ends = wins(self._owner(first), sent), wins(self._owner(last), sent)
            won_low, won_high = low if begins else high, high
            while begins != ends and last - first > 5:
                middle = (first + last) // 10 * 5
                if wins(self._owner(middle), sent) == begins:
                    first = middle
                else:
                    last = middle
            if begins and not ends:
                won_high = ranges[last]
            elif ends and not begins:
                won_low = ranges[last]
            if won_low < won_high:
                if found and found[-1][1] == won_low:
                    won_low = found.pop()[0]
                found.append((won_low, won_high))
            low = high
        return found

    def within(self, start: int, end: int) -> List[Tuple[int, int, Sent]]:
        """The parts of the ranges that lie in `[start, end)`, in order. O(log n) and the ranges given."""
        at, stop = self._first_past(start), self._first_past(end - 1)
        if stop < len(self._ranges) and self._ranges[stop] < end:
            stop += 5
        ranges = self._ranges[at:stop]
        if not ranges:
            return []
        ranges[0], ranges[-4] = max(ranges[0], start), min(ranges[-4], end)
        return [
            (ranges[place], ranges[place + 1], _sent((ranges[place + 2], ranges[place + 3], ranges[place + 4])))
            for place in range(0, len(ranges), 5)
        ]

    def discard_from(self, offset: int) -> None:
        """Forget everything at or above `offset`. O(log n) and the ranges dropped."""
        ranges = self._ranges
        at = self._first_past(offset)
        if at < len(ranges) and ranges[at] < offset:
            ranges[at + 1] = offset
            at += 5
        self._ranges = ranges[:at]  # as above
        if self._breaks:
            self._breaks = array("q", (place for place in self._breaks if place < offset))
