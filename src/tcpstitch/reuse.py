"""A connection on addresses in use whose handshake the capture has not got: it lacks what came between the two."""

from __future__ import annotations

from typing import Any

from .details import Pending
from .half import HalfStream
from .resets import Resets
from .segment import ACK, SYN, FlowKey, Segment
from .sequence import difference
from .sequencing import NEAR

REUSE_SILENCE = 1.0  # seconds: a connection that closed leaves its ports to another one, in Linux, after so long
FARTHEST = 1 << 24  # bytes on their way at most, where the scale of windows is not known and the largest is assumed
TOGETHER = 1 << 20  # two segments of one connection lie no farther apart, one having just been the first one seen


class Reuse(Resets):
    """The part of a `StreamState` that notices such a connection, by two segments with both numbers elsewhere."""

    __slots__ = ()

    key: FlowKey
    last_seen: float
    stream: Any

    def of_another(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether this is no segment of the connection, as far as is known, but of another one on its addresses. The
        first such waits for the second, which opens that one; with strict checks it has to come from the other side.
        O(1)."""
        waiting = self.pending_opening
        before = self.last_seen if waiting is None else waiting.timestamp
        silent = float(timestamp) - float(before) >= REUSE_SILENCE
        if waiting is None and not silent or waiting is not None and waiting.segment.flags & SYN:
            return False
        if segment.window > half.shown and not (self.host._strict or self.closed):
            half.note_window(segment.window)  # as the short steps do before they see that this is to be asked
        over = self.closed
        stopped = (half.stopped or half.peer.stopped) and not over
        if self.embryonic or stopped or not _elsewhere(half, segment):
            self.release_opening()  # the one that was there goes on
            return self.closed and not over
        together = waiting is not None and _are_together(segment, waiting.segment)
        if together and not (self.host._strict and segment.key == waiting.segment.key):
            self.pending_opening = None
            opening, confirming = waiting, Pending(segment, timestamp)
            if _is_bare(opening):  # what has data begins, and nothing comes before that
                opening, confirming = confirming, Pending(opening.segment, timestamp)
            self.host._replace(self, opening, confirming)
            return True
        if not silent and not (together and _is_bare(waiting)):
            return False
        self.release_opening()
        if self.closed and not over:
            return True
        self.host._hold(self, "pending_opening", segment, timestamp)
        return self._counts_later(half, segment, timestamp)

    def _counts_later(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether a segment that waits here must not count yet: lenient checks would take it as data behind a hole.
        Below the next expected byte it brings nothing, and strict checks refuse it."""
        if self.host._strict or self.closed or not segment.length or half.offset_of(segment.seq) <= half.next_offset:
            return False
        if half.peer.known:
            half.anomaly("bad_ack", half.max_offset, timestamp, ack=segment.ack)
        return True

    def release_opening(self) -> None:
        """Nothing follows what waits here: so data ahead is of this connection, as it would be if none had waited."""
        waiting = self.pending_opening
        if waiting is None or waiting.segment.flags & SYN:
            return
        self.pending_opening = None
        half = self.client if waiting.segment.key == self.key else self.server
        if waiting.segment.length and not (self.host._strict or self.stream is None or half.stopped):
            if half.offset_of(waiting.segment.seq) > half.next_offset:
                self._data(half, *waiting)

    def _data(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """Take data; stands in `state`."""
        raise NotImplementedError


def _elsewhere(half: HalfStream, segment: Segment) -> bool:
    """Whether both numbers are out of the connection's reach, as far as it was seen. Both ahead is no proof, as it may
    have got there while nothing was captured; but it is if one side has ended."""
    if not segment.flags & ACK or segment.ack in (0, half.last_ack):  # 0: of somebody who made it without one
        return False
    if not half.known or half.holding:
        return False
    peer = half.peer
    at = _side(half, segment.seq, segment.length)
    if not at:
        return False
    if peer.known:
        acked = _side(peer, segment.ack, 0)
    else:
        distance = difference(half.last_ack, segment.ack) if half.last_ack >= 0 else 0
        acked = (distance > TOGETHER) - (distance < -TOGETHER)
    return bool(acked and (at < 0 or acked < 0 or half.ended or peer.ended))


def _side(half: HalfStream, seq: int, length: int) -> int:
    """Where a number of `half` lies by more than a window: below what is acknowledged (-1), beyond all (1), or 0."""
    lowest, highest = half.acked or half.next_offset, half.max_offset
    span: int = max(half.peer.max_window, NEAR)
    if half.state.closed:
        lowest, highest, span = half.next_offset, half.next_offset, NEAR  # all that is kept of most
    elif not (half.syn_seen and half.peer.syn_seen):
        span = min(span, FARTHEST)
    offset = half.offset_of(seq)
    return (offset > highest + span) - (offset + length < lowest - span)


def _are_together(segment: Segment, first: Segment) -> bool:
    """Whether the two are of one connection, with data, and not the same segment twice."""
    numbers = segment.seq, segment.ack
    if segment.key != first.key:
        numbers = segment.ack, segment.seq
    elif (*numbers, segment.length) == (first.seq, first.ack, first.length):
        return False
    near = abs(difference(first.seq, numbers[0])) <= TOGETHER and abs(difference(first.ack, numbers[1])) <= TOGETHER
    return near and segment.length + first.length > 0


def _is_bare(opening: Pending) -> bool:
    return not opening.segment.length
