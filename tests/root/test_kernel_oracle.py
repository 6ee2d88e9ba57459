"""The running kernel as oracle: for the same packets we deliver what an application on the receiving host reads.

TCPSTITCH_ORACLE_LISTS sets how many random segment lists each test tries (default 500).
"""

from __future__ import annotations

import os
from typing import Any, Iterator, List, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel import ACK, FIN, PSH, RST, SYN, Crafted, Kernel, Outcome, record

from tcpstitch import Assembler, Chunk, Direction, Flow, Segment, Stream, StreamFactory

_REASON = record.unavailable()
pytestmark = [pytest.mark.root, pytest.mark.skipif(_REASON is not None, reason=str(_REASON))]

LISTS = int(os.environ.get("TCPSTITCH_ORACLE_LISTS", "500"))
OVERLAP = os.environ.get("TCPSTITCH_ORACLE_OVERLAP", "linux-kernel")
ISNS = (0, 1, 1000, 2**31 - 5, 2**32 - 1, 2**32 - 2, 2**32 - 6, 2**32 - 11, 2**32 - 21)
MSS, MSS_AND_SACK = b"\x02\x04\x05\xb4", b"\x02\x04\x05\xb4\x04\x02\x01\x01"
oracle_settings = settings(
    max_examples=LISTS, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)


class Ours(Stream):
    """What we deliver of the client's direction, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.end = "open"
        self.gaps: List[Any] = []

    def reassembled(self, chunk: Chunk) -> None:
        if chunk.direction == Direction.CLIENT_TO_SERVER:
            self.data += bytes(chunk.data)
            if chunk.end:
                self.end = "fin"

    def gap(self, gap: Any) -> None:
        self.gaps.append(gap)

    def complete(self, reason: str) -> None:
        if self.end == "open" or reason == "rst":
            self.end = reason


class Factory(StreamFactory):
    def __init__(self) -> None:
        self.streams: List[Ours] = []

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Ours:
        self.streams.append(Ours())
        return self.streams[-1]


def ours(packets: List[Tuple[float, bytes]], overlap: str, checks: str = "strict") -> Tuple[bytes, str]:
    """What the library delivers before any flush: what lies behind a hole the application never reads either."""
    factory = Factory()
    assembler = Assembler(factory, overlap=overlap, checks=checks, linktype=record.LINKTYPE_RAW)
    for timestamp, packet in packets:
        assembler.assemble(packet, timestamp)
    streams = factory.streams
    assert len(streams) == 1
    assert streams[0].gaps == []
    seen = streams[0].data, streams[0].end
    assembler.flush_all()
    return seen


@pytest.fixture(scope="module")
def host() -> Iterator[Kernel]:
    running = Kernel()
    yield running
    running.close()


def letter(index: int, length: int) -> bytes:
    """Bytes that tell which segment of a list they came from."""
    return bytes([ord("A") + index]) * length


starts = st.integers(0, 20)
lengths = st.integers(1, 8)
data_places = st.lists(st.tuples(starts, lengths), min_size=3, max_size=10)
data_flags = st.sampled_from([ACK, ACK, ACK, ACK | PSH])


@st.composite
def overlapping(draw: Any) -> List[Crafted]:
    """Data only, 3 to 10 segments; half of the lists hold back byte 0 until the end, so that all of them queue."""
    places = draw(data_places)
    hold = draw(st.booleans())
    segments = [
        Crafted(start + hold, letter(index, length), draw(data_flags)) for index, (start, length) in enumerate(places)
    ]
    return segments + [Crafted(0, b"0")] if hold else segments


@st.composite
def ending(draw: Any) -> List[Crafted]:
    """Data with one or two FINs or RSTs anywhere, on data or bare, before, at and behind the next expected byte."""
    segments = draw(overlapping())
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(segments)))
        start, length = draw(st.integers(-2, 24)), draw(st.integers(0, 5))
        flags = draw(st.sampled_from([FIN | ACK, FIN | ACK, RST, RST | ACK]))
        segments.insert(place, Crafted(start, b"z" * length, flags))
    return segments


@st.composite
def hostile(draw: Any) -> List[Crafted]:
    """Endings, and segments that no endpoint takes: bad checksums, wrong or no ACK, SYNs, outside the window."""
    segments = draw(ending())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(segments)))
        start = draw(st.one_of(st.integers(-3, 24), st.sampled_from([-70000, -1000, 70000, 2**30, 2**31 - 100])))
        data = b"!" * draw(st.integers(0, 6))
        segments.insert(
            place,
            draw(
                st.sampled_from(
                    [
                        Crafted(start, data, ACK, bad_checksum=True),
                        Crafted(start, b"", RST, bad_checksum=True),
                        Crafted(start, data, FIN | ACK, bad_checksum=True),
                        Crafted(start, data, 0),
                        Crafted(start, data, PSH),
                        Crafted(start, data, FIN),
                        Crafted(start, data, ACK, ack_shift=1000),
                        Crafted(start, data, FIN | ACK, ack_shift=1),
                        Crafted(start, data, ACK, ack_shift=-100000),
                        Crafted(start, data, ACK, ack_shift=-1),
                        Crafted(start, b"", SYN),
                        Crafted(start, data, SYN | ACK),
                        Crafted(start, b"", RST | ACK, ack_shift=1000),
                        Crafted(start, data, RST),
                    ]
                )
            ),
        )
    return segments


def check(host: Kernel, segments: List[Crafted], isn: int, options: bytes) -> None:
    outcome = host.receive(segments, isn, options)
    assert ours(outcome.packets, OVERLAP) == (outcome.data, outcome.end)


options = st.sampled_from([MSS, MSS_AND_SACK])


@oracle_settings
@given(segments=overlapping(), isn=st.sampled_from(ISNS), options=options)
def test_overlapping_segments_give_what_the_application_reads(
    host: Kernel, segments: List[Crafted], isn: int, options: bytes
) -> None:
    check(host, segments, isn, options)


@oracle_settings
@given(segments=ending(), isn=st.sampled_from(ISNS), options=options)
def test_fin_and_rst_end_the_stream_where_the_kernel_ends_it(
    host: Kernel, segments: List[Crafted], isn: int, options: bytes
) -> None:
    check(host, segments, isn, options)


@oracle_settings
@given(segments=hostile(), isn=st.sampled_from(ISNS), options=options)
def test_segments_that_the_kernel_refuses_change_nothing(
    host: Kernel, segments: List[Crafted], isn: int, options: bytes
) -> None:
    check(host, segments, isn, options)


def differences(strategy: Any, count: int, overlap: str, keep: int = 5) -> Tuple[int, int, List[Tuple[Any, Outcome]]]:
    """Run `count` lists and count those that differ: (in bytes, in how they ended, the first few of them)."""
    host = Kernel()
    totals = [0, 0]
    found: List[Tuple[Any, Outcome]] = []

    @settings(oracle_settings, max_examples=count)
    @given(strategy, st.sampled_from(ISNS), options)
    def run(segments: List[Crafted], isn: int, chosen: bytes) -> None:
        outcome = host.receive(segments, isn, chosen)
        data, end = ours(outcome.packets, overlap)
        if data != outcome.data:
            totals[0] += 1
        elif end != outcome.end:
            totals[1] += 1
        if (data, end) != (outcome.data, outcome.end) and len(found) < keep:
            found.append(((segments, isn, chosen, data, end), outcome))

    run()
    host.close()
    return totals[0], totals[1], found


if __name__ == "__main__":  # counts differences instead of stopping at the first: test_kernel_oracle.py LISTS POLICY
    import sys

    for name, strategy in (("overlapping", overlapping()), ("ending", ending()), ("hostile", hostile())):
        by_bytes, by_end, examples = differences(strategy, int(sys.argv[1]), sys.argv[2])
        print(f"{name}: {by_bytes} lists differ in bytes, {by_end} only in how they ended")
        for example, outcome in examples:
            print("  ", example, "kernel:", outcome.data, outcome.end)
