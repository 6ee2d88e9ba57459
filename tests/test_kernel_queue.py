"""A FIN in the queue of `overlap="linux-kernel"` keeps its place when what lies around it moves or goes."""

from __future__ import annotations

import sys

import pytest

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
    page_and_records = Limits(1, 2, 1).memory_bound - Limits(1, 1, 1).memory_bound
    assert grown <= page_and_records * assembler.statistics().pages_used
    assembler.check()
