"""What a signal's handler, or another thread while `run` is at work, may do in the middle of a packet."""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import pytest

from small_captures import capture, in_fragments
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Limits, ReentrantCallError, Timeouts, open_capture, pages, reorder, shortpath
from tcpstitch.decode import fragments

PORTS = range(4000, 4005)
LATER = 4e9
SMALL = Limits(max_buffered_pages_total=3, max_buffered_pages_per_connection=3, max_connections=2, max_fragments=1)


def frames() -> Iterator[bytes]:
    """Of five connections: a handshake, two short segments each, a long one behind a hole, one in fragments, and what
    fills the hole."""
    sizes = {99: 0, 100: 40, 140: 10, 1600: 1500, 3100: 1500, 150: 1450}
    for at, size in sizes.items():
        for client in ((CLIENT[0], port) for port in PORTS):
            frame = tcp_frame(client, SERVER, at, b"x" * size, "A" if size else "S", ack=1000 if size else 0)
            yield from in_fragments(frame, client[1]) if at == 3100 else [frame]
            if not size:
                yield tcp_frame(SERVER, client, 999, b"", "SA", ack=100)


def in_place(assembler: Assembler, packets: List[bytes]) -> None:
    assembler.run(open_capture(capture(*packets)))


def one_by_one(assembler: Assembler, packets: List[bytes]) -> None:
    assembler.run((1.0, packet) for packet in packets)


def in_a_loop(assembler: Assembler, packets: List[bytes]) -> None:
    for packet in packets:
        assembler.assemble(packet, 1.0)


@pytest.mark.parametrize(
    "module, name", [(pages, "anonymous"), (shortpath, "sound"), (fragments, "_Datagram")],
    ids=["a slab is made", "a checksum is looked at", "fragments come"],
)  # fmt: skip
@pytest.mark.parametrize("take", [in_place, one_by_one, in_a_loop])
def test_limits_set_in_the_middle_of_a_packet_hold_with_the_next(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, take: Any
) -> None:
    recorder = Recorder()
    assembler, original, packets = Assembler(recorder), getattr(module, name), list(frames())
    changes = [SMALL]

    def interrupted(*given: Any) -> Any:
        if changes and (name != "sound" or assembler.statistics().packets == 3 * len(PORTS)):
            assembler.timeouts = Timeouts(gap=1, fragment=1)
            assembler.limits = changes.pop()
        return original(*given)

    monkeypatch.setattr(module, name, interrupted)
    take(assembler, packets)
    assembler.check()
    statistics = assembler.statistics()
    assert not changes and statistics.packets == len(packets)
    assert statistics.connections <= 2 and statistics.pages_used <= 3 and statistics.fragments <= 1
    assembler.flush_all()
    assert all(len(connection.completions) == 1 for connection in recorder.connections)
    assert all(set(connection.data()) == {ord("x")} for connection in recorder.connections[3:])


@pytest.mark.parametrize("flush", [Assembler.flush_all, lambda assembler: assembler.flush_older_than(LATER, LATER)])
@pytest.mark.parametrize("take", [in_place, one_by_one, in_a_loop])
def test_a_flush_in_the_middle_of_a_packet_is_refused(monkeypatch: pytest.MonkeyPatch, take: Any, flush: Any) -> None:
    recorder, other, refusals = Recorder(), Assembler(Recorder()), []
    assembler, original = Assembler(recorder), shortpath.sound

    def interrupted(*given: Any) -> Any:
        flush(other)  # which is not at work
        with pytest.raises(ReentrantCallError, match="in a signal's handler set a flag") as refusal:
            flush(assembler)
        refusals.append(refusal)
        return original(*given)

    monkeypatch.setattr(shortpath, "sound", interrupted)
    take(assembler, list(frames()))
    assembler.check()
    flush(assembler)
    assert len(refusals) >= len(PORTS) and all(connection.completions for connection in recorder.connections)
    assert [len(connection.data()) for connection in recorder.connections] == [4500] * len(PORTS)


@pytest.mark.parametrize("interrupt, comes_out", [(KeyboardInterrupt, KeyboardInterrupt), (None, IndexError)])
def test_an_interrupt_that_left_a_queue_half_changed_is_what_leaves_the_block(
    monkeypatch: pytest.MonkeyPatch, interrupt: Any, comes_out: Any
) -> None:
    def half_changed(*given: Any, **options: Any) -> None:
        raise IndexError

    monkeypatch.setattr(reorder.ReorderQueue, "pop", half_changed)
    with pytest.raises(comes_out), Assembler(Recorder()) as assembler:
        in_a_loop(assembler, [tcp_frame(CLIENT, SERVER, 99, flags="S"), tcp_frame(CLIENT, SERVER, 105, b"late")])
        if interrupt:
            raise interrupt


class Thrifty(Assembler):
    """Flushes with each packet, in an `assemble` of its own."""

    __slots__ = ()

    def assemble(self, packet: Any, timestamp: float, *rest: Any) -> None:
        super().assemble(packet, timestamp, *rest)
        self.flush_older_than(timestamp, timestamp)


def test_a_flush_between_packets_is_none_in_the_middle_of_one() -> None:
    recorder = Recorder()
    assembler = Thrifty(recorder)
    for number, packet in enumerate(frames()):
        assembler.assemble(packet, 1.0 + number)
    assert [len(connection.completions) for connection in recorder.connections[:5]] == [1, 1, 1, 1, 1]


def test_limits_that_are_set_in_a_run_are_in_force_at_its_next_packet() -> None:
    seen: List[Tuple[int, int]] = []
    assembler = Assembler(Recorder())

    def packets() -> Iterator[Tuple[float, bytes]]:
        for number, frame in enumerate(frames()):
            yield 1.0, frame
            if number == 9:
                assembler.limits = SMALL
            seen.append((number, assembler.statistics().connections))

    assembler.run(packets())
    assert seen[9:11] == [(9, 5), (10, 2)]
    assembler.limits = Limits(max_connections=1)
    assert assembler.statistics().connections == 1, "no run is at work any more"
