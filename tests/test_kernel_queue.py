"""A FIN in the queue of `overlap="linux-kernel"` keeps its place when what lies around it moves or goes."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, List

import pytest

from support.frames import tcp_frame
from support.recorder import C2S, Recorder
from tcpstitch import Assembler, Gap, Limits, Segment

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
OPTIONS = {"overlap": "linux-kernel", "checks": "strict"}


def test_a_queued_fin_moves_with_the_start_of_the_stream() -> None:
    """The FIN was queued while the later of two SYNs stood for the start; then the server confirms the other one."""
    recorder = Recorder()
    with Assembler(recorder, **OPTIONS) as assembler:
        for segment in (
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(CLIENT, SERVER, 1010, flags="S"),
            Segment.make(CLIENT, SERVER, 1018, b"xyz", flags="FA"),
            Segment.make(SERVER, CLIENT, 5000, flags="SA", ack=1001),
            Segment.make(CLIENT, SERVER, 1001, b"seventeen letters", ack=5001),
        ):
            assembler.assemble(segment, 1000.0)
            assembler.check()
        assert C2S in recorder.only.ended
    assert recorder.only.text() == "seventeen lettersxyz"


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("payload", [b"", b"last"])
def test_a_fin_beyond_the_window_is_not_queued(payload: bytes, checks: str) -> None:
    recorder = Recorder()
    with Assembler(recorder, overlap="linux-kernel", checks=checks) as assembler:
        for segment in (
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(SERVER, CLIENT, 5000, flags="SA", ack=1001),
            Segment.make(CLIENT, SERVER, 1001, b"abc", ack=5001),
            Segment.make(CLIENT, SERVER, 2_001_004, payload, "FA", ack=5001),
        ):
            assembler.assemble(segment, 1000.0)
    assert recorder.only.kinds & {"fin_ahead", "fin_out_of_window", "out_of_window"} == (
        {"fin_out_of_window"} if not payload else {"out_of_window"} if checks == "strict"
        else {"out_of_window", "fin_out_of_window"}
    )  # fmt: skip


def test_a_fin_whose_data_was_cut_off_keeps_its_place_behind_that() -> None:
    """In the queue it would lie behind what was captured. What waits over its place is cut, page by page."""
    recorder, pages = Recorder(), []
    with Assembler(recorder, limits=Limits(page_size=64), **OPTIONS) as assembler:
        for seq, flags, size in ((999, "S", 0), (1100, "A", 999), (1050, "FA", 80), (1000, "A", 50)):
            frame = tcp_frame(CLIENT, SERVER, seq, bytes(size), flags)
            assembler.assemble(frame[:74] if "F" in flags else frame, 1000.0)
            assembler.check()
            pages.append(assembler.statistics().pages_used)
    assert pages == [0, 16, 2, 0]
    assert [(gap.offset, gap.length) for gap in recorder.only.gaps] == [(70, 30)]
    assert [chunk.offset + len(chunk) for chunk in recorder.only.chunks if chunk.end] == [130]


@pytest.mark.parametrize("overlap", ["linux-kernel", "first"])
@pytest.mark.parametrize("acked, missing", [(4, []), (9, []), (10, [(3, 5)])])
def test_a_fin_alone_behind_a_hole_tells_of_lost_bytes_only_once_it_is_acknowledged(
    overlap: str, acked: int, missing: Any
) -> None:
    """Under every policy: it may be a decoy."""
    recorder = Recorder()
    with Assembler(recorder, overlap=overlap) as assembler:
        for segment in (
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(SERVER, CLIENT, 5000, flags="SA", ack=1001),
            Segment.make(CLIENT, SERVER, 1001, b"abc", ack=5001),
            Segment.make(CLIENT, SERVER, 1009, flags="FA", ack=5001),
            Segment.make(SERVER, CLIENT, 5001, ack=1000 + acked),
        ):
            assembler.assemble(segment, 1000.0)
    assert [(gap.offset, gap.length) for gap in recorder.only.gaps] == missing
    assert (C2S in recorder.only.ended) == bool(missing)


@pytest.mark.parametrize("overlap", ["linux-kernel", "first"])
def test_a_fin_alone_whose_time_is_over_keeps_its_place(overlap: str) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder, overlap=overlap)
    for segment in (
        Segment.make(CLIENT, SERVER, 1000, flags="S"),
        Segment.make(SERVER, CLIENT, 5000, flags="SA", ack=1001),
        Segment.make(CLIENT, SERVER, 1009, flags="FA", ack=5001),
    ):
        assembler.assemble(segment, 1000.0)
    assembler.flush_older_than(1001.0)
    assembler.check()
    assert (assembler.statistics().pages_used, recorder.only.gaps) == (0, [])
    assembler.assemble(Segment.make(CLIENT, SERVER, 1001, b"8 bytes.", ack=5001), 1002.0)
    assert (recorder.only.data(), recorder.only.ended) == (b"8 bytes.", {C2S})


def test_a_queued_fin_goes_with_the_page_that_held_it() -> None:
    """Data was appended behind the FIN; once the FIN's page is dropped, no byte of the rest is taken for it."""
    recorder = Recorder()
    limits = Limits(max_buffered_pages_per_connection=2, page_size=64)
    with Assembler(recorder, limits=limits, on_limit="drop", **OPTIONS) as assembler:
        for segment in (
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(CLIENT, SERVER, 1011, b"a" * 30, flags="FA"),
            Segment.make(CLIENT, SERVER, 1042, bytes(range(60))),
            Segment.make(CLIENT, SERVER, 1001, b"0123456789"),
        ):
            assembler.assemble(segment, 1000.0)
            assembler.check()
    first, gap, rest = recorder.only.events[C2S]
    assert first == b"0123456789"
    assert isinstance(gap, Gap) and (gap.offset, gap.length) == (10, 64)
    assert rest == bytes(range(33, 60))


@pytest.mark.parametrize("sent_again, missing", [(False, [(0, 40)]), (True, [])], ids=["once", "again"])
def test_a_fin_that_was_dropped_ends_the_stream_behind_the_gap(sent_again: bool, missing: Any) -> None:
    """Its page was given up for one of the other direction; it takes no byte of the gap. It may come again."""
    recorder = Recorder()
    limits = Limits(max_buffered_pages_per_connection=2, page_size=64)
    again = [Segment.make(CLIENT, SERVER, 1001, b"a" * 40, flags="FA", ack=4001)] if sent_again else []
    with Assembler(recorder, limits=limits, on_limit="drop", **OPTIONS) as assembler:
        for number, segment in enumerate((
            Segment.make(CLIENT, SERVER, 1000, flags="S"),
            Segment.make(SERVER, CLIENT, 4000, flags="SA", ack=1001),
            Segment.make(CLIENT, SERVER, 1001, ack=4001),
            Segment.make(CLIENT, SERVER, 1011, b"a" * 30, flags="FA", ack=4001),
            Segment.make(SERVER, CLIENT, 4101, b"b" * 30, ack=1001),
            *again,
        )):  # fmt: skip
            assembler.assemble(segment, 1000.0 + number)
            assembler.check()
    assert [(gap.offset, gap.length) for gap in recorder.only.gaps if gap.direction is C2S] == missing
    ends = [chunk for chunk in recorder.only.chunks if chunk.end]
    assert [(chunk.direction, chunk.offset + len(chunk.data)) for chunk in ends] == [(C2S, 40)]


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_a_fin_for_which_no_bound_has_room_ends_the_stream_without_a_byte_of_its_own(checks: str) -> None:
    """Nothing can wait, so the stream jumps to the segment, and ends behind its data."""
    recorder = Recorder()
    limits = Limits(max_buffered_pages_per_connection=1, page_size=64)
    with Assembler(recorder, limits=limits, overlap="linux-kernel", checks=checks) as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, 1000, flags="S"), 1000.0)
        assembler.assemble(Segment.make(CLIENT, SERVER, 1101, b"x" * 65, flags="FA"), 1000.0)
        assembler.check()
        assert C2S in recorder.only.ended
    gap, data = recorder.only.events[C2S][:2]
    assert isinstance(gap, Gap) and (gap.offset, gap.length) == (0, 100)
    assert recorder.only.data() == data == b"x" * 65


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_a_second_fin_behind_the_end_is_evidence_only(checks: str) -> None:
    """The direction is over, whatever number a later FIN has."""
    recorder = Recorder()
    with Assembler(recorder, overlap="linux-kernel", checks=checks) as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, 1000, flags="S"), 1000.0)
        assembler.assemble(Segment.make(CLIENT, SERVER, 1001, b"all", flags="FA"), 1000.0)
        assembler.assemble(Segment.make(CLIENT, SERVER, 1101, b"more", flags="FA"), 1000.0)
        assembler.check()
    assert recorder.only.data() == b"all"
    assert [chunk.end for chunk in recorder.only.chunks].count(True) == 1
    assert recorder.only.gaps == []
    assert "data_after_fin" in recorder.only.kinds


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="tracemalloc is CPython's")
def test_a_flood_of_fins_takes_no_more_than_is_charged_for_its_pages() -> None:
    """One in every other byte behind a hole: what tells a FIN from a byte lies outside of the pages themselves."""
    import tracemalloc

    recorder = Recorder()
    assembler = Assembler(recorder, overlap="linux-kernel")
    assembler.assemble(Segment.make(CLIENT, SERVER, 1000, flags="S"), 1000.0)
    flood = [Segment.make(CLIENT, SERVER, 2000 + 2 * index, b"x", flags="FA") for index in range(4000)]
    assembler.assemble(flood[0], 1000.0)
    recorder.only.anomaly = lambda anomaly: None  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        for segment in flood[1:]:
            assembler.assemble(segment, 1000.0)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    page_and_records = Limits(1, 100_001, 1).memory_bound - Limits(1, 100_000, 1).memory_bound
    assert grown <= page_and_records * assembler.statistics().pages_used
    assembler.check()


def test_what_lies_inside_another_node_is_not_what_a_segment_is_compared_with() -> None:
    """Bytes appended to a node lay it around another one, whose bytes will never be delivered."""
    recorder = Recorder()
    with Assembler(recorder, overlap="linux-kernel") as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, 1000, flags="S"), 1000.0)
        for offset, data in ((10, b"a" * 10), (25, b"b"), (50, b"d"), (20, b"c" * 20), (24, b"???"), (39, b"!" * 12)):
            assembler.assemble(Segment.make(CLIENT, SERVER, 1001 + offset, data), 1000.0)
            assembler.check()
    conflicts = [each for each in recorder.only.anomalies if each.kind == "overlap_conflict"]
    found = [(each.offset, each.detail["old"], each.detail["new"]) for each in conflicts]
    assert found == [(25, b"b", b"c"), (24, b"ccc", b"???"), (39, b"c", b"!"), (50, b"d", b"!")]
    assert recorder.only.text().endswith("c" * 20 + "!" * 11)


PIECE = bytes(64)


def one_run(count: int) -> List[Segment]:
    return [piece(10 + 64 * index, PIECE) for index in range(count)]


def nested(count: int) -> List[Segment]:
    """A node in every page, and one that was appended to until it lay around another."""
    return [*(piece(10 + 200 * index, b"x") for index in range(count)), piece(11, bytes(250))]


def staggered(count: int) -> List[Segment]:
    """Each node starts inside the one before it and reaches one byte further."""
    return [piece(10 + index, bytes(64 * count)) for index in range(count)]


def piece(offset: int, data: bytes) -> Segment:
    return Segment.make(CLIENT, SERVER, 1001 + offset, data)


LAST: Dict[str, Callable[[int], Segment]] = {
    "sent again": lambda middle: piece(10 + 64 * middle, PIECE),
    "sent with other bytes": lambda middle: piece(10 + 64 * middle, b"?" * 64),
    "a byte in a node": lambda middle: piece(10 + 200 * middle, b"?"),
    "a byte between nodes": lambda middle: piece(15 + 200 * middle, b"?"),
    "around a node": lambda middle: piece(5 + 200 * middle, bytes(10)),
    "a few bytes": lambda middle: piece(20 + middle, b"????"),
}


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="bytecodes are counted, which only CPython shows")
@pytest.mark.parametrize(
    "queued, last",
    [
        *((one_run, last) for last in ("sent again", "sent with other bytes")),
        *((nested, last) for last in ("a byte in a node", "a byte between nodes", "around a node")),
        (staggered, "a few bytes"),
    ],
)
def test_a_segment_costs_the_same_whether_tens_or_thousands_of_nodes_are_queued(
    queued: Callable[[int], List[Segment]], last: str
) -> None:
    """Up to the steps that a balanced tree has more."""

    def cost(count: int) -> int:
        limits = Limits(1_000_000, 1_000_000, page_size=64)
        assembler = Assembler(Recorder(lambda *_: None), limits=limits, overlap="linux-kernel")
        for segment in (Segment.make(CLIENT, SERVER, 1000, flags="S"), *queued(count)):
            assembler.assemble(segment, 1000.0)
        return bytecodes(lambda: assembler.assemble(LAST[last](count // 2), 1000.0))

    few, many = (20, 200) if queued is staggered else (20, 2000)
    assert cost(many) < 1.5 * cost(few)


def bytecodes(call: Callable[[], Any]) -> int:
    """How many bytecodes are executed in it."""
    count = 0

    def each(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return each

    before = sys.gettrace()
    sys.settrace(each)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
