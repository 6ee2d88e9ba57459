"""The counters, as an immutable snapshot."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, Mapping, NamedTuple

from .notices import INFO, WARNING, notice
from .segment import Flow, FlowKey


class Statistics(NamedTuple):
    """A snapshot of an assembler. Counts are since it was made, except those that say "now".

    Traffic: `packets` given to `assemble`, `segments` of TCP among them, `bytes` delivered to handlers, each once, also
    where `keep_from` lets it come again, `chunks` delivered outside of the short path, `retransmissions`: segments that
    brought nothing new, `ignored`: segments of connections that nobody follows (any more), and of none, such as
    SYNs with wrong checksums (docs/tcp-rules.md, "What opens a connection").
    `dropped`: packets that live captures lost before they could be read. `decode_errors`: packets without a segment, by
    reason (docs/encapsulations.md). `anomalies` by kind (docs/anomalies.md). `gaps` and the `missing_bytes` in them;
    `gaps_by_reason` (docs/tcp-rules.md).

    Connections: `connections` open now, of which `connections_embryonic` have not ended their handshake; besides these
    `connections_lingering` now, over but for late packets, or closed by one side and waiting for the rest;
    `connections_peak`, the most of both at a time.
    `connections_opened`, without those that the factory declined, and `connections_completed`: the difference has still
    to complete; `completions_by_reason`; `connections_evicted` for `max_connections`.

    Memory: pages now, where `pages_used` + `pages_free` == `pages_allocated`; `pages_peak`, the most used.
    `page_limit_hits`: times a connection reached its own bound. `evictions`: times the total page bound made a
    connection give something up. `evictions_by_kind`: `page_limit`, `total_limit`, `connection_lingering`,
    `connection_embryonic`, `connection_idle`. `kept_bytes_dropped`: what a bound or a gap took of kept ones.
    `fragments`: incomplete IP datagrams now, in `fragment_bytes`, records included. `memory_bytes` held now, estimated
    from above; `memory_bound`, the most that the limits allow; `pressure`, how full the fuller of the bounds on pages
    in total and on living connections is now: 1.0 means that something is given up for the next.
    """

    packets: int
    segments: int
    bytes: int
    chunks: int
    gaps: int
    missing_bytes: int
    retransmissions: int
    ignored: int
    connections: int
    connections_opened: int
    connections_completed: int
    connections_evicted: int
    pages_used: int
    pages_free: int
    pages_allocated: int
    pages_peak: int
    evictions: int
    page_limit_hits: int
    kept_bytes_dropped: int
    anomalies: Mapping[str, int]
    decode_errors: Mapping[str, int]
    dropped: int
    connections_embryonic: int
    connections_lingering: int
    connections_peak: int
    gaps_by_reason: Mapping[str, int]
    completions_by_reason: Mapping[str, int]
    evictions_by_kind: Mapping[str, int]
    fragments: int
    fragment_bytes: int
    memory_bytes: int
    memory_bound: int
    pressure: float


class Counters:
    """The running counts behind `Statistics`."""

    __slots__ = (
        "bytes", "chunks", "missing_bytes", "retransmissions", "ignored", "opened", "evicted", "kept_bytes_dropped",
        "segments", "anomalies", "connections_peak", "gap_reasons", "completion_reasons", "eviction_kinds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bytes = self.chunks = self.segments = self.missing_bytes = self.retransmissions = self.ignored = 0
        self.opened = self.evicted = self.kept_bytes_dropped = self.connections_peak = 0
        self.anomalies: Dict[str, int] = defaultdict(int)
        self.gap_reasons: Dict[str, int] = defaultdict(int)
        self.completion_reasons: Dict[str, int] = defaultdict(int)
        self.eviction_kinds: Dict[str, int] = defaultdict(int)

    def count_gap(self, reason: str, length: int) -> None:
        self.missing_bytes += length
        self.gap_reasons[reason] += 1

    def count_eviction(self, kind: str, key: FlowKey) -> None:
        """Something was given up for a bound. Logged the 1st, 10th, 100th, ... time, whatever the traffic does."""
        self.eviction_kinds[kind] += 1
        count = self.eviction_kinds[kind]
        if str(count).strip("0") == "1":
            level = WARNING if kind in _LOSES_DATA else INFO
            notice(level, "%s, time %d: %s", _WHAT_HAPPENED[kind], count, Flow(key))


_LOSES_DATA = {"total_limit", "connection_idle"}
_WHAT_HAPPENED = {
    "page_limit": "a connection reached its page limit and gave something up",
    "total_limit": "the total page limit was reached and the longest idle connection gave something up",
    "connection_lingering": "the connection limit was reached and a closed connection was forgotten",
    "connection_embryonic": "the connection limit was reached and a half-open connection was evicted",
    "connection_idle": "the connection limit was reached and the longest idle connection was evicted",
}


class FlushResult(NamedTuple):
    """`flushed` directions delivered something they had held; `closed` connections were completed."""

    flushed: int
    closed: int


class Holder(NamedTuple):
    """One connection that holds `pages` pages with `bytes` bytes; its last packet came `age` seconds of capture time
    ago, by a clock that goes in steps of a second."""

    flow: Flow
    pages: int
    bytes: int
    age: float
