"""Data that is not taken at once, and what decides about it: the receiver's acknowledgement, or another copy."""

from __future__ import annotations

from typing import Any

from .half import HalfStream
from .resets import Resets
from .segment import FIN, Segment
from .sequence import MASK
from .sequencing import behind
from .validate import TTL_MARGIN, refusal, refusal_detail

HEADER_ANOMALIES = ("unexpected_md5", "no_ack_flag")  # raised for every segment that has them, accepted or not
# Counts if it is acknowledged all the same: a byte beyond the window, or what the tap put ahead of what it follows.
WEAK_REFUSALS = ("zero_window_probe", "bad_ack", "data_before_handshake", "out_of_window", "fin_out_of_window")


class Doubts(Resets):
    """The part of a `StreamState` that sets segments aside, in `doubtful`: one in each direction."""

    __slots__ = ()

    _data: Any

    def _refused(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether the receiver would not have taken it; its data is remembered to be compared with what it takes."""
        reason = refusal(half, segment)
        if reason is None:
            return False
        start = half.offset_of(segment.seq) if half.known else 0
        if reason not in HEADER_ANOMALIES:
            half.anomaly(reason, start, timestamp, **refusal_detail(reason, half, segment))
        if reason in WEAK_REFUSALS and (start >= half.next_offset if segment.flags & FIN else segment.length):
            if half.doubtful is None:
                self.host._hold(half, "doubtful", segment, timestamp)
            if half.known:
                half.refused_end = max(half.refused_end, half.offset_of(behind(segment)))
        if half.known:
            half.note_refused(start, segment.payload, timestamp)
        return True

    def _doubted(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether this segment is set aside until the receiver acknowledges it: under strict checks data that may die
        on the way, by its TTL; a second such segment is a new path. Other data at the place of what waits wins."""
        doubted, since = half.doubtful or (None, timestamp)
        if self.host._strict and segment.ttl <= half.ttl - TTL_MARGIN:
            if doubted is None or doubted.seq == segment.seq or doubted.ttl >= half.ttl:
                self.host._hold(half, "doubtful", segment, timestamp)
                return True
            half.ttl = segment.ttl
            self._trust(half)
        elif doubted is not None and _takes_place(segment, doubted):
            half.doubtful = None
            if self.host._strict:
                half.note_refused(half.offset_of(doubted.seq), doubted.payload, since)
        return False

    def _set_aside(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """Lenient checks: data with a wrong checksum, which the capturing host or a tool that hides addresses may have
        made wrong, counts where the receiver acknowledges it and no other copy came. Only the first such waits."""
        if not segment.length or half.stopped or half.holding or half.offset_of(segment.seq) < half.next_offset:
            return
        if half.doubtful is None or half.offset_of(segment.seq) < half.offset_of(half.doubtful.segment.seq):
            self.host._hold(half, "doubtful", segment, timestamp)

    def _trust(self, half: HalfStream) -> None:
        waiting, half.doubtful = half.doubtful, None
        if waiting is not None:
            half.ttl = waiting.segment.ttl
            self._data(half, *waiting)


def _takes_place(segment: Segment, doubted: Segment) -> bool:
    """Whether the data of a segment has the first byte of another one, or the number of its FIN."""
    numbers = (doubted.seq, behind(doubted) - 1) if doubted.flags & FIN else (doubted.seq,)
    return any((number - segment.seq) & MASK < segment.length for number in numbers)
