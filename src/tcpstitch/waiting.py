"""Segments out of order on open connections, in short steps: what waits behind a hole, what fills it, what is old.

As in `ordinary`, a step takes the segment as it lies, leaves exactly what the rules in `state` would leave, and
declines whatever is unusual before it changes anything. It takes the bytes to the queue or to the handler by the rules'
own functions; what it saves is all that comes before: decoding, the header, the cases that it has excluded.
"""

from __future__ import annotations

from typing import Any

from .apart import apart
from .details import NOTHING, DirectionDetails
from .half import PLAIN, STAMPED, WAITS, HalfStream, make_queue
from .ordinary import Ordinary
from .overlap import Sent
from .sequence import HALF, MASK
from .sequencing import NEAR
from .timers import BACK_SECONDS
from .validate import VERIFY_BYTES


class Waiting(Ordinary):
    """The part of the assembler that takes what is usual on a wire that loses, doubles and reorders."""

    __slots__ = ()

    def _out_of_order(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, start: int, end: int, seq: int, ack: int,
        word: int, window: int,
    ) -> bool:  # fmt: skip
        """A plain segment elsewhere than at the next expected byte, or there while something waits behind it."""
        length = end - start
        behind = (half.expected_seq - seq) & MASK
        details = half.details
        if word & 0xFFF7 != (PLAIN if half.ts_recent < 0 else STAMPED) or details is not NOTHING and details.isns:
            return False
        if type(timestamp) is not float:
            return False  # an exact time, with which the queue's times cannot be compared
        if timestamp < self._now - BACK_SECONDS:
            return False  # a clock that was set back: the rules have the timers look at it
        if not length:
            return behind != 1 and self._lone_ack(packet, timestamp, half, tcp, ack, word, window)
        if length <= VERIFY_BYTES:
            return False
        if not behind:
            return self._ordinary_fill(packet, timestamp, half, tcp, start, end, ack, word, window)
        if behind > HALF:
            offset = half.next_offset + MASK + 1 - behind
            return self._ordinary_wait(packet, timestamp, half, tcp, start, end, offset, ack, word, window)
        offset = half.next_offset - behind
        if offset < 0 or behind < length:
            return False
        return self._ordinary_old(packet, timestamp, half, tcp, offset, ack, word, window)

    @apart
    def _header_taken(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, ack: int, word: int, window: int
    ) -> bool:
        """Take in what such a segment says beside its data, if that is nothing unusual."""
        return (
            (ack == half.last_ack and window <= half.shown or self._acknowledges(half, ack, window))
            and (word < 0x8000 or self._renews(half, packet, tcp))
            and (not half.state.page_count or self._may_wait(half.peer, timestamp))
        )

    def _lone_ack(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, ack: int, word: int, window: int
    ) -> bool:
        """An acknowledgement from a direction whose own data is not all there."""
        state = half.state
        if (
            not self._acknowledges(half, ack, window)
            or word >= 0x8000 and not self._renews(half, packet, tcp)
            or state.page_count and not (self._may_wait(half, timestamp) and self._may_wait(half.peer, timestamp))
        ):  # fmt: skip
            return False
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        return True

    @apart
    def _ordinary_wait(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, start: int, end: int, offset: int, ack: int,
        word: int, window: int,
    ) -> bool:  # fmt: skip
        """Data behind a hole."""
        state, peer, cache = half.state, half.peer, self._pages
        queue: Any = half.queue
        stop = offset + end - start
        pages = (end - start) // cache.page_size + 2
        first = half.plain != WAITS
        if first and queue is None:
            queue = make_queue(cache, state, self._policies.of(half))
        behind_all = first or offset >= half.details.ahead
        again = False if behind_all else queue.presence(offset, packet[start:end])
        if (
            again is None
            or first and not queue.appends
            or stop - half.next_offset > peer.max_window and stop > half.window_end()
            or state.page_count + pages >= self._max_pages_per_connection
            or cache.used + pages > cache.max_pages
            # most such headers say nothing new
            or (ack != half.last_ack or window > half.shown or word >= 0x8000 or peer.queue is not None or first)
            and not self._header_taken(packet, timestamp, half, tcp, ack, word, window)
        ):
            return False
        late = not (first or self._may_wait(half, timestamp))
        if again:
            return not late and self._sent_again(half, offset, timestamp)
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        if not behind_all:
            queue.insert(offset, packet[start:end], Sent(offset, stop, self._next_arrival()), timestamp)
        else:
            details = half.details
            if details is NOTHING:
                details = half.details = DirectionDetails()
            if stop > details.ahead:
                details.ahead = stop
            queue.append(offset, packet[start:end], timestamp)
            if first:
                half.queue = queue
                half.plain = WAITS
                if half.acked > half.next_offset and self._timeouts.acknowledged is not None:
                    details.acked_since, details.acked_mark = timestamp, half.acked  # the receiver has what is missing
        if late:
            cache.touch(state)
            self._move_on(half, timestamp, b"")
        elif self._gauge is not None:
            self._watch()
        return True

    @apart
    def _move_on(self, half: HalfStream, timestamp: float, data: bytes) -> None:
        """`data` comes where it was missing; or the receiver had what is missing long ago, and it is given up."""
        state = half.state
        self._present = timestamp
        self._busy = self
        try:
            if data:
                half._deliver(data, timestamp, None)
                half.drain()
            state.after_segment(timestamp)
            state.refresh()
        finally:
            self._busy = None
        self._watch()

    def _watch(self) -> None:
        """Let the callbacks hear of what the step did to the pressure; raise what a handler raised."""
        if self._gauge is not None:
            self._busy = self
            try:
                self._watch_pressure()
            finally:
                self._busy = None
        self._raise_pending()

    @apart
    def _ordinary_fill(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, start: int, end: int, ack: int, word: int,
        window: int,
    ) -> bool:  # fmt: skip
        """The data at the next expected byte, while other data waits behind it: some of that follows at once."""
        state = half.state
        if half.next_offset + end - start > half.queue.first_offset:  # type: ignore[union-attr]  # it is not empty
            return False
        if not self._header_taken(packet, timestamp, half, tcp, ack, word, window):
            return False
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        self._move_on(half, timestamp, packet[start:end])
        return True

    @apart
    def _ordinary_old(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, offset: int, ack: int, word: int, window: int
    ) -> bool:
        """Data that came before: nothing of it is known any more, so there is nothing to compare it with."""
        details = half.details
        if details is not NOTHING and (details.history or details.held):
            return False
        if not self._header_taken(packet, timestamp, half, tcp, ack, word, window):
            return False
        return not (half.queue and not self._may_wait(half, timestamp)) and self._sent_again(half, offset, timestamp)

    @apart
    def _sent_again(self, half: HalfStream, offset: int, timestamp: float) -> bool:
        """Count data of which nothing is new."""
        state = half.state
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = self._present = timestamp
        self._counters.retransmissions += 1
        self._busy = self
        try:
            half.anomaly("retransmission", offset, timestamp)
            if self._asked or self._error is not None:
                state.refresh()
        finally:
            self._busy = None
        if self._error is not None or self._gauge is not None:
            self._watch()
        return True

    # -- acknowledgements

    def _acknowledges_beyond(self, half: HalfStream, ack: int, beyond: int) -> bool:
        """Bytes that the peer sent, as the receiver says, and that have not come: they are late, or lost."""
        peer = half.peer
        if peer.plain < 0 and peer.plain != WAITS:
            return False
        offset = peer.next_offset + beyond
        if offset < peer.acked - NEAR or offset > peer.next_offset + NEAR and offset > peer.max_offset + NEAR:
            return False  # maybe of another connection
        half.last_ack = ack
        if offset > peer.acked:
            peer.acked = offset
        return True

    def _acknowledges_again(self, half: HalfStream, ack: int, behind: int, before: int) -> bool:
        """An acknowledgement that was overtaken on the way, or that follows one of bytes that have not come yet."""
        peer = half.peer
        highest = peer.acked
        if before < HALF and highest < peer.next_offset - before:
            highest = peer.next_offset - before
        if peer.next_offset - behind < highest - NEAR:
            return False
        if before >= HALF:
            half.last_ack = ack
        return True

    @apart
    def _may_wait(self, side: HalfStream, timestamp: float) -> bool:
        """Whether a hole before what waits in `side` needs no look: it is not acknowledged, or has some grace left."""
        grace = self._timeouts.acknowledged
        if (
            grace is not None
            and side.acked > side.next_offset
            and (side.plain == WAITS or side.queue and not side.holding)
        ):
            if type(timestamp) is not float:
                return False
            since = side.details.acked_since
            if since is None and grace > 0:
                side.acked_since, side.acked_mark = timestamp, side.acked
            elif since is None or not 0 <= timestamp - since < grace:
                return False
        self._pages.lru.move_to_end(side.state)  # it holds pages: whoever asks knows that
        return True
