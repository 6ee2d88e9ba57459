"""Reading captures: formats, sources, damage."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import pickle
import struct
import sys
import threading
import warnings

import pytest

from tcpstitch.capture import open_capture
from tcpstitch.errors import CaptureError, CaptureWarning, UsageError

PACKETS = [(1000.25, b"first packet"), (1001.5, b""), (1002.75, b"third" * 50)]


def pcap(packets=PACKETS, order="<", magic=0xA1B2C3D4, linktype=1, units=10**6):
    extra = b"\0" * 8 if magic == 0xA1B2CD34 else b""
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, linktype)]
    for when, data in packets:
        head = struct.pack(order + "IIII", int(when), int(when % 1 * units), len(data), len(data) + 7)
        out.append(head + extra + data)
    return b"".join(out)


def block(kind, body, order="<"):
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(order="<", options=b""):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options, order)


def interface(linktype=1, order="<", snaplen=0, options=b""):
    return block(1, struct.pack(order + "HHI", linktype, 0, snaplen) + options, order)


def enhanced(ticks, data, index=0, order="<", options=b""):
    head = struct.pack(order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(6, head + data + b"\0" * (-len(data) % 4) + options, order)


def snoop(packets=PACKETS, datalink=4):
    out = [b"snoop\0\0\0" + struct.pack(">II", 2, datalink)]
    for when, data in packets:
        pad = -len(data) % 4
        head = struct.pack(">IIIIII", len(data), len(data), 24 + len(data) + pad, 0, int(when), int(when % 1 * 1e6))
        out.append(head + data + b"\0" * pad)
    return b"".join(out)


def pcapng(order="<"):
    return (
        section(order)
        + interface(order=order)
        + b"".join(enhanced(int(when * 10**6), data, order=order) for when, data in PACKETS)
    )


def read(raw, **options):
    with open_capture(io.BytesIO(raw), **options) as capture:
        return list(capture)


def damaged(raw):
    with open_capture(io.BytesIO(raw)) as capture, pytest.warns(CaptureWarning):
        return list(capture), capture.warnings


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
    assert read(pcapng(order)) == PACKETS


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


def test_snoop_data_links_become_pcap_link_types():
    assert read(snoop()) == PACKETS
    with open_capture(io.BytesIO(snoop(datalink=8))) as capture:
        assert capture.linktype == 10
    with open_capture(io.BytesIO(snoop(datalink=77))) as capture:
        assert capture.linktype > 0xFFFF


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_captures_are_recognised_by_content_also_in_several_members(compress):
    raw = pcap()
    assert read(compress(raw)) == PACKETS
    assert read(compress(raw[:50]) + compress(raw[50:])) == PACKETS
    assert read(compress(raw) + b"\0" * 512) == PACKETS


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_cut_compressed_capture_warns_or_is_refused(compress):
    packed = compress(pcap([(float(n), bytes([n * 7 % 256, n]) * n) for n in range(200)]))
    for cut in range(1, len(packed) - 1, 7):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                read(packed[:cut])
            except CaptureError:
                continue
        assert [item.category for item in caught] == [CaptureWarning]


@pytest.mark.parametrize(
    "kind, magic, modules",
    [("zstd", b"\x28\xb5\x2f\xfd", ["compression.zstd", "zstandard"]), ("lz4", b"\x04\x22\x4d\x18", ["lz4.frame"])],
)
def test_a_missing_extra_is_named(monkeypatch, kind, magic, modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CaptureError, match=rf"tcpstitch\[{kind}\]"):
        open_capture(io.BytesIO(magic + b"\0" * 40))


def test_zstd_and_lz4_are_read_where_their_extra_is_installed():
    zstandard = pytest.importorskip("zstandard")
    lz4 = pytest.importorskip("lz4.frame")
    assert read(zstandard.compress(pcap())) == PACKETS
    assert read(zstandard.compress(pcap()[:50]) + zstandard.compress(pcap()[50:])) == PACKETS
    assert read(lz4.compress(pcap())) == PACKETS


def test_a_path_is_opened_and_closed(tmp_path):
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap())
    for source in (path, str(path)):
        with open_capture(source) as capture:
            assert capture.name == str(path)
            assert list(capture) == PACKETS


def test_a_file_object_stays_open_and_standard_input_is_a_dash(monkeypatch):
    file = io.BytesIO(pcap())
    with open_capture(file) as capture:
        assert list(capture) == PACKETS
    assert not file.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcapng())))
    with open_capture("-") as capture:
        assert capture.name == "standard input"
        assert list(capture) == PACKETS


def test_several_sources_are_merged_in_time_order():
    one = io.BytesIO(pcap([(1.0, b"a"), (3.0, b"c"), (5.0, b"e")]))
    two = io.BytesIO(pcap([(2.0, b"b"), (4.0, b"d")], linktype=101))
    with open_capture([one, two]) as capture:
        seen = [(when, bytes(packet), capture.linktype) for when, packet in capture]
    assert seen == [(1.0, b"a", 1), (2.0, b"b", 101), (3.0, b"c", 1), (4.0, b"d", 101), (5.0, b"e", 1)]


def test_a_ring_buffer_of_more_files_than_may_be_open_is_merged(tmp_path):
    resource = pytest.importorskip("resource")
    paths = []
    for number in range(120):
        paths.append(tmp_path / f"ring{number}.pcap")
        paths[-1].write_bytes(pcap([(number + 0.25, b"x"), (number + 1.5, b"y")] if number % 9 else []))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
    try:
        with open_capture(paths[::-1]) as capture:
            times = [when for when, _ in capture]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(times) == 212 and times == sorted(times)


def test_merged_files_warn_once_each(tmp_path):
    paths = [tmp_path / "one.pcap", tmp_path / "two.pcap"]
    for path in paths:
        path.write_bytes(pcap()[:-1])
    with open_capture(paths) as capture, pytest.warns(CaptureWarning) as caught:
        assert [when for when, _ in capture] == [1000.25, 1000.25, 1001.5, 1001.5]
    assert len(caught) == len(capture.warnings) == 2


def test_a_capture_read_to_its_end_leaves_no_file_open(tmp_path):
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(open_capture(path)) == PACKETS
        assert list(open_capture([path, path])) == sorted(PACKETS * 2)
        gc.collect()


@pytest.mark.parametrize("cut_at", [24, 30, 60])
def test_a_followed_file_is_waited_for(tmp_path, cut_at):
    path = tmp_path / "growing.pcap"
    raw = pcap()
    path.write_bytes(raw[:cut_at])
    with open_capture(path, follow=True, poll_seconds=0.01) as capture:
        writer = threading.Timer(0.05, lambda: path.write_bytes(raw))
        writer.start()
        records = iter(capture)
        assert [next(records) for _ in PACKETS] == PACKETS
        writer.join()


def test_closing_ends_the_wait_for_a_followed_file_without_a_warning(tmp_path):
    path = tmp_path / "growing.pcap"
    path.write_bytes(pcap()[:-3])
    with open_capture(path, follow=True, poll_seconds=0.01) as capture:
        threading.Timer(0.05, capture.close).start()
        assert list(capture) == PACKETS[:2]
        assert capture.warnings == []


def test_closing_in_the_middle_ends_the_iteration_without_a_warning(tmp_path):
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([(1.0, b"x" * 1000)] * 2000))
    capture = open_capture(path)
    assert next(iter(capture)) == (1.0, b"x" * 1000)
    capture.close()
    capture.close()
    assert len(list(capture)) < 1999
    assert capture.warnings == []


def test_following_can_end_after_a_silence(tmp_path):
    path = tmp_path / "done.pcap"
    path.write_bytes(pcap())
    with open_capture(path, follow=True, poll_seconds=0.01, idle_seconds=0.03) as capture:
        assert list(capture) == PACKETS


@pytest.mark.parametrize("raw", [pcap(), pcap(magic=0xA1B2CD34), pcapng(), pcapng(">"), snoop()])
def test_a_capture_cut_anywhere_gives_its_whole_packets_and_a_warning(raw):
    for cut in range(len(raw)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with open_capture(io.BytesIO(raw[:cut])) as capture:
                    records = list(capture)
            except CaptureError:
                assert cut < 28
                continue
        assert records == PACKETS[: len(records)] and len(records) < len(PACKETS)
        assert [str(item.message) for item in caught] == capture.warnings
        assert len(caught) <= 1


def test_the_warning_names_the_capture_and_the_offset_of_the_cut_packet(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap()[:-1])
    with open_capture(path) as capture, pytest.warns(CaptureWarning, match="cut.pcap: at byte 68"):
        assert list(capture) == PACKETS[:2]


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x10000001, 100_000_000])
def test_an_absurd_length_ends_the_capture_with_a_warning(length):
    records, said = damaged(pcap() + struct.pack("<IIII", 1, 1, length, length) + b"rest")
    assert records == PACKETS and len(said) == 1
    records, said = damaged(snoop() + struct.pack(">IIIIII", length, length, 24, 0, 1, 1) + b"rest")
    assert records == PACKETS and len(said) == 1
    records, said = damaged(pcapng() + struct.pack("<II", 6, length & ~3) + b"rest of it")
    assert records == PACKETS and len(said) == 1


def test_a_pcapng_packet_that_contradicts_its_block_is_skipped_with_a_warning():
    lying = block(6, struct.pack("<IIIII", 0, 0, 0, 999, 999) + b"abcd")
    records, said = damaged(section() + interface() + lying + enhanced(1, b"x", index=4) + enhanced(10**6, b"good"))
    assert records == [(1.0, b"good")] and len(said) == 2


@pytest.mark.parametrize("raw", [b"", b"\xd4\xc3", b"GET / HTTP/1.1\r\n\r\n", pcap()[:23], gzip.compress(b"no")])
def test_what_is_no_capture_is_refused_at_open_with_its_first_bytes(raw):
    with pytest.raises(CaptureError, match="it is empty|begins with [0-9a-f]{2} "):
        open_capture(io.BytesIO(raw))


def test_a_file_that_cannot_be_opened_is_a_capture_error(tmp_path):
    with pytest.raises(CaptureError, match=r"absent\.pcap"):
        open_capture(tmp_path / "absent.pcap")
    with pytest.raises(CaptureError):
        open_capture(tmp_path)


@pytest.mark.parametrize("source", [5, None, [], io.StringIO("text")])
def test_an_unusable_source_is_a_usage_error(source):
    with pytest.raises(UsageError):
        open_capture(source)


def test_follow_refuses_several_sources():
    with pytest.raises(UsageError):
        open_capture([io.BytesIO(pcap()), io.BytesIO(pcap())], follow=True)
