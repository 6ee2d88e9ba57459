"""What few connections ever need, kept out of the ones that do not: a million idle connections must fit in a gigabyte.

A direction or a connection without anything unusual shares one object of defaults, `NOTHING`, which is never written;
the first unusual value makes it an object of its own. Rules read and write the fields by name as if they were slots.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Callable, Dict, NamedTuple, Tuple

from .uncut import PYPY


class Pending(NamedTuple):
    """A segment that does not count yet, and when it was captured."""

    segment: Any
    timestamp: float


class Refused(Pending):
    """One that the receiver would not have taken, as far as was seen: only its acknowledgement lets it count."""

    __slots__ = ()


def without(waiting: Tuple[Pending, ...], one: Pending) -> Tuple[Pending, ...]:
    return tuple(other for other in waiting if other is not one)


class DirectionDetails:
    """One direction's unusual values."""

    __slots__ = (
        "acked_since", "acked_mark", "ahead", "claimed_end", "cuts", "doubtful", "early_end", "fin_unsure", "held",
        "held_segments", "history", "isns", "kept", "refused", "rst_offset", "sack", "sends_md5", "skip", "urgent",
        "window", "window_edge",
    )  # fmt: skip

    def __init__(self) -> None:
        self.acked_since: Any = None  # capture time since when the receiver is known to have what is missing here
        self.acked_mark = 0  # what it had then
        self.ahead = -1  # the highest offset seen beyond the next expected one
        self.claimed_end = -1  # strict checks: how far the sender has come, by what was refused, and by numbers alone
        self.cuts: Any = ()  # ranges that the snap length cut off: nothing, or `Cuts`
        # What waits for the receiver's ACK: data with a wrong checksum (lenient checks), a low TTL, or weakly refused.
        self.doubtful: Any = ()  # of `Pending`
        self.early_end = 0  # strict checks: where data ends that came ahead of the SYN and may be a decoy
        self.fin_unsure = False  # the FIN may have died on the way
        self.held: Any = None  # with delivery="acked": what waits for the receiver's acknowledgement
        self.held_segments = 0
        self.history: Any = None  # the last delivered bytes, where conflicts with them are to be seen
        self.isns: Any = ()  # other initial sequence numbers that it offered: nothing, or an array
        self.kept: Any = None  # what the handler holds back
        self.refused: Any = None  # bytes that the receiver did not take
        self.rst_offset: Any = None
        self.sack = self.sends_md5 = False
        self.skip = 0
        self.urgent: Any = ()  # offsets of urgent bytes that the handler has not come to: nothing, or an array
        self.window = -1  # that it has open for the peer's data, where that is none, or checks are strict
        self.window_edge = -1  # of the peer's data: the highest offset this side's ACKs and windows ever allowed


class ConnectionDetails:
    """A connection's."""

    __slots__ = ("crossed_syn", "denied", "depth", "pending_opening", "reset_by", "syn_data")

    def __init__(self) -> None:
        self.crossed_syn = 0  # 1 once both sides sent a SYN without ACK, 2 once that was reported
        # The host that a SYN went to has refused it, or acknowledged this other number, of a connection before.
        self.denied: Any = None  # -1 for a RST
        self.depth: Any = None  # how many bytes of each direction the handler wants
        self.pending_opening: Any = None  # as `Pending`, like the next
        self.reset_by: Any = None  # whose RST counts once what it acknowledges has come
        self.syn_data: Any = None


def _defaults(kind: Any) -> Dict[str, Any]:
    values = kind()
    return {name: getattr(values, name) for name in kind.__slots__}


_OF_DIRECTION, _OF_CONNECTION = _defaults(DirectionDetails), _defaults(ConnectionDetails)


class _Nothing:
    __slots__ = (*DirectionDetails.__slots__, *ConnectionDetails.__slots__)

    def __init__(self) -> None:
        for name, value in (*_OF_DIRECTION.items(), *_OF_CONNECTION.items()):
            setattr(self, name, value)


NOTHING: Any = _Nothing()


def settled(details: Any) -> bool:
    """Whether all values of a direction are at their defaults again. O(1); spelled out, for it is asked at every hole
    that closes."""
    return bool(
        details.acked_since is None and details.acked_mark == 0 and details.ahead == -1 and not details.cuts
        and not details.doubtful and details.early_end == 0 and not details.fin_unsure and details.held is None
        and details.held_segments == 0 and not details.history and not details.isns and details.kept is None
        and details.refused is None and details.claimed_end == -1 and details.rst_offset is None
        and not details.sack and not details.sends_md5 and details.skip == 0 and not details.urgent
        and details.window == -1 and details.window_edge == -1
    )  # fmt: skip


def unusual(name: str) -> Any:
    """An attribute of this name that lives in `details`. Reading is O(1); writing a default makes no object."""
    kind: Any = DirectionDetails if name in _OF_DIRECTION else ConnectionDetails
    default = getattr(NOTHING, name)

    def write(owner: Any, value: Any) -> None:
        if owner.details is NOTHING:
            if value is default:
                return
            owner.details = kind()
        setattr(owner.details, name, value)

    return property(_reader(name), write)


def _reader(name: str) -> Callable[[Any], Any]:
    if not PYPY:
        return attrgetter("details." + name)  # half the time of a function in Python
    return lambda owner: getattr(owner.details, name)  # where `attrgetter` is Python itself, and slow
