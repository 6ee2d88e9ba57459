"""Two checks for `Stream.accept`, under the rules that users of gopacket know.

`TcpStateMachine` follows the flags alone (gopacket: TCPSimpleFSM), `OptionCheck` sequence numbers against MSS and
window (gopacket: TCPOptionCheck). Neither is needed for reassembly: `checks="strict"` emulates the endpoint in full.
"""

from __future__ import annotations

from typing import Any, Optional

from .errors import UsageError
from .segment import ACK, FIN, RST, SYN, Direction, Segment
from .sequence import difference


class TcpStateMachine:
    """Accepts the flags of an orderly connection (RFC 9293 3.3.2), told apart by direction. O(1) per segment.

    With `support_missing_establishment` a first segment without SYN counts as part of an established connection.
    """

    __slots__ = ("state", "_opener", "_closer", "_lenient")

    def __init__(self, support_missing_establishment: bool = False) -> None:
        self.state = "closed"
        self._lenient = support_missing_establishment
        self._opener: Optional[Direction] = None
        self._closer: Optional[Direction] = None

    def check(self, segment: Segment, direction: Direction) -> bool:
        """Whether this segment fits; if so, the state advances. Raises `UsageError` for what is no segment."""
        _must_be_those_of_accept(segment, direction)
        flags = segment.flags
        if self.state == "reset":
            return False
        if self.state == "closed":
            return self._open(flags, direction)
        if flags & RST:
            self.state = "reset"
            return True
        if self.state == "syn_sent":
            if flags & SYN and direction == self._opener:
                return not flags & ACK  # the SYN again
            if flags & SYN and flags & ACK:
                self.state = "established"
                return True
            return False
        return self._close(flags, direction)

    def _open(self, flags: int, direction: Direction) -> bool:
        if flags & SYN and not flags & ACK:
            self.state, self._opener = "syn_sent", direction
            return True
        if self._lenient and not flags & RST:
            self.state = "established"
            return True
        return False

    def _close(self, flags: int, direction: Direction) -> bool:
        if self.state == "established":
            if flags & FIN:
                self.state, self._closer = "close_wait", direction
        elif self.state == "close_wait":
            if flags & FIN and direction != self._closer:
                self.state = "last_ack"
        elif self.state == "last_ack" and flags & ACK and direction == self._closer:
            self.state = "closed"
        return True


class OptionCheck:
    """Refuses segments below the next expected byte, above the MSS or beyond the window. O(options) per segment."""

    __slots__ = ("_mss", "_scale", "_window")

    def __init__(self) -> None:
        self._mss = [0, 0]
        self._scale = [-1, -1]
        self._window = [0, 0]

    def check(self, segment: Segment, direction: Direction, next_seq: int) -> bool:
        """Whether the receiver could take this segment; `next_seq` is -1 where nothing was received yet.
        Raises `UsageError` for what is no segment."""
        _must_be_those_of_accept(segment, direction)
        if not isinstance(next_seq, int):
            raise UsageError(f"next_seq={next_seq!r}: give the next expected sequence number, or -1")
        receiver = 1 - direction
        accepted = True
        if segment.flags & SYN:
            self._mss[direction] = segment.mss or 0
            scale = segment.window_scale
            self._scale[direction] = -1 if scale is None else scale
        elif next_seq >= 0:
            ahead = difference(next_seq, segment.seq)
            keepalive = ahead == -1 and segment.length <= 1
            scale = self._scale[receiver]
            window = self._window[receiver] << max(scale, 0)
            accepted = keepalive or not (
                ahead < 0
                or 0 < self._mss[receiver] < segment.length
                or (scale >= 0 and window > 0 and ahead > window)
            )
        self._window[direction] = segment.window
        return accepted


def _must_be_those_of_accept(segment: Any, direction: Any) -> None:
    if not isinstance(segment, Segment) or direction not in (0, 1):
        raise UsageError(f"check({segment!r}, {direction!r}): give both as `accept` is given them")
