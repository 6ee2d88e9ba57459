"""Strict checks at the edges of the receiver's window, where honest hosts live once it is small (RFC 9293 3.10.7.4)."""

from __future__ import annotations

from typing import Any, List

import pytest

from support.frames import CLIENT, SERVER
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Segment


def client(start: int, data: bytes = b"", flags: str = "A", ack: int = 0, **fields: Any) -> Segment:
    return Segment.make(CLIENT, SERVER, 100 + start, data, flags=flags, ack=500 + ack, **fields)


def server(start: int, data: bytes = b"", flags: str = "A", ack: int = 0, **fields: Any) -> Segment:
    return Segment.make(SERVER, CLIENT, 500 + start, data, flags=flags, ack=100 + ack, **fields)


def opened(window: int = 10) -> List[Segment]:
    """Windows of both sides."""
    syn = Segment.make(CLIENT, SERVER, 99, flags="S", window=window)
    answer = Segment.make(SERVER, CLIENT, 499, flags="SA", ack=100, window=window)
    return [syn, answer, client(0, window=window)]


def seen(*segments: Segment, checks: str = "strict") -> Recorder:
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    for number, segment in enumerate(segments):
        assembler.assemble(segment, 1000.0 + number / 100)
        assembler.check()
    return recorder


def test_an_acknowledgement_whose_sender_has_filled_the_window_counts() -> None:
    """The tap has not got the ten bytes before it."""
    recorder = seen(*opened(), client(0, b"question", window=10), server(10, ack=8), client(8, b"more", ack=10))
    assert recorder.only.data(C2S) == b"questionmore"
    assert recorder.kinds == set()


def test_an_acknowledgement_beyond_the_window_does_not() -> None:
    recorder = seen(*opened(), client(0, b"question", window=10), server(11, ack=99))
    assert recorder.kinds == {"out_of_window"}


def test_what_there_was_room_for_counts_though_a_later_packet_shows_the_window_closed() -> None:
    """Two acknowledgements came in the other order, as no window is taken back (RFC 9293 3.8.6)."""
    segments = [client(0, b"abc"), server(0, ack=3, window=10), server(0, ack=3, window=0), client(3, b"defg")]
    recorder = seen(*opened(), *segments)
    assert recorder.only.data(C2S) == b"abcdefg"
    assert recorder.kinds == set()


def test_what_lies_behind_the_closed_window_does_not() -> None:
    full = [client(0, b"0123456789"), server(0, ack=10, window=0)]
    recorder = seen(*opened(), *full, client(10, b"behind"), server(0, ack=10, window=9), client(10, b"inside"))
    assert recorder.only.data(C2S) == b"0123456789inside"
    assert recorder.kinds == {"out_of_window"}


def test_a_syn_with_another_number_leaves_the_edge_where_it_is() -> None:
    """The server ignores it, and acknowledges what it has: RFC 9293 3.10.7.4, in SYN-RECEIVED."""
    other = Segment.make(CLIENT, SERVER, 99 - 50, flags="S", window=10)
    begun = [*opened()[:2], other, server(0, window=10), client(0, window=10)]
    hostile = [client(20, b"WRONG"), client(0, b"0123456789"), server(0, ack=10, window=30)]
    recorder = seen(*begun, *hostile, client(10, b"abcdefghijklmnopqrst"), server(0, ack=30, window=30))
    assert recorder.only.data(C2S) == b"0123456789abcdefghijklmnopqrst"
    assert recorder.kinds == {"syn_isn_change", "out_of_window"}


@pytest.mark.parametrize("flags", ["A", "FA"])
@pytest.mark.parametrize("decoy", [b"9", b"9XY", b"89X"])
def test_what_comes_with_old_data_needs_room_too(decoy: bytes, flags: str) -> None:
    """Hosts cut off what a closed window has no room for, and a FIN behind it (RFC 9293 3.10.7.4)."""
    full = [client(0, b"0123456789"), server(0, ack=10, window=0)]
    hostile = client(8 if decoy[:1] == b"8" else 9, decoy, flags)
    recorder = seen(*opened(), *full, hostile, server(0, ack=10, window=9), client(10, b"inside"), server(0, ack=16))
    assert recorder.only.data(C2S) == b"0123456789inside"
    assert not recorder.only.ended


def test_a_fin_behind_a_full_window_counts_once_it_is_acknowledged() -> None:
    """The tap shows it ahead of the data that fills the window."""
    segments = [
        client(10, flags="FA"), client(0, b"0123456789"), server(0, ack=11), server(0, b"answer", flags="FA", ack=11),
        client(11, ack=7),
    ]  # fmt: skip
    recorder = seen(*opened(), *segments)
    assert recorder.only.data(C2S) == b"0123456789"
    assert recorder.only.data(S2C) == b"answer"
    assert recorder.only.completions == ["fin"]


def test_a_fin_that_comes_with_old_data_counts_once_it_is_acknowledged() -> None:
    """The tap has the update of the window behind it."""
    full = [client(0, b"0123456789"), server(0, ack=10, window=0)]
    recorder = seen(*opened(), *full, client(5, b"56789", flags="FA"), server(0, b"answer", ack=11, window=9))
    assert recorder.only.ended == {C2S}
    assert recorder.only.data(S2C) == b"answer"


@pytest.mark.parametrize("acknowledged", [True, False])
def test_segments_that_the_window_seems_too_small_for_count_once_they_are_acknowledged(acknowledged: bool) -> None:
    """The tap has the update of the window behind them."""
    full = [client(0, b"0123456789"), server(0, ack=10, window=0)]
    late = [client(10, b"one"), client(13, b"two"), client(16, b"three"), server(0, ack=10, window=20)]
    recorder = seen(*opened(), *full, *late, *([server(0, ack=21, window=9)] if acknowledged else []))
    assert recorder.only.data(C2S) == b"0123456789" + (b"onetwothree" if acknowledged else b"")


def test_the_acknowledgement_of_more_than_can_be_set_aside_locks_nobody_out() -> None:
    """What has no place to wait in is a gap, and both sides go on."""
    full = [client(0, b"0123456789"), server(0, ack=10, window=0)]
    late = [client(10 + 2 * number, b"ab") for number in range(30)]
    rest = [server(0, b"yes", ack=70, window=900), client(70, b"end", ack=3), server(3, ack=73)]
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for number, segment in enumerate([*opened(), *full, *late, *rest]):
            assembler.assemble(segment, 1000.0 + number / 100)
    assert recorder.only.text(C2S) == "0123456789" + 16 * "ab" + "[28 bytes missing]end"
    assert recorder.only.data(S2C) == b"yes"


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_byte_that_is_acknowledged_was_no_probe_of_the_window_that_closed_behind_it(checks: str) -> None:
    """The tap had it behind the acknowledgement, and that filled the window."""
    full = [client(0, b"0123456789"), server(0, ack=10, window=0), server(0, ack=10, window=4)]
    recorder = seen(*opened(), *full, client(11, b"bcd"), server(0, ack=14, window=0), client(10, b"a"), checks=checks)
    assert recorder.only.data(C2S) == b"0123456789abcd"
    assert recorder.kinds == set()


@pytest.mark.parametrize("again, whole", [
    ([client(10, b"abcd")], b"abcdefgh"),
    ([client(10, b"abc"), client(13, b"def")], b"abcdefgh"),
    ([client(10, b"abXd")], b"abXd"),
    ([client(10, b"abc"), client(13, b"deX")], b"abcdeX"),
])  # fmt: skip
def test_what_is_sent_again_in_other_pieces_does_not_refute_the_first_copy(again: List[Segment], whole: bytes) -> None:
    """The tap had it ahead of the window that it was sent into. Other bytes in its place refute it."""
    full = [client(0, b"0123456789"), server(0, ack=10, window=0)]
    segments = [client(12, b"cdefgh"), server(0, ack=10, window=6), *again, server(0, ack=18, window=10)]
    recorder = seen(*opened(), *full, *segments)
    assert recorder.only.data(C2S) == b"0123456789" + whole


def to_the_end(segments: List[Segment]) -> Recorder:
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for number, segment in enumerate(segments):
            assembler.assemble(segment, 1000.0 + number / 5)
            assembler.check()
    return recorder


def outage(*more: Segment) -> Recorder:
    """A connection that lost far more than a window of the client's to the capture at offset 4, then these."""
    return to_the_end([*opened(60), client(0, b"seen"), server(0, ack=4, window=60), *more])


FAR = 2**30 + 5_000_000  # more than any window


def test_a_direction_of_which_more_than_a_window_was_lost_is_followed_once_both_sides_say_so() -> None:
    recorder = outage(
        client(FAR, b"first"), client(FAR + 5, b"next"), server(0, ack=FAR + 9, window=60), client(FAR + 9, b"last"),
        server(0, b"answer", ack=FAR + 13, window=60),
    )  # fmt: skip
    assert recorder.only.text(C2S) == f"seen[{FAR - 4} bytes missing]firstnextlast"
    assert recorder.only.data(S2C) == b"answer"
    assert recorder.kinds == {"out_of_window", "gap"}


@pytest.mark.parametrize("far", [
    [client(FAR, b"far")],  # its sender alone
    [server(0, ack=FAR + 3, window=60)],  # its receiver alone
    [server(0, ack=FAR + 3, window=60), client(FAR, b"far")],
    [client(FAR, b"far"), server(0, ack=FAR + 4, window=60)],  # of more than it sent
])  # fmt: skip
def test_one_side_alone_moves_nothing_beyond_a_window(far: List[Segment]) -> None:
    recorder = outage(*far, client(4, b" on"), server(0, ack=7, window=60))
    assert recorder.only.data(C2S) == b"seen on"


@pytest.mark.parametrize("start", [0, 2**31 - 7])
def test_an_acknowledgement_of_what_was_never_sent_opens_no_window(start: int) -> None:
    """It may be forged, and so may what would then lie in the queue until the stream comes there."""
    recorder = outage(server(start, ack=FAR, window=60000), *[client(FAR + 1000 * i, bytes(1000)) for i in range(9)])
    assert recorder.only.text(C2S) == "seen"


def test_a_side_claims_what_it_sent_by_a_bare_acknowledgement_too() -> None:
    """All of a request was lost to the capture, so each side refuses the other's numbers at first."""
    both = [server(0, b"answer", ack=FAR), client(FAR, ack=6), server(6, b"more", ack=FAR), client(FAR, ack=10)]
    recorder = outage(*both)
    assert recorder.only.data(S2C) == b"answermore"
    assert recorder.only.data(C2S) == b"seen"


@pytest.mark.parametrize("sizes", [[1], [5], [1, 1], [3, 4]])
@pytest.mark.parametrize("flags", ["", "A", "FA"])
def test_where_the_capture_lacks_a_syn_data_counts_once_it_is_acknowledged(sizes: List[int], flags: str) -> None:
    pieces = [server(sum(sizes[:number]), b"answers"[:size]) for number, size in enumerate(sizes)]
    last = [server(sum(sizes), flags=flags)] if flags else []
    recorder = to_the_end([opened()[0], *pieces, *last, client(0, ack=sum(sizes) + (flags == "FA"))])
    assert recorder.only.data(S2C) == b"".join(b"answers"[:size] for size in sizes)


def test_where_the_capture_lacks_a_syn_what_is_not_acknowledged_counts_nowhere() -> None:
    segments = [opened()[0], server(3, b"decoy"), client(0, ack=3), server(3, b"right"), client(0, ack=8)]
    recorder = to_the_end(segments)
    assert recorder.only.data(S2C) == b"right"


def test_both_directions_are_followed_where_much_of_both_was_lost() -> None:
    more = [client(FAR, b"a", ack=FAR), server(FAR, b"b", ack=FAR + 1, window=60), client(FAR + 1, b"c", ack=FAR + 1)]
    more += [server(FAR + 1, b"d", ack=FAR + 2, window=60), client(FAR + 2, b"e", ack=FAR + 2)]
    recorder = outage(*more, server(FAR + 2, ack=FAR + 3, window=60))
    assert recorder.only.text(C2S) == f"seen[{FAR - 4} bytes missing]ace"
    assert recorder.only.text(S2C) == f"[{FAR} bytes missing]bd"


BEYOND = client(4, b"456789XY")  # of a window of ten bytes


@pytest.mark.parametrize("early", [True, False], ids=["behind a hole", "in order"])
@pytest.mark.parametrize("taken", [0, 6, 8])
def test_of_what_reaches_beyond_the_window_counts_what_is_acknowledged(taken: int, early: bool) -> None:
    """Linux 6.18 takes all of it if its application has read everything, else nothing; others a part."""
    first = client(0, b"0123")
    rest = [server(0, ack=4 + taken, window=10), client(4 + taken, b"more"), server(0, ack=8 + taken, window=10)]
    recorder = seen(*opened(), *([BEYOND, first] if early else [first, server(0, ack=4, window=6), BEYOND]), *rest)
    assert recorder.only.data(C2S) == b"0123" + b"456789XY"[:taken] + b"more"
    assert recorder.kinds == {"out_of_window"}


def test_other_bytes_take_the_place_of_what_reached_beyond_the_window() -> None:
    """Linux 6.18 has dropped the first of the two."""
    again = [client(4, b"abcdef"), server(0, ack=10, window=10), client(10, b"ghi"), server(0, ack=13, window=10)]
    recorder = seen(*opened(), client(0, b"0123"), server(0, ack=4, window=6), BEYOND, *again)
    assert recorder.only.data(C2S) == b"0123abcdefghi"


def test_a_fin_beyond_the_window_counts_with_its_data() -> None:
    """Linux takes both; what was sent at the number of the FIN is none of the stream."""
    segments = [client(5, b"56789ABC", "FA"), client(0, b"01234"), server(0, b"yes", ack=14, window=10)]
    recorder = seen(*opened(), *segments, client(12, b"?!", ack=3))
    assert recorder.only.data(C2S) == b"0123456789ABC"
    assert recorder.only.ended == {C2S}
    assert recorder.only.data(S2C) == b"yes"
