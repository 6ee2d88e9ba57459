"""Two checks for `Stream.accept`, under the rules that users of gopacket know.

`TcpStateMachine` follows the flags alone (gopacket: TCPSimpleFSM), `OptionCheck` sequence numbers against MSS and
window (gopacket: TCPOptionCheck). Neither is needed for reassembly: `checks="strict"` emulates the endpoint in full.
"""

from __future__ import annotations

from typing import Any, Optional

from .errors import UsageError
from .options import OPTION_MSS, OPTION_WINDOW_SCALE, parse_options
from .segment import ACK, FIN, RST, SYN, SYN_ACK, Direction, Segment
from .sequence import difference


class TcpStateMachine:
    """Accepts the flags of an orderly connection (RFC 9293 3.3.2), told apart by direction. O(1) per segment.

    With `support_missing_establishment` a first segment that is no SYN tells how far the connection has come.
    """

    __slots__ = ("state", "_lenient", "_side")

    def __init__(self, support_missing_establishment: bool = False) -> None:
        self.state = "closed"
        self._lenient = support_missing_establishment
        self._side: Optional[Direction] = None  # who sent the SYN; from the first FIN on, who sent that

    def check(self, segment: Segment, direction: Direction) -> bool:
        """Whether this segment fits; if so, the state advances. Raises `UsageError` for what is no segment."""
        _must_be_those_of_accept(segment, direction)
        flags = segment.flags
        if self.state == "closed" and flags & SYN_ACK != SYN and self._lenient:
            self._join(flags, direction)
        if self.state == "closed":
            if flags & SYN_ACK != SYN:
                return False
            self.state, self._side = "syn_sent", direction
        elif self.state == "reset":
            return False
        elif flags & RST:
            self.state = "reset"
        elif self.state == "syn_sent":
            if direction == self._side:
                return flags & SYN_ACK == SYN  # the SYN again
            if flags & SYN_ACK != SYN_ACK:
                return False
            self.state = "established"
        else:
            return self._close(flags, direction)
        return True

    def _join(self, flags: int, direction: Direction) -> None:
        """The state before a segment of a connection of which nothing was seen."""
        other = Direction(1 - direction)
        if flags & SYN:
            self.state, self._side = "syn_sent", other
        elif flags & (FIN | ACK) == FIN | ACK:
            self.state, self._side = "close_wait", other  # it answers a FIN
        else:
            self.state = "established"

    def _close(self, flags: int, direction: Direction) -> bool:
        if self.state == "established":
            if flags & FIN:
                self.state, self._side = "close_wait", direction
            return True
        if not flags & ACK:
            return False
        if self.state == "last_ack":
            if direction != self._side:
                return False
            self.state = "closed"
        elif flags & FIN and direction != self._side:
            self.state = "last_ack"
        return True


class OptionCheck:
    """Refuses segments below the next expected byte, above the MSS or beyond the window, and SYNs with an MSS or window
    scale of a wrong length. O(options) per segment. A window counts where the SYN that says how it is scaled was seen;
    gopacket looks only at those that are not scaled."""

    __slots__ = ("_mss", "_scale", "_window")

    def __init__(self) -> None:
        self._mss = [0, 0]
        self._scale = [-1, -1]  # not known
        self._window = [0, 0]

    def check(self, segment: Segment, direction: Direction, next_seq: int) -> bool:
        """Whether the receiver could take this segment; `next_seq` is -1 where nothing was received yet.
        Raises `UsageError` for what is no segment."""
        _must_be_those_of_accept(segment, direction)
        if not isinstance(next_seq, int):
            raise UsageError(f"next_seq={next_seq!r}: give the next expected sequence number, or -1")
        receiver = 1 - direction
        if segment.flags & SYN:
            found = parse_options(segment.options)
            if len(found.get(OPTION_MSS, b"..")) != 2 or len(found.get(OPTION_WINDOW_SCALE, b".")) != 1:
                return False
            self._mss[direction] = segment.mss or 0
            self._scale[direction] = segment.window_scale or 0
        elif next_seq >= 0:
            ahead = difference(next_seq, segment.seq)
            window = self._window[receiver] if self._scale[receiver] >= 0 else 0
            if not (ahead == -1 and segment.length <= 1) and (  # a keep-alive
                ahead < 0 or 0 < self._mss[receiver] < segment.length or 0 < window < ahead
            ):
                return False
        scaled = not segment.flags & SYN  # RFC 7323 2.2
        self._window[direction] = segment.window << max(self._scale[direction], 0) if scaled else segment.window
        return True


def _must_be_those_of_accept(segment: Any, direction: Any) -> None:
    if not isinstance(segment, Segment) or direction not in (0, 1):
        raise UsageError(f"check({segment!r}, {direction!r}): give both as `accept` is given them")
