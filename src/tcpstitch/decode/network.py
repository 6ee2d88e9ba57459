"""IPv4 (RFC 791), IPv6 and its extension headers (RFC 8200), and what lies between Ethernet and them."""

from __future__ import annotations

from functools import partial

from ..errors import DecodeError
from .walk import ETHERTYPES, MAX_FIELDS, PROTOCOLS, U16, At, Walk, register

_ROUTING, _FRAGMENT, _AUTHENTICATION, _HOP_BY_HOP, _DESTINATION = 43, 44, 51, 0, 60
# Nothing may follow a mobility header (RFC 6275 9.2), and hosts look no further than HIP's (RFC 7401).
_SKIPPED = frozenset((_HOP_BY_HOP, _ROUTING, _DESTINATION, 140))
_MAX_EXTENSIONS = _MAX_TAGS = 32  # far above any real chain; bounds the time one packet takes


@register(ETHERTYPES, 0x0800)
def ipv4(walk: Walk, at: At) -> None:
    """RFC 791, fragments kept until they are a whole datagram."""
    pos, data = at.need(20), at.data
    first = data[pos]
    header = (first & 15) * 4
    total = U16(data, pos + 2)[0]
    if first >> 4 != 4 or header < 20 or (total and total < header):
        raise DecodeError("bad_ip_header")
    if total:  # 0 is left by segmentation offload: the packet is what was captured
        at.clip(pos + total)
    at.need(header)
    at.ttl = data[pos + 8]
    at.addresses = data[pos + 12 : pos + 20]
    at.pos = pos + header
    at.checkable = header == 20 or not _source_route(data[pos + 20 : at.pos])
    number = data[pos + 9]
    fragment = U16(data, pos + 6)[0] & 0x3FFF
    if fragment:
        ident = at.addresses + data[pos + 4 : pos + 6] + data[pos + 9 : pos + 10]
        _fragment(walk, at, ident, (fragment & 0x1FFF) * 8, bool(fragment & 0x2000), number, False)
    else:
        walk.protocol(number, at)


def _source_route(options: bytes) -> bool:
    """Whether a source route (RFC 791 3.1) leads on from the destination in the header."""
    pos = 0
    while pos + 2 < len(options) and options[pos]:
        if options[pos] in (131, 137):
            return options[pos + 2] <= options[pos + 1]
        pos += 1 if options[pos] == 1 else max(2, options[pos + 1])
    return False


def _option(at: At, kind: int, size: int) -> bytes:
    """The value of this option, if it has this size, in the hop-by-hop or destination options at the cursor."""
    data, pos, end = at.data, at.pos + 2, min(at.pos + (at.byte(1) + 1) * 8, at.limit)
    for _ in range(MAX_FIELDS):
        if pos + 2 + size > end:
            break
        if data[pos] == kind and data[pos + 1] == size:
            return data[pos + 2 : pos + 2 + size]
        pos += 1 if data[pos] == 0 else 2 + data[pos + 1]
    return b""


def _jumbo_length(at: At) -> int:
    """The length of a jumbo payload option (RFC 2675) in the hop-by-hop header at the cursor, or 0."""
    value = _option(at, 0xC2, 4)
    length = int.from_bytes(value, "big")
    if value and length <= 0xFFFF:
        raise DecodeError("bad_ip_header")  # RFC 2675 3: to be discarded
    return length


@register(ETHERTYPES, 0x86DD)
def ipv6(walk: Walk, at: At) -> None:
    """RFC 8200, with its extension headers."""
    pos, data = at.need(40), at.data
    if data[pos] >> 4 != 6:
        raise DecodeError("bad_ip_header")
    length, number = U16(data, pos + 4)[0], data[pos + 6]
    at.ttl = data[pos + 7]
    at.addresses = data[pos + 8 : pos + 40]
    at.pos = pos + 40
    at.checkable = True
    if not length and number == _HOP_BY_HOP:
        length = _jumbo_length(at)
    if length:  # segmentation offload above 64 KiB (BIG TCP) leaves 0, with the jumbo option or without
        at.clip(at.pos + length)
    _extensions(walk, at, number)


def _extensions(walk: Walk, at: At, number: int) -> None:
    data = at.data
    for _ in range(_MAX_EXTENSIONS):
        if number in _SKIPPED:
            pos = at.need(8)
            # The checksum is over the final destination, or the home address (RFC 6275 6.3), not the one in the header.
            if number == _ROUTING and data[pos + 3] or number == _DESTINATION and _option(at, 0xC9, 16):
                at.checkable = False
            at.pos = pos + (data[pos + 1] + 1) * 8
            number = data[pos]
        elif number == _AUTHENTICATION:
            number = _skip_authentication(at)
        elif number == _FRAGMENT:
            pos = at.need(8)
            number, field, ident = data[pos], U16(data, pos + 2)[0], data[pos + 4 : pos + 8]
            at.pos = pos + 8
            if field & 0xFFF9:
                _fragment(walk, at, at.addresses + ident, field & 0xFFF8, bool(field & 1), number, True)
                return
            # offset 0 and nothing to follow: an atomic fragment, never matched with others (RFC 6946)
        else:
            walk.protocol(number, at)
            return
    raise DecodeError("too_deep")


def _skip_authentication(at: At) -> int:
    """RFC 4302: counted in 32-bit words, unlike the other extension headers."""
    pos = at.need(12)
    at.pos = pos + (at.data[pos + 1] + 2) * 4
    return at.data[pos]


@register(PROTOCOLS, 51)
def authentication(walk: Walk, at: At) -> None:
    """RFC 4302 behind IPv4: what follows is legible."""
    _extensions(walk, at, _skip_authentication(at))


@register(PROTOCOLS, 50)
def encrypted(walk: Walk, at: At) -> None:
    """ESP (RFC 4303)."""
    raise DecodeError("encrypted")


def _fragment(walk: Walk, at: At, ident: bytes, offset: int, more: bool, number: int, version6: bool) -> None:
    if at.end > at.limit:
        raise DecodeError("fragment_dropped")  # cut by the snap length: its datagram can never be whole
    key = (ident, at.context)
    whole = walk.fragments.add(key, offset, more, at.data[at.pos : at.end], number, version6, walk.timestamp)
    if whole is None:
        raise DecodeError(walk.fragments.reason)
    inner = At(whole[0], 0, len(whole[0]), at.depth, at.context)
    inner.addresses, inner.ttl, inner.checkable = at.addresses, at.ttl, at.checkable
    walk.enter(inner, "")
    if version6:
        _extensions(walk, inner, whole[1])
    else:
        walk.protocol(whole[1], inner)


def ip(walk: Walk, at: At) -> None:
    """IPv4 or IPv6, as the version field says."""
    version = at.byte() >> 4
    if version == 4:
        ipv4(walk, at)
    elif version == 6:
        ipv6(walk, at)
    else:
        raise DecodeError("not_ip")


def ethernet(walk: Walk, at: At) -> None:
    """IEEE 802.3: two addresses, then tags, a type or a length."""
    kind = at.u16(12)
    if kind <= 1500 and at.data[at.pos : at.pos + 5] in _ISL:
        _inter_switch(walk, at)
        return
    at.pos += 14
    tagged(walk, at, kind)


_ISL = (b"\x01\0\x0c\0\0", b"\x03\0\x0c\0\0")


def _inter_switch(walk: Walk, at: At) -> None:
    """Cisco ISL: a frame of 26 bytes more around an Ethernet frame, the VLAN in the 15 bits behind the address."""
    walk.vlan(at, at.u16(20) >> 1)
    at.skip(26)
    walk.enter(at, "")
    ethernet(walk, at)


def tagged(walk: Walk, at: At, kind: int) -> None:
    """What follows an Ethernet type or length field: any number of tags, then the payload."""
    for _ in range(_MAX_TAGS):
        if kind in (0x8100, 0x88A8, 0x9100, 0x9200):  # IEEE 802.1Q, 802.1ad and their forerunners
            walk.vlan(at, at.u16() & 0x0FFF)
            kind = at.u16(2)
            at.pos += 4
        elif kind == 0x8926:  # VN-tag
            kind = at.u16(4)
            at.pos += 6
        elif kind in (0x893F, 0x8909):  # IEEE 802.1BR E-tag, Cisco metadata
            kind = at.u16(6)
            at.pos += 8
        elif kind == 0x892F:  # HSR, IEC 62439-3
            kind = at.u16(4)
            at.pos += 6
        else:
            break
    else:
        raise DecodeError("too_deep")
    if kind <= 1500:
        at.clip(at.pos + kind)
        llc(walk, at)
    else:
        walk.ethertype(kind, at)


def llc(walk: Walk, at: At) -> None:
    """IEEE 802.2 with SNAP (RFC 1042), or IP by its own SAP."""
    pos, data = at.need(3), at.data
    head = data[pos : pos + 3]
    if head == b"\x06\x06\x03":
        at.pos = pos + 3
        ip(walk, at)
    elif head == b"\xaa\xaa\x03":
        kind = at.u16(6)
        # 00-00-00 and 00-00-F8 (bridge-tunnel encapsulation of IEEE 802.1H) mean an Ethernet type.
        if data[pos + 3 : pos + 6] not in (b"\0\0\0", b"\0\0\xf8") or kind <= 1500:
            raise DecodeError("not_ip")
        at.pos = pos + 8
        walk.enter(at, "")
        tagged(walk, at, kind)
    else:
        raise DecodeError("not_ip")


@register(ETHERTYPES, 0x88E5)
def macsec(walk: Walk, at: At) -> None:
    """IEEE 802.1AE: legible where only integrity is protected; the check value lies behind what IP calls its end."""
    flags = at.byte()
    if flags & 0x0C:
        raise DecodeError("encrypted")
    at.pos += 14 if flags & 0x20 else 6
    kind = at.u16()
    at.pos += 2
    walk.enter(at, "")
    tagged(walk, at, kind)


@register(ETHERTYPES, 0x8903)
def fabric_path(walk: Walk, at: At) -> None:
    """Cisco FabricPath: tree and TTL, then a whole frame."""
    at.pos += 2
    walk.enter(at, "")
    ethernet(walk, at)


@register(ETHERTYPES, 0x22F3)
def trill(walk: Walk, at: At) -> None:
    """RFC 6325: version, options length and hop count, two nicknames, options, a whole frame."""
    flags = at.u16()
    if flags >> 14:
        raise DecodeError("not_ip")
    at.pos += 6 + 4 * (flags >> 6 & 0x1F)
    walk.enter(at, "")
    ethernet(walk, at)


for _kind in (0x8100, 0x88A8, 0x9100, 0x9200, 0x8926, 0x893F, 0x8909, 0x892F):
    ETHERTYPES[_kind] = partial(tagged, kind=_kind)  # where a tag follows something else than Ethernet, such as Geneve
