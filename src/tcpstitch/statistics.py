"""The counters, as an immutable snapshot."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple


class Statistics(NamedTuple):
    """A snapshot of an assembler; all counts since it was made, unless they say otherwise."""

    packets: int  # given to assemble
    segments: int  # TCP segments among them
    bytes: int  # delivered to handlers
    chunks: int  # delivered outside of the short path
    gaps: int
    missing_bytes: int
    retransmissions: int  # segments that brought nothing new
    ignored: int  # segments that belong to no followed connection
    connections: int  # now
    connections_opened: int
    connections_completed: int
    connections_evicted: int
    pages_used: int  # now; used + free == allocated
    pages_free: int
    pages_allocated: int
    pages_peak: int
    evictions: int  # times the total page bound made a connection give something up
    page_limit_hits: int  # times a connection reached its own bound
    kept_bytes_dropped: int
    anomalies: Mapping[str, int]
    decode_errors: Mapping[str, int]
    dropped: int = 0  # packets that live captures lost before they could be read


class Counters:
    """The running counts behind `Statistics`."""

    __slots__ = (
        "bytes", "chunks", "gaps", "missing_bytes", "retransmissions", "ignored", "opened", "completed", "evicted",
        "evictions", "page_limit_hits", "kept_bytes_dropped", "segments", "anomalies",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bytes = self.chunks = self.segments = self.gaps = self.missing_bytes = 0
        self.retransmissions = self.ignored = self.opened = self.completed = self.evicted = 0
        self.evictions = self.page_limit_hits = self.kept_bytes_dropped = 0
        self.anomalies: Dict[str, int] = {}


class FlushResult(NamedTuple):
    """`flushed` directions delivered something they had held; `closed` connections were completed."""

    flushed: int
    closed: int


class Holder(NamedTuple):
    """One connection that holds pages; `age` in seconds of capture time since its last packet."""

    flow: Any
    pages: int
    bytes: int
    age: float
