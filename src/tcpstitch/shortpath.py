"""The short path: plain segments in order, on open connections about which nothing is pending.

It works on the frame as it lies: one struct over the headers, one look-up under the addresses and ports as they lie
side by side in the frame, two comparisons. Everything it declines meets the rules in `state`, which would do the same
with more work.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Optional, Tuple

from .chunk import Chunk
from .errors import ReentrantCallError
from .half import IGNORED, OVER
from .sequence import HALF, MASK
from .timers import Timers
from .validate import TIMESTAMP_LAYOUT

# An Ethernet frame with IPv4 and TCP, from the EtherType on: EtherType, version and IHL and service; total length;
# fragment word, TTL, protocol; addresses and ports; sequence and acknowledgement number; offset and flags; window.
HEADERS = Struct("!IH2xI2x12sIIHH").unpack_from
IPV4 = 0x08004500  # the first of these, without the service
PLAIN_TCP, PLAIN_TCP_MASK = 0x00000006, 0x3FFF00FF  # the third: no fragment, TCP
_TCP = Struct("!IIHH").unpack_from
_VERIFY_BYTES = 64

# A segment as it lies: half, offsets of the TCP header and of the end, and the header's seq, ack, word and window.
Located = Tuple[Any, int, int, int, int, int, int]


class ShortPath(Timers):
    """The part of the assembler that most packets see."""

    _ethernet: bool

    def _take(self, packet: Any, timestamp: float) -> None:
        """Any packet, by the rules."""
        raise NotImplementedError

    def assemble(self, packet: Any, timestamp: float) -> None:
        """Take one packet, captured at `timestamp` (seconds): a bytes-like frame, a dpkt packet, or a `Segment`.

        What cannot be decoded is counted, never raised. O(1) for data in order, else O(log n) in what is buffered.
        Raises `PacketTypeError` for another type, `StreamCallbackError` when a handler raised, `ReentrantCallError`
        when called from a handler.
        """
        if timestamp >= self._next_timer or self.busy is not None:
            self._before(timestamp)
            if self._error is not None:
                return self._take(packet, timestamp)  # a handler failed in a timer: the error follows this packet
        if packet.__class__ is not bytes or len(packet) < 54 or not self._ethernet:
            return self._take(packet, timestamp)
        first, total, middle, key, seq, ack, word, window = HEADERS(packet, 12)
        half = self._halves.get(key)
        if half is not None and first & 0xFFFFFF00 == IPV4 and middle & PLAIN_TCP_MASK == PLAIN_TCP:
            tcp = 34
            end = 14 + total
        else:
            found = self._locate(packet, first >> 16)
            if found is None:
                return self._take(packet, timestamp)
            half, tcp, end, seq, ack, word, window = found
        start = tcp + (word >> 10 & 0x3C)
        if word & 0xFFF7 != half.plain or seq != half.expected_seq or not window or not start <= end <= len(packet):
            return self._decline(packet, timestamp, half, word, start == end)
        if ack != half.last_ack and not self._acknowledges(half, ack):
            return self._take(packet, timestamp)
        if word & 0x8000 and not self._renews(half, packet, tcp):
            return self._take(packet, timestamp)
        length = end - start
        if 0 < length <= _VERIFY_BYTES and (length == 1 or not _sound(half, packet, tcp, end)):
            return self._take(packet, timestamp)
        state = half.state
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        if length:
            self.counters.bytes += length
            chunk = Chunk()  # filled here: a call of __init__ costs as much as all of it
            chunk.data = packet[start:end]
            chunk.offset = offset = half.next_offset
            chunk.timestamp = timestamp
            chunk._half = half
            half.next_offset = offset + length
            half.expected_seq = (seq + length) & MASK
            self.busy = chunk
            try:
                state.stream.reassembled(chunk)
            except BaseException as error:
                self._handler_raised(state, error)
            self.busy = None
            if self.asked:
                self._answer(half, chunk)

    def _before(self, timestamp: float) -> None:
        """Refuse calls out of a handler, and let the timers run."""
        if self.busy is not None:
            raise ReentrantCallError("a handler called its own assembler: return first, or collect and call later")
        self.busy = self
        try:
            self.run_timers(timestamp)
        finally:
            self.busy = None

    def _locate(self, packet: bytes, ethertype: int) -> Optional[Located]:
        """IPv6, and both IP versions behind one VLAN tag, where the connection is known."""
        at = 14
        if ethertype == 0x8100:
            at = 18
            ethertype = packet[16] << 8 | packet[17]
        elif ethertype == 0x0800:
            return None
        if ethertype == 0x86DD and len(packet) >= at + 60 and packet[at + 6] == 6:
            half = self._halves.get(packet[at + 8 : at + 44])
            tcp = at + 40
            end = tcp + (packet[at + 4] << 8 | packet[at + 5])
            return None if half is None else (half, tcp, end, *_TCP(packet, tcp + 4))
        if ethertype == 0x0800 and len(packet) >= at + 40:
            first, total, middle, key, seq, ack, word, window = HEADERS(packet, at - 2)
            half = self._halves.get(key)
            if half is not None and first & 0xFFFFFF00 == IPV4 and middle & PLAIN_TCP_MASK == PLAIN_TCP:
                return half, at + 20, at + total, seq, ack, word, window
        return None

    def _decline(self, packet: bytes, timestamp: float, half: Any, word: int, empty: bool) -> None:
        """Not for the short path; and mostly not for the rules either where the connection is over or ignored."""
        if half.plain == IGNORED and not word & 7 or half.plain == OVER and empty and not word & 7:
            self._packets += 1
            self.counters.ignored += 1
            half.state.last_seen = timestamp
            return
        self._take(packet, timestamp)

    def _acknowledges(self, half: Any, ack: int) -> bool:
        """Whether this is an honest confirmation of bytes that were seen; if so it is taken in."""
        expected = half.peer.expected_seq
        last = half.last_ack
        if expected < 0:
            half.last_ack = ack  # that side was never seen
            return True
        behind = (expected - ack) & MASK
        if behind >= HALF or last < 0:
            return False  # bytes that were not captured, or the first confirmation
        gained = ((expected - last) & MASK) - behind
        if gained < 0:
            return bool(-gained <= max(half.max_window, 0xFFFF))  # overtaken on the way
        # One object for one number: an idle connection, all confirmed, consists of little else.
        half.last_ack = ack if behind else expected
        return True

    def _renews(self, half: Any, packet: bytes, tcp: int) -> bool:
        """RFC 7323 5.3, for the options as appendix A lays them out."""
        stamp = int.from_bytes(packet[tcp + 24 : tcp + 28], "big")
        if stamp < half.ts_recent or packet[tcp + 20 : tcp + 24] != TIMESTAMP_LAYOUT:
            return False
        half.ts_recent = stamp
        return True

    def _handler_raised(self, state: Any, error: BaseException) -> None:
        self.busy = None
        if not isinstance(error, Exception):
            self.abandon(state)
            raise error
        self.asked = True
        self.handler_failed(state, state.stream, error)

    def _answer(self, half: Any, chunk: Chunk) -> None:
        """What the handler asked for, or did wrong, in the call that the short path made."""
        half.answer(chunk)
        half.state.refresh()
        self.raise_pending()


def _sound(half: Any, packet: bytes, tcp: int, end: int) -> bool:
    """Whether the checksum holds. Decoys are short, and a short sum costs little: the number modulo 2^16-1."""
    body = packet[tcp:end] if (end - tcp) & 1 == 0 else packet[tcp:end] + b"\0"
    addresses = packet[tcp - 8 : tcp] if len(half.state.key) == 12 else packet[tcp - 32 : tcp]
    return (int.from_bytes(addresses, "big") + 6 + end - tcp + int.from_bytes(body, "big")) % 0xFFFF == 0
