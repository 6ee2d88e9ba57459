"""Reading captures: what is cut, damaged or no capture at all."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import itertools
import lzma
import random
import struct
import warnings

import pytest

from support.files import PACKETS, block, damaged, enhanced, interface, pcap, pcapng, section, snoop
from support.recorder import Recorder
from tcpstitch import Assembler
from tcpstitch.capture import open_capture
from tcpstitch.errors import CaptureError, CaptureWarning


@pytest.mark.parametrize("raw", [pcap(), pcap(magic=0xA1B2CD34), pcapng(), pcapng(order=">"), snoop()])
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


@pytest.mark.parametrize("sized", [False, True])
def test_the_warning_names_the_offset_of_a_cut_block_that_nobody_needs(tmp_path, sized):
    """Whether the size of the file is known, so that it need not be read to its end, or not."""
    path = tmp_path / "cut.pcapng"
    path.write_bytes(pcapng() + struct.pack("<II", 0x0BAD, 1 << 30) + b"rest" * 100)
    source = path if sized else io.BytesIO(path.read_bytes())
    with open_capture(source) as capture, pytest.warns(CaptureWarning, match=f"at byte {len(pcapng())}: the file ends"):
        assert list(capture) == PACKETS


@pytest.mark.parametrize("kind", [pcap, pcapng, snoop])
@pytest.mark.parametrize("way", ["loop", "run"])
def test_a_cut_header_behind_a_packet_that_fills_the_reader_s_memory_is_reported(tmp_path, kind, way):
    """What was read so far ends with a packet; too little for another one is left, which no reader asks for."""
    path = tmp_path / "cut"
    whole = kind([(1000.25, bytes(300_000))]) if kind is not pcapng else pcapng() + enhanced(10**6, bytes(300_000))
    path.write_bytes(whole + b"abc")
    with open_capture(path) as capture, pytest.warns(CaptureWarning, match=f"at byte {len(whole)}: the file ends"):
        if way == "run":
            Assembler(Recorder()).run(capture)
        else:
            assert len(list(capture)[-1][1]) == 300_000
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_capture(path) as capture:
            assert len(list(capture)[-1][1]) == 300_000


def test_the_warning_names_the_capture_and_the_offset_of_the_cut_packet(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap()[:-1])
    with open_capture(path) as capture, pytest.warns(CaptureWarning, match="cut.pcap: at byte 68"):
        assert list(capture) == PACKETS[:2]


class Trickle:
    """A source without an end, so many bytes at a time."""

    def __init__(self, begin, step):
        self.begin = begin
        self.step = step

    def read(self, size):
        if self.begin:
            begin, self.begin = self.begin, b""
            return begin
        return bytes(min(size, self.step))


@pytest.mark.parametrize("length, step", [(1 << 28, 1 << 20), ((1 << 24) - 64, 1 << 20), ((1 << 24) - 64, 64)])
def test_what_a_record_claims_takes_at_most_48_mebibytes(length, step):
    """Also where the source holds it, as one that is compressed well may, and gives it in small pieces."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    begins = [
        pcap() + struct.pack("<IIII", 1, 1, length, length),
        snoop() + struct.pack(">IIIIII", length - 24, length - 24, length, 0, 1, 1),
        pcapng() + struct.pack("<IIIIIII", 6, length, 0, 0, 0, length - 32, length - 32),
    ]
    for begin in begins[: 3 if step > 64 else 1]:  # small pieces take long
        with warnings.catch_warnings(), open_capture(Trickle(begin, step)) as capture:
            warnings.simplefilter("ignore")
            records = iter(capture)
            tracemalloc.start()
            try:
                sizes = [len(record[1]) for record in itertools.islice(records, 4)]
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert len(sizes) == 3 + (length < 1 << 24)
        assert peak < 49 << 20


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_source_that_cannot_be_read_any_further_is_not_called_damaged(pack):
    """Compressed or not."""
    raw = pcap([(float(n), random.Random(n).randbytes(1000)) for n in range(40)])
    reads = [OSError(errno.EIO, "Input/output error"), pack(raw[8000:])[:999], pack(raw[:8000])]

    class Failing:
        def read(self, size):
            if isinstance(reads[-1], OSError):
                raise reads[-1]
            return reads.pop()

    with open_capture(Failing()) as capture, pytest.warns(CaptureWarning, match=r"\(cannot be read: "):
        assert len(list(capture)) > 3


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x1000001, 100_000_000])
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


@pytest.mark.parametrize(
    "raw, said",
    [
        (b"", "it is empty"),
        (b"\xd4\xc3", r"begins with b'\\xd4\\xc3'"),
        (b"GET / HTTP/1.1\r\n\r\n", r"begins with b'GET / HTTP/1.1\\r\\n'"),
        (gzip.compress(b"no"), "begins with b'no'"),
        (gzip.compress(b"no")[:12], "begins with b'n' .damaged gzip data: it ends early"),
        (pcap()[:23], "ends inside the header"),
        (pcapng()[:11], "ends inside the header"),
        (snoop()[:15], "ends inside the header"),
    ],
)
def test_what_is_no_capture_is_refused_at_open_with_its_first_bytes(raw, said):
    """But for one that is cut in its header: that is no other format."""
    with pytest.raises(CaptureError, match=said):
        open_capture(io.BytesIO(raw))


def test_a_flood_of_interfaces_takes_bounded_memory_and_says_so():
    """Each may have a link type of its own, and each link type's packets a class of their own."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    flood = b"".join(interface(number & 0xFFFF) for number in range(75_000))
    raw = section() + flood + enhanced(5 * 10**6, b"last", 65535) + enhanced(6 * 10**6, b"beyond", 70_000)
    source = io.BytesIO(raw)
    tracemalloc.start()
    try:
        with open_capture(source) as capture, pytest.warns(CaptureWarning, match="interface"):
            records = list(capture)
            grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert [(when, bytes(data), data.linktype) for when, data in records] == [(5.0, b"last", 65535)]
    assert len(capture.warnings) == 100
    assert grown < 30 << 20


def test_packets_of_more_link_types_than_there_are_keep_theirs():
    """No honest capture has so many; what each needs is forgotten with its packets."""
    raw = section() + b"".join(interface(number + 300) for number in range(600))
    raw += b"".join(enhanced(number, bytes([number & 0xFF]), number) for number in range(600))
    with open_capture(io.BytesIO(raw)) as capture:
        records = list(capture)
    assert [data.linktype for _, data in records] == list(range(300, 900))


def test_packets_of_ever_new_link_types_take_bounded_memory():
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    raw = section() + b"".join(interface(1000 + number) + enhanced(1, b"x", number) for number in range(8000))
    source = io.BytesIO(raw)
    with open_capture(source) as capture:
        tracemalloc.start()
        try:
            count = sum(1 for _ in capture)
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert count == 8000
    assert grown < 500 * 8000  # an interface takes half of that; with a class for each as well it is 1 700
