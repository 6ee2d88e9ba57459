"""PPP (RFC 1661, RFC 1662), Cisco HDLC, PPPoE (RFC 2516) and MPLS (RFC 3032)."""

from __future__ import annotations

from ..checksum import word_sum
from ..errors import DecodeError
from .network import ethernet, ip, ipv4, ipv6, tagged
from .walk import ETHERTYPES, LINKS, PROTOCOLS, At, Walk, register

_MAX_LABELS = 64


@register(LINKS, 9, 50)
def ppp(walk: Walk, at: At) -> None:
    """With or without the address and control bytes; the protocol field may be compressed to one byte."""
    if at.byte() in (0x0F, 0x8F) and at.byte(1) == 0:
        cisco_hdlc(walk, at)  # link type 50 holds either
        return
    if at.byte() == 0xFF and at.byte(1) == 0x03:
        at.pos += 2
    _ppp_protocol(walk, at)


def _ppp_protocol(walk: Walk, at: At) -> None:
    number = at.byte()
    if number & 1:
        at.pos += 1
    else:
        number = at.u16()
        at.pos += 2
    if number == 0x21:
        ipv4(walk, at)
    elif number == 0x57:
        ipv6(walk, at)
    elif number in (0x281, 0x283):
        mpls(walk, at)
    elif number == 0x31 and at.byte(1) == 1:  # bridging (RFC 3518): Ethernet behind flags, a LAN id if they say so
        at.pos += 6 if at.byte() & 0x40 else 2
        walk.enter(at, "")
        ethernet(walk, at)
    elif number == 0x3D:
        _multilink(walk, at)
    else:
        raise DecodeError("not_ip")


def _multilink(walk: Walk, at: At) -> None:
    """RFC 1990, long sequence numbers: packets in one piece only; pieces of several links are not put together."""
    if at.byte() & 0xC0 != 0xC0:
        raise DecodeError("ppp_multilink")
    at.pos += 4
    walk.enter(at, "")
    _ppp_protocol(walk, at)


@register(LINKS, 104)
def cisco_hdlc(walk: Walk, at: At) -> None:
    """Address, control, an Ethernet type."""
    kind = at.u16(2)
    at.skip(4)
    tagged(walk, at, kind)


@register(LINKS, 51)
@register(ETHERTYPES, 0x8864)
def pppoe(walk: Walk, at: At) -> None:
    """RFC 2516, the session stage: version and type 1, code 0."""
    pos = at.need(6)
    if at.data[pos] != 0x11 or at.data[pos + 1]:
        raise DecodeError("not_ip")
    session, length = at.u16(2), at.u16(4)
    at.pos = pos + 6
    if length:
        at.clip(at.pos + length)
    walk.enter(at, "pppoe", session)
    _ppp_protocol(walk, at)


@register(ETHERTYPES, 0x8847, 0x8848)
@register(PROTOCOLS, 137)
def mpls(walk: Walk, at: At) -> None:
    """The label stack does not say what it carries; the first nibble does, as routers read it (RFC 4928)."""
    for _ in range(_MAX_LABELS):
        label = at.u32()
        at.pos += 4
        if label & 0x100:
            break
    else:
        raise DecodeError("too_deep")
    walk.enter(at, "")  # labels differ by direction, so that they never name a connection
    version = at.byte() >> 4
    if version == 0 and at.limit - at.pos >= 18 and (at.u16(16) in ETHERTYPES or at.u16(12) not in ETHERTYPES):
        at.pos += 4  # the control word of a pseudowire (RFC 4385, RFC 4448); MAC addresses begin with a 0 too
        ethernet(walk, at)
    elif version in (4, 6) and not (at.limit - at.pos >= 14 and _looks_like_ethernet(at)):
        ip(walk, at)
    else:
        ethernet(walk, at)


def _looks_like_ethernet(at: At) -> bool:
    """A MAC address may begin with a 4 or a 6 too; an IPv4 header then has a total length that cannot be, and a wrong
    checksum. With a right one only a snap length cut the datagram, and its source begins as an Ethernet type does."""
    kind = at.u16(12)
    if kind not in ETHERTYPES:
        return False
    version, size, body = at.byte() >> 4, 4 * (at.byte() & 15), at.limit - at.pos
    if version == 4 and 20 <= size <= body and word_sum(at.data[at.pos : at.pos + size]) % 0xFFFF == 0:
        return False
    length = at.u16(2) if version == 4 else at.u16(4) + 40
    return length > body or (version == 4 and size < 20)
