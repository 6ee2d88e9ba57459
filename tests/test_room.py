"""What was held and has become less takes less: no array keeps its room, and nothing leads to what is over."""

from __future__ import annotations

import gc
import struct
import sys
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import pytest

from support.holding import feed, piece, syn
from tcpstitch import Assembler, Flow, Limits, PacketDecoder, Segment, Stream, StreamFactory
from tcpstitch.limits import CONNECTION_BYTES
from tcpstitch.state import StreamState

tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from frames import ACK, FIN, SYN, numbered  # noqa: E402

CLIENT, SERVER = ("10.0.0.1", 4000), ("10.0.0.2", 80)


class Silent(Stream):
    __slots__ = ()


class Factory(StreamFactory):
    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return Silent()


class Heap:
    """The bytes that were taken since this was made, and not given back."""

    def __init__(self) -> None:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]

    def grown(self) -> int:
        gc.collect()
        return int(tracemalloc.get_traced_memory()[0]) - self._before


@pytest.fixture(autouse=True)
def _no_trace_remains() -> Iterator[None]:
    yield
    tracemalloc.stop()


def sent(direction: int, offset: int, data: bytes = b"", flags: str = "A", port: int = 4000, cut: int = 0) -> Segment:
    """A segment; of `cut` bytes more only the length is here."""
    ends = [(CLIENT[0], port), SERVER]
    segment = Segment.make(ends[direction], ends[1 - direction], 1000 + offset, data, flags=flags, ack=1000)
    segment.length += cut
    return segment


def opened(assembler: Assembler, port: int = 4000) -> None:
    for direction, offset, flags in ((0, -1, "S"), (1, -1, "SA"), (0, 0, "A")):
        assembler.assemble(sent(direction, offset, flags=flags, port=port), 1.0)


def test_owners_that_became_few_take_the_room_of_few() -> None:
    """Of a page of single bytes each segment takes three owners' bytes, over and over, until one owns the page."""
    heaps: List[Tuple[int, int]] = []
    for _ in range(2):  # the first loads modules
        assembler = Assembler(Factory(), limits=Limits(200, 200), overlap="linux")
        opened(assembler)
        for number in range(4):  # of a page each; later ones share
            assembler.assemble(sent(0, 10 + 100 * number, b"x"), 1.0)
        heap = Heap()
        for place in range(2048, 4096):
            assembler.assemble(sent(0, place, b"x"), 1.0)
        most = heap.grown()
        size = 3
        while size < 3 * 2048:
            for place in range(2048, 4096, size):
                assembler.assemble(sent(0, place, b"x" * min(size, 4096 - place)), 1.0)
            size *= 3
        heaps.append((most, heap.grown()))
        tracemalloc.stop()
        assert assembler.statistics().pages_used == 5
    many, few = heaps[1]
    assert many > 2048 * 40
    assert few < 4000


def test_owners_that_go_from_the_end_bit_by_bit_give_their_room_back() -> None:
    """As before FINs, each at a lower offset than the one before."""
    assembler = Assembler(Factory(), limits=Limits(200, 200), overlap="linux")
    opened(assembler)
    for number in range(4):
        assembler.assemble(sent(0, 10 + 100 * number, b"x"), 1.0)
    heap = Heap()
    for place in range(320, 2320):
        assembler.assemble(sent(0, place, b"x"), 1.0)
    assert heap.grown() > 2000 * 40
    (queue,) = [half.queue for half in assembler._halves.values() if half.queue]
    for place in range(2318, 320, -2):
        queue.discard_from(place)
    assert heap.grown() < 4000


def test_connections_that_were_next_to_be_evicted_go_with_their_end_all_the_same() -> None:
    """And do not wait for the limit to be reached again, which may never be."""
    assembler = Assembler(Factory(), limits=Limits(max_connections=400))
    for port in range(4000, 4401):
        opened(assembler, port)
    assert assembler.statistics().evictions_by_kind == {"connection_idle": 1}
    for port in range(4001, 4400):
        assembler.assemble(sent(0, 0, flags="R", port=port), 2.0)
    for hour in range(1, 4):
        assembler.assemble(sent(0, 0, flags="A", port=4400), 3600.0 * hour)
    assert assembler.statistics().connections == 1
    gc.collect()
    assert sum(type(thing) is StreamState and thing.host is assembler for thing in gc.get_objects()) == 1


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
def test_cut_ranges_go_with_the_pages_that_allowed_them(delivery: str) -> None:
    heaps: List[int] = []
    for _ in range(2):
        assembler = Assembler(Factory(), limits=Limits(120, 200), delivery=delivery)
        heap = Heap()
        for port in range(4000, 4008):
            opened(assembler, port)
            for place in range(100):
                assembler.assemble(sent(0, 2048 * place + 1, b"x" * 2048, port=port), 1.0)
            for direction in (0, 1):
                for place in range(220):
                    assembler.assemble(sent(direction, 5_000_000 + 20 * place, port=port, cut=10), 1.0)
            assembler.assemble(sent(0, 0, b"x", port=port), 1.0)
            assembler.assemble(
                Segment.make(SERVER, (CLIENT[0], port), 1000, b"", ack=1000 + 100 * 2048 + 1), 1.0
            )
            assert assembler.statistics().pages_used == 0
        heaps.append(heap.grown())
        tracemalloc.stop()
    assert heaps[1] < 8 * 2608


def test_a_segment_in_doubt_keeps_no_history_of_a_connection_that_is_over() -> None:
    heaps: List[int] = []
    for _ in range(2):
        assembler = Assembler(Factory(), limits=Limits(max_connections=5, max_history_bytes_per_connection=50_000))
        heap = Heap()
        for number in range(100):
            connection = numbered(number)
            for frame in [*connection.handshake(), *(connection.segment(0, bytes(25_000)) for _ in range(2))]:
                assembler.assemble(frame, 1.0)
            doubtful = bytearray(connection.segment(0, b"zz"))
            doubtful[-1] ^= 1
            assembler.assemble(bytes(doubtful), 1.0)
        heaps.append(heap.grown())
        tracemalloc.stop()
    assert heaps[1] < 5 * 55_000 + 100 * 2608


def tunnelled(frame: bytes, number: int, depth: int = 7) -> bytes:
    """In so many GRE tunnels between IPv6 hosts, no two of which are the same."""
    packet = frame[14:]
    for level in range(depth):
        ends = b"".join(struct.pack("!IIII", net, number, level, 7) for net in (0x20010001, 0x20010002))
        body = struct.pack("!HHI", 0x2000, 0x86DD if level else 0x0800, number << 12 | level) + packet
        packet = struct.pack("!IHBB", 6 << 28, len(body), 47, 64) + ends + body
    return frame[:12] + b"\x86\xdd" + packet


def refused_openings(number: int) -> List[bytes]:
    """A SYN/ACK on its own, a SYN with a wrong checksum, one that is a FIN too; each with all options that fit."""
    options = b"\x08\x0a" + bytes(8) + bytes(30)
    connections = [numbered(3 * number + kind) for kind in range(3)]
    wrong = bytearray(connections[1].segment(0, flags=SYN, options=options))
    wrong[50] ^= 1
    return [
        connections[0].segment(1, flags=SYN | ACK, options=options),
        bytes(wrong),
        connections[2].segment(0, flags=SYN | FIN, options=options),
    ]


def after(frames: List[bytes], limits: Limits, flow_key: str) -> Tuple[Assembler, int, int]:
    """An assembler of these frames, what its heap has grown by, once all code has run before, and its own estimate."""
    for _ in range(2):
        assembler = Assembler(Factory(), limits=limits, flow_key=flow_key)
        heap = Heap()
        for frame in frames:
            assembler.assemble(frame, 1.0)
        held = heap.grown()
        tracemalloc.stop()
    return assembler, held, assembler.statistics().memory_bytes


@pytest.mark.parametrize("flow_key", ["plain", "tunnel"])
@pytest.mark.parametrize("limits", [Limits(), Limits.from_memory("1MiB")])
def test_what_opens_no_connection_is_counted_and_has_a_bound(limits: Limits, flow_key: str) -> None:
    frames = [frame for number in range(400) for frame in refused_openings(number)]
    if flow_key == "tunnel":
        frames = [tunnelled(frame, number) for number, frame in enumerate(frames)]
    assembler, held, estimate = after(frames, limits, flow_key)
    assert assembler.statistics().connections_opened == 0
    assert 0 < held <= estimate <= limits.opening_bytes
    smaller = Limits(10, 20, max_connections=10, max_fragment_bytes=1 << 17)
    assembler.limits = smaller
    assert 0 < assembler.statistics().memory_bytes <= smaller.opening_bytes
    assembler.flush_all()
    assert assembler.statistics().memory_bytes == 0


def test_segments_in_doubt_are_counted() -> None:
    limits = Limits(10, 20, max_connections=200, max_fragment_bytes=1 << 17)
    assembler = Assembler(Factory(), limits=limits)
    for port in range(4000, 4100):
        opened(assembler, port)
        assembler.assemble(sent(0, 0, b"x", port=port), 1.0)
    heap = Heap()
    before = assembler.statistics().memory_bytes
    most = 0
    for port in range(4000, 4100):
        assembler.assemble(sent(0, 100_000, flags="S", port=port), 2.0)  # may be a new connection on these ports
        most = max(most, assembler.statistics().memory_bytes - before)
    assert heap.grown() > 3000
    assert 0 < most <= limits.held_bytes
    for port in range(4000, 4100):
        opened(assembler, port + 100)
        assert assembler.statistics().memory_bytes <= limits.memory_bound
    assembler.flush_all()
    assert assembler.statistics().memory_bytes == 0


def test_long_paths_of_tunnels_in_keys_stay_inside_the_bound_on_connections() -> None:
    limits = Limits(10, 20, max_connections=300, max_fragments=1, max_fragment_bytes=1 << 17)
    frames = [tunnelled(numbered(number).segment(0, flags=SYN), number) for number in range(1000)]
    assembler, held, estimate = after(frames, limits, "tunnel")
    assert assembler.statistics().connections < 300
    assert held <= estimate < 301 * CONNECTION_BYTES
    assembler.flush_all()
    assert assembler.statistics().memory_bytes == 0
    for frame in frames[:100]:
        assembler.assemble(frame, 1.0)
    assert assembler.statistics().connections == 100
    assembler.limits = Limits(max_connections=20)
    for frame in frames:  # room for the path is made before it is taken
        assembler.assemble(frame, 1.0)
        assert assembler.statistics().pressure <= 1.0


def test_long_paths_of_tunnels_count_among_the_bytes_of_fragments() -> None:
    heaps: List[Tuple[int, int]] = []
    for _ in range(2):
        decoder = PacketDecoder(flow_key="tunnel")
        inner = bytes(14) + struct.pack("!BBHHHBBH", 0x45, 0, 28, 7, 0x2001, 64, 6, 0) + bytes(16)
        frames = [tunnelled(inner, number) for number in range(300)]
        heap = Heap()
        for frame in frames:
            decoder.decode(frame, 1.0)
        assert decoder.fragments_held == 300
        heaps.append((heap.grown(), decoder.fragment_bytes))
        tracemalloc.stop()
    held, counted = heaps[1]
    assert held <= counted


def test_urgent_places_that_wait_for_an_acknowledgement_take_few_bytes_each() -> None:
    heaps: List[int] = []
    for places in (1, 1, 16):
        assembler = Assembler(Factory(), delivery="acked", urgent="oob")
        for port in range(4000, 4100):
            opened(assembler, port)
            assembler.assemble(sent(0, 0, bytes(10_000), port=port), 1.0)
        heap = Heap()
        for port in range(4000, 4100):
            for place in range(places):
                marked = sent(0, 10_000 + 50 * place, bytes(50), "AU", port=port)
                assembler.assemble(marked, 1.0)
        heaps.append(heap.grown())
        tracemalloc.stop()
    _, one, sixteen = heaps
    assert sixteen - one < 100 * 900  # with the origins of the other segments


def test_no_fragment_remains_after_flush_all() -> None:
    assembler = Assembler(Factory())
    for number in range(100):
        head = struct.pack("!BBHHHBBH8s", 0x45, 0, 1420, number, 0x2001, 64, 6, 0, b"10011002")
        assembler.assemble(bytes(12) + b"\x08\0" + head + bytes(1400), 1.0)
    assert assembler.statistics().fragments == 100
    assembler.flush_all()
    statistics = assembler.statistics()
    assert (statistics.fragments, statistics.fragment_bytes, statistics.memory_bytes) == (0, 0, 0)


@pytest.mark.parametrize("overlap", ["first", "linux-kernel"])
@pytest.mark.parametrize("how", ["on_gap", "raises", "on_limit", "stop"])
def test_what_waits_when_a_stream_is_given_up_goes_without_the_garbage_collector(overlap: str, how: str) -> None:
    """Several segments, each behind a hole of its own."""

    class GivenUp(Stream):
        __slots__ = ()
        on_gap = "abandon" if how == "on_gap" else "continue"

        def reassembled(self, chunk: Any) -> None:
            if how == "stop" and chunk.offset:
                chunk.stop_connection()

        def gap(self, gap: Any) -> None:
            if how == "raises":
                raise ValueError("a handler's")

    class Factory(StreamFactory):
        def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
            return GivenUp()

    def talk(assembler: Assembler, number: int) -> None:
        places = [10, 110, 310, 510, 710, *((910, 1110) if how == "on_limit" else ())]
        feed(assembler, syn(number), *(piece(number, place, b"behind a hole") for place in places))

    on_limit = "abandon" if how == "on_limit" else "deliver"
    options: Any = {"limits": Limits(6, 500, 50), "overlap": overlap, "on_limit": on_limit}
    with Assembler(Factory(), on_error=lambda handler, error: None, **options) as assembler:
        talk(assembler, 0)  # what is imported or made once
    gc.collect()
    gc.disable()
    try:
        with Assembler(Factory(), on_error=lambda handler, error: None, **options) as assembler:
            for number in range(100):
                talk(assembler, number)
        assert gc.collect() == 0
    finally:
        gc.enable()
