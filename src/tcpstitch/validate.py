"""Which segments an endpoint would accept (RFC 9293 3.10.7.4, RFC 5961, RFC 7323), for `checks="strict"`.

Only for captures that hold both directions: what the other side said decides.
"""

from __future__ import annotations

from typing import Any, Optional

from .segment import ACK, OPTION_MD5, RST, SYN, Segment
from .sequence import difference

PAWS_SLACK = 1  # ticks; Linux accepts a value one tick older than the most recent


def refusal(half: Any, segment: Segment) -> Optional[str]:
    """Why the receiver of `half` would not process this segment, as the name of the anomaly; None if it would.

    Handshake segments are judged by the handshake. O(1).
    """
    flags = segment.flags
    if segment.options and not half.sends_md5 and segment.option(OPTION_MD5) is not None:
        return "unexpected_md5"
    if flags & (SYN | RST) or not half.known or half.holding:
        return None
    stamps = segment.timestamps
    if stamps is not None and half.ts_recent >= 0 and difference(half.ts_recent, stamps[0]) < -PAWS_SLACK:
        return "paws_old_timestamp"  # RFC 7323 5.3 R1
    return _outside_window(half, segment) or _wrong_ack(half, segment)


def _outside_window(half: Any, segment: Segment) -> Optional[str]:
    """RFC 9293 3.10.7.4, first check; old data goes on, so that its retransmission is counted."""
    window = half.peer.window
    if window < 0:
        return None
    start = half.offset_of(segment.seq)
    if start + segment.length <= half.next_offset:
        return None
    if window == 0 and segment.length and start >= half.next_offset:
        return "zero_window_probe" if segment.length == 1 else "out_of_window"
    if start <= half.next_offset or start < max(half.next_offset, half.acked) + window:
        return None
    return "out_of_window" if segment.length else "fin_out_of_window"


def _wrong_ack(half: Any, segment: Segment) -> Optional[str]:
    """RFC 9293 3.10.7.4, fifth check, with the lower bound of RFC 5961 5.2."""
    if not segment.flags & ACK:
        return "no_ack_flag"
    peer = half.peer
    if not peer.known:
        return None
    offset = peer.offset_of(segment.ack)
    highest = peer.max_offset + (peer.fin_offset is not None)
    return None if peer.acked - max(half.max_window, 65535) <= offset <= highest else "bad_ack"
