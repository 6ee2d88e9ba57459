"""Where the headers of plain TCP lie in an Ethernet frame, with IPv4 or IPv6, behind a VLAN tag or not.

A layout is a tuple, since it is taken apart for every packet: a function that reads the headers of a frame; the first
two things that it must find, which are the bytes from the EtherType to the IP version; the end of a TCP header without
options; what of the IP length is not TCP data then. The headers: those two; the IP length; what tells one path from
another (IPv4: fragment word, TTL, protocol; IPv6: next header, hop limit); addresses and ports; sequence and
acknowledgement number; offset and flags; window.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Callable, Optional, Tuple

from .uncut import PYPY

Layout = Tuple[Callable[[Any, int], Tuple[Any, ...]], int, Any, int, int]

_IPV4 = "xH2xI2x12sIIHH4x"
_IPV6 = "3xHH36sIIHH4x"
_READ4 = Struct("!12xBH" + _IPV4).unpack_from
_READ6 = Struct("!12xBH" + _IPV6).unpack_from
_READ_TAGGED4 = Struct("!12xB6s" + _IPV4).unpack_from
_READ_TAGGED6 = Struct("!12xB6s" + _IPV6).unpack_from

# On PyPy, where a frame is bytes or `Uncut`: one function for each, since what it calls is a constant then.


def _read4(frame: Any, at: int) -> Tuple[Any, ...]:
    return _READ4(frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 54].tobytes(), 0)


def _read6(frame: Any, at: int) -> Tuple[Any, ...]:
    return _READ6(frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 74].tobytes(), 0)


def _read_tagged4(frame: Any, at: int) -> Tuple[Any, ...]:
    return _READ_TAGGED4(frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 58].tobytes(), 0)


def _read_tagged6(frame: Any, at: int) -> Tuple[Any, ...]:
    return _READ_TAGGED6(frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 78].tobytes(), 0)


_HEADERS4, _HEADERS6 = (_read4, _read6) if PYPY else (_READ4, _READ6)
_TAGGED4, _TAGGED6 = (_read_tagged4, _read_tagged6) if PYPY else (_READ_TAGGED4, _READ_TAGGED6)

# IPv4 without options.
USUAL: Layout = (_HEADERS4, 8, 0x45, 54, 40)


def layout_of(buffer: Any, at: int, limit: int) -> Optional[Layout]:
    """The layout of the frame `buffer[at:limit]`, if it is one of these and long enough for its headers."""
    head = buffer[at + 12 : at + 19]
    tag = 4 if head[:2] == b"\x81\x00" else 0
    start = head[tag : tag + 3]
    if start == b"\x08\x00\x45":
        layout = (_TAGGED4, 0x81, head[1:], 58, 40) if tag else USUAL
    elif start[:2] == b"\x86\xdd" and start[2:] and start[2] >> 4 == 6:
        layout = (_TAGGED6, 0x81, head[1:], 78, 20) if tag else (_HEADERS6, 0x86, 0xDD00 | start[2], 74, 20)
    else:
        return None
    return layout if limit - at >= layout[3] else None
