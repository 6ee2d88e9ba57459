"""Link types that are met in collections of captures more than on today's wires, each a few bytes before the known."""

from __future__ import annotations

from ..errors import DecodeError
from .network import ethernet, ip, llc, tagged
from .ppp import cisco_hdlc, ppp
from .walk import ETHERTYPES, LINKS, LITTLE32, MAX_FIELDS, At, Walk, register


@register(LINKS, 100, 106)
def classical_ip(walk: Walk, at: At) -> None:
    """RFC 2684 (formerly RFC 1483) with LLC, or plain IP in virtual circuits of their own."""
    if at.byte() == 0xAA:
        llc(walk, at)
    else:
        ip(walk, at)


@register(LINKS, 123)
def sun_atm(walk: Walk, at: At) -> None:
    """SunATM: direction and type, VPI, VCI; type 1 is LAN emulation, 2 is LLC."""
    kind = at.byte() & 0x0F
    at.skip(4)
    if kind == 1:
        at.skip(2)
        ethernet(walk, at)
    elif kind == 2:
        llc(walk, at)
    else:
        raise DecodeError("not_ip")


@register(LINKS, 6)
def token_ring(walk: Walk, at: At) -> None:
    """IEEE 802.5: access and frame control, two addresses, source routing if the first bit of the source is set."""
    if at.byte(1) & 0xC0 != 0x40:
        raise DecodeError("not_ip")  # of the ring itself
    routed = at.byte(8) & 0x80
    at.skip(14)
    if routed:
        at.skip(max(at.byte() & 0x1F, 2))
    llc(walk, at)


@register(LINKS, 10)
def fddi(walk: Walk, at: At) -> None:
    """ANSI X3.139: frame control and two addresses, then LLC in asynchronous frames."""
    if at.byte() & 0x50 != 0x50:
        raise DecodeError("not_ip")
    at.skip(13)
    llc(walk, at)


@register(LINKS, 122)
def fibre_channel(walk: Walk, at: At) -> None:
    """RFC 2625: the network header's two addresses, then LLC."""
    at.skip(16)
    llc(walk, at)


@register(LINKS, 138)
def firewire(walk: Walk, at: At) -> None:
    """IP over IEEE 1394 as Apple writes it: two addresses of 8 bytes, an Ethernet type."""
    kind = at.u16(16)
    at.skip(18)
    walk.ethertype(kind, at)


@register(LINKS, 107)
@register(ETHERTYPES, 0x6559)
def frame_relay(walk: Walk, at: At) -> None:
    """RFC 2427 behind an address of two to four bytes, or Cisco's Ethernet type."""
    size = 1
    while not at.byte(size - 1) & 1:
        size += 1
        if size > 4:
            raise DecodeError("not_ip")
    at.skip(size)
    walk.enter(at, "")
    if at.byte() != 0x03:
        kind = at.u16()
        at.skip(2)
        tagged(walk, at, kind)
        return
    at.skip(1)
    if at.byte() == 0:
        at.skip(1)  # padding
    number = at.byte()
    at.skip(1)
    if number in (0xCC, 0x8E):
        ip(walk, at)
    elif number == 0x80:
        _bridged_or_routed(walk, at)
    elif number == 0xCF:
        ppp(walk, at)
    else:
        raise DecodeError("not_ip")


def _bridged_or_routed(walk: Walk, at: At) -> None:
    """SNAP without its LLC bytes: an Ethernet type, or Ethernet with (1) or without (7) its check sequence."""
    vendor, kind = at.u32() >> 8, at.u16(3)
    at.skip(5)
    if vendor == 0:
        tagged(walk, at, kind)
    elif vendor == 0x80C2 and kind in (1, 7):
        ethernet(walk, at)
    else:
        raise DecodeError("not_ip")


@register(LINKS, 166, 204)
def ppp_with_direction(walk: Walk, at: At) -> None:
    """One byte says which way; pppd (166) writes it over the address byte, whose control byte stays."""
    at.skip(1)
    if at.byte() == 0x03:
        at.skip(1)
    ppp(walk, at)


@register(LINKS, 205)
def cisco_hdlc_with_direction(walk: Walk, at: At) -> None:
    """One byte says which way."""
    at.skip(1)
    cisco_hdlc(walk, at)


@register(LINKS, 206)
def frame_relay_with_direction(walk: Walk, at: At) -> None:
    """One byte says which way."""
    at.skip(1)
    frame_relay(walk, at)


@register(LINKS, 99)
def symantec_firewall(walk: Walk, at: At) -> None:
    """Symantec Enterprise Firewall: 44 bytes, an Ethernet type at the seventh."""
    kind = at.u16(6)
    at.skip(44)
    walk.ethertype(kind, at)


@register(LINKS, 109)
def enc(walk: Walk, at: At) -> None:
    """OpenBSD's enc(4), IPsec after decryption: address family, security index, flags."""
    at.skip(12)
    ip(walk, at)


@register(LINKS, 226)
def solaris_ipnet(walk: Walk, at: At) -> None:
    """Solaris' ipnet devices: 24 bytes of versions, zones and interfaces."""
    at.skip(24)
    ip(walk, at)


@register(LINKS, 240)
def netanalyzer(walk: Walk, at: At) -> None:
    """Hilscher netANALYZER: four bytes of its own."""
    at.skip(4)
    ethernet(walk, at)


@register(LINKS, 241)
def netanalyzer_transparent(walk: Walk, at: At) -> None:
    """The same four bytes, then preamble and start of frame."""
    at.skip(12)
    ethernet(walk, at)


@register(LINKS, 259, 274)
def preamble(walk: Walk, at: At) -> None:
    """EPON, and IEEE 802.3br mPackets that are whole: a preamble of eight bytes, then Ethernet."""
    at.skip(8)
    ethernet(walk, at)


@register(LINKS, 143)
def docsis(walk: Walk, at: At) -> None:
    """DOCSIS MAC frames with a packet: a header of six bytes, longer by its second byte if the first one says so."""
    first, parameter = at.byte(), at.byte(1)
    if first & 0xC0:
        raise DecodeError("not_ip")
    at.skip(6 + (parameter if first & 1 else 0))
    ethernet(walk, at)


@register(LINKS, 149, 258)
def apple_tap(walk: Walk, at: At) -> None:
    """macOS' PKTAP (149 where an old tcpdump wrote it): length, kind and link type, little-endian."""
    pos = at.need(12)
    size, kind, linktype = (LITTLE32(at.data, pos + step)[0] for step in (0, 4, 8))
    if size < 12 or kind != 1:
        raise DecodeError("not_ip")
    at.skip(size)
    walk.enter(at, "")
    walk.link(linktype, at)


@register(LINKS, 197)
def endace(walk: Walk, at: At) -> None:
    """Endace ERF: a header of 16 bytes, extensions of 8, then Ethernet behind two bytes, or PPP and Cisco's HDLC."""
    kind, more = at.byte(8) & 0x7F, at.byte(8) & 0x80
    at.skip(16)
    for _ in range(MAX_FIELDS):
        if not more:
            break
        more = at.byte() & 0x80
        at.skip(8)
    else:
        raise DecodeError("too_deep")
    if kind in (2, 11, 16, 20):
        at.skip(2)
        ethernet(walk, at)
    elif kind in (1, 5, 10, 15, 17, 19):
        at.skip(4 if kind in (5, 17) else 0)  # of which channel
        ppp(walk, at)
    elif kind in (22, 23):
        ip(walk, at)
    else:
        raise DecodeError("not_ip")


_JUNIPER = {178: ethernet, 179: ppp, 180: frame_relay, 181: cisco_hdlc}


def _juniper(walk: Walk, at: At, linktype: int) -> None:
    """Juniper's cookie: magic, flags, extensions; without the link layer, a protocol number stands in its place."""
    if at.u32() >> 8 != 0x4D4743:
        raise DecodeError("not_ip")
    flags = at.byte(3)
    at.skip(6 + at.u16(4) if flags & 0x80 else 4)
    if flags & 0x02:
        at.skip(4)
        ip(walk, at)
    else:
        _JUNIPER[linktype](walk, at)


for _number in _JUNIPER:
    LINKS[_number] = lambda walk, at, linktype=_number: _juniper(walk, at, linktype)  # type: ignore[misc]


@register(LINKS, 281)
def broadcom_tag(walk: Walk, at: At) -> None:
    """Of a Broadcom switch's own port: four bytes between the addresses and the Ethernet type."""
    kind = at.u16(16)
    at.skip(18)
    tagged(walk, at, kind)


@register(LINKS, 282)
def broadcom_tag_in_front(walk: Walk, at: At) -> None:
    """The same four bytes before the whole frame."""
    at.skip(4)
    ethernet(walk, at)


@register(LINKS, 284)
def marvell_tag(walk: Walk, at: At) -> None:
    """Of a Marvell switch's own port: four bytes between the addresses and the Ethernet type, which stand for the
    802.1Q tag too if the frame had one."""
    _marvell(walk, at, 12)


@register(LINKS, 285)
def marvell_tag_with_type(walk: Walk, at: At) -> None:
    """The same behind an Ethernet type of its own and two bytes that are reserved."""
    _marvell(walk, at, 16)


def _marvell(walk: Walk, at: At, start: int) -> None:
    kind = at.u16(start + 4)
    if at.byte(start) & 0x20:
        walk.vlan(at, at.u16(start + 2) & 0x0FFF)
    at.skip(start + 6)
    tagged(walk, at, kind)
