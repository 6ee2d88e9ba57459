"""What the decoder makes of frames: the same segment whatever is around it, and bounds that hold."""

from __future__ import annotations

import ast
import pathlib
import struct
from ipaddress import ip_address

import pytest

import tcpstitch.decode
from decode_frames import (
    A4,
    A6,
    B4,
    B6,
    KEY4,
    KEY6,
    LINK_FRAMES,
    PLAIN4,
    PLAIN6,
    PORTS,
    TUNNEL_FRAMES,
    checksum,
    ethernet,
    frame80211,
    gre,
    ipv4,
    ipv6,
    llc,
    over_ip,
    tcp,
    udp,
)  # fmt: skip
from tcpstitch.capture import make_packet
from tcpstitch.decode import PacketDecoder, as_ethernet
from tcpstitch.errors import LimitsError, PacketTypeError, UsageError
from tcpstitch.segment import reverse_key


def one(packet, linktype=1, **options):
    decoder = PacketDecoder(linktype, **options)
    segments = decoder.decode(packet)
    assert len(segments) == 1, decoder.counts
    return segments[0]


def none(packet, linktype=1, **options):
    decoder = PacketDecoder(linktype, **options)
    assert decoder.decode(packet) == ()
    assert sum(decoder.counts.values()) == 1
    return next(iter(decoder.counts))


@pytest.mark.parametrize("name", LINK_FRAMES)
def test_every_link_type_gives_the_same_segment(name):
    linktype, packet = LINK_FRAMES[name]
    segment = one(packet, linktype)
    assert segment.key == (KEY4 if len(segment.key) == 12 else KEY6)
    assert (segment.payload, segment.length, segment.seq, segment.flags) == (b"hello", 5, 1000, 0x18)
    assert segment.ttl == (61 if len(segment.key) == 12 else 63)
    assert segment.checksum_ok() is True


@pytest.mark.parametrize("name", TUNNEL_FRAMES)
def test_every_encapsulation_gives_the_same_segment(name):
    segment = one(TUNNEL_FRAMES[name])
    assert segment.key == (KEY4 if len(segment.key) == 12 else KEY6)
    assert (segment.payload, segment.length) == (b"hello", 5)
    assert segment.checksum_ok() is True


@pytest.mark.parametrize("name", [name for name in LINK_FRAMES if "80211" not in name])
def test_link_padding_behind_the_ip_length_is_no_payload(name):
    linktype, packet = LINK_FRAMES[name]
    segment = one(packet + b"\xee" * 11, linktype)
    assert (segment.payload, segment.length, segment.checksum_ok()) == (b"hello", 5, True)


@pytest.mark.parametrize("name", TUNNEL_FRAMES)
def test_padding_behind_an_outer_layer_is_no_payload(name):
    assert one(TUNNEL_FRAMES[name] + b"\xee" * 7).payload == b"hello"


@pytest.mark.parametrize("name", [name for name in (*LINK_FRAMES, *TUNNEL_FRAMES) if "macsec" not in name])
def test_a_snap_length_cut_shortens_the_payload_but_not_the_length(name):
    linktype, packet = LINK_FRAMES.get(name) or (1, TUNNEL_FRAMES[name])
    segment = one(packet[:-3], linktype)
    assert (segment.payload, segment.length) == (b"he", 5)
    assert segment.checksum_ok() is None


_MIRRORED = gre(struct.pack("!HHI", 0x1005, 0x0401, 0) + ethernet(PLAIN4)[:-3], 0x88BE, 0x1000, bytes(4))
_MIRRORED3 = gre(struct.pack("!HHII", 0x2005, 0x0401, 0, 0) + ethernet(PLAIN4)[:-3], 0x22EB, 0x1000, bytes(4))
CUT_BY_OTHERS = {
    "radiotap with frame check": (127, bytes.fromhex("000009000200000010") + frame80211(llc(PLAIN4))[:-3]),
    "nflog with a range": (239, bytes(4) + struct.pack("!HH", len(PLAIN4) + 1, 9) + PLAIN4[:-3]),
    "erspan truncated": (1, ethernet(_MIRRORED) + b"\xee" * 9),
    "erspan 3 truncated": (1, ethernet(_MIRRORED3) + b"\xee" * 9),
}


@pytest.mark.parametrize("name", CUT_BY_OTHERS)
def test_a_cut_that_a_driver_a_log_or_a_mirror_made_is_as_one_of_the_snap_length(name):
    linktype, packet = CUT_BY_OTHERS[name]
    segment = one(packet, linktype)
    assert (segment.payload, segment.length, segment.checksum_ok()) == (b"he", 5, None)


@pytest.mark.parametrize("source", ["8.0.1.1", "34.243.1.1", "129.0.1.1"])
def test_a_cut_datagram_behind_mpls_whose_source_begins_as_an_ethernet_type_is_no_frame(source):
    packet = ipv4(tcp(), source=ip_address(source).packed)
    packet = packet[:10] + struct.pack("!H", checksum(packet[:20])) + packet[12:]
    segment = one(ethernet(struct.pack("!I", 5000 << 12 | 0x140) + packet[:-3], 0x8847))
    assert (segment.payload, segment.length) == (b"he", 5)


def test_a_frame_check_that_is_there_is_no_payload():
    head = bytes.fromhex("000009000200000010")
    assert one(head + frame80211(llc(PLAIN4)) + b"\xee" * 4, 127).payload == b"hello"


@pytest.mark.parametrize("frame", [ethernet(PLAIN4), ethernet(PLAIN6, 0x86DD), LINK_FRAMES["vlan"][1]])
def test_a_cut_at_the_end_of_the_tcp_header_still_places_the_segment(frame):
    segment = one(frame[:-5])
    assert (segment.payload, segment.length) == (b"", 5)
    assert none(frame[:-6]) == "short_header"


def test_a_cut_inside_the_tcp_options_still_places_the_segment():
    segment = one(ethernet(ipv4(tcp(options=b"\x01\x01\x08\x0a" + bytes(8))))[: 14 + 20 + 24])
    assert (segment.payload, segment.length, segment.options) == (b"", 5, b"\x01\x01\x08\x0a")


def test_ip_and_tcp_options_are_stepped_over_and_the_latter_kept():
    options = b"\x02\x04\x05\xb4\x01\x03\x03\x07"
    segment = one(ethernet(ipv4(tcp(options=options, urgent=9), options=b"\x94\x04\0\0" * 10)))
    assert (segment.payload, segment.options, segment.mss, segment.window_scale) == (b"hello", options, 1460, 7)
    assert (segment.ack, segment.window, segment.urgent_pointer) == (77, 5000, 9)


def test_ipv4_total_length_zero_means_the_rest_of_the_frame():
    for packet in (ethernet(ipv4(tcp(b"x" * 3000), total=0)), ethernet(over_ip(ipv4(tcp(b"x" * 3000), total=0), 4))):
        assert one(packet).payload == b"x" * 3000


def test_ipv6_payload_length_zero_means_the_rest_of_the_frame():
    body = tcp(b"x" * 100_000, A6, B6)
    assert one(ethernet(ipv6(body, length=0), 0x86DD)).length == 100_000


def test_the_jumbo_payload_option_gives_the_length():
    body = tcp(b"x" * 70_000, A6, B6)
    hop_by_hop = struct.pack("!BBBBI", 6, 0, 0xC2, 4, 8 + len(body))
    segment = one(ethernet(ipv6(hop_by_hop + body, 0, length=0) + b"padding", 0x86DD))
    assert (segment.length, segment.checksum_ok()) == (70_000, True)


def test_ipv6_extension_headers_are_stepped_over():
    chain = (
        bytes((60, 0)) + bytes(6) + bytes((43, 1)) + bytes(14) + bytes((51, 0)) + bytes(6) + bytes((6, 1)) + bytes(10)
    )
    segment = one(ethernet(ipv6(chain + tcp(source=A6, destination=B6), 0), 0x86DD))
    assert (segment.key, segment.payload, segment.checksum_ok()) == (KEY6, b"hello", True)


def test_a_checksum_over_another_destination_is_not_judged():
    routing = bytes((6, 2, 0, 1)) + bytes(20)
    assert one(ethernet(ipv6(routing + tcp(source=A6, destination=A6), 43), 0x86DD)).checksum_ok() is None


def test_authentication_headers_are_stepped_over_in_ipv4():
    assert one(ethernet(ipv4(bytes((6, 4)) + bytes(22) + tcp(), 51))).key == KEY4


def test_a_tcp_header_quoted_in_an_icmp_error_is_no_segment():
    assert none(ethernet(ipv4(bytes(8) + PLAIN4, 1))) == "not_tcp"
    assert none(ethernet(ipv6(bytes(8) + PLAIN6, 58), 0x86DD)) == "not_tcp"


@pytest.mark.parametrize("offset", [0, 4, 7, 15])
def test_a_data_offset_out_of_range_is_counted_and_the_connection_named(offset):
    decoder = PacketDecoder()
    assert decoder.decode(ethernet(ipv4(tcp(offset=offset)))) == ()
    assert decoder.counts == {"bad_header": 1}
    assert decoder.last_bad_key == KEY4
    assert decoder.decode(b"") == () and decoder.last_bad_key is None


def test_a_total_length_too_small_for_tcp_is_a_bad_header_even_if_more_bytes_follow():
    decoder = PacketDecoder()
    assert decoder.decode(ethernet(ipv4(tcp(), total=39))) == ()
    assert decoder.counts == {"bad_header": 1}
    assert decoder.last_bad_key == KEY4


@pytest.mark.parametrize(
    ("packet", "linktype", "reason"),
    [
        (ethernet(b"\0" * 28, 0x0806), 1, "not_ip"),
        (ethernet(ipv4(b"\0" * 20, 17)), 1, "not_tcp"),
        (ethernet(ipv4(b"\0" * 20, 50)), 1, "encrypted"),
        (ethernet(b"\x45"), 1, "short_header"),
        (b"", 1, "short_header"),
        (ethernet(b"\x44" + PLAIN4[1:]), 1, "bad_ip_header"),
        (ethernet(ipv4(tcp(), total=19)), 1, "bad_ip_header"),
        (PLAIN4, 147, "unknown_linktype"),
        (frame80211(llc(PLAIN4), flags=0x42), 105, "encrypted"),
        (frame80211(llc(PLAIN4), control=0x80), 105, "not_ip"),
        (frame80211(llc(PLAIN4), control=0x48), 105, "not_ip"),
        (b"\x50" * 40, 101, "not_ip"),
        (ethernet(udp(b"query", 53)), 1, "not_tcp"),
        (ethernet(udp(b"\0" * 60, 4789)), 1, "not_tcp"),
        (ethernet(udp(b"\x32\x01" + b"\0" * 60, 2152)), 1, "not_tcp"),
        (ethernet(udp(b"\xc8\x02" + b"\0" * 60, 1701)), 1, "not_tcp"),
    ],
)
def test_what_is_no_segment_is_counted_by_reason(packet, linktype, reason):
    assert none(packet, linktype) == reason


def test_an_aggregate_of_frames_gives_every_segment_and_survives_a_bad_part():
    parts = b""
    for body in (llc(PLAIN4), llc(b"\0" * 7, 0x0806), llc(PLAIN6, 0x86DD)):
        part = bytes(12) + struct.pack("!H", len(body)) + body
        parts += part + bytes(-len(part) % 4)
    decoder = PacketDecoder(105)
    segments = decoder.decode(frame80211(parts, 0x88, qos=b"\x80\0"))
    assert [segment.key for segment in segments] == [KEY4, KEY6]
    assert decoder.counts == {"not_ip": 1}


def aggregate(body, count, claimed=None):
    part = bytes(12) + struct.pack("!H", claimed or len(body)) + body
    return frame80211((part + bytes(-len(part) % 4)) * count, 0x88, qos=b"\x80\0")


def test_a_part_of_an_aggregate_that_is_longer_than_what_the_aggregate_is_in_is_dropped():
    packet = aggregate(llc(gre(aggregate(llc(PLAIN4), 1, len(llc(PLAIN4)) + 3), 0x8200)), 3)
    decoder = PacketDecoder(105)
    assert (decoder.decode(packet), decoder.counts) == ((), {"bad_length": 3})


def test_the_segments_of_an_aggregate_hold_no_more_than_the_packet():
    packet = aggregate(llc(_MIRRORED), 500)
    segments = PacketDecoder(105).decode(packet)
    assert {segment.payload for segment in segments} == {b"he"} and len(segments) == 500
    assert sum(len(segment.frame) for segment in segments if segment.frame is not packet) < len(packet)
    packet = aggregate(llc(TUNNEL_FRAMES["capwap swapped"][14:]), 500)
    assert {id(segment.frame) for segment in PacketDecoder(105).decode(packet)} == {id(packet)}


def test_encapsulations_are_followed_to_the_depth_that_was_asked():
    packet = PLAIN4
    for _ in range(5):
        packet = over_ip(packet, 4)
    assert one(ethernet(packet), max_depth=5).key == KEY4
    assert none(ethernet(packet), max_depth=4) == "too_deep"
    for _ in range(500):
        packet = gre(packet, 0x0800)
    assert none(ethernet(packet), max_depth=64) == "too_deep"


def test_vlan_ids_are_part_of_the_key_only_when_asked():
    packet = ethernet(PLAIN4, tags=[(0x88A8, 7), (0x8100, 8)])
    assert one(packet).key == KEY4
    assert one(packet, flow_key="vlan").key == (KEY4, (7, 8))
    assert one(LINK_FRAMES["vlan"][1], flow_key="vlan").key == (KEY4, (5,))
    assert one(ethernet(PLAIN4), flow_key="vlan").key == KEY4
    assert one(ethernet(PLAIN4, tags=[(0x8100, 0)]), flow_key="vlan").key == KEY4


def test_a_stack_of_tags_is_followed_and_an_absurd_one_given_up():
    assert one(ethernet(PLAIN4, tags=[(0x8100, 9)] * 20), flow_key="vlan").key == (KEY4, (9,) * 20)
    assert none(ethernet(PLAIN4, tags=[(0x8100, 9)] * 1000)) == "too_deep"


@pytest.mark.parametrize("name", TUNNEL_FRAMES)
def test_tunnels_are_part_of_the_key_only_when_asked(name):
    packet = TUNNEL_FRAMES[name]
    assert one(packet).key in (KEY4, KEY6)
    key = one(packet, flow_key="tunnel").key
    if name.startswith(("mpls", "macsec")) or name in ("nsh", "hsr", "cisco metadata", "fabricpath", "trill"):
        assert key == KEY4  # labels and service paths differ by direction; the others name no network
    else:
        assert key[0] in (KEY4, KEY6) and key[1]


def test_both_directions_of_a_tunnelled_connection_have_the_same_context():
    there = one(ethernet(ipv4(PLAIN4, 4, A4, B4)), flow_key="tunnel").key
    inner = ipv4(tcp(source=B4, destination=A4), source=B4, destination=A4)
    inner = inner[:20] + PORTS[2:] + PORTS[:2] + inner[24:]
    back = one(ethernet(ipv4(inner, 4, B4, A4)), flow_key="tunnel").key
    assert reverse_key(there) == back


def test_two_networks_of_one_tunnel_do_not_mix_when_asked():
    keys = [
        one(ethernet(udp(struct.pack("!II", 8 << 24, vni << 8) + ethernet(PLAIN4), 4789)), flow_key="tunnel").key
        for vni in (1, 2)
    ]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_like_packet_will_do(kind):
    assert one(kind(ethernet(PLAIN4))).payload == b"hello"


def test_a_packet_that_carries_its_link_type_is_decoded_by_it():
    class Packet(bytes):
        linktype = 101

    assert one(Packet(PLAIN4)).key == KEY4
    assert PacketDecoder(1).decode(PLAIN4, 0.0, 101)[0].key == KEY4


@pytest.mark.parametrize("packet", ["text", 5, None, [1, 2]])
def test_what_is_not_bytes_is_refused(packet):
    with pytest.raises(PacketTypeError):
        PacketDecoder().decode(packet)
    with pytest.raises(PacketTypeError):
        PacketDecoder().from_dpkt(packet)


@pytest.mark.parametrize(
    "options",
    [{"flow_key": "mpls"}, {"linktype": "Ethernet"}, {"linktype": -1}, {"max_depth": 0}, {"fragment_timeout": -1.0}],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(UsageError):
        PacketDecoder(**options)


@pytest.mark.parametrize("options", [{"max_fragments": 0}, {"max_fragment_bytes": 1000}])
def test_bounds_that_hold_no_datagram_are_refused(options):
    with pytest.raises(LimitsError):
        PacketDecoder(**options)


def test_dpkt_packets_give_what_their_bytes_give():
    dpkt = pytest.importorskip("dpkt")
    cases = [
        *(dpkt.ethernet.Ethernet(frame) for frame in (ethernet(PLAIN4), LINK_FRAMES["vlan"][1])),
        dpkt.ip.IP(PLAIN4),
        dpkt.ip6.IP6(PLAIN6),
        dpkt.sll.SLL(LINK_FRAMES["sll"][1]),
        dpkt.sll2.SLL2(LINK_FRAMES["sll2"][1]),
    ]
    for packet in cases:
        (segment,) = PacketDecoder().from_dpkt(packet, 1.0)
        assert segment.key in (KEY4, KEY6) and segment.payload == b"hello"
    with pytest.raises(PacketTypeError):
        PacketDecoder().from_dpkt(dpkt.tcp.TCP())


def test_the_decoder_imports_without_dpkt():
    for path in pathlib.Path(tcpstitch.decode.__file__).parent.glob("*.py"):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import):
                assert all(name.name.split(".")[0] != "dpkt" for name in statement.names)
            if isinstance(statement, ast.ImportFrom):
                assert (statement.module or "").split(".")[0] != "dpkt"


def test_a_datagram_longer_than_the_layer_around_it_is_dropped() -> None:
    """An IP length beyond the PPPoE length is no snap-length cut: no host would take the datagram."""
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 100, 0, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, 6, 0, b"\x01" * 4, b"\x02" * 4)
    frame = b"\0" * 12 + b"\x88\x64" + struct.pack("!BBHHH", 0x11, 0, 7, 42, 0x21) + ip + tcp + b"\0" * 6
    decoder = PacketDecoder()
    assert decoder.decode(frame) == ()
    assert decoder.counts == {"bad_length": 1}


@pytest.mark.parametrize("name", LINK_FRAMES)
def test_a_packet_of_another_link_type_as_an_ethernet_frame_says_the_same(name):
    linktype, packet = LINK_FRAMES[name]
    for size in range(len(packet), 0, -7):
        frame = as_ethernet(make_packet(linktype, packet[:size]))
        if frame is not None:
            assert frame.__class__ is bytes
            there, here = PacketDecoder(), PacketDecoder()
            found = [values(segment) for segment in there.decode(packet[:size], 0.0, linktype)]
            assert found == [values(segment) for segment in here.decode(frame)]
            assert there.counts == here.counts


def values(segment):
    return (segment.key, segment.seq, segment.flags, segment.payload, segment.length, segment.options, segment.ttl,
            segment.checksum_ok())  # fmt: skip


@pytest.mark.parametrize("linktype", [12, 101, 113, 228, 229, 276])
def test_ordinary_packets_of_link_types_with_bare_ip_become_ethernet_frames(linktype):
    packet = {113: bytes(14) + b"\x08\0", 276: b"\x08\0" + bytes(18)}.get(linktype, b"") + PLAIN4
    assert as_ethernet(make_packet(linktype, packet)) == bytes(12) + b"\x08\0" + PLAIN4
    assert as_ethernet(packet) is None, "plain bytes do not say what they are"
