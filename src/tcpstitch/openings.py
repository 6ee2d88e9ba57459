"""What came on addresses before they had a connection, and opened none: SYNs that no host takes, lone SYN/ACKs.

A SYN/ACK says who the server is, but a client can send one to a listening port to be taken for the server (it is
answered with a RST, RFC 9293 3.10.7.2). So it waits for the next packet on its addresses, which tells.
"""

from __future__ import annotations

from array import array
from copy import copy
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from .half import HalfStream
from .limits import OPENING_BYTES, key_cost
from .segment import ACK, FIN, RST, SYN, FlowKey, Segment, reverse_key


class _Before(NamedTuple):
    kind: str  # the evidence for the connection to come; "" for a SYN/ACK that may yet open one, or came before that
    seq: int
    timestamp: float
    segment: Optional[Segment] = None
    detail: Mapping[str, int] = {}
    other: Optional[_Before] = None  # the SYN/ACK before this one, with another number: what follows tells which counts


class Openings:
    """Such segments, in `bytes`, estimated from above, up to `bound`; the oldest give way."""

    def __init__(self, bound: int) -> None:
        self.table: Dict[FlowKey, _Before] = {}
        self.bytes = 0
        self._bound = bound

    def limit(self, bound: int) -> None:
        self._bound = bound
        while self.bytes > bound:
            self._take(next(iter(self.table)))

    def _remember(self, key: FlowKey, before: _Before) -> None:
        self._take(key)
        self.table[key] = before
        self.bytes += _cost(key, before)
        self.limit(self._bound)

    def _take(self, key: FlowKey) -> Optional[_Before]:
        before = self.table.pop(key, None)
        if before is not None:
            self.bytes -= _cost(key, before)
        return before

    def knows(self, key: FlowKey) -> bool:
        """Whether something is remembered of these addresses. O(1)."""
        return bool(self.table) and (key in self.table or reverse_key(key) in self.table)

    def opens(self, segment: Segment, timestamp: float) -> bool:
        """Whether the segment opens a connection at once."""
        flags = segment.flags
        if not flags & SYN:
            return segment.length > 0 and not flags & RST
        if segment.checksum_ok() is False:
            self._remember(segment.key, _Before("bad_checksum", segment.seq, timestamp))
        elif flags & (RST | FIN):
            self._remember(segment.key, _Before("bad_flags", segment.seq, timestamp, None, {"flags": flags}))
        elif flags & ACK:
            segment = copy(segment)  # as who gave it may use it again
            start = segment.tcp_start  # its checksum is known to hold: no more than the header is needed
            segment.frame, segment.tcp_start = segment.frame[start : start + 60], 0
            segment.tcp_end -= start
            self._remember(segment.key, _Before("", segment.seq, timestamp, segment, {}, self._other(segment)))
        else:
            return True
        return False

    def _other(self, segment: Segment) -> Optional[_Before]:
        before = self.table.get(segment.key)
        if before is None or before.segment is None:
            return None
        return before.other if before.seq == segment.seq else _Before("", before.seq, before.timestamp)

    def released_by(self, segment: Segment) -> Optional[Tuple[Segment, float]]:
        """The SYN/ACK that opens the connection to which `segment` belongs, if one waited for it."""
        if not self.table:
            return None
        flags = segment.flags
        for key in (segment.key, reverse_key(segment.key)):
            before = self.table.get(key)
            if before is None or before.segment is None:
                continue
            if flags & RST or (key == segment.key and flags & SYN):
                if not flags & ACK or key != segment.key:  # refused, or a SYN from the side that seemed the server
                    wrong = _Before("synack_wrong_direction", before.seq, before.timestamp)
                    self._remember(key, wrong)
                return None
            self._take(key)
            if before.other is not None:
                self._remember(key, before.other)
            return before.segment, before.timestamp
        return None

    def evidence(self, half: HalfStream, key: FlowKey) -> None:
        """Tell the connection that `key` opened of what came before."""
        before = self._take(key)
        if before is not None and before.kind:
            half.anomaly(before.kind, 0, before.timestamp, **before.detail)
        if before is not None and before.kind in ("", "bad_checksum"):
            half.isns = array("I", (before.seq,))

    def clear(self) -> None:
        self.table.clear()
        self.bytes = 0


def _cost(key: FlowKey, before: _Before) -> int:
    return OPENING_BYTES + key_cost(key) + (len(before.segment.payload) if before.segment else 0)
