"""Who owns a byte that several segments carry.

Each policy is a total order on whole segments, by their extent as sent and their order of arrival, so the result does
not depend on how the queue happens to be laid out. Delivered bytes are final under every policy (RFC 9293 3.10).
`linux-kernel` is the exception: there the kernel's own queue decides.
"""

from __future__ import annotations

from array import array
from functools import partial
from typing import Callable, List, NamedTuple, Tuple

from .errors import UsageError


class Sent(NamedTuple):
    """A segment as sent: `[start, end)` in stream offsets, and its place in the order of arrival."""

    start: int
    end: int
    arrival: int


_sent = partial(tuple.__new__, Sent)  # of a tuple, without a Python function's call


class Policy(NamedTuple):
    """`new_wins(old, new)` decides a byte that both carry; `needs_owner` is False where arrival order alone does.

    `reset_at` says where strict checks take a RST, as stacks of this kind do: "exact" at the next expected byte
    (RFC 5961 3.2), "window" anywhere in the window (RFC 793), "right" there or anywhere behind it.
    """

    name: str
    needs_owner: bool
    new_wins: Callable[[Sent, Sent], bool]
    reset_at: str = "exact"


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
    "solaris": Policy("solaris", True, _solaris, "window"),
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


def differing(old: bytes, new: bytes) -> Tuple[int, int]:
    """Where two versions of the same bytes differ: the first place, and the one behind the last. O(n)."""
    places = range(len(old))
    first = next(i for i in places if old[i] != new[i])
    return first, next(i for i in reversed(places) if old[i] != new[i]) + 1


class OwnerMap:
    """Which segment owns which bytes of a page: disjoint ranges in order, five integers each.

    Cost: O(n) for n ranges, at most the page's bytes; moving them is one call. `len` is the number of ranges.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges = array("q")  # low, high, and the owner's start, end, arrival

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

    def assign(self, start: int, end: int, owner: Sent) -> None:
        """Give `[start, end)` to `owner`, cutting what others had there."""
        ranges = self._ranges
        at = stop = self._first_past(start)
        new = array("q", (start, end, *owner))
        while stop < len(ranges) and ranges[stop] < end:
            if ranges[stop] < start:
                new[:0] = array("q", (ranges[stop], start, *ranges[stop + 2 : stop + 5]))
            if ranges[stop + 1] > end:
                new += array("q", (end, *ranges[stop + 1 : stop + 5]))
            stop += 5
        ranges[at:stop] = new

    def within(self, start: int, end: int) -> List[Tuple[int, int, Sent]]:
        """The parts of the ranges that lie in `[start, end)`, in order."""
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
        del ranges[at:]

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later. O(n)."""
        ranges = self._ranges
        self._ranges = array("q", (value - delta if at % 5 < 4 else value for at, value in enumerate(ranges)))
