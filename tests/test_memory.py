"""Memory comes back: slabs after a burst, everything after the end, and nothing waits for the garbage collector."""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import sys
import weakref
from typing import Any, Iterator, List, Optional

import pytest

from support.frames import tcp_frame
from support.holding import feed
from support.recorder import C2S, Recorder
from tcpstitch import Assembler, Flow, Limits, Segment, Stream, StreamCallbackError, StreamFactory

SERVER = ("10.0.0.2", 80)
SLAB_PAGES = (1 << 20) // 2048
RESERVE_PAGES = 2 * SLAB_PAGES
counts_objects = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython counts references and traces allocations"
)


class Silent(Stream):
    __slots__ = ("__weakref__",)


class SilentFactory(StreamFactory):
    def __init__(self) -> None:
        self.streams: List[Any] = []

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        stream = Silent()
        self.streams.append(weakref.ref(stream))
        return stream


class Forgetful(StreamFactory):
    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return Silent()


def client(number: int) -> Any:
    return (f"10.1.{number >> 8 & 255}.{number & 255}", 40000 + (number >> 16))


def syn(number: int) -> Segment:
    return Segment.make(client(number), SERVER, 999, flags="S")


def piece(number: int, offset: int, data: bytes) -> Segment:
    return Segment.make(client(number), SERVER, 1000 + offset, data)


def behind_a_hole(number: int, size: int = 100) -> Iterator[Segment]:
    yield syn(number)
    yield piece(number, 1, bytes(size))


def test_slabs_go_back_after_a_burst_without_a_call_but_for_the_stated_reserve() -> None:
    assembler = Assembler(SilentFactory(), limits=Limits())
    for number in range(2000):
        feed(assembler, *behind_a_hole(number))
    assert assembler.statistics().pages_allocated >= 2000
    for number in range(2000):
        assembler.assemble(piece(number, 0, b"!"), 1.0)
    statistics = assembler.statistics()
    assert statistics.pages_used == 0
    assert statistics.pages_allocated <= RESERVE_PAGES


def test_a_hole_that_comes_and_goes_behind_full_slabs_takes_no_slab_along() -> None:
    """Making one and giving it back costs as much as hundreds of packets."""
    assembler = Assembler(SilentFactory(), limits=Limits())
    for number in range(3 * SLAB_PAGES):
        feed(assembler, *behind_a_hole(number))
    assembler.assemble(syn(number + 1), 1.0)
    allocated = set()
    for start in range(0, 1000, 100):
        for segment in (piece(number + 1, start + 1, bytes(99)), piece(number + 1, start, b"!")):
            assembler.assemble(segment, 1.0)
            allocated.add(assembler.statistics().pages_allocated)
    assert allocated == {4 * SLAB_PAGES}


@pytest.mark.parametrize("spacing", [10, 512])
def test_long_lived_pages_scattered_over_all_slabs_pin_at_most_twice_their_number_and_three_slabs(spacing: int) -> None:
    """And the pages that were moved still hold their bytes."""
    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits())
    rng = random.Random(spacing)
    contents = [rng.randbytes(200) if hasattr(rng, "randbytes") else os.urandom(200) for _ in range(3000)]
    for number, content in enumerate(contents):
        assembler.assemble(syn(number), 1.0)
        assembler.assemble(piece(number, 1, content), 1.0)
    staying = set(range(0, 3000, spacing))
    for number in range(3000):
        if number not in staying:
            assembler.assemble(piece(number, 0, b"!"), 1.0)
    statistics = assembler.statistics()
    assert statistics.pages_used == len(staying)
    assert statistics.pages_allocated <= max(2 * len(staying), len(staying) + RESERVE_PAGES) + SLAB_PAGES
    assembler.check()
    for number in staying:
        assembler.assemble(piece(number, 0, b"!"), 1.0)
        assert recorder.connections[number].data() == b"!" + contents[number]


def test_ten_thousand_separate_ranges_of_one_stream_come_out_in_order() -> None:
    """More pages than fit a plain list, in random order, with every second range missing until the end."""
    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(50_000, 50_000))
    assembler.assemble(syn(0), 1.0)
    stream = b"".join(index.to_bytes(4, "big") * 256 for index in range(10_000))
    ranges = [(start, stream[start : start + 512]) for start in range(0, len(stream), 512)]
    waiting, missing = ranges[1::2], ranges[::2]
    random.Random(1).shuffle(waiting)
    for start, data in waiting:
        assembler.assemble(piece(0, start, data), 1.0)
    assembler.check()
    assert assembler.statistics().pages_used > 4096
    random.Random(2).shuffle(missing)
    for start, data in missing:
        assembler.assemble(piece(0, start, data), 1.0)
    assembler.check()
    assert recorder.only.data() == stream
    assert recorder.only.gaps == []


def test_a_queue_of_more_pages_than_a_plain_list_holds_is_overwritten_and_cut() -> None:
    """By frames that follow each other behind a hole, a segment over many of their pages, and a FIN."""
    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(50_000, 50_000, page_size=64), overlap="last")
    stream = bytearray(random.Random(4).getrandbits(8 * 300_000).to_bytes(300_000, "big"))
    assembler.assemble(syn(0), 1.0)
    for start in (0, *range(2000, len(stream), 1000)):
        assembler.assemble(tcp_frame(client(0), SERVER, 1000 + start, bytes(stream[start : start + 1000])), 1.0)
    assert assembler.statistics().pages_used > 4096
    stream[150_100:153_300] = b"other" * 640
    assembler.assemble(piece(0, 150_100, bytes(stream[150_100:153_300])), 1.0)
    assembler.assemble(tcp_frame(client(0), SERVER, 1000 + 200_500, flags="FA"), 1.0)
    assembler.check()
    assembler.assemble(piece(0, 1000, bytes(stream[1000:2000])), 1.0)
    assert recorder.only.data() == stream[:200_500]
    assert C2S in recorder.only.ended
    assert assembler.statistics().pages_used == 0


def test_kept_bytes_larger_than_what_one_drain_takes_come_back_whole() -> None:
    recorder = Recorder(lambda recording, chunk: chunk.keep_from(0))
    assembler = Assembler(recorder)
    assembler.assemble(syn(0), 1.0)
    stream = random.Random(3).getrandbits(8 * 300_000).to_bytes(300_000, "big")
    for start in range(0, len(stream), 1000):
        assembler.assemble(piece(0, start, stream[start : start + 1000]), 1.0)
    last = recorder.only.chunks[-1]
    assert (last.offset, last.data) == (0, stream)
    assert assembler.statistics().kept_bytes_dropped == 0
    assembler.check()


@pytest.mark.parametrize("end", ["stop", "stop_connection"])
def test_kept_bytes_that_a_handler_has_seen_and_wants_no_more_of_were_not_dropped(end: str) -> None:
    recorder = Recorder(lambda recording, chunk: chunk.keep_from(0) if len(chunk) < 8 else getattr(chunk, end)())
    assembler = Assembler(recorder)
    assembler.assemble(syn(0), 1.0)
    for start, data in ((0, b"kept"), (4, b"more")):
        assembler.assemble(piece(0, start, data), 1.0)
    assert recorder.only.chunks[-1].data == b"keptmore"
    assert assembler.statistics().kept_bytes_dropped == 0


def test_kept_bytes_beyond_the_page_limit_are_dropped_from_the_front_and_counted() -> None:
    recorder = Recorder(lambda recording, chunk: chunk.keep_from(0))
    assembler = Assembler(recorder, limits=Limits(max_buffered_pages_per_connection=20))
    assembler.assemble(syn(0), 1.0)
    stream = random.Random(4).getrandbits(8 * 100_000).to_bytes(100_000, "big")
    for start in range(0, len(stream), 1000):
        assembler.assemble(piece(0, start, stream[start : start + 1000]), 1.0)
        assert assembler.statistics().pages_used <= 19
    last = recorder.only.chunks[-1]
    assert last.data == stream[last.offset :]
    assert len(last.data) > 15 * 2048
    assert assembler.statistics().kept_bytes_dropped > 50_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_does_not_write_into_the_pages_of_its_parent() -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    assembler.assemble(syn(0), 1.0)
    assembler.assemble(piece(0, 10, b"parent"), 1.0)
    child = os.fork()
    if child == 0:
        assembler.assemble(piece(0, 16, b"child"), 1.0)
        assembler.flush_all()
        feed(assembler, *(segment for number in range(50) for segment in behind_a_hole(number)))
        os._exit(0)
    os.waitpid(child, 0)
    assembler.assemble(piece(0, 0, b"0123456789"), 1.0)
    assert recorder.only.data() == b"0123456789parent"


def traffic(assembler: Assembler, count: int) -> None:
    """Every kind of ending and waiting, `count` connections of it."""
    for number in range(count):
        kind = number % 6
        feed(assembler, *(behind_a_hole(number) if kind else [syn(number)]), timestamp=1.0 + number / 1000)
        if kind == 2:
            assembler.assemble(piece(number, 0, b"!"), 1.0 + number / 1000)
        elif kind == 3:
            assembler.assemble(Segment.make(client(number), SERVER, 1000, flags="R"), 1.0 + number / 1000)
        elif kind == 4:
            assembler.assemble(Segment.make(client(number), SERVER, 1101, flags="FA"), 1.0 + number / 1000)
        elif kind == 5:
            assembler.assemble(Segment.make(client(number), SERVER, 77_000, flags="S"), 1.0 + number / 1000)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


OPTIONS = [{}, {"checks": "strict"}, {"overlap": "linux"}, {"overlap": "linux-kernel"}, {"on_limit": "abandon"},
           {"overlap": {"10.0.0.0/8": "bsd"}}]  # fmt: skip


@counts_objects
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_after_flush_all_only_a_constant_base_remains_however_much_traffic_there_was(
    options: Any, no_collector: None
) -> None:
    import tracemalloc  # which PyPy does not have

    left = []
    for count in (150, 1500):
        assembler = Assembler(Forgetful(), limits=Limits(100, 500, max_connections=500), **options)
        traffic(assembler, 60)
        assembler.flush_all()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        traffic(assembler, count)
        assembler.flush_all()
        left.append(tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()
    assert max(left) < 64 << 10


@counts_objects
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_streams_go_with_their_connections_without_the_garbage_collector(options: Any, no_collector: None) -> None:
    factory = SilentFactory()
    assembler = Assembler(factory, limits=Limits(100, 500, max_connections=50), **options)
    traffic(assembler, 600)
    alive = [stream for stream in factory.streams if stream() is not None]
    assert len(alive) <= 50
    assembler.flush_all()
    assert [stream for stream in factory.streams if stream() is not None] == []


@counts_objects
def test_a_chunk_that_the_user_keeps_does_not_keep_the_pages_or_the_stream(no_collector: None) -> None:
    chunks: List[Any] = []

    class Hoarding(Silent):
        __slots__ = ()

        def reassembled(self, chunk: Any) -> None:
            chunks.append(chunk)

    streams: List[Any] = []

    class Factory(StreamFactory):
        def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
            stream = Hoarding()
            streams.append(weakref.ref(stream))
            return stream

    assembler = Assembler(Factory())
    feed(assembler, *(segment for number in range(100) for segment in behind_a_hole(number)))
    assembler.flush_all()
    assert len(chunks) == 100
    assert all(stream() is None for stream in streams)
    assert assembler.statistics().pages_used == 0


@counts_objects
@pytest.mark.parametrize("frames", [False, True])
def test_a_stream_that_failed_goes_without_the_garbage_collector(frames: bool, no_collector: None) -> None:
    class Failing(Silent):
        __slots__ = ()

        def reassembled(self, chunk: Any) -> None:
            raise ValueError(f"a handler's, at {chunk.offset}")

    streams: List[Any] = []

    class Factory(StreamFactory):
        def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
            stream = Failing()
            streams.append(weakref.ref(stream))
            return stream

    assembler = Assembler(Factory())
    client, server = ("10.0.0.1", 4000), ("10.0.0.2", 80)
    packets = [(client, server, 99, b"", "S", 0), (server, client, 499, b"", "SA", 100),
               (client, server, 100, b"", "A", 500), (client, server, 100, b"x" * 100, "A", 500)]  # fmt: skip
    for a, b, seq, data, flags, ack in packets:
        packet: Any = Segment.make(a, b, seq, data, flags=flags, ack=ack)
        try:
            assembler.assemble(tcp_frame(a, b, seq, data, flags, ack) if frames else packet, 1.0)
        except StreamCallbackError as error:
            assert "at 0" in str(error)
    assembler.flush_all()
    assert [stream() for stream in streams] == [None]


@pytest.mark.parametrize("budget", ["1MiB", "2MiB", "3MiB", "5MiB", "8MiB"])
def test_a_small_budget_is_not_exceeded_by_what_is_vacant_in_slabs(budget: str) -> None:
    limits = Limits.from_memory(budget)
    assembler = Assembler(Forgetful(), limits=limits)
    for number in range(4 * limits.max_buffered_pages_total):
        for segment in behind_a_hole(number, 2000):
            assembler.assemble(segment, 1.0)
        assert assembler.statistics().memory_bytes <= limits.memory_bound


def test_raised_limits_hold_what_they_allow_and_lowered_ones_give_it_back() -> None:
    assembler = Assembler(Forgetful(), limits=Limits(max_buffered_pages_total=16))
    assembler.limits = Limits(max_buffered_pages_total=3000)
    for number in range(4000):
        for segment in behind_a_hole(number):
            assembler.assemble(segment, 1.0)
    assert assembler.statistics().pages_used == 3000
    assembler.limits = Limits(max_buffered_pages_total=16)
    statistics = assembler.statistics()
    assert statistics.pages_used == 16
    assert statistics.pages_allocated <= 16 + RESERVE_PAGES + SLAB_PAGES
    assembler.check()


@pytest.mark.parametrize("total", [8, 100, 1000, 3000, 8192])
def test_lowered_limits_leave_no_vacant_room_beyond_the_new_bound(total: int) -> None:
    """Slabs as large as the old bound allowed make room for smaller ones, and what moves keeps its bytes."""
    recorder = Recorder()
    least = Limits(max_connections=6000, max_buffered_pages_total=total, max_fragments=1, max_fragment_bytes=1 << 17)
    assembler = Assembler(recorder, limits=dataclasses.replace(least, max_buffered_pages_total=100_000))
    contents = [number.to_bytes(4, "big") * 50 for number in range(6000)]
    for number, content in enumerate(contents):
        assembler.assemble(syn(number), 1.0)
        assembler.assemble(piece(number, 1, content), 1.0)
    assembler.limits = least
    statistics = assembler.statistics()
    assert statistics.pages_used == min(total, 6000)
    slabs = max(total * 2 // 16, 4)
    assert statistics.pages_allocated < total + slabs
    assert statistics.memory_bytes < statistics.memory_bound + slabs * (2048 + 10)
    assembler.check()
    for number in range(6000 - min(total, 6000), 6000):
        assembler.assemble(piece(number, 0, b"!"), 1.0)
        assert recorder.connections[number].data() == b"!" + contents[number]
    assembler.check()


def test_records_of_an_overlap_policy_take_the_room_that_vacant_pages_had() -> None:
    """Thousands of claims are charged as pages once every second page of full slabs is vacant."""
    limits = Limits(4000, 200, page_size=1024)
    assembler = Assembler(Forgetful(), limits=limits, overlap="linux")
    for number in range(200):
        for segment in behind_a_hole(number):
            assembler.assemble(segment, 1.0)
    for number in range(0, 200, 2):  # so that no slab becomes empty
        assembler.assemble(piece(number, 0, b"!"), 1.0)
    for number in range(0, 200, 2):
        for start in range(0, 250, 2):
            assembler.assemble(piece(number, 200 + start, b"x"), 1.0)
        assert assembler.statistics().pages_allocated < 200 + 200 * 2 // 16
    assembler.check()
