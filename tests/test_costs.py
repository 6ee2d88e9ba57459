"""What a hostile packet costs, in bytecode instructions, with little before it and with ten times as much."""

from __future__ import annotations

import struct
import sys
from typing import Any, Callable, List

import pytest

from tcpstitch import Assembler, Limits, Segment, Stream, StreamFactory, Timeouts

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
    segment.length += 5000
    return segment


def after(packets: List[Any], **options: Any) -> Assembler:
    assembler = Assembler(Factory(), **{"limits": WIDE, **options})
    for packet in packets:
        assembler.assemble(packet, 1.0)
    return assembler


def opened(packets: List[Any], **options: Any) -> Assembler:
    return after([client(0, b"", "S", 0), server(0, b"", "SA"), client(1), *packets], **options)


def steps(assembler: Assembler, packet: Any, timestamp: float = 1.0) -> int:
    count = 0

    def each(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return each

    def enter(frame: Any, event: str, argument: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return each

    before = sys.gettrace()  # of who measures which lines the tests run
    sys.settrace(enter)
    try:
        assembler.assemble(packet, timestamp)
    finally:
        sys.settrace(before)
    return count


def growth(cost: Callable[[int], int], few: int, many: int) -> float:
    cost(few)  # Python 3.12 and later do not count all of what runs for the first time
    return cost(many) / cost(few)


def hardly_grows(cost: Callable[[int], int], size: int = 40) -> bool:
    return growth(cost, size, 10 * size) < 1.6  # a logarithm may


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

    assert growth(cost, 30, 300) < 14


@pytest.mark.parametrize(
    "options", [{}, {"overlap": "linux-kernel"}, {"limits": Limits(max_history_bytes_per_connection=60_000)}]
)
def test_other_bytes_are_found_without_a_step_for_each(options: Any) -> None:
    def cost(size: int) -> int:
        start = 1 if "limits" in options else 100
        data, other = bytes(size), bytes(size - 1) + b"x"
        return steps(opened([client(start, data)], **options), client(start, other))

    assert hardly_grows(cost, 140)


def test_data_in_order_moves_nothing_of_a_long_history() -> None:
    """A copy of it is one instruction; but it takes memory."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has none")
    bound, size = 1 << 20, 1000
    assembler = opened(
        [client(1 + place, bytes(1 << 16)) for place in range(0, 2 * bound, 1 << 16)],
        limits=Limits(max_history_bytes_per_connection=bound),
    )
    following = [client(1 + 2 * bound + place, bytes(size)) for place in range(0, bound, size)]
    tracemalloc.start()
    try:
        for packet in following:
            assembler.assemble(packet, 1.0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < bound // 8


@pytest.mark.parametrize("distance", [1, 2])
def test_a_segment_sent_again_over_many_short_ones_with_gaps_or_without_does_not_ask_each(distance: int) -> None:
    limits = Limits(max_buffered_pages_per_connection=1, max_history_bytes_per_connection=1 << 20)  # no hole is kept

    def cost(count: int) -> int:
        before = [client(distance * (1 + index), b"x") for index in range(count)]
        return steps(opened(before, limits=limits), client(1, bytes(distance * count)))

    assert hardly_grows(cost, 100)


def test_making_room_does_not_look_at_all_holes_each_time() -> None:
    """Lone pages, then bytes with holes between them, and a segment over these that there is no room for."""

    def cost_of_each(pages: int) -> int:
        limits = Limits(max_buffered_pages_per_connection=pages)
        assembler = opened(
            [client(100 + 4096 * index, b"x") for index in range(pages // 2)], limits=limits, overlap="bsd"
        )
        top, holes = 100 + 4096 * pages, 0
        while assembler.statistics().pages_used < pages - 2:
            assembler.assemble(client(top + 2 * holes, b"x"), 1.0)
            holes += 1
        return steps(assembler, client(top, bytes(2 * holes))) // holes

    assert growth(cost_of_each, 40, 120) < 1.6


@pytest.mark.parametrize("on_limit", ["deliver", "drop"])
def test_a_long_segment_that_makes_room_page_by_page_counts_its_pages_once(on_limit: str) -> None:
    def cost(pages: int) -> int:
        limits = Limits(max_buffered_pages_per_connection=100)
        lone = [client(100 + 4096 * index, b"x") for index in range(99)]
        return steps(opened(lone, limits=limits, on_limit=on_limit), client(1_000_000, bytes(2048 * pages)))

    assert growth(cost, 5, 30) < 6


def test_room_that_a_connection_has_to_make_for_itself_is_not_taken_from_others() -> None:
    limits = Limits(max_buffered_pages_per_connection=12, max_buffered_pages_total=12, page_size=64)
    other = ("10.0.0.3", 1000)
    opening = [Segment.make(other, SERVER, 0, b"", "S", 0), Segment.make(SERVER, other, 0, b"", "SA")]
    waiting = [server(1857, bytes(400)), Segment.make(SERVER, other, 3265, bytes(64)), client(1665, bytes(200))]
    assembler = opened([*opening, *waiting, server(3393, bytes(400))], limits=limits, overlap="bsd")
    assert set(assembler.statistics().gaps_by_reason) == {"page_limit"}


def test_data_taken_over_many_pieces_until_it_is_acknowledged_costs_a_constant_for_each() -> None:
    """The pieces belong to longer segments, which win, and were cut."""

    def cost_of_each(pieces: int) -> int:
        before = [cut(client(11 + 2 * index, b"x")) for index in range(pieces)]
        assembler = opened(before, overlap="solaris", delivery="acked")
        return steps(assembler, client(1, bytes(20 + 2 * pieces))) // pieces

    assert hardly_grows(cost_of_each)


def datagram(protocol: int, data: bytes, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 7, fragment, 64, protocol, 0)
    return head + bytes((10, 0, 0, 1, 10, 0, 0, 2)) + data


def test_a_fragment_over_many_fragments_again_and_again_does_not_look_at_each() -> None:
    def cost(pieces: int) -> int:
        before = [datagram(6, bytes(8), 0x2000 | place) for place in range(1, pieces + 1)]
        all_over = datagram(6, bytes(8 * pieces), 0x2001)
        return steps(after([*before, all_over], linktype=101), all_over)

    assert hardly_grows(cost)


@pytest.mark.parametrize("last", [0, 0x2000])
def test_a_fragment_that_cannot_be_does_not_look_at_the_holes_under_it(last: int) -> None:
    """It ends the datagram before others do, or goes on where that has ended."""

    def cost(holes: int) -> int:
        before = [datagram(6, bytes(8), 0x2000 | 2 * place) for place in range(1, holes + 1)]
        end = datagram(6, bytes(8), 2 * holes + 2)
        longer = datagram(6, bytes(16 * holes + (32 if last else -16)), last | 1)
        return steps(after([*before, *([end] if last else []), longer], linktype=101), longer)

    assert hardly_grows(cost)


class Ignoring(StreamFactory):
    def new(self, flow: Any, segment: Any, timestamp: float) -> None:
        return None


@pytest.mark.parametrize("factory", [Factory, Ignoring])
def test_few_connections_at_a_time_get_more_time_as_their_packets_came_from_the_future(factory: Any) -> None:
    """What lies there counts from the last such packet on, so that each one would move them all."""
    speaker = client(0, b"", "S", 0)

    def cost(count: int) -> int:
        assembler = Assembler(factory(), timeouts=Timeouts(embryonic=100.0, closed=100.0, idle=None))
        for port in range(2, count):
            opening = Segment.make((CLIENT[0], port), SERVER, 0, b"", "S", 0)
            for packet, timestamp in ((opening, 1.0), (opening, 1e9), (speaker, 1.0)):
                assembler.assemble(packet, timestamp)
        most = 0
        for index in range(1, 20):
            assembler.assemble(speaker, 1e9)
            most = max(most, steps(assembler, speaker, 60.0 * index))
        assert assembler.statistics().connections_completed == 0
        return most

    assert hardly_grows(cost, 100)


def in_udp(port: int, data: bytes) -> bytes:
    return datagram(17, struct.pack("!HHHH", 999, port, 8 + len(data), 0) + data)


@pytest.mark.parametrize(
    "packet",
    [
        lambda count: datagram(47, b"\x40\0\x08\0\0\0\0\0" + b"\0\1\0\0" * count),  # source routes in GRE
        lambda count: in_udp(37008, b"\1\0\0\1" + bytes(count)),  # tags in TZSP
        lambda count: in_udp(2152, b"\x34\xff" + bytes(9) + b"\x85" + b"\1\0\0\x85" * count),  # headers in GTP
        lambda count: b"\x60" + bytes(6) + b"\1" + bytes(32) + bytes((6, count // 8 - 1)) + bytes(count - 2),  # padding
    ],
)  # fmt: skip
def test_a_header_of_many_fields_is_given_up(packet: Callable[[int], bytes]) -> None:
    assert hardly_grows(lambda count: steps(after([], linktype=101), packet(count)), 200)
