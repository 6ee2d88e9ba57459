"""The ordinary life of a connection, in short steps: SYN, SYN/ACK, the ACK that completes the handshake, FIN.

A step takes the segment as it lies and leaves exactly what the rules in `state` would leave; it declines, before it
changes anything, whatever is unusual about the segment or the connection. Under strict checks it leaves what those ask
for as well, windows above all; a FIN comes by way of `strictly` then. Short connections consist of little else:
`benchmarks/speed.py --workloads mixed,many` shows what this buys.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Optional, Tuple

from .checksum import even_sum, word_sum
from .chunk import LastChunk
from .details import NOTHING
from .half import ANSWERS, CONFIRMS, NEEDS_RULES, PLAIN, STAMPED, STRICTLY, HalfStream
from .options import NO_OPTIONS, OPTION_MSS, TIMESTAMP_LAYOUT, SynOptions, syn_options
from .reuse import TOGETHER
from .routing import Routing
from .segment import CONTROL, SYN, SYN_ACK, UnreadSegment, reverse_key
from .sequence import HALF, MASK, MODULUS
from .sequencing import same_line, ttl_of
from .state import StreamState
from .timers import BACK_SECONDS
from .uncut import PYPY
from .validate import OLD_TIMESTAMP, TTL_MARGIN, VERIFY_BYTES

OPTION_WORDS = Struct("!II").unpack_from  # two options to align, the timestamps' kind and length; the first value
LAYOUT_WORD = int.from_bytes(TIMESTAMP_LAYOUT, "big")
OPTION_BYTES = (None,) * 5 + tuple(range(0, 44, 4))  # by what the header says of its size: what that leaves to options
IPV6_AHEAD = 74  # `ahead` is 54, or 58 with a VLAN tag, where the packet is IPv4, and this or 78 where it is IPv6

# The steps get a segment as it lies in its frame `packet[at:limit]`: the end `ahead` of the TCP header without options,
# counted from `at`, the `length` behind that, and the header's fields. One by one, because an object to hold them costs
# as much to make as a step takes; uncut, because few steps need more of the frame than that.


class Ordinary(Routing):
    """The part of the assembler that opens and closes connections about which nothing is unusual."""

    __slots__ = ()

    _strict: bool

    def _stranger(
        self, packet: Any, at: int, limit: int, timestamp: float, half: Optional[HalfStream], key: bytes, middle: int,
        ahead: int, length: int, seq: int, word: int, window: int,
    ) -> None:  # fmt: skip
        """A packet of no connection that is in the table: a SYN without data opens one, and one may be over; or no TCP,
        or one whose TTL says that it may come from elsewhere."""
        closed = self._closed
        start = at + ahead
        if (
            half is not None
            or length != OPTION_BYTES[word >> 12]
            or start + length > limit
            or (middle & 0x3FFF00FF if ahead < IPV6_AHEAD else middle >> 8) != 6  # as in `same_path`
        ):
            return self._take(packet[at:limit], timestamp)
        if word & 0x3F != SYN:
            if word & CONTROL or key not in closed and (not closed or reverse_key(key) not in closed):
                return self._take(packet[at:limit], timestamp)
            self._packets += 1
            self._counters.ignored += 1
            self._present = timestamp
            return None
        reverse = reverse_key(key)
        found = _syn_options(packet, start, ahead, length)
        if (
            found is None
            or key in closed
            or reverse in closed
            or self._always_rules
            or self._openings.table
            and self._openings.knows(key)
            or timestamp < self._now - BACK_SECONDS  # a clock that was set back
        ):
            return self._take(packet[at:limit], timestamp)
        self._packets += 1
        self._present = timestamp
        segment = UnreadSegment()
        segment.key, segment.flags, segment.context = key, word & 0xFF, None
        segment.frame, segment.tcp_start, segment.tcp_end = packet[at:limit], ahead - 20, ahead + length
        self._busy = self
        try:
            state = self._admit(key, reverse, segment, timestamp)
            if state.stream is None:
                self._counters.ignored += 1
            elif state.accepts:
                self._apply(state.client, segment, timestamp)
            else:
                self._take_syn(state.client, middle, seq, window, found)
                if state.details is NOTHING:
                    state.server.plain = ANSWERS
            if self._gauge is not None:
                self._watch_pressure()
        finally:
            self._busy = None
        if self._error is not None:
            self._raise_pending()
        return None

    def _handshake(
        self, packet: Any, at: int, limit: int, timestamp: float, half: HalfStream, middle: int, ahead: int,
        length: int, seq: int, ack: int, word: int, window: int,
    ) -> None:  # fmt: skip
        """On a connection that has seen a usual SYN: the SYN/ACK without data that answers it, and then the plain
        segment that confirms that; data of this one is still to be taken, in order on an open connection."""
        state, peer = half.state, half.peer
        start = at + ahead
        if ack != peer.expected_seq or start + length > limit:
            return self._take(packet[at:limit], timestamp)
        if half.plain == CONFIRMS:
            plain = PLAIN if half.ts_recent < 0 else STAMPED
            data = length if word < 0x8000 else length - 12
            if (
                word & 0xFFF7 != plain
                or seq != half.expected_seq
                or not window
                or not (half.details is peer.details is NOTHING or self._may_confirm(half, packet, start, data))
                or (data or self._strict)
                and (data < 0 or data <= VERIFY_BYTES and not sound(half, packet, start, ahead, length))
                or word >= 0x8000
                and not self._renews(half, packet, start - 20)
            ):
                return self._take(packet[at:limit], timestamp)
            half.last_ack = peer.expected_seq
            state.embryonic = False
            del self._embryonic[state]
            if self._strict:
                half.note_window(window)
                half.window_edge = max(half.window_edge, half.window)
                half.plain = peer.plain = STRICTLY
            else:
                if window > half.shown:
                    half.note_window(window)
                half.plain, peer.plain = plain, PLAIN if peer.ts_recent < 0 else STAMPED
            if data:
                return self._assemble(packet[at:limit], timestamp)
        else:
            if word & 0x3F != SYN_ACK or length != OPTION_BYTES[word >> 12]:  # CWR and ECE say nothing here
                return self._take(packet[at:limit], timestamp)
            found = _syn_options(packet, start, ahead, length)
            if found is None:
                return self._take(packet[at:limit], timestamp)
            self._take_syn(half, middle, seq, window, found)
            if half.ts_recent < 0:
                peer.ts_recent = -1  # not negotiated (RFC 7323 3.2)
            half.last_ack = peer.expected_seq
            half.plain, peer.plain = NEEDS_RULES, CONFIRMS
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        return None

    def _may_confirm(self, half: HalfStream, packet: Any, start: int, data: int) -> bool:
        """Whether both windows are open; under strict checks also whether a plain segment has no data, which they would
        look at, and no timestamp older than the SYN's."""
        if not (half.window and half.peer.window):
            return False
        return not self._strict or not data and (half.ts_recent < 0 or option_words(packet, start)[1] >= half.ts_recent)

    def _fin(
        self, packet: Any, at: int, limit: int, timestamp: float, half: HalfStream, ahead: int, length: int, seq: int,
        ack: int, word: int, window: int,
    ) -> None:  # fmt: skip
        """A FIN: an ordinary one has no data, and its direction has delivered everything (RFC 9293 3.6)."""
        state = half.state
        peer = half.peer
        start = at + ahead
        if (
            word & 0xFFF6 != half.plain  # so `plain` is such a word
            or seq != half.expected_seq
            or length != OPTION_BYTES[word >> 12]
            or not window
            or start + length > limit
            or (half.details is not NOTHING or peer.details is not NOTHING)
            and not self._strict  # `strictly` has seen to them
            or even_sum(packet[start - (28 if ahead < IPV6_AHEAD else 52) : start + length], "big") % 0xFFFF
            != 0xFFE5 - length  # as in `sound`
            or (ack != half.last_ack or window > half.shown) and not self._acknowledges(half, ack, window)
            or word >= 0x8000 and not self._renews(half, packet, start - 20)
        ):
            if half.plain == STRICTLY and length == OPTION_BYTES[word >> 12]:
                self._other(packet[at:limit], timestamp, half, ahead, length, seq, ack, word, window)
            else:
                self._take(packet[at:limit], timestamp)
            return
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = self._present = timestamp
        half.plain = NEEDS_RULES  # the other direction goes on as it did
        half.ended = half.started = half.good_checksums = True
        self._counters.chunks += 1
        chunk = LastChunk()
        chunk.data = b""
        chunk.offset = half.fin_offset = half.next_offset
        chunk.timestamp = timestamp
        chunk._half = half
        self._busy = chunk
        try:
            state.stream.reassembled(chunk)
        except BaseException as error:
            self._handler_raised(state, error)
        if not (peer.ended or self._asked or self._gauge is not None or peer.expected_seq < 0):
            self._busy = None
            return
        self._busy = self
        try:
            if self._asked:
                half.answer(chunk)
                state.refresh()
                state.half_ended()
            elif peer.ended and half.syn_seen and peer.syn_seen:
                self._complete_usual(state)
            elif peer.ended or peer.expected_seq < 0:
                state.half_ended()
            if self._gauge is not None:
                self._watch_pressure()
        finally:
            self._busy = None
        if self._error is not None:
            self._raise_pending()

    def _take_syn(self, half: HalfStream, middle: int, seq: int, window: int, options: SynOptions) -> None:
        half.line = same_line(middle, middle)
        half.max_window = half.shown = window
        if self._strict:
            half.window = window
            half.sack = options[2]
            if half.peer.expected_seq >= 0:
                half.window_edge = window
        elif not window:
            half.window = 0
        if options is not NO_OPTIONS:
            scale, stamp, _ = options
            if scale >= 0:
                half.scale = scale
                half.shown = -1  # this one is not scaled, the next ones are
            half.ts_recent = stamp
        half.good_checksums = half.syn_seen = True
        half.expected_seq = (seq + 1) & MASK

    def _handler_raised(self, state: StreamState, error: BaseException) -> None:
        self._busy = self  # `complete` of the abandoned stream is a handler too
        try:
            if not isinstance(error, Exception):
                self._abandon(state)
                raise error
            self._asked = True
            self._handler_failed(state, state.stream, error)
        finally:
            self._busy = None
            del error  # an exception that leads to this frame, and the frame to it, would be a cycle

    def _acknowledges(self, half: HalfStream, ack: int, window: int) -> bool:
        """Whether this is an honest confirmation of bytes that were seen; if so it is taken in."""
        peer = half.peer
        expected = peer.expected_seq
        last = half.last_ack
        if window > half.shown:
            half.note_window(window)
        if ack == expected and last >= 0 and (0 <= expected - last < HALF or expected - last < -HALF):  # less than `&`
            half.last_ack = expected  # all of it; one object for one number: an idle connection is little else
            return True
        if expected < 0:  # that side was never seen
            if last >= 0 and (ack - last) & MASK > TOGETHER and (last - ack) & MASK > TOGETHER:
                return False  # maybe of another connection
            half.last_ack = ack
            return True
        behind = (expected - ack) & MASK
        if behind == MASK and peer.ended and not peer.stopped and peer.acked <= peer.next_offset + 1:  # its FIN
            half.last_ack = ack
            peer.acked = peer.next_offset + 1
            return True
        if last < 0:
            return False  # the first confirmation
        if behind > HALF:
            return self._acknowledges_beyond(half, ack, MODULUS - behind)
        before = (expected - last) & MASK
        if behind > before or before >= HALF:
            return self._acknowledges_again(half, ack, behind, before)
        half.last_ack = ack
        return True

    def _other(
        self, packet: bytes, timestamp: float, half: HalfStream, ahead: int, length: int, seq: int, ack: int, word: int,
        window: int,
    ) -> None:  # fmt: skip
        """A segment that is not plain, or strict checks ask more of; stands in `shortpath`."""
        raise NotImplementedError

    def _acknowledges_beyond(self, half: HalfStream, ack: int, beyond: int) -> bool:
        """The same for `beyond` bytes that were not seen; stands in `waiting`, as does the next."""
        raise NotImplementedError

    def _acknowledges_again(self, half: HalfStream, ack: int, behind: int, before: int) -> bool:
        """The same for less than what was confirmed `before`."""
        raise NotImplementedError

    def _renews(self, half: HalfStream, packet: bytes, tcp: int) -> bool:
        """RFC 7323 5.3, for the options as appendix A lays them out. What was overtaken has an older one."""
        layout, stamp = option_words(packet, tcp + 20)
        ahead = stamp - half.ts_recent
        if not -OLD_TIMESTAMP <= ahead < HALF or layout != LAYOUT_WORD:
            return False
        if ahead > 0:
            half.ts_recent = stamp
        return True


def _cut_option_words(packet: Any, at: int) -> Tuple[Any, ...]:
    return OPTION_WORDS(packet[at : at + 8], 0)


option_words = _cut_option_words if PYPY else OPTION_WORDS  # PyPy: of bytes or `Uncut`


def _syn_options(packet: Any, start: int, ahead: int, length: int) -> Optional[SynOptions]:
    """Those that matter of a SYN without data; None if its checksum is wrong, or if it is signed."""
    words = packet[start - (28 if ahead < IPV6_AHEAD else 52) : start + length]
    if even_sum(words, "big") % 0xFFFF != 0xFFE5 - length:  # as in `sound`
        return None
    if not length or length == 4 and words[-4] == OPTION_MSS:
        return NO_OPTIONS  # no need to search
    return syn_options(words[-length:])


def same_path(half: HalfStream, line: int) -> bool:
    """Whether TCP with this line may have come from where the others came; it becomes the usual one if its TTL is."""
    if (line & 0x3FFF00FF if len(half.state.key) == 12 else line >> 8) != 6:
        return False  # no TCP, or a fragment
    if half.line < 0:
        return True  # the first
    usual, ttl = ttl_of(half.line), ttl_of(line)
    if usual == ttl:
        half.line = same_line(line, line)
    return -TTL_MARGIN < usual - ttl < TTL_MARGIN if usual else not ttl  # none is known: the rules take over this one


def sound(half: HalfStream, packet: Any, start: int, ahead: int, length: int) -> bool:
    """Whether the checksum of `packet[start - 20 : start + length]` holds (RFC 9293 3.1); then `half` is known to send
    good ones. O(length)."""
    # With the addresses, which lie 28 bytes before `start` in IPv4 and 52 in IPv6, the protocol, 6, and the size the
    # sum is to be 0. Written out where the size is even: short connections have four such packets.
    words = packet[start - (28 if ahead < IPV6_AHEAD else 52) : start + length]
    if word_sum(words) % 0xFFFF != 0xFFE5 - length:
        return False
    half.good_checksums = True
    return True
