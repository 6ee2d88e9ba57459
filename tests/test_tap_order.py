"""The tap shows packets in another order than that in which the hosts met them, which strict checks must bear."""

from __future__ import annotations

from typing import List, Tuple

import pytest

from support.frames import CLIENT, SERVER
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Segment

SYN = Segment.make(CLIENT, SERVER, 99, flags="S")
ANSWER = Segment.make(SERVER, CLIENT, 499, flags="SA", ack=100)
CONFIRM = Segment.make(CLIENT, SERVER, 100, ack=500)


def client(start: int, data: bytes = b"", flags: str = "A", ack: int = 0) -> Segment:
    return Segment.make(CLIENT, SERVER, 100 + start, data, flags=flags, ack=500 + ack)


def server(start: int, data: bytes = b"", flags: str = "A", ack: int = 0) -> Segment:
    return Segment.make(SERVER, CLIENT, 500 + start, data, flags=flags, ack=100 + ack)


def seen(segments: List[Segment], checks: str = "strict") -> Recorder:
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    for number, segment in enumerate(segments):
        assembler.assemble(segment, 1000.0 + number / 1000)
        assembler.check()
    return recorder


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_data_ahead_of_what_it_acknowledges_counts_once_it_is_acknowledged(checks: str) -> None:
    question, answer = client(0, b"question"), server(0, b"answer", ack=8)
    recorder = seen([SYN, ANSWER, CONFIRM, answer, question, client(8, ack=6), server(6, b"more", ack=8)], checks)
    assert recorder.only.data(S2C) == b"answermore"
    assert recorder.only.data(C2S) == b"question"


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_a_fin_ahead_of_what_it_acknowledges_does_not_lock_out_the_other_side(checks: str) -> None:
    """From the FIN on the server acknowledges its number, and the client what the server sends."""
    fin = client(0, b"bye", flags="FA", ack=6)
    rest = [server(0, b"answer"), server(6, b"more", ack=4), client(4, ack=10), server(10, b"end", flags="FA", ack=4)]
    recorder = seen([SYN, ANSWER, CONFIRM, fin, *rest, client(4, ack=14)], checks)
    assert recorder.only.data(S2C) == b"answermoreend"
    assert recorder.only.data(C2S) == b"bye"
    assert recorder.only.completions == ["fin"]


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_data_of_the_server_ahead_of_its_syn_counts_once_it_is_acknowledged(checks: str) -> None:
    recorder = seen([SYN, server(0, b"hello"), ANSWER, CONFIRM, client(0, ack=5), server(5, b" you")], checks)
    assert recorder.only.data(S2C) == b"hello you"


def test_a_fin_of_the_server_ahead_of_its_syn_counts_once_it_is_acknowledged() -> None:
    recorder = seen([SYN, server(0, b"hello", flags="FA"), ANSWER, CONFIRM, client(0, ack=6)])
    assert recorder.only.data(S2C) == b"hello"
    assert recorder.only.ended == {S2C}


@pytest.mark.parametrize("start, decoy", [(-1, b"!!"), (-3, b"!!!!"), (0, b"!"), (2, b"!")])
def test_a_decoy_with_a_fin_and_a_wrong_ack_ends_nothing_when_its_numbers_are_acknowledged(
    start: int, decoy: bytes
) -> None:
    """Other data came in their place; the receiver's numbers are the same."""
    honest = [client(0, b"ab"), server(0, ack=2), client(2, b"c"), server(0, ack=3), client(3, b"d"), server(0, ack=4)]
    end = client(start, decoy, "FA", ack=1)
    recorder = seen([SYN, ANSWER, CONFIRM, end, *honest, client(4, b"ef"), server(0, ack=6)])
    assert recorder.only.data(C2S) == b"abcdef"
    assert not recorder.only.ended


@pytest.mark.parametrize("checks", ["strict", "lenient"])
@pytest.mark.parametrize("after", ["more packets", "silence"])
def test_what_the_tap_missed_before_a_fin_is_a_gap_once_the_fin_is_acknowledged(checks: str, after: str) -> None:
    recorder = Recorder()
    segments = [
        SYN, ANSWER, CONFIRM, client(0, b"abc"), server(0, ack=3), client(6, flags="FA"), server(0, ack=7),
        server(0, b"x", flags="FA", ack=7), client(7, ack=2),
    ]  # fmt: skip
    step = 0.2 if after == "more packets" else 0.001
    with Assembler(recorder, checks=checks) as assembler:
        for number, segment in enumerate(segments):
            assembler.assemble(segment, 1000.0 + number * step)
        if after == "silence":
            assert recorder.only.completions == []
            assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), 1100.0)
        first = recorder.connections[0]
        assert first.completions == ["fin"]
        assert [(gap.offset, gap.length) for gap in first.gaps] == [(3, 3)]
        assert first.data(S2C) == b"x"


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_a_rst_at_data_that_is_on_its_way_ends_nothing_that_goes_on(checks: str) -> None:
    """RFC 9293 3.10.7.1: a closed host answers each segment with a RST at the number which that acknowledges. Its own
    data may have arrived by then: the RST is old for the receiver, who acknowledges, and gets a RST at that number."""
    sent = [client(0, b"question"), server(0, ack=8), client(8, b"more"), client(8, flags="R"), client(12, b"last")]
    recorder = seen([SYN, ANSWER, CONFIRM, *sent, server(0, ack=16)], checks)
    assert recorder.only.data(C2S) == b"questionmorelast"
    assert not recorder.only.completions
    recorder = seen([SYN, ANSWER, CONFIRM, *sent, server(0, ack=16), client(16, flags="R")], checks)
    assert recorder.only.completions == ["rst"]


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_a_rst_at_data_that_is_on_its_way_ends_the_connection_once_silence_follows(checks: str) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    sent = [client(0, b"ques"), server(0, ack=4), client(4, b"tion"), client(4, flags="R")]
    for segment in [SYN, ANSWER, CONFIRM, *sent]:
        assembler.assemble(segment, 1000.0)
    assert not recorder.only.completions
    assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), 1200.0)
    assert recorder.connections[0].completions == ["rst"]
    assert recorder.connections[0].data(C2S) == b"question"


@pytest.mark.parametrize("late, end", [(b"", ""), (b"", "silence"), (b"", "flush"), (b"def", "silence")])
def test_where_one_side_is_captured_a_hole_before_its_fin_is_a_gap_in_the_end(late: bytes, end: str) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    for segment in [SYN, CONFIRM, client(0, b"abc"), client(6, flags="FA"), client(3, late, ack=9)]:
        assembler.assemble(segment, 1000.0)
    if end == "silence":
        assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), 1200.0)
    elif end == "flush":
        assembler.flush_all()
    first = recorder.connections[0]
    assert first.completions == (["fin"] if end else [])
    assert first.data(C2S) == b"abc" + late
    gaps = [(gap.offset, gap.length, gap.reason) for gap in first.gaps]
    assert gaps == ([(3, 3, "closed")] if end and not late else [])


def test_a_connection_whose_fins_came_while_its_start_was_waited_for_is_over() -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    ends = [client(8, flags="FA", ack=3), server(3, flags="FA", ack=9), client(9, ack=4)]
    for segment in [client(0, b"abcdef"), server(0, b"xyz", ack=6), *ends]:
        assembler.assemble(segment, 1000.0)
    assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), 1200.0)
    assert recorder.connections[0].completions == ["fin"]
    assert (recorder.connections[0].text(C2S), recorder.connections[0].text(S2C)) == ("abcdef[2 bytes missing]", "xyz")


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_data_behind_half_a_handshake_begins_where_the_other_half_says(side: str, checks: str) -> None:
    """The SYN or the SYN/ACK was not captured; the first data comes behind more than the hold waits for."""
    speaks, answers = (client, server) if side == "client" else (server, client)
    opening = [ANSWER, CONFIRM] if side == "client" else [SYN, CONFIRM]
    order = [3, 1, 4, 2, 5, 0]
    for last in ([0], []):
        pieces = [speaks(2 * at, b"0a1b2c3d4e5f"[2 * at : 2 * at + 2]) for at in order[:5] + last]
        recorder = seen([*opening, *pieces, answers(0, ack=0), speaks(12, b"rest"), answers(0, ack=16)], checks)
        text = recorder.only.text(C2S if side == "client" else S2C)
        assert text == ("0a1b2c3d4e5frest" if last else "") and not recorder.only.gaps


@pytest.mark.parametrize("checks", ["strict", "lenient"])
@pytest.mark.parametrize("acknowledged, taken", [(8, b"questionmore"), (6, b"question")])
def test_a_rst_before_what_the_receiver_acknowledges_ends_nothing_after_any_silence(
    checks: str, acknowledged: int, taken: bytes
) -> None:
    """Its number was past when it came (RFC 5961 3.2): a client can send it, be silent, and go on."""
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    sent = [client(0, b"ques"), server(0, ack=4), client(4, b"tion"), client(6, flags="R"), server(0, ack=acknowledged)]
    for segment in [SYN, ANSWER, CONFIRM, *sent]:
        assembler.assemble(segment, 1000.0)
    assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), 1200.0)
    assembler.assemble(client(8, b"more"), 1200.0)
    assert recorder.connections[0].data(C2S) == taken
    assert recorder.connections[0].completions == ([] if acknowledged == 8 else ["rst"])


@pytest.mark.parametrize("checks", ["strict", "lenient"])
def test_after_a_refused_syn_with_data_a_connection_the_other_way_is_one_of_its_own(checks: str) -> None:
    refused = Segment.make(SERVER, CLIENT, 700, b"early", flags="S")
    refusal = Segment.make(CLIENT, SERVER, 0, flags="RA", ack=706)
    recorder = seen([refused, refusal, SYN, ANSWER, CONFIRM, server(0, b"answer"), client(0, b"more", ack=6)], checks)
    last = recorder.connections[-1]
    assert last.flow.client.port == CLIENT[1]
    assert (last.data(C2S), last.data(S2C)) == (b"more", b"answer")


@pytest.mark.parametrize("server_isn", [499, 2**32 - 3])
def test_acknowledgements_that_a_tap_saw_before_the_handshake_count(server_isn: int) -> None:
    """The server's direction comes later than the client's by more than the whole exchange took."""
    first = server_isn + 1
    recorder = Recorder()
    assembler = Assembler(recorder, delivery="acked")
    for number, segment in enumerate((
        Segment.make(CLIENT, SERVER, 99, flags="S"),
        *(Segment.make(CLIENT, SERVER, 100, ack=first + acked) for acked in (0, 5, 6)),
        Segment.make(SERVER, CLIENT, server_isn, flags="SA", ack=100),
        Segment.make(SERVER, CLIENT, first, b"hello", ack=100),
        Segment.make(SERVER, CLIENT, first + 5, flags="FA", ack=100),
    )):  # fmt: skip
        assembler.assemble(segment, 1000.0 + number / 100)
        assembler.check()
    assert recorder.only.data(S2C) == b"hello"
    assert recorder.only.ended == {S2C}


@pytest.mark.parametrize(
    "early",
    [[CONFIRM, ANSWER, client(0, ack=6), server(0, b"answer")], [ANSWER, server(0, ack=8), client(0, b"question")]],
)
def test_an_acknowledgement_ahead_of_the_first_data_is_no_wrong_one(early: List[Segment]) -> None:
    """Of what a listening port sends the client acknowledges the SYN first; a server may answer data at once."""
    recorder = seen([SYN, *early], "lenient")
    assert not recorder.only.anomalies


@pytest.mark.parametrize("ttls", [(60,), (60, 64)])
def test_a_fin_with_a_low_ttl_counts_that_was_acknowledged_before_or_comes_as_usual_too(ttls: Tuple[int, ...]) -> None:
    """A mirror shows the copy behind a router first, or one direction late."""
    copies = [Segment.make(CLIENT, SERVER, 103, flags="FA", ack=501, ttl=ttl) for ttl in ttls]
    ends = [server(0, flags="FA", ack=3), *([server(1, ack=4)] if len(ttls) == 1 else []), *copies]
    recorder = seen([SYN, ANSWER, CONFIRM, client(0, b"abc"), server(0, ack=3), *ends], "lenient")
    assert recorder.only.completions == ["fin"]


RST = [client(0, b"question"), client(8, ack=6), client(8, flags="R")]
RST_WITH_ACK = [client(0, b"question"), client(8, flags="RA", ack=6)]


@pytest.mark.parametrize("reset", [RST, RST_WITH_ACK])
def test_what_the_host_of_a_reset_had_acknowledged_is_delivered_where_the_tap_shows_it_later(
    reset: List[Segment],
) -> None:
    late = [server(0, b"ans", ack=8), client(8, b"decoy"), server(6, b"decoy", ack=8), client(0, b"question")]
    late += [client(9, flags="R"), client(4, flags="RA", ack=6)]  # it answers each, and has said so
    recorder = seen([SYN, ANSWER, CONFIRM, *reset, *late], "lenient")
    assert recorder.only.completions == []
    assert [anomaly.kind for anomaly in recorder.only.anomalies] == ["data_after_rst"] * 2 + ["retransmission"]
    recorder = seen([SYN, ANSWER, CONFIRM, *reset, *late, server(3, b"wer", ack=8)], "lenient")
    assert recorder.only.completions == ["rst"]
    assert recorder.only.data(S2C) == b"answer"
    assert recorder.only.data(C2S) == b"question"


@pytest.mark.parametrize(
    "later", [[], [server(3, b"wer", flags="FA", ack=8)], [Segment.make(CLIENT, SERVER, 9000, flags="S")]]
)
def test_what_never_comes_does_not_keep_a_connection_from_its_reset(later: List[Segment]) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    for number, segment in enumerate([SYN, ANSWER, CONFIRM, *RST, *later]):
        assembler.assemble(segment, 1000.0 + number / 1000)
    assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), 1100.0)
    assembler.assemble(Segment.make((CLIENT[0], 8), SERVER, 1, flags="S"), 1102.0)
    assert recorder.connections[0].completions == ["rst"]


def test_a_reset_counts_at_once_where_all_that_its_host_acknowledged_was_seen() -> None:
    recorder = seen([SYN, ANSWER, CONFIRM, server(0, b"answer"), *RST], "lenient")
    assert recorder.only.completions == ["rst"]
