"""Traffic and handlers that once took the assembler out of step, each as small as it gets."""

from __future__ import annotations

import sys
from typing import Any, List

import pytest

from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import C2S, Recorder, Recording
from tcpstitch import Assembler, Chunk, Gap, Limits, Stream, StreamFactory

ISN, PEER_ISN = 99, 499


def opened(factory: Any, **options: Any) -> Assembler:
    """An assembler with one open connection."""
    assembler = Assembler(factory, **options)
    assembler.assemble(tcp_frame(CLIENT, SERVER, ISN, flags="S"), 1.0)
    assembler.assemble(tcp_frame(SERVER, CLIENT, PEER_ISN, flags="SA", ack=ISN + 1), 1.0)
    assembler.assemble(tcp_frame(CLIENT, SERVER, ISN + 1, ack=PEER_ISN + 1), 1.0)
    return assembler


def send(assembler: Assembler, offset: int, payload: bytes = b"", flags: str = "A", **fields: Any) -> None:
    """A segment of the client, `offset` bytes into its stream."""
    assembler.assemble(tcp_frame(CLIENT, SERVER, ISN + 1 + offset, payload, flags, ack=PEER_ISN + 1, **fields), 1.1)


def wait(assembler: Assembler, offset: int, count: int = 4, length: int = 200) -> None:
    """Segments that wait one after the other behind a hole."""
    for number in range(count):
        send(assembler, offset + number * length, b"w" * length)


def test_data_behind_a_doubtful_fin_does_not_keep_the_end_from_coming() -> None:
    """A FIN that may have died on its way holds while what lies before it awaits its ACK: flushing comes to an end."""
    recorder = Recorder()
    assembler = opened(recorder, checks="strict", delivery="acked")
    send(assembler, 0, b"a" * 100)
    send(assembler, 100, flags="FA", ttl=2)
    send(assembler, 150, b"b" * 100)
    assembler.flush_all()
    assert recorder.only.data(C2S) == b"a" * 100
    assert len(recorder.only.completions) == 1
    assert assembler.statistics().pages_used == 0


def test_limits_that_shrink_leave_no_connection_waiting_for_what_is_gone() -> None:
    """After its waiting data was given up for smaller limits, a connection takes the next segment ahead as usual."""
    recorder = Recorder()
    assembler = opened(recorder, limits=Limits(20, 20, page_size=256))
    wait(assembler, 200)
    assembler.limits = Limits(2, 20, page_size=256)
    send(assembler, 3000, b"x" * 200)
    assembler.check()
    assembler.flush_all()
    assert recorder.only.text() == f"[200 bytes missing]{'w' * 800}[2000 bytes missing]{'x' * 200}"


@pytest.mark.parametrize("how", ["stop", "stop_connection"])
def test_a_chunk_kept_from_an_earlier_call_still_stops_its_direction(how: str) -> None:
    """`Chunk.stop` outside of the call that brought the chunk drops what waits, and nothing is delivered after it."""
    saved: List[Chunk] = []
    recorder = Recorder(lambda _, chunk: saved.append(chunk))
    assembler = opened(recorder)
    send(assembler, 0, b"first")
    wait(assembler, 200)
    getattr(saved[0], how)()
    send(assembler, 3000, b"x" * 200)
    send(assembler, 5, b"y" * 195)
    assembler.check()
    assert assembler.statistics().pages_used == 0
    assembler.flush_all()
    assert recorder.only.data(C2S) == b"first"


def test_a_chunk_of_a_forgotten_connection_may_still_be_stopped() -> None:
    saved: List[Chunk] = []
    assembler = opened(Recorder(lambda _, chunk: saved.append(chunk)))
    send(assembler, 0, b"first")
    assembler.flush_all()
    saved[0].stop_connection()
    assert saved[0].data == b"first"


class StopsAtGap(Recording):
    """Has enough as soon as bytes are missing."""

    def gap(self, gap: Gap) -> None:
        super().gap(gap)
        self.chunks[0].stop()


class Factory(StreamFactory):
    def __init__(self, kind: Any) -> None:
        self.recorder = Recorder()
        self.kind = kind

    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        stream: Stream = self.kind(self.recorder, flow, timestamp)
        self.recorder.connections.append(stream)
        return stream


def test_a_handler_that_stops_at_the_gap_of_a_limit_gets_nothing_more() -> None:
    """The segment that met the limit is not buffered after all, and the connection ends in finite time."""
    factory = Factory(StopsAtGap)
    assembler = opened(factory, limits=Limits(4, 100, page_size=256))
    send(assembler, 0, b"first")
    wait(assembler, 200, 3)
    send(assembler, 2000, b"x" * 600)
    assert assembler.statistics().pages_used == 0
    send(assembler, 5000, b"y" * 10)
    send(assembler, 9000, flags="RA")
    assembler.flush_all()
    assert factory.recorder.only.data(C2S) == b"first"
    assert len(factory.recorder.only.completions) == 1


def test_a_history_allowed_and_forbidden_between_two_packets_is_let_go() -> None:
    """Limits set by a handler twice before they come into force: no conflict is found with bytes that must be gone."""
    bounds = [64, 0]

    def change(_: Any, chunk: Chunk) -> None:
        if bounds:
            assembler.limits = Limits(max_history_bytes_per_connection=bounds.pop(0))

    recorder = Recorder(change)
    assembler = opened(recorder)
    send(assembler, 5, b"late " * 20)
    send(assembler, 0, b"first")  # delivers twice in one call
    assert not bounds
    assembler.limits = Limits(max_history_bytes_per_connection=0)
    send(assembler, 50, b"other" * 10)
    assert "overlap_conflict" not in recorder.kinds


class Quiet(Stream, StreamFactory):
    """Stops at once and remembers nothing."""

    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return self

    def reassembled(self, chunk: Chunk) -> None:
        chunk.stop()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="tracemalloc is CPython's")
@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_urgent_segments_of_a_stopped_direction_leave_nothing_behind(checks: str) -> None:
    """Nobody comes to their urgent bytes, so nothing is remembered of them, however many they are."""
    import tracemalloc

    assembler = opened(Quiet(), checks=checks, urgent="oob")
    frames = [
        tcp_frame(CLIENT, SERVER, ISN + 1 + 100 * n, b"u" * 100, "AU", ack=PEER_ISN + 1, urgent_pointer=50)
        for n in range(4000)
    ]
    for frame in frames[:1000]:
        assembler.assemble(frame, 1.1)
    tracemalloc.start()
    try:
        for frame in frames[1000:]:
            assembler.assemble(frame, 1.1)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 16 << 10


class Interrupted(Recording):
    """The user presses Ctrl-C while a chunk that was waiting, or the end, is being handled."""

    where = "reassembled"

    def reassembled(self, chunk: Chunk) -> None:
        super().reassembled(chunk)
        if self.where == "reassembled":
            raise KeyboardInterrupt

    def complete(self, reason: str) -> None:
        super().complete(reason)
        if self.where == "complete":
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["reassembled", "complete"])
def test_an_interrupt_while_a_connection_is_evicted_leaves_the_assembler_whole(where: str) -> None:
    """The interrupt reaches the caller; the stream completes once, its pages are free, the next packets are taken."""
    factory = Factory(Interrupted)
    assembler = opened(factory, limits=Limits(max_connections=1))
    factory.recorder.connections[0].where = where  # type: ignore[attr-defined]
    wait(assembler, 200)
    stranger = tcp_frame(("10.0.0.9", 1), SERVER, 7, flags="S")
    with pytest.raises(KeyboardInterrupt):
        assembler.assemble(stranger, 2.0)
    assembler.check()
    assert assembler.statistics().pages_used == 0
    assembler.assemble(stranger, 2.1)
    assembler.flush_all()
    assert [len(connection.completions) for connection in factory.recorder.connections] == [1, 1]


def test_a_gap_is_given_up_at_the_time_of_the_syn_that_needed_the_room() -> None:
    recorder = Recorder()
    assembler = opened(recorder, limits=Limits(max_connections=1))
    wait(assembler, 200)
    assembler.assemble(tcp_frame(("10.0.0.9", 1), SERVER, 7, flags="S"), 1.3)
    assert [gap.timestamp for gap in recorder.connections[0].gaps] == [1.3]


def test_an_acknowledgement_far_behind_one_of_unseen_bytes_is_evidence_in_frames_too() -> None:
    """The last ACK was of bytes that were not seen: one that lies far below it is not taken for an old one."""
    recorder = Recorder()
    assembler = opened(recorder)
    for number, ack in enumerate((PEER_ISN + 1001, PEER_ISN + 1 - (1 << 30))):
        frame = tcp_frame(CLIENT, SERVER, ISN + 1 + 100 * number, b"d" * 100, ack=ack & 0xFFFFFFFF)
        assembler.assemble(frame, 1.2)
    assert [anomaly.kind for anomaly in recorder.only.anomalies] == ["bad_ack"]


class Nobody(StreamFactory):
    def new(self, flow: Any, segment: Any, timestamp: float) -> None:
        return None


def test_every_packet_of_a_connection_that_nobody_wants_is_counted_as_ignored() -> None:
    """The SYN too, whichever path it takes."""
    assert opened(Nobody()).statistics().ignored == 3


@pytest.mark.parametrize(
    "options", [{}, {"delivery": "acked"}, {"limits": Limits(max_history_bytes_per_connection=99)}]
)
def test_a_decoy_that_was_discarded_can_not_be_acknowledged(options: Any) -> None:
    """Data that nobody would have accepted lends no credit to a later acknowledgement, whatever else is remembered."""
    recorder = Recorder()
    assembler = opened(recorder, **options)
    send(assembler, 0, b"a" * 100)
    send(assembler, 300_000, b"d" * 100)
    assembler.flush_older_than(2.0)
    assembler.assemble(tcp_frame(SERVER, CLIENT, PEER_ISN + 1, ack=ISN + 1 + 300_100), 2.0)
    assert [anomaly.kind for anomaly in recorder.only.anomalies] == ["out_of_window", "bad_ack"]
    assert recorder.only.gaps == []


@pytest.mark.parametrize("way", ["end", "another", "flush"])
def test_a_fin_beyond_the_window_of_what_was_held_ends_nothing_but_itself(way: str) -> None:
    """It was taken while the start was held. Nobody would have accepted it, and there is no data that goes with it."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    send(assembler, 0, b"a" * 100)
    send(assembler, 1_900_000_000, flags="FA")
    if way == "another":
        assembler.assemble(tcp_frame(SERVER, CLIENT, PEER_ISN, flags="S"), 1.2)
    if way == "end":
        assembler.assemble(tcp_frame(CLIENT, SERVER, ISN + 1 + 100, b"b" * 100, flags="A"), 200.0)
    assembler.flush_all()
    assert recorder.connections[0].text() == "a" * 100
    assert [len(connection.completions) for connection in recorder.connections] == [1] * (1 + (way != "flush"))
    assert recorder.connections[0].gaps == []
