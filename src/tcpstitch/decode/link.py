"""Link types by their number in the registry of tcpdump.org."""

from __future__ import annotations

import struct

from ..errors import DecodeError
from .network import ethernet, ip, ipv4, ipv6, llc, tagged
from .walk import LINKS, At, Walk, register

LINKS[1] = ethernet
for _number in (12, 14, 101, 228, 229):  # raw IP; 12 and 14 are DLT_RAW as some BSDs wrote it
    LINKS[_number] = ip

_IPV6_FAMILIES = (10, 24, 26, 28, 30)  # Linux, NetBSD and OpenBSD, Solaris, FreeBSD, macOS


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


def _cooked(walk: Walk, at: At, kind: int) -> None:
    if kind == 4:
        llc(walk, at)
    elif kind <= 1500:
        raise DecodeError("not_ip")
    else:
        tagged(walk, at, kind)


@register(LINKS, 113)
def cooked(walk: Walk, at: At) -> None:
    kind = at.u16(14)
    at.pos += 16
    _cooked(walk, at, kind)


@register(LINKS, 276)
def cooked2(walk: Walk, at: At) -> None:
    kind = at.u16()
    at.need(20)
    at.pos += 20
    _cooked(walk, at, kind)
