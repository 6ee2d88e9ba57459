"""An assembler shows who holds what, tells when it gets tight, and asks what shall give way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional

import pytest

from support.holding import SERVER, feed, holding, piece, syn
from support.recorder import Recorder, Recording
from tcpstitch import (
    Assembler,
    Flow,
    Limits,
    OverLimit,
    Segment,
    Stream,
    StreamCallbackError,
    UsageError,
    open_capture,
)

CAPLOSS = Path(__file__).parent / "captures" / "caploss.pcap"


class Choosing(Recording):
    """Answers `over_limit` with what the factory says, and writes down what it was told."""

    def over_limit(self, info: OverLimit) -> Optional[str]:
        self.owner.infos.append(info)  # type: ignore[attr-defined]
        return self.owner.choice  # type: ignore[attr-defined, no-any-return]


class ChoosingRecorder(Recorder):
    def __init__(self, choice: Any) -> None:
        super().__init__()
        self.choice = choice
        self.infos: List[OverLimit] = []

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        stream = Choosing(self, flow, timestamp)
        self.connections.append(stream)
        return stream


# -- over_limit


def test_a_stream_may_deliver_at_its_limit_although_the_assembler_would_drop() -> None:
    recorder = ChoosingRecorder("deliver")
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=3), on_limit="drop")
    holding(assembler, 0, 3)
    assert [gap.reason for gap in recorder.only.gaps] == ["page_limit"]
    assert recorder.only.data() == b"x" * 100
    assert recorder.infos[0][:3] == ("page_limit", 3, 300)


def test_a_stream_may_drop_its_oldest_data_at_its_limit() -> None:
    recorder = ChoosingRecorder("drop")
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=3))
    holding(assembler, 0, 3)
    assert recorder.only.chunks == [] and recorder.only.gaps == []
    assert assembler.statistics().pages_used == 2


@pytest.mark.parametrize("last", ["", "FA", "RA"])
def test_what_a_limit_made_drop_is_a_gap_at_the_end(last: str) -> None:
    client, recorder = ("10.0.0.1", 4000), Recorder()
    limits = Limits(max_buffered_pages_per_connection=1)
    with Assembler(recorder, limits=limits, on_limit="drop") as assembler:
        assembler.assemble(Segment.make(client, SERVER, 999, flags="S"), 1.0)
        assembler.assemble(Segment.make(SERVER, client, 4999, flags="SA", ack=1000), 1.0)
        assembler.assemble(Segment.make(client, SERVER, 1000, b"abc", ack=5000), 1.0)
        for number in range(4):
            assembler.assemble(Segment.make(client, SERVER, 1010 + 2048 * number, b"x" * 2048, ack=5000), 1.0)
        if last:
            assembler.assemble(Segment.make(client, SERVER, 1010 + 4 * 2048, flags=last, ack=5000), 1.0)
    assert [(gap.offset, gap.length, gap.reason) for gap in recorder.only.gaps] == [(3, 7 + 4 * 2048, "flushed")]
    assert [chunk.offset for chunk in recorder.only.chunks if chunk.end] == ([10 + 4 * 2048] if last == "FA" else [])
    assert assembler.statistics().missing_bytes == 7 + 4 * 2048


def test_where_the_data_that_waited_for_its_start_was_dropped_the_start_was_not_seen() -> None:
    recorder = Recorder()
    with Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=1), on_limit="drop") as assembler:
        feed(assembler, piece(0, 0))
        assembler.limits = Limits()
        feed(assembler, piece(0, 200))
    assert [(chunk.offset, chunk.skip) for chunk in recorder.only.chunks] == [(200, -1)]
    assert [(gap.offset, gap.length) for gap in recorder.only.gaps] == [(0, 200)]


def test_a_stream_may_have_itself_abandoned_at_its_limit() -> None:
    recorder = ChoosingRecorder("abandon")
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=3))
    holding(assembler, 0, 3)
    assert recorder.only.completions == ["abandoned"]
    assert assembler.statistics().pages_used == 0


def test_without_an_answer_the_assembler_decides() -> None:
    recorder = ChoosingRecorder(None)
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=3), on_limit="abandon")
    holding(assembler, 0, 3)
    assert recorder.only.completions == ["abandoned"]


def test_the_longest_idle_stream_is_asked_at_the_total_limit() -> None:
    recorder = ChoosingRecorder("abandon")
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_total=4))
    holding(assembler, 0, 2)
    feed(assembler, syn(1), *(piece(1, 4096 * (index + 1)) for index in range(3)), timestamp=8.0)
    assert recorder.infos == [OverLimit("total_limit", 2, 200, 7.0)]
    assert [connection.completions for connection in recorder.connections] == [["abandoned"], []]


def test_an_answer_that_is_no_choice_costs_the_stream_and_says_which_there_are() -> None:
    recorder = ChoosingRecorder("everything")
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=3))
    with pytest.raises(StreamCallbackError, match="deliver, drop, abandon"):
        holding(assembler, 0, 3)
    assert recorder.only.completions == ["abandoned"]
    assert assembler.statistics().pages_used == 0


# -- pressure


def test_pressure_is_told_at_its_marks_and_does_not_flutter_around_them() -> None:
    levels: List[int] = []
    limits = Limits(max_buffered_pages_total=100)
    assembler = Assembler(Recorder(), limits=limits, on_pressure=levels.append, pressure_marks=(0.5, 0.9))
    for number in range(50):
        holding(assembler, number, 1)
    assert levels == [1]
    for _ in range(5):  # down to 46 and up to 50 again: less than the hysteresis
        feed(assembler, *(piece(number, 0, b"!" * 4096) for number in range(4)))
        feed(assembler, *(piece(number, 9000) for number in range(4)))
    for number in range(50, 90):
        holding(assembler, number, 1)
    assert levels == [1, 2]
    assert assembler.statistics().pressure == pytest.approx(0.9)
    assembler.flush_older_than(2.0)
    feed(assembler, syn(99))
    assert levels == [1, 2, 0]


def test_many_connections_are_pressure_too_but_those_that_are_over_are_not() -> None:
    levels: List[int] = []
    assembler = Assembler(Recorder(), limits=Limits(max_connections=10), on_pressure=levels.append)
    feed(assembler, *(syn(number) for number in range(10)))
    assert levels == [1, 2, 3]
    feed(assembler, *(Segment.make(("10.0.0.1", 40000 + number), SERVER, 1000, flags="R") for number in range(10)))
    assert levels[-1] == 0


def test_a_pressure_callback_that_raises_reaches_the_caller_and_breaks_nothing() -> None:
    def fail(level: int) -> None:
        raise ValueError(level)

    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(max_connections=2), on_pressure=fail)
    with pytest.raises(StreamCallbackError, match="on_pressure"):
        feed(assembler, syn(0))
    feed(assembler, piece(0, 0))
    assert recorder.only.data() == b"x" * 100


def test_a_pressure_callback_that_raises_is_told_to_on_error() -> None:
    def fail(level: int) -> None:
        raise ValueError(level)

    heard: List[Any] = []
    limits = Limits(max_connections=2)
    on_error = lambda handler, error: heard.append((handler, str(error)))  # noqa: E731
    feed(Assembler(Recorder(), limits=limits, on_pressure=fail, on_error=on_error), syn(0))
    assert heard == [(fail, "1")]


@pytest.mark.parametrize("marks", [(), (0.5, 0.5), (0.9, 0.5), (0.0,), (1.1,)])
def test_marks_that_cannot_work_are_refused(marks: Any) -> None:
    with pytest.raises(UsageError, match="pressure_marks"):
        Assembler(Recorder(), on_pressure=print, pressure_marks=marks)


# -- a budget


def test_a_budget_is_the_bound_of_all_that_grows() -> None:
    for megabytes in (1, 16, 64, 256):
        limits = Limits.from_memory(f"{megabytes}MiB")
        assert 0.5 * megabytes * 2**20 < limits.memory_bound <= megabytes * 2**20
        with_history = Limits.from_memory(f"{megabytes}MiB", max_history_bytes_per_connection=4096)
        assert with_history.memory_bound <= megabytes * 2**20
        assert with_history.max_connections < limits.max_connections


# -- what can be seen


def busy_assembler() -> Assembler:
    assembler = Assembler(Recorder(), limits=Limits(max_buffered_pages_per_connection=4, max_buffered_pages_total=6))
    holding(assembler, 0, 6)
    holding(assembler, 1, 3)
    feed(assembler, syn(2), piece(2, 0), Segment.make(("10.0.0.1", 40002), SERVER, 1100, flags="R"))
    return assembler


def test_statistics_add_up_by_reason_and_kind() -> None:
    assembler = busy_assembler()
    statistics = assembler.statistics()
    assert sum(statistics.gaps_by_reason.values()) == statistics.gaps > 0
    assert sum(statistics.completions_by_reason.values()) == statistics.connections_completed == 1
    assert statistics.evictions_by_kind["page_limit"] == statistics.page_limit_hits > 0
    assert (statistics.connections, statistics.connections_embryonic, statistics.connections_lingering) == (2, 0, 1)
    assert statistics.connections_peak == 3
    assert 0 < statistics.memory_bytes <= statistics.memory_bound == assembler.limits.memory_bound
    assembler.flush_all()
    after = assembler.statistics()
    assert sum(after.completions_by_reason.values()) == after.connections_completed == 3
    assert after.completions_by_reason["flushed"] == 2


def test_top_names_the_largest_holders_first() -> None:
    """With their pages, bytes and how long they have been silent; not more of them than asked for."""
    assembler = Assembler(Recorder())
    for number, pages in enumerate((2, 5, 3)):
        feed(assembler, syn(number), timestamp=10.0 * number)
        for index in range(pages):
            feed(assembler, piece(number, 4096 * (index + 1)), timestamp=10.0 * number)
    feed(assembler, syn(9), timestamp=50.0)
    holders = [(str(flow)[:14], *numbers) for flow, *numbers in assembler.top(2)]
    assert holders == [("10.0.0.1:40001", 5, 500, 40.0), ("10.0.0.1:40002", 3, 300, 30.0)]
    assert len(assembler.top()) == 3


def test_nobody_has_been_silent_for_less_than_no_time() -> None:
    """The clock goes in steps, and what is held is younger than the last of them."""
    with Assembler(Recorder()) as assembler, open_capture(CAPLOSS) as capture:
        assembler.run(capture)
        assert [holder.age for holder in assembler.top() if not 0 <= holder.age < 1] == []


def test_explain_names_every_holder_and_bound_in_words() -> None:
    text = busy_assembler().explain()
    assert "10.0.0.1:40001 > 10.0.0.2:80: 3 pages, 300 bytes" in text
    assert "of 6 (4 per connection)" in text
    assert "page_limit" in text
    assert "2 open" in text
    assert all(len(line) < 200 for line in text.splitlines())
    assert (text.count("\nholder"), busy_assembler().explain(1).count("\nholder")) == (2, 1)


def test_explain_says_times_no_finer_than_its_clock_goes() -> None:
    assembler = Assembler(Recorder())
    for timestamp in (10.25, 10.875):
        feed(assembler, piece(1, 4096), timestamp=timestamp)
    text = assembler.explain()
    assert "time         10 (" in text and "last packet 0 s ago" in text


def test_explain_works_on_an_assembler_that_has_seen_nothing() -> None:
    assert "0 used of 100 000" in Assembler(Recorder()).explain()


# -- Prometheus


def test_prometheus_sees_what_statistics_say() -> None:
    client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: tcpstitch[metrics]")
    from tcpstitch.metrics import register

    assembler = busy_assembler()
    registry = client.CollectorRegistry()
    register(assembler, registry)
    statistics = assembler.statistics()
    value = registry.get_sample_value
    assert value("tcpstitch_packets_total") == statistics.packets
    assert value("tcpstitch_pages_used") == statistics.pages_used
    assert value("tcpstitch_gaps_total", {"reason": "page_limit"}) == statistics.gaps_by_reason["page_limit"]
    assert value("tcpstitch_evictions_total", {"kind": "page_limit"}) == statistics.page_limit_hits
    text = client.generate_latest(registry).decode()
    for field, number in statistics._asdict().items():
        if isinstance(number, (int, float)) and field not in ("gaps", "evictions", "connections_completed"):
            assert f"\ntcpstitch_{field}" in text, field


def test_prometheus_tells_several_assemblers_apart() -> None:
    client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: tcpstitch[metrics]")
    from tcpstitch.metrics import register

    registry = client.CollectorRegistry(auto_describe=True)
    register({"busy": busy_assembler(), "idle": Assembler(Recorder())}, registry)
    assert registry.get_sample_value("tcpstitch_connections", {"assembler": "busy"}) == 2
    assert registry.get_sample_value("tcpstitch_connections", {"assembler": "idle"}) == 0
    with pytest.raises(ValueError, match="[Dd]uplicate"):
        register(Assembler(Recorder()), registry)


def test_a_second_collector_of_the_same_metrics_is_refused() -> None:
    client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: tcpstitch[metrics]")
    from tcpstitch.metrics import register

    registry = client.CollectorRegistry()
    first = register(Assembler(Recorder()), registry)
    with pytest.raises(ValueError, match="[Dd]uplicate"):
        register(Assembler(Recorder()), registry)
    registry.unregister(first)
    register(Assembler(Recorder()), registry)


def test_bytes_that_came_with_the_packet_that_ended_the_interest_are_not_counted_as_delivered() -> None:
    """The handler fails at the conflict, which is told before the bytes of the same packet are handed over."""
    recorder = Recorder()

    def new(flow: Flow, segment: Segment, timestamp: float) -> Any:
        recording = Recorder.new(recorder, flow, segment, timestamp)

        def anomaly(anomaly: Any) -> None:
            if anomaly.kind == "overlap_conflict":
                raise ValueError("a handler's")

        recording.anomaly = anomaly  # type: ignore[union-attr, method-assign]
        return recording

    recorder.new = new  # type: ignore[method-assign]
    assembler = Assembler(recorder)
    feed(assembler, syn(0), piece(0, 0), piece(0, 200, b"y" * 100))
    with pytest.raises(StreamCallbackError):
        feed(assembler, piece(0, 100, b"z" * 200))
    assert assembler.statistics().bytes == sum(len(chunk.data) for chunk in recorder.only.chunks) == 100


@pytest.mark.parametrize("keep", ["all", "some", "none"])
def test_bytes_that_a_handler_keeps_back_are_counted_once(keep: str) -> None:
    """Also inside the handler: bytes and missing bytes together say how far the stream has come."""
    counts = []

    def hold(recording: Recording, chunk: Any) -> None:
        counts.append(assembler.statistics().bytes)
        if not chunk.end:
            chunk.keep_from({"all": 0, "some": len(chunk.data) - 30, "none": len(chunk.data)}[keep])

    assembler = Assembler(Recorder(hold))
    feed(assembler, syn(0), piece(0, 0), piece(0, 100), piece(0, 300), piece(0, 200), piece(0, 500))
    assert assembler.statistics().bytes == 400
    assembler.flush_all()
    statistics = assembler.statistics()
    assert (statistics.bytes, statistics.missing_bytes) == (500, 100)
    assert counts == [100, 200, 300, 400, 500]
