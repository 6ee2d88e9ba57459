"""The running kernel as oracle: for the same packets we deliver what an application on the receiving host reads.

TCPSTITCH_ORACLE_LISTS sets how many segment lists of each kind each test tries (default 500),
TCPSTITCH_ORACLE_SEED where the random ones start (default 0). Run as a program, it counts differences by policy.
"""

from __future__ import annotations

import os
import sys
from random import Random
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel import ACK, FIN, PSH, RST, SYN, Crafted, Kernel, record

from tcpstitch import Assembler, Chunk, Direction, Flow, Gap, Segment, Stream, StreamFactory

_REASON = record.unavailable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(_REASON is not None, reason=str(_REASON)),
]

LISTS = int(os.environ.get("TCPSTITCH_ORACLE_LISTS", "500"))
SEED = int(os.environ.get("TCPSTITCH_ORACLE_SEED", "0"))
POLICY = {"overlap": "linux-kernel", "checks": "strict"}
ISNS = (0, 1, 1000, 2**31 - 5, 2**32 - 1, 2**32 - 2, 2**32 - 6, 2**32 - 11, 2**32 - 21)
MSS, MSS_AND_SACK = b"\x02\x04\x05\xb4", b"\x02\x04\x05\xb4\x04\x02\x01\x01"
Outcome = Tuple[bytes, str]


class Case(NamedTuple):
    segments: List[Crafted]
    isn: int
    options: bytes


class Ours(Stream):
    """What we deliver of one direction up to its first gap, and how it ended.

    An application never reads what lies behind a hole, so neither the bytes nor the FIN there count.
    """

    heard = Direction.CLIENT_TO_SERVER

    def __init__(self) -> None:
        self.data = b""
        self.end = "open"
        self._hole = False

    def reassembled(self, chunk: Chunk) -> None:
        if chunk.direction == self.heard and not self._hole:
            self.data += bytes(chunk.data)
            if chunk.end:
                self.end = "fin"

    def gap(self, gap: Gap) -> None:
        self._hole = self._hole or gap.direction == self.heard

    def complete(self, reason: str) -> None:
        if self.end == "open":
            self.end = reason


class Factory(StreamFactory):
    def __init__(self, stream: Callable[[], Ours] = Ours) -> None:
        self.streams: List[Ours] = []
        self._stream = stream

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Ours:
        self.streams.append(self._stream())
        return self.streams[-1]


def ours(packets: List[Tuple[float, bytes]], policy: Dict[str, str]) -> Outcome:
    """What the library delivered of the first connection, and its state, before any flush (a SYN behind an RST opens
    another, which the application accepts separately)."""
    factory = Factory()
    assembler = Assembler(factory, linktype=record.LINKTYPE_RAW, **policy)
    for timestamp, packet in packets:
        assembler.assemble(packet, timestamp)
    seen = [(stream.data, stream.end) for stream in factory.streams]
    assembler.flush_all()
    return seen[0]


def letter(index: int, length: int) -> bytes:
    """Bytes that tell which segment of a list they came from."""
    return bytes([ord("A") + index]) * length


def overlapping(random: Random) -> List[Crafted]:
    """Data only, 3 to 10 segments; half of the lists hold back byte 0 until the end, so that all of them queue."""
    hold = random.randint(0, 1)
    span, longest = random.choice([(8, 5), (20, 8), (40, 6)])
    segments = [
        Crafted(
            random.randint(0, span) + hold, letter(index, random.randint(1, longest)), random.choice([ACK, ACK | PSH])
        )
        for index in range(random.randint(3, 10))
    ]
    return segments + [Crafted(0, b"0")] if hold else segments


def ending(random: Random) -> List[Crafted]:
    """Data with one or two FINs or RSTs anywhere, on data or bare, before, at and behind the next expected byte."""
    segments = overlapping(random)
    for _ in range(random.randint(1, 2)):
        flags = random.choice([FIN | ACK, FIN | ACK, RST, RST | ACK])
        crafted = Crafted(random.randint(-2, 24), b"z" * random.randint(0, 5), flags)
        segments.insert(random.randint(0, len(segments)), crafted)
    return segments


def hostile(random: Random) -> List[Crafted]:
    """Endings, and segments that no endpoint takes: bad checksums, wrong or no ACK, SYNs, outside the window."""
    segments = ending(random)
    for _ in range(random.randint(1, 3)):
        start = random.choice(
            [random.randint(-3, 24)] * 3 + [random.choice([-70000, -1000, 70000, 2**30, 2**31 - 100])]
        )
        crafted = Crafted(start, b"!" * random.randint(0, 6), ACK)
        change: Dict[str, Any] = random.choice(
            [
                {"bad_checksum": True},
                {"bad_checksum": True, "data": b"", "flags": RST},
                {"bad_checksum": True, "flags": FIN | ACK},
                {"flags": 0},
                {"flags": PSH},
                {"flags": FIN},
                {"ack_shift": 1000},
                {"ack_shift": 1, "flags": FIN | ACK},
                # Another window than before keeps the kernel off its fast path, where it takes ACKs of any age or not
                # by how much memory is at hand.
                {"ack_shift": -100000, "window": 65000},
                {"ack_shift": -1, "window": 65000},
                {"data": b"", "flags": SYN},
                {"flags": SYN | ACK},
                {"data": b"", "flags": RST | ACK, "ack_shift": 1000},
                {"flags": RST},
            ]
        )
        segments.insert(random.randint(0, len(segments)), crafted._replace(**change))
    return segments


def case(kind: Callable[[Random], List[Crafted]], random: Random) -> Case:
    return Case(kind(random), random.choice(ISNS), random.choice([MSS, MSS_AND_SACK]))


def difference(host: Kernel, case: Case, policy: Dict[str, str]) -> Optional[Tuple[Outcome, Outcome]]:
    """(ours, the kernel's) where they differ."""
    kernels = host.receive(case.segments, case.isn, case.options)
    mine = ours(kernels.packets, policy)
    return (mine, (kernels.data, kernels.end)) if mine != (kernels.data, kernels.end) else None


def smaller(host: Kernel, case: Case, policy: Dict[str, str]) -> Case:
    """`case` without the segments that its difference does not need."""
    index = 0
    while index < len(case.segments):
        shorter = case._replace(segments=case.segments[:index] + case.segments[index + 1 :])
        if difference(host, shorter, policy):
            case = shorter
        else:
            index += 1
    return case


def differing(host: Kernel, kind: Callable[[Random], List[Crafted]], policy: Dict[str, str]) -> List[Case]:
    cases = (case(kind, Random(f"{kind.__name__}/{number}")) for number in range(SEED, SEED + LISTS))
    return [made for made in cases if difference(host, made, policy)]


def explain(host: Kernel, found: List[Case], policy: Dict[str, str], most: int = 5) -> str:
    lines = []
    for made in found[:most]:
        made = smaller(host, made, policy)
        lines.append(f"{made}\n    (ours, kernel) = {difference(host, made, policy)}")
    return "\n".join(lines)


KINDS = [overlapping, ending, hostile]


@pytest.fixture(scope="module")
def host() -> Iterator[Kernel]:
    running = Kernel()
    yield running
    running.close()


@pytest.mark.parametrize("kind", KINDS)
def test_random_lists_give_what_the_application_reads(host: Kernel, kind: Callable[[Random], List[Crafted]]) -> None:
    found = differing(host, kind, POLICY)
    assert not found, f"{len(found)} of {LISTS} lists differ:\n{explain(host, found, POLICY)}"


@settings(max_examples=LISTS, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(random=st.randoms(use_true_random=False), kind=st.sampled_from(KINDS))
def test_lists_that_hypothesis_makes_give_what_the_application_reads(
    host: Kernel, random: Random, kind: Callable[[Random], List[Crafted]]
) -> None:
    made = case(kind, random)
    assert difference(host, made, POLICY) is None, made


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: test_kernel_oracle.py OVERLAP CHECKS")
    chosen = {"overlap": sys.argv[1], "checks": sys.argv[2]}
    kernel_host = Kernel()
    for one_kind in KINDS:
        those = differing(kernel_host, one_kind, chosen)
        print(f"{one_kind.__name__}: {len(those)} of {LISTS} lists differ\n{explain(kernel_host, those, chosen)}")
