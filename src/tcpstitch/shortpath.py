"""The short path: plain segments in order, on open connections about which nothing is pending.

It works on the frame as it lies: one struct over the headers, one look-up under the addresses and ports as they lie
side by side in the frame, two comparisons. Everything it declines meets the rules in `state`, which would do the same
with more work.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Optional, Tuple

from .chunk import Chunk, FirstChunk
from .errors import ReentrantCallError
from .half import IGNORED, OVER, WAITS
from .ordinary import Lying, Ordinary, sound
from .segment import ACK, FIN, PSH, SYN
from .sequence import MASK
from .validate import TTL_MARGIN, VERIFY_BYTES

# An Ethernet frame with IPv4 and TCP, from the EtherType on: EtherType, version and IHL and service; total length;
# fragment word, TTL, protocol; addresses and ports; sequence and acknowledgement number; offset and flags; window.
HEADERS = Struct("!IH2xI2x12sIIHH").unpack_from
IPV4 = 0x08004500  # the first of these, without the service
PLAIN_MASK, TCP_MASK, TCP = 0x3FFFFFFF, 0x3FFF00FF, 6  # the third, without the flags; and without the TTL too
# IPv6 and TCP: version; payload length; next header, hop limit; addresses and ports; as above.
HEADERS6 = Struct("!B3xHBB36sIIHH").unpack_from

class ShortPath(Ordinary):
    """The part of the assembler that most packets see."""

    _ethernet: bool

    def assemble(self, packet: Any, timestamp: float) -> None:
        """Take one packet, captured at `timestamp` (seconds): a bytes-like frame, a dpkt packet, or a `Segment`.

        What cannot be decoded is counted, never raised. O(1) for data in order, else O(log n) in what is buffered.
        Raises `PacketTypeError` for other types, `StreamCallbackError` if a handler did, `ReentrantCallError` in one.
        """
        if (timestamp >= self._next_timer or self.busy is not None) and not self._before(timestamp):
            return self._take(packet, timestamp)  # a handler failed in a timer: the error follows this packet
        if packet.__class__ is not bytes or len(packet) < 54 or not self._ethernet:
            return self._take(packet, timestamp)
        first, at = 0, 16 if packet[12] == 0x81 and not packet[13] else 12  # behind a VLAN tag, or at its place
        if packet[at] == 8:
            first, total, middle, key, seq, ack, word, window = HEADERS(packet, at)
            half = self._halves.get(key)
            line = 0 if half is None else half.line
        if first & 0xFFFFFF00 == IPV4 and (middle & PLAIN_MASK == line or not line and middle & TCP_MASK == TCP):
            tcp, end = at + 22, at + 2 + total  # IPv4 without options, no fragment, the usual TTL, TCP
        else:
            found = self._locate(packet, at)
            if found is None:
                return self._take(packet, timestamp)
            half, key, tcp, end, seq, ack, word, window = found
        start = tcp + (word >> 10 & 0x3C)
        if (
            half is None or word & 0xFFF7 != half.plain or seq != half.expected_seq
            or not window or not start <= end <= len(packet)
        ):  # fmt: skip
            return self._other(packet, timestamp, half, (key, tcp, start, end, seq, ack, word, window))
        length, state = end - start, half.state
        if (
            0 < length <= VERIFY_BYTES and (length == 1 or not sound(half, packet, key, tcp, end))
            or ack != half.last_ack and not self._acknowledges(half, ack, window, timestamp)
            or word & 0x8000 and not self._renews(half, packet, tcp)
            or state.page_count and not self._may_wait(half.peer, timestamp)
        ):  # fmt: skip
            return self._take(packet, timestamp)
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        if length:
            self.counters.bytes += length
            if offset := half.next_offset:
                chunk = Chunk()
            else:
                chunk = FirstChunk() if half.syn_seen else Chunk()
                half.started = True
            chunk.data = packet[start:end]  # filled here: a call of __init__ costs as much as all of it
            chunk.offset = offset
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

    def _before(self, timestamp: Any) -> bool:
        """Refuse calls out of a handler, and let the timers run; False if a handler failed there, or if the packet has
        to come again with its time as a float."""
        if self.busy is not None:
            raise ReentrantCallError("a handler called its own assembler: return first, or collect and call later")
        if not isinstance(timestamp, (float, int)):
            self._exact_times = True
            return False
        self.busy = self
        try:
            self.run_timers(timestamp)
        finally:
            self.busy = None
        if self._exact_times:
            self._next_timer = float("-inf")  # look at the next packet too
        return self._error is None

    def _locate(self, packet: bytes, at: int) -> Optional[Tuple[Any, bytes, int, int, int, int, int, int]]:
        """TCP over both IP versions, its EtherType at `at`: the direction, if known, and a `Lying` but for `start`.

        None too where the TTL says that it may not come from where the others came from.
        """
        if packet[at] == 0x86 and packet[at + 1] == 0xDD and len(packet) >= at + 62:
            first, total, number, ttl, key, seq, ack, word, window = HEADERS6(packet, at + 2)
            if number != 6 or first >> 4 != 6:
                return None
            tcp = at + 42
            end = tcp + total
        elif len(packet) >= at + 42:
            first, total, middle, key, seq, ack, word, window = HEADERS(packet, at)
            if first & 0xFFFFFF00 != IPV4 or middle & TCP_MASK != TCP:
                return None
            ttl = middle >> 8 & 0xFF
            tcp = at + 22
            end = at + 2 + total
        else:
            return None
        half = self._halves.get(key)
        if half is not None and half.line >> 8 != ttl and half.line:
            if not -TTL_MARGIN < (half.line >> 8) - ttl < TTL_MARGIN:
                return None
        return half, key, tcp, end, seq, ack, word, window

    def _other(self, packet: bytes, timestamp: float, half: Any, at: Lying) -> None:
        """A TCP segment that is not plain data or a plain ACK in order on an open connection."""
        key, tcp, start, end, seq, _, word, window = at
        flags = word & 0x3F  # without CWR and ECE, which say nothing about the stream
        if not tcp + 20 <= start <= end <= len(packet):
            pass
        elif half is None:
            if flags == SYN and start == end and self._ordinary_syn(packet, timestamp, at):
                return
        elif half.plain >= 0:
            if word & 0xFFF7 == half.plain | FIN and seq == half.expected_seq and start == end:
                if window and self._ordinary_fin(packet, timestamp, half, at):
                    return
        elif half.plain == WAITS:
            if window and seq != half.expected_seq and self._ordinary_wait(packet, timestamp, half, at):
                return
        elif half.plain == IGNORED and not flags & 7 or half.plain == OVER and start == end and not flags & 7:
            self._packets += 1
            self.counters.ignored += 1
            half.state.last_seen = timestamp
            return
        elif half.state.embryonic and not self.always_rules:
            if flags == SYN | ACK and start == end:
                if self._ordinary_answer(packet, timestamp, half, at):
                    return
            elif flags & ~PSH == ACK and self._ordinary_ack(packet, half, at):
                if start < end:
                    return self.assemble(packet, timestamp)  # data in order on an open connection now
                self._packets = half.state.last_packet = self._packets + 1
                half.state.last_seen = timestamp
                return
        self._take(packet, timestamp)

    def _answer(self, half: Any, chunk: Chunk) -> None:
        """What the handler asked for, or did wrong, in the call that the short path made."""
        half.answer(chunk)
        half.state.refresh()
        self.raise_pending()
