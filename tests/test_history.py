"""A second version of bytes is reported with what differs, both versions, and the times of both packets."""

from __future__ import annotations

import gc
import random
import sys
from typing import Any, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpstitch import Assembler, Limits, Segment, Stream, StreamFactory
from test_delivery import EVERY_POLICY, Wire

Conflict = Tuple[int, int, bytes, bytes, float, float]


def kept(size: int) -> Limits:
    return Limits(max_history_bytes_per_connection=size)


def conflicts(wire: Wire) -> List[Conflict]:
    """(offset, length, old, new, old time, new time) of each."""
    names = ("length", "old", "new", "old_timestamp")
    return [
        (anomaly.offset, *(anomaly.detail[name] for name in names), anomaly.timestamp)
        for anomaly in wire.only.anomalies
        if anomaly.kind == "overlap_conflict"
    ]


def sent(wire: Wire, start: int, data: bytes) -> float:
    wire.send(start, data)
    return wire.now


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_a_conflict_names_the_packet_that_brought_the_old_version(policy: str, delivery: str) -> None:
    """It is not the last one before the new version, whether its bytes still wait or were delivered."""
    for first, waits in ((0, False), (5, True)):
        wire = Wire(2**32 - 10, delivery=delivery, overlap=policy, limits=kept(1000))
        old = sent(wire, first, b"abcdef")
        newer = sent(wire, first + 6, b"ghijkl")
        for number in range(3):
            sent(wire, 40 + number * 10, b"others")
        if not waits:
            wire.ack(12)
        new = sent(wire, first, b"abXdef")
        newest = sent(wire, first + 7, b"hYjZl")
        assert conflicts(wire) == [
            (first + 2, 1, b"c", b"X", old, new), (first + 8, 3, b"ijk", b"YjZ", newer, newest)
        ]  # fmt: skip


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_the_old_time_is_that_of_the_byte_that_differs_first(policy: str, waits: bool) -> None:
    """The new version begins on another packet, in the same page or the same history, that it repeats."""
    wire = Wire(500, delivery="arrival", overlap=policy, limits=kept(1000))
    start = 9 if waits else 0
    for place in (5000, 10_000, 15_000):  # the first segments have pages of their own
        wire.send(place, b"elsewhere")
    wire.send(start, b"abc")
    old = sent(wire, start + 3, b"def")
    wire.send(start + 6, b"ghi")
    new = sent(wire, start + 1, b"bcdEfgh")
    assert conflicts(wire) == [(start + 4, 1, b"e", b"E", old, new)]


def test_a_gap_does_not_hide_a_conflict_with_what_was_delivered_before_it() -> None:
    wire = Wire(500, delivery="arrival", limits=kept(100))
    old = sent(wire, 0, b"abcdef")
    behind = sent(wire, 20, b"ghijkl")
    wire.assembler.flush_older_than(wire.now + 1)
    new = sent(wire, 4, b"Ef" + b"?" * 14 + b"GhijkL")
    assert conflicts(wire) == [(4, 1, b"e", b"E", old, new), (20, 6, b"ghijkl", b"GhijkL", behind, new)]


@pytest.mark.parametrize("bound", [1, 7, 64, 500])
def test_as_many_bytes_as_the_bound_says_are_compared(bound: int) -> None:
    for size in (1, 3, 100):
        wire = Wire(500, delivery="arrival", limits=kept(bound))
        count = 600 // size
        for index in range(count):
            wire.send(index * size, b"a" * size)
        wire.send(count * size - bound, b"b")
        wire.send(count * size - bound - 1, b"b")
        assert [conflict[:4] for conflict in conflicts(wire)] == [(count * size - bound, 1, b"a", b"b")]


def test_packets_whose_bytes_are_gone_take_no_place_of_those_whose_bytes_are_kept() -> None:
    wire = Wire(500, delivery="arrival", limits=kept(30))
    for index in range(20):
        wire.send(index, b"a")
    old = sent(wire, 20, b"a" * 20)
    newer = sent(wire, 40, b"a" * 20)
    first, second = sent(wire, 35, b"b"), sent(wire, 50, b"b")
    assert conflicts(wire) == [(35, 1, b"a", b"b", old, first), (50, 1, b"a", b"b", newer, second)]


def test_a_smaller_bound_set_while_running_holds_at_once() -> None:
    wire = Wire(500, delivery="arrival", limits=kept(600))
    for index in range(200):
        wire.send(index, b"a")
    wire.assembler.limits = kept(5)
    wire.send(0, b"b" * 200)
    assert [conflict[:2] for conflict in conflicts(wire)] == [(195, 5)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60), st.integers(0, 255)), max_size=25),
    st.sampled_from([1, 10, 70, 10_000]),
)
def test_a_reported_conflict_is_between_bytes_that_were_sent(pieces: List[Tuple[int, int, int]], bound: int) -> None:
    """With holes given up in between; both ends of what is reported differ."""
    wire = Wire(2**32 - 50, delivery="arrival", limits=kept(bound))
    carried: List[Tuple[float, int, bytes]] = []
    for start, size, byte in pieces:
        data = bytes(byte if index % 7 == 3 else (start + index) % 251 for index in range(size))
        wire.send(start, data)
        carried.append((wire.now, start, data))
        if byte > 200:
            wire.assembler.flush_older_than(wire.now + 1)
    for place, length, old, new, _, now in conflicts(wire) if pieces else ():
        assert len(old) == len(new) == min(length, 64)
        assert old[0] != new[0] and (length > 64 or old[-1] != new[-1])
        versions = [data[place - start :][: len(new)] for time, start, data in carried if time == now]
        assert new in versions
        for index, byte in enumerate(old):
            at = place + index
            assert any(data[at - start] == byte for _, start, data in carried if start <= at < start + len(data))


class Silent(Stream):
    __slots__ = ()


class SilentFactory(StreamFactory):
    def new(self, *_: Any) -> Stream:
        return Silent()


@pytest.mark.parametrize("size", [1, 40, 1400])
@pytest.mark.parametrize("bound", [1, 100, 4096])
def test_histories_take_no_more_than_is_counted_for_them(bound: int, size: int) -> None:
    """Of many packets, with gaps between some, in both directions."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    if sys.implementation.name != "cpython":
        pytest.skip("sizes are CPython's")
    count = 10
    most, most_of_one_less = (
        Limits(1, 1, connections, max_history_bytes_per_connection=bound).memory_bound
        for connections in (100_000, 99_999)
    )
    cost = most - most_of_one_less

    def feed(assembler: Assembler, number: int) -> None:
        draw = random.Random(number)
        ends = (("10.0.0.1", 1000 + number), ("10.0.0.2", 80))
        for side in (0, 1):
            source, destination = ends[side], ends[1 - side]
            assembler.assemble(Segment.make(source, destination, 99, flags="SA" if side else "S", ack=100), 1.0)
        seqs = [100, 100]
        for index in range(min(2 * bound // size, 600) + 40):
            for side in (0, 1):
                hole = draw.random() < 0.1
                seqs[side] += 5 * hole
                segment = Segment.make(ends[side], ends[1 - side], seqs[side], draw.randbytes(size), ack=seqs[1 - side])
                assembler.assemble(segment, 1.0 + index / 1000)
                seqs[side] += size
                if hole:
                    assembler.flush_older_than(1e9)

    assembler = Assembler(SilentFactory(), limits=Limits(max_history_bytes_per_connection=bound))
    feed(assembler, 0)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, count + 1):
            feed(assembler, number)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert assembler.statistics().pages_used == 0
    assert (after - before) / count <= cost
