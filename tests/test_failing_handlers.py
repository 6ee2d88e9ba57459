"""A handler that fails, and what its stream's `complete`, which follows at once, may do and leaves behind."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, Callable, List, Tuple

import pytest

from small_captures import exchange
from support.frames import SERVER, tcp_frame
from support.parts import Unshown
from support.recorder import Recorder, Recording
from tcpstitch import Assembler, Chunk, Limits, ReentrantCallError, Segment, Stream, StreamCallbackError, StreamFactory

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
        calls = assembler.flush_all, lambda: assembler.flush_older_than(1.0), lambda: assembler.assemble(b"", 1.0)
        for call in calls:
            with pytest.raises(ReentrantCallError) as caught:
                call()
            refused.append(caught.value)

    assembler = Assembler(Failing(back, ValueError("a handler's")))
    with pytest.raises(StreamCallbackError):
        for packet in talk(form, 1000, b"fail"):
            assembler.assemble(packet, 1.0)
    assert len(refused) == 3


def test_an_error_that_cannot_be_shown_is_a_failing_handlers_as_well() -> None:
    assembler = Assembler(Failing(lambda: None, Unshown()))
    with pytest.raises(StreamCallbackError, match=r"raised Unshown, of which repr\(\) raises RuntimeError; its"):
        for packet in talk("frame", 1000, b"fail"):
            assembler.assemble(packet, 1.0)


@pytest.mark.parametrize("method", ["reassembled", "gap", "anomaly"])
def test_an_interrupt_in_a_handler_abandons_its_stream_and_no_other(method: str) -> None:
    """It passes through `assemble` as it is; pages come back, and the other connection goes on."""

    def interrupted(argument: Any) -> None:
        raise KeyboardInterrupt

    recorder = Recorder()
    assembler = Assembler(recorder)
    client, other = ("10.0.0.1", 1000), ("10.0.0.1", 1001)
    for end in (client, other):
        assembler.assemble(Segment.make(end, SERVER, 99, flags="S"), 1.0)
        assembler.assemble(Segment.make(SERVER, end, 499, flags="SA", ack=100), 1.0)
        assembler.assemble(Segment.make(end, SERVER, 110, b"later", ack=500), 1.0)
    hooked: Any = recorder.connections[0]
    setattr(hooked, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        assembler.assemble(Segment.make(client, SERVER, 104, b"old", ack=500), 1.1)  # data behind a hole
        assembler.assemble(Segment.make(client, SERVER, 104, b"OLD", ack=500), 1.1)  # a conflict
        assembler.assemble(Segment.make(SERVER, client, 500, ack=115), 1.2)
        assembler.assemble(Segment.make(SERVER, client, 500, ack=115), 2.2)
    assembler.check()
    assert hooked.completions == ["abandoned"]
    assert assembler.statistics().pages_used == 1
    assembler.assemble(Segment.make(other, SERVER, 100, b"0123456789", ack=500), 2.3)
    assert recorder.connections[1].data() == b"0123456789later"


@pytest.mark.parametrize("ending", [False, True])
def test_an_interrupt_where_a_handler_chooses_what_to_give_up_abandons_its_stream(ending: bool) -> None:
    """Also while the connection is completed, when a segment that waited for that reaches the limit."""

    def interrupted(info: Any) -> None:
        raise KeyboardInterrupt

    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(2, 100, 10))
    client, other = ("10.0.0.1", 1000), ("10.0.0.1", 1001)
    for packet in talk("segment", 1000, b"1234"):
        assembler.assemble(packet, 1.0)
    recorder.only.over_limit = interrupted  # type: ignore[method-assign]
    assembler.assemble(Segment.make(client, SERVER, 300, b"x" * 100, ack=500), 1.1)
    with pytest.raises(KeyboardInterrupt):
        if ending:
            assembler.assemble(Segment.make(client, SERVER, 1_000_000, b"y" * 100, ack=50_000), 3.0)
            assembler.assemble(Segment.make(client, SERVER, 220, flags="R", ack=50_000), 3.1)
        assembler.assemble(Segment.make(client, SERVER, 5000, b"y" * 100, ack=500), 3.1)
    assembler.check()
    assert recorder.only.completions == ["abandoned"]
    assert assembler.statistics().pages_used == 0
    for timestamp in (10.0, 100.0, 102.0, 400.0):
        assembler.assemble(Segment.make(other, SERVER, 1, flags="S"), timestamp)
        assembler.top()


@pytest.mark.parametrize("where", ["accept", "overlap"])
def test_an_interrupt_in_what_is_asked_about_a_stream_abandons_it(where: str) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise SystemExit

    class Asked(Recording):
        accept = interrupted

    class Factory(Recorder):
        def new(self, flow: Any, segment: Segment, timestamp: float) -> Any:
            kind = Asked if where == "accept" else Recording
            self.connections.append(kind(self, flow, timestamp))
            return self.connections[-1]

    recorder = Factory()
    assembler = Assembler(recorder, overlap=interrupted if where == "overlap" else "first")
    first, *others = talk("segment", 1000, b"1234")
    with pytest.raises(SystemExit):
        assembler.assemble(first, 1.0)
    for packet in others:
        assembler.assemble(packet, 1.0)
    assert recorder.only.completions == ["abandoned"]
    assert recorder.only.chunks == []


@pytest.mark.parametrize("name", ["depth", "on_gap"])
def test_an_attribute_that_fails_is_a_failing_handler(name: str) -> None:
    """A property may raise like any method."""

    class Failed(Recording):
        pass

    setattr(Failed, name, property(lambda stream: 1 // 0))

    class Factory(Recorder):
        def new(self, flow: Any, segment: Segment, timestamp: float) -> Any:
            self.connections.append(Failed(self, flow, timestamp))
            return self.connections[-1]

    recorder = Factory()
    errors: List[Exception] = []
    assembler = Assembler(recorder, on_error=lambda handler, error: errors.append(error))
    for packet in talk("segment", 1000, b"1234"):
        assembler.assemble(packet, 1.0)
    assembler.assemble(Segment.make(("10.0.0.1", 1000), SERVER, 300, b"behind a hole", ack=500), 1.1)
    assembler.flush_all()
    assembler.check()
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert recorder.only.completions == (["abandoned"] if name == "on_gap" else [])
    assert assembler.statistics().completions_by_reason == {"abandoned": 1}
    assert assembler.statistics().pages_used == 0


def test_a_choice_at_a_limit_that_cannot_be_read_is_a_failing_handler() -> None:
    class Failed(Recording):
        @property
        def over_limit(self) -> Any:  # type: ignore[override]
            return self.choices.pop()  # type: ignore[attr-defined]

    class Factory(Recorder):
        def new(self, flow: Any, segment: Segment, timestamp: float) -> Any:
            self.connections.append(Failed(self, flow, timestamp))
            self.only.choices = [None]  # type: ignore[attr-defined]  # looked at when the first object of a class comes
            return self.only

    recorder = Factory()
    assembler = Assembler(recorder, limits=Limits(2, 100, 10))
    for packet in talk("segment", 1000, b"1234"):
        assembler.assemble(packet, 1.0)
    assembler.assemble(Segment.make(("10.0.0.1", 1000), SERVER, 300, b"x" * 100, ack=500), 1.1)
    with pytest.raises(StreamCallbackError, match="raised IndexError"):
        assembler.assemble(Segment.make(("10.0.0.1", 1000), SERVER, 5000, b"x" * 100, ack=500), 1.1)
    assert recorder.only.completions == ["abandoned"]
    assert assembler.statistics().pages_used == 0


def test_methods_of_an_object_are_called_as_those_of_its_class_are() -> None:
    recorder = Recorder()

    def new(*arguments: Any) -> Any:
        recording: Any = Recorder.new(recorder, *arguments)
        recording.accept = lambda segment, direction: segment.payload[:4] != b"fail"
        recording.over_limit = lambda info: "abandon"
        return recording

    factory: Any = SimpleNamespace(new=new)
    assembler = Assembler(factory, limits=Limits(2, 100, 10))
    for form in FORMS:
        for packet in talk(form, 1000 if form == "frame" else 1001, b"fail"):
            assembler.assemble(packet, 1.0)
    assert [recording.data() for recording in recorder.connections] == [b"", b""]
    for place in (300, 400, 500):
        assembler.assemble(Segment.make(("10.0.0.1", 1000), SERVER, place, b"x" * 50, ack=500), 1.1)
    assert [recording.completions for recording in recorder.connections] == [["abandoned"], []]


@pytest.mark.parametrize("form", FORMS)
def test_an_object_of_another_class_needs_no_accept(form: str) -> None:
    class Duck:
        def __init__(self) -> None:
            self.calls: List[Any] = []

        def reassembled(self, chunk: Chunk) -> None:
            self.calls.append(chunk.data)

        def complete(self, reason: str) -> None:
            self.calls.append(reason)

    duck = Duck()
    factory: Any = SimpleNamespace(new=lambda *arguments: duck)
    assembler = Assembler(factory)
    for packet in talk(form, 1000, b"data"):
        assembler.assemble(packet, 1.0)
    assembler.flush_all()
    assert duck.calls == [b"data" * 30, "flushed"]


@pytest.mark.parametrize("method, abandoned", [("reassembled", True), ("complete", False)])
def test_the_message_says_whether_the_stream_was_given_up(method: str, abandoned: bool) -> None:
    """One that fails in `complete` has had all that there was."""

    class Fails(Stream):
        pass

    def fail(self: Any, argument: Any) -> None:
        raise ValueError(method)

    setattr(Fails, method, fail)

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Fails()

    with pytest.raises(StreamCallbackError) as caught, Assembler(Factory()) as assembler:
        for packet in exchange():
            assembler.assemble(packet, 1.0)
    assert ("its stream is abandoned" in str(caught.value)) is abandoned


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_that_fails_when_it_is_told_that_it_has_failed_is_heard_twice(form: str) -> None:
    def again() -> None:
        raise ValueError("once more")

    errors: List[str] = []
    assembler = Assembler(Failing(again, ValueError("once")), on_error=lambda handler, error: errors.append(str(error)))
    for packet in talk(form, 1000, b"fail"):
        assembler.assemble(packet, 1.0)
    assert errors == ["once", "once more"]
    assert assembler.statistics().completions_by_reason == {"abandoned": 1}


def test_an_interrupt_at_the_usual_end_leaves_a_connection_that_is_over() -> None:
    def interrupted(reason: str) -> None:
        raise KeyboardInterrupt

    recorder = Recorder()
    assembler = Assembler(recorder)
    *opening, last = exchange()[: 1 + max(n for n, packet in enumerate(exchange()) if packet[47] & 1)]
    for packet in opening:
        assembler.assemble(packet, 1.0)
    hooked: Any = recorder.only
    hooked.complete = interrupted
    before = list(hooked.anomalies)
    with pytest.raises(KeyboardInterrupt):
        assembler.assemble(last, 1.0)
    statistics = assembler.statistics()
    assert (statistics.connections, statistics.connections_lingering) == (0, 1)
    assert statistics.completions_by_reason == {"fin": 1}
    for packet in opening:
        assembler.assemble(packet, 1.1)
    assert hooked.anomalies == before
    assembler.flush_all()
    assert assembler.statistics().connections_lingering == 0


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupt_in_the_factory_leaves_no_connection_open(form: str) -> None:
    class Interrupted(Recorder):
        def new(self, *arguments: Any) -> Any:
            if not self.connections:
                self.connections.append(None)  # type: ignore[arg-type]
                raise KeyboardInterrupt
            return super().new(*arguments)

    recorder = Interrupted()
    assembler = Assembler(recorder)
    first, *_ = talk(form, 1000, b"")
    with pytest.raises(KeyboardInterrupt):
        assembler.assemble(first, 1.0)
    assert assembler.statistics().completions_by_reason == {"abandoned": 1}
    assembler.assemble(Segment.make(("10.0.0.1", 1000), SERVER, 70_000, flags="S"), 1.0)
    assert len(recorder.connections) == 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("error, told", [(KeyboardInterrupt(), True), (ValueError("told"), False)])
def test_what_a_failing_handler_asked_to_keep_is_no_other_streams(form: str, error: BaseException, told: bool) -> None:
    """Where its error leaves `assemble` at once: an interrupt's does, and one that `on_error` raises again."""

    def keeps_and_fails(recording: Any, chunk: Chunk) -> None:
        if chunk.data[:4] == b"fail":
            chunk.keep_from(1)
            raise error

    def raises(handler: Any, failure: Exception) -> None:
        raise failure

    recorder = Recorder(keeps_and_fails)
    assembler = Assembler(recorder, on_error=None if told else raises)
    for packet in [*talk(form, 1000, b"fail")[:-1], *talk(form, 1001, b"good")[:-1]]:
        assembler.assemble(packet, 1.0)
    with pytest.raises(type(error)):
        assembler.assemble(talk(form, 1000, b"fail")[-1], 1.0)
    assembler.assemble(talk(form, 1001, b"good")[-1], 1.1)
    assembler.assemble(Segment.make(("10.0.0.1", 1001), SERVER, 220, b"more", ack=500), 1.2)
    assert recorder.connections[1].data() == b"good" * 30 + b"more"


@pytest.mark.parametrize("how", ["fails", "stops"])
def test_a_handler_that_lets_go_of_its_pages_when_it_is_asked_for_some_costs_the_speaker_nothing(how: str) -> None:
    """Data of another connection takes these pages, and waits for what is missing before it."""

    def asked(info: Any) -> None:
        if how == "fails":
            raise ValueError(how)
        recorder.connections[0].chunks[0].stop_connection()

    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(5, 3, 10), on_error=lambda handler, error: None)
    for packet in [*talk("segment", 1000, b"1234"), *talk("segment", 1001, b"1234")]:
        assembler.assemble(packet, 1.0)
    hoarder: Any = recorder.connections[0]
    hoarder.over_limit = asked
    for place in (1000, 10_000, 20_000):
        assembler.assemble(Segment.make(("10.0.0.1", 1000), SERVER, place, b"x", ack=500), 1.1)
    assembler.assemble(Segment.make(("10.0.0.1", 1001), SERVER, 230, b"behind", ack=500), 1.2)
    assembler.assemble(Segment.make(("10.0.0.1", 1001), SERVER, 220, b"0123456789", ack=500), 1.3)
    assert recorder.connections[1].text() == "1234" * 30 + "0123456789" + "behind"
    assert hoarder.completions == (["abandoned"] if how == "fails" else [])
