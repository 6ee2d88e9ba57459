"""What a hostile packet costs, in bytecode instructions, with little before it and with ten times as much."""

from __future__ import annotations

import sys
from typing import Any, Callable, List

import pytest

from tcpstitch import Assembler, Limits, Segment, Stream, StreamFactory

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython's bytecode is counted")

CLIENT, SERVER = ("10.0.0.1", 1000), ("10.0.0.2", 80)
WIDE = Limits(max_buffered_pages_per_connection=20_000, max_connections=10)


class Factory(StreamFactory):
    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return Stream()


def client(seq: int, data: bytes = b"", flags: str = "A", ack: int = 1) -> Segment:
    return Segment.make(CLIENT, SERVER, seq, data, flags, ack)


def server(seq: int, data: bytes = b"", flags: str = "A", ack: int = 1) -> Segment:
    return Segment.make(SERVER, CLIENT, seq, data, flags, ack)


def cut(segment: Segment) -> Segment:
    """With a tail that the snap length cut off."""
    segment.length += 1000
    return segment


def after(packets: List[Any], **options: Any) -> Assembler:
    assembler = Assembler(Factory(), **{"limits": WIDE, **options})
    for packet in packets:
        assembler.assemble(packet, 1.0)
    return assembler


def opened(packets: List[Any], **options: Any) -> Assembler:
    return after([client(0, b"", "S", 0), server(0, b"", "SA"), client(1), *packets], **options)


def steps(assembler: Assembler, packet: Any) -> int:
    count = 0

    def each(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return each

    def enter(frame: Any, event: str, argument: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return each

    sys.settrace(enter)
    try:
        assembler.assemble(packet, 1.0)
    finally:
        sys.settrace(None)
    return count


def hardly_grows(cost: Callable[[int], int], size: int = 40) -> bool:
    few, many = cost(size), cost(10 * size)
    return many < 1.6 * few  # a logarithm may


@pytest.mark.parametrize("of_cut_packets", [False, True])
@pytest.mark.parametrize("overlap", ["first", "bsd", "linux-kernel"])
def test_a_new_start_of_the_stream_moves_nothing_that_waits(overlap: str, of_cut_packets: bool) -> None:
    def cost(pages: int) -> int:
        data = [server(50_000 + 4096 * index, bytes(100)) for index in range(pages)]
        opening = [client(0, b"", "S", 0), server(1000, b"", "SA")]
        assembler = after(opening + [cut(each) if of_cut_packets else each for each in data], overlap=overlap)
        assembler.assemble(server(1010, b"", "SA"), 1.0)
        count = max(steps(assembler, server(seq, b"", "SA")) for seq in (1020, 1010, 1030))
        assembler.check()
        return count

    assert hardly_grows(cost)


def staircase(count: int, overlap: str) -> List[Segment]:
    """Segments of which each owns one byte of the last, and that last one."""
    rising = range(100, 100 + count)
    starts = reversed(rising) if overlap == "solaris" else rising
    return [client(start, bytes(count)) for start in starts] + [
        client(100 + (overlap != "solaris") * count, bytes(count))
    ]


@pytest.mark.parametrize("overlap", ["bsd", "linux", "old-linux", "solaris", "linux-kernel"])
def test_a_segment_over_many_owners_again_and_again_does_not_ask_each(overlap: str) -> None:
    def cost(count: int) -> int:
        *before, last = staircase(count, overlap)
        return steps(opened([*before, last], overlap=overlap), client(last.seq, b"x" * count))

    assert hardly_grows(cost)


@pytest.mark.parametrize("overlap", ["bsd", "solaris"])
def test_owners_out_of_order_as_cut_packets_leave_them_are_few(overlap: str) -> None:
    """Between bytes of long segments that were cut lie some of short ones, and all that comes is in between."""

    def cost(count: int) -> int:
        packets = []
        for index in range(count):
            long = client(100 + 4 * index, b"a")
            long.length = 3000 + index
            packets += [long, client(101 + 4 * index, b"b")]
        assembler = opened([*packets, client(50, bytes(2000))], overlap=overlap)
        assembler.assemble(client(49, bytes(2001)), 1.0)  # what one owner has in pieces becomes one
        return max(steps(assembler, client(50 - index, bytes(2000 + index))) for index in (2, 3))

    assert hardly_grows(cost)


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
@pytest.mark.parametrize("overlap", ["bsd", "linux", "old-linux", "solaris"])
def test_data_in_order_over_many_owners_costs_a_constant_for_each(overlap: str, delivery: str) -> None:
    def cost(owners: int) -> int:
        before = [client(11 + index, b"x") for index in range(owners)]
        return steps(opened(before, overlap=overlap, delivery=delivery), client(1, bytes(500)))

    assert cost(300) < 14 * cost(30)


@pytest.mark.parametrize(
    "options", [{}, {"overlap": "linux-kernel"}, {"limits": Limits(max_history_bytes_per_connection=60_000)}]
)
def test_other_bytes_are_found_without_a_step_for_each(options: Any) -> None:
    def cost(size: int) -> int:
        start = 1 if "limits" in options else 100
        data, other = bytes(size), bytes(size - 1) + b"x"
        return steps(opened([client(start, data)], **options), client(start, other))

    assert hardly_grows(cost, 140)
