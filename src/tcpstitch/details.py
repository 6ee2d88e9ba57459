"""What few connections ever need, kept out of the ones that do not: a million idle connections must fit in a gigabyte.

A direction or a connection without anything unusual shares one object of defaults, `NOTHING`, which is never written;
the first unusual value makes it an object of its own. Rules read and write the fields by name as if they were slots.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Dict

_DEFAULTS: Dict[str, Any] = {
    # of a direction
    "acked_since": None,  # capture time since when the receiver is known to have bytes that are missing here
    "acked_mark": 0,  # what it had then
    "ahead": -1,  # the highest offset seen beyond the next expected one
    "cuts": (),  # ranges that the snap length cut off: nothing, or `Cuts`
    "doubtful": None,  # data with a wrong checksum, strict checks: a low TTL, that waits for the receiver's ACK
    "fin_unsure": False,  # the FIN may have died on the way
    "held": None,  # with delivery="acked": what waits for the receiver's acknowledgement
    "held_segments": 0,
    "history": b"",  # the last delivered bytes, where conflicts with them are to be seen
    "isns": (),
    "kept": None,  # what the handler holds back
    "refused": None,  # bytes that the receiver did not take
    "rst_offset": None,
    "sack": False,
    "sends_md5": False,
    "skip": 0,
    "urgent": (),  # offsets of urgent bytes that the handler has not come to
    "waiting_start": None,
    "window_edge": -1,  # of the peer's data: the highest offset this side's ACKs and windows ever allowed
    # of a connection
    "crossed_syn": 0,  # 1 once both sides sent a SYN without ACK, 2 once that was reported
    "depth": None,  # how many bytes of each direction the handler wants
    "pending_syn": None,
    "syn_data": None,
}


class Details:
    """One direction's, or one connection's, unusual values."""

    __slots__ = tuple(_DEFAULTS)

    def __init__(self) -> None:
        for name, value in _DEFAULTS.items():
            setattr(self, name, value)


NOTHING = Details()


def settled(details: Details) -> bool:
    """Whether all values are at their defaults again. O(1)."""
    return all(getattr(details, name) is value for name, value in _DEFAULTS.items())


def unusual(name: str) -> Any:
    """An attribute of this name that lives in `details`. Reading is O(1); writing a default makes no object."""
    default = _DEFAULTS[name]

    def write(owner: Any, value: Any) -> None:
        if owner.details is NOTHING:
            if value is default:
                return
            owner.details = Details()
        setattr(owner.details, name, value)

    return property(attrgetter("details." + name), write)
