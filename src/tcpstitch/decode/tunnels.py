"""Packets inside packets: IP in IP, GRE, ERSPAN, EtherIP, and Ethernet in Ethernet."""

from __future__ import annotations

from typing import Any

from ..errors import DecodeError
from .network import ethernet, ip, ipv4, ipv6, tagged
from .ppp import ppp
from .walk import ETHERTYPES, MAX_FIELDS, PROTOCOLS, At, Walk, register
from .wireless import ieee80211


@register(PROTOCOLS, 4)
def ip_in_ip(walk: Walk, at: At) -> None:
    """RFC 2003, and RFC 2473 for IPv4 in IPv6."""
    walk.enter(at, "ip")
    ipv4(walk, at)


@register(PROTOCOLS, 41)
def ipv6_in_ip(walk: Walk, at: At) -> None:
    """RFC 4213 (6in4) and RFC 2473."""
    walk.enter(at, "ip")
    ipv6(walk, at)


@register(PROTOCOLS, 97)
def ether_ip(walk: Walk, at: At) -> None:
    """RFC 3378."""
    if at.u16() >> 12 != 3:
        raise DecodeError("not_tcp")
    at.pos += 2
    walk.enter(at, "etherip")
    ethernet(walk, at)


@register(PROTOCOLS, 143)
def ethernet_in_ip(walk: Walk, at: At) -> None:
    """RFC 8986 10.1."""
    walk.enter(at, "ethernet")
    ethernet(walk, at)


@register(PROTOCOLS, 55)
def minimal_encapsulation(walk: Walk, at: At) -> None:
    """RFC 2004: the inner header is the outer one but for what this header says."""
    walk.enter(at, "minimal")
    number, with_source = at.byte(), at.byte(1) & 0x80
    pos = at.need(12 if with_source else 8)
    source = at.data[pos + 8 : pos + 12] if with_source else at.addresses[:4]
    at.addresses = source + at.data[pos + 4 : pos + 8]
    at.pos = pos + (12 if with_source else 8)
    walk.protocol(number, at)


@register(PROTOCOLS, 47)
def gre(walk: Walk, at: At) -> None:
    """RFC 2784, 2890, 1701, and version 1 of PPTP (RFC 2637)."""
    flags, kind = at.u16(), at.u16(2)
    version = flags & 7
    at.pos += 4
    if flags & 0xC000 and version == 0:
        at.skip(4)
    ident = None
    if flags & 0x2000:
        if version == 0:
            ident = _gre_ident(at, at.u32())
        at.pos += 4
    at.pos += 4 * bool(flags & 0x1000) + 4 * bool(flags & 0x0080 and version == 1)
    if flags & 0x4000 and version == 0:
        _skip_routes(at)
    walk.enter(at, "gre", ident)
    if version > 1:
        raise DecodeError("not_tcp")
    if kind == 0x6558:
        ethernet(walk, at)
    elif kind == 0x88BE:  # ERSPAN type I has no header of its own, and no sequence number
        if flags & 0x1000:
            _erspan(walk, at)
        ethernet(walk, at)
    elif kind == 0x22EB:
        _erspan3(walk, at)
    elif kind == 0x880B:
        if at.limit == at.pos:
            raise DecodeError("not_tcp")  # PPTP acknowledges without payload
        ppp(walk, at)
    elif kind == 0x883E:  # WCCP: version 2 has a header of its own, known by not being IP
        at.pos += 0 if at.byte() >> 4 == 4 else 4
        ipv4(walk, at)
    elif kind == 0x6400 and version == 1:  # MikroTik's EoIP
        ethernet(walk, at)
    elif 0x8200 <= kind <= 0x8370 or kind == 0x9000:  # Aruba's tunnels from access point to controller
        ieee80211(walk, at)
    elif kind <= 1500:
        raise DecodeError("not_tcp")
    else:
        tagged(walk, at, kind)


def _gre_ident(at: At, key: int) -> Any:
    """The two ends and the key that tells tunnels between them apart (RFC 2890).

    A key that may be NVGRE's (RFC 7637 3.2) counts without its last byte, which tells flows apart and not networks.
    """
    return (*at.ends(), key >> 8 << 8 if key >> 8 > 0xFFF else key)


def _skip_routes(at: At) -> None:
    """Source routes of RFC 1701, ended by one of length 0."""
    for _ in range(MAX_FIELDS):
        size = at.byte(3)
        family = at.u16()
        at.pos += 4 + size
        if not family and not size:
            return
    raise DecodeError("too_deep")


def _erspan(walk: Walk, at: At) -> None:
    """Type II (draft-foschiano-erspan): version, VLAN of the mirrored port, session, index."""
    _mirrored(walk, at)
    at.skip(8)


def _mirrored(walk: Walk, at: At) -> None:
    """What types II and III begin with: the VLAN, and whether the frame was cut, as by a snap length."""
    first = at.u32()
    walk.vlan(at, first >> 16 & 0x0FFF)
    if first & 0x0400:
        at.declared = False


def _erspan3(walk: Walk, at: At) -> None:
    """Type III: 12 bytes, and 8 more where the last bit says so."""
    _mirrored(walk, at)
    pos = at.need(12)
    at.pos = pos + (20 if at.data[pos + 11] & 1 else 12)
    if at.data[pos + 10] >> 2 & 0x1F:  # the frame type: 0 is Ethernet, 2 is IP
        ip(walk, at)
    else:
        ethernet(walk, at)


@register(ETHERTYPES, 0x6558)
def bridged(walk: Walk, at: At) -> None:
    """Transparent Ethernet bridging (RFC 1701), where something else than GRE has it."""
    walk.enter(at, "")
    ethernet(walk, at)


@register(ETHERTYPES, 0x88E7)
def provider_backbone(walk: Walk, at: At) -> None:
    """IEEE 802.1ah: the service instance, then a whole frame."""
    service = at.u32() & 0xFFFFFF
    at.pos += 4
    walk.enter(at, "pbb", service)
    ethernet(walk, at)


def next_protocol(walk: Walk, at: At, number: int) -> None:
    """By the numbers that RFC 8300 2.2 and VXLAN-GPE have in common."""
    kind = {1: 0x0800, 2: 0x86DD, 4: 0x894F, 5: 0x8847}.get(number)
    if number == 3:
        ethernet(walk, at)
    elif kind is None:
        raise DecodeError("not_tcp")
    else:
        walk.ethertype(kind, at)


@register(ETHERTYPES, 0x894F)
def service_header(walk: Walk, at: At) -> None:
    """Network service header, RFC 8300. Its lengths count 32-bit words."""
    words, number = at.byte(1) & 0x3F, at.byte(3)
    at.pos += 4 * max(words, 1)
    walk.enter(at, "")
    next_protocol(walk, at, number)
