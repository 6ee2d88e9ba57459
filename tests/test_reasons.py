"""docs/tcp-rules.md lists the reasons of gaps and of ends; each is shown here, and no other is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, Set

import pytest

from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder, Recording
from tcpstitch import Assembler, Limits, Segment, Stream, Timeouts

PAGE = (Path(__file__).parent.parent / "docs" / "tcp-rules.md").read_text(encoding="utf-8")
TABLES = PAGE.partition("## Gaps and ends")[2].split("| reason of an end | |")
GAPS, ENDS = (
    set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))) for table in TABLES
)


class Talk:
    """A connection that both sides have opened at second 1; `hole` leaves one of 5 bytes before 4 of the client's."""

    def __init__(self, recorder: Any = None, **options: Any) -> None:
        self.recorder = Recorder() if recorder is None else recorder
        self.assembler = Assembler(self.recorder, **options)
        self.say(CLIENT, 99, flags="S")
        self.say(SERVER, 499, flags="SA", ack=100)
        self.say(CLIENT, 100, ack=500)

    def say(self, source: Any, seq: int, data: bytes = b"", flags: str = "A", ack: int = 0, at: float = 1.0) -> None:
        target = SERVER if source == CLIENT else CLIENT
        self.assembler.assemble(Segment.make(source, target, seq, data, flags=flags, ack=ack), at)

    def hole(self, at: float = 1.0) -> None:
        self.say(CLIENT, 105, b"data", ack=500, at=at)

    def elsewhere(self, at: float) -> None:
        """Time goes on."""
        self.assembler.assemble(Segment.make(("10.9.9.9", 9), SERVER, 1, flags="R"), at)


def acknowledged() -> Talk:
    talk = Talk()
    talk.hole()
    talk.say(SERVER, 500, ack=109)
    talk.say(SERVER, 500, ack=109, at=1.2)
    return talk


def aged() -> Talk:
    talk = Talk(timeouts=Timeouts(gap=10))
    talk.hole()
    talk.elsewhere(12.0)
    return talk


def aged_by_flush() -> Talk:
    talk = Talk()
    talk.hole()
    talk.assembler.flush_older_than(2.0)
    return talk


def aged_by_silence() -> Talk:
    talk = Talk(timeouts=Timeouts(gap=None, idle=10))
    talk.hole()
    talk.elsewhere(20.0)
    return talk


def closed() -> Talk:
    talk = Talk()
    talk.hole()
    talk.say(CLIENT, 100, flags="R")
    return talk


def flushed() -> Talk:
    talk = Talk()
    talk.hole()
    talk.assembler.flush_all()
    return talk


def page_limit() -> Talk:
    talk = Talk(limits=Limits(max_buffered_pages_per_connection=1))
    talk.hole()
    return talk


def total_limit() -> Talk:
    talk = Talk(limits=Limits(max_buffered_pages_total=1))
    talk.hole()
    other = ("10.9.9.9", 9)
    talk.assembler.assemble(Segment.make(other, SERVER, 1, flags="S"), 1.1)
    talk.assembler.assemble(Segment.make(other, SERVER, 9, b"data"), 1.1)
    return talk


def truncated() -> Talk:
    talk = Talk()
    talk.assembler.assemble(tcp_frame(CLIENT, SERVER, 100, b"x" * 50, ack=500)[:54], 1.0)
    talk.say(SERVER, 500, ack=150)
    return talk


def urgent() -> Talk:
    talk = Talk(urgent="gap")
    talk.assembler.assemble(Segment.make(CLIENT, SERVER, 100, b"ab", flags="AU", ack=500, urgent_pointer=2), 1.0)
    return talk


GAP_CASES = [
    acknowledged, aged, aged_by_flush, aged_by_silence, closed, flushed, page_limit, total_limit, truncated, urgent,
]  # fmt: skip


@pytest.mark.parametrize("case", GAP_CASES)
def test_a_gap_has_its_reason(case: Callable[[], Talk]) -> None:
    talk = case()
    reason = case.__name__.partition("_by_")[0]
    assert [gap.reason for gap in talk.recorder.connections[0].gaps] == [reason]
    assert talk.assembler.statistics().gaps_by_reason == {reason: 1}


def by_fins(talk: Talk) -> None:
    talk.say(CLIENT, 100, flags="FA", ack=500)
    talk.say(SERVER, 500, flags="FA", ack=101)


def by_a_new_connection(talk: Talk) -> None:
    talk.say(CLIENT, 100, b"data", ack=500)
    talk.say(CLIENT, 9_000_000, flags="S")  # of which the server's SYN/ACK says that it counts
    talk.say(SERVER, 7_000_000, flags="SA", ack=9_000_001)


class Failing(Recording):
    def reassembled(self, chunk: Any) -> None:
        raise ValueError("the handler's own fault")


class FailingRecorder(Recorder):
    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        stream = Failing(self, flow, timestamp)
        self.connections.append(stream)
        return stream


END_CASES: Dict[str, Callable[[Talk], Any]] = {
    "fin": by_fins,
    "rst": lambda talk: talk.say(CLIENT, 100, flags="R"),
    "idle": lambda talk: talk.elsewhere(100.0),
    "evicted": lambda talk: setattr(talk.assembler, "limits", Limits(max_connections=1)),
    "flushed": lambda talk: talk.assembler.flush_all(),
    "replaced": by_a_new_connection,
    "abandoned": lambda talk: talk.say(CLIENT, 100, b"data", ack=500),
}


@pytest.mark.parametrize("reason", END_CASES)
def test_an_end_has_its_reason(reason: str) -> None:
    recorder = FailingRecorder() if reason == "abandoned" else None
    talk = Talk(recorder, timeouts=Timeouts(idle=50), on_error=lambda handler, error: None)
    talk.assembler.assemble(Segment.make(("10.9.9.9", 9), SERVER, 1, b"other"), 1.5)
    END_CASES[reason](talk)
    assert talk.recorder.connections[0].completions == [reason]


@pytest.mark.parametrize("flush", [Assembler.flush_all, lambda assembler: assembler.flush_older_than(9.0, 9.0)])
def test_a_connection_that_waited_only_for_silence_ends_as_it_would_have_then(flush: Callable[[Any], Any]) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(CLIENT, SERVER, 99, flags="S"), 1.0)
    assembler.assemble(Segment.make(SERVER, CLIENT, 0, flags="RA", ack=100), 1.0)
    flush(assembler)
    assert recorder.only.completions == ["rst"]


def test_the_page_lists_just_these() -> None:
    shown: Set[str] = {case.__name__.partition("_by_")[0] for case in GAP_CASES}
    assert (shown, set(END_CASES)) == (GAPS, ENDS)


def test_an_end_that_both_sides_have_told_is_a_fin_also_where_its_last_acknowledgement_is_not_seen() -> None:
    """With `delivery="acked"` the last bytes wait for that when the input ends."""
    for delivery in ("arrival", "acked"):
        talk = Talk(delivery=delivery)
        talk.say(CLIENT, 100, b"all", flags="FA", ack=500)
        talk.say(SERVER, 500, b"answer", flags="FA", ack=104)
        talk.assembler.flush_all()
        assert talk.recorder.only.completions == ["fin"]
