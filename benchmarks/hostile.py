"""How well the budget holds: hostile traffic with one honest stream in it, each shape and budget in its own process.

    python benchmarks/hostile.py --packets 200000
    python benchmarks/hostile.py syn-flood --budgets 16MiB

Prints the peak resident size above the start, the packets per second, and whether the honest stream lost bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

from frames import ACK, PSH, RST, SYN, Side, checksum, numbered, words
from memory import Watch
from workloads import payload

HONEST = 200_000_000  # the number of the connection that behaves well
HONEST_EVERY = 50
FULL = 1460


def opened(number: int = 0) -> Tuple[Side, int, List[bytes]]:
    """The client's side of an open connection, its next sequence number, and the frames that opened it."""
    connection = numbered(number)
    frames = connection.handshake()
    return connection.sides[0], connection.next_seq[0], frames


def syn_flood(count: int, rng: random.Random) -> Iterator[bytes]:
    for number in range(count):
        yield numbered(number).segment(0, flags=SYN)


def reverse_bytes(count: int, rng: random.Random) -> Iterator[bytes]:
    side, seq, frames = opened()
    yield from frames
    for distance in range(count, 0, -1):
        yield side.frame(seq + distance, 0, ACK, b"x")


def every_second_byte(count: int, rng: random.Random) -> Iterator[bytes]:
    side, seq, frames = opened()
    yield from frames
    for index in range(count):
        yield side.frame(seq + 2 * index + 1, 0, ACK, b"x")


def one_hole(count: int, rng: random.Random) -> Iterator[bytes]:
    side, seq, frames = opened()
    yield from frames
    content = payload(rng, FULL)
    for index in range(count):
        yield side.frame(seq + 1 + index * FULL, 0, ACK, content)


def page_each(count: int, rng: random.Random) -> Iterator[bytes]:
    for number in range(count // 4):
        side, seq, frames = opened(number)
        yield from frames
        yield side.frame(seq + 10, 0, ACK, b"x" * 100)


def stay_recent(count: int, rng: random.Random) -> Iterator[bytes]:
    """Pages held by connections that speak just often enough not to be the least recent."""
    held = min(20_000, count // 8)
    yield from page_each(4 * held, rng)
    sides = [numbered(number) for number in range(held)]
    for index in range(count - 4 * held):
        connection = sides[index % held]
        yield connection.sides[0].frame(connection.next_seq[0] + 1, 0, ACK)


def overlapping(count: int, rng: random.Random) -> Iterator[bytes]:
    side, seq, frames = opened()
    yield from frames
    for _ in range(count):
        yield side.frame(seq + rng.randrange(1, 1 << 16), 0, ACK, payload(rng, rng.randrange(1, FULL)))


def fragments(count: int, rng: random.Random) -> Iterator[bytes]:
    """Eight-byte middles of datagrams whose ends never come."""
    link = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0"
    for index in range(count):
        rest = struct.pack("!I4s", (10 << 24) + (index >> 16), b"\xc6\x33\x64\x07")
        head = struct.pack("!BBHHHBBH", 0x45, 0, 28, index & 0xFFFF, 0x2001 + rng.randrange(1000), 64, 6, 0)
        head = head[:10] + struct.pack("!H", checksum(words(head + rest)))
        yield link + head + rest + b"fragment"


def keeper(count: int, rng: random.Random) -> Iterator[bytes]:
    """In order; the handler of this shape keeps everything."""
    connections = [numbered(number) for number in range(64)]
    for connection in connections:
        yield from connection.handshake()
    for index in range(count):
        yield connections[index % 64].segment(0, payload(rng, FULL), ACK | PSH)


def sequence_jumps(count: int, rng: random.Random) -> Iterator[bytes]:
    side, _, frames = opened()
    yield from frames
    for _ in range(count):
        yield side.frame(rng.randrange(1 << 32), rng.randrange(1 << 32), ACK, payload(rng, rng.randrange(1, FULL)))


def rst_storm(count: int, rng: random.Random) -> Iterator[bytes]:
    sides = []
    for number in range(1000):
        side, _, frames = opened(number)
        sides.append(side)
        yield from frames
    for _ in range(count):
        yield rng.choice(sides).frame(rng.randrange(1 << 32), 0, RST)


def port_reuse(count: int, rng: random.Random) -> Iterator[bytes]:
    """One pair of ports, a new connection on it every four packets, each leaving data behind a hole."""
    connection = numbered(0)
    for _ in range(count // 4):
        connection.next_seq[:] = [rng.randrange(1 << 32), rng.randrange(1 << 32)]
        yield from connection.handshake()
        yield connection.sides[0].frame(connection.next_seq[0] + 100, connection.next_seq[1], ACK, b"x" * 50)


SHAPES: Dict[str, Callable[[int, random.Random], Iterator[bytes]]] = {
    "syn-flood": syn_flood,
    "reverse-bytes": reverse_bytes,
    "every-second-byte": every_second_byte,
    "one-hole": one_hole,
    "page-each": page_each,
    "stay-recent": stay_recent,
    "overlapping": overlapping,
    "fragments": fragments,
    "keeper": keeper,
    "sequence-jumps": sequence_jumps,
    "rst-storm": rst_storm,
    "port-reuse": port_reuse,
}


def mixed_in(hostile: Iterator[bytes], rng: random.Random, sent: Any) -> Iterator[bytes]:
    """The honest stream's packets between the others; `sent` digests its bytes."""
    honest = numbered(HONEST)
    yield from honest.handshake()
    for index, frame in enumerate(hostile):
        yield frame
        if index % HONEST_EVERY == 0:
            content = payload(rng, 500)
            sent.update(content)
            yield honest.segment(0, content, ACK | PSH)
    yield from honest.goodbye()


def measure(shape: str, budget: str, count: int) -> Dict[str, Any]:
    from tcpstitch import Assembler, Chunk, Limits, Stream, StreamFactory

    sent, received = hashlib.sha256(), hashlib.sha256()
    honest_key = numbered(HONEST).sides[0].key

    class Honest(Stream):
        def reassembled(self, chunk: Chunk) -> None:
            if chunk.direction == 0:
                received.update(chunk.data)

    class Ignoring(Stream):
        __slots__ = ()

    class Keeping(Stream):
        __slots__ = ()

        def reassembled(self, chunk: Chunk) -> None:
            chunk.keep_from(0)

    other = Keeping if shape == "keeper" else Ignoring

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Honest() if flow.key == honest_key else other()

    assembler = Assembler(Factory(), limits=Limits.from_memory(budget))
    packets = mixed_in(SHAPES[shape](count, random.Random(shape)), random.Random(1), sent)
    spent, timestamp, total = 0.0, 1.0, 0
    watch = Watch()
    for frame in packets:
        timestamp += 1e-5
        started = time.perf_counter()
        assembler.assemble(frame, timestamp)
        spent += time.perf_counter() - started
        total += 1
    assembler.flush_all()
    honest = "whole" if sent.digest() == received.digest() else "LOST BYTES"
    return watch.answer(rate=round(total / spent), honest=honest)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="SHAPE", help="of " + ", ".join(SHAPES))
    parser.add_argument("--budgets", default="16MiB,64MiB,256MiB")
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--here", action="store_true", help="measure in this process")
    options = parser.parse_args()
    budgets = options.budgets.split(",")
    if options.here:
        print(json.dumps(measure(options.shapes[0], budgets[0], options.packets)))
        return 0
    over = False
    print("| shape | budget | peak MiB | of budget | after flush_all MiB | packets/s | honest stream |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for shape in options.shapes:
        for budget in budgets:
            command = [sys.executable, os.path.abspath(__file__), shape, "--here", "--budgets", budget]
            command += ["--packets", str(options.packets)]
            answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            share = answer["peak_mib"] / float(budget.replace("MiB", ""))
            over = over or share > 1.15 or answer["honest"] != "whole"
            print(f"| {shape} | {budget} | {answer['peak_mib']} | {share:.2f} | {answer['after_mib']} "
                  f"| {answer['rate']:,} | {answer['honest']} |", flush=True)  # fmt: skip
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
