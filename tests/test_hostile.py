"""Each hostile shape of the benchmark, small: what is held stays inside what the limits say, and honest bytes arrive.

`benchmarks/hostile.py` runs the same shapes to the bounds of whole budgets, in processes of their own.
"""

from __future__ import annotations

import gc
import hashlib
import random
import sys
from pathlib import Path
from typing import Any, List

import pytest

import tcpstitch.kernel_queue  # noqa: F401  (loaded at its first use, which is counted here)
from tcpstitch import Assembler, Chunk, Limits, Stream, StreamFactory

try:
    import tracemalloc
except ImportError:  # PyPy
    tracemalloc = None  # type: ignore[assignment]

counts_bytes = pytest.mark.skipif(tracemalloc is None, reason="PyPy has no tracemalloc")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from frames import ACK, SYN, numbered  # noqa: E402
from hostile import HONEST, SHAPES, mixed_in  # noqa: E402

LIMITS = Limits(
    max_buffered_pages_per_connection=10, max_buffered_pages_total=30, max_connections=50, page_size=128,
    max_fragments=32, max_fragment_bytes=1 << 17,
)  # fmt: skip
IN_FLIGHT = 64 << 10  # what is being delivered, and the interpreter's caches
# After how many packets each shape surely has made something give way, and what.
GIVES_UP = {
    "syn-flood": (500, {"connection_embryonic"}),
    "reverse-bytes": (2000, {"page_limit"}),
    "every-second-byte": (1200, {"page_limit"}),
    "one-hole": (300, {"page_limit"}),
    "speakers": (500, {"total_limit", "connection_idle"}),
    "returning": (500, {"total_limit", "connection_idle"}),
    "page-each": (500, {"total_limit", "connection_idle"}),
    "stay-recent": (500, {"total_limit"}),
    "overlapping": (500, {"page_limit"}),
    "fragments": (500, set()),
    "keeper": (500, {"connection_idle"}),
    "sequence-jumps": (500, {"page_limit"}),
    "rst-storm": (4000, {"connection_idle"}),
    "port-reuse": (500, set()),
}


class Honest(Stream):
    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def reassembled(self, chunk: Chunk) -> None:
        if chunk.direction == 0:
            self.digest.update(chunk.data)


class Keeper(Stream):
    __slots__ = ()

    def reassembled(self, chunk: Chunk) -> None:
        chunk.keep_from(0)


class Factory(StreamFactory):
    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.honest = Honest()

    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return self.honest if flow.key == numbered(HONEST).sides[0].key else self.kind()


def run(shape: str, limits: Limits, **options: Any) -> Any:
    """(assembler, factory, digest of what the honest stream sent, most bytes that were held)."""
    count, _ = GIVES_UP[shape]
    sent = hashlib.sha256()
    factory = Factory(Keeper if shape == "keeper" else Stream)
    frames = list(mixed_in(SHAPES[shape].frames(count, random.Random(shape)), random.Random(1), sent))
    assembler = Assembler(factory, limits=limits, **options)
    gc.collect()
    if tracemalloc is not None:
        tracemalloc.start()
    for index, frame in enumerate(frames):
        assembler.assemble(frame, 1.0 + index * 1e-4)
    heap = 0  # where it cannot be counted, the counters still can
    if tracemalloc is not None:
        _, heap = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assembler.check()
    return assembler, factory, sent, heap + assembler.statistics().pages_peak * limits.page_size


def test_every_hostile_shape_has_a_case_here() -> None:
    assert set(GIVES_UP) == set(SHAPES)


@pytest.mark.parametrize("shape", sorted(GIVES_UP))
def test_a_hostile_shape_stays_inside_its_bound_and_takes_no_byte_from_honest_streams(shape: str) -> None:
    assembler, factory, sent, held = run(shape, LIMITS)
    statistics = assembler.statistics()
    assert held <= LIMITS.memory_bound + IN_FLIGHT
    assert statistics.pages_peak <= LIMITS.max_buffered_pages_total
    assert statistics.connections_peak <= LIMITS.max_connections
    assert statistics.fragments <= LIMITS.max_fragments
    assert statistics.fragment_bytes <= LIMITS.max_fragment_bytes
    assert GIVES_UP[shape][1] <= set(statistics.evictions_by_kind)
    assembler.flush_all()
    assert factory.honest.digest.digest() == sent.digest()


@counts_bytes
@pytest.mark.parametrize("overlap", ["first", "last", "bsd", "linux", "old-linux", "solaris", "linux-kernel"])
@pytest.mark.parametrize("shape", ["reverse-bytes", "every-second-byte"])
def test_one_byte_segments_cost_no_more_than_their_pages_under_any_policy(shape: str, overlap: str) -> None:
    _, _, _, held = run(shape, LIMITS, overlap=overlap)
    assert held <= LIMITS.memory_bound + IN_FLIGHT


def test_a_syn_flood_evicts_no_established_connection() -> None:
    assembler = Assembler(Factory(Stream), limits=LIMITS)
    for number in range(30):
        for frame in numbered(number).handshake():
            assembler.assemble(frame, 1.0)
    for number in range(1000, 3000):
        assembler.assemble(numbered(number).segment(0, flags=SYN), 1.0)
    statistics = assembler.statistics()
    assert statistics.connections - statistics.connections_embryonic == 30
    assert set(statistics.evictions_by_kind) == {"connection_embryonic"}


@counts_bytes
def test_segments_kept_in_doubt_have_a_bound_of_their_own() -> None:
    """A SYN with data on each of many living connections waits for its confirmation; all of them would be 16 MB."""
    limits = Limits(max_connections=500, max_buffered_pages_total=100)
    assembler = Assembler(Factory(Stream), limits=limits)
    connections = [numbered(number) for number in range(300)]
    for connection in connections:
        for frame in [*connection.handshake(), connection.segment(0, b"data", ACK)]:
            assembler.assemble(frame, 1.0)
    tracemalloc.start()
    for connection in connections:
        assembler.assemble(connection.sides[0].frame(connection.next_seq[0] + 5000, 0, SYN, bytes(54_000)), 2.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < limits.memory_bound / 16 + IN_FLIGHT + 300 * 600


@pytest.mark.parametrize("seed", range(5))
def test_the_connection_that_gives_way_is_exactly_the_one_without_a_packet_for_longest(seed: int) -> None:
    """Whoever spoke in between: among all, among the oldest only, or nobody."""
    rng = random.Random(seed)
    order: List[bytes] = []  # what a model knows: the keys of open connections, the least recent first
    ended: List[bytes] = []

    class Named(Stream):
        def __init__(self, key: bytes) -> None:
            self.key = key

        def complete(self, reason: str) -> None:
            ended.append(self.key)

    class Naming(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Named(flow.key)

    limit = 40
    assembler = Assembler(Naming(), limits=Limits(max_connections=limit))
    connections = {numbered(number).sides[0].key: numbered(number) for number in range(1500)}
    for step, (key, connection) in enumerate(connections.items()):
        for frame in connection.handshake():
            assembler.assemble(frame, 1.0)
        expected = [order.pop(0)] if len(order) == limit else []
        order.append(key)
        assert ended == expected
        ended.clear()
        among = (len(order), (len(order) + 3) // 4, 0)[step % 300 // 100]
        for place in [rng.randrange(among) for _ in range(2) if among]:
            speaker = connections[order[place]]
            assembler.assemble(speaker.segment(rng.randrange(2), bytes(rng.choice((0, 5, 100)))), 1.0)
            order.append(order.pop(place))
