"""Where a default assembler's answer is not the plain union of the captured bytes: the table of docs/differences.md.

    python benchmarks/union.py CAPTURE ...

The union puts every payload byte at its sequence number, the first to come wins, and calls missing what stays empty
before the last byte. It is kept apart by the SYNs of the same addresses and ports, shares the decoder with the library
and nothing else. Prints each direction of which the two say something else, and how many were compared.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any, Dict, List, Tuple

from tcpstitch import (
    Assembler,
    CaptureWarning,
    Chunk,
    Direction,
    Flow,
    Gap,
    PacketDecoder,
    Segment,
    Stream,
    StreamFactory,
    open_capture,
)
from tcpstitch.segment import ACK, RST, SYN, key_endpoints, reverse_key

Answer = Dict[Any, List[Tuple[bytes, int]]]  # by directed key: bytes and missing bytes of each connection


class Union:
    """One direction of one connection."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.held: Dict[int, int] = {}
        self.end = -(1 << 32)  # nothing yet: what comes first need not be the lowest

    def put(self, seq: int, segment: Segment) -> None:
        start = (seq - self.first + (1 << 31)) % (1 << 32) - (1 << 31)
        self.end = max(self.end, start + segment.length)
        for offset, byte in enumerate(segment.payload, start):
            self.held.setdefault(offset, byte)

    def answer(self, syn: bool) -> Tuple[bytes, int]:
        begin = 0 if syn else min(self.held, default=0)
        offsets = sorted(offset for offset in self.held if offset >= begin)
        return bytes(self.held[offset] for offset in offsets), max(0, self.end - begin - len(offsets))


def union(path: str) -> Answer:
    decoder = PacketDecoder()
    answer: Answer = {}
    now: Dict[Any, Tuple[Union, bool]] = {}

    def close(key: Any) -> None:
        if key in now:
            found, syn = now.pop(key)
            answer.setdefault(key, []).append(found.answer(syn))

    with open_capture(path) as capture:
        for timestamp, packet in capture:
            for segment in decoder.decode(packet, timestamp):
                key, syn = segment.key, bool(segment.flags & SYN)
                first = (segment.seq + syn) % (1 << 32)
                if segment.flags & (SYN | ACK) == SYN and key in now and now[key][0].first != first:
                    close(key)
                    close(reverse_key(key))
                direction, _ = now.setdefault(key, (Union(first), syn))
                if segment.length and not segment.flags & RST:  # its data is a message about the end, RFC 9293 3.5.3
                    direction.put(first, segment)
    for key in list(now):
        close(key)
    return answer


class Sides(Stream):
    def __init__(self, answer: Answer, flow: Flow) -> None:
        self.answer, self.flow = answer, flow
        self.data: Tuple[List[bytes], List[bytes]] = ([], [])
        self.missing = [0, 0]

    def reassembled(self, chunk: Chunk) -> None:
        self.data[chunk.direction].append(bytes(chunk.data))

    def gap(self, gap: Gap) -> None:
        self.missing[gap.direction] += gap.length

    def complete(self, reason: str) -> None:
        for direction in Direction:
            key = reverse_key(self.flow.key) if direction else self.flow.key
            self.answer.setdefault(key, []).append((b"".join(self.data[direction]), self.missing[direction]))


class Factory(StreamFactory):
    def __init__(self) -> None:
        self.answer: Answer = {}

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return Sides(self.answer, flow)


def assembled(path: str) -> Answer:
    factory = Factory()
    with Assembler(factory) as assembler, open_capture(path) as capture:
        assembler.run(capture)
    return factory.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="CAPTURE")
    paths = parser.parse_args().paths
    warnings.simplefilter("ignore", CaptureWarning)
    compared = different = 0
    for path in paths:
        plain, found = union(path), assembled(path)
        for key in sorted({*plain, *found}):
            compared += 1
            (wanted, wanted_missing), (data, missing) = (
                (b"".join(part for part, _ in side.get(key, [])), sum(count for _, count in side.get(key, [])))
                for side in (plain, found)
            )
            if (wanted, wanted_missing) != (data, missing):
                different += 1
                source, destination = key_endpoints(key)
                print(f"{path}: {source} > {destination}: {len(data) - len(wanted):+} bytes, "
                      f"{missing - wanted_missing:+} missing")  # fmt: skip
    print(f"{different} of {compared} directions differ, in {len(paths)} captures")


if __name__ == "__main__":
    main()
