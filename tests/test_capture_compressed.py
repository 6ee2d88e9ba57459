"""Reading captures: compressed ones."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import random
import struct
import sys
import warnings
import weakref

import pytest

from support.files import PACKETS, pcap, read
from tcpstitch.capture import open_capture
from tcpstitch.errors import CaptureError, CaptureWarning


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_captures_are_recognised_by_content_also_in_several_members(compress):
    raw = pcap()
    assert read(compress(raw)) == PACKETS
    assert read(compress(raw[:50]) + compress(raw[50:])) == PACKETS
    assert read(compress(raw) + b"\0" * 512) == PACKETS
    assert read(compress(raw[:50]) + b"\0" * 100_000 + compress(raw[50:])) == PACKETS


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("first", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 300_000, 1 << 19])
def test_each_member_is_read_once_also_where_one_unpacks_to_more_than_is_asked_for_at_a_time(compress, first):
    raw = pcap([(float(n), bytes([n]) * 5000) for n in range(120)])
    packed = compress(raw[:first]) + compress(raw[first:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(packed) == read(raw)


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="its collector frees everything")
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("several", [False, True])
def test_a_capture_goes_with_its_last_user_and_does_not_wait_for_the_collector(compress, several):
    """What unpacks the files of a ring buffer takes megabytes for each."""
    file = io.BytesIO(compress(pcap()))
    held = weakref.ref(file)
    gc.disable()
    try:
        with open_capture([file, io.BytesIO(pcap())] if several else file) as capture:
            assert len(list(capture)) == (6 if several else 3)
        del file, capture
        assert held() is None
    finally:
        gc.enable()


def warnings_of(packed):
    """What is warned of while it is read; None if it is refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read(packed)
        except CaptureError:
            return None
    return [item.category for item in caught]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_cut_compressed_capture_warns_or_is_refused(compress):
    packed = compress(pcap([(float(n), bytes([n * 7 % 256, n]) * n) for n in range(200)]))
    for cut in range(1, len(packed) - 1, 7):
        assert warnings_of(packed[:cut]) in (None, [CaptureWarning])


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
@pytest.mark.parametrize("rest", [b"", random.Random(9).randbytes(50_000)], ids=["cut", "damaged"])
def test_what_the_caller_unpacks_may_be_cut_or_damaged_as_well(module, rest):
    """Each of these modules raises other exceptions."""
    packed = module.compress(pcap([(float(n), random.Random(n).randbytes(175_000).hex().encode()) for n in range(4)]))
    unpacked = module.open(io.BytesIO(packed[: len(packed) * 3 // 4] + rest))
    with open_capture(unpacked) as capture, pytest.warns(CaptureWarning, match=r"^<.*cannot be read: "):
        assert 1 <= len(list(capture)) < 4


@pytest.mark.parametrize(
    "kind, magic, modules",
    [("zstd", b"\x28\xb5\x2f\xfd", ["compression.zstd", "zstandard"]), ("lz4", b"\x04\x22\x4d\x18", ["lz4.frame"])],
)
def test_what_is_not_installed_is_named_as_pip_knows_it(monkeypatch, kind, magic, modules):
    package = {"zstd": "zstandard", "lz4": "lz4"}[kind]
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CaptureError, match=f"with {kind}: to read it, pip install {package}, "):
        open_capture(io.BytesIO(magic + b"\0" * 40))


def test_zstd_and_lz4_are_read_where_their_extra_is_installed():
    zstandard = pytest.importorskip("zstandard")
    lz4 = pytest.importorskip("lz4.frame")
    assert read(zstandard.compress(pcap())) == PACKETS
    assert read(zstandard.compress(pcap()[:50]) + zstandard.compress(pcap()[50:])) == PACKETS
    assert read(lz4.compress(pcap())) == PACKETS


def skippable(size, low=0):
    return struct.pack("<II", 0x184D2A50 + low, size) + bytes(size)


class ByteByByte(io.BytesIO):
    def read1(self, size=-1):
        return super().read1(1)


@pytest.mark.parametrize("module, package", [("zstandard", "zstandard"), ("lz4.frame", "lz4")])
def test_frames_to_be_skipped_are_so_wherever_they_stand(module, package):
    """pzstd writes one before each frame of data."""
    compress = pytest.importorskip(module, reason=f"needs {package}").compress
    first, second = compress(pcap()[:50]), compress(pcap()[50:])
    for before in (skippable(4), skippable(0) * 3, skippable(40_000, 15) + skippable(4, 14)):
        for whole in (before + first + second, first + before + second, first + second + before):
            assert read(whole) == PACKETS
            with open_capture(ByteByByte(whole)) as capture:
                assert list(capture) == PACKETS


@pytest.mark.parametrize(
    "begin",
    [
        skippable(4),
        skippable(4)[:-1],
        skippable(4) * 3 + pcap(),
        skippable(4) + gzip.compress(pcap()),
        struct.pack("<II", 0x184D2A5F, 2**32 - 1) + b"x" * 100_000,
        skippable(0) * 100_000,
    ],
)
def test_frames_to_be_skipped_with_no_capture_behind_them_soon_are_refused(begin):
    """Nothing is read of the file behind the block in which that is known."""
    file = io.BytesIO(begin + bytes(10_000_000))
    with pytest.raises(CaptureError, match="is no pcap, pcapng or snoop capture"):
        open_capture(file)
    assert file.tell() < 1_000_000


@pytest.mark.parametrize(
    "compress, trailer, lost", [(gzip.compress, 8, 0), (bz2.compress, 4, 4), (lzma.compress, 12, 4)]
)
def test_a_wrong_check_sum_behind_the_data_costs_gzip_nothing_and_others_two_kilobytes(compress, trailer, lost):
    """What the library had unpacked before it found out is there all the same."""
    raw = pcap([(float(n), bytes([n * 7 % 256, n]) * 300) for n in range(100)])
    packed = bytearray(compress(raw))
    packed[-trailer] ^= 0x55
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        packets = read(bytes(packed))
    assert packets == read(raw)[: len(packets)] and len(packets) >= 100 - lost
    assert [item.category for item in caught] == [CaptureWarning]


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, 0.95])
def test_what_lies_before_damage_inside_gzip_comes(place):
    """All packets but those whose bytes the damaged part holds; none of them is wrong."""
    data = random.Random(4)
    raw = pcap([(float(n), bytes(data.randrange(256) for _ in range(200))) for n in range(200)])
    packed = bytearray(gzip.compress(raw, 1))
    at = int(len(packed) * place)
    packed[at : at + 400] = b"\xff" * 400
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packets = read(bytes(packed))
    whole = read(raw)
    right = sum(given == meant for given, meant in zip(packets, whole))
    assert right >= int(200 * place) - 2
    assert packets[:right] == whole[:right]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_followed_compressed_file_goes_on_wherever_it_was_cut(tmp_path, compress):
    """The first member is whole when the file is opened, the second one comes in two pieces."""
    raw = pcap()
    first, second = compress(raw[:60]), compress(raw[60:])
    path = tmp_path / "grows"
    for cut in range(1, len(second), 5):
        path.write_bytes(first + second[:cut])
        with open_capture(path, follow=True, poll_seconds=0.001, idle_seconds=0.02) as capture:
            with path.open("ab") as more:
                more.write(second[cut:])
            assert list(capture) == PACKETS
        assert capture.warnings == []


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_followed_compressed_file_that_is_still_being_written_is_not_damaged(tmp_path, compress):
    raw = pcap()
    path = tmp_path / "grows"
    for rest in (raw[60:], raw[60:100]):
        path.write_bytes(compress(raw[:60]) + compress(rest)[:-9])
        with open_capture(path, follow=True, poll_seconds=0.001, idle_seconds=0.02) as capture:
            got = list(capture)
            assert got == PACKETS[: len(got)]
        assert capture.warnings == []


def zstd_forms():
    """The same capture as zstd may have it: with sizes, checksums, several frames, some to be skipped, none packed."""
    zstandard = pytest.importorskip("zstandard")
    raw = pcap([(float(n), bytes([n * 7 % 256, n]) * n) for n in range(200)])
    noise = random.Random(1).randbytes(300_000)  # blocks that are stored as they are
    stored = pcap([(float(n), noise[n * 1000 : n * 1000 + 1000]) for n in range(300)])
    repeated = pcap([(float(n), b"x" * 60_000) for n in range(20)])
    compressor = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
    streamed = compressor.compressobj()
    return [
        zstandard.compress(raw), compressor.compress(stored), zstandard.compress(repeated),
        streamed.compress(raw[:9000]) + streamed.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        + streamed.compress(raw[9000:]) + streamed.flush(),
        zstandard.compress(raw[:50]) + skippable(70_000) + compressor.compress(raw[50:]) + skippable(3),
    ]  # fmt: skip


@pytest.mark.parametrize("form", range(5))
def test_zstd_data_that_is_cut_anywhere_is_not_taken_for_whole(form):
    packed = zstd_forms()[form]
    assert warnings_of(packed) == []
    last = packed.rindex(b"\x28\xb5\x2f\xfd")  # the frame after which nothing but one to be skipped comes
    for cut in range(1, len(packed), max(1, len(packed) // 300)):
        whole = form == 4 and len(packed) - 11 == cut > last
        assert warnings_of(packed[:cut]) in (([],) if whole else (None, [CaptureWarning])), cut
