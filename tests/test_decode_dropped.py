"""What no host takes, and lengths that contradict each other or say nothing."""

from __future__ import annotations

import struct

import pytest

from decode_frames import A6, B6, PLAIN4, TUNNEL_FRAMES, ethernet, frame80211, ipv6, llc, tcp
from tcpstitch.decode import PacketDecoder

VXLAN = TUNNEL_FRAMES["vxlan"]
_UDP_LENGTH, _OUTER_TOTAL = 14 + 20 + 4, 14 + 2


def counted(packet: bytes, linktype: int = 1) -> dict:
    decoder = PacketDecoder(linktype)
    assert decoder.decode(packet) == ()
    return decoder.counts


def put(packet: bytes, at: int, number: int) -> bytes:
    return packet[:at] + struct.pack("!H", number) + packet[at + 2 :]


@pytest.mark.parametrize("more", [1, -1])
def test_a_udp_length_beyond_that_of_ip_or_short_of_the_frame_inside_is_refused(more):
    assert counted(put(VXLAN, _UDP_LENGTH, len(VXLAN) - 34 + more)) == {"bad_length": 1}


@pytest.mark.parametrize("length", [1, 7])
def test_a_udp_length_shorter_than_its_header_cannot_be(length):
    assert counted(put(VXLAN, _UDP_LENGTH, length)) == {"bad_header": 1}


def test_a_udp_length_of_zero_says_nothing():
    (segment,) = PacketDecoder().decode(put(VXLAN, _UDP_LENGTH, 0))
    assert segment.payload == b"hello"


@pytest.mark.parametrize("udp_length", [0, len(VXLAN) - 34])
def test_an_outer_length_of_zero_sets_no_end_for_what_a_snap_length_cut(udp_length):
    """Segmentation offload: the frame inside is longer than what was captured, not than what is around it."""
    packet = put(put(VXLAN, _OUTER_TOTAL, 0), _UDP_LENGTH, udp_length)
    (segment,) = PacketDecoder().decode(packet[:-2])
    assert (segment.payload, segment.length) == (b"hel", 5)


def test_an_outer_ipv6_length_of_zero_sets_no_end_either():
    packet = ethernet(ipv6(PLAIN4, 4, length=0), 0x86DD)
    (segment,) = PacketDecoder().decode(packet[:-2])
    assert (segment.payload, segment.length) == (b"hel", 5)


@pytest.mark.parametrize("length", [0, 8 + len(tcp()), 0xFFFF])
def test_a_jumbo_payload_that_is_none_is_dropped(length):
    """RFC 2675 3: a length below 65 536 is an error."""
    hop_by_hop = struct.pack("!BBBBI", 6, 0, 0xC2, 4, length)
    packet = ethernet(ipv6(hop_by_hop + tcp(b"x" * 70_000, A6, B6), 0, length=0), 0x86DD)
    assert counted(packet) == {"bad_ip_header": 1}


@pytest.mark.parametrize("header", [135, 139])
def test_nothing_follows_a_mobility_header_or_that_of_hip(header):
    """RFC 6275 9.2, RFC 7401 5.1."""
    packet = ethernet(ipv6(bytes((6, 0)) + bytes(6) + tcp(source=A6, destination=B6), header), 0x86DD)
    assert counted(packet) == {"not_tcp": 1}


def test_a_wireless_frame_of_another_version_is_no_data():
    assert counted(frame80211(llc(PLAIN4), control=0x09), 105) == {"not_ip": 1}
