"""The caller's mistakes raise at once, and the message says what to do."""

from __future__ import annotations

import io
from array import array
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from small_captures import exchange
from support.frames import CLIENT, SERVER, SERVER6, tcp_frame
from support.recorder import Recorder
from tcpstitch import (
    Assembler,
    Direction,
    Limits,
    PacketDecoder,
    PacketTypeError,
    Segment,
    Stream,
    StreamCallbackError,
    StreamFactory,
    Timeouts,
    UsageError,
    connections,
    open_capture,
)
from tcpstitch.capture import Share, make_packet
from tcpstitch.state_machine import OptionCheck, TcpStateMachine

FRAME = tcp_frame(CLIENT, SERVER, 100, b"hello")


@pytest.mark.parametrize("factory", [Recorder, None, object(), "factory"])
def test_a_factory_must_be_an_object_that_makes_streams(factory: Any) -> None:
    """Before the first packet."""
    with pytest.raises(UsageError, match="give a"):
        Assembler(factory)


def test_the_class_of_a_factory_is_answered_with_how_to_make_an_object_of_it() -> None:
    with pytest.raises(UsageError, match=r"Recorder\(\.\.\.\), not the class"):
        Assembler(Recorder)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [5, Stream, "stream", object()])
def test_a_factory_that_gives_no_stream_is_told_what_to_give(stream: Any) -> None:
    """The connection is not followed; the next one is, where the factory does it right."""

    class Wrong(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Any:
            return stream

    with pytest.raises(StreamCallbackError, match="subclass of Stream"), Assembler(Wrong()) as assembler:
        for packet in exchange():
            assembler.assemble(packet, 1.0)


@pytest.mark.parametrize("option", ["overlap", "checks", "start", "on_limit", "flow_key", "urgent", "delivery"])
@pytest.mark.parametrize("value", ["", "sometimes", 5, ["first"], True])
def test_an_option_is_one_of_its_choices_and_the_message_names_them(option: str, value: Any) -> None:
    usual = {"overlap": "first", "checks": "strict", "start": "any", "on_limit": "deliver", "flow_key": "plain",
             "urgent": "inline", "delivery": "arrival"}  # fmt: skip
    if (option, value) == ("overlap", ["first"]):
        value = ["ab"]  # rows of a table, of which this one is a network and a policy
    with pytest.raises(UsageError, match=f"{option}.*" + ("" if option == "overlap" else f".*{usual[option]}")):
        Assembler(Recorder(), **{option: value})


def test_on_error_must_be_a_function() -> None:
    with pytest.raises(UsageError, match="on_error=5"):
        Assembler(Recorder(), on_error=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name, value",
    [
        ("on_limit", "keep"), ("on_error", 5), ("urgent", None), ("factory", None), ("factory", Recorder),
        ("limits", None), ("timeouts", 10), ("max_buffered_pages_total", 0), ("max_buffered_pages_per_connection", "5"),
    ],
)  # fmt: skip
def test_a_wrong_value_set_while_running_is_refused_and_the_old_one_stays(name: str, value: Any) -> None:
    assembler = Assembler(Recorder())
    before = getattr(assembler, name)
    with pytest.raises(UsageError, match=f"{name}="):
        setattr(assembler, name, value)
    assert getattr(assembler, name) is before


@pytest.mark.parametrize("name", ["max_bufferd_pages_total", "on_limits", "checks", "overlap", "statistics", "run"])
def test_what_cannot_be_set_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(Assembler(Recorder()), name, 5)


def test_a_subclass_has_attributes_of_its_own() -> None:
    class Named(Assembler):
        def __init__(self, name: str) -> None:
            super().__init__(Recorder())
            self.name = name

    assert Named("first").name == "first"


@pytest.mark.parametrize("capture", ["capture.pcap", b"capture.pcap", io.BytesIO(b"capture"), None, 7])
def test_run_takes_packets_and_not_a_path(capture: Any) -> None:
    """The message names open_capture."""
    with pytest.raises(UsageError, match="open_capture"):
        Assembler(Recorder()).run(capture)


@pytest.mark.parametrize("item", [FRAME, (1.0, FRAME, 7), 5, (1.0,)])
def test_run_says_that_it_takes_pairs(item: Any) -> None:
    """Also behind packets that were right; they have been taken."""
    assembler = Assembler(Recorder())
    with pytest.raises(UsageError, match=r"pairs of \(timestamp, packet\)"):
        assembler.run([(1.0, FRAME), item])
    assert assembler.statistics().packets == 1


@pytest.mark.parametrize("error", [TypeError("of the source"), ValueError("of the source")])
def test_what_the_source_of_packets_raises_passes_through_run(error: Exception) -> None:
    def source() -> Any:
        yield 1.0, FRAME
        raise error

    with pytest.raises(type(error)) as caught:
        Assembler(Recorder()).run(source())
    assert caught.value is error


def test_an_accept_that_forgets_to_return_is_reported() -> None:
    """Instead of leaving out every segment in silence."""

    class Forgetful(Stream):
        def accept(self, segment: Any, direction: Any) -> Any:
            assert segment

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Forgetful()

    with pytest.raises(StreamCallbackError, match=r"accept\(\) returned None: return True"):
        Assembler(Factory()).assemble(FRAME, 1.0)


@pytest.mark.parametrize("payload", [5, "text", None, [1, 2]])
def test_a_segments_payload_is_bytes(payload: Any) -> None:
    """A number is no count of zeros."""
    with pytest.raises(UsageError, match="give bytes"):
        Segment.make(CLIENT, SERVER, 1, payload)


SAMPLE = Path(__file__).parent / "captures" / "caploss.pcap"


def closed(path: Path) -> Any:
    with open(path, "rb") as file:
        return file


WRONG: Dict[str, Callable[[], Any]] = {
    "limits that are none": lambda: Assembler(Recorder(), limits=100),  # type: ignore[arg-type]
    "timeouts that are none, while running": lambda: setattr(Assembler(Recorder()), "timeouts", 100),
    "timeouts that are none": lambda: Assembler(Recorder(), timeouts=100),  # type: ignore[arg-type]
    "a page limit below one, later": lambda: setattr(Assembler(Recorder()), "max_buffered_pages_per_connection", 0),
    "a total limit below one, later": lambda: setattr(Assembler(Recorder()), "max_buffered_pages_total", -5),
    "text as packet": lambda: Assembler(Recorder()).assemble("packet", 1.0),
    "nothing as packet": lambda: Assembler(Recorder()).assemble(None, 1.0),
    "a number as packet": lambda: Assembler(Recorder()).assemble(17, 1.0),
    "flags that do not exist": lambda: Segment.make(CLIENT, SERVER, 1, flags="X"),
    "an address without a port": lambda: Segment.make(CLIENT[0], SERVER[0], 1),  # type: ignore[arg-type]
    "ends of two IP versions": lambda: Segment.make(CLIENT, SERVER6, 1),
    "no end": lambda: Segment.make(None, SERVER, 1),  # type: ignore[arg-type]
    "an end without a port": lambda: Segment.make(CLIENT[:1], SERVER, 1),  # type: ignore[arg-type]
    "text as sequence number": lambda: Segment.make(CLIENT, SERVER, "1"),  # type: ignore[arg-type]
    "no flags": lambda: Segment.make(CLIENT, SERVER, 1, flags=None),  # type: ignore[arg-type]
    "text as options": lambda: Segment.make(CLIENT, SERVER, 1, options="x"),  # type: ignore[arg-type]
    "a window of more than 16 bits": lambda: Segment.make(CLIENT, SERVER, 1, window=0x10000),
    "no window": lambda: Segment.make(CLIENT, SERVER, 1, window=None),  # type: ignore[arg-type]
    "one mark that is no row of them": lambda: Assembler(Recorder(), pressure_marks=0.5),  # type: ignore[arg-type]
    "marks that are text": lambda: Assembler(Recorder(), pressure_marks=(0.5, "high")),  # type: ignore[list-item]
    "a page size that is text": lambda: Limits.from_memory("1MiB", page_size="1"),  # type: ignore[arg-type]
    "a history below zero": lambda: Limits.from_memory("1MiB", max_history_bytes_per_connection=-584),
    "a history beyond the memory": lambda: Limits.from_memory("1MiB", max_history_bytes_per_connection=1 << 20),
    "nothing as source": lambda: connections(None),  # type: ignore[arg-type]
    "bytes as source": lambda: connections(b"file"),  # type: ignore[arg-type]
    "no source": lambda: connections([]),
    "a waiting time that is text": lambda: open_capture(SAMPLE, True, poll_seconds="1"),  # type: ignore[arg-type]
    "a waiting time that is NaN": lambda: open_capture(SAMPLE, True, poll_seconds=float("nan")),
    "a waiting time without an end": lambda: open_capture(SAMPLE, True, poll_seconds=float("inf")),
    "a waiting time that is True": lambda: open_capture(SAMPLE, True, poll_seconds=True),
    "an idle time that is True": lambda: open_capture(SAMPLE, True, idle_seconds=True),
    "an idle time that is text": lambda: open_capture(SAMPLE, True, idle_seconds="1"),  # type: ignore[arg-type]
    "an idle time below zero": lambda: open_capture(SAMPLE, True, idle_seconds=-1),
    "a number as share": lambda: open_capture(SAMPLE, share=2),  # type: ignore[arg-type]
    "a file that was closed": lambda: list(connections(closed(SAMPLE))),
    "a packet for its link type": lambda: make_packet(b"packet", 101),  # type: ignore[arg-type]
    "a number for a packet's bytes": lambda: make_packet(101, 5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_refused_at_once_with_advice(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        WRONG[name]()
    assert len(str(raised.value)) > 20


def test_whatever_lets_its_bytes_be_read_is_a_packet() -> None:
    for kind in (bytes, bytearray, memoryview, lambda data: array("B", data)):
        assembler = Assembler(Recorder())
        assembler.assemble(kind(tcp_frame(CLIENT, SERVER, 1, flags="S")), 1.0)
        assert assembler.statistics().connections == 1


def test_what_is_no_packet_is_a_type_error_too() -> None:
    for packet in ("packet", object()):
        with pytest.raises(TypeError, match=type(packet).__name__) as raised:
            Assembler(Recorder()).assemble(packet, 1.0)
        assert isinstance(raised.value, PacketTypeError)


SHAPES = {
    "frame": lambda frame: frame,
    "cut frame": lambda frame: frame[:20],
    "bytearray": bytearray,
    "cut bytearray": lambda frame: bytearray(frame[:20]),
    "segment": lambda frame: PacketDecoder().decode(frame)[0],
}


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "time",
    ["noon", None, b"1.0", object(), datetime(2024, 5, 6), timedelta(1), 1j, float("nan"), Decimal("NaN"),
     Decimal("sNaN"), Fraction(10**400), pytest.param(10**400, id="huge")],
)  # fmt: skip
def test_a_packets_time_must_be_a_number(time: Any, shape: str, before: int) -> None:
    """Whichever packet has something else is refused, the message says what is wanted, and nothing has changed."""
    packets = exchange()
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for number, packet in enumerate(packets):
            if number == before:
                with pytest.raises(UsageError, match="give seconds"):
                    assembler.assemble(SHAPES[shape](packet), time)
            assembler.assemble(packet, 1.0 + number)
    assert assembler.statistics().packets == len(packets)
    assert recorder.only.completions == ["fin"]


class NumericText(str):
    """As numpy's strings, which can become numbers but cannot be compared with them."""

    def __float__(self) -> float:
        return 5.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("time", [True, NumericText("5")])
def test_what_merely_becomes_a_number_is_no_time(time: Any, shape: str) -> None:
    with pytest.raises(UsageError, match="give seconds"):
        Assembler(Recorder()).assemble(SHAPES[shape](FRAME), time)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("before", range(7))
def test_run_stops_at_a_time_that_is_no_number_and_can_go_on(before: int, exact: bool) -> None:
    """Also after an exact time, with which times are compared in another way."""
    packets = [(Fraction(1) if exact and at == 0 else 1.0 + at, packet) for at, packet in enumerate(exchange())]
    with Assembler(recorder := Recorder()) as assembler:
        with pytest.raises(UsageError, match="nan is no time"):
            assembler.run([*packets[:before], (float("nan"), packets[before][1]), *packets])
        assembler.run(packets[before:])
    assert assembler.statistics().packets == len(packets)
    assert recorder.only.completions == ["fin"] and not recorder.only.anomalies


def test_an_error_of_the_callers_own_passes_through() -> None:
    """A type error that a callback of the caller's raises is not taken for a wrong time."""

    def on_error(handler: Any, error: BaseException) -> None:
        raise TypeError("of the caller's")

    def fails(recording: Any, chunk: Any) -> None:
        raise ValueError

    assembler = Assembler(Recorder(fails), on_error=on_error, timeouts=Timeouts(gap=1.0))
    for number in range(2):
        assembler.assemble(tcp_frame(CLIENT, SERVER, 100 + 500 * number, b"x" * 100), 1.0)
    with pytest.raises(TypeError, match="of the caller's"):
        assembler.assemble(tcp_frame(SERVER, CLIENT, 100), 60.0)


@pytest.mark.parametrize("exact", [Decimal, Fraction])
def test_a_packets_time_may_be_an_exact_number(exact: Any) -> None:
    """dpkt reads nanosecond captures with `Decimal` times: all happens as it does with floats, also at the timers."""
    outcomes = []
    for kind in (float, exact):
        recorder = Recorder()
        assembler = Assembler(recorder, timeouts=Timeouts(idle=60))
        for at, packet in enumerate(exchange()[:-3]):
            assembler.assemble(packet, kind(1000 + at / 4))
        assembler.assemble(FRAME, kind(1200))
        assembler.flush_older_than(kind(1300), kind(1300))
        outcomes.append(([connection.completions for connection in recorder.connections], assembler.statistics()))
    assert outcomes[0] == outcomes[1]
    assert ["idle"] in outcomes[0][0]


@pytest.mark.parametrize("exact", [Decimal, Fraction])
@pytest.mark.parametrize("place", range(9))
def test_a_single_exact_time_among_floats_changes_nothing(exact: Any, place: int) -> None:
    """As where the packets of two readers meet: what waits behind a hole is compared with both kinds of time."""
    sent = [(0, b""), (1, b"a" * 100), (201, b"b" * 100), (401, b"c" * 100), (401, b"c" * 100), (101, b"d" * 100)]
    frames = [tcp_frame(CLIENT, SERVER, 100 + at, data, "A" if at else "S", ack=501) for at, data in sent]
    frames[1:1] = [tcp_frame(SERVER, CLIENT, 500, b"", "SA", ack=101)]
    frames[4:4] = [tcp_frame(SERVER, CLIENT, 501, b"e" * 100, "A", ack=501), tcp_frame(SERVER, CLIENT, 601, ack=501)]
    outcomes = []
    for kind in (float, exact):
        recorder = Recorder()
        assembler = Assembler(recorder, timeouts=Timeouts(gap=3.0))
        for number, frame in enumerate(frames):
            assembler.assemble(frame, (kind if number == place else float)(1 + number / 64))
            assembler.top()
        assembler.assemble(tcp_frame(SERVER, CLIENT, 601, ack=501), 8.0)
        outcomes.append((recorder.only.text(), recorder.only.gaps, recorder.only.anomalies, assembler.statistics()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("stamps", [("noon",), (None,), (1.0, "noon"), (float("nan"),), (1.0, float("nan"))])
def test_flushing_takes_times_in_seconds(stamps: Any) -> None:
    """Also where there is nothing to flush."""
    with pytest.raises(UsageError, match="seconds"):
        Assembler(Recorder()).flush_older_than(*stamps)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b""}, {"key": b"abc"}, {"key": bytes(11)}, {"key": bytes(13)}, {"key": (b"abc", ())}, {"key": "x" * 12},
        {"payload": memoryview(b"abc")}, {"payload": b"abcdef"}, {"length": -1}, {"length": 1 << 31},
        {"seq": -1}, {"seq": 1 << 32}, {"ack": -1}, {"window": -1}, {"payload": 5}, {"length": None}, {"seq": "11"},
        {"window": 5.5}, {"flags": None}, {"flags": 1 << 12}, {"ttl": None}, {"ttl": 256}, {"options": "ab"},
        {"options": bytes(41)}, {"options": None}, {"urgent_pointer": 1 << 16},
    ],
)  # fmt: skip
def test_a_segment_that_no_packet_could_have_held_is_refused_and_nothing_happens(fields: Any) -> None:
    """Neither is a connection opened nor is the one that is open touched."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(CLIENT, SERVER, 10, flags="S"), 1.0)
    good = Segment.make(CLIENT, SERVER, 11, b"good")
    values = {"key": good.key, "seq": 11, "ack": 0, "flags": 16, "window": 100, "payload": b"bad", "length": 3}
    with pytest.raises(UsageError, match="Segment"):
        assembler.assemble(Segment(**{**values, **fields}), 1.5)
    assembler.assemble(good, 2.0)
    assembler.flush_all()
    assert recorder.only.data() == b"good"


@pytest.mark.parametrize("wrong", [None, "2", 1.5, True, -1])
def test_numbers_are_whole_and_large_enough(wrong: Any) -> None:
    assembler = Assembler(Recorder())
    calls: Dict[str, Callable[[], Any]] = {
        "count": lambda: assembler.top(wrong),
        "holders": lambda: assembler.explain(wrong),
        "index": lambda: Share(wrong, 2),
        "max_fragments": lambda: PacketDecoder(max_fragments=wrong),
        "max_fragment_bytes": lambda: PacketDecoder(max_fragment_bytes=wrong),
        "max_depth": lambda: PacketDecoder(max_depth=wrong),
    }
    for name, call in calls.items():
        with pytest.raises(UsageError, match=f"^{name}=.*: give a whole number"):
            call()
    with pytest.raises(UsageError, match="^count=.*: give a whole number"):
        Share(0, wrong)


@pytest.mark.parametrize("wrong", ["30", Decimal("NaN"), True])
def test_a_decoder_takes_a_timeout_in_seconds(wrong: Any) -> None:
    with pytest.raises(UsageError, match="use seconds"):
        PacketDecoder(fragment_timeout=wrong)


@pytest.mark.parametrize("wrong", [(None, Direction.CLIENT_TO_SERVER), (FRAME, Direction.CLIENT_TO_SERVER), (None, 5)])
def test_checks_take_what_accept_is_given(wrong: Any) -> None:
    for check in (TcpStateMachine().check, lambda *both: OptionCheck().check(*both, -1)):
        with pytest.raises(UsageError, match="as `accept` is given them"):
            check(*wrong)
    segment = Segment.make(CLIENT, SERVER, 1, b"")
    with pytest.raises(UsageError, match="next_seq"):
        OptionCheck().check(segment, Direction.CLIENT_TO_SERVER, None)  # type: ignore[arg-type]
