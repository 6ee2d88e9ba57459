"""Limits that are set while an assembler runs, by its owner or by one of its handlers."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List

import pytest

from support.both_ways import opened, packet
from support.frames import tcp_frame
from support.holding import SERVER, feed, holding, piece, syn
from support.recorder import Recorder, Recording
from tcpstitch import Assembler, Limits, PacketDecoder, Segment, UsageError
from tcpstitch.capture import make_packet


def test_smaller_limits_evict_connections_and_pages_at_once() -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    for number in range(10):
        holding(assembler, number, 5)
    assembler.limits = dataclasses.replace(assembler.limits, max_connections=4, max_buffered_pages_total=12)
    statistics = assembler.statistics()
    assert statistics.connections == 4
    assert statistics.pages_used <= 12
    assert [connection.completions for connection in recorder.connections] == [["evicted"]] * 6 + [[]] * 4
    assembler.limits = dataclasses.replace(assembler.limits, max_buffered_pages_per_connection=2)
    assert all(holder.pages < 2 for holder in assembler.top(10))
    assembler.check()


@pytest.mark.parametrize("place", [0, 1], ids=["frames", "segments"])
def test_what_smaller_limits_give_up_bears_the_time_of_the_last_packet(place: int) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    packets = [packet("c", "A", offset, 0, 100) for offset in (4096, 8192, 12288)]
    for number, fields in enumerate([*opened(), *packets]):
        frame = tcp_frame(**fields)
        assembler.assemble(PacketDecoder().decode(frame)[0] if place else frame, number / 8)
    assembler.max_buffered_pages_total = 1
    assert [gap.timestamp for gap in recorder.only.gaps] == [0.625] * 2


def test_gopackets_two_settings_are_the_same_limits() -> None:
    assembler = Assembler(Recorder())
    assembler.max_buffered_pages_total = 7
    assembler.max_buffered_pages_per_connection = 3
    assert assembler.limits == Limits(max_buffered_pages_per_connection=3, max_buffered_pages_total=7)
    assembler.limits = Limits(max_buffered_pages_per_connection=5)
    assert (assembler.max_buffered_pages_per_connection, assembler.max_buffered_pages_total) == (5, 100_000)


def test_smaller_fragment_limits_evict_datagrams_at_once() -> None:
    header = bytes.fromhex("020000000001020000000002 0800")
    assembler = Assembler(Recorder())
    for number in range(20):
        packet = bytes.fromhex("4500001c") + number.to_bytes(2, "big") + bytes.fromhex("200140060000")
        assembler.assemble(header + packet + b"\x0a\0\0\1\x0a\0\0\2fragment", 1.0)
    assert assembler.statistics().fragments == 20
    assembler.limits = dataclasses.replace(assembler.limits, max_fragments=5)
    assert assembler.statistics().fragments == 5


def lowering() -> Assembler:
    """One whose handlers lower the limits to 3 connections and 5 pages, with 8 connections that hold 2 pages each."""

    def lower(recording: Recording, chunk: Any) -> None:
        assembler.limits = dataclasses.replace(assembler.limits, max_buffered_pages_total=5, max_connections=3)

    assembler = Assembler(Recorder(lower))
    for number in range(8):
        holding(assembler, number, 2)
    return assembler


def test_limits_that_a_handler_lowers_hold_with_the_next_packet() -> None:
    assembler = lowering()
    feed(assembler, piece(7, 0, b"!"), piece(7, 1, b"!"))
    statistics = assembler.statistics()
    assert statistics.connections <= 3 and statistics.pages_used <= 5
    assembler.check()


@pytest.mark.parametrize("form", ["frame", "bytearray", "segment", "cooked"])
def test_limits_that_a_handler_lowers_when_a_timer_calls_it_hold_with_the_next_packet(form: str) -> None:
    """Whatever is given: none of the forms has the timers look twice at one packet."""
    forms: Dict[str, Any] = {
        "frame": bytes, "bytearray": bytearray, "segment": lambda frame: PacketDecoder().decode(frame)[0],
        "cooked": lambda frame: make_packet(113, bytes(14) + frame[12:]),
    }  # fmt: skip

    def lower(recording: Recording, chunk: Any) -> None:
        assembler.limits = dataclasses.replace(assembler.limits, max_connections=1)

    assembler = Assembler(Recorder(lower))
    opened = []
    for port, seq, data, flags, timestamp in (
        (1, 1, b"", "S", 1.0), (2, 1, b"", "S", 1.0), (3, 50, b"no SYN", "A", 1.1), (2, 1, b"", "S", 3.0),
        (2, 1, b"", "S", 3.1),
    ):  # fmt: skip
        frame = tcp_frame(("10.0.0.1", port), SERVER, seq, data, flags, ack=1 if flags == "A" else 0)
        assembler.assemble(forms[form](frame), timestamp)
        opened.append(assembler.statistics().connections)
    assert opened == [1, 2, 3, 3, 1]


@pytest.mark.parametrize("flushed", ["before", "during", "at the end"])
def test_limits_that_a_handler_lowers_hold_when_a_flush_returns(flushed: str) -> None:
    """Whether it did so in a packet before the flush, or in the flush itself."""
    assembler = lowering()
    if flushed == "during":
        assert assembler.flush_older_than(2.0).flushed
    else:
        feed(assembler, piece(7, 0, b"!"))
        if flushed == "before":
            assembler.flush_older_than(0.0)
        else:
            assembler.flush_all()
    statistics = assembler.statistics()
    assert statistics.connections <= 3 and statistics.pages_used <= 5
    assembler.check()


@pytest.mark.parametrize("how", ["an interrupt", "a failing on_error"])
def test_smaller_limits_whose_eviction_was_cut_short_hold_with_the_next_packet(how: str) -> None:
    """Whatever its time is."""
    raising = [True]

    def fail(*_: Any) -> None:
        if raising:
            raise KeyboardInterrupt if how == "an interrupt" else RuntimeError

    assembler = Assembler(Recorder(fail), on_error=fail)
    for number in range(8):
        holding(assembler, number, 4)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        assembler.limits = dataclasses.replace(assembler.limits, max_buffered_pages_total=5)
    raising.clear()
    assert assembler.statistics().pages_used > 5
    feed(assembler, piece(9, 0, b"!"))
    assert assembler.statistics().pages_used <= 5
    assembler.check()


def test_on_pressure_hears_at_once_of_limits_that_were_set() -> None:
    levels: List[int] = []
    assembler = Assembler(Recorder(), limits=Limits(max_connections=100), on_pressure=levels.append)
    for number in range(20):
        holding(assembler, number, 1)
    assert levels == []
    assembler.limits = dataclasses.replace(assembler.limits, max_connections=24)
    assert levels == [2]
    assembler.limits = dataclasses.replace(assembler.limits, max_connections=1000)
    assert levels == [2, 0]


def test_on_pressure_may_answer_each_level_with_other_limits() -> None:
    """Those that double and halve a bound never suit it, and are carried out one at a time all the same."""
    bounds: List[int] = []

    def answer(level: int) -> None:
        bounds.append(assembler.limits.max_connections * 2 if level == 2 else assembler.limits.max_connections // 2)
        assembler.limits = dataclasses.replace(assembler.limits, max_connections=bounds[-1])

    assembler = Assembler(Recorder(), limits=Limits(max_connections=20), on_pressure=answer, pressure_marks=(0.6, 0.8))
    for number in range(40):
        holding(assembler, number, 1)
    assert 0 < len(bounds) <= 2 * assembler.statistics().packets
    assembler.check()


def test_what_is_set_while_running_counts_from_then_on() -> None:
    first, second, errors = Recorder(), Recorder(), []
    assembler = Assembler(first, limits=Limits(max_buffered_pages_per_connection=3))
    holding(assembler, 0, 3)
    assembler.factory, assembler.on_limit, assembler.urgent = second, "drop", "gap"
    assembler.on_error = lambda handler, error: errors.append(error)
    holding(assembler, 1, 3)
    assert first.only.data() != b"" and second.only.data() == b""
    feed(assembler, syn(2), Segment.make(("10.0.0.1", 40002), SERVER, 1000, b"ab", "AU", urgent_pointer=1))
    assert [gap.reason for gap in second.connections[1].gaps] == ["urgent"]
    second.connections[1].reassembled = None  # type: ignore[method-assign, assignment]
    feed(assembler, piece(2, 2))
    assert len(errors) == 1


def test_the_page_size_of_a_running_assembler_cannot_change() -> None:
    assembler = Assembler(Recorder())
    with pytest.raises(UsageError, match="page size"):
        assembler.limits = Limits(page_size=1024)
    with pytest.raises(UsageError, match="Limits"):
        assembler.limits = 5  # type: ignore[assignment]
