"""Captures assembled in several workers come out as in one, in order."""

from __future__ import annotations

import gzip
import io
import os
import struct
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from small_captures import SYN, capture, exchange, frame, numbered, varied
from support.parts import Factory, alone, key_of
from tcpstitch import (
    CaptureWarning,
    Limits,
    StreamFactory,
    UsageError,
)  # fmt: skip
from tcpstitch.capture import Share
from tcpstitch.parallel import divided, run


class LastFirst(Executor):
    """Runs what was submitted in the opposite order, when a result is waited for."""

    def __init__(self) -> None:
        self.waiting: List[Tuple[Future, Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        executor = self

        class Lazy(Future):  # type: ignore[type-arg]
            def result(self, timeout: Any = None) -> Any:
                while executor.waiting:
                    future, work = executor.waiting.pop()
                    future.set_result(work())
                return super().result(timeout)

        future: Future = Lazy()  # type: ignore[type-arg]
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_parts_of_a_capture_give_what_one_assembler_gives_in_the_same_order(
    mixed: Path, parts: int, compressed: bool
) -> None:
    expected = alone(mixed)
    assert len(expected) == 60
    if compressed:
        packed = mixed.with_suffix(".gz")
        packed.write_bytes(gzip.compress(mixed.read_bytes()))
        mixed = packed
    with ThreadPoolExecutor(2) as executor:
        outcome = run(mixed, Factory, parts=parts, workers=2, executor=executor)
    assert outcome.results == expected
    assert [(report.part, report.parts) for report in outcome.parts] == [(part, parts) for part in range(parts)]


def test_what_is_complete_at_the_end_only_comes_last_and_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "open.pcap"
    open_ones = [exchange(("10.7.7.7", port), ("10.7.7.8", 2))[0] for port in range(9)]
    path.write_bytes(capture(*open_ones, *numbered(1)).getvalue())
    results = run(path, Factory, parts=3, workers=3).results
    assert [row[3] for row in results] == ["fin"] + ["flushed"] * 9
    assert sorted(results) == sorted(alone(path))
    assert [row for part in range(3) for row in results[1:] if Share(part, 3).owns(key_of(row[0]))] == results[1:]


def test_processes_of_their_own_are_the_default(mixed: Path) -> None:
    outcome = run([mixed], Factory, workers=2)
    assert outcome.results == alone(mixed)
    assert all(report.statistics is not None and report.statistics.connections_opened > 9 for report in outcome.parts)


def test_results_do_not_depend_on_which_part_is_done_first(mixed: Path) -> None:
    assert run(mixed, Factory, workers=4, executor=LastFirst()).results == alone(mixed)


def test_the_results_of_several_captures_come_in_the_order_of_the_captures(tmp_path: Path) -> None:
    paths = []
    for number in (3, 1, 2):
        paths.append(tmp_path / f"{number}.pcap")
        paths[-1].write_bytes(capture(*numbered(number)).getvalue())
    outcome = run(paths, Factory, workers=2)
    assert outcome.results == [row for path in paths for row in alone(path)]
    assert [report.parts for report in outcome.parts] == [1, 1, 1]


def test_files_in_an_inner_list_are_one_capture(tmp_path: Path) -> None:
    frames = varied()
    halves = [tmp_path / "first.pcap", tmp_path / "second.pcap"]
    halves[0].write_bytes(capture(*frames[:300]).getvalue())
    shifted = bytearray(capture(*frames[300:]).getvalue())
    pos = 24
    while pos < len(shifted):  # a minute later
        seconds, _, size = struct.unpack_from("<III", shifted, pos)
        struct.pack_into("<I", shifted, pos, seconds + 60)
        pos += 16 + size
    halves[1].write_bytes(bytes(shifted))
    assert run([halves], Factory, parts=2, workers=2).results == alone(halves)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_cut_capture_gives_what_is_whole_and_says_so_in_each_part(mixed: Path, parts: int) -> None:
    mixed.write_bytes(mixed.read_bytes()[:-5])
    outcome = run(mixed, Factory, parts=parts, workers=2)
    with pytest.warns(CaptureWarning):
        assert sorted(outcome.results) == sorted(alone(mixed))
    assert [len(report.warnings) for report in outcome.parts] == [1] * parts
    assert all("cut" in report.warnings[0] for report in outcome.parts)


def test_there_are_no_more_parts_by_default_than_a_capture_can_have(tmp_path: Path) -> None:
    outcome = run(tmp_path / "missing.pcap", Factory, workers=300, executor=LastFirst(), failures="return")
    assert len(outcome.parts) == 257


def test_by_default_there_are_no_more_processes_than_windows_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    outcome = run(tmp_path / "missing.pcap", Factory, executor=LastFirst(), failures="return")
    assert len(outcome.parts) == 61


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_read_by_several_workers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="a pipe can be read once only: give parts=1"):
        run(tmp_path / "pipe", Factory, parts=2)


def test_the_bytes_of_fragments_are_divided_but_for_room_for_one_datagram() -> None:
    assert divided(Limits(max_fragment_bytes=4 << 20), 8).max_fragment_bytes == 1 << 19
    assert divided(Limits(max_fragment_bytes=1 << 18), 8).max_fragment_bytes == 1 << 17


def test_the_datagrams_in_fragments_are_divided_but_for_as_many_as_travel_at_a_time() -> None:
    assert [divided(Limits(max_fragments=given), 8).max_fragments for given in (1024, 300, 20)] == [128, 64, 20]


def test_the_bounds_are_divided_among_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "open.pcap"
    frames = [frame(("10.0.0.1", port), ("10.0.0.2", 80), 99, 0, SYN) for port in range(1000, 1064)]
    path.write_bytes(capture(*frames).getvalue())
    outcome = run(path, Factory, parts=4, workers=4, limits=Limits(max_connections=32))
    for report in outcome.parts:
        assert report.statistics is not None
        kept = report.statistics.connections_opened - report.statistics.connections_evicted
        assert kept == 8
    assert sum(row[3] == "evicted" for row in outcome.results) == 32


def wrong() -> Iterator[Tuple[str, Callable[[Path], Any]]]:
    yield "worker", lambda path: run(path, Factory, workers=0)
    yield "parts", lambda path: run(path, Factory, parts=0)
    yield "failures", lambda path: run(path, Factory, failures="ignore")
    yield "is a directory: give a list of its captures", lambda path: run(path.parent, Factory)
    yield "share", lambda path: run(["-"], Factory)
    yield "path", lambda path: run([io.BytesIO()], Factory)
    yield "paths", lambda path: run(io.BytesIO(), Factory)
    yield "workers='2'", lambda path: run(path, Factory, workers="2")  # type: ignore[arg-type]
    yield "a class", lambda path: run(path, Factory(print))  # type: ignore[arg-type]
    yield "executor=5", lambda path: run(path, Factory, executor=5)  # type: ignore[arg-type]
    yield "one argument, emit", lambda path: run(path, StreamFactory)  # type: ignore[arg-type]
    yield "overlap", lambda path: run(path, Factory, overlap="nobody's")
    yield "top level", lambda path: run(path, lambda emit: Factory(emit))
    yield "fewer", lambda path: run(path, Factory, workers=3, limits=Limits(max_connections=2))
    yield "parts=258: give at most 257", lambda path: run(path, Factory, parts=258)
    yield "at least one", lambda path: run([[]], Factory)
    yield "give paths", lambda path: run(bytes(path), Factory)
    yield "executor=<class", lambda path: run(path, Factory, executor=ThreadPoolExecutor)  # type: ignore[arg-type]
    yield "linktype", lambda path: run(path, Factory, linktype=101)


@pytest.mark.parametrize("message,call", list(wrong()), ids=[message for message, _ in wrong()])
def test_arguments_that_cannot_work_are_refused_before_anything_is_read(
    tmp_path: Path, message: str, call: Callable[[Path], Any]
) -> None:
    with pytest.raises(UsageError, match=message):
        call(tmp_path / "never-read.pcap")


def test_no_source_gives_no_result() -> None:
    outcome = run([], Factory)
    assert (outcome.results, outcome.failures, outcome.parts) == ([], [], [])


@pytest.mark.parametrize(
    "linktype,head",
    [(0, b"\2\0\0\0"), (0, b"\0\0\0\2"), (108, b"\0\0\0\2"), (101, b""), (113, bytes(14) + b"\x08\0"),
     (276, b"\x08\0" + bytes(18))],
)  # fmt: skip
def test_a_connection_comes_once_whatever_the_link_type(tmp_path: Path, linktype: int, head: bytes) -> None:
    data = bytearray(capture(*(head + packet[14:] for number in range(12) for packet in numbered(number))).getvalue())
    struct.pack_into("<I", data, 20, linktype)
    path = tmp_path / "other.pcap"
    path.write_bytes(data)
    expected = alone(path)
    assert len(expected) == 12
    with ThreadPoolExecutor(2) as executor:
        assert run(path, Factory, parts=3, workers=2, executor=executor).results == expected


def test_a_raw_packet_with_a_traffic_class_is_in_one_part(tmp_path: Path) -> None:
    packets = [packet[14:] for number in range(12) for packet in numbered(number, ipv6=True)]
    data = bytearray(capture(*(bytes((0x60 | number % 16,)) + packet[1:] for number, packet in enumerate(packets)))
                     .getvalue())  # fmt: skip
    struct.pack_into("<I", data, 20, 101)
    path = tmp_path / "other.pcap"
    path.write_bytes(data)
    with ThreadPoolExecutor(2) as executor:
        assert run(path, Factory, parts=3, workers=2, executor=executor).results == alone(path)
