"""Bounds so small that they decide about the start of a stream, and limits that change in the middle of a call."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import C2S, S2C, Recorder, Recording
from tcpstitch import Assembler, Gap, Limits, Segment, Stream, StreamFactory
from tcpstitch.errors import StreamCallbackError

STREAM = bytes(range(256)) * 8
FIRST_SEQ = 2**32 - 40


def say(assembler: Assembler, start: int, end: int, flags: str = "A") -> None:
    """The client sends these bytes of STREAM."""
    assembler.assemble(Segment.make(CLIENT, SERVER, FIRST_SEQ + start, STREAM[start:end], flags=flags), 1000.0)
    assembler.check()


def assert_at_their_places(recording: Recording) -> None:
    """Offsets count from the first byte delivered, without a step back, and each byte has its own sequence number."""
    position = 0
    chunks = iter(recording.chunks)
    for event in recording.events[C2S]:
        if isinstance(event, Gap):
            assert event.offset == position
            position += event.length
            continue
        chunk = next(chunks)
        assert chunk.offset == position
        position += len(event)
        if event:
            place = (chunk.packet_at(0).seq - FIRST_SEQ) % 2**32
            assert event == STREAM[place : place + len(event)]


@pytest.mark.parametrize("pages", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("on_limit", ["deliver", "drop"])
def test_a_bound_that_ends_the_wait_for_the_start_leaves_all_bytes_at_their_places(pages: int, on_limit: str) -> None:
    """The segment that has no room was placed by the first segment's number; a lower one turns out to be the start."""
    recorder = Recorder()
    with Assembler(recorder, limits=Limits(pages, page_size=64), on_limit=on_limit) as assembler:
        say(assembler, 451, 551)
        say(assembler, 0, 33)
        say(assembler, 1000, 1460)
        say(assembler, 1460, 1500)
    assert_at_their_places(recorder.only)
    assert recorder.only.data().endswith(STREAM[1000:1500])


@pytest.mark.parametrize("pages", range(2, 9))
@pytest.mark.parametrize("delivery", ["arrival", "acked"])
def test_what_waits_behind_a_start_that_a_bound_has_found_waits_at_its_place(pages: int, delivery: str) -> None:
    recorder = Recorder()
    limits = Limits(pages, page_size=64)
    with Assembler(recorder, limits=limits, delivery=delivery, start="syn") as assembler:
        say(assembler, 451, 481)
        say(assembler, 0, 33)
        say(assembler, 1000, 1100)
        say(assembler, 1300, 1310)
    assert_at_their_places(recorder.only)
    assert recorder.only.data().endswith(STREAM[1000:1100] + STREAM[1300:1310])


def test_a_fin_counts_at_its_place_when_its_data_ended_the_wait_for_the_start() -> None:
    """The bound on pages makes the lower segment the start while the one with the FIN is taken."""
    recorder = Recorder()
    with Assembler(recorder, limits=Limits(4, page_size=64)) as assembler:
        say(assembler, 100, 133)
        say(assembler, 0, 33)
        say(assembler, 133, 433, flags="FA")
    assert_at_their_places(recorder.only)
    assert recorder.only.data() == STREAM[0:33] + STREAM[100:433]
    assert C2S in recorder.only.ended


def test_a_segment_larger_than_all_pages_begins_the_stream_at_offset_0() -> None:
    """Nothing can wait for a lower segment, so the stream starts where it is first seen."""
    recorder = Recorder()
    with Assembler(recorder, limits=Limits(1, page_size=64)) as assembler:
        frame = tcp_frame(CLIENT, SERVER, FIRST_SEQ, STREAM[:1], ack=1)
        assembler.assemble(frame[:54], 1000.0)  # its only byte was not captured
        say(assembler, 54, 55)
    assert_at_their_places(recorder.only)
    assert recorder.only.data() == STREAM[54:55]


@pytest.mark.parametrize("cut", [54, 60])
def test_a_first_segment_without_captured_bytes_does_not_move_those_behind_it(cut: int) -> None:
    """While the start is not known, nothing is reported that would have to be taken back."""
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        frame = tcp_frame(CLIENT, SERVER, FIRST_SEQ, STREAM[:100], ack=1)
        assembler.assemble(frame[:cut], 1000.0)
        say(assembler, 100, 105)
        say(assembler, 105, 200)
    assert_at_their_places(recorder.only)
    assert recorder.only.data() == STREAM[: cut - 54] + STREAM[100:200]
    assert [(gap.length, gap.reason) for gap in recorder.only.gaps] == [(154 - cut, "truncated")]


def test_a_gap_that_no_handler_heard_of_is_not_counted() -> None:
    """What waits for its acknowledgement goes out before the gap behind it, and the handler fails there."""

    def fail(recording: Recording, chunk: Any) -> None:
        raise ValueError("the handler's own fault")

    recorder = Recorder(fail)
    assembler = Assembler(recorder, delivery="acked")
    assembler.assemble(Segment.make(CLIENT, SERVER, FIRST_SEQ - 1, flags="S"), 1000.0)
    say(assembler, 0, 100)
    say(assembler, 200, 300)
    with pytest.raises(StreamCallbackError):
        assembler.flush_all()
    statistics = assembler.statistics()
    assert recorder.only.gaps == []
    assert (statistics.gaps, statistics.missing_bytes, dict(statistics.gaps_by_reason)) == (0, 0, {})


class Narrowing(StreamFactory):
    """Data of any stream lowers the bound on connections, and the end of one that on pages."""

    assembler: Any = None

    def new(self, flow: Any, segment: Segment, timestamp: float) -> Stream:
        owner = self

        class Narrow(Stream):
            def reassembled(self, chunk: Any) -> None:
                owner.assembler.limits = dataclasses.replace(owner.assembler.limits, max_connections=2)

            def complete(self, reason: str) -> None:
                owner.assembler.max_buffered_pages_total = 1

        return Narrow()


def test_limits_that_a_handler_lowers_while_others_are_carried_out_hold_with_the_next_packet() -> None:
    """The next packet evicts a connection for the one bound; that one's handler sets the other."""
    factory = Narrowing()
    factory.assembler = assembler = Assembler(factory)
    for port in range(3):
        assembler.assemble(Segment.make((CLIENT[0], 40000 + port), SERVER, 7, flags="S"), 1000.0)
    last = (CLIENT[0], 40002)
    for start in (1000, 5000, 9000):
        assembler.assemble(Segment.make(last, SERVER, 8 + start, bytes(100)), 1000.0)
    assert assembler.statistics().pages_used == 3
    assembler.assemble(Segment.make(last, SERVER, 8, b"data"), 1000.0)
    for _ in range(2):
        assembler.assemble(Segment.make(SERVER, last, 1, flags="A", ack=12), 1000.0)
    statistics = assembler.statistics()
    assert statistics.connections_evicted == 1
    assert statistics.pages_used <= 1
    assembler.check()


def test_data_for_which_a_bound_makes_room_does_not_follow_the_end_that_this_brings() -> None:
    """The hole that is given up lies before a FIN in the kernel's queue, and the segment around that FIN."""
    recorder = Recorder()
    with Assembler(recorder, limits=Limits(2, page_size=64), overlap="linux-kernel") as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, FIRST_SEQ - 1, flags="S"), 1000.0)
        say(assembler, 100, 140, "FA")
        say(assembler, 110, 300)
    assert recorder.only.data() == STREAM[100:140]
    assert [chunk.end for chunk in recorder.only.chunks] == [True]


def test_a_syn_does_not_move_offsets_of_which_the_handler_was_told() -> None:
    """A gap at the start was reported, and nothing else; then a SYN with another number comes on the same addresses."""
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        frame = tcp_frame(CLIENT, SERVER, FIRST_SEQ, STREAM[:100], ack=1)
        assembler.assemble(frame[:54], 1000.0)  # no byte of it was captured
        say(assembler, 500, 510)
        for second in (1003.0, 1006.0):
            assembler.assemble(Segment.make(SERVER, CLIENT, 1, ack=FIRST_SEQ + 100), second)
        assert [gap.length for gap in recorder.only.gaps] == [100]
        for second in (1007.0, 1008.0):
            assembler.assemble(Segment.make(CLIENT, SERVER, FIRST_SEQ + 1500, STREAM[1501:1504], flags="S"), second)
        assembler.assemble(Segment.make(SERVER, CLIENT, 1, ack=FIRST_SEQ + 1504), 1009.0)
    assert_at_their_places(recorder.connections[0])


@pytest.mark.parametrize("on_limit, left", [("deliver", "[9 bytes missing]old|"), ("drop", "|")])
@pytest.mark.parametrize("first", [0, 1])
def test_of_both_directions_the_one_whose_data_waits_longest_gives_way(on_limit: str, left: str, first: int) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=2), on_limit=on_limit)
    assembler.assemble(Segment.make(CLIENT, SERVER, 99, flags="S"), 1.0)
    assembler.assemble(Segment.make(SERVER, CLIENT, 99, flags="SA", ack=100), 1.0)
    for when, side in ((2.0, first), (3.0, 1 - first)):
        ends = (CLIENT, SERVER) if side == 0 else (SERVER, CLIENT)
        assembler.assemble(Segment.make(*ends, 109, b"old" if when == 2.0 else b"new", ack=100), when)
    texts = [recorder.only.text(C2S), recorder.only.text(S2C)]
    assert "|".join(texts if first == 0 else texts[::-1]) == left
    assembler.flush_all()
    assert [recorder.only.text(C2S), recorder.only.text(S2C)][1 - first] == "[9 bytes missing]new"
