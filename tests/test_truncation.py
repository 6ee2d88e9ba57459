"""Captures cut at hundreds of places: whole packets come, what assembles them does not mind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import warnings
from pathlib import Path
from typing import List, Tuple

import pytest

from small_captures import exchange
from support import files
from support.recorder import Recorder
from tcpstitch import Assembler, open_capture
from tcpstitch.errors import CaptureError, CaptureWarning

CAPTURES = Path(__file__).parent / "captures"
SAMPLES = sorted(CAPTURES.glob("*.pcap"))
PACKETS: List[Tuple[float, bytes]] = [
    (1000.0 + number, packet) for number, packet in enumerate(exchange() + exchange(client=("10.0.0.3", 5)))
]
GENERATED = {
    "pcap": files.pcap(PACKETS),
    "pcap, big-endian": files.pcap(PACKETS, ">"),
    "pcap, nanoseconds": files.pcap(PACKETS, magic=0xA1B23C4D, units=10**9),
    "pcap, patched": files.pcap(PACKETS, magic=0xA1B2CD34),
    "pcapng": files.section() + files.interface() + b"".join(
        files.enhanced(int(when * 10**6), data, options=files.option(1, b"a comment")) for when, data in PACKETS
    ),
    "pcapng, two sections": files.pcapng() + files.section(">") + files.interface(order=">") + b"".join(
        files.enhanced(int(when * 10**6), data, order=">") for when, data in PACKETS
    ),
    "snoop": files.snoop(PACKETS),
}  # fmt: skip
COMPRESSORS = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def positions(size: int, count: int = 300) -> List[int]:
    """All ends of a small file, else a few hundred places, its first and last bytes among them."""
    if size <= 2 * count:
        return list(range(size))
    chosen = random.Random(size).sample(range(size), count - 60)
    return sorted({*range(40), *range(size - 20, size), *chosen})


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_recorded_capture_cut_anywhere_gives_all_packets_before_the_cut(path: Path) -> None:
    raw = path.read_bytes()
    files.cut_anywhere(raw, positions(len(raw)))


@pytest.mark.parametrize("kind", GENERATED)
def test_a_capture_of_any_format_cut_anywhere_gives_all_packets_before_the_cut(kind: str) -> None:
    files.cut_anywhere(GENERATED[kind], positions(len(GENERATED[kind])))


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("kind", ["pcap", "pcapng", "snoop"])
def test_a_compressed_capture_cut_anywhere_gives_a_beginning_of_its_packets(compressor: str, kind: str) -> None:
    """How much a decompressor gives before the cut is its own business; order and content are not."""
    raw = COMPRESSORS[compressor](GENERATED[kind])
    whole = files.read(raw)
    for cut in positions(len(raw)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                records = files.read(raw[:cut])
            except CaptureError:
                continue
        assert records == whole[: len(records)]
        assert {item.category for item in caught} <= {CaptureWarning}
        assert caught or len(records) == len(whole)


@pytest.mark.parametrize("kind", [*GENERATED, "lossy-v4"])
def test_what_is_left_of_a_capture_is_assembled_to_the_same_bytes_at_their_places(kind: str) -> None:
    """No cut changes bytes that come before it, and every connection that was opened is completed."""
    raw = GENERATED.get(kind) or (CAPTURES / f"{kind}.pcap").read_bytes()
    whole = {each.flow: each for each in assembled(raw).connections}
    for cut in positions(len(raw), 150)[files.FIRST_HEADER :]:
        for connection in assembled(raw[:cut]).connections:
            assert len(connection.completions) == 1
            for chunk in connection.chunks:
                data = whole[connection.flow].data(chunk.direction)
                assert data[chunk.offset : chunk.offset + len(chunk.data)] == chunk.data


def assembled(raw: bytes) -> Recorder:
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)
        with Assembler(recorder) as assembler, open_capture(io.BytesIO(raw)) as capture:
            assembler.run(capture)
    return recorder
