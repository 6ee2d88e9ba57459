"""What the messages about wrong use say, and that they stay short."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from io import BytesIO
from typing import Any, Callable, Dict, List

import pytest

from small_captures import exchange
from support.frames import CLIENT, SERVER, SERVER6, tcp_frame
from support.recorder import Recorder
from tcpstitch import (
    Assembler,
    LimitsError,
    PacketDecoder,
    PacketTypeError,
    Segment,
    Stream,
    StreamCallbackError,
    StreamFactory,
    Timeouts,
    UsageError,
    open_capture,
)

FRAME = tcp_frame(CLIENT, SERVER, 100, b"hello" * 250)
SHAPES: Dict[str, Callable[[bytes], Any]] = {
    "frame": lambda frame: frame,
    "bytearray": bytearray,
    "segment": lambda frame: PacketDecoder().decode(frame)[0],
}


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("endless", [float("inf"), Decimal("Infinity")])
def test_a_packet_does_not_come_at_the_end_of_time(endless: Any, shape: str, before: int) -> None:
    """Whichever it is, and nothing has changed."""
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for at, packet in enumerate(exchange()):
            if at == before:
                with pytest.raises(UsageError, match="nfinity|inf is no time"):
                    assembler.assemble(SHAPES[shape](packet), endless)
            assembler.assemble(SHAPES[shape](packet), 1.0 + at)
    assert assembler.statistics().packets == len(exchange())
    assert recorder.only.completions == ["fin"] and not recorder.only.gaps


class Awaited(Stream):
    async def reassembled(self, chunk: Any) -> None:  # type: ignore[override]
        """Would never run."""


class Generated(Stream):
    def gap(self, gap: Any) -> Any:
        yield gap


@pytest.mark.parametrize("kind, name", [(Awaited, "reassembled"), (Generated, "gap")])
def test_a_handler_of_which_a_call_would_run_nothing_is_refused(kind: Any, name: str) -> None:
    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Any:
            return kind()

    with pytest.raises(StreamCallbackError, match=rf"{name}\(\) .* is async or a generator"):
        Assembler(Factory()).assemble(exchange()[0], 1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_nor_does_the_first_come_before_all_time(shape: str) -> None:
    with pytest.raises(UsageError, match="-inf is no time"):
        Assembler(Recorder()).assemble(SHAPES[shape](FRAME), float("-inf"))


def test_a_flush_may_take_all_that_waits_whatever_its_time() -> None:
    """And leave the connections open, which `flush_all` does not."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    for packet in (tcp_frame(CLIENT, SERVER, 99, b"", "S"), tcp_frame(CLIENT, SERVER, 110, b"behind a hole")):
        assembler.assemble(packet, 5.0)
    assert assembler.flush_older_than(float("-inf"), float("-inf")) == (0, 0)
    assert assembler.flush_older_than(float("inf")) == (1, 0)
    assert recorder.only.text() == "[10 bytes missing]behind a hole"
    assert assembler.flush_older_than(float("inf"), float("inf")) == (0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_datetime_is_answered_with_how_to_make_seconds_of_it(shape: str) -> None:
    with pytest.raises(UsageError, match=r"give seconds since the epoch, its timestamp\(\)"):
        Assembler(Recorder()).assemble(SHAPES[shape](FRAME), datetime(2024, 5, 6))  # type: ignore[arg-type]


def test_swapped_arguments_are_answered_with_their_order() -> None:
    order = r"assemble takes \(packet, timestamp\), run pairs of \(timestamp, packet\)"
    with pytest.raises(UsageError, match=order):
        Assembler(Recorder()).assemble(1.0, FRAME)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=order):
        Assembler(Recorder()).run([(FRAME, 1.0)])  # type: ignore[list-item]


WIDE: "List[Callable[[Assembler], Any]]" = [
    lambda assembler: assembler.assemble(1.0, FRAME),  # type: ignore[arg-type]
    lambda assembler: assembler.run([(FRAME, 1.0)]),  # type: ignore[list-item]
    lambda assembler: assembler.run([FRAME] * 1000),  # type: ignore[list-item]
    lambda assembler: assembler.run(FRAME),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("call", range(len(WIDE)))
def test_a_message_holds_no_whole_packet_and_no_list_of_them(call: int) -> None:
    with pytest.raises(UsageError) as raised:
        WIDE[call](Assembler(Recorder()))
    assert len(str(raised.value)) < 400


def test_a_packet_of_another_library_is_named_with_it() -> None:
    """Since scapy has an `IP` as dpkt has one."""

    class IP:
        __module__ = "scapy.layers.inet"

    with pytest.raises(PacketTypeError, match=r"type scapy\.layers\.inet\.IP: .*packet\.original"):
        Assembler(Recorder()).assemble(IP(), 1.0)


def test_a_factory_without_a_method_of_its_own_is_refused_before_the_first_packet() -> None:
    """As where its name is written in another way."""

    class Factory(StreamFactory):
        def New(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Stream()

    for factory in (Factory(), StreamFactory()):
        with pytest.raises(UsageError, match=r"a method new\(flow, segment, timestamp\) of its own"):
            Assembler(factory)


def test_a_factory_may_get_its_method_later() -> None:
    factory = StreamFactory()
    factory.new = lambda flow, segment, timestamp: None  # type: ignore[method-assign]
    Assembler(factory).assemble(FRAME, 1.0)


def test_a_timeout_that_is_exact_is_told_which_numbers_do() -> None:
    with pytest.raises(LimitsError, match="an int or float from 0 on"):
        Timeouts(gap=Decimal(3))  # type: ignore[arg-type]


def test_metrics_name_assemblers_by_text() -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: tcpstitch[metrics]")
    from tcpstitch.metrics import register

    with pytest.raises(UsageError, match="give names as text"):
        register({1: Assembler(Recorder())})  # type: ignore[dict-item]


@pytest.mark.parametrize("wrong", [None, Assembler, {"one": Recorder()}, [Assembler(Recorder())]])
def test_metrics_are_those_of_assemblers(wrong: Any) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: tcpstitch[metrics]")
    from tcpstitch.metrics import register

    with pytest.raises(UsageError, match="give an Assembler, or a mapping from names to them"):
        register(wrong)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((("host", 80), SERVER), r"source \('host', 80\): give .*'host' does not appear"),
        ((CLIENT, ("10.0.0.2", "80")), r"destination \('10.0.0.2', '80'\): give .* up to 65535"),
        ((CLIENT, ("10.0.0.2", 65536)), r"destination .* up to 65535"),
        ((CLIENT, ("10.0.0.2", -1)), r"destination .* up to 65535"),
        ((CLIENT, SERVER6), "one IP version"),
    ],
)
def test_a_wrong_end_of_a_segment_is_named(ends: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Segment.make(*ends, 1)


@pytest.mark.parametrize("wrong", [{}, {"address": "10.0.0.1"}, None, "10.0.0.1", ("10.0.0.1",)])
def test_an_endpoint_is_an_address_and_a_port(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"pair of \(address, port\)"):
        Segment.make(wrong, SERVER, 1, b"")


@pytest.mark.parametrize(
    "made",
    [
        lambda seconds: Timeouts(closed=seconds),
        lambda seconds: PacketDecoder(fragment_timeout=seconds),
        lambda seconds: open_capture(BytesIO(), idle_seconds=seconds),
    ],
)
def test_seconds_that_no_float_can_hold_are_refused_at_once(made: Callable[[Any], Any]) -> None:
    """Not when they are first reckoned with."""
    with pytest.raises(UsageError, match="give seconds|use seconds"):
        made(10**309)


@pytest.mark.parametrize("name", ["on_error", "on_pressure"])
def test_what_a_call_does_not_run_is_no_callback(name: str) -> None:
    async def awaited(*arguments: Any) -> None:
        raise AssertionError

    def yielding(*arguments: Any) -> Any:
        yield

    for callback in (awaited, yielding):
        with pytest.raises(UsageError, match=f"{name}=.* is async or a generator: a plain function is called"):
            Assembler(Recorder(), **{name: callback})  # type: ignore[arg-type]
