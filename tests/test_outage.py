"""A new connection on addresses in use whose handshake fell into a time in which nothing was captured."""

from __future__ import annotations

from typing import Any, List, Tuple

import pytest

from support.both_ways import SCALED, both, opened, packet
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Chunk, Segment, Timeouts

Packet = Tuple[float, str, str, int, int, bytes]  # seconds, sender, flags, seq, ack, payload
FORMS = pytest.mark.parametrize("form", ["frame", "segment"])
CHECKS = pytest.mark.parametrize("checks", ["lenient", "strict"])
ELSEWHERE = pytest.mark.parametrize(
    "client, server", [(-(10**9), -(10**9)), (-(10**9), 10**9), (2 * 10**9, -(10**8)), (-2_000_000, 2**31 - 2_000_000)]
)
OLD_CLIENT, OLD_SERVER = 2**32 - 1000, 3 * 10**9  # the numbers behind what the old connection has sent


def assembled(packets: List[Packet], form: str, on_chunk: Any = None, **options: Any) -> Recorder:
    recorder = Recorder(on_chunk)
    make: Any = tcp_frame if form == "frame" else Segment.make
    with Assembler(recorder, **options) as assembler:
        for time, sender, flags, seq, ack, payload in packets:
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            assembler.assemble(make(*ends, seq % 2**32, payload, flags, ack=ack % 2**32), 1000.0 + time)
            assembler.check()
    return recorder


def old(senders: str = "cs", fin: bool = False) -> List[Packet]:
    client, server = OLD_CLIENT - 400 - fin, OLD_SERVER - 600 - fin
    packets = [
        (0.0, "c", "S", client - 1, 0, b""), (0.1, "s", "SA", server - 1, client, b""),
        (0.2, "c", "A", client, server, b""), (0.3, "c", "A", client, server, b"a" * 400),
        (0.4, "s", "A", server, client + 400, b"b" * 600), (0.5, "c", "A", client + 400, server + 600, b""),
    ]  # fmt: skip
    if fin:
        packets += [
            (0.6, "c", "FA", client + 400, server + 600, b""), (0.7, "s", "FA", server + 600, client + 401, b""),
            (0.8, "c", "A", client + 401, server + 601, b""),
        ]  # fmt: skip
    return [packet for packet in packets if packet[1] in senders]


def new(client: int, server: int, first: str = "c", senders: str = "cs", start: float = 60.0) -> List[Packet]:
    """What follows the outage, its numbers so far from those of the old one; `first` sends a bare acknowledgement."""
    client, server = OLD_CLIENT + client, OLD_SERVER + server
    packets = [(start, "c", "A", client, server, b"")] if first == "ack" else []
    if first != "s":
        packets += [(start + 0.1, "c", "A", client, server, b"n" * 100)]
        client += 100
    packets += [
        (start + 0.2, "s", "A", server, client, b"m" * 100), (start + 0.3, "c", "A", client, server + 100, b"n" * 100),
        (start + 0.4, "s", "A", server + 100, client + 100, b"m" * 100),
        (start + 0.5, "c", "A", client + 100, server + 200, b"n" * 100),
    ]  # fmt: skip
    return [packet for packet in packets if packet[1] in senders]


def streams(recorder: Recorder) -> List[Tuple[int, int, int, List[str]]]:
    """Per connection: bytes of the client, of the server, gaps, and how it ended."""
    return [
        (len(each.text(C2S)), len(each.text(S2C)), len(each.gaps), each.completions) for each in recorder.connections
    ]


@FORMS
@CHECKS
@ELSEWHERE
@pytest.mark.parametrize("first", ["c", "s", "ack"])
def test_it_is_a_stream_of_its_own(first: str, client: int, server: int, checks: str, form: str) -> None:
    recorder = assembled(old() + new(client, server, first), form, checks=checks)
    sent = 200 if first == "s" else 300
    assert streams(recorder) == [(400, 600, 0, ["replaced"]), (sent, 200, 0, ["flushed"])]
    assert "tuple_reuse" in recorder.connections[1].kinds


@FORMS
@ELSEWHERE
@pytest.mark.parametrize("sender", "cs")
def test_it_is_also_where_one_side_is_captured(sender: str, client: int, server: int, form: str) -> None:
    recorder = assembled(old(sender) + new(client, server, senders=sender), form)
    both = (400, 600, 0, ["replaced"]), (300, 200, 0, ["flushed"])
    missing = 1 if sender == "c" else 0
    assert [list(each)[1 - missing] for each in streams(recorder)] == [list(each)[1 - missing] for each in both]
    assert [each.completions for each in recorder.connections] == [["replaced"], ["flushed"]]


@FORMS
@CHECKS
@pytest.mark.parametrize("client, server", [(10**9, 10**9), (-(10**9), 10**9), (-(10**9), -(10**9))])
def test_it_may_be_anywhere_where_the_old_one_is_over(client: int, server: int, checks: str, form: str) -> None:
    recorder = assembled(old(fin=True) + new(client, server, start=10.0), form, checks=checks)
    assert streams(recorder) == [(400, 600, 0, ["fin"]), (300, 200, 0, ["flushed"])]


@FORMS
def test_ahead_on_both_sides_it_is_the_old_one_after_an_outage(form: str) -> None:
    recorder = assembled(old() + new(10**6, 10**6), form)
    assert streams(recorder) == [(700 + len("[1000000 bytes missing]"), 800 + 23, 2, ["flushed"])]


STRAY = -(10**9)


@FORMS
@CHECKS
@pytest.mark.parametrize("strays", [
    new(STRAY, STRAY, senders="c", start=60.0)[:1],
    new(STRAY, STRAY, senders="c", start=60.0)[:1] * 2,  # the same twice
    new(STRAY, STRAY, senders="cs", start=0.6)[:2],  # the old one has not been silent
    new(STRAY, STRAY, senders="c", start=60.0)[:1] + new(STRAY // 2, STRAY, senders="c", start=60.2)[:1],
    new(STRAY, STRAY, "ack")[:1] + [(60.1, "s", "A", OLD_SERVER + STRAY, OLD_CLIENT + STRAY, b"")],
], ids=["one", "the same twice", "no silence", "two of different ones", "two without data"])  # fmt: skip
def test_strays_do_not_end_a_connection(strays: List[Packet], checks: str, form: str) -> None:
    more: List[Packet] = [
        (61.0, "c", "A", OLD_CLIENT, OLD_SERVER, b"a" * 100), (61.1, "s", "A", OLD_SERVER, OLD_CLIENT + 100, b"b" * 100)
    ]  # fmt: skip
    recorder = assembled(old() + strays + more, form, checks=checks)
    assert streams(recorder) == [(500, 700, 0, ["flushed"])]


@FORMS
@CHECKS
def test_a_single_byte_is_data(checks: str, form: str) -> None:
    packets = new(STRAY, STRAY, "ack")[:1] + [(60.1, "s", "A", OLD_SERVER + STRAY, OLD_CLIENT + STRAY, b"m")]
    assert streams(assembled(old() + packets, form, checks=checks))[1:] == [(0, 1, 0, ["flushed"])]


@FORMS
@CHECKS
def test_a_side_that_was_not_seen_has_no_number_to_be_elsewhere(checks: str, form: str) -> None:
    packets = old("c") + new(STRAY, STRAY, senders="s")
    recorder = assembled(packets, form, checks=checks)
    assert [each.completions for each in recorder.connections] == [["flushed"]]


@FORMS
def test_with_strict_checks_one_side_alone_ends_nothing(form: str) -> None:
    recorder = assembled(old() + new(STRAY, STRAY, senders="c"), form, checks="strict")
    assert streams(recorder) == [(400, 600, 0, ["flushed"])]
    assert "bad_ack" in recorder.connections[0].kinds


@FORMS
def test_a_stray_is_forgotten_when_the_old_one_goes_on(form: str) -> None:
    packets = new(STRAY, STRAY, senders="c")
    between: List[Packet] = [(60.2, "c", "A", OLD_CLIENT, OLD_SERVER, b"a" * 100)]
    assert streams(assembled(old() + packets[:1] + between + packets[1:], form)) == [(500, 600, 0, ["flushed"])]


@FORMS
def test_the_handler_that_ignored_the_old_one_is_not_asked(form: str) -> None:
    asked: List[Any] = []

    class Nobody(Recorder):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Any:
            asked.append(flow)

    make: Any = tcp_frame if form == "frame" else Segment.make
    with Assembler(Nobody()) as assembler:
        for time, sender, flags, seq, ack, payload in old() + new(STRAY, STRAY):
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            assembler.assemble(make(*ends, seq % 2**32, payload, flags, ack=ack % 2**32), 1000.0 + time)
    assert len(asked) == 1


@FORMS
@CHECKS
def test_where_the_old_one_is_over_one_with_data_comes_first(checks: str, form: str) -> None:
    """A bare segment on such addresses is the last acknowledgement of most connections; no look is taken at it."""
    client, server = OLD_CLIENT + STRAY, OLD_SERVER + STRAY
    packets = old(fin=True) + new(STRAY, STRAY, "ack", start=10.0)[:2]
    assert streams(assembled(packets, form, checks=checks)) == [(400, 600, 0, ["fin"])]
    packets.append((10.2, "s", "A", server, client + 100, b""))
    assert streams(assembled(packets, form, checks=checks)) == [(400, 600, 0, ["fin"]), (100, 0, 0, ["flushed"])]


@FORMS
def test_it_is_followed_where_the_handler_had_stopped_one_that_is_over(form: str) -> None:
    def stop(recording: Any, chunk: Chunk) -> None:
        if len(recording.owner.connections) == 1 and chunk.direction == C2S:
            chunk.stop()

    recorder = assembled(old(fin=True) + new(STRAY, STRAY, start=10.0), form, stop)
    assert streams(recorder) == [(400, 600, 0, ["fin"]), (300, 200, 0, ["flushed"])]


@FORMS
def test_it_is_as_old_as_its_last_packet(form: str) -> None:
    """Though the bare segment that came first is taken behind the data that came second."""
    packets = old() + new(STRAY, STRAY, "ack", start=30.0)[:1] + new(STRAY, STRAY, start=46.0)[:1]
    packets.append((62.0, "c", "A", OLD_CLIENT + STRAY + 100, OLD_SERVER + STRAY, b"n" * 100))
    recorder = assembled(packets, form, timeouts=Timeouts(idle=31))
    assert streams(recorder) == [(400, 600, 0, ["replaced"]), (200, 0, 0, ["flushed"])]


@pytest.mark.parametrize("ahead, ack", [(10**8, -(10**8)), (3 * 10**7, -(2 * 10**7))])
@pytest.mark.parametrize("again", [False, True])
def test_both_paths_take_no_more_for_on_its_way(again: bool, ahead: int, ack: int) -> None:
    """Where the scale of windows is not known, the largest is assumed, but for this."""
    packets = [packet("c", "A", 0, 0, 100), packet("s", "A", 0, 100, 100), packet("s", "A", 100, 100, 100)]
    packets += [packet("c", "A", 100, ack, 100)] * again + [packet("c", "A", 100 + ahead, ack + again, 100)]
    short, rules = both(packets, {}, 1.5)
    assert short == rules
    kinds = [anomaly.kind for anomaly in rules[2][3]]
    assert "bad_ack" in kinds


def test_both_paths_keep_the_same_of_one_that_is_over() -> None:
    """No windows, with which the segments of this one might have been on their way."""
    packets = opened(options=SCALED) + [packet("c", "FA", 0), packet("s", "FA", 0, 1), packet("c", "A", 1, 1)]
    packets += [packet("c", "A", -300_000, -300_000, 100), packet("s", "A", -300_000, -299_900, 100)]
    short, rules = both(packets, {}, 1.5)
    assert short == rules
    assert len(rules) == 5  # with two connections


def test_what_fits_into_a_window_of_known_scale_is_of_the_old_one() -> None:
    """However large, where an acknowledgement as old may be of it too: the server takes both."""
    recorder = Recorder()
    piece = b"b" * 60_000
    sizes = {"c": 0, "s": 0}
    with Assembler(recorder, checks="strict") as assembler:
        def send(sender: str, flags: str, start: int, ack: int, payload: bytes = b"") -> None:
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            options = b"\x01\x03\x03\x0e" if "S" in flags else b""
            segment = Segment.make(*ends, start, payload, flags, ack=ack, options=options)
            assembler.assemble(segment, 1000.0 + sizes["s"] // len(piece))

        send("c", "S", -1, 0)
        send("s", "SA", -1, 0)
        send("c", "A", 0, 0)
        while sizes["s"] < 20_000_000:
            send("s", "A", sizes["s"], 0, piece)
            sizes["s"] += len(piece)
            send("c", "A", 0, sizes["s"])
        sizes["s"] += 2 * len(piece)  # time passes
        send("c", "A", 17_000_000, 0, b"secret")
        while sizes["c"] < 17_000_000:
            send("c", "A", sizes["c"], sizes["s"] - 2 * len(piece), piece[: 17_000_000 - sizes["c"]])
            sizes["c"] += len(piece)
    assert recorder.only.data(C2S)[17_000_000:] == b"secret"


AHEAD = (60.0, "c", "A", OLD_CLIENT + 100_000, OLD_SERVER - 10**9, b"f" * 5000)  # acknowledges nothing old
GOES_ON = (90.0, "c", "A", OLD_CLIENT, OLD_SERVER, b"a" * 100)
OF_A_THIRD = (92.0, "c", "A", OLD_CLIENT + 10**9, STRAY, b"t" * 5000)


@FORMS
@pytest.mark.parametrize("others", [[], [GOES_ON], [OF_A_THIRD], [GOES_ON, OF_A_THIRD]])
def test_data_that_waited_for_nothing_counts_as_it_does_without_silence(others: List[Packet], form: str) -> None:
    """Behind its gap, in its place."""
    after = assembled([*old(), AHEAD, *others], form).only
    at_once = [(0.6, *AHEAD[1:]), *((0.7, *other[1:]) for other in others)]
    assert (after.text(C2S), after.completions) == (assembled([*old(), *at_once], form).only.text(C2S), ["flushed"])
    assert "f" * 5000 in after.text(C2S)


@FORMS
def test_with_strict_checks_it_never_counts(form: str) -> None:
    recorder = assembled([*old(), AHEAD, GOES_ON], form, checks="strict")
    assert streams(recorder) == [(500, 600, 0, ["flushed"])]


@FORMS
def test_a_stray_on_a_connection_that_is_over_is_late_data_and_no_more(form: str) -> None:
    recorder = assembled([*old(fin=True), AHEAD], form)
    assert (recorder.only.completions, recorder.kinds) == (["fin"], {"data_after_fin"})


@FORMS
@pytest.mark.parametrize("place", [100_000, -(10**9)])
@pytest.mark.parametrize("ack", [0, OLD_SERVER - 10**9])
def test_segments_that_were_made_without_an_acknowledgement_open_nothing(ack: int, place: int, form: str) -> None:
    """Two with 0 say no more than one."""
    packets = [(60.0 + n / 1000, "c", "A", OLD_CLIENT + place + 1000 * n, ack, b"x" * 1000) for n in range(6)]
    recorder = assembled(old() + packets, form)
    ends = [["flushed"]] if not ack else [["replaced"], ["flushed"]]
    assert [each.completions for each in recorder.connections] == ends
    assert len(recorder.connections[-1].data(C2S)) == (6000 if ack else 6400 if place > 0 else 400)
