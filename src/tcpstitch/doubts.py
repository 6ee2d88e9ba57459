"""Data that is not taken at once, and what decides about it: the receiver's acknowledgement, or another copy."""

from __future__ import annotations

from typing import List, Type

from .details import Pending, Refused, without
from .half import HalfStream
from .reuse import Reuse
from .segment import FIN, RST, SYN, Segment
from .sequence import difference
from .sequencing import NEAR, behind
from .validate import TTL_MARGIN, cut_at, refusal, refusal_detail, room_end, without_fin

MAX_DOUBTS = 16  # in one direction
HEADER_ANOMALIES = ("unexpected_md5", "no_ack_flag")  # raised for every segment that has them, accepted or not
# Counts if it is acknowledged all the same: a byte beyond the window, or what the tap put ahead of what it follows.
WEAK_REFUSALS = ("zero_window_probe", "bad_ack", "data_before_handshake", "out_of_window", "fin_out_of_window")


class Doubts(Reuse):
    """The part of a `StreamState` that sets segments aside, in `doubtful`: a few in each direction."""

    __slots__ = ()

    def _refused(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether the receiver would not have taken it; its data is remembered to be compared with what it takes."""
        reason = refusal(half, segment)
        start = half.offset_of(segment.seq) if half.known else 0
        if reason is None:
            if start > half.next_offset and not (half.holding or segment.flags & (SYN | RST)):
                half.claimed_end = max(half.claimed_end, start)  # its sender has come so far
            return False
        if reason not in HEADER_ANOMALIES:
            half.anomaly(reason, start, timestamp, **refusal_detail(reason, half, segment))
        end = half.offset_of(behind(segment)) if half.known else segment.length
        if reason in WEAK_REFUSALS:
            if end > half.next_offset if segment.flags & FIN else segment.length:
                inside = room_end(half) - start if reason == "out_of_window" else 0
                if max(0, half.next_offset - start) < inside:  # the receiver may take a part
                    for part in cut_at(segment, min(inside, segment.length)):
                        self._doubt(half, part, timestamp, Refused)
                else:
                    self._doubt(half, segment, timestamp, Refused)
            if half.known and end > half.next_offset:
                half.claimed_end = max(half.claimed_end, end)
        if half.known:
            half.note_refused(start, segment.payload, timestamp)
        return True

    def _doubt(self, half: HalfStream, segment: Segment, timestamp: float, kind: Type[Pending] = Pending) -> None:
        """Set a segment aside, if it is none that waits already. O(MAX_DOUBTS)."""
        doubts = half.doubtful
        if half.known and doubts:
            half.doubtful = doubts = tuple(doubt for doubt in doubts if self._end(half, doubt) > half.next_offset)
        if len(doubts) < MAX_DOUBTS and not any(_same(doubt.segment, segment) for doubt in doubts):
            self.host._hold(half, "doubtful", segment, timestamp, kind)

    def _doubted(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether this segment is set aside until the receiver acknowledges it: under strict checks data that may die
        on the way, by its TTL; a second such segment is a new path. Other bytes at the place of what waits win."""
        if self.host._strict and segment.ttl <= half.ttl - TTL_MARGIN:
            low = self._low(half)
            if not low or low[0].segment.seq == segment.seq:
                others = [doubt for doubt in half.doubtful if doubt not in low]
                half.doubtful = tuple(others[1 - MAX_DOUBTS :])  # decoys are not to take all the room
                self._doubt(half, segment, timestamp)
                return True
            half.ttl = segment.ttl
            self._trust(half, low)
        elif half.doubtful:
            for doubt in half.doubtful:
                if _takes_place(segment, doubt.segment):
                    half.doubtful = without(half.doubtful, doubt)
                    if self.host._strict:
                        half.note_refused(half.offset_of(doubt.segment.seq), doubt.segment.payload, doubt.timestamp)
        return False

    def _set_aside(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """Lenient checks: data with a wrong checksum, which the capturing host or a tool that hides addresses may have
        made wrong, counts where the receiver acknowledges it and no other copy came. What lies farthest gives way."""
        if segment.length and not (half.stopped or half.holding) and half.offset_of(segment.seq) >= half.next_offset:
            nearest = sorted(half.doubtful, key=lambda doubt: half.offset_of(doubt.segment.seq))
            half.doubtful = tuple(nearest[: MAX_DOUBTS - 1])
            self._doubt(half, without_fin(segment), timestamp)

    def _trust_acknowledged(self, half: HalfStream) -> None:
        """Take what the receiver has, by its acknowledgement; what was not refused comes first. O(MAX_DOUBTS)."""
        doubts = [doubt for doubt in half.doubtful if self._end(half, doubt) <= half.acked]
        self._trust(half, sorted(doubts, key=lambda doubt: doubt.__class__ is Refused))

    def _begin_acknowledged(self, half: HalfStream, ack: int) -> None:
        """Begin with what was refused for coming before the SYN, if this acknowledges it: the capture lacks the SYN.
        O(MAX_DOUBTS)."""
        before = [(difference(behind(doubt.segment), ack), doubt) for doubt in half.doubtful]
        taken = [doubt for ahead, doubt in before if 0 <= ahead <= max(half.peer.max_window, NEAR)]
        self._trust(half, sorted(taken, key=lambda doubt: difference(ack, doubt.segment.seq)))

    def _trust(self, half: HalfStream, doubts: List[Pending]) -> None:
        for doubt in doubts:
            if doubt in half.doubtful and self.stream is not None:
                half.doubtful = without(half.doubtful, doubt)
                half.ttl = doubt.segment.ttl
                self._data(half, *doubt)

    @staticmethod
    def _low(half: HalfStream) -> List[Pending]:
        """Under strict checks: what is set aside for its TTL only, one segment at most."""
        return [doubt for doubt in half.doubtful if doubt.__class__ is not Refused]

    @staticmethod
    def _end(half: HalfStream, doubt: Pending) -> int:
        return half.offset_of(behind(doubt.segment))


def _same(segment: Segment, other: Segment) -> bool:
    return (segment.seq, segment.flags, segment.payload) == (other.seq, other.flags, other.payload)


def _takes_place(segment: Segment, doubted: Segment) -> bool:
    """Whether a segment has other bytes at the place of that one, or all of its bytes, or data at its FIN's number. The
    same bytes in part speak for it: it was cut anew and sent again. What was not captured of either may be other bytes.
    """
    at = difference(segment.seq, doubted.seq)
    end = at + doubted.length
    if doubted.flags & FIN and 0 <= end < segment.length:
        return True
    first, last = max(at, 0), min(end, segment.length)
    same = segment.payload[first:last] == doubted.payload[first - at : last - at]
    return first < last and (not same or (first, last) == (at, end))
