"""A handler that fails, and what its stream's `complete`, which follows at once, may do and leaves behind."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, List, Tuple

import pytest

from support.frames import SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Chunk, ReentrantCallError, Segment, StreamCallbackError

FORMS = ["frame", "segment"]


class Failing(Recorder):
    """Fails at each chunk of data `fail`; `then` is called when that stream is completed."""

    def __init__(self, then: Callable[[], None], error: BaseException) -> None:
        super().__init__(self.fail)
        self.then = then
        self.error = error

    def fail(self, recording: Any, chunk: Chunk) -> None:
        if chunk.data[:4] == b"fail":
            raise self.error

    def new(self, *arguments: Any) -> Any:
        recording: Any = super().new(*arguments)
        complete = recording.complete

        def completed(reason: str) -> None:
            complete(reason)
            if reason == "abandoned":
                self.then()

        recording.complete = completed
        return recording


def talk(form: str, port: int, data: bytes) -> List[Any]:
    client = ("10.0.0.1", port)
    packets: List[Tuple[Any, ...]] = [
        (client, SERVER, 99, b"", "S", 0), (SERVER, client, 499, b"", "SA", 100), (client, SERVER, 100, b"", "A", 500),
        (client, SERVER, 100, data * 30, "A", 500),
    ]  # fmt: skip
    if form == "frame":
        return [tcp_frame(*packet) for packet in packets]
    return [Segment.make(a, b, seq, payload, flags=flags, ack=ack) for a, b, seq, payload, flags, ack in packets]


@pytest.mark.parametrize("form", FORMS)
def test_smaller_limits_set_when_a_failed_stream_is_completed_take_effect_with_the_next_packet(form: str) -> None:
    def smaller() -> None:
        assembler.limits = dataclasses.replace(assembler.limits, max_connections=1)

    recorder = Failing(smaller, ValueError("a handler's"))
    assembler = Assembler(recorder)
    for packet in [*talk(form, 1000, b"good"), *talk(form, 1001, b"good"), *talk(form, 1002, b"fail")[:-1]]:
        assembler.assemble(packet, 1.0)
    with pytest.raises(StreamCallbackError):
        assembler.assemble(talk(form, 1002, b"fail")[-1], 1.0)
    assembler.assemble(talk(form, 1001, b"good")[-1], 1.1)
    statistics = assembler.statistics()
    assert statistics.connections + statistics.connections_lingering == 1
    assembler.flush_all()
    assert [recording.completions for recording in recorder.connections][1:] == [["flushed"], ["abandoned"]]


@pytest.mark.parametrize("form", FORMS)
def test_a_call_back_into_the_assembler_is_refused_when_a_failed_stream_is_completed_too(form: str) -> None:
    refused: List[Exception] = []

    def back() -> None:
        for call in (assembler.flush_all, lambda: assembler.assemble(b"", 1.0)):
            with pytest.raises(ReentrantCallError) as caught:
                call()
            refused.append(caught.value)

    assembler = Assembler(Failing(back, ValueError("a handler's")))
    with pytest.raises(StreamCallbackError):
        for packet in talk(form, 1000, b"fail"):
            assembler.assemble(packet, 1.0)
    assert len(refused) == 2
