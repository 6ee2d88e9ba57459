"""Workers that look at a range of the file each, before the parts are taken: the same outcome as if none had looked."""

from __future__ import annotations

import gzip
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest

from small_captures import ACK, SYN, capture, frame, numbered, tagged
from tcpstitch import Stream, StreamFactory
from tcpstitch.capture import ahead
from tcpstitch.parallel import Outcome, run
from test_in_place import as_big_endian, mangled

pytestmark = [
    pytest.mark.skipif(sys.implementation.name == "pypy", reason="does not look ahead"),
    pytest.mark.filterwarnings("ignore::tcpstitch.CaptureWarning"),
]
SAMPLES = sorted((Path(__file__).parent / "captures").glob("*.pcap"))


class Telling(Stream):
    def __init__(self, emit: Any, flow: str) -> None:
        self.emit, self.flow = emit, flow

    def reassembled(self, chunk: Any) -> None:
        if b"number 477 " in chunk.data:
            raise RuntimeError("no more")
        self.emit((self.flow, chunk.direction, chunk.offset, chunk.data, chunk.timestamp))

    def complete(self, reason: str) -> None:
        self.emit((self.flow, reason))


class Factory(StreamFactory):
    def __init__(self, emit: Any) -> None:
        self.emit = emit

    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return Telling(self.emit, str(flow))


def outcome(path: Any, parts: int, least: int, between: Callable[[], Any] = lambda: None) -> Tuple[Any, ...]:
    """What `run` gives, looking ahead where the file has `least` bytes; `between` is called after the looks."""

    class Threads(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if fn is ahead.look:
                looks.append(super().submit(fn, *args, **kwargs))
                return looks[-1]
            if waiting:
                waiting.pop()()
            return super().submit(fn, *args, **kwargs)

    waiting = [between]
    looks: List[Any] = []
    with pytest.MonkeyPatch.context() as patch, Threads(1) as executor:
        patch.setattr(ahead, "LEAST_BYTES", least)
        got: Outcome = run(path, Factory, parts=parts, workers=2, executor=executor, failures="return")
    assert not looks or any(look.exception() is None for look in looks)
    failures = [failure[:5] for failure in got.failures]  # traces tell of other lines
    return got.results, failures, got.parts


def compared(path: Path, parts: int) -> Tuple[Any, ...]:
    """The outcome, which must be the same with a look and without."""
    looked = outcome(path, parts, 1)
    assert looked == outcome(path, parts, 1 << 60)
    return looked


def covered(path: Path, parts: int) -> List[int]:
    """Up to where the packets' places are known, and the size of the file."""
    with ThreadPoolExecutor(1) as executor, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "LEAST_BYTES", 1)
        ends = {pieces[0][0] for pieces in ahead.found(ahead.looks(executor, [path], parts, 1), parts) if pieces}
    assert len(ends) <= 1
    return [*ends, path.stat().st_size]


def conversations(first: int = 0) -> List[bytes]:
    """About 700 KiB of whole connections, of every layout."""
    lists = [numbered(number, ipv6=number % 3 == 1) for number in range(first, first + 900)]
    lists = [[tagged(packet) for packet in frames] if n % 5 == 2 else frames for n, frames in enumerate(lists)]
    return [packet for n in range(0, 900, 50) for step in range(9) for frames in lists[n : n + 50]
            for packet in frames[step : step + 1]]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plain.pcap"
    path.write_bytes(capture(*conversations(1000)).getvalue())
    return path


def nanoseconds(file: bytes) -> bytes:
    return struct.pack("<I", 0xA1B23C4D) + file[4:]


@pytest.mark.parametrize("parts", range(2, 8))
@pytest.mark.parametrize("change", [bytes, as_big_endian, nanoseconds])
def test_parts_that_looked_ahead_give_what_one_part_gives(path: Path, parts: int, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))
    assert covered(path, parts) == [path.stat().st_size] * 2
    results, failures, _ = compared(path, parts)
    assert (results, failures) == outcome(path, 1, 1)[:2]
    assert len(results) > 3000


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_captures_come_out_the_same(sample: Path, parts: int, tmp_path: Path) -> None:
    path = tmp_path / "ethernet.pcap"
    data = sample.read_bytes()
    records = [data[:20] + struct.pack("<I", 1)]
    at = 24
    while at < len(data):  # raw IP
        seconds, fraction, size, wire = struct.unpack_from("<IIII", data, at)
        kind = b"\x86\xdd" if data[at + 16] >> 4 == 6 else b"\x08\x00"
        records.append(struct.pack("<IIII", seconds, fraction, size + 14, wire + 14) + b"\2" * 12 + kind)
        records.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    path.write_bytes(b"".join(records))
    assert covered(path, parts) == [path.stat().st_size] * 2
    assert sorted(map(str, compared(path, parts)[0])) == sorted(map(str, outcome(path, 1, 1)[0]))


@pytest.mark.parametrize("seed", range(200, 206))
def test_damaged_packets_come_out_the_same(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "mangled.pcap"
    file = capture(*mangled(seed), b"", b"\2" * 20).getvalue()
    path.write_bytes(as_big_endian(file) if seed % 2 else file)
    covering, size = covered(path, 2 + seed % 3)
    assert covering == size
    compared(path, 2 + seed % 3)


def test_a_capture_within_a_capture_costs_the_look_and_nothing_else(tmp_path: Path) -> None:
    """Its records are the better guess; that the range before does not end there tells that it is wrong."""
    path = tmp_path / "within.pcap"
    inner = capture(*[b"\2" * 14] * 30_000).getvalue()[24:]
    client, server = ("10.1.1.1", 1000), ("10.1.1.2", 2000)
    around = [frame(client, server, 99, 0, SYN)]
    around += [frame(client, server, 100 + at, 1, ACK, inner[at : at + 9000]) for at in range(0, len(inner), 9000)]
    frames = conversations()[:3000]
    path.write_bytes(capture(*frames[:1500], *around, *frames[1500:]).getvalue())
    first, second = (ahead.look(path, index, 2, ahead.MOST_PLACES) for index in (0, 1))
    assert first is not None and second is not None and first.end != second.start
    assert covered(path, 2)[0] == first.end
    assert sorted(map(str, compared(path, 2)[0])) == sorted(map(str, outcome(path, 1, 1)[0]))


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("where", ["first", "middle", "last", "end"])
def test_cut_files_and_hostile_lengths_are_reported_as_without_a_look(path: Path, where: str, parts: int) -> None:
    data = bytearray(path.read_bytes())
    places = [24]
    while places[-1] < len(data):
        places.append(places[-1] + 16 + struct.unpack_from("<I", data, places[-1] + 8)[0])
    at = {"first": places[0], "middle": places[len(places) // 2], "last": places[-2], "end": places[-2]}[where]
    if where == "end":
        del data[at + 40 :]
    else:
        struct.pack_into("<I", data, at + 8, 0x7FFFFFFF)
    path.write_bytes(data)
    assert covered(path, parts)[:-1] <= [at]
    assert all(len(report.warnings) == 1 for report in compared(path, parts)[2])


def test_a_packet_longer_than_what_is_read_at_once_ends_the_look_only(path: Path) -> None:
    frames = conversations(1000)
    path.write_bytes(capture(*frames[:3000], frames[0] + bytes(300_000), *frames[3000:]).getvalue())
    assert covered(path, 2)[0] < path.stat().st_size / 2
    compared(path, 2)


def test_no_more_places_are_held_than_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_PLACES", 6000)
    reach, size = covered(path, 2)
    assert 24 < reach < size / 2
    compared(path, 2)


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200_000])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + capture(*conversations(3000)).getvalue()[24:])


def gone(path: Path) -> None:
    path.unlink()


def another(path: Path) -> None:
    path.write_bytes(b"\x0a" * 100_000)


@pytest.mark.parametrize("change", [shorter, longer, gone, another])
def test_a_file_that_changes_after_the_look_is_read_as_it_is_then(path: Path, change: Callable[[Path], None]) -> None:
    assert outcome(path, 3, 1, lambda: change(path)) == outcome(path, 3, 1 << 60)


def test_other_packets_in_the_same_places_do_no_harm(path: Path) -> None:
    data = path.read_bytes()
    results, failures, _ = outcome(path, 3, 1, lambda: path.write_bytes(data[:24] + bytes(range(256)) * 2600))
    assert not failures and not results


def test_a_failure_is_at_the_packet_of_its_number(path: Path) -> None:
    frames = conversations()
    path.write_bytes(capture(*frames).getvalue())
    guilty = next(number for number, packet in enumerate(frames, 1) if b"number 477 " in packet)
    _, failures, _ = compared(path, 4)
    assert [failure[3] for failure in failures] == [guilty]


def test_several_captures_are_looked_at_each_within_its_part_of_the_places(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = path.with_name("other.pcap")
    other.write_bytes(capture(*conversations(3000)).getvalue())
    seen: List[Tuple[Any, ...]] = []
    look = ahead.look
    monkeypatch.setattr(ahead, "look", lambda *given: seen.append(given) or look(*given))
    looked = outcome([path, [path, other], other], 2, 1)
    most = ahead.MOST_PLACES // 3
    assert seen == [(path, 0, 2, most), (path, 1, 2, most), (other, 0, 2, most), (other, 1, 2, most)]
    assert looked == outcome([path, [path, other], other], 2, 1 << 60)
    assert len(seen) == 4


def test_what_is_no_plain_pcap_file_is_not_looked_at(path: Path) -> None:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    other = path.with_suffix(".raw")
    other.write_bytes(path.read_bytes()[:20] + struct.pack("<I", 101) + path.read_bytes()[24:])
    for kind in (packed, other):
        assert ahead.look(kind, 0, 2, ahead.MOST_PLACES) is None
        compared(kind, 2)
