"""One connection: two directions, their handshake and their end.

The rules follow RFC 9293 as a passive observer can apply them: sequence numbers decide, a segment that the receiver
would not have accepted becomes evidence, and FIN and RST take effect at their place in the stream.
"""

from __future__ import annotations

from typing import Any

from .apart import apart
from .details import NOTHING, unusual
from .doubts import Doubts
from .half import HOLD_SEGMENTS, IGNORED, NEEDS_RULES, HalfStream
from .overlap import Sent
from .segment import ACK, CONTROL, FIN, RST, SYN, URG, Flow, FlowKey, Segment
from .sequence import MASK, NEVER, difference, unwrap
from .sequencing import NEAR, behind
from .validate import TTL_MARGIN, checksum_allows, note_header, note_urgent, without_fin

SMALL_IN_FLIGHT = 16


class StreamState(Doubts):
    """A connection. `stream` is the handler while the connection is followed; `closed` once it was completed."""

    __slots__ = (
        "host", "key", "reverse", "client", "server", "closed", "embryonic", "accepts", "reason", "watcher",
        "details",
    )  # fmt: skip

    depth = unusual("depth")

    key: FlowKey  # directed, client to server
    reverse: FlowKey  # directed, server to client
    watcher: Any  # the handler after completion: evidence may still come
    details: Any
    reason: str
    accepts: bool
    page_count: int
    last_packet: int

    @property
    def flow(self) -> Flow:
        return Flow(self.key)

    # -- a segment

    @apart
    def receive(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """Apply one segment of the direction `half`."""
        if half.plain != NEEDS_RULES or half.peer.plain != NEEDS_RULES:
            half.catch_up()
            half.peer.catch_up()
        counts = checksum_allows(half, segment, timestamp)
        if counts is None:
            if not (self.host._strict or segment.flags & (SYN | RST)):
                self._set_aside(half, segment, timestamp)
            return
        segment, flags = counts, counts.flags
        if self.reset_unconfirmed and not (flags & (SYN | RST) or self._outlives_reset(half, segment, timestamp)):
            return
        if segment.seq != half.expected_seq or self.pending_opening is not None:  # in order it is of this one
            if not flags & (SYN | RST) and self.of_another(half, segment, timestamp):
                return
        note_header(half, segment, timestamp)
        if self.pending_opening is not None and not flags & (SYN | RST) and self._replacement_confirmed(half, segment):
            return
        if flags & CONTROL == SYN | FIN:
            if half is self.client or half.known or not half.peer.syn_seen:
                return
            segment, flags = without_fin(segment), flags & ~FIN  # who waits for a SYN takes none (RFC 9293 3.10.7.3)
        if self.host._strict and self._refused(half, segment, timestamp):
            return
        if self.embryonic and not half.known and self._answers_older(half, segment, timestamp):
            return
        if flags & RST:
            self._reset_segment(half, segment, timestamp)
            return
        if flags & URG and self.host._urgent == "drop":
            return
        if flags & SYN:
            if not self._syn(half, segment, timestamp) or self.closed:
                return
        if flags & ACK:
            self._acknowledgement(half, segment, timestamp)
        if flags & URG and not flags & SYN:
            note_urgent(half, segment)
        if flags & SYN and not segment.length:
            return
        if flags & SYN and self.host._strict and half.offset_of(behind(segment)) > half.next_offset:
            self.host._hold(self, "syn_data", segment, timestamp)  # taken only if the answer covers it (RFC 7413)
        elif segment.length or flags & FIN:
            may_doubt = segment.length and (self.host._strict or half.details is not NOTHING)
            if not (may_doubt and self._doubted(half, segment, timestamp)):
                self._data(half, segment, timestamp)
        elif half.known and not half.holding and half.keeps_alive(half.offset_of(segment.seq), 0, timestamp):
            half.anomaly("keepalive", half.next_offset - 1, timestamp)
        self.after_segment(timestamp)

    def after_segment(self, timestamp: float) -> None:
        """Holes that the receiver confirmed, and a start that was held for long enough, or without any of its bytes."""
        client, server = self.client, self.server
        if self.reset_unconfirmed and self.reset_by is not None and self._has_come(self.reset_by.peer):
            self.reset(timestamp)
            return
        if not self.page_count and client.details is server.details and not (client.fin_waits() or server.fin_waits()):
            return  # of NOTHING
        for side in (client, server):
            if side.holding and self.host._start_any and (side.held_segments >= HOLD_SEGMENTS or not side.queue):
                side.release_hold()
            if side.acked > side.next_offset and not side.holding and side.hole_end() >= 0:
                self._acknowledged_hole(side, timestamp)

    @apart
    def _acknowledged_hole(self, side: HalfStream, timestamp: float) -> None:
        """Give up what the receiver had a grace ago. A hole waits for one grace at least and two at most."""
        grace = self.host._timeouts.acknowledged
        if grace is None:
            return
        since, mark = side.acked_since, side.acked_mark
        if since is not None and 0 <= timestamp - since < grace:
            return
        side.acked_since, side.acked_mark = timestamp, side.acked
        while since is not None and timestamp >= since and -1 < side.hole_end() <= mark:
            side.skip_hole("acknowledged")
        if side.hole_end() < 0 or side.acked <= side.next_offset:
            side.acked_since = None

    # -- acknowledgements

    def _acknowledgement(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """`half` confirms bytes of its peer."""
        peer, ack = half.peer, segment.ack
        if not peer.known:
            if self.pending_opening is None:  # else it may be of another connection
                self._begin_acknowledged(peer, ack)
                half.last_ack = ack
            if not peer.known:
                return
        offset = peer.offset_of(ack)
        if peer.stopped:  # nobody counts its bytes, but the FIN may be one of those that wait for this
            if peer.doubtful and peer.acked < offset <= peer.highest_sent:
                peer.acked = offset
                self._trust_acknowledged(peer)
            return
        if peer.isns and not peer.started and (ack - 1) & MASK in peer.isns and offset != 0:
            peer.set_base(ack)
            offset = peer.acked = 0
        waiting = self.syn_data
        if waiting is not None and waiting.segment.key != segment.key and peer.syn_seen and offset <= peer.highest_sent:
            self.syn_data = None
            if offset > 0:
                self._data(peer, *waiting)
            else:
                peer.note_refused(0, waiting.segment.payload, waiting.timestamp)
        again = ack == self.denied and not segment.flags & SYN
        first = self.embryonic and (self.host._strict or half is self.client and half.last_ack < 0)
        if (first or segment.flags & SYN) and peer.syn_seen and not (half.started or peer.started):
            if offset > peer.highest_sent or again and not half.known:
                half.anomaly("bad_ack", half.max_offset, timestamp, ack=ack)  # of what the peer has not sent
                self._deny(ack)
                return
        span = max(half.max_window, NEAR)
        if offset < peer.acked - span - 1 or not peer.may_be_acknowledged(offset):
            if not segment.flags & SYN:
                half.anomaly("bad_ack", half.max_offset, timestamp, ack=ack)
            return
        if offset >= peer.acked or offset >= peer.acked - NEAR and not (
            half.last_ack >= 0 and offset < peer.offset_of(half.last_ack) <= peer.next_offset
        ):  # else it was overtaken; the short steps take what follows from the last one on for usual
            half.last_ack = ack if ack != peer.expected_seq else peer.expected_seq
        if offset >= 0 and half.known and not segment.flags & SYN:
            if self.crossed_syn == 1 and half is self.server:
                self.crossed_syn = 2
                half.anomaly("split_handshake", 0, timestamp)
            if self.embryonic:
                self.host._established(self)
        if offset > peer.acked:
            self._acknowledged(peer, offset)
        if peer.fin_unsure and peer.fin_offset is not None and offset > peer.fin_offset:
            if offset > peer.fin_offset + 1:
                peer.fin_offset = None
            peer.fin_unsure = False
            peer.drain()

    def _acknowledged(self, half: HalfStream, offset: int) -> None:
        """More of `half` than before is confirmed: all below `offset`."""
        peer, half.acked = half.peer, offset
        if self.reset_unconfirmed and not self.embryonic and half.rst_offset is not None and offset > half.rst_offset:
            half.rst_offset = None
            self.host._established(self)
        if half.doubtful:
            self._trust_acknowledged(half)
        if half.cuts or half.early_end:
            half.drain()
        if half.held:
            half.hand_acked()
        if half.fin_waits() and (peer.ended or peer.fin_waits()):
            self.host._half_closed(self)  # what may yet come was sent before

    # -- data and FIN

    def _data(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        flags = segment.flags
        seq = (segment.seq + 1) & MASK if flags & SYN else segment.seq
        if not half.known:
            if not segment.length:
                return
            if segment.length == 1 and not flags & (SYN | FIN) and (seq + 1) & MASK == half.peer.last_ack:
                half.anomaly("keepalive", 0, timestamp)  # the receiver has that byte, or it is the SYN's number
                return
            half.expected_seq = seq
            half.holding = True
            if not -NEAR <= difference(seq, half.peer.last_ack) <= 0:
                half.peer.last_ack = NEVER  # it was taken on trust; the rules are to look at the next one
            half.anomaly("midstream", 0, timestamp)
        elif half.isns and not half.started and not half.holding and (seq - 1) & MASK in half.isns:
            if seq != half.base_seq and half.acked == 0 and not half.confirmed:
                half.set_base(seq)
        if half.syn_seen and not half.peer.known and not half.started and not flags & SYN:
            half.anomaly("one_sided", 0, timestamp)
        if self.reset_unconfirmed and self.reset_by is None or self.embryonic and not flags & SYN:
            self.host._established(self)
        start = unwrap(seq, half.base_seq, 0) if half.holding else half.offset_of(seq)
        end = start + segment.length
        if half.stopped and half.peer.stopped:  # nobody counts the bytes, but where they end
            half._advance(max(half.next_offset, end))
            if flags & FIN:
                self._fin(half, end, segment, timestamp)
            return
        if start < 0 < end and half.syn_seen:
            half.anomaly("overlap_syn", start, timestamp)
        if half.early_end:
            self._compare_early(half, start, segment, timestamp)
        at_next = self.host._strict and not (half.holding or half.stopped) and start <= half.next_offset <= end
        if flags & FIN and at_next:  # an endpoint closes before it looks at what is queued behind the FIN
            self._fin(half, end, segment, timestamp)
        elif flags & FIN and start > half.next_offset and not (half.holding or half.stopped or half.ended):
            whole = len(segment.payload) == segment.length  # else its place in the queue is not known
            if whole and self.host._policies.of(half).name == "linux-kernel" and end <= half.window_end():
                _note_fin_ahead(half, start, timestamp)
                half.queue_fin(start, segment, timestamp)
                return
        waits = end > half.next_offset and not half.keeps_alive(start, segment.length, timestamp)
        if segment.length and not (half.holding or waits):
            self._old_data(half, start, segment, timestamp)
        elif segment.length:
            self._new_data(half, start, end, segment, timestamp)
        if flags & FIN and not at_next:  # the data may have ended the wait for the start: the base is another then
            self._fin(half, half.offset_of(seq) + segment.length, segment, timestamp)

    def _old_data(self, half: HalfStream, start: int, segment: Segment, timestamp: float) -> None:
        if half.ended and half.fin_offset is not None and start >= half.fin_offset:
            half.anomaly("data_after_fin", start, timestamp)
            return
        if half.keeps_alive(start, segment.length, timestamp):
            half.anomaly("keepalive", start, timestamp)
            return
        self.host._counters.retransmissions += 1
        half.anomaly("retransmission", start, timestamp)
        if half.history or half.held:
            sent = Sent(start, start + segment.length, self.host._next_arrival())
            half.compare_old(start, segment.payload, sent, timestamp, segment.context)

    def late_data(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """Data behind the end of the connection: an old copy that was long on its way, or more than there can be."""
        start = half.offset_of(segment.seq) if half.known else 0
        if half.known and start + segment.length <= half.next_offset:
            self._old_data(half, start, segment, timestamp)
        else:
            reset = self.reason == "rst" or self.reset_by is not None
            half.anomaly("data_after_rst" if reset else "data_after_fin", start, timestamp)

    def _new_data(self, half: HalfStream, start: int, end: int, segment: Segment, timestamp: float) -> None:
        if half.fin_offset is not None and end > half.fin_offset:
            half.anomaly("data_after_fin", start, timestamp)
            if half.fin_unsure and start <= half.next_offset:
                half.fin_offset, half.fin_unsure = None, False  # its sender goes on
            elif self.host._strict and half.next_offset < half.fin_offset >= start and not half.fin_unsure:
                half.fin_offset = None  # it waits behind a hole: what is queued over it takes its place
            elif half.ended or start >= half.fin_offset and not half.fin_unsure:
                return
        if start >= half.window_end() and start > half.next_offset and not half.holding:
            half.anomaly("out_of_window", start, timestamp)
        probes = start == half.next_offset >= half.acked and half.peer.window == 0 and half.peer.known
        if probes and segment.length == 1:
            half.anomaly("zero_window_probe", start, timestamp)
        if segment.length == 1 and not half.holding and half.peer.known:
            # One byte behind a few that are not acknowledged: an honest sender waits (RFC 9293 3.7.4, Nagle).
            if half.queue if start > half.next_offset else 2 <= start - half.acked <= SMALL_IN_FLIGHT:
                half.anomaly("small_segments", start, timestamp)
        half.receive(start, segment, timestamp)

    def _fin(self, half: HalfStream, offset: int, segment: Segment, timestamp: float) -> None:
        if half.stopped and offset >= half.next_offset:
            half._advance(offset)
        if not half.holding and (offset < half.next_offset or offset > half.window_end()):
            if half.fin_offset != offset:
                half.anomaly("fin_out_of_window", offset, timestamp)
            return
        _note_fin_ahead(half, offset - segment.length, timestamp)
        if half.fin_offset is not None:
            if half.fin_offset != offset:
                half.anomaly("fin_ahead", offset, timestamp)
            again = half.fin_unsure and half.fin_offset == offset
            at_next = self.host._strict and offset - segment.length <= half.next_offset
            if not again and (half.fin_received or not at_next):
                return
        half.fin_offset = offset
        low = half.ttl > 0 and segment.ttl <= half.ttl - TTL_MARGIN
        half.fin_unsure = low and half.acked != offset + 1  # its acknowledgement may have been seen ahead of it
        if half.queue and half.queue.end_offset > offset:
            half.anomaly("fin_below_queued_data", offset, timestamp)
            half.queue.discard_from(offset)
        half.drain()
        if not half.ended and half.fin_waits():
            self.host._half_closed(self)

    def half_ended(self) -> None:
        """A direction came to its FIN; the connection is over when both have."""
        sides = self.client, self.server
        if self.client.ended and self.server.ended:
            self.host._complete(self, "fin")
        elif self.stream is not None and any(side.expected_seq < 0 or side.fin_waits() for side in sides):
            self.host._half_closed(self)  # a peer that was seen may go on for long (RFC 9293 3.6.1)

    # -- the end

    def finish(self, reason: str) -> None:
        """Deliver all that is held."""
        self.release_opening()
        for half in (self.client, self.server):
            if self.stream is not None and self.host._strict and half.doubtful:
                self._trust(half, self._low(half))
            while self.stream is not None and not half.ended and (half.holding or half.hole_end() >= 0):
                half.skip_hole(reason)
            if self.stream is not None and half.fin_unsure and half.fin_offset is not None:
                half.fin_unsure = False
                half.drain()
            if self.stream is not None:
                half.give_up_dropped(reason)
            if half.held:
                half.hand_over()

    def release_pages(self) -> None:
        self.client.release_pages()
        self.server.release_pages()

    def limit_history(self, bound: int) -> None:
        """Keep no more than `bound` delivered bytes per direction."""
        self.client.limit_history(bound)
        self.server.limit_history(bound)
        self.refresh()

    @apart
    def refresh(self) -> None:
        """Decide, per direction, whether the next plain segment may take the short path; let those end that a handler
        has stopped."""
        client, server = self.client, self.server
        if not self.closed and (client.stopped or server.stopped):
            client.end_stopped()
            server.end_stopped()
        if self.closed:
            return  # `complete` has decided
        ignored = client.stopped and server.stopped
        if (
            self.stream is None
            or self.embryonic
            or self.accepts
            or self.reset_unconfirmed
            or self.host._always_rules and not ignored
            or self.details is not NOTHING
            and (
                self.pending_opening is not None
                or self.syn_data is not None
                or self.crossed_syn == 1  # the server's next acknowledgement tells what that was
                or self.depth is not None and not ignored
            )
        ):  # fmt: skip
            client.plain = server.plain = NEEDS_RULES
        elif ignored:
            client.plain = server.plain = IGNORED
        else:
            client.plain = client.readiness()
            server.plain = server.readiness()
        if client.details.cuts is not server.details.cuts:  # that is nothing, on both sides
            client.fit_cuts()
            server.fit_cuts()
        if not self.page_count:  # an idle connection keeps nothing for data that does not wait
            client.queue = server.queue = None
            if client.details is not server.details:
                client.held = client.kept = server.held = server.kept = None


def _note_fin_ahead(half: HalfStream, start: int, timestamp: float) -> None:
    """A FIN ahead of everything seen: reordered, its data lost, or meant to end the stream for an observer only."""
    if start > half.next_offset and not half.holding and not (half.queue and half.queue.first_offset < start):
        half.anomaly("fin_ahead", start, timestamp)
