"""Reading captures: formats and what they say besides packets."""

from __future__ import annotations

import io
import pickle
import struct

import pytest

from support.files import PACKETS, block, enhanced, interface, option, pcap, pcapng, read, section, snoop
from tcpstitch.capture import open_capture


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic, units", [(0xA1B2C3D4, 10**6), (0xA1B23C4D, 10**9), (0xA1B2CD34, 10**6)])
def test_every_pcap_magic_and_byte_order_is_read(order, magic, units):
    assert read(pcap(order=order, magic=magic, units=units)) == PACKETS


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic, extra", [(0xA1B2C3D4, 8), (0xA1B2C3D4, 4), (0xA1B2CD34, 12)])
def test_longer_record_headers_without_a_magic_of_their_own_are_noticed(order, magic, extra):
    raw = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    packets = [(940_000_000 + when, data) for when, data in PACKETS]
    for when, data in packets:
        head = struct.pack(order + "IIII", int(when), int(when % 1 * 1e6), len(data), len(data))
        raw += head + struct.pack(order + "I", 2) + b"\x08\0\x04\0" * (extra // 4 - 1) + data
    assert read(raw) == packets


@pytest.mark.parametrize("magic, units", [(0x1C0001AC, 10**9), (0x1C0001AB, 10**6)])
def test_ixia_files_have_a_longer_file_header(magic, units):
    raw = pcap(magic=magic, units=units)
    assert read(raw[:24] + b"\0\0\0\x99" + raw[24:]) == PACKETS


@pytest.mark.parametrize("version", [(2, 2), (2, 3), (543, 0)])
@pytest.mark.parametrize("swapped", [False, True])
def test_old_versions_may_have_the_two_lengths_the_other_way_round(version, swapped):
    lengths = (9, 4) if swapped else (4, 9)
    raw = struct.pack("<IHHiIII", 0xA1B2C3D4, *version, 0, 0, 65535, 1)
    raw += (struct.pack("<IIII", 5, 500_000, *lengths) + b"abcd") * 3
    assert read(raw) == [(5.5, b"abcd")] * 3


def test_aix_files_have_nanoseconds_and_link_types_of_their_own():
    raw = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 2, 0, 0, 65535, 6)
    raw += struct.pack(">IIII", 5, 500_000_000, 4, 4) + b"abcd"
    with open_capture(io.BytesIO(raw)) as capture:
        assert capture.linktype == 1
        assert list(capture) == [(5.5, b"abcd")]


def test_odd_but_usual_records_are_not_taken_for_another_dialect():
    raw = pcap([])
    for number in range(5):
        raw += struct.pack("<IIII", 10 + number, 2_000_000, 60, 40) + bytes(60)
    assert [when for when, _ in read(raw)] == [12.0, 13.0, 14.0, 15.0, 16.0]


@pytest.mark.parametrize("later, wire", [(1_523_351_398, 94), (2, 40)], ids=["a clock that is set", "an odd length"])
def test_records_of_the_first_days_of_1970_are_not_taken_for_another_dialect(later, wire):
    """What lies four bytes behind one of them looks like a record as well: microseconds, and the length twice."""
    raw = pcap([])
    for seconds in (1, later, later):
        raw += struct.pack("<IIII", seconds, 500_000, 94, wire if seconds > 1 else 94) + b"\0\0\1\0\0\0" + b"\xff" * 88
    assert [when for when, _ in read(raw)] == [1.5, later + 0.5, later + 0.5]


def test_ethernet_packets_are_exactly_bytes_and_others_carry_their_link_type():
    ((_, plain),) = read(pcap([(1.0, b"x")]))
    with open_capture(io.BytesIO(pcap([(1.0, b"x")], linktype=101))) as capture:
        assert capture.linktype == 101
        ((_, raw),) = capture
    assert type(plain) is bytes
    assert isinstance(raw, bytes) and raw == b"x" and raw.linktype == 101


def test_packets_of_other_link_types_can_be_pickled():
    ((_, packet),) = read(pcap([(1.0, b"x")], linktype=113))
    copy = pickle.loads(pickle.dumps(packet))
    assert copy == b"x" and copy.linktype == 113


def test_frame_check_bits_of_a_pcap_header_are_no_part_of_the_link_type():
    with open_capture(io.BytesIO(pcap(linktype=0x24000001))) as capture:
        assert (capture.linktype, capture.fcs_bytes) == (1, 4)


def test_packets_across_and_beyond_the_block_size_come_whole():
    packets = [(float(n), bytes([n % 256]) * (n * 977 % 70_000)) for n in range(60)] + [(99.0, b"z" * 1_000_000)]
    assert read(pcap(packets)) == packets
    assert read(snoop(packets)) == packets
    ng = section() + interface() + b"".join(enhanced(int(when) * 10**6, data) for when, data in packets)
    assert read(ng) == packets


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_is_read_in_both_byte_orders(order):
    assert read(pcapng(order=order)) == PACKETS


def test_pcapng_sections_have_their_own_byte_order_and_interfaces():
    raw = pcapng() + section(">") + interface(101, ">") + enhanced(5_000_000, b"raw", order=">")
    records = read(raw)
    assert records[:3] == PACKETS
    assert records[3] == (5.0, b"raw") and records[3][1].linktype == 101


def test_pcapng_interfaces_keep_their_link_type_resolution_and_offset():
    nanos = option(9, b"\x09") + option(0, b"")
    binary = option(9, b"\x8a") + option(14, struct.pack("<q", 100))
    raw = section() + interface(1, options=nanos) + interface(101, options=binary)
    raw += enhanced(1_500_000_000, b"a") + enhanced(1536, b"b", index=1) + enhanced(2_000_000_000, b"c")
    with open_capture(io.BytesIO(raw)) as capture:
        seen = [(when, bytes(packet), getattr(packet, "linktype", 1), capture.linktype) for when, packet in capture]
    assert seen == [(1.5, b"a", 1, 1), (101.5, b"b", 101, 101), (2.0, b"c", 1, 1)]


def test_simple_and_obsolete_packet_blocks_are_read_and_unknown_blocks_skipped():
    old = struct.pack("<HHIIII", 0, 0, 0, 7_000_000, 3, 3) + b"old\0"
    simple = struct.pack("<I", 100) + b"snapped!"
    raw = section() + interface(snaplen=7) + block(0xBAD, b"?" * 3_000_000) + block(2, old) + block(3, simple)
    assert read(raw) == [(7.0, b"old"), (7.0, b"snapped")]


def test_comments_and_host_names_are_kept_on_the_capture():
    names = struct.pack("<HH", 1, 8) + bytes([192, 0, 2, 1]) + b"web\0" + struct.pack("<HH", 0, 0)
    raw = section(options=option(1, b"whole")) + interface(options=option(1, b"card")) + block(4, names)
    raw += enhanced(1, b"abcde", options=option(1, "päck".encode()))
    with open_capture(io.BytesIO(raw)) as capture:
        assert len(list(capture)) == 1
        assert [(c.where, c.text) for c in capture.comments] == [
            ("section", "whole"), ("interface", "card"), ("packet", "päck"),
        ]  # fmt: skip
        assert capture.names == {"192.0.2.1": "web"}


def test_comments_do_not_grow_without_bound():
    raw = section() + interface() + enhanced(1, b"", options=option(1, b"c" * 5000)) * 1500
    with open_capture(io.BytesIO(raw)) as capture:
        assert len(list(capture)) == 1500
        assert len(capture.comments) == 1000 and len(capture.comments[0].text) == 4096


def test_host_names_do_not_grow_without_bound():
    """The first 10 000 stay, and the first of each address."""

    def named(number, name):
        return struct.pack("<HH", 1, 8) + bytes([10, 0, number >> 8, number & 0xFF]) + name

    records = b"".join(named(number, b"abc\0") for number in range(12_000))
    raw = section() + interface() + block(4, records + named(0, b"new\0")) + enhanced(1, b"abcde")
    with open_capture(io.BytesIO(raw)) as capture:
        assert len(list(capture)) == 1
        assert len(capture.names) == 10_000 and set(capture.names.values()) == {"abc"}


def test_snoop_data_links_become_pcap_link_types():
    assert read(snoop()) == PACKETS
    for datalink, linktype in ((8, 10), (0x18, 1), (0x19, 1), (0x80000005, 226)):
        with open_capture(io.BytesIO(snoop(datalink=datalink))) as capture:
            assert capture.linktype == linktype
    with open_capture(io.BytesIO(snoop(datalink=77))) as capture:
        assert capture.linktype > 0xFFFF
