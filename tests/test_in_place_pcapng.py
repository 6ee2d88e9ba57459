"""`run` takes the enhanced packet blocks of pcapng where they lie: the same calls as the loop, and the same reports."""

from __future__ import annotations

import io
import itertools
import random
import struct
import warnings
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from small_captures import capture, numbered
from support.files import block, enhanced, interface, option, section
from support.recorder import Recorder
from tcpstitch import Assembler, StreamCallbackError, open_capture
from tcpstitch.capture.source import Source
from tcpstitch.errors import CaptureWarning
from tcpstitch.uncut import PYPY
from test_in_place import Failing, goes_on_behind_its_packet, heard, mangled

MICRO = 10**6
START = 1_600_000_000


def plain(frames: List[bytes], order: str = "<") -> bytes:
    """One interface, microseconds."""
    ticks = START * MICRO
    blocks = [enhanced(ticks + number, packet, order=order) for number, packet in enumerate(frames)]
    return section(order) + interface(order=order) + b"".join(blocks)


def varied(frames: List[bytes], seed: int) -> bytes:
    """Runs of usual packets, and between them whatever else a file may have."""
    dice = random.Random(seed)
    out: List[bytes] = []
    order = ">"
    left = 0
    for number, packet in enumerate(frames):
        if not left:
            order = "<" if order == ">" else ">"
            nano = option(9, b"\x09") + option(14, struct.pack(order + "q", dice.choice((0, 5, -7)))) + option(0, b"")
            kinds = [interface(1, order), interface(1, order, 100), interface(1, order, options=nano)]
            kinds += [interface(101, order), interface(1, order, options=option(9, b"\x8a"))]
            dice.shuffle(kinds)
            out += [section(order, option(1, b"a section")), *kinds]
            units = [b"\x8a" in kind and 1024 or b"\x09\x00\x01\x00\x09" in kind and 10**9 or MICRO for kind in kinds]
            left = dice.choice((3, 40, 900))
        left -= 1
        index = dice.randrange(len(kinds)) if dice.random() < 0.1 else number // 50 % len(kinds)
        ticks = int((START + number * 1e-3) * units[index])
        what = dice.randrange(30)
        if what == 0:
            out.append(enhanced(ticks, packet, index, order, option(1, b"seen") + option(0, b"")))
        elif what == 1:
            out.append(block(3, struct.pack(order + "I", len(packet)) + packet, order))
        elif what == 2:
            out.append(block(2, struct.pack(order + "HHIIII", index, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(packet),
                                            len(packet)) + packet, order))  # fmt: skip
        elif what == 3:
            out += [block(0x0BAD, bytes(dice.randrange(300)), order), enhanced(ticks, packet, index, order)]
        elif what == 4:
            out.append(enhanced(ticks, packet, 77, order))
        else:
            out.append(enhanced(ticks, packet, index, order))
    return b"".join(out)


def both(source: Any, **options: Any) -> Tuple[List[Any], List[Any]]:
    """What handlers, statistics and the capture say: one by one, and in place."""
    found = []
    for method in ("loop", "run"):
        recorder = Recorder()
        again = io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CaptureWarning)
            with Assembler(recorder, **options) as assembler, open_capture(again) as pieces:
                if method == "run":
                    assembler.run(pieces)
                else:
                    for timestamp, packet in pieces:
                        assembler.assemble(packet, timestamp)
        said = [pieces.warnings, pieces.comments, pieces.names, pieces.linktype]
        found.append(said + heard(recorder, assembler))
    return found[0], found[1]


@pytest.mark.parametrize("order", ["<", ">"])
def test_run_leads_to_the_calls_that_the_loop_leads_to(tmp_path: Path, order: str) -> None:
    path = tmp_path / "plain.pcapng"
    path.write_bytes(plain(mangled(200), order))
    expected, found = both(path)
    assert len(expected) > 500
    assert found == expected
    expected, found = both(io.BytesIO(path.read_bytes()), checks="strict")  # blocks of another kind
    assert found == expected


@pytest.mark.parametrize("seed", range(6))
def test_whatever_lies_between_leads_to_the_same(tmp_path: Path, seed: int) -> None:
    file = varied(mangled(300 + seed), seed)
    path = tmp_path / "varied.pcapng"
    path.write_bytes(file)
    expected, found = both(path)
    assert len(expected) > 300
    assert found == expected
    assert len(found[0]) > 10 and len(found[1]) > 10  # warnings and comments


@pytest.mark.parametrize("seed", range(40))
def test_damage_leads_to_the_same(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    frames = [packet for number in range(60) for packet in numbered(number * 3)]
    file = bytearray(varied(frames, seed) if seed % 2 else plain(frames))
    for _ in range(dice.randrange(4)):
        file[dice.randrange(12, len(file))] = dice.choice((0, 1, 4, 6, 255, dice.randrange(256)))
    del file[dice.randrange(40, len(file)) :]
    path = tmp_path / "damaged.pcapng"
    path.write_bytes(file)
    expected, found = both(path)
    assert found == expected


def test_times_are_those_of_the_same_packets_in_pcap() -> None:
    file = capture(*[packet for number in range(200) for packet in numbered(number)]).getvalue()
    blocks, pos = [section(), interface()], 24
    while pos < len(file):
        seconds, fraction, length, _ = struct.unpack_from("<IIII", file, pos)
        blocks.append(enhanced(seconds * MICRO + fraction, file[pos + 16 : pos + 16 + length]))
        pos += 16 + length
    times = []
    for same in (file, b"".join(blocks)):
        recorder = Recorder()
        with Assembler(recorder) as assembler:
            assembler.run(open_capture(io.BytesIO(same)))
        times.append([chunk.timestamp for connection in recorder.connections for chunk in connection.chunks])
    assert len(times[0]) > 400
    assert times[1] == times[0]


def test_a_simple_packet_has_the_time_of_the_one_before_which_was_taken_in_place() -> None:
    frames = [packet for number in range(30) for packet in numbered(number)]
    simple = block(3, struct.pack("<I", len(frames[-1])) + frames[-1])
    file = plain(frames[:-1]) + simple
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        assembler.run(open_capture(io.BytesIO(file)))
    last = max(chunk.timestamp for connection in recorder.connections for chunk in connection.chunks)
    assert last == (START * MICRO + len(frames) - 2) / MICRO


def test_usual_packets_are_taken_in_place_and_others_by_themselves() -> None:
    """Also those of interfaces that are alike; a file of nothing but others is left to the loop before long."""
    frames = [packet for number in range(50) for packet in numbered(number)]
    ticks = START * MICRO
    alike = b"".join(enhanced(ticks + n, packet, n % 2) for n, packet in enumerate(frames))
    noted = b"".join(
        enhanced(ticks + n, packet, 0, "<", option(1, b"x") + option(0, b"")) for n, packet in enumerate(frames)
    )
    for blocks, least, most in ((alike, 1, 3), (noted, 6, 10)):
        file = section() + interface() + interface(snaplen=96) + blocks
        with open_capture(io.BytesIO(file)) as pieces:
            apart = 0
            assembler = Assembler(Recorder())
            for item in pieces.packet_blocks():
                if isinstance(item, tuple):
                    apart += 1
                    assembler.assemble(item[1], item[0])
                elif PYPY:
                    item.feed(assembler)
                else:
                    assembler.assemble(None, 0.0, item)
            assert least <= apart <= most
            assert assembler.statistics().packets == (len(frames) if blocks is alike else apart)
            assembler.run(pieces)
            assert assembler.statistics().packets == len(frames)


@pytest.mark.parametrize("again", ["run", "loop"])
def test_after_a_handler_has_failed_the_capture_goes_on_behind_its_packet(again: str) -> None:
    frames = mangled(201)
    goes_on_behind_its_packet(plain(frames), len(frames), again)


@pytest.mark.parametrize("again", ["run", "loop"])
def test_a_simple_packet_has_the_time_of_the_one_at_which_a_handler_failed(again: str) -> None:
    before = numbered(1)[:5]  # the last one brings data
    simple = [block(3, struct.pack("<I", len(packet)) + packet) for packet in numbered(2)]
    source = open_capture(io.BytesIO(plain(before) + b"".join(simple)))
    recorder = Failing(1)
    assembler = Assembler(recorder)
    with pytest.raises(StreamCallbackError):
        assembler.run(source)
    assert assembler.statistics().packets == len(before)
    if again == "run":
        assembler.run(source)
        times = {chunk.timestamp for chunk in recorder.connections[1].chunks}
    else:
        times = {timestamp for timestamp, _ in source}
    assert times == {(START * MICRO + len(before) - 1) / MICRO}


def test_what_was_taken_before_run_does_not_come_again() -> None:
    frames = mangled(202)
    source = open_capture(io.BytesIO(plain(frames)))
    assembler = Assembler(Recorder())
    for _ in range(300):
        timestamp, packet = next(iter(source))
        assembler.assemble(packet, timestamp)
    assembler.run(source)
    assert assembler.statistics().packets == len(frames)


def test_a_file_that_grows_is_followed_in_place(tmp_path: Path) -> None:
    frames = [packet for number in range(100) for packet in numbered(number)]
    file = plain(frames)
    path = tmp_path / "growing.pcapng"
    path.write_bytes(file[: len(file) // 2])

    def grow(recording: Any, chunk: Any) -> None:
        with path.open("ab") as more:
            at = path.stat().st_size
            more.write(file[at : at + 700])

    assembler = Assembler(Recorder(grow))
    assembler.run(open_capture(path, follow=True, poll_seconds=0.01, idle_seconds=0.2))
    assert assembler.statistics().packets == len(frames)


def interrupted(every: int) -> Any:
    """`Source._attempt`, which gives little at a time, as a pipe does, and which each so many times is ended."""
    attempts, attempt = itertools.count(1), Source._attempt

    def less(self: Source, read: Any, argument: Any) -> Any:
        if every and next(attempts) % every == 0:
            raise TimeoutError
        return attempt(self, read, min(argument, 300) if isinstance(argument, int) else argument[:300])

    return less


@pytest.mark.parametrize("window", [512, 1 << 18])
@pytest.mark.parametrize("where", ["path", "file"])
@pytest.mark.parametrize("kind", ["pcap", "pcapng", "between"])
def test_after_an_exception_that_ends_a_wait_run_goes_on_where_it_was(
    kind: str, where: str, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal's handler may raise one, in the middle of a packet or of a block of no interest."""
    frames = [packet for number in range(60) for packet in numbered(number)]
    file = plain(frames) if kind != "pcap" else capture(*frames).getvalue()
    if kind == "between":
        packets = [enhanced(START * MICRO + number, packet) for number, packet in enumerate(frames)]
        packets[::20] = [block(0x0BAD, bytes(2000)) + packet for packet in packets[::20]]
        file = section() + interface() + b"".join(packets)
    path = tmp_path / "interrupted"
    path.write_bytes(file)
    outcomes = []
    for every in (0, 3):
        recorder = Recorder()
        with monkeypatch.context() as patch:
            patch.setattr("tcpstitch.capture.source.WINDOW", window)
            patch.setattr(Source, "_attempt", interrupted(every))
            source = open_capture(path if where == "path" else io.BytesIO(file))
            with Assembler(recorder) as assembler:
                while True:
                    try:
                        assembler.run(source)
                        break
                    except TimeoutError:
                        pass
            outcomes.append([source.warnings, *heard(recorder, assembler)])
    assert outcomes[0] == outcomes[1]
    assert assembler.statistics().packets == len(frames)
