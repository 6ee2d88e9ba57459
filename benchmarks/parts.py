"""What each part of what is held costs, beside the pages themselves: bytes by tracemalloc, `sys.getsizeof`'s overheads
included, for a few hundred of each.

    python benchmarks/parts.py
    python benchmarks/parts.py connections

`docs/memory.md` quotes these figures, and `tests/test_parts.py` holds to them what the limits count with.
"""

from __future__ import annotations

import argparse
import gc
import tracemalloc
from typing import Any, Callable, Dict, Iterator, List, Tuple

from frames import ACK, FIN, PSH, RST, SYN, URG, Connection, numbered

HEADERS = 74  # of TCP in IPv6, whose keys are longer
PAGE = 2048
NOTE = "a context of the caller's"
# Urgent bytes taken out, and policies that each connection has for itself: both are remembered.
WORST_OPTIONS: Dict[str, Any] = {"urgent": "oob", "overlap": {"2001:db8::/32": "linux"}}


def quiet_factory() -> Any:
    from tcpstitch import Stream, StreamFactory

    class Silent(Stream):
        __slots__ = ()

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Any:
            return Silent()

    return Factory()


def added(work: Callable[[Any], int], **options: Any) -> Tuple[float, Any]:
    """(bytes per unit that `work` leaves behind, the assembler); it returns how many units it made."""
    from tcpstitch import Assembler, Limits

    huge = 1_000_000
    assembler = Assembler(quiet_factory(), limits=Limits(huge, huge, huge, page_size=PAGE), **options)
    warm = Assembler(quiet_factory(), limits=Limits(huge, huge, huge, page_size=PAGE), **options)
    work(warm)
    warm.flush_all()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        units = work(assembler)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / units, assembler


class Line:
    """Gives frames to an assembler, each at a time of its own, so that no two records share an object."""

    def __init__(self, assembler: Any) -> None:
        self.assembler = assembler
        self.now = 1000.0

    def put(self, frame: bytes, context: Any = None) -> None:
        self.now += 1e-5
        if context is None:
            self.assembler.assemble(frame, self.now)
            return
        from tcpstitch import PacketDecoder

        for segment in PacketDecoder().decode(frame, self.now):
            segment.context = context
            self.assembler.assemble(segment, self.now)

    def open(self, connection: Connection, options: bytes = b"") -> None:
        for frame in (
            connection.segment(0, flags=SYN, options=options),
            connection.segment(1, flags=SYN | ACK, options=options),
            connection.segment(0),
        ):
            self.put(frame)


# -- connections

COUNT = 200


def established(assembler: Any) -> int:
    line = Line(assembler)
    for number in range(COUNT):
        line.open(numbered(number))
    return COUNT


def half_open(assembler: Any) -> int:
    line = Line(assembler)
    for number in range(COUNT):
        line.put(numbered(number).segment(0, flags=SYN))
    return COUNT


def lingering(assembler: Any) -> int:
    line = Line(assembler)
    for number in range(COUNT):
        connection = numbered(number)
        line.open(connection)
        for frame in connection.goodbye():
            line.put(frame)
    return COUNT


def worst(assembler: Any, pages: bool) -> int:
    """Everything unusual at once that only the number of connections bounds, on both sides, and a RST whose hop limit
    is low, which strict checks let silence confirm; with `pages`, data that waits as well."""
    line = Line(assembler)
    options = b"\x01\x01\x08\x0a\0\0\x10\0\0\0\0\0\x03\x03\x07\0"
    for number in range(COUNT):
        connection = numbered(number, v6=True)
        for direction in (0, 1):
            for turn in range(6):  # initial sequence numbers, one after the other
                connection.next_seq[direction] += 100_000_000
                flags = SYN | ACK if direction and turn else SYN  # the first of the server crosses the client's
                line.put(connection.segment(direction, flags=flags, options=options))
        line.put(connection.segment(0))
        seqs = connection.next_seq[:]
        for direction, side in enumerate(connection.sides):
            seq, ack = seqs[direction], seqs[1 - direction]
            for index in range(24):  # bytes that were not captured, with holes between them
                line.put(side.frame(seq + 1000 + 300 * index, ack, ACK, bytes(200))[:HEADERS])
            line.put(side.frame(seq + 700, ack, URG | ACK))
            if pages:
                line.put(side.frame(seq + 20_000, ack, ACK, bytes(100)))
            line.put(side.frame(seq + 20_100, ack, FIN | ACK))
        for direction, side in enumerate(connection.sides):
            line.put(side.frame(seqs[direction] + 20_101, seqs[1 - direction] + 500, ACK))
        reset = connection.sides[0].frame(seqs[0] + 5000, 0, RST)
        line.put(reset[:21] + b"\x02" + reset[22:])
    return COUNT


# -- pages

PAGES = 100


def full_pages(assembler: Any) -> int:
    """One direction, segments of 1460 bytes in order behind a hole."""
    line = Line(assembler)
    connection = numbered(0)
    line.open(connection)
    connection.next_seq[0] += 1
    while assembler.statistics().pages_used < PAGES:
        line.put(connection.segment(0, bytes(1460), ACK | PSH))
    return int(assembler.statistics().pages_used)


def riddled_pages(assembler: Any, context: Any = None) -> int:
    """One direction, one byte of every 32."""
    line = Line(assembler)
    connection = numbered(0)
    line.open(connection)
    for index in range(PAGES * PAGE // 32):
        line.put(connection.sides[0].frame(connection.next_seq[0] + 32 * index + 1, 0, ACK, b"x"), context)
    return int(assembler.statistics().pages_used)


def segments(assembler: Any) -> int:
    """Two thousand single bytes of one direction with holes between them."""
    line = Line(assembler)
    connection = numbered(0)
    line.open(connection)
    for index in range(2000):
        line.put(connection.sides[0].frame(connection.next_seq[0] + 2 * index + 10, 0, ACK, b"x"))
    return 2000


def lone_pages(assembler: Any) -> int:
    """A page in each direction of many connections."""
    line = Line(assembler)
    for number in range(COUNT):
        connection = numbered(number)
        line.open(connection)
        for direction, side in enumerate(connection.sides):
            seq, ack = connection.next_seq[direction], connection.next_seq[1 - direction]
            line.put(side.frame(seq + 10, ack, ACK, b"x"))
    return int(assembler.statistics().pages_used)


def rows(subjects: List[str]) -> Iterator[Tuple[str, float]]:
    """(what, bytes of one more)"""
    idle, _ = added(established)
    if "connections" in subjects:
        yield "an established connection, idle", idle
        yield "more if it is half open", added(half_open)[0] - idle
        yield "more if it is over and lingers", added(lingering)[0] - idle
        for checks in ("lenient", "strict"):
            bytes_each, _ = added(lambda assembler: worst(assembler, False), checks=checks, **WORST_OPTIONS)
            yield f"with everything unusual at once, checks={checks!r}", bytes_each
    if "pages" in subjects:
        yield "records of a page, full segments in order", added(full_pages)[0]
        yield "records of a page of single bytes, 8 origins", added(riddled_pages)[0]
        yield "the same, each with a context", added(lambda assembler: riddled_pages(assembler, NOTE))[0]
        for overlap in ("first", "linux", "linux-kernel"):
            bytes_each, assembler = added(lone_pages, overlap=overlap)
            count = assembler.statistics().pages_used
            yield f"records of a page alone in its direction, {overlap}", (bytes_each * count - idle * COUNT) / count
        tight, _ = added(segments, overlap="linux")
        loose, _ = added(segments)
        yield "an owner, of a single byte", tight - loose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="connections, pages (default: both)")
    subjects = parser.parse_args().subjects or ["connections", "pages"]
    if set(subjects) - {"connections", "pages"}:
        parser.error("a subject is connections or pages")
    print("| part | bytes |\n|---|---:|")
    for what, size in rows(subjects):
        print(f"| {what} | {size:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
