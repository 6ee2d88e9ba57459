"""Link types by their number in the registry of tcpdump.org."""

from __future__ import annotations

import struct
from typing import Any, Optional

from ..errors import DecodeError
from .network import ethernet, ip, ipv4, ipv6, llc, tagged
from .walk import LINKS, MAX_FIELDS, At, Walk, register

IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"  # as EtherTypes

LINKS[1] = ethernet
RAW = frozenset((12, 14, 101, 228, 229))  # raw IP; 12 and 14 are DLT_RAW as some BSDs wrote it
for _number in RAW:
    LINKS[_number] = ip

_IPV6_FAMILIES = (10, 24, 26, 28, 30)  # Linux, NetBSD and OpenBSD, Solaris, FreeBSD, macOS

_WHOLE = {770: 107, 801: 105, 802: 119, 803: 127}  # ARPHRD_FRAD, _IEEE80211, with Prism, with radiotap


@register(LINKS, 0, 108)
def loopback(walk: Walk, at: At) -> None:
    """Address family in the byte order of the capturing host (NULL) or of the network (LOOP)."""
    family = at.u32()
    if family > 0xFFFF:
        family = struct.unpack_from("<I", at.data, at.pos)[0]
    at.pos += 4
    if family == 2:
        ipv4(walk, at)
    elif family in _IPV6_FAMILIES:
        ipv6(walk, at)
    else:
        raise DecodeError("not_ip")


def _cooked(walk: Walk, at: At, hardware: int, kind: int) -> None:
    if hardware in _WHOLE:
        # The frame is there whole, and the protocol means nothing.
        walk.enter(at, "")
        walk.link(_WHOLE[hardware], at)
    elif kind == 4:
        llc(walk, at)
    elif kind <= 1500:
        raise DecodeError("not_ip")
    else:
        tagged(walk, at, kind)


@register(LINKS, 113)
def cooked(walk: Walk, at: At) -> None:
    """Linux cooked capture: direction, hardware type, address, protocol."""
    hardware, kind = at.u16(2), at.u16(14)
    at.skip(16)
    _cooked(walk, at, hardware, kind)


@register(LINKS, 276)
def cooked2(walk: Walk, at: At) -> None:
    """Its second version: protocol, interface, hardware type, direction, address."""
    kind, hardware = at.u16(), at.u16(8)
    at.skip(20)
    _cooked(walk, at, hardware, kind)


@register(LINKS, 239)
def netfilter_log(walk: Walk, at: At) -> None:
    """NFLOG: a list of attributes in the byte order of the capturing host, one of which is the packet."""
    pos, data, limit = at.need(4) + 4, at.data, at.limit
    if data[pos - 3]:
        raise DecodeError("not_ip")  # a version that is not known
    # Attributes are short but for the packet, so that the wrong byte order shows in the first length.
    read = struct.Struct("<HH" if pos < limit and data[pos] else "!HH").unpack_from
    for _ in range(MAX_FIELDS):
        if limit - pos < 4:
            break
        size, kind = read(data, pos)
        if size < 4:
            break
        if kind & 0x7FFF == 9:
            at.pos, at.end = pos + 4, pos + size  # the packet, or what the log's rule lets be copied of it
            at.limit = min(limit, at.end)
            ip(walk, at)
            return
        pos += (size + 3) & ~3
    raise DecodeError("not_ip")


@register(LINKS, 242)
def infiniband(walk: Walk, at: At) -> None:
    """IP over InfiniBand (RFC 4391) behind a global routing header of 40 bytes."""
    kind = at.u16(40)
    at.skip(44)
    walk.ethertype(kind, at)


@register(LINKS, 117)
def packet_filter_log(walk: Walk, at: At) -> None:
    """pflog: the header names its length, without the padding to four bytes, in its first byte."""
    size = (at.byte() + 3) & ~3
    if size < 8:
        raise DecodeError("not_ip")
    at.skip(size)
    ip(walk, at)


_NOWHERE = bytes(12)
_FRONTS = {bytes((0x40 | low,)): _NOWHERE + IPV4 for low in range(16)}
_FRONTS.update({bytes((0x60 | low,)): _NOWHERE + IPV6 for low in range(16)})


def as_ethernet(packet: Any) -> Optional[bytes]:
    """A packet with a `linktype` whose header is followed by ordinary IP, as an Ethernet frame between no addresses.

    The decoder reads the same from it, as code that knows only Ethernet can. None for all others. One copy.
    """
    if not isinstance(packet, bytes):
        return None
    linktype = getattr(packet, "linktype", None)
    if linktype == 113:
        plain = packet[14:16] in (IPV4, IPV6) and int.from_bytes(packet[2:4], "big") not in _WHOLE
        return packet[2:] if plain else None
    if linktype == 276:
        plain = packet[:2] in (IPV4, IPV6) and int.from_bytes(packet[8:10], "big") not in _WHOLE
        return _NOWHERE + packet[:2] + packet[20:] if plain else None
    if linktype == 0 and packet[:4] in (b"\2\0\0\0", b"\0\0\0\2"):
        return _NOWHERE + IPV4 + packet[4:]
    if linktype in RAW:
        front = _FRONTS.get(packet[:1])
        if front is not None:
            return front + packet
    return None
