"""IEEE 802.11 data frames, with or without the headers that capturing drivers put in front."""

from __future__ import annotations

from ..errors import DecodeError
from .network import llc
from .walk import LINKS, LITTLE16, LITTLE32, MAX_FIELDS, U16, At, Walk, register


@register(LINKS, 105)
def ieee80211(walk: Walk, at: At) -> None:
    """IEEE 802.11, a bare frame."""
    _data_frame(walk, at, False)


def swapped80211(walk: Walk, at: At) -> None:
    """With the two bytes of its frame control in the wrong order, as some controllers send it."""
    _data_frame(walk, at, False, True)


def _data_frame(walk: Walk, at: At, padded: bool, swapped: bool = False) -> None:
    pos, data = at.need(24), at.data
    control, flags = (data[pos + 1], data[pos]) if swapped else (data[pos], data[pos + 1])
    # Of version 0 type 2 is data; subtypes with bit 2 set carry none.
    if control & 0x4F != 0x08:
        raise DecodeError("not_ip")
    if flags & 0x40:
        raise DecodeError("encrypted")
    if flags & 0x04 or data[pos + 22] & 0x0F:
        raise DecodeError("wireless_fragment")
    size = 30 if flags & 3 == 3 else 24
    aggregate = False
    if control & 0x80:
        at.need(size + 2)
        aggregate = bool(data[pos + size] & 0x80)
        size += 6 if flags & 0x80 else 2  # the order bit announces an HT control field
    if padded:
        size = (size + 3) & ~3
    at.pos = pos + size
    at.need(8)
    if aggregate:
        _aggregate(walk, at)
    else:
        llc(walk, at)


def _aggregate(walk: Walk, at: At) -> None:
    """An A-MSDU: several frames, each with addresses, length and padding to four bytes."""
    walk.enter(at, "")
    pos = at.need(14)
    while at.limit - pos >= 14:
        part = At(at.data, pos + 14, at.limit, at.depth, at.context)
        part.end, part.declared = at.end, at.declared
        length = U16(at.data, pos + 12)[0]
        part.clip(part.pos + length)
        walk.attempt(llc, part)
        pos = ((pos + 14 + length - at.pos + 3) & ~3) + at.pos


@register(LINKS, 127)
def radiotap(walk: Walk, at: At) -> None:
    """radiotap.org: little-endian fields, of which the flags tell about padding and the frame check."""
    pos, data = at.need(8), at.data
    length = LITTLE16(data, pos + 2)[0]
    if data[pos] or length < 8:
        raise DecodeError("not_ip")
    at.need(length)
    flags = _radiotap_flags(data, pos, pos + length)
    at.pos = pos + length
    # A check sequence at the end (0x10) is behind the end of IP, and not there where a snap length cut the frame.
    if flags & 0x40:
        raise DecodeError("bad_frame_check")
    _data_frame(walk, at, bool(flags & 0x20))


def _radiotap_flags(data: bytes, start: int, end: int) -> int:
    """The flags field, if present: it lies behind the chain of presence words and the 64-bit time."""
    present = LITTLE32(data, start + 4)[0]
    pos, word = start + 8, present
    for _ in range(MAX_FIELDS):
        if not word & 0x80000000 or pos + 4 > end:
            break
        word = LITTLE32(data, pos)[0]
        pos += 4
    if not present & 2:
        return 0
    if present & 1:
        pos = ((pos - start + 7) & ~7) + start + 8
    return data[pos] if pos < end else 0


@register(LINKS, 192)
def per_packet_information(walk: Walk, at: At) -> None:
    """PPI: a header of its own length and the link type of what follows."""
    pos = at.need(8)
    length, linktype = LITTLE16(at.data, pos + 2)[0], LITTLE32(at.data, pos + 4)[0]
    at.skip(length)
    walk.enter(at, "")
    if length < 8:
        raise DecodeError("not_ip")
    walk.link(linktype, at)


@register(LINKS, 119, 163)
def monitor_header(walk: Walk, at: At) -> None:
    """Prism (119, may hold the other one too) and AVS (163) headers, told apart by the AVS version cookie."""
    size = at.u32(4) if at.u32() & 0xFFFFF000 == 0x80211000 else 144
    at.skip(size)
    _data_frame(walk, at, False)
