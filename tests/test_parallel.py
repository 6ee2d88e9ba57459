"""Captures assembled in several workers come out as in one, in order, and a worker's failure costs its part only."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import signal
import struct
import subprocess
import sys
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from small_captures import SYN, capture, exchange, frame, numbered, varied
from tcpstitch import (
    CaptureWarning,
    Chunk,
    Flow,
    Limits,
    Segment,
    Stream,
    StreamFactory,
    UsageError,
    connections,
)  # fmt: skip
from tcpstitch.capture import Share
from tcpstitch.parallel import PartsFailed, divided, run

Emit = Callable[[Any], None]


class Whole(Stream):
    def __init__(self, flow: Flow, emit: Emit) -> None:
        self.flow, self.emit, self.data = str(flow), emit, [b"", b""]

    def reassembled(self, chunk: Chunk) -> None:
        self.data[chunk.direction] += chunk.data

    def complete(self, reason: str) -> None:
        self.emit((self.flow, self.data[0], self.data[1], reason))


class Factory(StreamFactory):
    """Emits (flow, client's bytes, server's bytes, reason) of each connection."""

    stream: Callable[[Flow, Emit], Stream] = Whole

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return self.stream(flow, self.emit)


def dies(data: bytes, how: Callable[[], None]) -> Callable[[Flow, Emit], Stream]:
    class Dying(Whole):
        def reassembled(self, chunk: Chunk) -> None:
            super().reassembled(chunk)
            if data in chunk.data:
                how()

    return Dying


def refuse() -> None:
    raise RuntimeError("no more")


def interrupt() -> None:
    raise KeyboardInterrupt


class FailingFactory(Factory):
    stream = dies(b"number 7 ", refuse)


class DyingFactory(Factory):
    stream = dies(b"number 7 ", functools.partial(os._exit, 9))


class LeavingFactory(Factory):
    stream = dies(b"number 7 ", functools.partial(sys.exit, 3))


class InterruptedFactory(Factory):
    stream = dies(b"number 7 ", interrupt)


class Unsendable:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("holds a socket")


class Unmakeable:
    """Cannot be made again from its pickle."""

    def __reduce__(self) -> Any:
        return refuse, ()


class Sends(Whole):
    """Emits what it should not with the data of connection 7."""

    what: Callable[[], Any] = Unsendable

    def reassembled(self, chunk: Chunk) -> None:
        super().reassembled(chunk)
        if b"number 7 " in chunk.data:
            self.emit(self.what())


class UnsendableFactory(Factory):
    stream = Sends


class SendsLate(Whole):
    def complete(self, reason: str) -> None:
        self.emit(Unsendable() if reason == "flushed" else reason)


class SendsWhatCannotBeMade(Sends):
    what = Unmakeable


class LateFactory(Factory):
    stream = SendsLate


class FailsLate(Whole):
    def complete(self, reason: str) -> None:
        if reason == "flushed":
            raise RuntimeError("no more")
        self.emit(reason)


class FailsLateFactory(Factory):
    stream = FailsLate


class UnmakeableFactory(Factory):
    stream = SendsWhatCannotBeMade


class LastFirst(Executor):
    """Runs what was submitted in the opposite order, when a result is waited for."""

    def __init__(self) -> None:
        self.waiting: List[Tuple[Future, Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
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


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.pcap"
    path.write_bytes(capture(*varied()).getvalue())
    return path


def alone(source: Any) -> List[Any]:
    return [(str(c.flow), c.client_data, c.server_data, c.reason) for c in connections(source)]


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
def test_a_failing_handler_is_reported_with_the_file_and_the_packet(mixed: Path, parts: int) -> None:
    guilty = [number for number, packet in enumerate(varied(), 1) if b"number 7 " in packet]
    with pytest.raises(PartsFailed, match="no more") as caught:
        run(mixed, FailingFactory, parts=parts, workers=2)
    outcome = caught.value.outcome
    (failure,) = outcome.failures
    assert (failure.source, failure.packet, failure.parts) == (mixed, guilty[0], parts)
    assert "RuntimeError: no more" in failure.trace
    lost = Share(failure.part, parts)
    kept = [row for row in alone(mixed) if not lost.owns(key_of(row[0]))]
    assert [row for row in outcome.results if not lost.owns(key_of(row[0]))] == kept


@pytest.mark.parametrize("parts", [1, 3])
def test_a_cut_capture_gives_what_is_whole_and_says_so_in_each_part(mixed: Path, parts: int) -> None:
    mixed.write_bytes(mixed.read_bytes()[:-5])
    outcome = run(mixed, Factory, parts=parts, workers=2)
    with pytest.warns(CaptureWarning):
        assert sorted(outcome.results) == sorted(alone(mixed))
    assert [len(report.warnings) for report in outcome.parts] == [1] * parts
    assert all("cut" in report.warnings[0] for report in outcome.parts)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_handler_that_exits_costs_its_part_only_and_ends_no_program(mixed: Path, parts: int) -> None:
    guilty = [number for number, packet in enumerate(varied(), 1) if b"number 7 " in packet]
    outcome = run(mixed, LeavingFactory, parts=parts, workers=2, failures="return")
    (failure,) = outcome.failures
    assert (failure.packet, failure.error) == (guilty[0], "SystemExit: 3")
    lost = Share(failure.part, parts)
    kept = [row for row in alone(mixed) if not lost.owns(key_of(row[0]))]
    assert [row for row in outcome.results if not lost.owns(key_of(row[0]))] == kept


@pytest.mark.parametrize("parts", [1, 3])
def test_a_result_that_cannot_be_sent_ends_its_part_at_its_packet_and_keeps_what_came_before(
    mixed: Path, parts: int
) -> None:
    guilty = [number for number, packet in enumerate(varied(), 1) if b"number 7 " in packet]
    outcome = run(mixed, UnsendableFactory, parts=parts, workers=2, failures="return")
    (failure,) = outcome.failures
    assert failure.packet == guilty[0]
    assert failure.error.startswith("TypeError: holds a socket; results are pickled")
    ended = run(mixed, FailingFactory, parts=parts, workers=2, failures="return")
    assert outcome.results == [row for row in ended.results if row[3] != "abandoned"]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_handler_that_fails_after_the_last_packet_fails_at_none(mixed: Path, parts: int) -> None:
    mixed.write_bytes(capture(*varied()[:-100]).getvalue())
    failures = run(mixed, FailsLateFactory, parts=parts, workers=2, failures="return").failures
    assert {failure.packet for failure in failures} == {None}
    assert "behind the last packet" in str(failures[0])


@pytest.mark.parametrize("parts", [1, 3])
def test_a_result_that_cannot_be_sent_after_the_last_packet_has_none(mixed: Path, parts: int) -> None:
    mixed.write_bytes(capture(*varied()[:-100]).getvalue())
    outcome = run(mixed, LateFactory, parts=parts, workers=2, failures="return")
    assert {failure.packet for failure in outcome.failures} == {None}
    assert outcome.results == ["fin"] * len(outcome.results) != []


def test_a_result_that_cannot_be_made_again_costs_its_part_only(mixed: Path) -> None:
    outcome = run(mixed, UnmakeableFactory, parts=3, workers=2, failures="return")
    (failure,) = outcome.failures
    assert failure.packet is None and "RuntimeError: no more" in failure.error
    lost = Share(failure.part, 3)
    assert outcome.results == [row for row in alone(mixed) if not lost.owns(key_of(row[0]))]


def test_an_interrupt_in_a_handler_is_nobodys_failure(mixed: Path) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        run(mixed, InterruptedFactory, parts=2, workers=2, executor=executor)


WAITING = """
import os, sys, time
from tcpstitch import StreamFactory
from tcpstitch.parallel import run

class Waiting(StreamFactory):
    def __init__(self, emit):
        os.write(1, b"%d\\n" % 1)
        time.sleep(600)

if __name__ == "__main__":
    try:
        run([sys.argv[1]] * 9, Waiting, workers=2)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize("reached", ["everyone", "the caller"])
def test_ctrl_c_ends_the_workers_and_the_caller_hears_of_it(mixed: Path, reached: str) -> None:
    script = mixed.with_name("waiting.py")
    script.write_text(WAITING)
    command = [sys.executable, str(script), str(mixed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"1\n"] * 2  # both are at work
        (os.killpg if reached == "everyone" else os.kill)(process.pid, signal.SIGINT)
        try:
            assert process.communicate(timeout=60)[0] == b"interrupted\n"  # its end comes when nobody is left
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_there_are_no_more_parts_by_default_than_a_capture_can_have(tmp_path: Path) -> None:
    outcome = run(tmp_path / "missing.pcap", Factory, workers=300, executor=LastFirst(), failures="return")
    assert len(outcome.parts) == 257


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_read_by_several_workers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="a pipe can be read once only: give parts=1"):
        run(tmp_path / "pipe", Factory, parts=2)


def key_of(flow: str) -> bytes:
    from ipaddress import ip_address

    ends = [end.strip().rpartition(":") for end in flow.replace("->", ">").split(">")]
    raw = b"".join(ip_address(address.strip("[] ")).packed for address, _, _ in ends)
    return raw + b"".join(int(port).to_bytes(2, "big") for _, _, port in ends)


def test_a_worker_that_dies_costs_its_part_only(mixed: Path) -> None:
    outcome = run(mixed, DyingFactory, parts=3, workers=2, failures="return")
    (failure,) = outcome.failures
    lost = Share(failure.part, 3)
    assert failure.packet is None and outcome.parts[failure.part].statistics is None
    assert outcome.results == [row for row in alone(mixed) if not lost.owns(key_of(row[0]))]


def test_a_capture_that_cannot_be_read_costs_the_others_nothing(mixed: Path) -> None:
    missing = mixed.with_name("missing.pcap")
    outcome = run([missing, mixed], Factory, workers=2, failures="return")
    assert outcome.results == alone(mixed)
    assert [(failure.source, failure.packet) for failure in outcome.failures] == [(missing, 0)]
    assert "missing.pcap, part 1 of 1: before the first packet: CaptureError" in str(outcome.failures[0])


def cannot_open(emit: Emit) -> Factory:
    raise OSError("no room for results")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_factory_that_cannot_be_made_is_reported_as_what_it_raised(mixed: Path, parts: int) -> None:
    outcome = run(mixed, cannot_open, parts=parts, workers=parts, failures="return")
    assert [failure.packet for failure in outcome.failures] == [0] * parts
    assert {failure.error for failure in outcome.failures} == {"OSError: no room for results"}


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
