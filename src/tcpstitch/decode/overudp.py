"""Packets inside UDP datagrams, known by their port."""

from __future__ import annotations

from ..errors import DecodeError
from .network import ethernet, ip, ipv6
from .ppp import mpls, ppp
from .tunnels import gre, next_protocol
from .walk import LINKS, MAX_FIELDS, PROTOCOLS, UDP_PORTS, At, Walk, register
from .wireless import ieee80211, swapped80211

# Tunnels whose both directions go to the port; from it comes an ordinary datagram of a program that got it by chance.
_TOWARDS_ONLY = frozenset((4341, 4754, 6080, 6635, 37008))


@register(PROTOCOLS, 17)
def udp(walk: Walk, at: At) -> None:
    """RFC 768. A port is taken for a tunnel's whatever host has it; a datagram of another program ends as `not_tcp`."""
    pos, ports = at.need(8), at.u32()
    source, destination, length = ports >> 16, ports & 0xFFFF, at.u16(4)
    handler = UDP_PORTS.get(destination)
    if handler is None and source not in _TOWARDS_ONLY:
        handler = UDP_PORTS.get(source)
    if handler is None:
        raise DecodeError("not_tcp")
    if 0 < length < 8:
        raise DecodeError("bad_header")
    if length:  # 0 is left by segmentation offload, and in jumbograms (RFC 2675 4)
        at.clip(pos + length)
    at.pos = pos + 8
    handler(walk, at)


@register(UDP_PORTS, 4789, 8472)
def vxlan(walk: Walk, at: At) -> None:
    """RFC 7348; 8472 is the port Linux took before there was one."""
    if not at.byte() & 0x08:
        raise DecodeError("not_tcp")
    network = at.u32(4) >> 8
    at.pos += 8
    walk.enter(at, "vxlan", network)
    ethernet(walk, at)


@register(UDP_PORTS, 4790)
def vxlan_gpe(walk: Walk, at: At) -> None:
    """draft-ietf-nvo3-vxlan-gpe: VXLAN with a next protocol."""
    flags, number, network = at.byte(), at.byte(3), at.u32(4) >> 8
    if not flags & 0x08:
        raise DecodeError("not_tcp")
    at.pos += 8
    walk.enter(at, "vxlan", network)
    next_protocol(walk, at, number if flags & 0x04 else 3)


@register(UDP_PORTS, 6081)
def geneve(walk: Walk, at: At) -> None:
    """RFC 8926."""
    first, kind, network = at.byte(), at.u16(2), at.u32(4) >> 8
    if first >> 6:
        raise DecodeError("not_tcp")
    at.pos += 8 + (first & 0x3F) * 4
    walk.enter(at, "geneve", network)
    if kind == 0x6558:
        ethernet(walk, at)
    else:
        walk.ethertype(kind, at)


@register(UDP_PORTS, 2152)
def gtp_user(walk: Walk, at: At) -> None:
    """3GPP TS 29.281. The two directions have endpoint ids of their own, so the outer addresses name the tunnel."""
    flags, kind = at.byte(), at.byte(1)
    if flags >> 4 != 3 or kind != 255:
        raise DecodeError("not_tcp")
    at.skip(8)
    if flags & 7:
        following = at.byte(3)
        at.pos += 4
        for _ in range(MAX_FIELDS):
            if not (flags & 4 and following):
                break
            size = at.byte() * 4
            if not size:
                raise DecodeError("short_header")
            at.pos += size
            following = at.data[at.need(0) - 1]
        else:
            raise DecodeError("too_deep")
    walk.enter(at, "gtp")
    if at.byte() >> 4 in (4, 6):
        ip(walk, at)
    else:
        raise DecodeError("not_tcp")


@register(UDP_PORTS, 1701)
def l2tp(walk: Walk, at: At) -> None:
    """RFC 2661, data messages. Version 3 leaves the layout to negotiation, which a capture need not hold."""
    flags = at.u16()
    if flags & 0x8000 or flags & 0x000F != 2:
        raise DecodeError("not_tcp")
    at.pos += 6 + 2 * bool(flags & 0x4000) + 4 * bool(flags & 0x0800)
    if flags & 0x0200:
        at.pos += 2 + at.u16()
    walk.enter(at, "l2tp")
    ppp(walk, at)


@register(UDP_PORTS, 3544)
def teredo(walk: Walk, at: At) -> None:
    """RFC 4380, behind an authentication and an origin indication if they are there."""
    if at.u16() == 1:
        at.pos += 13 + at.byte(2) + at.byte(3)
    if at.u16() == 0:
        at.skip(8)
    if at.byte() >> 4 != 6:
        raise DecodeError("not_tcp")
    walk.enter(at, "teredo")
    ipv6(walk, at)


UDP_PORTS[6635] = mpls  # RFC 7510
UDP_PORTS[4754] = gre  # RFC 8086


@register(UDP_PORTS, 3386)
def gtp_version0(walk: Walk, at: At) -> None:
    """3GPP TS 09.60: a header of 20 bytes."""
    if at.byte() >> 5 or at.byte(1) != 255:
        raise DecodeError("not_tcp")
    at.skip(20)
    walk.enter(at, "gtp")
    ip(walk, at)


@register(UDP_PORTS, 4341)
def lisp(walk: Walk, at: At) -> None:
    """RFC 9300, data: flags, nonce and locator bits, then IP."""
    at.skip(8)
    walk.enter(at, "lisp")
    ip(walk, at)


@register(UDP_PORTS, 6080)
def generic_udp(walk: Walk, at: At) -> None:
    """GUE (draft-ietf-intarea-gue): variant 1 is bare IP, variant 0 has lengths and an IP protocol number."""
    first, number = at.byte(), at.byte(1)
    if first >> 6 == 1:
        walk.enter(at, "gue")
        ip(walk, at)
    elif first & 0xE0 == 0:  # neither another variant nor a control message
        at.pos += 4 + 4 * (first & 0x1F)
        walk.enter(at, "gue")
        walk.protocol(number, at)
    else:
        raise DecodeError("not_tcp")


@register(UDP_PORTS, 5247)
def capwap(walk: Walk, at: At) -> None:
    """RFC 5415, data that is neither encrypted nor in fragments: Ethernet, or 802.11 in either byte order."""
    first, flags = at.byte(), at.u16(2)
    if first & 0x0F:
        raise DecodeError("encrypted")
    if flags & 0x80:
        raise DecodeError("wireless_fragment")
    size = 4 * (at.byte(1) >> 3)
    at.need(max(size, 8))
    at.pos += size
    walk.enter(at, "capwap")
    if not flags & 0x0100:
        ethernet(walk, at)
    elif at.byte() & 0x0F == 0x08:
        ieee80211(walk, at)
    else:
        swapped80211(walk, at)


@register(UDP_PORTS, 37008)
def tazmen_sniffer(walk: Walk, at: At) -> None:
    """TZSP: version 1, a received or sent packet, what it is, tagged fields up to an end tag."""
    if at.byte() != 1 or at.byte(1) not in (0, 1):
        raise DecodeError("not_tcp")
    linktype = {1: 1, 18: 105, 119: 119, 126: 163}.get(at.u16(2))
    if linktype is None:
        raise DecodeError("not_tcp")
    at.pos += 4
    for _ in range(MAX_FIELDS):
        if at.byte() == 1:
            break
        at.pos += 2 + at.byte(1) if at.byte() else 1
    else:
        raise DecodeError("too_deep")
    at.pos += 1
    walk.enter(at, "tzsp")
    LINKS[linktype](walk, at)


@register(UDP_PORTS, 5072)
def anything_in_anything(walk: Walk, at: At) -> None:
    """AYIYA (draft-massar-v6ops-ayiya): identity and signature of given sizes; operation 1 forwards a packet."""
    sizes, signature, operation, number = at.byte(), at.byte(1), at.byte(2) & 0x0F, at.byte(3)
    if operation != 1:
        raise DecodeError("not_tcp")
    at.pos += 8 + (1 << (sizes >> 4)) + 4 * (signature >> 4)
    walk.enter(at, "ayiya")
    walk.protocol(number, at)
