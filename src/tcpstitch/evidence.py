"""What one direction remembers so that a second version of the same bytes does not go unnoticed."""

from __future__ import annotations

from typing import Any, List, Sequence

from .chunk import Anomaly
from .history import History
from .overlap import Conflict, conflicts
from .page import Mark
from .segment import Direction

EVIDENCE_BYTES = 64  # of each version in an overlap_conflict


class Evidence:
    """The reporting side of a `HalfStream`: anomalies, and comparison with delivered and refused bytes."""

    __slots__ = ()

    state: Any
    direction: Direction
    history: Any
    refused: Any

    def anomaly(self, kind: str, offset: int, timestamp: float, **detail: Any) -> None:
        host = self.state.host
        host._counters.anomalies[kind] += 1
        host._call(self.state, "anomaly", Anomaly(kind, self.direction, offset, timestamp, detail))

    def _report_conflicts(self, found: Sequence[Conflict], timestamp: float) -> None:
        for conflict in found:
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
        history = self.history
        for low, old in history.within(start, start + len(data)):
            new = data[low - start : low - start + len(old)]
            self._report_conflicts(conflicts(low, old, new, history.time_at), timestamp)

    def _compare_refused(self, refused: Conflict, offset: int, data: bytes, timestamp: float) -> bool:
        """Whether the delivered `data` covers the refused bytes; a difference is reported."""
        start, old, _, old_timestamp = refused
        low, high = max(start, offset), min(start + len(old), offset + len(data))
        if low < high:
            before, after = old[low - start : high - start], data[low - offset : high - offset]
            self._report_conflicts(conflicts(low, before, after, lambda place: old_timestamp), timestamp)
        return low < high

    def limit_history(self, bound: int) -> None:
        """Keep no more than `bound` delivered bytes, and no more refused ones."""
        if not bound:
            self.history = None
        elif self.history:
            self.history.trim(bound)
        if self.refused is not None and len(self.refused.old) > bound:
            self.refused = None

    def _remember(self, start: int, data: bytes, marks: List[Mark]) -> None:
        """Keep what is delivered, as far as the bound, which is not 0, allows."""
        if self.history is None:
            self.history = History()
        self.history.add(start, data, marks, self.state.host._history_bytes)
