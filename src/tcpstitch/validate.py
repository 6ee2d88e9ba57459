"""What headers tell beside sequence numbers, and what an endpoint would accept (`checks="strict"`).

Sources: RFC 9293 3.10.7.4, RFC 5961, RFC 7323.

Strict checks are for captures that hold both directions: what the other side said decides.
"""

from __future__ import annotations

from array import array
from copy import copy
from typing import Dict, Optional, Tuple

from .half import HalfStream
from .options import (
    LARGEST_SHIFT,
    OPTION_MD5,
    OPTION_SACK_PERMITTED,
    OPTION_TIMESTAMPS,
    OPTION_WINDOW_SCALE,
    TIMESTAMP_LAYOUT,
    parse_options,
    shift_of,
)
from .segment import ACK, CONTROL, FIN, RST, SYN, SYN_ACK, URG, Segment, options_cut
from .sequence import MASK, NEVER, difference
from .sequencing import NEAR

MAX_URGENT = 16  # received, but not acknowledged
TTL_MARGIN = 3  # a control segment whose TTL is this far below the direction's may not reach the receiver
VERIFY_BYTES = 64  # data up to this length has its checksum verified: decoys are short, and a short sum costs little
# Ticks (1 ms in most stacks): the receiver allows 1, but a tap before it sees another order than it does.
PAWS_SLACK = 1000
OLD_TIMESTAMP = 100_000  # what is older by more was not merely overtaken, or lost and sent again


def refusal(half: HalfStream, segment: Segment) -> Optional[str]:
    """Why the receiver of `half` would not process this segment, as the name of the anomaly; None if it would.

    Handshake segments are judged by the handshake. O(1).
    """
    flags = segment.flags
    if segment.options and not half.sends_md5 and segment.option(OPTION_MD5) is not None:
        return "unexpected_md5"
    peer = half.peer
    answers = half is peer.state.server and peer.syn_seen
    if flags & SYN_ACK == SYN_ACK and answers and half.state.embryonic:
        return None if _acknowledges_syn(peer, segment.ack) else "bad_ack"
    if flags & (SYN | RST):
        return None
    if answers and not half.known and peer.last_ack < 0 and segment.length:
        return "data_before_handshake"  # RFC 9293 3.10.7.3: the client waits for a SYN
    if half.state.denied is not None and half.syn_seen and not peer.known and peer.last_ack < 0:
        return "data_before_handshake" if segment.length or flags & FIN else None
    if not half.known or half.holding:
        return None if flags & ACK else "no_ack_flag"
    stamps = segment.timestamps
    if stamps is not None and half.ts_recent >= 0 and difference(half.ts_recent, stamps[0]) < -PAWS_SLACK:
        return "paws_old_timestamp"  # RFC 7323 5.3 R1
    if half.stopped and half.peer.stopped:
        return None  # nobody counted what came before
    return _outside_window(half, segment) or _wrong_ack(half, segment)


def _acknowledges_syn(half: HalfStream, ack: int) -> bool:
    """RFC 9293 3.10.7.3, first check: of a SYN, or of its data as well."""
    return 0 <= half.offset_of(ack) <= half.highest_sent or (ack - 1) & MASK in half.isns


def refusal_detail(reason: str, half: HalfStream, segment: Segment) -> Dict[str, int]:
    """What the anomaly of that name says besides."""
    if reason == "bad_ack":
        return {"ack": segment.ack}
    if reason == "paws_old_timestamp" and segment.timestamps is not None:
        return {"value": segment.timestamps[0], "recent": half.ts_recent}
    return {}


def _outside_window(half: HalfStream, segment: Segment) -> Optional[str]:
    """RFC 9293 3.10.7.4, first check; old data goes on, so that its retransmission is counted. Of what reaches beyond
    the window hosts take all, a part, or, as Linux 6.18 while its application has not read, nothing."""
    window = half.peer.window
    if window < 0:
        return None
    start = half.offset_of(segment.seq)
    fin = segment.flags & FIN
    if start + segment.length + bool(fin and segment.length) <= half.next_offset:
        return None
    if window == 0 and segment.length == 1 and start == half.next_offset >= half.acked:
        return "zero_window_probe"
    if start + segment.length + bool(fin) <= room_end(half):  # where it is empty, its sender may have filled the window
        return None
    return "fin_out_of_window" if fin and not segment.length else "out_of_window"


def room_end(half: HalfStream) -> int:
    """The offset up to which the receiver has room, by the largest window that it is known to have announced."""
    end: int = max(half.next_offset + half.peer.window, half.peer.window_edge)
    return end


def _wrong_ack(half: HalfStream, segment: Segment) -> Optional[str]:
    """RFC 9293 3.10.7.4, fifth check, with the lower bound of RFC 5961 5.2."""
    if not segment.flags & ACK:
        return "no_ack_flag"
    peer = half.peer
    if not peer.known or peer.isns and not peer.started and (segment.ack - 1) & MASK in peer.isns:
        return None  # the latter says which of several SYNs of the peer counts
    offset = peer.offset_of(segment.ack)
    highest = peer.highest_sent
    if peer.fin_offset is not None:
        highest = max(highest, peer.max_offset + 1, peer.fin_offset + 1)
    lowest = peer.acked - max(half.max_window, NEAR)
    if peer.syn_seen and lowest < 0:  # what was never sent cannot be acknowledged; a client's SYN was
        lowest = 0 if peer is peer.state.server else -1
    return None if lowest <= offset <= highest else "bad_ack"


def note_header(half: HalfStream, segment: Segment, timestamp: float) -> None:
    """What the header says beside the sequence numbers: TTL, window, options, odd flags."""
    flags = segment.flags
    if half.ttl == 0:
        half.ttl = segment.ttl
    elif abs(segment.ttl - half.ttl) >= TTL_MARGIN:
        _note_ttl(half, segment, timestamp)
    if flags & SYN and half.syn_seen and (not half.state.embryonic or (segment.seq + 1) & MASK == half.base_seq):
        _note_odd_flags(half, segment, timestamp)
        return  # a SYN on an open connection changes nothing (RFC 5961 4), neither do its options; nor does a copy
    options = segment.options
    stamps = None
    if options:
        if len(options) == 12 and options[:4] == TIMESTAMP_LAYOUT and not flags & SYN:
            stamps = int.from_bytes(options[4:8], "big")
        else:
            stamps = _note_options(half, segment, timestamp)
    elif flags & SYN:
        _note_options(half, segment, timestamp)
    if not flags & RST:
        _note_window(half, segment)
    if flags & (URG | CONTROL) or not flags & ACK:
        _note_odd_flags(half, segment, timestamp)
    if stamps is not None:
        _note_timestamp(half, segment, stamps, timestamp)
    elif half.ts_recent >= 0 and segment.length and not flags & RST:
        half.anomaly("missing_timestamp", half.max_offset, timestamp)


def _note_ttl(half: HalfStream, segment: Segment, timestamp: float) -> None:
    """A TTL that jumped: one that is too low may not reach the receiver."""
    control = segment.flags & CONTROL
    if segment.ttl < half.ttl:
        if control or segment.length:
            half.anomaly("low_ttl", half.max_offset, timestamp, ttl=segment.ttl, usual=half.ttl)
        if control or half.state.host._strict:
            return
    elif segment.flags & SYN:  # then the SYN before it was the odd one
        half.anomaly("low_ttl", 0, timestamp, ttl=half.ttl, usual=segment.ttl)
    half.ttl = segment.ttl  # the path may have changed


def _note_options(half: HalfStream, segment: Segment, timestamp: float) -> Optional[int]:
    """What the options say, on SYNs above all; returns the value of the timestamp (RFC 7323 3.2), if there is one."""
    found = parse_options(segment.options)
    flags = segment.flags
    stamps = found.get(OPTION_TIMESTAMPS)
    if stamps is not None and len(stamps) != 8:
        stamps = None
    if flags & SYN:
        half.scale = shift_of(found.get(OPTION_WINDOW_SCALE, b""))
        if OPTION_WINDOW_SCALE not in found and options_cut(segment):
            half.scale = LARGEST_SHIFT  # as where the SYN was not captured at all
        if half.sends_md5 != (OPTION_MD5 in found) and (half.sends_md5 or half.syn_seen):
            half.anomaly("unexpected_md5", 0, timestamp)  # of this SYN, or of the one before it
        begins = not half.syn_seen and (half.peer.sends_md5 or not half.peer.syn_seen)
        half.sends_md5 = OPTION_MD5 in found and (half.sends_md5 or begins)
        half.max_window = segment.window
        half.shown = half.peer.shown = -1
        half.last_ack = NEVER  # the short steps are to look at the next ones
        if half.state.host._strict:
            half.sack = OPTION_SACK_PERMITTED in found
        if flags & ACK and stamps is None:
            half.peer.ts_recent = -1  # not negotiated (RFC 7323 3.2)
    elif OPTION_MD5 in found and not half.sends_md5:
        peer = half.peer
        if half.known or half.syn_seen or (peer.known or peer.syn_seen) and not peer.sends_md5:
            half.anomaly("unexpected_md5", half.max_offset, timestamp)
        else:
            half.sends_md5 = True  # the capture lacks its SYN
    return None if stamps is None else int.from_bytes(stamps[:4], "big")


def _note_odd_flags(half: HalfStream, segment: Segment, timestamp: float) -> None:
    flags = segment.flags
    if (flags & SYN and flags & (FIN | RST)) or flags & (RST | FIN) == RST | FIN:
        half.anomaly("bad_flags", half.max_offset, timestamp, flags=flags)
    if not flags & (ACK | SYN | RST):
        if segment.length or flags & FIN:
            half.anomaly("no_ack_flag", half.max_offset, timestamp)
    if flags & URG and not flags & (SYN | RST):
        half.anomaly("urgent_data", half.max_offset, timestamp, pointer=segment.urgent_pointer)


def note_urgent(half: HalfStream, segment: Segment) -> None:
    """The urgent pointer of an accepted segment, read as stacks do (RFC 6093 3.1): the byte before the one it points
    at, the first for 0; only forward, and only one waits at a time. A segment all of which was acknowledged before is
    not accepted (RFC 9293 3.10.7.4, first check)."""
    if half.state.host._urgent == "inline" or not half.known or half.holding:
        return
    start = half.offset_of(segment.seq)
    if start + segment.length < half.acked:
        return
    place = start + max(segment.urgent_pointer - 1, 0)
    if place >= half.next_offset and (not half.urgent or place > half.urgent[-1]):
        if len(half.urgent) == MAX_URGENT:
            half.hand_over()
        waiting = [passed for passed in half.urgent if half.handed <= passed < half.next_offset]
        half.urgent = array("q", [*waiting, place])


def _note_window(half: HalfStream, segment: Segment) -> None:
    if segment.flags & SYN:
        half.set_window(segment.window)
    else:
        half.note_window(segment.window)
    peer = half.peer
    if half.state.host._strict and segment.flags & ACK and peer.known:  # an ACK that was overtaken takes nothing back
        acked = peer.offset_of(segment.ack)
        if peer.may_be_acknowledged(acked):
            half.window_edge = max(half.window_edge, acked + half.window)


def _note_timestamp(half: HalfStream, segment: Segment, value: int, timestamp: float) -> None:
    if half.ts_recent < 0 and half.syn_seen and not segment.flags & SYN:
        return  # not negotiated (RFC 7323 3.2)
    if segment.flags & SYN:
        half.ts_recent = value  # its clock starts here; what came before was of another connection, or overtook it
        return
    strict = half.state.host._strict
    ahead = difference(half.ts_recent, value) if half.ts_recent >= 0 else 0
    if ahead < 0:
        # RFC 7323 5.3; an honest retransmission may carry an older value than what overtook it, an hour it does not
        if ahead < -OLD_TIMESTAMP and (not strict or segment.flags & RST):
            half.anomaly("paws_old_timestamp", half.max_offset, timestamp, value=value, recent=half.ts_recent)
        return
    # RFC 7323 4.3 (2), 5.3 R2: only a segment at the last ACK sent renews it, and none of an older connection; lenient
    # checks need no such care.
    start = half.offset_of(segment.seq)
    if not strict or half.ts_recent < 0 or start <= half.acked <= start + segment.length:
        half.ts_recent = value


def without_fin(segment: Segment) -> Segment:
    """The segment without its FIN: a copy, as who gave it may use it again."""
    if segment.flags & FIN:
        segment = copy(segment)
        segment.flags &= ~FIN
    return segment


def cut_at(segment: Segment, length: int) -> Tuple[Segment, Segment]:
    """The first `length` bytes of the segment, and the rest with its FIN; `length` is no more than it has."""
    head, tail = without_fin(copy(segment)), copy(segment)
    head.payload, head.length = segment.payload[:length], length
    tail.payload, tail.length = segment.payload[length:], segment.length - length
    tail.seq = (segment.seq + length) & MASK
    return head, tail


def checksum_allows(half: HalfStream, segment: Segment, timestamp: float) -> Optional[Segment]:
    """RFC 9293 3.1: what of a segment counts, or None. Strict checks look at each, lenient ones at those that matter
    most. A bad SYN, FIN or RST changes no state. With lenient checks bad data is refused only where the direction has
    shown good checksums, since an offloading host's are all wrong."""
    strict = half.state.host._strict
    if not (strict or segment.flags & CONTROL or 0 < segment.length <= VERIFY_BYTES):
        return segment
    verdict = segment.checksum_ok()
    if verdict is True:
        half.good_checksums = True
    if verdict is not False:
        return segment
    half.anomaly("bad_checksum", half.max_offset, timestamp)
    if segment.flags & SYN and not half.syn_seen and not half.isns:
        half.isns = array("I", (segment.seq,))
    if strict or half.good_checksums or segment.flags & (SYN | RST) or not segment.length:
        return None
    return without_fin(segment)
