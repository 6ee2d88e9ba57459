"""TCP options (RFC 9293 3.1): their values by kind, and what matters of a SYN's.

Systems lay the options of their SYNs out in one way each, in which only the timestamps differ. A SYN whose other bytes
are those of the last one of its size says what that one said, for a third of what it costs to read them one by one.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

OPTION_MSS, OPTION_WINDOW_SCALE, OPTION_SACK_PERMITTED, OPTION_TIMESTAMPS = 2, 3, 4, 8
OPTION_MD5, OPTION_FAST_OPEN = 19, 34
LARGEST_SHIFT = 14  # of a window (RFC 7323 2.3)
TIMESTAMP_LAYOUT = b"\x01\x01\x08\x0a"  # how options begin that are timestamps and nothing else (RFC 7323 appendix A)

SynOptions = Tuple[int, int, bool]  # window scale and timestamp, each -1 for none, and whether SACK is permitted
NO_OPTIONS: SynOptions = (-1, -1, False)


class SynLayout(NamedTuple):
    """The options of a SYN, but for eight bytes of timestamps behind `head`."""

    head: bytes
    tail: bytes
    stamp: int  # where it lies; behind everything if there is none
    told: Optional[SynOptions]  # without the timestamp; None if the segment is signed (RFC 2385)


_layouts: Dict[int, SynLayout] = {}  # by size, the last one: at most eleven


def option_places(options: bytes) -> Dict[int, Tuple[int, int]]:
    """Where the values of TCP options lie, by kind, the first of each; damaged ones end the search. O(n)."""
    position, size = 0, len(options)
    found: Dict[int, Tuple[int, int]] = {}
    while position < size:
        kind = options[position]
        if kind == 1:
            position += 1
            continue
        if kind == 0 or position + 1 >= size:
            break
        length = options[position + 1]
        if length < 2 or position + length > size:
            break
        if kind not in found:
            found[kind] = position + 2, position + length
        position += length
    return found


def parse_options(options: bytes) -> Dict[int, bytes]:
    """The values of TCP options by kind, as `option_places` finds them. O(n)."""
    return {kind: options[start:end] for kind, (start, end) in option_places(options).items()}


def shift_of(value: bytes) -> int:
    """What a window scale option says, at most `LARGEST_SHIFT`; -1 where its length is wrong, as without one."""
    return min(value[0], LARGEST_SHIFT) if len(value) == 1 else -1


def syn_options(options: bytes) -> Optional[SynOptions]:
    """What matters of a SYN's options; None if it is signed. O(n)."""
    layout = _layouts.get(len(options))
    if layout is None:
        layout = _laid_out(options)
    head, tail, at, told = layout
    if options[:at] != head or options[at + 8 :] != tail:
        head, tail, at, told = _laid_out(options)
    if told is None or at == len(options):
        return told
    return told[0], int.from_bytes(options[at : at + 4], "big"), told[2]


def _laid_out(options: bytes) -> SynLayout:
    places = option_places(options)
    at, end = places.get(OPTION_TIMESTAMPS, (0, 0))
    if end - at != 8:
        at = len(options)
    start, end = places.get(OPTION_WINDOW_SCALE, (0, 0))
    scale = shift_of(options[start:end])
    told = None if OPTION_MD5 in places else (scale, -1, OPTION_SACK_PERMITTED in places)
    layout = _layouts[len(options)] = SynLayout(options[:at], options[at + 8 :], at, told)
    return layout
