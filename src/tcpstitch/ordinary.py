"""The ordinary life of a connection, in short steps: SYN, SYN/ACK, the ACK that completes the handshake, FIN.

A step takes the segment as it lies and leaves exactly what the rules in `state` would leave; it declines, before it
changes anything, whatever is unusual about the segment or the connection. Short connections consist of little else:
`benchmarks/speed.py --workloads mixed,many` shows what this buys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .details import NOTHING
from .routing import Routing
from .segment import OPTION_MD5, OPTION_TIMESTAMPS, OPTION_WINDOW_SCALE, FlowKey, Segment, parse_options
from .sequence import HALF, MASK
from .validate import TIMESTAMP_LAYOUT, VERIFY_BYTES


class Lying(NamedTuple):
    """A segment in its frame: its directed key, the offsets of TCP header, payload and end, and header fields."""

    key: FlowKey
    tcp: int
    start: int
    end: int
    seq: int
    ack: int
    word: int  # offset and flags
    window: int


class Ordinary(Routing):
    """The part of the assembler that opens and closes connections about which nothing is unusual."""

    def _ordinary_syn(self, packet: bytes, timestamp: float, at: Lying) -> bool:
        """A SYN that opens a connection."""
        if self.always_rules or self._openings.knows(at.key) or not sound(packet, at.key, at.tcp, at.end):
            return False
        options = packet[at.tcp + 20 : at.start]
        found = parse_options(options) if options else {}
        if OPTION_MD5 in found:
            return False
        self._packets += 1
        ttl = _ttl(packet, at)
        segment = Segment(at.key, at.seq, at.ack, at.word & 0xFF, at.window, b"", 0, options, ttl, 0,
                          packet, at.tcp, at.end)  # fmt: skip
        self.busy = self
        try:
            half = self._open(segment, timestamp)
            state = half.state
            if state.stream is None:
                pass
            elif state.accepts:
                self._apply(half, segment, timestamp)
            else:
                _take_syn(half, at, ttl, found)
            if self.gauge is not None:
                self.watch_pressure()
        finally:
            self.busy = None
        if self._error is not None:
            self.raise_pending()
        return True

    def _ordinary_answer(self, packet: bytes, timestamp: float, half: Any, at: Lying) -> bool:
        """The SYN/ACK that answers the one SYN."""
        state = half.state
        peer = half.peer
        if (
            half.expected_seq >= 0
            or at.ack != peer.expected_seq
            or half is not state.server
            or not (half.details is peer.details is state.details is NOTHING)
            or state.accepts
            or not sound(packet, at.key, at.tcp, at.end)
        ):
            return False
        options = packet[at.tcp + 20 : at.start]
        found = parse_options(options) if options else {}
        if OPTION_MD5 in found:
            return False
        _take_syn(half, at, _ttl(packet, at), found)
        if half.ts_recent < 0:
            peer.ts_recent = -1  # not negotiated (RFC 7323 3.2)
        half.last_ack = peer.expected_seq
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        return True

    def _ordinary_ack(self, packet: bytes, half: Any, at: Lying) -> bool:
        """Complete the handshake: with a plain segment that confirms the peer's SYN. It is then still to be taken."""
        state = half.state
        peer = half.peer
        stamped = at.start - at.tcp == 32 and packet[at.tcp + 20 : at.tcp + 24] == TIMESTAMP_LAYOUT
        if (
            at.seq != half.expected_seq
            or at.ack != peer.expected_seq
            or not at.window
            or not (half.details is peer.details is state.details is NOTHING)
            or state.accepts
            or state.restartable
            or state.page_count
            or stamped != (half.ts_recent >= 0)
            or not (stamped or at.start - at.tcp == 20)
            or 0 < at.end - at.start <= VERIFY_BYTES and not sound(packet, at.key, at.tcp, at.end)
        ):
            return False
        half.note_window(at.window)
        half.last_ack = peer.expected_seq
        self.established(state)
        state.refresh()
        return bool(half.plain == at.word & 0xFFF7)

    def _ordinary_fin(self, packet: bytes, timestamp: float, half: Any, at: Lying) -> bool:
        """The FIN of a direction that has delivered everything (RFC 9293 3.6)."""
        state = half.state
        peer = half.peer
        if (
            not (half.details is peer.details is NOTHING)
            or not sound(packet, at.key, at.tcp, at.end)
            or at.ack != half.last_ack and not self._acknowledges(half, at.ack, at.window)
            or at.word & 0x8000 and not self._renews(half, packet, at.tcp)
        ):
            return False
        half.note_window(at.window)
        half.catch_up()
        peer.catch_up()
        self._packets = state.last_packet = self._packets + 1
        state.last_seen = timestamp
        half.fin_offset = half.next_offset
        self.present = timestamp
        self.busy = self
        try:
            half.end()
        finally:
            self.busy = None
        state.refresh()
        if self._error is not None:
            self.raise_pending()
        return True

    def _acknowledges(self, half: Any, ack: int, window: int) -> bool:
        """Whether this is an honest confirmation of bytes that were seen; if so it is taken in."""
        peer = half.peer
        expected = peer.expected_seq
        last = half.last_ack
        if (window << half.scale if half.scale > 0 else window) > half.max_window:
            half.note_window(window)
        if expected < 0:
            half.last_ack = ack  # that side was never seen
            return True
        behind = (expected - ack) & MASK
        if behind == MASK and peer.ended:  # its FIN
            half.last_ack = ack
            peer.acked = peer.next_offset + 1
            return True
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


def _take_syn(half: Any, at: Lying, ttl: int, found: "dict[int, bytes]") -> None:
    half.ttl = ttl
    scale = found.get(OPTION_WINDOW_SCALE)
    if scale is not None and len(scale) == 1:
        half.scale = min(scale[0], 14)  # RFC 7323 2.3
    half.window = half.max_window = at.window
    stamps = found.get(OPTION_TIMESTAMPS)
    if stamps is not None and len(stamps) == 8:
        half.ts_recent = int.from_bytes(stamps[:4], "big")
    half.good_checksums = half.syn_seen = True
    half.expected_seq = (at.seq + 1) & MASK


def _ttl(packet: bytes, at: Lying) -> int:
    return packet[at.tcp - 12] if len(at.key) == 12 else packet[at.tcp - 33]


def sound(packet: bytes, key: FlowKey, tcp: int, end: int) -> bool:
    """Whether the TCP checksum holds (RFC 9293 3.1): the sum of 16-bit words is the number modulo 2^16-1. O(length)."""
    body = packet[tcp:end] if (end - tcp) & 1 == 0 else packet[tcp:end] + b"\0"
    addresses = packet[tcp - 8 : tcp] if len(key) == 12 else packet[tcp - 32 : tcp]
    return (int.from_bytes(addresses, "big") + 6 + end - tcp + int.from_bytes(body, "big")) % 0xFFFF == 0
