"""Frames written out by hand for the decoder's tests, one layer per function."""

from __future__ import annotations

import struct
from ipaddress import ip_address

A4, B4 = ip_address("10.1.2.3").packed, ip_address("192.0.2.9").packed
A6, B6 = ip_address("2001:db8::1").packed, ip_address("2001:db8::2").packed
C4, D4 = ip_address("198.51.100.1").packed, ip_address("198.51.100.2").packed
PORTS = struct.pack("!HH", 40000, 443)
KEY4, KEY6 = A4 + B4 + PORTS, A6 + B6 + PORTS


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(payload=b"hello", source=A4, destination=B4, seq=1000, flags=0x18, options=b"", offset=None, urgent=0):
    words = 5 + len(options) // 4 if offset is None else offset
    head = PORTS + struct.pack("!IIBBHHH", seq, 77, words << 4, flags, 5000, 0, urgent) + options
    pseudo = source + destination + struct.pack("!II", len(head) + len(payload), 6)
    return head[:16] + struct.pack("!H", checksum(pseudo + head + payload)) + head[18:] + payload


def ipv4(payload, protocol=6, source=A4, destination=B4, options=b"", ident=1, fragment=0, total=None, ttl=61):
    size = 20 + len(options)
    total = size + len(payload) if total is None else total
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, total, ident, fragment, ttl, protocol, 0)
    return head + source + destination + options + payload


def ipv6(payload, following=6, source=A6, destination=B6, length=None):
    length = len(payload) if length is None else length
    return struct.pack("!IHBB", 6 << 28, length, following, 63) + source + destination + payload


def ethernet(payload, kind=0x0800, tags=()):
    body = struct.pack("!H", kind) + payload
    for tag_type, vlan in reversed(tags):
        body = struct.pack("!HH", tag_type, vlan) + body
    return bytes.fromhex("020000000002020000000001") + body


def udp(payload, port, source=C4, destination=D4):
    return ipv4(struct.pack("!HHHH", 50000, port, 8 + len(payload), 0) + payload, 17, source, destination)


def over_ip(payload, protocol):
    return ipv4(payload, protocol, C4, D4)


def gre(payload, kind, flags=0, fields=b""):
    return over_ip(struct.pack("!HH", flags, kind) + fields + payload, 47)


def llc(payload, kind=0x0800):
    return b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", kind) + payload


def fragments4(payload, size, **fields):
    """An IPv4 datagram in pieces of `size` bytes, a multiple of 8."""
    pieces = []
    for start in range(0, len(payload), size):
        more = 0x2000 if start + size < len(payload) else 0
        pieces.append(ipv4(payload[start : start + size], fragment=more | start // 8, **fields))
    return pieces


def fragment6(payload, start, more, ident=7, following=6):
    return ipv6(struct.pack("!BBHI", following, 0, start | more, ident) + payload, 44)


def frame80211(body, control=0x08, flags=0x02, qos=None):
    head = bytes((control, flags)) + bytes(2) + b"\x02\0\0\0\0\1" * 3 + bytes(2)
    return head + (b"" if qos is None else qos) + body


PLAIN4 = ipv4(tcp())
PLAIN6 = ipv6(tcp(source=A6, destination=B6))
PPP4 = b"\xff\x03\x00\x21" + PLAIN4
NSH = struct.pack("!HBBII", 0x0006, 1, 1, 0, 0)
_MSDU = bytes(12) + struct.pack("!H", len(llc(PLAIN4))) + llc(PLAIN4)
_OUTER_LABEL = struct.pack("!I", 6000 << 12 | 64)
_LABEL = struct.pack("!I", 5000 << 12 | 0x100 | 64)

# name: (link type, packet); each holds the one segment of PLAIN4 or PLAIN6
LINK_FRAMES = {
    "ethernet": (1, ethernet(PLAIN4)),
    "ethernet ipv6": (1, ethernet(PLAIN6, 0x86DD)),
    "vlan": (1, ethernet(PLAIN4, tags=[(0x8100, 5)])),
    "qinq": (1, ethernet(PLAIN4, tags=[(0x88A8, 5), (0x8100, 6)])),
    "four tags": (1, ethernet(PLAIN4, tags=[(0x9100, 5), (0x88A8, 6), (0x8100, 7), (0x8100, 8)])),
    "802.3 snap": (1, ethernet(llc(PLAIN4), len(llc(PLAIN4)))),
    "802.3 ip sap": (1, ethernet(b"\x06\x06\x03" + PLAIN4, 3 + len(PLAIN4))),
    "null little": (0, struct.pack("<I", 2) + PLAIN4),
    "null big": (0, struct.pack(">I", 2) + PLAIN4),
    "null ipv6 macos": (0, struct.pack("<I", 30) + PLAIN6),
    "loop": (108, struct.pack(">I", 24) + PLAIN6),
    "sll": (113, bytes(14) + b"\x08\0" + PLAIN4),
    "sll vlan": (113, bytes(14) + b"\x81\0\0\5\x08\0" + PLAIN4),
    "sll2": (276, b"\x86\xdd" + bytes(18) + PLAIN6),
    **{f"raw {number}": (number, PLAIN4) for number in (12, 14, 101, 228)},
    "raw 229": (229, PLAIN6),
    "ppp": (9, b"\x00\x21" + PLAIN4),
    "ppp compressed": (9, b"\x57" + PLAIN6),
    "ppp hdlc": (50, PPP4),
    "ppp multilink whole": (9, b"\x00\x3d\xc0\0\0\1\x21" + PLAIN4),
    "chdlc in ppp": (50, b"\x0f\x00\x08\x00" + PLAIN4),
    "pppoe": (51, struct.pack("!BBHH", 0x11, 0, 9, 2 + len(PLAIN4)) + b"\0\x21" + PLAIN4),
    "chdlc": (104, b"\x0f\x00\x08\x00" + PLAIN4),
    "nflog": (239, bytes.fromhex("02000000 08000100 00000003 05000a00 00000000".replace(" ", ""))
              + struct.pack("<HH", len(PLAIN4) + 4, 9) + PLAIN4),
    "nflog big": (239, bytes(4) + struct.pack("!HH", len(PLAIN4) + 4, 9) + PLAIN4),
    "ipoib": (242, bytes(40) + b"\x08\0\0\0" + PLAIN4),
    "802.11": (105, frame80211(llc(PLAIN4))),
    "802.11 qos": (105, frame80211(llc(PLAIN4), 0x88, qos=bytes(2))),
    "802.11 qos ht": (105, frame80211(llc(PLAIN4), 0x88, 0x82, qos=bytes(6))),
    "802.11 a-msdu": (105, frame80211(_MSDU, 0x88, qos=b"\x80\0")),
    "radiotap": (127, bytes.fromhex("0000080000000000") + frame80211(llc(PLAIN4))),
    "radiotap padded": (127, bytes.fromhex("000012000300008000000000 00000000") + b"\0" * 0 + b"\0\0"
                        + frame80211(llc(PLAIN4))),
    "prism": (119, bytes(144) + frame80211(llc(PLAIN4))),
    "avs": (163, struct.pack("!II", 0x80211001, 64) + bytes(56) + frame80211(llc(PLAIN4))),
    "four addresses": (105, frame80211(bytes(6) + llc(PLAIN4), flags=0x03)),
    "e-tag": (1, ethernet(bytes(6) + b"\x08\0" + PLAIN4, 0x893F)),
    "vn-tag": (1, ethernet(bytes(4) + b"\x08\0" + PLAIN4, 0x8926)),
    "ppi": (192, struct.pack("<BBHI", 0, 0, 8, 105) + frame80211(llc(PLAIN4))),
    "pflog": (117, bytes([61, 2]) + bytes(62) + PLAIN4),
}  # fmt: skip
_ETHERNET4 = ethernet(PLAIN4)
_SIX = b"\x02\0\0\0\0\1"
RARE_FRAMES = {
    "token ring": (6, b"\x10\x40" + _SIX + _SIX + llc(PLAIN4)),
    "token ring routed": (6, b"\x10\x40" + _SIX + b"\x82\0\0\0\0\1" + b"\x06\x30\1\2\3\4" + llc(PLAIN4)),
    "fddi": (10, b"\x54" + _SIX + _SIX + llc(PLAIN6, 0x86DD)),
    "symantec": (99, bytes(6) + b"\x08\0" + bytes(36) + PLAIN4),
    "atm llc": (100, llc(PLAIN4)),
    "atm vc": (106, PLAIN6),
    "frame relay": (107, b"\x18\x41\x03\xcc" + PLAIN4),
    "frame relay ipv6": (107, b"\x18\x41\x03\x8e" + PLAIN6),
    "frame relay snap": (107, b"\x18\x41\x03\0\x80\0\0\0\x08\0" + PLAIN4),
    "frame relay bridged": (107, b"\x18\x41\x03\0\x80\0\x80\xc2\0\x07" + _ETHERNET4),
    "frame relay ppp": (107, b"\x18\x41\x03\xcf\0\x21" + PLAIN4),
    "frame relay cisco": (107, b"\x18\x40\x41\x08\0" + PLAIN4),
    "enc": (109, struct.pack("<III", 2, 7, 0) + PLAIN4),
    "fibre channel": (122, bytes(16) + llc(PLAIN4)),
    "sunatm llc": (123, b"\2\0\0\5" + llc(PLAIN4)),
    "sunatm lane": (123, b"\1\0\0\5\0\1" + _ETHERNET4),
    "firewire": (138, bytes(16) + b"\x08\0" + PLAIN4),
    "docsis": (143, struct.pack("!BBHH", 0, 0, len(_ETHERNET4), 0x8E73) + _ETHERNET4),
    "docsis extended": (143, struct.pack("!BBH3sH", 1, 3, len(_ETHERNET4) + 3, b"\x23\1\1", 0x6619) + _ETHERNET4),
    "pktap": (258, struct.pack("<III", 108, 1, 1) + bytes(96) + _ETHERNET4),
    "pktap as user 2": (149, struct.pack("<III", 108, 1, 12) + bytes(96) + PLAIN4),
    "ppp of pppd": (166, b"\x01\x03\0\x21" + PLAIN4),
    "ppp with direction": (204, b"\x01" + PPP4),
    "chdlc with direction": (205, b"\x01\x0f\0\x08\0" + PLAIN4),
    "frame relay with direction": (206, b"\x01\x18\x41\x03\xcc" + PLAIN4),
    "juniper ethernet": (178, b"MGC\x01" + _ETHERNET4),
    "juniper without link layer": (178, b"MGC\x02" + b"\x02\0\0\0" + PLAIN4),
    "juniper ppp": (179, b"MGC\x80\0\x03\1\1\7" + PPP4),
    "juniper frame relay": (180, b"MGC\0" + b"\x18\x41\x03\xcc" + PLAIN4),
    "juniper chdlc": (181, b"MGC\0" + b"\x0f\0\x08\0" + PLAIN4),
    "erf ethernet": (197, bytes(8) + b"\x02\x04" + struct.pack("!HHH", 18 + len(_ETHERNET4), 0, len(_ETHERNET4))
                     + bytes(2) + _ETHERNET4),
    "erf hdlc extended": (197, bytes(8) + b"\x81\x04" + struct.pack("!HHH", 28 + len(PLAIN4), 0, 4 + len(PLAIN4))
                          + b"\x03" + bytes(7) + b"\x0f\0\x08\0" + PLAIN4),
    "erf hdlc hashed": (197, bytes(8) + b"\x13\x04" + struct.pack("!HHH", 20 + len(PLAIN4), 0, 4 + len(PLAIN4))
                        + b"\x0f\0\x08\0" + PLAIN4),
    "erf hdlc channel": (197, bytes(8) + b"\x05\x04" + struct.pack("!HHH", 24 + len(PLAIN4), 0, 4 + len(PLAIN4))
                         + b"\0\0\0\1\x0f\0\x08\0" + PLAIN4),
    "erf ppp coloured channel": (197, bytes(8) + b"\x11\x04" + struct.pack("!HHH", 20 + len(PPP4), 0, len(PPP4))
                                 + b"\0\0\0\1" + PPP4),
    "erf ipv4": (197, bytes(8) + b"\x16\x04" + struct.pack("!HHH", 16 + len(PLAIN4), 0, len(PLAIN4)) + PLAIN4),
    "ipnet": (226, struct.pack("!BBHIIIII", 1, 2, 0, len(PLAIN4), 1, 1, 0, 0) + PLAIN4),
    "netanalyzer": (240, b"\x02\x08\0\0" + _ETHERNET4),
    "netanalyzer transparent": (241, b"\x02\x08\0\0" + b"\x55" * 7 + b"\xd5" + _ETHERNET4),
    "epon": (259, b"\x55\x55\xd5\x55\x55\0\0\0" + _ETHERNET4),
    "mpacket": (274, b"\x55" * 7 + b"\xd5" + _ETHERNET4),
    "broadcom": (281, _ETHERNET4[:12] + b"\x20\0\0\5" + _ETHERNET4[12:]),
    "broadcom in front": (282, b"\x20\0\0\5" + _ETHERNET4),
    "marvell": (284, _ETHERNET4[:12] + b"\xc0\x08\0\0" + _ETHERNET4[12:]),
    "marvell tagged": (284, _ETHERNET4[:12] + b"\xe0\x08\0\5" + _ETHERNET4[12:]),
    "marvell with type": (285, _ETHERNET4[:12] + b"\xda\xda\0\0\xe0\x08\0\5" + _ETHERNET4[12:]),
    "sll radiotap": (113, b"\0\0" + struct.pack("!H", 803) + bytes(10) + b"\0\4"
                     + bytes.fromhex("0000080000000000") + frame80211(llc(PLAIN4))),
    "sll frame relay": (113, b"\0\0" + struct.pack("!H", 770) + bytes(10) + b"\0\4\x18\x41\x03\xcc" + PLAIN4),
    "sll2 802.11": (276, b"\0\4" + bytes(6) + struct.pack("!H", 801) + bytes(10) + frame80211(llc(PLAIN4))),
}  # fmt: skip
LINK_FRAMES.update(RARE_FRAMES)

TUNNEL_FRAMES = {
    "mpls": ethernet(_OUTER_LABEL + _LABEL + PLAIN4, 0x8847),
    "mpls multicast": ethernet(_LABEL + PLAIN4, 0x8848),
    "mpls ethernet": ethernet(_LABEL + _ETHERNET4, 0x8847),
    "mpls with an e-tag": ethernet(_LABEL + ethernet(bytes(6) + b"\x08\0" + PLAIN4, 0x893F), 0x8847),
    "mpls control word": ethernet(_LABEL + bytes(4) + _ETHERNET4, 0x8847),
    "pppoe": ethernet(LINK_FRAMES["pppoe"][1], 0x8864),
    "pbb": ethernet(struct.pack("!I", 77) + _ETHERNET4, 0x88E7),
    "nsh": ethernet(NSH + bytes(12) + PLAIN4, 0x894F),
    "ip in ip": ethernet(over_ip(PLAIN4, 4)),
    "6in4": ethernet(over_ip(PLAIN6, 41)),
    "4in6": ethernet(ipv6(PLAIN4, 4), 0x86DD),
    "6in6": ethernet(ipv6(PLAIN6, 41), 0x86DD),
    "etherip": ethernet(over_ip(b"\x30\0" + _ETHERNET4, 97)),
    "mpls in ip": ethernet(over_ip(_LABEL + PLAIN4, 137)),
    "gre ip": ethernet(gre(PLAIN4, 0x0800)),
    "gre all fields": ethernet(gre(PLAIN4, 0x0800, 0xB000, bytes(12))),
    "gre routes": ethernet(gre(PLAIN4, 0x0800, 0x4000, bytes(4) + b"\x08\0\0\4\1\2\3\4" + bytes(4))),
    "gre ethernet": ethernet(gre(_ETHERNET4, 0x6558, 0x2000, bytes(4))),
    "gre pptp": ethernet(gre(PPP4, 0x880B, 0x3081, bytes(12))),
    "gre mpls": ethernet(gre(_LABEL + PLAIN4, 0x8847)),
    "gre 802.11": ethernet(gre(frame80211(llc(PLAIN4)), 0x8200)),
    "erspan 1": ethernet(gre(_ETHERNET4, 0x88BE)),
    "erspan 2": ethernet(gre(bytes.fromhex("1005000100000000") + _ETHERNET4, 0x88BE, 0x1000, bytes(4))),
    "erspan 3": ethernet(gre(bytes.fromhex("200500010000000000000000") + _ETHERNET4, 0x22EB, 0x1000, bytes(4))),
    "vxlan": ethernet(udp(struct.pack("!II", 8 << 24, 99 << 8) + _ETHERNET4, 4789)),
    "vxlan linux": ethernet(udp(struct.pack("!II", 8 << 24, 99 << 8) + _ETHERNET4, 8472)),
    "vxlan gpe": ethernet(udp(struct.pack("!II", 0x0C << 24 | 1, 99 << 8) + PLAIN4, 4790)),
    "geneve": ethernet(udp(struct.pack("!BBHI", 2, 0, 0x6558, 98 << 8) + bytes(8) + _ETHERNET4, 6081)),
    "geneve ip": ethernet(udp(struct.pack("!BBHI", 0, 0, 0x0800, 98 << 8) + PLAIN4, 6081)),
    "gtp-u": ethernet(udp(struct.pack("!BBHI", 0x30, 255, len(PLAIN4), 5) + PLAIN4, 2152)),
    "gtp-u extension": ethernet(
        udp(struct.pack("!BBHIHBB", 0x34, 255, len(PLAIN4) + 8, 5, 0, 0, 0x85) + b"\1\0\0\0" + PLAIN4, 2152)
    ),
    "l2tp": ethernet(udp(struct.pack("!HHHH", 0x4002, 8 + len(PPP4), 5, 6) + PPP4, 1701)),
    "l2tp offset": ethernet(udp(struct.pack("!HHHHHHH", 0x0A02, 5, 6, 0, 0, 2, 0) + PPP4, 1701)),
    "teredo": ethernet(udp(PLAIN6, 3544)),
    "teredo indications": ethernet(udp(b"\0\1\0\0" + bytes(9) + bytes(8) + PLAIN6, 3544)),
    "hsr": ethernet(struct.pack("!HHH", 0x1000 | (6 + len(PLAIN4)), 9, 0x0800) + PLAIN4, 0x892F),
    "cisco metadata": ethernet(b"\1\1\0\1\0\x05\x08\0" + PLAIN4, 0x8909),
    "macsec": ethernet(b"\0\0\0\0\0\1\x08\0" + PLAIN4 + bytes(16), 0x88E5),
    "macsec sci": ethernet(b"\x20\0\0\0\0\1" + bytes(8) + b"\x08\0" + PLAIN4 + bytes(16), 0x88E5),
    "fabricpath": ethernet(b"\x12\x3f" + _ETHERNET4, 0x8903),
    "trill": ethernet(b"\0\x4f\0\1\0\2" + bytes(4) + _ETHERNET4, 0x22F3),
    "isl": b"\x01\0\x0c\0\0\0" + _SIX + struct.pack("!H", len(_ETHERNET4) + 12) + b"\xaa\xaa\x03" + _SIX[:3]
           + b"\0\x0e\0\0\0\0" + _ETHERNET4,
    "ppp bridged": ethernet(struct.pack("!BBHH", 0x11, 0, 9, 4 + len(_ETHERNET4)) + b"\0\x31\0\1" + _ETHERNET4, 0x8864),
    "ethernet in ip": ethernet(over_ip(_ETHERNET4, 143)),
    "minimal": ethernet(ipv4(b"\6\0\0\0" + B4 + tcp(), 55, A4, D4)),
    "minimal with source": ethernet(over_ip(b"\6\x80\0\0" + B4 + A4 + tcp(), 55)),
    "gre wccp": ethernet(gre(PLAIN4, 0x883E)),
    "gre wccp 2": ethernet(gre(bytes(4) + PLAIN4, 0x883E)),
    "gre eoip": ethernet(gre(struct.pack("<HH", len(_ETHERNET4), 5) + _ETHERNET4, 0x6400, 0x2001)),
    "gre frame relay": ethernet(gre(b"\x18\x41\x03\xcc" + PLAIN4, 0x6559)),
    "mpls in udp": ethernet(udp(_LABEL + PLAIN4, 6635)),
    "gre in udp": ethernet(udp(b"\0\0\x08\0" + PLAIN4, 4754)),
    "gtp version 0": ethernet(udp(b"\x1e\xff" + bytes(18) + PLAIN4, 3386)),
    "lisp": ethernet(udp(b"\x80" + bytes(7) + PLAIN6, 4341)),
    "gue": ethernet(udp(b"\1\4\0\0" + bytes(4) + PLAIN4, 6080)),
    "gue bare": ethernet(udp(PLAIN4, 6080)),
    "capwap": ethernet(udp(b"\0\x10\x02\0" + bytes(4) + _ETHERNET4, 5247)),
    "capwap 802.11": ethernet(udp(b"\0\x10\x03\0" + bytes(4) + frame80211(llc(PLAIN4)), 5247)),
    "capwap swapped": ethernet(udp(b"\0\x10\x03\0" + bytes(4) + b"\2\x08" + frame80211(llc(PLAIN4))[2:], 5247)),
    "tzsp": ethernet(udp(b"\1\0\0\1\0\x0a\1\7\1" + _ETHERNET4, 37008)),
    "tzsp 802.11": ethernet(udp(b"\1\0\0\x12\1" + frame80211(llc(PLAIN4)), 37008)),
    "ayiya": ethernet(udp(b"\x41\x52\x11\x29" + bytes(4 + 16 + 20) + PLAIN6, 5072)),
    "vxlan in vxlan": ethernet(
        udp(struct.pack("!II", 8 << 24, 1 << 8) + ethernet(udp(struct.pack("!II", 8 << 24, 2 << 8) + _ETHERNET4, 4789)),
            4789)
    ),
}  # fmt: skip


def pieces_of_everything():
    """(link type, packet) of every layer that the decoder knows, fragments included."""
    frames = list(LINK_FRAMES.values()) + [(1, packet) for packet in TUNNEL_FRAMES.values()]
    frames += [(101, piece) for piece in fragments4(PLAIN4[20:], 16)]
    body = PLAIN6[40:]
    frames += [(229, fragment6(body[:16], 0, True)), (229, fragment6(body[16:], 16, False))]
    chain = bytes((60, 0, 0xC2, 4)) + struct.pack("!I", 100) + bytes((51, 0)) + bytes(6) + bytes((6, 1)) + bytes(10)
    frames += [(1, ethernet(over_ip(struct.pack("!BBHII", 6, 1, 0, 7, 1) + PLAIN4[20:], 51)))]  # AH without its value
    frames += [(1, ethernet(over_ip(bytes(40), 50))), (1, ethernet(_ETHERNET4, 0x6558))]
    frames += [(138, bytes(16) + kind + b"\0\x05\x08\0" + PLAIN4) for kind in
               (b"\x81\0", b"\x88\xa8", b"\x91\0", b"\x92\0")]  # fmt: skip
    frames += [(138, bytes(16) + struct.pack("!H", kind) + bytes(size) + b"\x08\0" + PLAIN4) for kind, size in
               ((0x8926, 4), (0x893F, 6), (0x8909, 6), (0x892F, 4))]  # fmt: skip
    return [*frames, (229, ipv6(chain + body, 0))]
