"""What one direction remembers so that a second version of the same bytes does not go unnoticed."""

from __future__ import annotations

from typing import Any, Sequence

from .chunk import Anomaly
from .overlap import Conflict, differing
from .segment import Direction

EVIDENCE_BYTES = 64  # of each version in an overlap_conflict


class Evidence:
    """The reporting side of a `HalfStream`: anomalies, and comparison with delivered and refused bytes."""

    __slots__ = ()

    state: Any
    direction: Direction
    handed: Any
    history: bytes
    refused: Any

    def anomaly(self, kind: str, offset: int, timestamp: float, **detail: Any) -> None:
        host = self.state.host
        host._counters.anomalies[kind] = host._counters.anomalies.get(kind, 0) + 1
        host._call(self.state, "anomaly", Anomaly(kind, self.direction, offset, timestamp, detail))

    def _report_conflicts(self, conflicts: Sequence[Conflict], timestamp: float) -> None:
        for conflict in conflicts:
            self.anomaly(
                "overlap_conflict", conflict.offset, timestamp, length=len(conflict.old),
                old=conflict.old[:EVIDENCE_BYTES], new=conflict.new[:EVIDENCE_BYTES],
                old_timestamp=conflict.old_timestamp,
            )  # fmt: skip

    def note_refused(self, start: int, data: bytes, timestamp: float) -> None:
        """Remember bytes that the receiver did not take, to compare them with those it takes at the same place."""
        bound = self.state.host._history_bytes
        if bound and data:
            self.refused = Conflict(start, data[:bound], b"", timestamp)

    def check_history(self, start: int, data: bytes, timestamp: float) -> None:
        """Compare a retransmission with the delivered bytes that are still known."""
        end = self.handed
        base = end - len(self.history)
        low, high = max(start, base), min(start + len(data), end)
        if low < high:
            old, new = self.history[low - base : high - base], data[low - start : high - start]
            if old != new:
                first, last = differing(old, new)
                conflict = Conflict(low + first, old[first:last], new[first:last], self.state.last_seen)
                self._report_conflicts([conflict], timestamp)

    def _compare_refused(self, refused: Conflict, offset: int, data: bytes, timestamp: float) -> bool:
        """Whether the delivered `data` covers the refused bytes; a difference is reported."""
        start, old, _, old_timestamp = refused
        low, high = max(start, offset), min(start + len(old), offset + len(data))
        if low < high:
            before, after = old[low - start : high - start], data[low - offset : high - offset]
            if before != after:
                first, last = differing(before, after)
                conflict = Conflict(low + first, before[first:last], after[first:last], old_timestamp)
                self._report_conflicts([conflict], timestamp)
        return low < high

    def _history_after(self, data: bytes) -> bytes:
        bound: int = self.state.host._history_bytes
        return (self.history + data)[-bound:] if bound else b""

