"""Who owns a byte that several segments carry.

Each policy is a total order on whole segments, by their extent as sent and their order of arrival, so the result does
not depend on how the queue happens to be laid out. Delivered bytes are final under every policy (RFC 9293 3.10).
`linux-kernel` is the exception: there the kernel's own queue decides.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Tuple

from sortedcontainers import SortedDict

from .errors import UsageError


class Sent(NamedTuple):
    """A segment as sent: `[start, end)` in stream offsets, and its place in the order of arrival."""

    start: int
    end: int
    arrival: int


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
    return (new.start, -new.end) < (old.start, -old.end)


def _old_linux(old: Sent, new: Sent) -> bool:
    return (new.start, -new.end) <= (old.start, -old.end)


def _solaris(old: Sent, new: Sent) -> bool:
    return (-new.end, new.start) <= (-old.end, old.start)


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


class OwnerMap:
    """Which segment owns which buffered bytes of one direction: disjoint ranges in order.

    Invariant: the ranges are disjoint. Cost: O(log n + k) for k ranges touched.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: Dict[int, Tuple[int, Sent]] = SortedDict()

    def __len__(self) -> int:
        return len(self._ranges)

    def assign(self, start: int, end: int, owner: Sent) -> None:
        """Give `[start, end)` to `owner`, cutting what others had there."""
        ranges = self._ranges
        for low, high, other in self.within(start, end, clip=False):
            del ranges[low]
            if low < start:
                ranges[low] = (start, other)
            if high > end:
                ranges[end] = (high, other)
        ranges[start] = (end, owner)

    def within(self, start: int, end: int, clip: bool = True) -> List[Tuple[int, int, Sent]]:
        """The ranges that meet `[start, end)`, in order; cut to it where `clip`."""
        ranges = self._ranges
        index = ranges.bisect_right(start) - 1  # type: ignore[attr-defined]
        first = max(index, 0)
        found = []
        for low in ranges.islice(first):  # type: ignore[attr-defined]
            if low >= end:
                break
            high, owner = ranges[low]
            if high > start:
                found.append((max(low, start), min(high, end), owner) if clip else (low, high, owner))
        return found

    def discard_below(self, offset: int) -> None:
        """Forget everything below `offset`."""
        ranges = self._ranges
        while ranges:
            low, (high, owner) = ranges.peekitem(0)  # type: ignore[attr-defined]
            if low >= offset:
                return
            del ranges[low]
            if high > offset:
                ranges[offset] = (high, owner)
                return

    def shift(self, delta: int) -> None:
        """Count offsets from `delta` bytes later. O(n)."""
        moved = [
            (low - delta, (high - delta, Sent(owner.start - delta, owner.end - delta, owner.arrival)))
            for low, (high, owner) in self._ranges.items()
        ]
        self._ranges = SortedDict(moved)
