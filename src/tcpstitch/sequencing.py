"""One direction's place in sequence space."""

from __future__ import annotations

from typing import Any, Dict

from .details import NOTHING
from .segment import FIN, SYN, Segment
from .sequence import MASK, NEVER, unwrap
from .shifted import shifted

UNKNOWN_WINDOW = 1 << 30  # the largest window of RFC 7323 2.3
KEEPALIVE_SILENCE = 0.5  # seconds: longer than a tap reorders, shorter than any keep-alive waits
NEAR = 65535  # the largest without a scale: what lies within it may be on its way, whatever the window

# What a direction's packets have in common where the TTL stands: in IPv4 the 32 bits of fragment word, TTL and
# protocol, in IPv6 the 16 bits of next header and hop limit. One object for each of the few that mean TCP in one piece.
LINES: Dict[int, int] = {}
same_line = LINES.setdefault  # by a name of its own: CPython looks up a method of an imported object in vain
SHOWN: Dict[int, int] = {}  # one object for each of the first windows as well: an idle connection consists of numbers
MAX_SHOWN = 1024


def ttl_of(line: int) -> int:
    """TTL or hop limit in the line of TCP, 0 where none is known. A line that can be read both ways says the same."""
    if line & 0xFF == 6:
        return line >> 8 & 0xFF
    return line & 0xFF if line > 0 else 0


def behind(segment: Segment) -> int:
    """The sequence number behind all that the segment carries, its SYN and FIN included."""
    flags = segment.flags
    return (segment.seq + segment.length + bool(flags & SYN) + bool(flags & FIN)) & MASK


class TouchedHalf:
    """What nearly each packet touches, side by side in memory: the slots of a base come first."""

    __slots__ = ("expected_seq", "last_ack", "line", "next_offset", "peer", "plain", "shown", "started", "state")


class Sequencing(TouchedHalf):
    """The part of a `HalfStream` that turns sequence numbers into offsets, and knows how far the stream has come."""

    __slots__ = ("acked", "max_window")

    peer: Any
    state: Any
    queue: Any
    expected_seq: int
    next_offset: int
    acked: int
    last_ack: int  # NEVER where the next one has to meet the rules
    max_window: int
    window: Any  # the present one: 0, or another under strict checks; -1 where it does not matter
    shown: int  # the largest window as the headers show it, unscaled; -1: not since the last SYN
    scale: int
    details: Any
    line: int  # of LINES: the usual one, -1 before the first packet
    syn_seen: bool
    ahead: Any
    claimed_end: Any
    early_end: Any
    cuts: Any
    doubtful: Any
    fin_offset: Any
    fin_unsure: Any
    isns: Any
    started: bool
    stopped: bool
    ended: bool

    @property
    def ttl(self) -> int:
        """The usual TTL or hop limit of the direction, 0 before its first packet."""
        return ttl_of(self.line)

    @ttl.setter
    def ttl(self, ttl: int) -> None:
        line = 0x600 | ttl & 0xFF if len(self.state.key) == 36 else (ttl & 0xFF) << 8 | 6
        self.line = same_line(line, line)

    @property
    def key(self) -> Any:
        return self.state.key if self is self.state.client else self.state.reverse

    @property
    def known(self) -> bool:
        return self.expected_seq >= 0

    @property
    def base_seq(self) -> int:
        """The sequence number of offset 0; only once `known`."""
        return (self.expected_seq - self.next_offset) & MASK

    @property
    def confirmed(self) -> bool:
        """Whether the last acknowledgement was of the SYN: the receiver counts from its number."""
        return bool(self.known and self.peer.last_ack == self.base_seq)

    @property
    def max_offset(self) -> int:
        """The highest offset that was sent, as far as was seen."""
        offset: int = max(self.next_offset, self.ahead)
        return offset

    @property
    def highest_sent(self) -> int:
        """What an acknowledgement may confirm: as `max_offset`, with what is set aside until one does so, as long as
        that waits, and what its sender claims. Data that was refuted was not sent, for the receiver."""
        end: int = max(self.max_offset, self.claimed_end)
        for waits in (*self.doubtful, self.state.syn_data):
            if waits is not None and waits.segment.key == self.key:
                end = max(end, self.offset_of(behind(waits.segment)))
        return end

    def may_be_acknowledged(self, offset: int) -> bool:
        """Whether the receiver may have all below `offset`: up to a window behind what was seen, which the capture may
        lack, or what the sender's own numbers claim, as after an outage of the capture."""
        return offset <= self.max_offset + max(self.peer.max_window, NEAR) + 1 or offset <= self.highest_sent

    def fin_waits(self) -> bool:
        """Whether a FIN that waits is acknowledged, or cannot be, as the other side is not seen."""
        fin = self.fin_offset
        if fin is None or self.stopped or self.next_offset >= fin:
            return False
        return bool(fin < self.acked or not self.peer.known)

    def keeps_alive(self, start: int, length: int, timestamp: float) -> bool:
        """Whether this is a keep-alive (RFC 9293 3.8.4): at the last byte, which is acknowledged; its own is garbage.

        Before the acknowledgement it is that byte sent again; after a FIN the last number is the FIN's. Where
        acknowledgements are not seen, it may be either and passes for a keep-alive, as does, after a silence, an
        acknowledged byte that was not captured. Without a byte that is an acknowledgement like any other.
        """
        if length > 1 or self.ended:
            return False
        if self.next_offset <= start == self.acked - 1:
            return length > 0 and float(timestamp) - float(self.state.last_seen) >= KEEPALIVE_SILENCE
        return start == self.next_offset - 1 and (self.acked > start or self.stopped or not self.peer.known)

    def waits_for_ack(self) -> bool:
        """Whether an acknowledgement decides about something that was seen."""
        return bool(
            self.fin_unsure or self.cuts or self.doubtful or self.early_end or self.isns and not self.started
        )

    def seq_at(self, offset: int) -> int:
        return (self.expected_seq + offset - self.next_offset) & MASK

    def offset_of(self, seq: int) -> int:
        return unwrap(seq, self.expected_seq, self.next_offset)

    def set_base(self, seq: int) -> None:
        """Offset 0 has this sequence number. Nothing was delivered yet; what is held keeps its sequence numbers.
        O(pages below it)."""
        if self.known:
            delta = unwrap(seq, self.base_seq, 0)
            if delta:
                self.peer.last_ack = NEVER  # it was judged by another base
                edge = self.peer.window_edge
                self.peer.window_edge = max(-1, edge - delta) if edge >= 0 else -1
            self.ahead = self.ahead - delta if self.ahead > max(delta, 0) else -1
            # 0 of these two is no place: nothing is acknowledged, nothing in doubt.
            self.acked = max(0, self.acked - delta) if self.acked else 0
            self.early_end = max(0, self.early_end - delta) if self.early_end else 0
            self.claimed_end = -1
            if self.queue:
                self.queue = shifted(self.queue, delta)
            if self.cuts:
                self.cuts.shift(delta)
            if self.fin_offset is not None:
                self.fin_offset -= delta
        self.expected_seq = seq & MASK
        self.next_offset = 0
        if self.queue:
            self.queue.discard_below(0)
        while self.cuts and self.cuts.first()[1] <= 0:
            self.cuts.pop_first()
        # What was held below the former base counted as ahead of nothing.
        if self.queue:
            self.ahead = max(self.ahead, self.queue.end_offset)
        if self.cuts:
            self.ahead = max(self.ahead, self.cuts.end())

    def _advance(self, offset: int) -> None:
        self.expected_seq = (self.expected_seq + offset - self.next_offset) & MASK
        self.next_offset = offset

    def catch_up(self) -> None:
        """Take in what the short path left for later: what this direction acknowledged."""
        peer = self.peer
        if self.last_ack >= 0 and peer.expected_seq >= 0 and not peer.stopped:
            acked = unwrap(self.last_ack, peer.expected_seq, peer.next_offset)
            if peer.acked < acked <= peer.next_offset:
                peer.acked = acked

    def window_end(self) -> int:
        """The offset beyond which the receiver, by its own words, would not have accepted data."""
        window = self.peer.max_window if self.peer is not None else -1
        return max(self.next_offset, self.acked) + (window if window >= 0 else UNKNOWN_WINDOW)

    def note_window(self, window: int) -> None:
        """Take in a window as a segment without SYN announces it (RFC 7323 2.3)."""
        if window > self.shown:
            self.shown = SHOWN.get(window, window)
            if self.shown is window and len(SHOWN) < MAX_SHOWN:
                SHOWN[window] = window
        if self.syn_seen and (self.peer.syn_seen or self.scale < 0):
            if self.scale > 0 and self.peer.scale >= 0:
                window <<= self.scale
        else:
            window <<= 14  # the handshake was not captured: assume the largest
        if window > self.max_window:
            self.max_window = window
        if self.details is not NOTHING or not window or self.state.host._strict:
            self.set_window(window)

    def set_window(self, window: int) -> None:
        """Remember a window in bytes as the present one, as far as any rule asks for it."""
        if window and not self.state.host._strict:
            window = -1
        # The same number is kept as one object.
        self.window = self.max_window if window == self.max_window else window
