"""A handler says how much it wants: one direction, a number of bytes, or nothing behind a gap."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest

from support.both_ways import opened, packet
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import C2S, S2C, Recorder, Recording
from tcpstitch import Assembler, Chunk, Direction, Flow, Limits, PacketDecoder, Segment, Stream, UsageError
from tcpstitch.errors import StreamCallbackError

C_ISN, S_ISN = 2**32 - 5, 1000


class Deep(Recording):
    """A recording with attributes of its own."""


class Deeper(Recorder):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.attributes = attributes

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        recording = Deep(self, flow, timestamp)
        for name, value in self.attributes.items():
            setattr(recording, name, value)
        self.connections.append(recording)
        return recording


class Talk:
    """A connection between CLIENT and SERVER, as frames."""

    def __init__(self, recorder: Recorder, **options: Any) -> None:
        self.assembler = Assembler(recorder, **options)
        self.now = 1000.0
        self.sent = [0, 0]
        self.put(CLIENT, SERVER, C_ISN, b"", "S", 0)
        self.put(SERVER, CLIENT, S_ISN, b"", "SA", C_ISN + 1)
        self.put(CLIENT, SERVER, C_ISN + 1, b"", "A", S_ISN + 1)

    def put(self, source: Any, destination: Any, seq: int, data: bytes, flags: str, ack: int) -> None:
        self.now += 0.001
        self.assembler.assemble(tcp_frame(source, destination, seq, data, flags, ack=ack), self.now)
        self.assembler.check()

    def say(self, data: bytes, to_server: bool = True, flags: str = "A", lost: bool = False) -> None:
        up, down = self.sent
        if to_server:
            if not lost:
                self.put(CLIENT, SERVER, C_ISN + 1 + up, data, flags, S_ISN + 1 + down)
            self.sent[0] += len(data)
        else:
            if not lost:
                self.put(SERVER, CLIENT, S_ISN + 1 + down, data, flags, C_ISN + 1 + up)
            self.sent[1] += len(data)

    def both_end(self) -> None:
        self.say(b"", flags="FA")
        self.sent[0] += 1
        self.say(b"", to_server=False, flags="FA")


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
@pytest.mark.parametrize("depth", [0, 1, 99, 100, 101, 250, 1000])
def test_a_depth_ends_each_direction_at_that_byte(depth: int, delivery: str) -> None:
    recorder = Deeper(depth=depth)
    talk = Talk(recorder, delivery=delivery)
    up, down = bytes(range(100)), bytes(range(100, 200))
    for _ in range(3):
        talk.say(up)
        talk.say(down, to_server=False)
    talk.both_end()
    talk.assembler.flush_all()
    assert recorder.only.data(C2S) == (3 * up)[:depth]
    assert recorder.only.data(S2C) == (3 * down)[:depth]
    assert recorder.only.ended == {C2S, S2C}
    assert recorder.only.completions == ["fin"]


def test_nothing_behind_the_depth_takes_a_page() -> None:
    recorder = Deeper(depth=10)
    talk = Talk(recorder)
    talk.say(b"0123456789abc")
    talk.say(b"lost", lost=True)
    for _ in range(20):
        talk.say(b"behind the hole")
    assert talk.assembler.statistics().pages_used == 0
    assert recorder.only.gaps == []
    assert recorder.only.data() == b"0123456789"


def test_the_depth_counts_what_is_missing() -> None:
    recorder = Deeper(depth=8)
    talk = Talk(recorder)
    talk.say(b"abc")
    talk.say(b"lost", lost=True)
    talk.say(b"xyz")
    talk.assembler.flush_all()
    assert recorder.only.text() == "abc[4 bytes missing]x"


@pytest.mark.parametrize("depth", range(10))
@pytest.mark.parametrize("giving_up", ["acknowledged", "flushed"])
def test_a_hole_across_the_depth_ends_there(depth: int, giving_up: str) -> None:
    """What is missing behind it is nobody's business, nor is what comes then."""
    recorder = Deeper(depth=depth)
    talk = Talk(recorder)
    talk.say(b"abc")
    talk.say(b"lost", lost=True)
    talk.say(b"xyz", flags="FA")
    talk.sent[0] += 1
    if giving_up == "acknowledged":
        for _ in range(3):
            talk.say(b"", to_server=False)
            talk.now += 1.0
    talk.assembler.flush_all()
    told = sum(gap.length for gap in recorder.only.gaps)
    assert told == min(max(depth - 3, 0), 4) == talk.assembler.statistics().missing_bytes
    assert recorder.only.data() == b"abc"[:depth] + b"xyz"[: max(depth - 7, 0)]
    assert all(chunk.skip == 0 or chunk.offset - chunk.skip == 3 for chunk in recorder.only.chunks)
    if giving_up == "acknowledged":
        assert C2S in recorder.only.ended


@pytest.mark.parametrize("depth", [-1, 1.5, "10", True])
def test_a_depth_that_is_no_number_of_bytes_is_a_failing_handler(depth: Any) -> None:
    recorder = Deeper(depth=depth)
    with pytest.raises(StreamCallbackError) as raised:
        Talk(recorder)
    assert isinstance(raised.value.__cause__, UsageError)
    assert recorder.only.completions == ["abandoned"]


def test_a_stream_that_abandons_at_a_gap_hears_of_the_gap_and_nothing_behind_it() -> None:
    recorder = Deeper(on_gap="abandon")
    talk = Talk(recorder)
    talk.say(b"abc")
    talk.say(b"lost", lost=True)
    talk.say(b"xyz")
    talk.say(b"answer", to_server=False)
    assert recorder.only.completions == []
    talk.assembler.flush_older_than(talk.now + 1)
    assert recorder.only.text() == "abc[4 bytes missing]"
    assert recorder.only.completions == ["abandoned"]
    talk.say(b"more")
    talk.assembler.flush_all()
    assert recorder.only.text() == "abc[4 bytes missing]"
    assert talk.assembler.statistics().pages_used == 0


def test_a_stream_that_continues_gets_what_lies_behind_a_gap() -> None:
    recorder = Deeper(on_gap="continue")
    talk = Talk(recorder)
    talk.say(b"abc")
    talk.say(b"lost", lost=True)
    talk.say(b"xyz")
    talk.assembler.flush_all()
    assert recorder.only.text() == "abc[4 bytes missing]xyz"


def test_another_choice_at_a_gap_is_a_failing_handler() -> None:
    recorder = Deeper(on_gap="explode")
    talk = Talk(recorder)
    talk.say(b"lost", lost=True)
    talk.say(b"xyz")
    with pytest.raises(StreamCallbackError) as raised:
        talk.assembler.flush_all()
    assert isinstance(raised.value.__cause__, UsageError)
    assert recorder.only.completions == ["abandoned"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_handler_stops_one_direction_or_the_connection(whole: bool, checks: str) -> None:
    seen: List[bytes] = []

    def on_chunk(recording: Recording, chunk: Chunk) -> None:
        seen.append(bytes(chunk.data))
        if chunk.data == b"stop":
            chunk.stop_connection() if whole else chunk.stop()

    recorder = Recorder(on_chunk)
    talk = Talk(recorder, checks=checks)
    talk.say(b"begin")
    talk.say(b"stop")
    for _ in range(5):
        talk.say(b"unheard")
        talk.say(b"answer", to_server=False)
    talk.both_end()
    assert [data for data in seen if data] == [b"begin", b"stop"] + ([] if whole else 5 * [b"answer"])
    assert recorder.only.completions == ["fin"]
    assert recorder.only.kinds == set()


LOOKING = [{}, {"checks": "strict"}, {"delivery": "acked"}, {"limits": Limits(max_history_bytes_per_connection=999)},
           {"checks": "strict", "overlap": "linux-kernel"}]  # fmt: skip


@pytest.mark.parametrize("options", LOOKING)
@pytest.mark.parametrize("last", [b"", b"z", b"z" * 300])
@pytest.mark.parametrize("rounds", [0, 3, 200])
@pytest.mark.parametrize("end", ["FA", "RA"])
def test_nothing_is_looked_at_in_a_stopped_connection_but_its_end(
    options: Dict[str, Any], last: bytes, rounds: int, end: str
) -> None:
    """Whatever is remembered of connections that are followed: all its packets are `ignored`, and the FIN counts, with
    or without data and however much nobody counted before it."""
    recorder = Recorder(lambda recording, chunk: chunk.stop_connection())
    talk = Talk(recorder, **options)
    talk.say(b"stop")
    talk.say(b"", to_server=False)
    before = talk.assembler.statistics()
    for _ in range(rounds):
        talk.say(b"unheard" * 150)
        talk.say(b"answer", to_server=False)
    now = talk.assembler.statistics()
    assert (now.ignored - before.ignored, now.pages_used, now.retransmissions) == (2 * rounds, 0, 0)
    talk.say(last, flags=end)
    if end == "FA":
        talk.sent[0] += 1
        talk.say(last, to_server=False, flags="FA")
    assert recorder.only.completions == ["fin" if end == "FA" else "rst"]
    assert recorder.only.kinds <= {"rst_with_data"} and recorder.only.data() == b"stop"


def test_a_fin_with_data_in_a_stopped_direction_is_no_retransmission() -> None:
    """An endpoint's rules close the direction before they look at data, where data still counts."""
    recorder = Recorder(lambda recording, chunk: chunk.stop())
    talk = Talk(recorder, checks="strict")
    for data, flags in ((b"stop", "A"), (b"unheard", "A"), (b"last", "FA")):
        talk.say(data, flags=flags)
    talk.sent[0] += 1
    talk.say(b"bye", to_server=False, flags="FA")
    assert recorder.only.completions == ["fin"] and recorder.only.kinds == set()
    assert (recorder.only.data(C2S), recorder.only.data(S2C)) == (b"stop", b"bye")


def test_a_stopped_connection_ends_with_its_reset_too() -> None:
    recorder = Recorder(lambda recording, chunk: chunk.stop_connection())
    talk = Talk(recorder)
    talk.say(b"stop")
    for _ in range(3):
        talk.say(b"unheard" * 100)
    talk.say(b"", flags="RA")
    assert recorder.only.completions == ["rst"]
    assert recorder.only.data() == b"stop"


def test_what_waits_behind_a_hole_goes_when_the_connection_is_stopped() -> None:
    recorder = Recorder(lambda recording, chunk: chunk.stop_connection())
    talk = Talk(recorder)
    talk.say(b"lost", lost=True)
    for _ in range(9):
        talk.say(b"waiting" * 100)
    talk.say(b"answer", to_server=False)
    assert talk.assembler.statistics().pages_used == 0
    talk.assembler.flush_all()
    assert recorder.only.text(C2S) == "" and recorder.only.text(S2C) == "answer"


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("side", [C2S, S2C])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("overlap", ["first", "linux-kernel"])
def test_a_fin_that_waited_behind_a_hole_ends_the_direction_that_was_stopped(
    overlap: str, missing: bool, side: Direction, whole: bool
) -> None:
    """What is missing before it may never come, and nobody wants it."""

    def stop(recording: Recording, chunk: Chunk) -> None:
        if chunk.direction == side and chunk.offset and not chunk.end:
            (chunk.stop_connection if whole else chunk.stop)()

    recorder = Recorder(stop)
    assembler = Assembler(recorder, overlap=overlap)
    late = [packet("c", "A", 200, 0, 100)] * (not missing)
    for number, fields in enumerate([
        *opened(), packet("c", "A", 0, 0, 100), packet("s", "A", 0, 100, 100), packet("c", "FA", 300, 100, 100),
        packet("c", "A", 100, 100, 100), packet("s", "A", 100, 200, 100), *late, packet("s", "FA", 200, 401),
        packet("c", "A", 401, 201),
    ]):  # fmt: skip
        assembler.assemble(tcp_frame(**fields), 1.0 + number)
    assert recorder.only.completions == ["fin"]
    assert recorder.only.ended == {C2S, S2C}
    ends = {chunk.direction: chunk.offset + len(chunk) for chunk in recorder.only.chunks if chunk.end}
    assert ends == {C2S: 400, S2C: 200}


@pytest.mark.parametrize("form", [bytes, Segment])
def test_a_direction_that_was_stopped_while_its_start_was_waited_for_ends_with_its_fin(form: type) -> None:
    recorder = Recorder(lambda recording, chunk: chunk.stop_connection())
    assembler = Assembler(recorder)
    for number, fields in enumerate([
        packet("c", "A", 0, 0, 100), *(packet("s", "A", 100 * number, 100, 100) for number in range(4)),
        packet("c", "FA", 100, 400), packet("s", "FA", 400, 101), packet("c", "A", 101, 401),
    ]):  # fmt: skip
        frame = tcp_frame(**fields)
        assembler.assemble(frame if form is bytes else PacketDecoder().decode(frame)[0], 1.0 + number / 100)
    assert recorder.only.completions == ["fin"]
    assert recorder.only.ended == {C2S, S2C}


def test_what_was_to_be_acknowledged_first_does_not_keep_a_stopped_direction_from_its_end() -> None:
    recorder = Recorder(lambda recording, chunk: chunk.stop_connection())
    assembler = Assembler(recorder, delivery="acked")
    for number, fields in enumerate([
        *opened(), packet("c", "FA", 0, 0, 100), packet("s", "A", 0, 0, 10), packet("c", "A", 101, 10),
        packet("s", "FA", 10, 101), packet("c", "A", 101, 11),
    ]):  # fmt: skip
        assembler.assemble(tcp_frame(**fields), 1.0 + number / 100)
    assert recorder.only.completions == ["fin"]
    assert recorder.only.ended == {C2S, S2C}


def test_a_direction_that_is_stopped_as_time_goes_on_ends_though_nothing_follows() -> None:
    recorder = Recorder(lambda recording, chunk: chunk.stop_connection() if chunk.offset else None)
    assembler = Assembler(recorder)
    for fields in (
        *opened(), packet("s", "FA", 0), packet("c", "A", 0, 1, 100), packet("c", "A", 200, 1, 100),
        packet("c", "FA", 400, 1, 100),
    ):  # fmt: skip
        assembler.assemble(tcp_frame(**fields), 1.0)
    assembler.assemble(tcp_frame(("10.9.9.9", 9), SERVER, 1), 130.0)
    assert recorder.only.completions == ["fin"]
    assert recorder.only.ended == {C2S, S2C}


def test_with_strict_checks_a_fin_that_was_refused_ends_a_stopped_direction_once_it_is_acknowledged() -> None:
    """The update of the window came to the tap behind what it let in."""
    recorder = Recorder(lambda recording, chunk: chunk.stop() if chunk.direction is C2S else None)
    assembler = Assembler(recorder, checks="strict")
    for fields in (
        *opened((65535, 100)), packet("c", "A", 0, 0, 100), packet("s", "A", 0, 100, window=0),
        packet("c", "FA", 100, 0, 50), packet("s", "A", 0, 151, window=100), packet("s", "FA", 0, 151),
        packet("c", "A", 151, 1),
    ):  # fmt: skip
        assembler.assemble(tcp_frame(**fields), 1.0)
    assert "out_of_window" in recorder.only.kinds
    assert recorder.only.completions == ["fin"]
