"""Insertion and evasion: what an endpoint would have read (tests/data/evasions.json).

evasions_measured.json holds relatives of those cases; what `strict` must give there was read from a socket of Linux
6.18 (`make test-root` does so again), except where TTL or the order of arrival would hide it from that kernel.

A packet is `[sender, flags, seq, ack, payload, more]`; seq and ack count from the sender's initial number (SYN = 0).
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

import pytest

from support.data import load
from support.frames import (
    CLIENT,
    CLIENT6,
    SERVER,
    SERVER6,
    Address,
    fast_open_option,
    md5_option,
    tcp_frame,
    timestamps_option,
)
from support.recorder import C2S, S2C, Recorder, Recording
from tcpstitch import Assembler, Direction, Gap, Limits, Segment, Timeouts

CASES = {**load("evasions.json"), **load("evasions_measured.json")}
MODES = ("strict", "lenient")
CLIENT_ISN, SERVER_ISN = 10_000_000, 50_000_000
# The published outcome of this one is that of the policies of Linux and BSD; `first` has the queued bytes stay.
POLICIES = {"inorder_over_queued": "linux"}


class Outcome(NamedTuple):
    recorder: Recorder
    closed: bool
    before_flush: List[Tuple[int, int]]  # per connection, the number of events in each direction


def options_of(more: Dict[str, Any]) -> bytes:
    options = b""
    if "ts" in more:
        options += timestamps_option(*more["ts"])
    if more.get("md5"):
        options += md5_option()
    if more.get("tfo"):
        options += fast_open_option()
    return options


def frames_of(case: Dict[str, Any], client: Address = CLIENT, server: Address = SERVER) -> List[bytes]:
    initial = {"c": case.get("client_isn", CLIENT_ISN), "s": SERVER_ISN}
    frames = []
    for sender, flags, seq, ack, payload, *rest in case["packets"]:
        more = rest[0] if rest else {}
        source, destination, peer = (client, server, "s") if sender == "c" else (server, client, "c")
        frames.append(
            tcp_frame(
                source,
                destination,
                initial[sender] + seq,
                payload.encode("latin-1"),
                flags,
                ack=0 if ack is None else initial[peer] + ack,
                window=more.get("win", 65535),
                options=options_of(more),
                ttl=more.get("ttl", 64),
                urgent_pointer=more.get("urg", 0),
                doff=more.get("doff"),
                bad_checksum=more.get("bad_checksum", False),
            )  # fmt: skip
        )
    return frames


def outcome(name: str, mode: str, client: Address = CLIENT, server: Address = SERVER, **changes: Any) -> Outcome:
    """What becomes of the packets of a case, with `changes` to its fields."""
    recorder = Recorder()
    # Conflicts with delivered bytes can be seen only where those are kept for a while.
    limits = Limits(max_history_bytes_per_connection=65536)
    assembler = Assembler(recorder, limits=limits, overlap=POLICIES.get(name, "first"), checks=mode)
    for index, frame in enumerate(frames_of({**CASES[name], **changes}, client, server)):
        assembler.assemble(frame, 1000.0 + index / 1000)
    last = recorder.connections[-1] if recorder.connections else None
    closed = last is not None and (bool(last.completions) or C2S in last.ended)
    before = [(len(connection.events[C2S]), len(connection.events[S2C])) for connection in recorder.connections]
    assembler.flush_all()
    return Outcome(recorder, closed, before)


def acknowledged(name: str, direction: Direction) -> int:
    """The offset up to which the receiver confirmed this direction."""
    receiver = "s" if direction == C2S else "c"
    acks = [packet[3] for packet in CASES[name]["packets"] if packet[0] == receiver and packet[3] is not None]
    return max([0] + [ack - 1 for ack in acks])


def text_of(connection: Recording, direction: Direction, mode: str, flushed_from: int, acked: int) -> str:
    """What was delivered. In strict mode, what only the flush brings behind a hole that the receiver never confirmed
    does not count: the endpoint would not have read it."""
    parts = []
    for index, event in enumerate(connection.events[direction]):
        if isinstance(event, Gap):
            if mode == "strict" and index >= flushed_from and event.offset + event.length > acked:
                break
            parts.append(f"[{event.length} byte{'' if event.length == 1 else 's'} missing]")
        else:
            parts.append(str(event, "latin-1"))
    return "".join(parts)


def texts(name: str, mode: str, run: Outcome, direction: Direction) -> List[str]:
    acked = acknowledged(name, direction)
    return [
        text_of(connection, direction, mode, before[direction], acked)
        for connection, before in zip(run.recorder.connections, run.before_flush)
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_the_bytes_and_the_end_are_those_of_the_endpoint(name: str, mode: str) -> None:
    expected = CASES[name].get(mode) or CASES[name]["either"]
    run = outcome(name, mode)
    for key, direction in (("c2s", C2S), ("s2c", S2C)):
        if key in expected:
            wanted = expected[key] if isinstance(expected[key], list) else [expected[key]]
            assert texts(name, mode, run, direction) == wanted
    assert run.closed == expected["closed"], "closed before the flush"
    assert all(len(connection.completions) == 1 for connection in run.recorder.connections)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]["flags"]])
def test_the_evidence_is_raised(name: str, mode: str) -> None:
    raised = outcome(name, mode).recorder.kinds
    assert set(CASES[name]["flags"]) <= raised, f"raised: {sorted(raised)}"


@pytest.mark.parametrize("name", CASES)
def test_ipv6_behaves_as_ipv4(name: str) -> None:
    for mode in MODES:
        old, new = outcome(name, mode), outcome(name, mode, CLIENT6, SERVER6)
        for direction in (C2S, S2C):
            assert texts(name, mode, old, direction) == texts(name, mode, new, direction)
        assert old.closed == new.closed
        assert old.recorder.kinds == new.recorder.kinds


@pytest.mark.parametrize("client_isn", [0, 1, 2**31 - 3, 2**32 - 11, 2**32 - 5, 2**32 - 2, 2**32 - 1])
def test_where_the_sequence_numbers_start_changes_nothing(client_isn: int) -> None:
    for name in CASES:
        for mode in MODES:
            before, after = outcome(name, mode), outcome(name, mode, client_isn=client_isn)
            for direction in (C2S, S2C):
                assert texts(name, mode, after, direction) == texts(name, mode, before, direction), name
            assert (after.closed, after.recorder.kinds) == (before.closed, before.recorder.kinds), name


HANDSHAKE = [["c", "S", 0, None, ""], ["s", "SA", 0, 1, ""], ["c", "A", 1, 1, ""]]
# What a SYN and an ACK of its number mean depends on the side; a server's old timestamp is not as old as the client's.
ONE_SIDED = {
    "tuple_reuse_after_close", "tuple_reuse_without_close", "reuse_after_rst", "syn_data_established",
    "syn_data_pa_established", "data_with_syn_ack_flags", "synack_from_client_established",
    "synack_from_client_established_same", "synack_again_established", "data_ack_old_small",
    "synack_within_data_established", "synack_again_data_waits", "server_data_acks_syn_number",
}  # fmt: skip
MIRRORED = [name for name, case in CASES.items() if case["packets"][:3] == HANDSHAKE and name not in ONE_SIDED]


@pytest.mark.parametrize("name", MIRRORED)
def test_a_server_that_evades_gets_as_far_as_a_client(name: str) -> None:
    sent = CASES[name]["packets"]
    swapped = [["s" if sender == "c" else "c", *rest] for sender, *rest in sent[3:]]
    for mode in MODES:
        before, mirrored = outcome(name, mode), outcome(name, mode, packets=sent[:3] + swapped)
        assert mirrored.recorder.only.text(S2C) == before.recorder.only.text(C2S)
        assert mirrored.recorder.only.text(C2S) == before.recorder.only.text(S2C)
        assert mirrored.recorder.kinds == before.recorder.kinds


@pytest.mark.parametrize("name", ["rst_bad_checksum", "keepalive_garbage", "seq_wrap", "half_close"])
def test_a_keepalive_or_a_plain_retransmission_is_no_conflict(name: str) -> None:
    for mode in MODES:
        assert "overlap_conflict" not in outcome(name, mode).recorder.kinds


def answered(*segments: Segment) -> Recorder:
    """What strict checks make of these, behind a handshake: the client's stream starts at 100, the server's at 500."""
    recorder = Recorder()
    opening = (
        Segment.make(CLIENT, SERVER, 99, flags="S"),
        Segment.make(SERVER, CLIENT, 499, flags="SA", ack=100),
        Segment.make(CLIENT, SERVER, 100, ack=500),
    )
    with Assembler(recorder, checks="strict") as assembler:
        for number, segment in enumerate((*opening, *segments)):
            assembler.assemble(segment, 1000.0 + number / 1000)
            assembler.check()
    return recorder


@pytest.mark.parametrize("waiting", [False, True], ids=["nothing waits", "data waits behind a hole"])
def test_a_decoy_that_was_refuted_lets_nobody_acknowledge_its_bytes(waiting: bool) -> None:
    """It died on the way, as its TTL said; the client drops an answer that acknowledges what it never sent."""
    behind = [Segment.make(CLIENT, SERVER, 300, b"more", ack=500)] if waiting else []
    recorder = answered(
        *behind,
        Segment.make(CLIENT, SERVER, 100, b"decoy" * 1000, ack=500, ttl=5),
        Segment.make(CLIENT, SERVER, 100, b"GET /\r\n", ack=500),
        Segment.make(SERVER, CLIENT, 500, b"forged", ack=4000),
        Segment.make(SERVER, CLIENT, 500, b"answer", ack=107),
    )
    assert recorder.only.data(S2C) == b"answer"
    assert [anomaly.kind for anomaly in recorder.only.anomalies] == ["low_ttl", "bad_ack"]


@pytest.mark.parametrize("acked, window", [(103, 0), (104, 0), (104, 500)])
def test_a_byte_into_a_closed_window_counts_if_the_receiver_acknowledges_it(acked: int, window: int) -> None:
    """RFC 9293 3.8.6.1: it may take the probe, or not; where it never acknowledges it, the end does not deliver it."""
    probe = Segment.make(CLIENT, SERVER, 103, b"X", ack=500)
    shut = Segment.make(SERVER, CLIENT, 500, ack=103, window=0)
    start = (Segment.make(CLIENT, SERVER, 100, b"abc", ack=500), shut, probe, shut, probe)
    taken = b"abcX" if acked == 104 else b"abc"
    answer = Segment.make(SERVER, CLIENT, 500, ack=acked, window=window)
    assert answered(*start, answer).only.data() == taken
    opened = Segment.make(SERVER, CLIENT, 500, ack=acked, window=900)
    more = Segment.make(CLIENT, SERVER, acked, b"de", ack=500)
    recorder = answered(*start, answer, opened, more, Segment.make(SERVER, CLIENT, 500, ack=acked + 2))
    assert recorder.only.data() == taken + b"de"
    assert recorder.kinds == {"zero_window_probe"}


def test_a_last_segment_with_a_low_ttl_counts_once_it_is_acknowledged_with_its_fin() -> None:
    recorder = answered(
        Segment.make(CLIENT, SERVER, 100, b"all of it", flags="FA", ack=500, ttl=50),
        Segment.make(SERVER, CLIENT, 500, b"answer", flags="FA", ack=110),
        Segment.make(CLIENT, SERVER, 110, ack=507, ttl=50),
    )
    assert (recorder.only.data(C2S), recorder.only.data(S2C)) == (b"all of it", b"answer")
    assert recorder.only.completions == ["fin"]
    assert recorder.kinds == {"low_ttl"}


@pytest.mark.parametrize("acked, ends", [(105, True), (104, False)])
def test_a_fin_with_a_low_ttl_ends_its_direction_once_the_receiver_has_it(acked: int, ends: bool) -> None:
    recorder = answered(
        Segment.make(CLIENT, SERVER, 100, b"data", ack=500),
        Segment.make(CLIENT, SERVER, 104, flags="FA", ack=500, ttl=50),
        Segment.make(SERVER, CLIENT, 500, b"answer", ack=acked),
        Segment.make(SERVER, CLIENT, 506, flags="FA", ack=acked),
        Segment.make(CLIENT, SERVER, 104 + ends, b"" if ends else b"more", ack=507),
    )
    assert recorder.only.data(C2S) == (b"data" if ends else b"datamore")
    assert recorder.only.completions[:1] == (["fin"] if ends else ["flushed"])


def test_a_fin_with_a_low_ttl_that_nobody_refuted_counts_at_the_end_of_input() -> None:
    recorder = answered(
        Segment.make(CLIENT, SERVER, 100, b"data", ack=500),
        Segment.make(CLIENT, SERVER, 104, flags="FA", ack=500, ttl=50),
        Segment.make(SERVER, CLIENT, 500, b"answer", ack=104),
    )
    assert recorder.only.ended == {C2S}


def test_a_decoy_that_is_repeated_is_no_new_path() -> None:
    """Another segment with a low TTL is one (the route has changed); the same again may be the same attempt."""
    decoy = Segment.make(CLIENT, SERVER, 100, b"bad", ack=500, ttl=5)
    recorder = answered(decoy, decoy, Segment.make(CLIENT, SERVER, 100, b"abc", ack=500))
    assert recorder.only.data() == b"abc"
    other = Segment.make(CLIENT, SERVER, 103, b"def", ack=500, ttl=5)
    assert answered(decoy, other).only.data() == b"baddef"


def test_a_reset_with_a_low_ttl_is_refuted_by_what_follows_and_confirmed_by_silence() -> None:
    start = [Segment.make(CLIENT, SERVER, 100, b"abc", ack=500), Segment.make(CLIENT, SERVER, 103, flags="R", ttl=5)]
    assert answered(*start).only.completions == ["rst"]
    recorder = answered(*start, Segment.make(CLIENT, SERVER, 103, b"def", ack=500))
    assert (recorder.only.data(), recorder.only.completions) == (b"abcdef", ["flushed"])


ANSWER = Segment.make(SERVER, CLIENT, 499, flags="SA", ack=100)
BELIEVED = {
    "acknowledged": [ANSWER, Segment.make(SERVER, CLIENT, 500, ack=103)],
    "acknowledged by the answer": [Segment.make(SERVER, CLIENT, 499, flags="SA", ack=103)],
    "the same again": [ANSWER, Segment.make(CLIENT, SERVER, 100, b"abc", ack=500)],
    "one side, and more": [Segment.make(CLIENT, SERVER, 103, b"", ack=500), Segment.make(CLIENT, SERVER, 103, b"d")],
    "one side, and a FIN": [Segment.make(CLIENT, SERVER, 103, flags="FA", ack=500)],
}
IN_DOUBT = {
    "more that nobody acknowledges": [ANSWER, Segment.make(CLIENT, SERVER, 103, b"def", ack=500)],
    "an ACK of the handshake": [ANSWER, Segment.make(CLIENT, SERVER, 100, ack=500)],
}


def overtaken(segments: List[Segment], until: float = 0) -> Recorder:
    """What strict checks make of data that came ahead of its SYN, and these behind it, up to a time; not flushed."""
    recorder = Recorder()
    assembler = Assembler(recorder, checks="strict", timeouts=Timeouts(gap=5))
    early = Segment.make(CLIENT, SERVER, 100, b"abc", ack=500)
    for number, segment in enumerate((early, Segment.make(CLIENT, SERVER, 99, flags="S"), *segments)):
        assembler.assemble(segment, 1000.0 + number / 1000)
        assembler.check()
    if until:
        assembler.assemble(Segment.make((CLIENT[0], 7), SERVER, 1, flags="S"), until)
    return recorder


@pytest.mark.parametrize("why", BELIEVED)
def test_data_that_overtook_its_syn_counts_once_something_tells_that_it_was_sent(why: str) -> None:
    assert overtaken(BELIEVED[why]).only.data()[:3] == b"abc"


@pytest.mark.parametrize("why", IN_DOUBT)
def test_data_that_overtook_its_syn_waits_where_nothing_tells(why: str) -> None:
    """A hole's time is its time."""
    assert overtaken(IN_DOUBT[why]).only.data() == b""
    assert overtaken(IN_DOUBT[why], until=1010.0).connections[0].data()[:3] == b"abc"


def test_data_that_overtook_its_syn_is_compared_at_its_place_once_the_server_chose_another_number() -> None:
    """Of two SYNs it takes the one whose checksum was made wrong on the way to the capture."""
    recorder = Recorder()
    packets = [
        tcp_frame(CLIENT, SERVER, 95, flags="S", bad_checksum=True),
        tcp_frame(CLIENT, SERVER, 100, b"abc", ack=500),
        tcp_frame(CLIENT, SERVER, 99, flags="S"),
        tcp_frame(SERVER, CLIENT, 499, flags="SA", ack=96),
        tcp_frame(CLIENT, SERVER, 96, b"1234567", ack=500),
    ]
    assembler = Assembler(recorder, checks="strict")
    for number, packet in enumerate(packets):
        assembler.assemble(packet, 1000.0 + number / 1000)
    assert recorder.only.data() == b"1234567"
    assert "overlap_conflict" in recorder.kinds


def test_a_hole_before_data_that_overtook_its_syn_is_not_taken_for_acknowledged() -> None:
    recorder = Recorder()
    segments = [
        Segment.make(CLIENT, SERVER, 104, b"efg", ack=500),
        Segment.make(CLIENT, SERVER, 99, flags="S"),
        Segment.make(SERVER, CLIENT, 499, flags="SA", ack=100),
        Segment.make(CLIENT, SERVER, 107, b"hij", ack=500),
        Segment.make(CLIENT, SERVER, 110, b"kl", ack=500),
        Segment.make(CLIENT, SERVER, 100, b"abcd", ack=500),
    ]
    assembler = Assembler(recorder, timeouts=Timeouts(acknowledged=0.1))
    for number, segment in enumerate(segments):
        assembler.assemble(segment, 1000.0 + number / 5)
    assert recorder.only.data() == b"abcdefghijkl"


def test_a_fin_of_low_ttl_is_over_where_its_sender_goes_on_even_by_a_byte() -> None:
    """The receiver's number is the same for the byte as for the FIN."""
    recorder = answered(
        Segment.make(CLIENT, SERVER, 100, b"abc", ack=500),
        Segment.make(SERVER, CLIENT, 500, ack=103),
        Segment.make(CLIENT, SERVER, 103, flags="FA", ack=500, ttl=5),
        Segment.make(CLIENT, SERVER, 103, b"d", ack=500),
        Segment.make(SERVER, CLIENT, 500, ack=104),
        Segment.make(CLIENT, SERVER, 104, b"ef", ack=500),
        Segment.make(SERVER, CLIENT, 500, ack=106),
    )
    assert recorder.only.data() == b"abcdef"
