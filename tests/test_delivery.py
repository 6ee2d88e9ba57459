"""`delivery="acked"`: bytes wait for the receiver's acknowledgement, and the overlap policy decides until then."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple, Union

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.both_ways import opened, packet
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import C2S, S2C, Recorder, Recording
from tcpstitch import Assembler, Chunk, Gap, Limits, PacketDecoder, Segment, Timeouts, UsageError
from test_evasions import CASES, MODES, frames_of
from test_model import POLICIES, STREAM, assert_contiguous, initial_seqs, stream_of

EVERY_POLICY = (*POLICIES, "linux-kernel")
SERVER_ISN = 77


class Ack(NamedTuple):
    """The receiver confirms what it has, less `behind` bytes."""

    behind: int


Event = Union[Ack, Tuple[int, bytes]]
ranges = st.tuples(st.integers(0, 120), st.integers(1, 40))
acks = st.integers(0, 30).map(Ack)
honest: st.SearchStrategy[List[Event]] = st.lists(
    st.one_of(ranges.map(lambda found: (found[0], STREAM[found[0] : found[0] + found[1]])), acks), max_size=30
)
conflicting: st.SearchStrategy[List[Event]] = st.lists(
    st.one_of(st.tuples(ranges, st.integers(65, 90)).map(lambda f: (f[0][0], bytes([f[1]]) * f[0][1])), acks),
    max_size=25,
)


class Wire:
    """Feeds events to an assembler and knows what the receiver has."""

    def __init__(self, isn: int, **options: Any) -> None:
        self.recorder = Recorder()
        self.assembler = Assembler(self.recorder, **{"delivery": "acked", **options})
        self.isn = isn
        self.now = 1000.0
        self._present: Dict[int, int] = {}
        self.received = 0
        self.acked = 0
        self.put(Segment.make(CLIENT, SERVER, isn, flags="S"))
        self.put(Segment.make(SERVER, CLIENT, SERVER_ISN, flags="SA", ack=isn + 1))
        self.put(Segment.make(CLIENT, SERVER, isn + 1, ack=SERVER_ISN + 1))

    def put(self, segment: Segment) -> None:
        self.now += 0.001
        self.assembler.assemble(segment, self.now)
        self.assembler.check()

    def send(self, start: int, data: bytes, flags: str = "A") -> None:
        for offset in range(start, start + len(data)):
            self._present[offset] = 1
        while self.received in self._present:
            self.received += 1
        self.put(Segment.make(CLIENT, SERVER, self.isn + 1 + start, data, flags=flags, ack=SERVER_ISN + 1))

    def ack(self, offset: int) -> None:
        self.acked = max(self.acked, offset)
        self.put(Segment.make(SERVER, CLIENT, SERVER_ISN + 1, ack=self.isn + 1 + offset))

    def feed(self, events: List[Event]) -> Recording:
        for event in events:
            if isinstance(event, Ack):
                self.ack(max(self.acked, self.received - event.behind))
            else:
                self.send(*event)
            assert len(self.only.data()) == self.acked, "exactly what was acknowledged is delivered"
        self.assembler.flush_all()
        return self.only

    @property
    def only(self) -> Recording:
        return self.recorder.only


def model(events: List[Event], keep_old: bool) -> List[object]:
    """A byte at each offset: the earliest or the latest that came before it was acknowledged."""
    held: Dict[int, int] = {}
    received = acked = 0
    for event in events:
        if isinstance(event, Ack):
            acked = max(acked, received - event.behind)
            continue
        for offset, byte in enumerate(event[1], start=event[0]):
            if offset not in held or (offset >= acked and not keep_old):
                held[offset] = byte
        while received in held:
            received += 1
    return [held.get(offset) for offset in range(max(held, default=-1) + 1)]


@settings(max_examples=100, deadline=None)
@given(honest, initial_seqs)
def test_both_modes_and_all_policies_deliver_the_same_when_segments_agree(events: List[Event], isn: int) -> None:
    expected = model(events, keep_old=True)
    for policy in EVERY_POLICY:
        recording = Wire(isn, overlap=policy).feed(events)
        assert stream_of(recording) == expected
        assert "overlap_conflict" not in recording.kinds
        assert_contiguous(recording)
        arrival = Wire(isn, overlap=policy, delivery="arrival")
        for event in events:
            arrival.ack(arrival.received) if isinstance(event, Ack) else arrival.send(*event)
        arrival.assembler.flush_all()
        assert stream_of(arrival.only) == expected


@settings(max_examples=200, deadline=None)
@given(conflicting, initial_seqs)
def test_first_keeps_the_earliest_byte(events: List[Event], isn: int) -> None:
    assert stream_of(Wire(isn, overlap="first").feed(events)) == model(events, keep_old=True)


@settings(max_examples=200, deadline=None)
@given(conflicting, initial_seqs)
@example([(0, b"A"), (0, b"B")], 0)
@example([(0, b"AA"), Ack(1), (1, b"B"), Ack(0), (1, b"C")], 0)
def test_last_keeps_the_latest_byte_that_came_before_its_acknowledgement(events: List[Event], isn: int) -> None:
    assert stream_of(Wire(isn, overlap="last").feed(events)) == model(events, keep_old=False)


@pytest.mark.parametrize("delivery", ["acked", "arrival"])
def test_one_byte_again_is_a_keep_alive_once_that_byte_is_acknowledged(delivery: str) -> None:
    """RFC 9293 3.8.4: the garbage of a keep-alive stands at a number that the receiver has acknowledged already."""
    wire = Wire(0, delivery=delivery, overlap="last", limits=Limits(max_history_bytes_per_connection=100))
    wire.send(0, b"abc")
    wire.ack(2)
    wire.send(2, b"d")
    assert wire.only.kinds == {"retransmission", "overlap_conflict"}
    wire.ack(3)
    wire.send(2, b"e")
    wire.send(2, b"")
    wire.assembler.flush_all()
    assert wire.assembler.statistics().anomalies == {"retransmission": 1, "overlap_conflict": 1, "keepalive": 2}
    assert wire.only.data(C2S) == (b"abd" if delivery == "acked" else b"abc")


@pytest.mark.parametrize("silence, taken", [(1.0, b""), (0.01, b"X")])
@pytest.mark.parametrize("missed", [b"d", b"def"])
def test_the_garbage_of_a_keep_alive_is_not_taken_for_what_the_tap_missed(
    silence: float, taken: bytes, missed: bytes
) -> None:
    """Without a silence before it, it may be that byte itself: a tap may show data behind its acknowledgement."""
    recorder = Recorder()
    last = 2 + len(missed)
    with Assembler(recorder) as assembler:
        for seq, data, flags, time in (
            (-1, b"", "S", 0.0), (0, b"abc", "A", 0.0), (last, b"X", "A", silence), (last + 1, b"g", "A", 9.0),
        ):  # fmt: skip
            assembler.assemble(Segment.make(CLIENT, SERVER, seq, data, flags=flags, ack=500), 1000.0 + time)
            assembler.assemble(Segment.make(SERVER, CLIENT, 500, ack=min(seq + len(data), 3)), 1000.0 + time)
            if seq == 0:
                assembler.assemble(Segment.make(SERVER, CLIENT, 500, ack=last + 1), 1000.0)
    assert recorder.only.data(C2S) == b"abc" + taken + b"g"
    assert ("keepalive" in recorder.kinds) == (not taken)


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_data_that_the_tap_has_ahead_of_its_syn_keeps_its_owners(policy: str) -> None:
    """Its offsets count from elsewhere once the SYN has come, and so do those of who owns which byte."""
    expected = {"first": (30, 50, 20), "last": (50, 0, 50), "solaris": (30, 10, 60)}.get(policy, (50, 30, 20))
    recorder = Recorder()
    with Assembler(recorder, delivery="acked", overlap=policy) as assembler:
        for seq, flags, data in (
            (1030, "A", b"a" * 50), (999, "S", b""), (1040, "A", b"c" * 60), (1000, "A", b"b" * 50)
        ):  # fmt: skip
            assembler.assemble(Segment.make(CLIENT, SERVER, seq, data, flags=flags), 1000.0)
        assembler.assemble(Segment.make(SERVER, CLIENT, 499, flags="SA", ack=1000), 1000.0)
        assembler.assemble(Segment.make(SERVER, CLIENT, 500, ack=1100), 1000.0)
    assert recorder.only.data() == b"".join(data * size for data, size in zip((b"b", b"a", b"c"), expected))


def test_the_garbage_of_a_keep_alive_does_not_begin_a_stream() -> None:
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for source, target, seq, data, ack in (
            (SERVER, CLIENT, 500, b"hello", 103), (CLIENT, SERVER, 102, b"\0", 505), (SERVER, CLIENT, 505, b"", 103),
            (CLIENT, SERVER, 103, b"def", 505),
        ):  # fmt: skip
            assembler.assemble(Segment.make(source, target, seq, data, ack=ack), 1000.0)
    assert {recorder.only.data(C2S), recorder.only.data(S2C)} == {b"hello", b"def"}


@pytest.mark.parametrize("place", [0, 1], ids=["frames", "segments"])
def test_an_acknowledgement_by_itself_is_no_keep_alive_where_the_tap_missed_a_byte(place: int) -> None:
    """Its number is the next one. A silence before it tells nothing, so no path has to look for one."""
    recorder = Recorder()
    packets = [packet("c", "A", 0, 0, 3), packet("s", "A", 0, 4), packet("c", "A", 3), packet("c", "A", 4, 0, 1)]
    with Assembler(recorder) as assembler:
        for number, fields in enumerate([*opened(), *packets]):
            frame = tcp_frame(**fields)
            assembler.assemble(PacketDecoder().decode(frame)[0] if place else frame, 1000.0 + number)
    assert recorder.only.text(C2S) == "\0\1\2[1 byte missing]\4"
    assert recorder.only.kinds == {"gap"}


def test_an_empty_segment_that_one_byte_overtook_is_no_keep_alive() -> None:
    wire = Wire(0)
    wire.send(0, b"a")
    wire.send(0, b"")
    assert wire.only.kinds == set()


def test_where_no_acknowledgement_can_be_seen_one_byte_again_passes_for_a_keep_alive() -> None:
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for seq, data, flags in ((0, b"", "S"), (1, b"abc", "A"), (3, b"c", "A")):
            assembler.assemble(Segment.make(CLIENT, SERVER, seq, data, flags=flags), 1.0)
    assert recorder.only.kinds == {"one_sided", "keepalive"}


RULES = {
    "bsd": lambda claim: (claim[0], claim[2]),
    "linux": lambda claim: (claim[0], -claim[1], claim[2]),
    "old-linux": lambda claim: (claim[0], -claim[1], -claim[2]),
    "solaris": lambda claim: (-claim[1], claim[0], -claim[2]),
}


@settings(max_examples=200, deadline=None)
@given(conflicting, initial_seqs, st.sampled_from(sorted(RULES)))
def test_a_policy_orders_whole_segments_until_they_are_acknowledged(
    events: List[Event], isn: int, policy: str
) -> None:
    """Nothing is acknowledged before the end, so every byte is in dispute, whether it came in order or not."""
    sent = [event for event in events if not isinstance(event, Ack)]
    expected: List[object] = []
    for offset in range(max((start + len(data) for start, data in sent), default=0)):
        claims = [
            (start, start + len(data), arrival)
            for arrival, (start, data) in enumerate(sent)
            if start <= offset < start + len(data)
        ]
        expected.append(sent[min(claims, key=RULES[policy])[2]][1][0] if claims else None)
    assert stream_of(Wire(isn, overlap=policy).feed(list(sent))) == expected


@settings(max_examples=100, deadline=None)
@given(conflicting, initial_seqs, st.sampled_from(EVERY_POLICY), st.integers(1, 6))
def test_bounds_hold_and_bytes_and_gaps_add_up(events: List[Event], isn: int, policy: str, pages: int) -> None:
    """With a handful of small pages bytes are delivered before they are acknowledged rather than held beyond them."""
    limits = Limits(max_buffered_pages_per_connection=pages, max_buffered_pages_total=pages, page_size=64)
    wire = Wire(isn, overlap=policy, limits=limits)
    end = 0
    for event in events:
        if isinstance(event, Ack):
            wire.ack(wire.received)
        else:
            wire.send(*event)
            end = max(end, event[0] + len(event[1]))
        assert wire.assembler.statistics().pages_used <= pages
    wire.assembler.flush_all()
    assert sum(len(chunk) for chunk in wire.only.chunks) + sum(gap.length for gap in wire.only.gaps) == end
    assert_contiguous(wire.only)


def test_a_conflict_before_the_acknowledgement_is_decided_and_reported() -> None:
    for policy, expected in (("first", b"QQQ"), ("last", b"abc"), ("linux-kernel", b"QQQ")):
        wire = Wire(5, overlap=policy)
        wire.send(0, b"QQQ")
        wire.send(0, b"abc")
        wire.ack(3)
        assert wire.only.data() == expected
        (conflict,) = [anomaly for anomaly in wire.only.anomalies if anomaly.kind == "overlap_conflict"]
        assert (conflict.offset, conflict.detail["old"], conflict.detail["new"]) == (0, b"QQQ", b"abc")


def test_what_is_acknowledged_is_final() -> None:
    wire = Wire(5, overlap="last")
    wire.send(0, b"abcd")
    wire.ack(2)
    wire.send(0, b"WXYZ")
    wire.ack(4)
    assert wire.only.data() == b"abYZ"


def test_the_end_waits_for_the_acknowledgement_of_the_last_byte() -> None:
    wire = Wire(5)
    wire.send(0, b"abc", flags="FA")
    assert (wire.only.data(), wire.only.ended) == (b"", set())
    wire.ack(2)
    assert (wire.only.data(), wire.only.ended) == (b"ab", set())
    wire.ack(4)
    assert wire.only.data() == b"abc" and C2S in wire.only.ended
    assert [chunk.end for chunk in wire.only.chunks] == [False, True]
    assert [chunk.start for chunk in wire.only.chunks] == [True, False]


@pytest.mark.parametrize("checks", MODES)
def test_a_reset_delivers_what_the_receiver_had(checks: str) -> None:
    wire = Wire(5, checks=checks)
    wire.send(0, b"abc")
    wire.send(5, b"fg")
    wire.put(Segment.make(CLIENT, SERVER, 5 + 1 + 3, flags="R"))
    assert wire.only.text() == "abc[2 bytes missing]fg"
    assert wire.only.completions == ["rst"]


def test_a_gap_comes_behind_all_bytes_before_it() -> None:
    wire = Wire(5, timeouts=Timeouts(acknowledged=0.0))
    wire.send(0, b"abc")
    wire.send(5, b"fg")
    wire.send(7, b"hi")
    wire.ack(9)
    wire.ack(9)
    assert wire.only.text() == "abc[2 bytes missing]fghi"
    assert [gap.reason for gap in wire.only.gaps] == ["acknowledged"]


def test_bytes_that_nobody_acknowledges_are_delivered_when_the_gap_timeout_passes() -> None:
    wire = Wire(5, timeouts=Timeouts(gap=10.0))
    wire.send(0, b"abc")
    wire.now += 9.0
    wire.put(Segment.make(CLIENT, SERVER, 6 + 3, ack=SERVER_ISN + 1))
    assert wire.only.data() == b""
    wire.now += 2.0
    wire.put(Segment.make(CLIENT, SERVER, 6 + 3, ack=SERVER_ISN + 1))
    assert wire.only.text() == "abc"


def test_flush_older_than_delivers_what_waits() -> None:
    wire = Wire(5)
    wire.send(0, b"abc")
    assert wire.assembler.flush_older_than(wire.now - 1.0) == (0, 0)
    assert wire.only.data() == b""
    assert wire.assembler.flush_older_than(wire.now + 1.0) == (1, 0)
    assert wire.only.text() == "abc"
    wire.send(3, b"def")
    assert wire.assembler.flush_all() == (1, 1)
    assert wire.only.text() == "abcdef"


def test_kept_bytes_come_again_with_what_is_acknowledged_next() -> None:
    keep: List[int] = [1, 0, 4]

    def on_chunk(recording: Recording, chunk: Chunk) -> None:
        chunk.keep_from(keep.pop(0))

    wire = Wire(5)
    wire.recorder.on_chunk = on_chunk
    wire.send(0, b"abcdef")
    wire.ack(3)
    wire.ack(4)
    wire.ack(6)
    given_out = [(chunk.offset, bytes(chunk.data)) for chunk in wire.only.chunks]
    assert given_out == [(0, b"abc"), (1, b"bcd"), (1, b"bcdef")]


def test_each_byte_knows_the_packet_that_brought_it() -> None:
    wire = Wire(2**32 - 3)
    for index, data in enumerate((b"ab", b"cd", b"ef")):
        wire.now = 2000.0 + index
        wire.send(2 * index, data)
    wire.ack(6)
    (chunk,) = wire.only.chunks
    assert [round(chunk.packet_at(index).timestamp) for index in range(6)] == [2000, 2000, 2001, 2001, 2002, 2002]
    assert chunk.packet_at(3).seq == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_evasions_give_the_same_stream_under_the_default_policy(name: str, mode: str) -> None:
    texts = []
    for delivery in ("arrival", "acked"):
        recorder = Recorder()
        with Assembler(recorder, checks=mode, delivery=delivery) as assembler:
            for index, frame in enumerate(frames_of(CASES[name])):
                assembler.assemble(frame, 1000.0 + index / 1000)
                assembler.check()
        texts.append([(recording.text(C2S), recording.text(S2C)) for recording in recorder.connections])
        assert all(len(recording.completions) == 1 for recording in recorder.connections)
    assert texts[0] == texts[1]


def test_other_modes_are_refused() -> None:
    with pytest.raises(UsageError):
        Assembler(Recorder(), delivery="later")


def test_a_hole_that_is_never_filled_ends_in_a_gap_at_the_flush() -> None:
    wire = Wire(5)
    wire.send(0, b"abc")
    wire.send(10, b"k")
    wire.assembler.flush_all()
    assert wire.only.events[C2S][0] == b"abc"
    assert isinstance(wire.only.events[C2S][1], Gap)
    assert wire.only.text() == "abc[7 bytes missing]k"
