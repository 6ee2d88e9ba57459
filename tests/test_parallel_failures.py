"""What fails in a worker is reported with its packet, and costs its part only."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, List

import pytest

from small_captures import capture, varied
from support.parts import Emit, Factory, Unshown, Whole, alone, key_of
from tcpstitch import Chunk, Flow, Stream, UsageError
from tcpstitch.capture import Share, ahead
from tcpstitch.parallel import PartsFailed, run


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


def refuse_unshown() -> None:
    raise Unshown


class UnmakeableUnshown:
    """The same, for a reason that cannot be shown."""

    def __reduce__(self) -> Any:
        return refuse_unshown, ()


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


class SendsUnshown(Sends):
    what = UnmakeableUnshown


class UnshownFactory(Factory):
    stream = SendsUnshown


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


def test_another_executor_is_told_as_much_of_a_result_that_cannot_be_sent(mixed: Path) -> None:
    """Before it meets the result itself: Dask's would never answer."""
    usual = run(mixed, UnsendableFactory, parts=3, workers=2, failures="return")
    with ProcessPoolExecutor(2) as pool:
        outcome = run(mixed, UnsendableFactory, parts=3, executor=pool, failures="return")
    assert [failure[:5] for failure in outcome.failures] == [failure[:5] for failure in usual.failures] != []
    assert outcome.results == usual.results


def test_a_result_that_cannot_be_made_again_leaves_another_executor_at_work(mixed: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        outcome = run(mixed, UnmakeableFactory, parts=3, executor=pool, failures="return")
        (failure,) = outcome.failures
        assert "RuntimeError: no more" in failure.error
        assert run(mixed, Factory, parts=3, executor=pool).results == alone(mixed)


def test_results_stay_as_they_are_where_no_process_is_left(mixed: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        outcome = run(mixed, UnsendableFactory, parts=3, executor=pool)
    assert [result for result in outcome.results if isinstance(result, Unsendable)]


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


def test_an_error_that_cannot_be_shown_costs_its_part_only(mixed: Path) -> None:
    (failure,) = run(mixed, UnshownFactory, parts=3, workers=2, failures="return").failures
    assert failure.error == "Unshown: Unshown, of which str() raises RuntimeError"


def test_an_interrupt_in_a_handler_is_nobodys_failure(mixed: Path) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        run(mixed, InterruptedFactory, parts=2, workers=2, executor=executor)


class Interrupts(Executor):
    """Ctrl-C comes while the first result is waited for."""

    def __init__(self) -> None:
        self.futures: List[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        if len(self.futures) == 1:
            self.futures[0].set_exception(KeyboardInterrupt())
        return self.futures[-1]


@pytest.mark.parametrize("least_bytes", [0, 1 << 30])
def test_an_interrupt_takes_back_what_another_executor_has_not_begun(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, least_bytes: int
) -> None:
    """Of looks ahead, too: the executor's `with` block would wait for all of it."""
    monkeypatch.setattr(ahead, "LEAST_BYTES", least_bytes)
    executor = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        run(mixed, Factory, parts=3, executor=executor)
    assert [future.cancelled() for future in executor.futures] == [False, True, True]


WAITING = """
import os, signal, sys, time
from tcpstitch import StreamFactory
from tcpstitch.parallel import run

class Waiting(StreamFactory):
    def __init__(self, emit):
        os.write(1, b"%d\\n" % 1)
        time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind its back ignores it
    try:
        run([sys.argv[1]] * 9, Waiting, workers=2)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize(
    "reached,number", [("everyone", "SIGINT"), ("the caller", "SIGINT"), ("the caller", "SIGKILL")]
)
def test_what_ends_the_caller_ends_the_workers_and_ctrl_c_is_heard_of(mixed: Path, reached: str, number: str) -> None:
    script = mixed.with_name("waiting.py")
    script.write_text(WAITING)
    command = [sys.executable, str(script), str(mixed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"1\n"] * 2  # both are at work
        (os.killpg if reached == "everyone" else os.kill)(process.pid, signal.Signals[number])
        try:
            told = process.communicate(timeout=60)[0]  # its end comes when nobody is left
            assert told == (b"interrupted\n" if number == "SIGINT" else b"")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def begin(word: str) -> None:
    os.environ["BEGUN_WITH"] = word


class InitialisedFactory(DyingFactory):
    def __init__(self, emit: Emit) -> None:
        super().__init__(emit)
        assert os.environ["BEGUN_WITH"] == "word"


@pytest.mark.parametrize("own", [False, True])
def test_a_worker_that_dies_costs_its_part_only(mixed: Path, own: bool) -> None:
    """In a pool of the caller's too, which begins its processes in a way of its own."""
    if own:
        with ProcessPoolExecutor(2, initializer=begin, initargs=("word",)) as pool:
            outcome = run(mixed, InitialisedFactory, parts=3, workers=2, executor=pool, failures="return")
    else:
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


NOTEBOOK = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from tcpstitch import StreamFactory
from tcpstitch.parallel import run

class Factory(StreamFactory):
    def __init__(self, emit): pass
    def new(self, flow, segment, timestamp): return None

with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    print(*[failure.error for failure in run(sys.argv[1], Factory, executor=pool, failures="return").failures])
"""


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="its pool cannot spawn")
def test_a_factory_of_no_file_is_missed_by_name_where_processes_are_not_forked(mixed: Path) -> None:
    """As in a notebook: the processes do not just die."""
    words = [sys.executable, "-c", NOTEBOOK, str(mixed)]
    done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    assert b"UsageError: make_factory is not found" in done.stdout and b"'Factory'" in done.stdout
    assert not done.stderr


def test_a_factory_that_cannot_be_pickled_is_refused_for_the_callers_processes_too(mixed: Path) -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(UsageError, match="top level"):
        run(mixed, lambda emit: Factory(emit), executor=pool)
