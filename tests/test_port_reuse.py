"""A new connection on addresses that were used before, where the capture does not hold all of its beginning or end."""

from __future__ import annotations

from itertools import product
from typing import Any, List, Tuple

import pytest

from support.frames import CLIENT, SERVER, fast_open_option, tcp_frame, timestamps_option
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Segment, StreamFactory

Packet = Tuple[Any, ...]  # sender, flags, seq, ack, payload
FORMS = pytest.mark.parametrize("form", ["frame", "segment"])
CHECKS = pytest.mark.parametrize("checks", ["lenient", "strict"])


def assembled(packets: List[Packet], form: str = "segment", **options: Any) -> Recorder:
    recorder = Recorder()
    make: Any = tcp_frame if form == "frame" else Segment.make
    with Assembler(recorder, **options) as assembler:
        for number, (sender, flags, seq, ack, payload) in enumerate(packets):
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            assembler.assemble(make(*ends, seq, payload, flags, ack=ack), 1000.0 + number / 100)
            assembler.check()
    return recorder


def handshake(client: int, server: int) -> List[Packet]:
    return [
        ("c", "S", client, 0, b""), ("s", "SA", server, client + 1, b""), ("c", "A", client + 1, server + 1, b""),
    ]  # fmt: skip


def exchange(client: int, server: int, request: bytes, answer: bytes) -> List[Packet]:
    return [
        *handshake(client, server),
        ("c", "A", client + 1, server + 1, request),
        ("s", "A", server + 1, client + 1 + len(request), answer),
    ]


def streams(recorder: Recorder) -> List[Tuple[str, str, List[str]]]:
    return [(each.text(C2S), each.text(S2C), each.completions) for each in recorder.connections]


SEEN_IN_PART = {
    "client": [("c", "A", 1001 + 3 * n, 5001, b"old") for n in range(5)],
    "server": [("s", "A", 5001 + 3 * n, 1001, b"old") for n in range(5)],
    "server from its SYN/ACK on": [
        ("s", "SA", 5000, 1001, b""), *[("s", "A", 5001 + 3 * n, 1001, b"old") for n in range(5)],
    ],
}  # fmt: skip


@FORMS
@CHECKS
@pytest.mark.parametrize("client_isn", [70_000, 2**32 - 100_000, 3 * 10**9, 1004])
@pytest.mark.parametrize("sender", SEEN_IN_PART)
def test_a_connection_of_which_only_a_part_was_seen_gives_way(
    sender: str, client_isn: int, checks: str, form: str
) -> None:
    packets = SEEN_IN_PART[sender] + exchange(client_isn, 900_000, b"new", b"reply")
    old = ("old" * 5, "") if sender == "client" else ("", "old" * 5)
    recorder = assembled(packets, form, checks=checks)
    assert streams(recorder) == [(*old, ["replaced"]), ("new", "reply", ["flushed"])]
    assert recorder.connections[1].kinds == {"tuple_reuse"}


@FORMS
@CHECKS
@pytest.mark.parametrize("held", [b"", b"held"], ids=["nothing was sent", "data waits behind a hole"])
@pytest.mark.parametrize("client_isn, server_isn", [(70_000, 900_000), (3 * 10**9, 5000), (1050, 5050)])
def test_an_open_connection_that_delivered_nothing_gives_way(
    client_isn: int, server_isn: int, held: bytes, checks: str, form: str
) -> None:
    old = handshake(1000, 5000) + ([("c", "A", 1011, 5001, held)] if held else [])
    recorder = assembled(old + exchange(client_isn, server_isn, b"new", b"reply"), form, checks=checks)
    before = "[10 bytes missing]held" if held else ""
    assert streams(recorder) == [(before, "", ["replaced"]), ("new", "reply", ["flushed"])]
    assert recorder.connections[1].kinds == {"tuple_reuse"}


@pytest.mark.parametrize("client_isn", [70_000, 3 * 10**9, 1004])
@pytest.mark.parametrize("sender", SEEN_IN_PART)
def test_data_behind_the_new_syn_tells_where_no_answer_was_captured(sender: str, client_isn: int) -> None:
    packets = [*SEEN_IN_PART[sender], ("c", "S", client_isn, 0, b""), ("c", "A", client_isn + 1, 7, b"new")]
    assert streams(assembled(packets))[1] == ("new", "", ["flushed"])


@FORMS
@CHECKS
def test_an_acknowledgement_of_what_only_the_new_client_sent_confirms_it(checks: str, form: str) -> None:
    """The SYN/ACK and the first data are missing from the capture."""
    packets = [
        *exchange(1000, 5000, b"one", b"ONE"), ("c", "S", 700_000, 0, b""), ("s", "A", 80_001, 700_004, b"TWO"),
        ("c", "A", 700_004, 80_004, b"more"),
    ]  # fmt: skip
    first, second = streams(assembled(packets, form, checks=checks))
    assert first == ("one", "ONE", ["replaced"])
    assert second[0] == "[3 bytes missing]more"


@FORMS
@CHECKS
def test_a_challenge_confirms_no_new_connection(checks: str, form: str) -> None:
    """RFC 5961 4: the server answers a SYN on an open connection by the numbers of that, however near the SYN's is."""
    for number in (1000, 1003, 1010, 700_000):
        packets = [*exchange(1000, 5000, b"one", b"ONE"), ("c", "S", number, 0, b""), ("s", "A", 5004, 1004, b"TWO")]
        assert streams(assembled(packets, form, checks=checks)) == [("one", "ONETWO", ["flushed"])]


@pytest.mark.parametrize("syn", [1000, 998])
def test_a_syn_that_came_later_than_its_data_is_no_new_connection(syn: int) -> None:
    """Also when data is sent again from the SYN on."""
    packets = [*SEEN_IN_PART["client"], ("c", "S", syn, 0, b""), ("c", "A", syn + 1, 5001, b"old"[: 1003 - syn])]
    assert [text for text, _, _ in streams(assembled(packets))] == ["old" * 5]


@FORMS
@CHECKS
def test_data_sent_seconds_ahead_of_the_handshake_hides_none_of_it(checks: str, form: str) -> None:
    """The host answered it with a RST, and what it read is what follows its SYN/ACK."""
    recorder = Recorder()
    make: Any = tcp_frame if form == "frame" else Segment.make
    with Assembler(recorder, checks=checks) as assembler:
        assembler.assemble(make(CLIENT, SERVER, 1001, b"decoy", "A", ack=1), 1000.0)
        assembler.assemble(make(SERVER, CLIENT, 1, b"", "R"), 1000.5)
        for number, (sender, flags, seq, ack, payload) in enumerate(exchange(1000, 5000, b"real!", b"")):
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            assembler.assemble(make(*ends, seq, payload, flags, ack=ack), 1003.0 + number / 100)
    assert recorder.connections[-1].data() == b"real!"


CLOSED = {
    "fin": [("c", "FA", 1004, 5004, b""), ("s", "FA", 5004, 1005, b""), ("c", "A", 1005, 5005, b"")],
    "rst": [("c", "R", 1004, 0, b"")],
}


@FORMS
@CHECKS
@pytest.mark.parametrize("end", CLOSED)
def test_the_same_initial_number_does_not_hide_a_second_connection(end: str, checks: str, form: str) -> None:
    """The server's answer has a number of its own, so it saw another SYN than the first."""
    packets = exchange(1000, 5000, b"one", b"ONE") + CLOSED[end] + exchange(1000, 80_000, b"two", b"TWO")
    recorder = assembled(packets, form, checks=checks)
    assert streams(recorder) == [("one", "ONE", [end]), ("two", "TWO", ["flushed"])]


@FORMS
@CHECKS
@pytest.mark.parametrize("end", CLOSED)
def test_a_late_copy_of_a_whole_handshake_opens_nothing(end: str, checks: str, form: str) -> None:
    packets = exchange(1000, 5000, b"one", b"ONE") + CLOSED[end] + exchange(1000, 5000, b"one", b"ONE")
    assert streams(assembled(packets, form, checks=checks)) == [("one", "ONE", [end])]


@FORMS
@CHECKS
def test_a_connection_whose_early_data_was_refused_is_none_that_has_half_closed(checks: str, form: str) -> None:
    recorder = Recorder()
    make: Any = tcp_frame if form == "frame" else Segment.make
    assembler = Assembler(recorder, checks=checks)
    refused: List[Packet] = [("c", "FA", 1001, 9, b"early"), ("s", "R", 9, 0, b"")]
    for number, (sender, flags, seq, ack, payload) in enumerate(refused + exchange(1000, 5000, b"one", b"ONE")):
        ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
        assembler.assemble(make(*ends, seq, payload, flags, ack=ack), 1000.0 + number / 100)
    for minutes in (5, 10):
        assembler.assemble(make(CLIENT, SERVER, 999 + minutes, b"later", "A", ack=5004), 1000.0 + 60 * minutes)
    assembler.flush_all()
    assert streams(recorder) == [("onelaterlater", "ONE", ["flushed"])]


@FORMS
@CHECKS
@pytest.mark.parametrize("opening", ["", "early"])
def test_a_refused_syn_is_over_by_its_reset_in_the_end(opening: str, checks: str, form: str) -> None:
    """Whether the RST acknowledges the data that came with the SYN as well, or not."""
    cookie = {"options": fast_open_option()} if opening else {}
    for acked in {0, len(opening)}:
        recorder = Recorder()
        make: Any = tcp_frame if form == "frame" else Segment.make
        with Assembler(recorder, checks=checks) as assembler:
            assembler.assemble(make(CLIENT, SERVER, 1000, opening.encode(), "S", **cookie), 1000.0)
            assembler.assemble(make(SERVER, CLIENT, 0, b"", "RA", ack=1001 + acked), 1000.1)
        assert recorder.only.completions == ["rst"]
        assert recorder.kinds == set()
        assert recorder.only.text(C2S) == (opening if checks == "lenient" else "")


@FORMS
@CHECKS
@pytest.mark.parametrize("end", [[], *CLOSED.values()])
def test_a_syn_ack_begins_a_connection_whose_syn_is_missing(end: List[Packet], checks: str, form: str) -> None:
    packets = exchange(1000, 5000, b"one", b"ONE") + end + exchange(700_000, 80_000, b"two", b"TWO")[1:]
    recorder = assembled(packets, form, checks=checks)
    assert [each[:2] for each in streams(recorder)] == [("one", "ONE"), ("two", "TWO")]


@FORMS
@CHECKS
@pytest.mark.parametrize("client_isn", [2000, 700_000])
@pytest.mark.parametrize("end", [[], [("s", "R", 5005, 0, b"")]])
def test_a_syn_ack_behind_the_server_s_fin_begins_a_connection_however_near_its_number_is(
    end: List[Packet], client_isn: int, checks: str, form: str
) -> None:
    """What ended sends nothing more, so no window lies ahead of it."""
    old = [*exchange(1000, 5000, b"one", b"ONE"), ("s", "FA", 5004, 1004, b""), ("c", "A", 1004, 5005, b"on")]
    recorder = assembled(old + end + exchange(client_isn, 6000, b"two", b"TWO")[1:], form, checks=checks)
    assert [each[:2] for each in streams(recorder)] == [("oneon", "ONE"), ("two", "TWO")]


@FORMS
@CHECKS
@pytest.mark.parametrize("client_isn", [2000, 700_000, 3 * 10**9])
def test_a_client_behind_its_own_fin_confirms_a_new_connection_however_near_the_server_s_number_is(
    client_isn: int, checks: str, form: str
) -> None:
    """The capture has not got the server's FIN, nor the new SYN."""
    old = [*exchange(1000, 5000, b"one", b"ONE"), ("c", "FA", 1004, 5004, b""), ("s", "A", 5004, 1005, b"ON")]
    recorder = assembled(old + exchange(client_isn, 6000, b"two", b"TWO")[1:], form, checks=checks)
    assert [each[:2] for each in streams(recorder)] == [("one", "ONEON"), ("two", "TWO")]


@FORMS
@CHECKS
@pytest.mark.parametrize("client_isn", [1104, 3_000_000, 3 * 10**9])
@pytest.mark.parametrize("between", [
    [("s", "A", 5004, 1004, b"tail")], [("s", "A", 5008, 1004, b"")], [("s", "FA", 5004, 1004, b"tail")],
    [("s", "FA", 5008, 1004, b"")],
])  # fmt: skip
def test_a_server_that_still_has_the_older_connection_does_not_answer_the_syn(
    between: List[Packet], client_isn: int, checks: str, form: str
) -> None:
    """The RST was lost behind the tap."""
    packets = [
        *exchange(1000, 5000, b"one", b"ONE"), ("c", "R", 1004, 0, b""), ("c", "S", client_isn, 0, b""), *between,
        ("c", "R", 1004, 0, b""), *exchange(client_isn, 8_000_000, b"new", b"NEW"),
    ]  # fmt: skip
    recorder = assembled(packets, form, checks=checks)
    assert streams(recorder) == [("one", "ONE", ["rst"]), ("new", "NEW", ["flushed"])]


@pytest.mark.parametrize("place", [1, 4])
def test_the_clock_of_an_older_connection_is_none_of_the_next(place: int) -> None:
    """RFC 7323 5.3: what is out of the window renews nothing. Each connection may have a clock of its own (5.4)."""
    packets = [(packet, 50) for packet in exchange(70_000, 8_000_000, b"new", b"NEW")]
    packets[place:place] = [(("s", "A", 5004, 1004, b""), 2_000_000), (("s", "A", 5000, 1004, b"tail"), 2_000_000)]
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for number, ((sender, flags, seq, ack, payload), stamp) in enumerate(packets):
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            options = timestamps_option(stamp, 9)
            assembler.assemble(tcp_frame(*ends, seq, payload, flags, ack=ack, options=options), 1000 + number / 100)
    assert streams(recorder) == [("new", "NEW", ["flushed"])]


@FORMS
@pytest.mark.parametrize("sender", ["c", "s"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 1, 3), (3, 1, 2), (1, 3, 2)])
def test_a_direction_seen_alone_begins_anew_whichever_segment_comes_first(
    order: Tuple[int, ...], sender: str, form: str
) -> None:
    """It acknowledges what is of the new connection: the first of its data may have been overtaken, or have no data."""
    client, server = 3 * 10**9, 8_000_000
    mine, other = (client, server) if sender == "c" else (server, client)
    first = [packet for packet in exchange(1000, 5000, b"one", b"ONE") if packet[0] == sender]
    opening = [packet for packet in handshake(client, server)[:2] if packet[0] == sender]
    data = [(sender, "A", mine + 1, other + 1, b"")]
    data += [(sender, "A", mine + 1 + at, other + 1, b"new data"[at : at + 3]) for at in (0, 3, 6)]
    texts = [text + back for text, back, _ in streams(assembled(first + opening + [data[n] for n in order], form))]
    assert texts == ["one" if sender == "c" else "ONE", "new data"]


@FORMS
@pytest.mark.parametrize("end, reason", [([], "replaced"), ([("s", "FA", 5004, 1005, b"")], "fin")])
def test_a_capture_of_servers_alone_tells_their_connections_apart(end: List[Packet], reason: str, form: str) -> None:
    answers = [packet for packet in exchange(1000, 5000, b"one", b"ONE") if packet[0] == "s"]
    more = [packet for packet in exchange(700_000, 80_000, b"two", b"TWO") if packet[0] == "s"]
    assert streams(assembled(answers + end + more, form)) == [("", "ONE", [reason]), ("", "TWO", ["flushed"])]


@FORMS
@CHECKS
@pytest.mark.parametrize("opening", [[("c", "S", 1000, 0, b"")], []])
def test_a_direction_seen_alone_gives_way_behind_its_fin_at_once(
    opening: List[Packet], checks: str, form: str
) -> None:
    """Also to a connection without data, which nothing else would confirm."""
    packets = [
        *opening, ("c", "FA", 1001, 5001, b"one"), *[("c", "A", 1005, 5001, b"")] * 3,
        ("c", "S", 700_000, 0, b""), ("c", "FA", 700_001, 80_000, b""), ("c", "S", 900_000, 0, b""),
    ]  # fmt: skip
    if not opening:  # its data waits for its start, for a second or two
        packets[1:1] = [("c", "A", 1001, 5001, b"one")] * 4
    expected = [("one", "", ["fin"]), ("", "", ["fin"]), ("", "", ["flushed"])]
    assert streams(assembled(packets, form, checks=checks)) == expected


@FORMS
@CHECKS
@pytest.mark.parametrize("start", ["any", "syn"])
@pytest.mark.parametrize("fins", [0, 1, 2])
@pytest.mark.parametrize("client_isn", [3 * 10**9, 1050, 3_000_000])
@pytest.mark.parametrize("order", [1, -1])
def test_data_that_waits_for_its_start_is_none_of_a_syn_that_is_far_from_it(
    order: int, client_isn: int, fins: int, start: str, checks: str, form: str
) -> None:
    """The last segments of a connection, then the next one on the same ports: no gap from here to there."""
    pieces: List[Packet] = [("c", "A", 1001, 5001, b"o"), ("c", "A", 1002, 5001, b"ld")]
    last: List[Packet] = [*pieces[::order], ("s", "A", 5001, 1004, b"OLD")]
    ends = [("c", "FA", 1004, 5004, b""), ("s", "FA", 5004, 1005, b"")][:fins]
    packets = [*last, *ends, *exchange(client_isn, 8_000_000, b"new", b"NEW")]
    recorder = assembled(packets, form, checks=checks, start=start)
    reason = "fin" if fins == 2 else "replaced"
    assert streams(recorder) == [("old", "OLD", [reason]), ("new", "NEW", ["flushed"])]
    assert recorder.connections[1].kinds == {"tuple_reuse"}


@FORMS
@CHECKS
def test_a_forged_syn_ack_on_an_open_connection_changes_nothing(checks: str, form: str) -> None:
    """The client answers it by the numbers of its own connection (RFC 5961 4)."""
    packets = [
        *exchange(1000, 5000, b"one", b"ONE"), ("s", "SA", 80_000, 1004, b""), ("c", "A", 1004, 5004, b""),
        ("s", "A", 80_001, 1004, b"forged"), ("s", "A", 5004, 1004, b"true"), ("c", "A", 1004, 5008, b"on"),
    ]  # fmt: skip
    recorder = assembled(packets, form, checks=checks)
    assert [(text, text_back[:7]) for text, text_back, _ in streams(recorder)] == [("oneon", "ONEtrue")]


@FORMS
def test_a_factory_is_not_asked_again_for_a_syn_that_it_declined(form: str) -> None:
    class Declining(StreamFactory):
        asked = 0

        def new(self, *_: Any) -> None:
            self.asked += 1

    factory = Declining()
    make: Any = tcp_frame if form == "frame" else Segment.make
    assembler = Assembler(factory)
    for number in range(3):
        assembler.assemble(make(CLIENT, SERVER, 1000, b"", "S"), 1000.0 + number)
    assembler.assemble(make(SERVER, CLIENT, 5000, b"", "SA", ack=1001), 1003.0)
    assert factory.asked == assembler.statistics().connections_lingering == 1
    assert assembler.statistics().anomalies == {}
    assembler.assemble(make(CLIENT, SERVER, 70_000, b"", "S"), 1004.0)
    assert factory.asked == 2


@FORMS
@CHECKS
@pytest.mark.parametrize("rst", [5005, 7_999_999, 8_000_001])
def test_a_late_reset_of_the_connection_before_refuses_no_syn_with_data(rst: int, checks: str, form: str) -> None:
    """It acknowledges nothing, so a host that waits for its SYN's answer ignores it (RFC 9293 3.10.7.3)."""
    packets = [
        ("c", "S", 70_000, 0, b"new "), ("s", "R", rst, 0, b""), ("s", "SA", 8_000_000, 70_005, b""),
        ("c", "A", 70_005, 8_000_001, b"data"), ("s", "A", 8_000_001, 70_009, b"answer"),
    ]  # fmt: skip
    assert streams(assembled(packets, form, checks=checks)) == [("new data", "answer", ["flushed"])]


@FORMS
@CHECKS
@pytest.mark.parametrize("delivery", ["arrival", "acked"])
@pytest.mark.parametrize("lacks, isn", [(0, 900), *product((0, 1), (1006, 3 * 10**9))])
def test_where_only_one_side_is_seen_its_next_syn_comes_after_its_fin(
    lacks: int, isn: int, delivery: str, checks: str, form: str
) -> None:
    """Also while nothing was acknowledged, as far as is seen. The first may lack its SYN."""
    packets = [
        (flags, seq + number, ack, payload)
        for number in (1000, isn)
        for flags, seq, ack, payload in (("S", 0, 0, b""), ("A", 1, 5001, b"data"), ("FA", 5, 5001, b""))
    ]
    sent = [("c", flags, seq % 2**32, ack, payload) for flags, seq, ack, payload in packets[lacks:]]
    recorder = assembled(sent, form, checks=checks, delivery=delivery)
    assert [each.text(C2S) for each in recorder.connections] == ["data", "data"]


@CHECKS
def test_data_of_a_syn_that_came_again_without_them_is_of_the_connection_that_it_opens(checks: str) -> None:
    """The server has taken them, but its answer was lost (RFC 7413 4.1.3)."""
    again = [("c", "S", 9999, 0, b"question"), ("c", "S", 9999, 0, b""), ("s", "SA", 90_000, 10_008, b"")]
    rest = [("c", "A", 10_008, 90_001, b" and more"), ("s", "A", 90_001, 10_017, b"answer")]
    recorder = assembled([*exchange(99, 499, b"old", b"data"), *again, *rest], checks=checks)
    assert [recording.data(C2S) for recording in recorder.connections] == [b"old", b"question and more"]
    assert recorder.connections[1].data(S2C) == b"answer"


def test_a_syn_far_from_a_stream_without_one_is_not_told_as_behind_its_data() -> None:
    old = [("c", "A", 100, 500, b"old"), ("s", "A", 500, 103, b"data")]
    recorder = assembled([*old, ("c", "A", 103, 504, b""), *exchange(1 << 30, 1 << 29, b"new", b"one")])
    assert recorder.connections[0].kinds == {"midstream", "syn_in_established"}
    assert recorder.connections[1].data(C2S) == b"new"
