"""What a signal's handler, or another thread, may do in the middle of a packet while `run` is at work."""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import pytest

from small_captures import capture, in_fragments
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Limits, Timeouts, open_capture, pages, shortpath
from tcpstitch.decode import fragments

PORTS = range(4000, 4005)
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


@pytest.mark.parametrize(
    "module, name", [(pages, "anonymous"), (shortpath, "sound"), (fragments, "_Datagram")],
    ids=["a slab is made", "a checksum is looked at", "fragments come"],
)  # fmt: skip
@pytest.mark.parametrize("in_place", [False, True])
def test_limits_set_in_the_middle_of_a_packet_hold_with_the_next(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, in_place: bool
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
    assembler.run(open_capture(capture(*packets)) if in_place else ((1.0, packet) for packet in packets))
    assembler.check()
    statistics = assembler.statistics()
    assert not changes and statistics.packets == len(packets)
    assert statistics.connections <= 2 and statistics.pages_used <= 3 and statistics.fragments <= 1
    assembler.flush_all()
    assert all(len(connection.completions) == 1 for connection in recorder.connections)
    assert all(set(connection.data()) == {ord("x")} for connection in recorder.connections[3:])


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
