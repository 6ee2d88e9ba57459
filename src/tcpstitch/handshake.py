"""What a SYN means: the start of a connection, its start anew, or neither (RFC 9293 3.10.7.2 to 3.10.7.4)."""

from __future__ import annotations

from array import array
from typing import Any, Optional

from .details import Pending, unusual
from .half import HalfStream
from .options import OPTION_FAST_OPEN
from .overlap import Sent
from .segment import ACK, RST, SYN, SYN_ACK, Segment, options_cut
from .sequence import MASK, NEVER, difference, unwrap
from .sequencing import NEAR

MAX_ISNS = 4
FARTHEST_START = 1 << 20  # more bytes are not lost between a SYN and the first data that overtook it


class TouchedState:
    """What nearly each packet touches, side by side in memory: the slots of a base come first."""

    __slots__ = ("last_packet", "last_seen", "page_count", "stream")


class Handshake(TouchedState):
    """The part of a `StreamState` that reads SYNs."""

    __slots__ = ("reset_unconfirmed",)

    host: Any
    client: HalfStream
    server: HalfStream
    watcher: Any
    closed: bool
    embryonic: bool
    reset_unconfirmed: bool  # a RST came that silence has to confirm
    crossed_syn = unusual("crossed_syn")
    denied = unusual("denied")
    pending_opening = unusual("pending_opening")
    syn_data = unusual("syn_data")

    def _syn(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Read a SYN; False if nothing else of its segment counts."""
        base = (segment.seq + 1) & MASK
        peer = half.peer
        if segment.flags & ACK and self._replacement_confirmed(half, segment):
            return False  # not this connection's, also where its sender has sent nothing yet
        anew = self.host._strict and self.half_open_reset
        if half is self.client and not self._from_client(half, segment, timestamp):
            return False
        if (half.ended or half.fin_received) and not peer.known and not _is_of(half, base):
            self.host._replace(self, Pending(segment, timestamp))  # it waited for nothing but a word of the other side
            return False
        if not (segment.flags & ACK or half.known or peer.started and not self.reset_unconfirmed) and (
            peer.holding or half is self.server and (self.reset_unconfirmed or not peer.syn_seen)
        ):
            if self.reset_unconfirmed:
                self._drop_refused(peer, timestamp)
            self.host._replace(self, Pending(segment, timestamp))  # what came before this SYN does not answer it
            return False
        taken = True
        if not half.syn_seen:
            if half.isns and half.isns[0] != segment.seq:
                half.anomaly("syn_isn_change", 0, timestamp, isn=segment.seq)
            taken = self._first_syn(half, segment, timestamp)
            if self.closed:
                return False
        elif base == half.base_seq:
            if not segment.flags & ACK and (half.started or peer.started or not self.embryonic):
                half.anomaly("syn_in_established", 0, timestamp, isn=segment.seq)
            taken = self.embryonic
        elif not half.started and self.embryonic and not self._answers_another(half, segment):
            half.anomaly("syn_isn_change", 0, timestamp, isn=segment.seq)
            taken = not half.confirmed if segment.flags & ACK else self.embryonic
            other = half.base_seq - 1 if taken else segment.seq
            half.isns = () if anew else array("I", (*half.isns, other & MASK)[-MAX_ISNS:])
            if taken:
                self._begin(half, base)
                half.acked = 0
                self.reset_unconfirmed = False
        else:
            half.anomaly("syn_in_established", half.next_offset, timestamp, isn=segment.seq)
            self._await_confirmation(segment, timestamp)
            taken = False
        if segment.length and not (segment.option(OPTION_FAST_OPEN) or options_cut(segment)):
            half.anomaly("data_on_syn", 0, timestamp)
        if half is self.server and peer.syn_seen and self.embryonic:
            if not segment.flags & ACK:
                self.crossed_syn = 1
            elif self.crossed_syn == 1:
                self.crossed_syn = 2
                half.anomaly("simultaneous_open", 0, timestamp)
        return taken

    def _from_client(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether a SYN of the client can mean anything, before its number is looked at."""
        peer = half.peer
        if not half.syn_seen:
            if not segment.flags & ACK or not self.reset_unconfirmed or peer.syn_seen:
                return True
            half.anomaly("synack_wrong_direction", 0, timestamp)  # the port that refused its data refuses this too
            return False
        ahead = (segment.seq + 1 - half.base_seq) & MASK
        if segment.flags & ACK and not self.crossed_syn:
            half.anomaly("synack_wrong_direction", half.next_offset, timestamp)
        if not self.embryonic:
            if segment.flags & ACK:  # RFC 5961 4: a SYN changes nothing here
                half.anomaly("syn_in_established", half.next_offset, timestamp, isn=segment.seq)
            return not segment.flags & ACK
        if self.half_open_reset and not segment.flags & ACK:
            half.rst_offset = None  # the port listens again
            peer.syn_seen = self.reset_unconfirmed = False
        elif (
            self.host._strict and peer.syn_seen and not self.crossed_syn and 0 < ahead < peer.window
            and (not segment.flags & ACK or segment.ack == peer.base_seq)
        ):  # fmt: skip
            half.anomaly("syn_isn_change", 0, timestamp, isn=segment.seq)
            self.reset_half_open(half)  # RFC 9293 3.10.7.4, fourth check, in SYN-RECEIVED
            return False
        return not segment.flags & ACK or ahead == 0 and peer.syn_seen

    @property
    def half_open_reset(self) -> bool:
        """Whether the client took its SYN back; another SYN may follow, anything else finds no connection."""
        return self.reset_unconfirmed and self.client.rst_offset == 0

    def reset_half_open(self, half: HalfStream) -> None:
        half.rst_offset = 0
        self.reset_if_silent()

    def reset_if_silent(self) -> None:
        """A RST came that may be forged or old, or not arrive: silence confirms it, what follows refutes it."""
        self.reset_unconfirmed = True
        self.host._half_closed(self)

    def _first_syn(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        base = (segment.seq + 1) & MASK
        peer = half.peer
        if half.holding and not self.reset_unconfirmed and not _may_begin(half, base):
            for side in (half, peer):
                if side.holding and not self.closed:
                    side.release_hold()
            if self.closed or (half.ended or half.fin_received) and not peer.known:
                self.host._replace(self, Pending(segment, timestamp))
                return False
        if half.started:  # data was delivered already: the SYN comes too late to move the start
            if _overtaken(base, half.base_seq):
                half.anomaly("overlap_syn", 0, timestamp)
            else:
                half.anomaly("syn_in_established", half.next_offset, timestamp, isn=segment.seq)
            self._await_confirmation(segment, timestamp)
            return False
        untold = peer.syn_seen and peer.last_ack < 0
        if peer.started and not (half.known or untold or _overtaken(base, peer.last_ack)):
            half.anomaly("syn_in_established", 0, timestamp, isn=segment.seq)
            self._await_confirmation(segment, timestamp)
            return False
        had_data = half.holding
        if had_data:
            half.anomaly("overlap_syn", 0, timestamp)
        if had_data and self.reset_unconfirmed:
            self._drop_refused(half, timestamp)
            self.host._established(self)  # it does not end with the refusal
        half.holding = False
        half.held_segments = 0
        half.skip = 0
        half.syn_seen = True
        acked = difference(base, peer.last_ack) if peer.last_ack >= 0 else 0
        self._begin(half, base)
        if had_data:
            if self.host._strict:
                half.fin_unsure = half.fin_offset is not None and acked <= half.fin_offset
                if half.queue and acked < half.queue.end_offset:
                    half.early_end = half.queue.end_offset
            half.drain()
        return True

    @staticmethod
    def _compare_early(half: HalfStream, start: int, segment: Segment, timestamp: float) -> None:
        """Strict checks: what came ahead of the SYN may be meant for observers only, since a port that listens takes no
        data (RFC 9293 3.10.7.2). Until it is acknowledged other bytes take its place; where acknowledgements are not
        seen, until its sender goes on behind it."""
        queue = half.queue
        data = segment.payload[: max(0, half.early_end - start)]
        end = start + len(data)
        if not queue or end <= max(start, queue.first_offset):
            if not half.peer.known and start >= half.early_end:
                half.early_end = 0
                half.drain()
            return
        queue.overlay(data, Sent(start, end, 0), (start, timestamp, None))
        found = queue.take_conflicts()
        if found:
            half.anomaly("data_before_handshake", 0, timestamp)
            half._report_conflicts(found, timestamp)
            if half.fin_offset is not None and half.fin_offset <= half.early_end:
                half.fin_offset, half.fin_unsure = None, False
            end = half.early_end
        if found or start <= half.next_offset:
            queue.discard_below(end)
        elif start <= queue.first_offset and end == half.early_end:
            half.early_end = 0  # these are its bytes again, all of them
        half.drain()

    @staticmethod
    def _drop_refused(half: HalfStream, timestamp: float) -> None:
        """What waited for its start met nobody."""
        if half.holding:
            half.anomaly("data_before_handshake", 0, timestamp)
            half.release_pages()
            half.fin_offset, half.cuts, half.ahead = None, (), -1

    def _begin(self, half: HalfStream, base: int) -> None:
        half.set_base(base)
        early = half.peer.last_ack
        if self.host._acked_only and early >= 0 and _overtaken(base, early):
            half.acked = difference(base, early)  # a tap may see the acknowledgement before what it is for
        if early != base:
            half.peer.last_ack = NEVER  # taken on trust: the rules are to look at the next one, even if it is the same

    def _answers_older(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether the server's first segment acknowledges other numbers than the SYN's: its host still has the
        connection that was on these addresses before. The client refuses it (RFC 9293 3.10.7.3)."""
        peer = half.peer
        if half is self.client or not peer.syn_seen or peer.last_ack >= 0:
            return False
        if segment.flags & (SYN | RST | ACK) != ACK or (segment.ack - 1) & MASK in peer.isns:
            return False
        if 0 <= peer.offset_of(segment.ack) <= peer.max_offset + FARTHEST_START:
            return False
        half.anomaly("bad_ack", 0, timestamp, ack=segment.ack)
        self._deny(segment.ack)
        return True

    def _deny(self, ack: int) -> None:
        """The host of a SYN takes nothing behind it. Lenient checks ask for that nowhere, and keep nothing."""
        if self.host._strict:
            self.denied = ack

    def _answers_another(self, half: HalfStream, segment: Segment) -> bool:
        """Whether a SYN/ACK acknowledges a SYN that is not its peer's."""
        return bool(segment.flags & ACK and half.peer.started) and not _acknowledges(half.peer, segment.ack, 0)

    def opens_anew(self, half: HalfStream, segment: Segment, timestamp: float) -> Optional[Pending]:
        """What opens a new connection, now that this one is over and a SYN or SYN/ACK came on its addresses, or None.

        The SYN, unless its number is that of the first one: then it is a late copy, or the server's SYN/ACK has another
        number than before. A SYN/ACK of the server by itself, where the capture has not got the SYN."""
        again = half.known and half.syn_seen and half.base_seq == (segment.seq + 1) & MASK
        if not segment.flags & ACK:
            if again and self.watcher is not None:
                self.host._hold(self, "pending_opening", segment, timestamp)
            return None if again else Pending(segment, timestamp)
        waiting: Optional[Pending] = self.pending_opening
        if again or not half.known:
            return None
        if waiting is not None and _answers(segment, waiting.segment):
            return waiting
        answered = half.peer.known and segment.ack == half.peer.base_seq
        return None if answered or half is self.client else Pending(segment, timestamp)

    def _await_confirmation(self, segment: Segment, timestamp: float) -> None:
        """Keep a SYN or SYN/ACK that may begin another connection until what follows tells. A SYN with data waits on
        where it comes again without (RFC 7413 4.1.3): the server may have taken them."""
        waiting = self.pending_opening
        if waiting is not None and waiting.segment.length > segment.length and _same_syn(waiting.segment, segment):
            return
        if waiting is None or waiting.segment.flags & ACK or not segment.flags & ACK:
            self.host._hold(self, "pending_opening", segment, timestamp)

    def _replacement_confirmed(self, half: HalfStream, segment: Segment) -> bool:
        """Whether a SYN that came on a living connection turns out to be a new connection; then it is opened."""
        waiting = self.pending_opening
        if waiting is None or not waiting.segment.flags & SYN:
            return False
        syn = waiting.segment
        base = (syn.seq + 1) & MASK
        behind_data = (base + syn.length) & MASK
        if segment.key != syn.key:
            ahead = (segment.ack - base) & MASK
            if not segment.flags & ACK:
                confirmed = False
            elif segment.flags & SYN and not syn.flags & ACK:  # and not a copy of the one that was seen
                known = _begins_at(half, segment) and _begins_at(half.peer, syn)
                confirmed = _answers(segment, syn) and not known
            else:  # an acknowledgement of what only the new connection can have sent
                margin = 0 if self.host._strict else max(half.max_window, NEAR)
                elsewhere = not _acknowledges(half.peer, segment.ack, margin)
                elsewhere = elsewhere or half.ended and not _acknowledges(half, segment.seq, margin)
                confirmed = ahead <= NEAR and elsewhere and (not syn.flags & ACK or segment.seq == syn.ack)
        elif self.host._strict or syn.flags & ACK and half.peer.known:
            confirmed = False  # only what the other side says counts
        else:  # it goes on with data, which are not just the next ones of the old connection
            confirmed = segment.length > 0 and segment.seq == behind_data != half.expected_seq
            confirmed = confirmed and (half.syn_seen or not _overtaken(base, _lowest(half)))
            confirmed = confirmed or _goes_on(half, segment, syn, behind_data)
        if confirmed:
            self.pending_opening = None
            self.host._replace(self, waiting, Pending(segment, self.host._present))
        return confirmed


def _same_syn(segment: Segment, other: Segment) -> bool:
    return (segment.key, segment.seq) == (other.key, other.seq) and bool(segment.flags & other.flags & SYN)


def _answers(segment: Segment, syn: Segment) -> bool:
    """Whether a segment is the SYN/ACK to this SYN."""
    ahead = (segment.ack - syn.seq - 1) & MASK
    return segment.key != syn.key and segment.flags & SYN_ACK == SYN_ACK and not syn.flags & ACK and (
        ahead == 0 or ahead == syn.length
    )


def _goes_on(half: HalfStream, segment: Segment, syn: Segment, start: int) -> bool:
    """Whether a segment lies behind a SYN of its sender, and acknowledges what is of no connection before that."""
    if not segment.flags & ACK or (segment.seq - start) & MASK > NEAR:
        return False
    if syn.flags & ACK and (segment.ack - syn.ack) & MASK > FARTHEST_START:
        return False
    if half.peer.known:
        return not _acknowledges(half.peer, segment.ack, max(half.max_window, NEAR))
    return half.last_ack >= 0 and abs(difference(half.last_ack, segment.ack)) > NEAR


def _begins_at(half: HalfStream, segment: Segment) -> bool:
    return half.known and half.base_seq == (segment.seq + 1) & MASK


def _acknowledges(half: HalfStream, ack: int, margin: int) -> bool:
    """Whether this is the number of a byte that was seen of `half`, or may have been sent within `margin` of those;
    behind its FIN nothing may."""
    return half.known and -margin <= half.offset_of(ack) <= half.max_offset + 1 + (0 if half.ended else margin)


def _is_of(half: HalfStream, base: int) -> bool:
    """Whether a SYN may be that of the stream that was seen, again or late."""
    return half.base_seq == base if half.syn_seen else _overtaken(base, half.base_seq)


def _may_begin(half: HalfStream, base: int) -> bool:
    """Whether data that waits for its start can lie behind a SYN, as far as it is from there."""
    offset = unwrap(base, half.base_seq, 0)
    nothing_waits = not (half.queue or half.cuts)
    return nothing_waits or half.hole_end() - FARTHEST_START <= offset < half.max_offset  # may be below 0


def _lowest(half: HalfStream) -> int:
    """The lowest number that is known of a direction whose SYN was not seen."""
    return half.base_seq if half.known else half.peer.last_ack


def _overtaken(base: int, lowest: int) -> bool:
    """Whether a SYN may be that of a stream seen from `lowest` on, and only came late."""
    return lowest >= 0 and 0 <= difference(base, lowest) <= NEAR
