"""Plain segments in order and FINs without data under strict checks, in one step: what `validate` asks of every
segment, asked of those about which nothing is unusual. Such a segment then passes as one does under lenient checks."""

from __future__ import annotations

from .apart import apart
from .checksum import even_sum
from .details import NOTHING
from .half import PLAIN, STAMPED, STRICTLY, HalfStream
from .ordinary import IPV6_AHEAD, LAYOUT_WORD, option_words, sound
from .segment import FIN
from .sequence import HALF, MASK
from .waiting import Waiting


class Strictly(Waiting):
    """The part of the assembler that spares most segments of strict checks the rules."""

    __slots__ = ()

    @apart
    def _strictly(
        self, packet: bytes, timestamp: float, half: HalfStream, tcp: int, start: int, end: int, seq: int, ack: int,
        word: int, window: int,
    ) -> bool:  # fmt: skip
        """Take a plain segment, or one with a FIN and no data, at the next expected byte whose checksum holds, with an
        acknowledgement of no less than what is acknowledged already and a timestamp no older than the last. O(length).
        """
        peer, details = half.peer, half.details
        plain = PLAIN if half.ts_recent < 0 else STAMPED
        behind = (peer.expected_seq - ack) & MASK
        if behind == MASK and peer.ended:
            behind = -1  # its FIN
        acked = peer.next_offset - behind
        recent = half.ts_recent
        if (
            word & 0xFFF6 != plain
            or seq != half.expected_seq
            or not window
            or behind >= HALF
            or acked < peer.acked
            or peer.expected_seq < 0
            or peer.stopped
            or half.last_ack < 0
            or half.line < 0
            or not 1 != end - start <= peer.details.window  # the rules know of an edge beyond
            or details is NOTHING
            or details.refused is not None
            or half.state.page_count
            or (
                not sound(half, packet, tcp + 20, tcp + 20, end - tcp - 20)
                if end - start & 1
                else even_sum(packet[tcp - (8 if tcp < IPV6_AHEAD - 20 else 32) : end], "big") % 0xFFFF
                != 0xFFF9 + tcp - end  # as in `sound`, at half the cost
            )
        ):
            return False
        if plain == STAMPED:
            layout, stamp = option_words(packet, tcp + 20)
            if layout != LAYOUT_WORD or not 0 <= stamp - recent < HALF:
                return False
            if half.next_offset <= half.acked:  # RFC 7323 4.3 (2)
                recent = stamp
        if window != half.shown or half.window != half.max_window:
            half.note_window(window)
        if details.window_edge < acked + half.window:
            details.window_edge = acked + half.window
        peer.acked = acked
        half.plain = plain
        try:
            if word & FIN:
                self._fin(packet, 0, len(packet), timestamp, half, tcp + 20, end - tcp - 20, seq, ack, word, window)
            else:
                self._assemble(packet, timestamp)
        finally:
            half.ts_recent = recent
            if half.plain == plain:
                half.plain = STRICTLY
        return True
