"""What a signal's handler, or another thread while `run` is at work, may do in the middle of a packet."""

from __future__ import annotations

from threading import Thread
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from small_captures import capture, in_fragments
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import (
    Assembler,
    Limits,
    ReentrantCallError,
    Segment,
    Timeouts,
    open_capture,
    pages,
    reorder,
    shortpath,
    timers,
)
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


def in_another_thread(call: Callable[[], Any]) -> List[Any]:
    """What `call` gives there, or the exception that it raises."""
    results: List[Any] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    return results


def test_another_thread_is_refused_while_run_is_at_work() -> None:
    recorder, refusals = Recorder(), []
    assembler = Assembler(recorder)

    def packets() -> Iterator[Tuple[float, bytes]]:
        for frame in frames():
            yield 1.0, frame
            for call in (assembler.flush_all, assembler.top, assembler.explain, lambda: assembler.run([]),
                         lambda: assembler.flush_older_than(LATER, LATER)):  # fmt: skip
                refusals.extend(in_another_thread(call))
            assembler.flush_older_than(0.0)  # its own thread may, between two packets
            assembler.run([])

    assembler.run(packets())
    assert {type(refusal) for refusal in refusals} == {ReentrantCallError}
    assert [len(connection.data()) for connection in recorder.connections] == [4500] * len(PORTS)
    assert in_another_thread(assembler.flush_all)[0].closed == len(PORTS), "no run is at work any more"


def test_limits_that_another_thread_sets_between_two_packets_are_in_force_at_the_next() -> None:
    assembler, first = Assembler(Recorder()), list(frames())[:11]
    in_a_loop(assembler, first[:10])
    in_another_thread(lambda: setattr(assembler, "limits", SMALL))
    assert assembler.statistics().connections == 5, "the packet may come in this very moment"
    in_a_loop(assembler, first[10:])
    assert assembler.statistics().connections == 2


def test_limits_that_are_set_while_the_timers_run_are_in_force_at_the_next_packet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder, changes, original = Recorder(), [SMALL], timers.Timers._clock_allows

    def interrupted(self: Any, timestamp: float) -> bool:
        if changes and timestamp > 2:
            self.limits = changes.pop()
        return original(self, timestamp)

    monkeypatch.setattr(timers.Timers, "_clock_allows", interrupted)
    assembler = Assembler(recorder)
    in_a_loop(assembler, list(frames())[:10])
    for at in (3.0, 3.1):
        assembler.assemble(tcp_frame((CLIENT[0], 4000), SERVER, 100, b"x" * 40, ack=1000), at)
    assert assembler.statistics().connections == 2


def test_statistics_fit_together_where_packets_come_between_two_looks() -> None:
    assembler = Assembler(Recorder())
    waiting = iter(frames())

    class Goes:
        """A live capture. Asked for what it lost, in the middle of `statistics`, it has the owner go on."""

        @property
        def dropped(self) -> int:
            for frame in waiting:
                assembler.assemble(frame, 1.0)
            for number in range(40):
                stranger = (CLIENT[0], 5000 + number)
                assembler.assemble(Segment.make(stranger, SERVER, 99, flags="S"), 1.0)
                assembler.assemble(Segment.make(stranger, SERVER, 200, b"x" * 3000), 1.0)
                assembler.assemble(Segment.make(stranger, SERVER, 9000, flags="RA"), 1.0)
            assembler.limits = SMALL
            return 7

    assembler.watch_drops(Goes())
    statistics = assembler.statistics()
    assert statistics.dropped == 7 and assembler.statistics().gaps
    assert statistics.gaps == sum(statistics.gaps_by_reason.values())
    assert statistics.connections_completed == sum(statistics.completions_by_reason.values())
    assert statistics.evictions == statistics.evictions_by_kind.get("total_limit", 0)


def test_no_pages_are_free_by_less_than_none_while_a_slab_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal's handler finds them, and so the metrics."""
    assembler, original = Assembler(Recorder()), pages.PageCache._seat
    seen: List[Tuple[int, bool]] = []

    def interrupted(*given: Any) -> None:
        found = assembler.statistics()
        seen.append((found.pages_free, found.pages_used + found.pages_free == found.pages_allocated))
        original(*given)

    monkeypatch.setattr(pages.PageCache, "_seat", interrupted)
    in_a_loop(assembler, list(frames())[:25])
    assembler.limits = Limits(max_buffered_pages_total=20)
    assert len(seen) > 5 and min(seen) >= (0, True)
