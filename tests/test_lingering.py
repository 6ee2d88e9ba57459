"""What is over: kept small after an ordinary end, and all the same judged as if it were whole."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.frames import tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Limits, PacketDecoder, Timeouts

CLIENTS = [("10.0.0.1", port) for port in (1024, 1025, 1026, 1027)]
SERVER = ("10.0.0.2", 80)
UP, DOWN = b"a request", b"an answer that is longer"
ISN = (100, 2**32 - 3)


def packet(client: int, up: bool, flags: str, seq: int, ack: int, payload: bytes = b"", **other: Any) -> bytes:
    ends = (CLIENTS[client], SERVER) if up else (SERVER, CLIENTS[client])
    return tcp_frame(*ends, seq & 0xFFFFFFFF, payload, flags, ack & 0xFFFFFFFF if "A" in flags else 0, **other)


def whole(client: int) -> List[bytes]:
    """A connection without its last ACK."""
    up, down = ISN[0] + 1, ISN[1] + 1
    return [
        packet(client, True, "S", ISN[0], 0),
        packet(client, False, "SA", ISN[1], up),
        packet(client, True, "A", up, down),
        packet(client, True, "PA", up, down, UP),
        packet(client, False, "PA", down, up + len(UP), DOWN),
        packet(client, True, "FA", up + len(UP), down + len(DOWN)),
        packet(client, False, "FA", down + len(DOWN), up + len(UP) + 1),
    ]


def late(client: int, kind: str, up: bool) -> bytes:
    """A packet behind the end of that connection."""
    next_seq = [ISN[0] + len(UP) + 2, ISN[1] + len(DOWN) + 2]
    seq, ack = (next_seq[0], next_seq[1]) if up else (next_seq[1], next_seq[0])
    data = UP if up else DOWN
    made: Dict[str, Any] = {
        "ack": ("A", seq, ack),
        "old": ("PA", seq - 1 - len(data), ack, data),
        "probe": ("A", seq - 2, ack, b"x"),
        "more": ("PA", seq - 1, ack, b"more than there can be"),
        "far": ("PA", seq + 9999, ack, b"from nowhere"),
        "fin": ("FA", seq - 1, ack),
        "rst": ("R", seq, 0),
        "syn": ("S", seq + 70_000, 0),
        "same syn": ("S", ISN[0 if up else 1], 0),
        "synack": ("SA", seq + 70_000, ack),
    }
    flags, seq, ack, *payload = made[kind]
    return packet(client, up, flags, seq, ack, *payload)


def usual(frames: List[bytes], *more: Any) -> Recorder:
    recorder = Recorder()
    assembler = Assembler(recorder)
    for number, frame in enumerate((*frames, *more)):
        assembler.assemble(frame, 1.0 + number)
    recorder.assembler = assembler  # type: ignore[attr-defined]
    return recorder


KINDS = ["ack", "old", "probe", "more", "far", "fin", "rst", "syn", "same syn", "synack"]
clients = st.integers(0, len(CLIENTS) - 1)
events = st.lists(
    st.one_of(
        st.tuples(st.just("whole"), clients),
        st.tuples(st.just("late"), clients, st.sampled_from(KINDS), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 30.0, 61.0])),
        st.tuples(st.just("flush"), st.sampled_from([0.0, 1.0, 40.0])),
    ),
    max_size=12,
)


def heard(events: List[Any], as_segments: bool, options: Dict[str, Any]) -> List[Any]:
    """What handlers hear and the counters say, after each packet."""
    recorder, decoder, now, told = Recorder(), PacketDecoder(), 1.0, []
    assembler = Assembler(recorder, **options)
    for what, *details in events:
        if what == "wait":
            now += details[0]
        if what == "flush":
            told.append(assembler.flush_older_than(now - details[0], now - details[0]))
        frames = whole(*details) if what == "whole" else [late(*details)] if what == "late" else []
        for frame in frames:
            now += 0.001
            for given_as in decoder.decode(frame) if as_segments else (frame,):
                assembler.assemble(given_as, now)
            counts = assembler.statistics()
            told.append(counts._replace(memory_bytes=0, chunks=0))
            told.append(assembler.pressure())
    assembler.check()
    told.append(assembler.flush_all())
    told.append(assembler.statistics()._replace(chunks=0))
    for connection in recorder.connections:
        told.append((str(connection.flow), connection.text(), connection.anomalies, connection.completions))
    return told


@settings(max_examples=400, deadline=None)
@given(
    events,
    st.sampled_from(
        [
            {},
            {"limits": Limits(max_connections=2)},
            {"timeouts": Timeouts(closed=2.0)},
            {"timeouts": Timeouts(closed=None)},
        ]
    ),
)
def test_a_connection_that_is_kept_small_is_judged_as_a_whole_one(events: List[Any], options: Dict[str, Any]) -> None:
    """Frames take the steps that keep connections small, segments never do; both lead to the same."""
    assert heard(events, False, options) == heard(events, True, options)


def test_evidence_reaches_the_handler_of_a_connection_that_is_kept_small() -> None:
    recorder = usual(whole(0), late(0, "ack", True), late(0, "more", False), late(0, "old", True))
    assert [anomaly.kind for anomaly in recorder.only.anomalies] == ["data_after_fin", "retransmission"]
    assert recorder.only.completions == ["fin"]


def test_a_syn_opens_anew_on_the_addresses_of_one_that_is_kept_small() -> None:
    for up in (True, False):
        recorder = usual(whole(0), late(0, "syn", up))
        assert [anomaly.kind for anomaly in recorder.connections[-1].anomalies] == ["tuple_reuse"]
        assert len(recorder.connections) == 2


def repeated(kind: str) -> List[Tuple[float, bytes]]:
    return [(time, late(0, kind, False)) for time in (51.0, 102.0)]


@pytest.mark.parametrize("form", ["frame", "segment"])
@pytest.mark.parametrize("kind", ["old", "fin"])
def test_what_is_sent_again_makes_a_connection_linger_anew(kind: str, form: str) -> None:
    """A host that gets no answer doubles its timeout; what it repeats opens nothing (RFC 9293 3.10.7.4)."""
    recorder, decode = Recorder(), PacketDecoder().decode
    assembler = Assembler(recorder)
    for time, frame in [(0.0, frame) for frame in whole(0)] + repeated(kind):
        for each in [frame] if form == "frame" else decode(frame):
            assembler.assemble(each, time)
    assert len(recorder.connections) == assembler.statistics().connections_lingering == 1
    assembler.assemble(packet(1, True, "S", 1, 0), 170.0)
    assert assembler.statistics().connections_lingering == 0


def test_more_than_was_sent_does_not_make_a_connection_linger_anew() -> None:
    """Forged FINs would hide for ever what goes on behind them."""
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for time, frame in [(0.0, frame) for frame in whole(0)] + repeated("more"):
            assembler.assemble(frame, time)
    assert [connection.completions for connection in recorder.connections] == [["fin"], ["flushed"]]
