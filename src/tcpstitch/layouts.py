"""Where the headers of plain TCP lie in an Ethernet frame, with IPv4 or IPv6, behind a VLAN tag or not.

A layout is a tuple, since it is taken apart where it changes: three functions that read a frame; the mark, which is the
bytes from the EtherType to the IP version; the end of a TCP header without options; what of the IP length is not TCP
data then.

The first function reads all headers of a frame: the mark; the IP length; what tells one path from another (the line:
for IPv4 fragment word, TTL, protocol; for IPv6 next header, hop limit); addresses and ports; sequence and
acknowledgement number; offset and flags; window. The other two are for frames in a file: one reads what goes before
them and the mark, the other what is left. Before a frame go seconds, fraction and length (a record of a pcap file), or
the first six numbers of an enhanced packet block of pcapng.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any, Callable, Optional, Tuple

from .uncut import PYPY

Read = Callable[[Any, int], Tuple[Any, ...]]
Layout = Tuple[Read, Any, Any, Any, int, int]
# How frames come: by themselves, or in a file of this byte order, as records or as enhanced packet blocks.
Mode = Tuple[str, int]
RECORDS, PCAPNG = range(2)
ALONE: Mode = ("", RECORDS)
ENHANCED = 6  # the type of such a block

# On PyPy, where a frame is bytes or `Uncut`: one function for each, since what it calls is a constant then. A mark of
# three bytes is a number there, which needs no object.
_IPV4 = "H2xI2x12sIIHH4x"
_IPV6 = "2xHH36sIIHH4x"
_READ4 = Struct("!12xI" + _IPV4).unpack_from
_READ6 = Struct("!12xI" + _IPV6).unpack_from
_READ_TAGGED4 = Struct("!12x7sx" + _IPV4).unpack_from
_READ_TAGGED6 = Struct("!12x7sx" + _IPV6).unpack_from


def _read4(frame: Any, at: int) -> Tuple[Any, ...]:
    frame = frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 54].tobytes()
    first, total, line, key, seq, ack, word, window = _READ4(frame, 0)
    return first >> 8, total, line, key, seq, ack, word, window


def _read6(frame: Any, at: int) -> Tuple[Any, ...]:
    frame = frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 74].tobytes()
    first, total, line, key, seq, ack, word, window = _READ6(frame, 0)
    return first >> 8, total, line, key, seq, ack, word, window


def _read_tagged4(frame: Any, at: int) -> Tuple[Any, ...]:
    return _READ_TAGGED4(frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 58].tobytes(), 0)


def _read_tagged6(frame: Any, at: int) -> Tuple[Any, ...]:
    return _READ_TAGGED6(frame if type(frame) is bytes else frame.memory[frame.start : frame.start + 78].tobytes(), 0)


_PYPY_READS = {(4, 3): _read4, (6, 3): _read6, (4, 7): _read_tagged4, (6, 7): _read_tagged6}


@lru_cache(None)
def _reads(mode: Mode, version: int, size: int) -> Tuple[Read, Any, Any]:
    """For frames with marks of `size` bytes."""
    order, kind = mode
    fields = _IPV4 if version == 4 else _IPV6
    headers = _PYPY_READS[version, size] if PYPY else Struct(f"!12x{size}sx{fields}").unpack_from
    if not order:
        return headers, None, None
    head = "III" if kind != PCAPNG else "IIIIII"
    front = Struct(f"{order}{head}16x{size}s").unpack_from
    return headers, front, Struct(f"!{12 + size}xx{fields}").unpack_from


def _mark(found: bytes) -> Any:
    return int.from_bytes(found, "big") if PYPY and len(found) == 3 else found


@lru_cache(None)
def usual(mode: Mode) -> Layout:
    """The layout of IPv4 without options."""
    return (*_reads(mode, 4, 3), _mark(b"\x08\x00\x45"), 54, 40)


def layout_of(buffer: Any, at: int, limit: int, mode: Mode) -> Optional[Layout]:
    """The layout of the frame `buffer[at:limit]`, if it is one of these and long enough for its headers."""
    found = buffer[at + 12 : at + 19]
    tag = 4 if found[:2] == b"\x81\x00" else 0
    found = found[: tag + 3]
    start = found[tag:]
    layout: Layout
    if start == b"\x08\x00\x45":
        layout = (*_reads(mode, 4, 7), found, 58, 40) if tag else usual(mode)
    elif start[:2] == b"\x86\xdd" and start[2:] and start[2] >> 4 == 6:
        layout = (*_reads(mode, 6, 3 + tag), _mark(found), 74 + tag, 20)
    else:
        return None
    return layout if limit - at >= layout[4] else None
