"""What a SYN means: the start of a connection, its start anew, or none of both (RFC 9293 3.10.7.2 to 3.10.7.4)."""

from __future__ import annotations

from array import array
from typing import Any

from .details import unusual
from .half import HalfStream
from .segment import ACK, OPTION_FAST_OPEN, SYN_ACK, Segment
from .sequence import MASK, NEVER

MAX_ISNS = 4


class TouchedState:
    """What nearly each packet touches, side by side in memory: the slots of a base come first."""

    __slots__ = ("last_packet", "last_seen", "page_count", "stream")


class Handshake(TouchedState):
    """The part of a `StreamState` that reads SYNs."""

    __slots__ = ("restartable",)

    host: Any
    client: HalfStream
    server: HalfStream
    embryonic: bool
    restartable: bool
    crossed_syn = unusual("crossed_syn")
    pending_syn = unusual("pending_syn")

    def _syn(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Read a SYN; False if nothing else of its segment counts."""
        base = (segment.seq + 1) & MASK
        peer = half.peer
        if half is self.client and not self._from_client(half, segment, timestamp):
            return False
        if half is self.server and segment.flags & ACK and self._replacement_confirmed(half, segment):
            return False  # not this connection's, also where the server has sent nothing yet
        taken = True
        if not half.syn_seen:
            if half.isns and half.isns[0] != segment.seq:
                half.anomaly("syn_isn_change", 0, timestamp, isn=segment.seq)
            self._first_syn(half, segment, timestamp)
        elif base == half.base_seq:
            if not segment.flags & ACK and (half.started or peer.started or not self.embryonic):
                half.anomaly("syn_in_established", 0, timestamp, isn=segment.seq)
        elif not half.started and (self.embryonic or not half.acked):
            half.anomaly("syn_isn_change", 0, timestamp, isn=segment.seq)
            half.isns = array("I", (*half.isns, (half.base_seq - 1) & MASK)[-MAX_ISNS:])
            taken = bool(segment.flags & ACK or self.embryonic)
            if taken:
                self._begin(half, base)
                half.acked = 0
                self.restartable = False
        elif not segment.flags & ACK:
            half.anomaly("syn_in_established", half.next_offset, timestamp, isn=segment.seq)
            self.host._hold(self, "pending_syn", segment, timestamp)
            taken = False
        else:
            if not self._replacement_confirmed(half, segment):
                half.anomaly("syn_in_established", half.next_offset, timestamp, isn=segment.seq)
            taken = False
        if segment.length and not segment.option(OPTION_FAST_OPEN):
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
            return True
        ahead = (segment.seq + 1 - half.base_seq) & MASK
        if segment.flags & ACK and not self.crossed_syn:
            half.anomaly("synack_wrong_direction", half.next_offset, timestamp)
        if not self.embryonic:
            if segment.flags & ACK:  # RFC 5961 4: a SYN changes nothing here
                half.anomaly("syn_in_established", half.next_offset, timestamp, isn=segment.seq)
            return not segment.flags & ACK
        if self.half_open_reset and not segment.flags & ACK:
            half.rst_offset = None  # the port listens again
            peer.syn_seen = self.restartable = False
        elif self.host._strict and peer.syn_seen and not self.crossed_syn and 0 < ahead < peer.window:
            half.anomaly("syn_isn_change", 0, timestamp, isn=segment.seq)
            self.reset_half_open(half)  # RFC 9293 3.10.7.4, fourth check, in SYN-RECEIVED
            return False
        return not segment.flags & ACK or ahead == 0 and peer.syn_seen

    @property
    def half_open_reset(self) -> bool:
        """Whether the client took its SYN back; another SYN may follow, anything else finds no connection."""
        return self.restartable and self.client.rst_offset == 0

    def reset_half_open(self, half: HalfStream) -> None:
        self.restartable = True
        half.rst_offset = 0
        self.host._half_closed(self)

    def _first_syn(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        base = (segment.seq + 1) & MASK
        if half.started:  # data was delivered already: the SYN comes too late to move the start
            half.anomaly("overlap_syn", 0, timestamp)
            return
        had_data = half.holding
        if had_data:
            half.anomaly("overlap_syn", 0, timestamp)
        if had_data and self.restartable:
            half.anomaly("data_before_handshake", 0, timestamp)
            half.release_pages()
            self.restartable = False
        half.holding = False
        half.held_segments = 0
        half.skip = 0
        half.syn_seen = True
        self._begin(half, base)
        if had_data:
            half.drain()

    def _begin(self, half: HalfStream, base: int) -> None:
        half.set_base(base)
        if half.peer.last_ack != base:
            half.peer.last_ack = NEVER  # taken on trust: the rules are to look at the next one, even if it is the same

    def _replacement_confirmed(self, half: HalfStream, segment: Segment) -> bool:
        """Whether a SYN that came on a living connection turns out to be a new connection; then it is opened."""
        waiting = self.pending_syn
        if waiting is None:
            return False
        syn = waiting.segment
        base = (syn.seq + 1) & MASK
        behind_data = (base + syn.length) & MASK
        if segment.key != syn.key:
            confirmed = segment.flags & SYN_ACK == SYN_ACK and segment.ack in (base, behind_data)
        elif self.host._strict:
            confirmed = False  # only the other side's SYN/ACK counts
        else:  # it goes on with data, which are not just the next ones of the old connection
            confirmed = segment.length > 0 and segment.seq == behind_data != half.expected_seq
        if confirmed:
            self.pending_syn = None
            self.host._replace(self, waiting, segment)
        return confirmed
