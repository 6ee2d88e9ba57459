"""Strict checks: what is set aside until it is acknowledged, and what a hostile client makes of that."""

from __future__ import annotations

from typing import Any, List, Tuple

import pytest

from support.frames import CLIENT, SERVER, md5_option
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Segment

OPENED = [
    Segment.make(CLIENT, SERVER, 99, flags="S", window=10),
    Segment.make(SERVER, CLIENT, 499, flags="SA", ack=100, window=10),
    Segment.make(CLIENT, SERVER, 100, ack=500, window=10),
]


def client(start: int, data: bytes = b"", flags: str = "A", ack: int = 0, **fields: Any) -> Segment:
    return Segment.make(CLIENT, SERVER, 100 + start, data, flags=flags, ack=500 + ack, **fields)


def server(start: int, data: bytes = b"", flags: str = "A", ack: int = 0, **fields: Any) -> Segment:
    return Segment.make(SERVER, CLIENT, 500 + start, data, flags=flags, ack=100 + ack, **fields)


def text(*segments: Segment) -> str:
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for number, segment in enumerate([*OPENED, *segments]):
            assembler.assemble(segment, 1000.0 + number / 100)
            assembler.check()
    return recorder.only.text(C2S)


@pytest.mark.parametrize("decoy", [client(0, b"WRONG", ack=999, ttl=60), client(10, b"WRONG", ttl=60)])
@pytest.mark.parametrize("more", ["nothing", "low", "high"])
def test_what_was_refused_needs_its_acknowledgement_whatever_its_ttl(decoy: Segment, more: str) -> None:
    """Neither the end of the input nor another path lets it count, as they do for what came in order."""
    others: List[Segment] = {
        "nothing": [],
        "low": [client(5, b"56789", ttl=60), client(0, b"01234"), server(0, ack=10)],
        "high": [client(0, b"01", ttl=90), client(2, b"23456789"), server(0, ack=10)],
    }[more]
    assert text(decoy, *others) == ("0123456789" if others else "")


def test_decoys_do_not_keep_data_of_low_ttl_from_its_place() -> None:
    decoys = [client(500 + number, b"WRONG") for number in range(20)]
    low = [client(0, b"abc", ttl=60), server(0, ack=3), client(3, b"def", ttl=60), server(0, ack=6)]
    assert text(*decoys, *low) == "abcdef"


@pytest.mark.parametrize("start, data, flags", [(0, b"WRONG", "A"), (-1, b"?WRONG", "A"), (0, b"", "FA")])
def test_data_of_low_ttl_comes_before_what_was_refused(start: int, data: bytes, flags: str) -> None:
    decoy = client(start, data, flags, ack=999)
    low = [client(0, b"abcde", ttl=60), server(0, ack=5), client(5, b"fgh", ttl=60), server(0, ack=8)]
    assert text(decoy, *low) == "abcdefgh"


@pytest.mark.parametrize("overlap", ["linux-kernel", "first"])
def test_data_of_low_ttl_before_a_fin_that_waits_counts_once_both_are_acknowledged(overlap: str) -> None:
    low = [client(3, b"de", ttl=60), client(5, b"fgh", flags="FA"), server(0, ack=9)]
    recorder = Recorder()
    assembler = Assembler(recorder, checks="strict", overlap=overlap)
    for segment in [*OPENED, client(0, b"abc"), *low]:
        assembler.assemble(segment, 1000.0)
    assert recorder.only.data(C2S) == b"abcdefgh"
    assert recorder.only.ended == {C2S}


def test_what_the_stream_has_passed_makes_room_for_what_comes() -> None:
    """Sixteen refused segments at the place of data that waited behind a hole; then one that the tap has ahead."""
    window = server(0, window=1000)
    passed = [client(2 + number, b"W", ack=999) for number in range(16)]
    ahead = client(51, b"ccc", ack=300)
    packets = [window, client(1, b"b" * 50), *passed, client(0, b"a"), ahead, server(0, b"s" * 300, ack=54)]
    assert text(*packets) == "a" + "b" * 50 + "ccc"


def test_data_of_low_ttl_that_was_acknowledged_came_by_the_path_that_is_the_usual_one_now() -> None:
    """What follows by that path is delivered as it comes; the next lower one is in doubt again."""
    low = [client(0, b"abc", ttl=60), server(0, ack=3), client(3, b"def", ttl=60)]
    assert text(*low) == "abcdef"
    assert text(*low, client(6, b"WRONG", ttl=57), client(6, b"right"), server(0, ack=11)) == "abcdefright"


@pytest.mark.parametrize("flags, refused", [("A", False), ("R", True), ("RA", True), ("S", True)])
def test_a_number_ahead_says_what_its_sender_has_sent_unless_it_is_of_a_syn_or_rst(flags: str, refused: bool) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder, checks="strict")
    for segment in [*OPENED, client(8, flags=flags), server(0, ack=8)]:
        assembler.assemble(segment, 1000.0)
    assert ("bad_ack" in recorder.connections[0].kinds) is refused


@pytest.mark.parametrize("flags", ["A", "FA"])
def test_what_was_sent_ahead_of_the_syn_gives_way_with_its_fin(flags: str) -> None:
    """A listening port took neither."""
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for source, target, seq, data, letters, ack in (
            (CLIENT, SERVER, 1001, b"evil", flags, 77), (CLIENT, SERVER, 1000, b"", "S", 0),
            (SERVER, CLIENT, 499, b"", "SA", 1001), (CLIENT, SERVER, 1001, b"good", "A", 500),
            (CLIENT, SERVER, 1005, b"more", "A", 500), (SERVER, CLIENT, 500, b"", "A", 1009),
        ):  # fmt: skip
            assembler.assemble(Segment.make(source, target, seq, data, flags=letters, ack=ack), 1000.0)
    assert recorder.only.text() == "goodmore"
    assert recorder.kinds == {"midstream", "overlap_syn", "data_before_handshake", "overlap_conflict"}


def test_what_no_receiver_takes_is_not_taken_by_its_acknowledgement_either() -> None:
    signed = client(0, b"WRONG", options=md5_option())  # RFC 2385: no key was agreed on
    assert text(signed, server(0, ack=5), client(5, b"56789")) == "[5 bytes missing]56789"


@pytest.mark.parametrize("start, data, expected", [
    (0, b"ABCDEFGH", "ABCDEFGH"), (3, b"DEFGH", "[3 bytes missing]DEFGH"), (3, b"deFGH", "abcdeFGH"),
])  # fmt: skip
def test_other_bytes_anywhere_in_its_place_refute_what_waits(start: int, data: bytes, expected: str) -> None:
    assert text(client(0, b"abcde", ttl=60), client(start, data), server(0, ack=8)) == expected


@pytest.mark.parametrize("behind", [(1008, b"hij"), (1004, b"defg"), (1014, b"lmn")])
def test_data_behind_a_hole_does_not_vouch_for_what_came_ahead_of_the_syn(behind: Tuple[int, bytes]) -> None:
    """Unless it has all its bytes, those that the sender sends in order win."""
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for source, target, seq, data, flags, ack in (
            (CLIENT, SERVER, 1011, b"evil", "A", 77), (CLIENT, SERVER, 1000, b"", "S", 0),
            (SERVER, CLIENT, 499, b"", "SA", 1001), (CLIENT, SERVER, 1004, b"defg", "A", 500),
            (CLIENT, SERVER, *behind, "A", 500), (CLIENT, SERVER, 1001, b"abc", "A", 500),
            (CLIENT, SERVER, 1008, b"hij", "A", 500), (CLIENT, SERVER, 1011, b"good", "A", 500),
            (SERVER, CLIENT, 500, b"", "A", 1018),
        ):  # fmt: skip
            assembler.assemble(Segment.make(source, target, seq, data, flags=flags, ack=ack), 1000.0)
    assert b"evi" not in recorder.only.data() and "overlap_conflict" in recorder.kinds


EARLY = client(-1, b"ask", "S", -500)


@pytest.mark.parametrize("acked", [4, 0])
@pytest.mark.parametrize("again", [[], [server(-1, flags="SA")], [server(0)], [EARLY, server(0)]])
def test_the_client_decides_about_data_on_a_syn_ack(again: List[Segment], acked: int) -> None:
    """With Fast Open. What the server sends next says nothing of it, such as its SYN/ACK without the data."""
    segments = [EARLY, server(-1, b"fast", "SA", 3), *again, client(0, ack=acked), server(acked, b"more")]
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for number, segment in enumerate([*segments, client(0, ack=acked + 4)]):
            assembler.assemble(segment, 1000.0 + number / 100)
            assembler.check()
    assert recorder.only.data(S2C) == b"fast"[:acked] + b"more"
