"""The short path: plain segments in order, on open connections about which nothing is pending.

It works on the frame as it lies: one struct over the headers, one look-up under the addresses and ports as they lie
side by side in the frame, three comparisons. Everything it declines meets the rules in `state`, which would do the same
with more work.
"""

from __future__ import annotations

from struct import Struct
from struct import error as HeaderError
from typing import Any

from .chunk import Chunk
from .errors import ReentrantCallError
from .half import ANSWERS, CONFIRMS, IGNORED, NEEDS_RULES, WAITS
from .ordinary import PLAIN_HEAD, same_path, sound
from .segment import ACK, FIN, RST, SYN
from .sequence import MASK
from .timers import blame, seconds
from .validate import VERIFY_BYTES
from .waiting import Waiting

# An Ethernet frame with IPv4 and TCP, from the second byte of the EtherType on: that byte, version and IHL; total
# length; fragment word, TTL, protocol; addresses and ports; sequence and acknowledgement number; offset and flags;
# window.
HEADERS = Struct("!HxH2xI2x12sIIHH4x").unpack_from
# With IPv6, from the EtherType on: that, version and the upper half of what follows; payload length; next header and
# hop limit; as above.
HEADERS6 = Struct("!I2xHH36sIIHH4x").unpack_from
IPV6 = 0x86DD6  # the first of these, without traffic class


class ShortPath(Waiting):
    """The part of the assembler that most packets see."""

    def assemble(self, packet: Any, timestamp: float) -> None:
        """Take one packet, captured at `timestamp` (seconds): a bytes-like frame, a dpkt packet, or a `Segment`.

        What cannot be decoded is counted, never raised. O(1) for data in order, else O(log n) in what is buffered.
        Raises `PacketTypeError`, `UsageError` for a time, `StreamCallbackError`, in a handler `ReentrantCallError`."""
        try:
            if (timestamp >= self._next_timer or self.busy is not None) and not self._before(timestamp):
                return self._take(packet, timestamp)
        except (TypeError, ValueError, ArithmeticError) as error:  # what is no time cannot be compared with one
            raise blame(timestamp, error)  # noqa: B904  (it may be the same)
        if type(packet) is not self._frames:
            return self._take(packet, timestamp)
        try:
            if (kind := packet[12]) == 8:
                first, total, middle, key, seq, ack, word, window = HEADERS(packet, 13)
                tcp, end = 34, total + 14
            elif kind == 0x86:
                first, total, middle, key, seq, ack, word, window = HEADERS6(packet, 12)
                first, tcp, end = PLAIN_HEAD if first >> 12 == IPV6 else 0, 54, total + 54
            elif kind == 0x81 and packet[16] == 8:  # behind a VLAN tag
                first, total, middle, key, seq, ack, word, window = HEADERS(packet, 17)
                first, tcp, end = 0 if packet[13] else first, 38, total + 18
            else:
                first, total, middle, key, seq, ack, word, window = HEADERS6(packet, 16)
                tcp, end = 58, total + 58
                first = PLAIN_HEAD if first >> 12 == IPV6 and kind == 0x81 and not packet[13] else 0
        except (IndexError, HeaderError):
            return self._take(packet, timestamp)
        half = self._halves[key]
        if half is None or first != PLAIN_HEAD or middle != half.line and not same_path(half, middle):
            return self._stranger(packet, timestamp, half, first, key, middle, tcp, end, seq, word, window)
        if word & 0xFFF7 != half.plain or seq != half.expected_seq or not window:
            return self._other(packet, timestamp, half, middle, tcp, end, seq, ack, word, window)
        state, start = half.state, tcp + 20 if word < 0x8000 else tcp + 32  # the only two that `plain` allows
        length = end - start
        if (
            (end > len(packet) if length > VERIFY_BYTES else length
             and (length < 2 or end > len(packet) or not sound(half, packet, tcp, end)))
            or (ack != half.last_ack or window > half.shown or not length) and not self._acknowledges(half, ack, window)
            or word >= 0x8000 and not self._renews(half, packet, tcp)
            or state.page_count and not self._may_wait(half.peer, timestamp)
        ):  # fmt: skip
            return self._take(packet, timestamp)
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        if length:
            self.counters.bytes += length
            half.started = True
            chunk = Chunk()  # filled here: a call of __init__ costs as much as all of it
            chunk.offset = offset = half.next_offset
            chunk.data, chunk.timestamp, chunk._half = packet[start:end], timestamp, half
            half.next_offset, half.expected_seq = offset + length, (seq + length) & MASK
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
        if not isinstance(timestamp, float):
            seconds(timestamp)
            if not isinstance(timestamp, int):
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

    def _other(
        self, packet: bytes, timestamp: float, half: Any, middle: int, tcp: int, end: int, seq: int, ack: int,
        word: int, window: int,
    ) -> None:  # fmt: skip
        """A TCP segment that is not plain data or a plain ACK in order on an open connection."""
        plain = half.plain
        start = tcp + (word >> 10 & 0x3C)
        if word < 0x5000 or start > end or end > len(packet):
            pass
        elif plain >= 0:
            if word & 0xFFF7 == plain | FIN and seq == half.expected_seq and start == end:
                if window and self._ordinary_fin(packet, timestamp, half, tcp, end, ack, word, window):
                    return
            elif window:
                if self._out_of_order(packet, timestamp, half, tcp, start, end, seq, ack, word, window):
                    return
        elif plain == CONFIRMS:
            if self._ordinary_ack(packet, half, tcp, start, end, seq, ack, word, window):
                if start < end:
                    return self.assemble(packet, timestamp)  # data in order on an open connection now
                self._packets = half.state.last_packet = self._packets + 1
                half.state.last_seen = timestamp
                return
        elif plain == ANSWERS:
            if word & 0x3F == SYN | ACK and start == end:  # CWR and ECE say nothing about the stream
                if self._ordinary_answer(packet, timestamp, half, middle, tcp, end, seq, ack, window):
                    return
        elif plain == WAITS:
            if window:
                if self._out_of_order(packet, timestamp, half, tcp, start, end, seq, ack, word, window):
                    return
        elif plain != NEEDS_RULES and not word & (FIN | SYN | RST) and (plain == IGNORED or start == end):  # or over
            self._packets += 1
            self.counters.ignored += 1
            self.present = timestamp
            if plain == IGNORED:
                half.state.last_seen = timestamp
            return
        self._take(packet, timestamp)

    def _answer(self, half: Any, chunk: Chunk) -> None:
        """What the handler asked for, or did wrong, in the call that the short path made."""
        half.answer(chunk)
        half.catch_up()
        half.peer.catch_up()
        half.state.refresh()
        self._watch()
