"""How long a connection is followed once one side has closed, and what late packets mean."""

from __future__ import annotations

from typing import Any, List, Set, Tuple

import pytest

from support.frames import tcp_frame
from support.recorder import S2C, Recorder, Recording
from tcpstitch import Assembler, Direction, Limits, Segment, Stream

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 443)


def opened(**options: Any) -> Tuple[Recorder, Assembler]:
    """A connection whose two SYNs were seen."""
    recorder = Recorder()
    assembler = Assembler(recorder, **options)
    assembler.assemble(Segment.make(CLIENT, SERVER, 100, flags="S"), 1000.0)
    assembler.assemble(Segment.make(SERVER, CLIENT, 500, flags="SA", ack=101), 1000.1)
    return recorder, assembler


def test_the_other_side_of_a_half_closed_connection_may_be_silent_for_minutes() -> None:
    """A FIN from one side ends that direction alone; what the other sends four minutes later is the same connection."""
    recorder, assembler = opened()
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"request", ack=501), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="FA", ack=501), 1000.3)
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, b"late", flags="FPA", ack=109), 1240.0)
    assert len(recorder.connections) == 1
    assert recorder.connections[0].completions == ["fin"]
    assert assembler.statistics().bytes == len(b"request") + len(b"late")


def test_data_in_flight_when_a_closed_host_resets_is_still_its_peers_stream() -> None:
    """RFC 9293 3.10.7.1: a closed host answers late data with RST at the number it acknowledges, its own FIN's or the
    one behind it; the connection is over once nothing follows."""
    recorder, assembler = opened()
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, flags="FA", ack=501), 1000.2)
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, b"one ", ack=101), 1000.3)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, flags="R"), 1000.4)
    assembler.assemble(Segment.make(SERVER, CLIENT, 505, b"two ", ack=101), 1000.5)
    assembler.assemble(Segment.make(SERVER, CLIENT, 509, b"three", ack=102), 1000.6)
    assert recorder.only.completions == []
    assembler.assemble(Segment.make(CLIENT, SERVER, 102, flags="R"), 1000.7)
    assembler.assemble(Segment.make(SERVER, CLIENT, 514, b" four", ack=102), 1000.8)
    assembler.assemble(Segment.make(CLIENT, SERVER, 102, flags="R"), 1000.9)
    assembler.assemble(Segment.make(("10.9.9.9", 1), SERVER, 1, flags="S"), 1100.0)
    assert recorder.connections[0].completions == ["rst"]
    assert recorder.connections[0].text(S2C) == "one two three four"


def test_a_reset_behind_an_acknowledged_fin_ends_the_connection_at_once_when_it_answers_nothing() -> None:
    """All that the peer sent was acknowledged: nothing is in flight that the RST could be an answer to."""
    recorder, assembler = opened()
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, b"one", ack=101), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, flags="FA", ack=504), 1000.3)
    assembler.assemble(Segment.make(SERVER, CLIENT, 504, ack=102), 1000.4)
    assembler.assemble(Segment.make(CLIENT, SERVER, 102, flags="R"), 1000.5)
    assert recorder.only.completions == ["rst"]


def test_a_closed_hosts_reset_for_data_that_knows_little_does_not_end_its_peers_stream() -> None:
    """The RST bears the number that the late data acknowledged, here before the last data and the FIN: by the time the
    peer has it, it has received more, and the RST is outside its window."""
    recorder, assembler = opened()
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"request", ack=501), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, b"bye", flags="FPA", ack=501), 1000.3)
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, b"one ", ack=108), 1000.4)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="R"), 1000.5)
    assembler.assemble(Segment.make(SERVER, CLIENT, 505, b"two", ack=111), 1000.6)
    assert recorder.only.completions == []
    assembler.flush_all()
    assert recorder.only.text(S2C) == "one two"


def test_a_reset_for_data_in_flight_ends_the_connection_when_nothing_follows() -> None:
    """A RST at the sender's own FIN, then silence: the connection is over as reset once the linger has passed."""
    recorder, assembler = opened()
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, flags="FA", ack=501), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, flags="R"), 1000.3)
    assembler.assemble(Segment.make(("10.9.9.9", 1), SERVER, 1, flags="S"), 1100.0)
    assert recorder.connections[0].completions == ["rst"]


def test_data_in_flight_counts_where_the_closed_hosts_start_is_still_waited_for() -> None:
    """The capture begins behind the handshake, and a short request is all that it has of the host that closes."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, b"one ", ack=101), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"request", ack=505), 1000.3)
    assembler.assemble(Segment.make(SERVER, CLIENT, 505, b"two ", ack=108), 1000.4)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="FA", ack=505), 1000.5)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="R"), 1000.6)
    assembler.assemble(Segment.make(SERVER, CLIENT, 509, b"three", ack=108), 1000.7)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="R"), 1000.8)
    assembler.assemble(Segment.make(("10.9.9.9", 1), SERVER, 1, flags="S"), 1100.0)
    assert recorder.connections[0].completions == ["rst"]
    assert (recorder.connections[0].text(), recorder.connections[0].text(S2C)) == ("request", "one two three")


@pytest.mark.parametrize("place, kinds", [(205, set()), (207, {"fin_ahead"}), (203, {"fin_ahead"})])
def test_a_second_fin_behind_a_hole_is_evidence_where_its_place_is_another(place: int, kinds: Set[str]) -> None:
    recorder, assembler = opened()
    assembler.assemble(Segment.make(CLIENT, SERVER, 200, b"later", ack=501), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 205, flags="FA", ack=501), 1000.3)
    assembler.assemble(Segment.make(CLIENT, SERVER, place, flags="FA", ack=501), 1000.4)
    assert recorder.kinds == kinds


def closed(*segments: Segment, **options: Any) -> Recorder:
    """A connection in which the client said "abcdef" and both sides closed, followed by `segments`."""
    recorder, assembler = opened(limits=Limits(max_history_bytes_per_connection=100), **options)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"abcdef", flags="FPA", ack=501), 1000.2)
    assembler.assemble(Segment.make(SERVER, CLIENT, 501, flags="FA", ack=108), 1000.3)
    assert recorder.only.completions == ["fin"]
    for segment in segments:
        assembler.assemble(segment, 1001.0)
    return recorder


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("start, data", [(101, b"abcdef"), (101, b"ab"), (104, b"def")])
def test_an_old_copy_that_arrives_after_the_close_is_a_retransmission(checks: str, start: int, data: bytes) -> None:
    recorder = closed(Segment.make(CLIENT, SERVER, start, data, ack=501), checks=checks)
    assert recorder.kinds == {"retransmission"}


def test_an_old_copy_with_other_bytes_is_a_conflict_after_the_close_too() -> None:
    recorder = closed(Segment.make(CLIENT, SERVER, 104, b"dXf", ack=501))
    assert recorder.kinds == {"retransmission", "overlap_conflict"}


@pytest.mark.parametrize("start, data", [(107, b"more"), (104, b"defmore"), (108, b"more")])
def test_bytes_behind_the_fin_are_evidence(start: int, data: bytes) -> None:
    assert "data_after_fin" in closed(Segment.make(CLIENT, SERVER, start, data, ack=501)).kinds


@pytest.mark.parametrize("answer, kinds, errors", [(True, {"data_after_rst"}, 0), (False, set(), 0), (None, set(), 1)])
def test_what_a_handler_does_not_accept_after_the_end_is_no_evidence(answer: Any, kinds: Any, errors: int) -> None:
    class Choosy(Recording):
        def accept(self, segment: Segment, direction: Direction) -> Any:
            return answer if self.completions else True

    class Factory(Recorder):
        def new(self, flow: Any, segment: Segment, timestamp: float) -> Stream:
            self.connections.append(Choosy(self, flow, timestamp))
            return self.only

    recorder = Factory()
    failures: List[Any] = []
    assembler = Assembler(recorder, on_error=lambda handler, error: failures.append(error))
    assembler.assemble(Segment.make(CLIENT, SERVER, 100, flags="S"), 1000.0)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"data"), 1000.0)
    assembler.assemble(Segment.make(CLIENT, SERVER, 105, flags="R"), 1000.1)
    before = recorder.kinds
    assembler.assemble(Segment.make(CLIENT, SERVER, 105, b"more"), 1000.2)
    assert (recorder.only.completions, recorder.kinds - before, len(failures)) == (["rst"], kinds, errors)


def test_an_old_copy_that_arrives_after_a_reset_is_a_retransmission() -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(CLIENT, SERVER, 100, flags="S"), 1000.0)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"abc"), 1000.1)
    assembler.assemble(Segment.make(CLIENT, SERVER, 104, flags="R"), 1000.2)
    before = set(recorder.kinds)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"abc"), 1000.3)
    assert recorder.kinds - before == {"retransmission"}
    assembler.assemble(Segment.make(CLIENT, SERVER, 104, b"d"), 1000.3)
    assert recorder.kinds - before == {"retransmission", "data_after_rst"}


@pytest.mark.parametrize("flushed, kinds", [(False, {"bad_flags"}), (True, set())])
def test_what_opened_no_connection_is_forgotten_at_the_end_of_the_input(flushed: bool, kinds: Any) -> None:
    """A SYN that no host takes is evidence for the connection that follows, but not for one of the next input."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(CLIENT, SERVER, 100, flags="SF"), 1000.0)
    if flushed:
        assembler.flush_all()
    assembler.assemble(Segment.make(CLIENT, SERVER, 200, flags="S"), 1000.1)
    assert recorder.only.kinds == kinds


def test_of_what_opened_no_connection_the_last_256_are_remembered() -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    for flags in ("SF", "S"):
        for number in range(260):
            assembler.assemble(Segment.make((CLIENT[0], number), SERVER, 100, flags=flags), 1000.0)
    assert ["bad_flags" in each.kinds for each in recorder.connections] == [False] * 4 + [True] * 256


@pytest.mark.parametrize("form", ["frame", "segment"])
@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("answer", [b"", b"answer"])
def test_a_connection_whose_ports_are_used_again_gives_way_to_the_new(answer: bytes, checks: str, form: str) -> None:
    """The server's SYN/ACK confirms the new SYN, also where it had sent no data on the old connection."""
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    make: Any = tcp_frame if form == "frame" else lambda *fields: Segment.make(*fields[:-1], ack=fields[-1])
    packets = [
        (CLIENT, SERVER, 99, b"", "S", 0), (SERVER, CLIENT, 499, b"", "SA", 100), (CLIENT, SERVER, 100, b"", "A", 500),
        (CLIENT, SERVER, 100, b"data", "A", 500), (SERVER, CLIENT, 500, answer, "A", 104),
        (CLIENT, SERVER, 9_000_000, b"", "S", 0), (SERVER, CLIENT, 7_000_000, b"", "SA", 9_000_001),
        (CLIENT, SERVER, 9_000_001, b"fresh", "A", 7_000_001), (SERVER, CLIENT, 7_000_001, b"reply", "A", 9_000_006),
    ]  # fmt: skip
    for packet in packets:
        assembler.assemble(make(*packet), 1.0)
    assembler.flush_all()
    old, new = recorder.connections
    assert (old.data(), old.data(S2C), old.completions) == (b"data", answer, ["replaced"])
    assert (new.data(), new.data(S2C), new.kinds) == (b"fresh", b"reply", {"tuple_reuse"})


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("numbers", [(499, 7_000), (7_000, 499), (499, 7_000, 7_000), (499, 7_000, 7_000, 499)])
@pytest.mark.parametrize("client", [False, True])
def test_of_two_synacks_without_their_syn_the_one_counts_that_the_stream_follows(
    client: bool, numbers: Tuple[int, ...], checks: str
) -> None:
    """Two hosts behind one address answer: whose connection it is, the data or the client's acknowledgement tells."""
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    for number in numbers:
        assembler.assemble(Segment.make(SERVER, CLIENT, number, flags="SA", ack=100), 1000.0)
    if client:
        assembler.assemble(Segment.make(CLIENT, SERVER, 100, b"request", ack=500), 1000.1)
    assembler.assemble(Segment.make(SERVER, CLIENT, 500, b"answer", ack=107 if client else 100), 1000.2)
    assembler.assemble(Segment.make(SERVER, CLIENT, 506, b", more", ack=107 if client else 100), 1000.3)
    assembler.flush_all()
    assert recorder.only.text(S2C) == "answer, more"
    assert [chunk.offset for chunk in recorder.only.chunks if chunk.direction is S2C][:2] == [0, 6]
    assert "syn_isn_change" in recorder.kinds


def test_bytes_that_a_handler_kept_come_again_with_the_end() -> None:
    """A last line without its newline is not lost when nothing but a FIN follows."""
    recorder = Recorder(on_chunk=lambda recording, chunk: None if chunk.end else chunk.keep_from(4))
    assembler = Assembler(recorder)
    assembler.assemble(Segment.make(CLIENT, SERVER, 100, flags="S"), 1000.0)
    assembler.assemble(Segment.make(SERVER, CLIENT, 500, flags="SA", ack=101), 1000.1)
    assembler.assemble(Segment.make(CLIENT, SERVER, 101, b"one\ntwo", ack=501), 1000.2)
    assembler.assemble(Segment.make(CLIENT, SERVER, 108, flags="FA", ack=501), 1000.3)
    assert [(chunk.offset, chunk.data, chunk.end) for chunk in recorder.chunks] == [
        (0, b"one\ntwo", False), (4, b"two", True),
    ]  # fmt: skip
    assert assembler.statistics().pages_used == 0
