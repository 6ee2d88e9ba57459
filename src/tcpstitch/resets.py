"""When a RST ends a connection, as far as a passive observer can tell (RFC 9293 3.10.7, RFC 5961 3.2)."""

from __future__ import annotations

from .details import unusual
from .half import HalfStream
from .handshake import Handshake
from .options import OPTION_MD5
from .segment import ACK, Segment
from .validate import TTL_MARGIN


class Resets(Handshake):
    """The part of a `StreamState` that judges RST segments."""

    __slots__ = ()

    reset_by = unusual("reset_by")

    def _reset_segment(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        if segment.length:
            half.anomaly("rst_with_data", half.max_offset, timestamp, length=segment.length)
        if segment.options and not half.sends_md5 and segment.option(OPTION_MD5) is not None:
            return  # a host that checks drops it (RFC 2385)
        if self.reset_by is half:
            return  # it has said so before
        peer = half.peer
        if self.host._strict and half.ttl - TTL_MARGIN >= segment.ttl and half.known:
            self.reset_if_silent()  # it may die on the way
            return
        if peer.syn_seen and not half.known and (not peer.started or peer.last_ack < 0):
            # SYN-SENT, maybe with data on it: only a RST that acknowledges the SYN counts (RFC 9293 3.10.7.3)
            if segment.flags & ACK and 0 <= peer.offset_of(segment.ack) <= peer.highest_sent:
                self._deny(-1)
                self.reset_if_silent()  # refused; but a forged refusal does not end what goes on after it
            else:
                half.anomaly("rst_bad_ack", 0, timestamp)
            return
        if not half.known:
            if peer.holding and not segment.flags & ACK:
                self.reset_if_silent()  # what a closed or listening port answers: the held data met nobody
            else:
                self.reset(timestamp)
            return
        self._reset_in_sequence(half, segment, timestamp)

    def _reset_in_sequence(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        held = half.holding
        if held and half.fin_offset is not None and not self.host._strict:
            half.release_hold()  # its FIN counts before the RST that it answers data with
            if self.closed:
                return
        offset = half.offset_of(segment.seq)
        if self.embryonic and half is self.client and offset == 0 and not (half.started or half.peer.started):
            self.reset_half_open(half)
            return
        expected = half.next_offset
        if half.stopped and offset >= expected:
            self.reset(timestamp)  # nobody counted what came before it
            return
        lowest = min(expected, half.acked) if half.acked else expected
        policy = self.host._policies.of(half)
        rule = policy.reset_at if self.host._strict else "exact"
        if rule == "right" and offset >= expected or rule == "window" and expected <= offset <= half.window_end():
            self.reset(timestamp)
        elif not lowest <= offset <= half.window_end():
            half.anomaly("rst_out_of_window", offset, timestamp)
        elif offset < expected and not half.ended or self._answers_data_in_flight(half, offset):
            if not half.ended:  # an acknowledgement of more says that it is old
                half.rst_offset = max(offset, half.rst_offset or 0)
            self.reset_if_silent()
        elif offset <= expected + half.fin_received or held:
            self._reset_exact(half, segment, timestamp)
        elif (
            self.host._strict and half.sack and half.peer.sack and half.queue and half.queue.end_offset == offset
            and policy.name == "linux-kernel"
        ):
            self.reset(timestamp)  # Linux takes it where its SACK blocks end as well
        else:
            half.anomaly("rst_in_window_not_exact", offset, timestamp)
            if not self.host._strict and offset == half.max_offset:
                half.rst_offset = offset  # it follows all that was seen: it counts once the holes are filled
                half.drain()
            elif half.cuts and offset == half.max_offset == half.cuts.end():
                self.reset_if_silent()  # exact, if the receiver has got what the capture lacks of the last packet

    def _reset_exact(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        """A RST that counts: at once, unless its host had more by then than the tap has shown of the other direction.
        That host sends nothing any more, and takes nothing new, so what follows cannot refute it."""
        peer = half.peer
        if self.host._strict or self.embryonic or not peer.known or peer.holding or peer.stopped or peer.ended:
            self.reset(timestamp)
            return
        acked = peer.offset_of(segment.ack) if segment.flags & ACK else 0
        if acked > peer.acked and peer.may_be_acknowledged(acked):
            self._acknowledged(peer, acked)
        if self._has_come(peer):
            self.reset(timestamp)
        else:
            self.reset_by = half
            self.reset_if_silent()

    @staticmethod
    def _has_come(half: HalfStream) -> bool:
        return bool(half.next_offset + half.fin_received >= half.acked)

    def _outlives_reset(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether a segment counts that follows a RST which has not ended the connection yet."""
        if self.half_open_reset:
            if segment.length:
                half.anomaly("data_after_rst", 0, timestamp)
                self.reset(timestamp)
            return False
        if self.reset_by is None or half is not self.reset_by and half.offset_of(segment.seq) < half.acked:
            return True
        if segment.length:
            self.late_data(half, segment, timestamp)
        return False

    def _acknowledged(self, half: HalfStream, offset: int) -> None:
        """Take an acknowledgement; stands in `state`, like the next."""
        raise NotImplementedError

    def late_data(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        raise NotImplementedError

    def _answers_data_in_flight(self, half: HalfStream, offset: int) -> bool:
        """A closed host's RST at or before its own unacknowledged FIN, or behind it for data that it has not taken.

        RFC 9293 3.10.7.1: in state CLOSED each segment is answered with a RST at the number that it acknowledges. The
        peer goes on until the RST has reached it, and where it has received more by then, the RST is outside its
        window. An endpoint no longer reads what still comes, an observer may.
        """
        fin = half.fin_offset
        if self.host._strict or not half.ended or fin is None:
            return False
        last = fin + (half.peer.max_offset > half.peer.acked)
        return bool(half.acked <= offset <= last)

    def reset(self, timestamp: float) -> None:
        """The connection is aborted: what is held is delivered behind its gaps."""
        if not self.closed:
            self.host._complete(self, "rst")
