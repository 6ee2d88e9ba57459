"""Hostile and honest traffic mixed, at full speed for as long as asked, in a process that may not grow.

    python benchmarks/soak.py --seconds 3600

All shapes of hostile.py take turns, each over and over with other numbers, beside short honest conversations and one
long honest stream whose bytes are compared. Once the bounds were reached, resident size is sampled once a second.
A line a minute on standard error says how far it is.
Exit status 1 when the mean of the last quarter of the samples is not within 2% of that of the second quarter, or honest
bytes were lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, BinaryIO, Iterator, List

from frames import ACK, PSH, numbered
from hostile import SHAPES
from runners import memory_kib
from workloads import conversation, payload

REPORT_EVERY = 60  # samples, that is seconds, between two lines on standard error
TURN = 200  # packets of one shape before the next has its turn
WARM_UP = 200_000  # packets until every bound was reached; sampling starts behind them
STEP = 1e-4  # seconds of capture time between two packets
LONG = 210_000_000  # the number of the long honest stream; conversations count on from there


def endless(name: str) -> Iterator[bytes]:
    """The shape again and again, each time longer or shorter and from another seed."""
    for turn in range(1 << 62):
        rng = random.Random(f"{name} {turn}")
        yield from SHAPES[name].frames(rng.randrange(2_000, 50_000), rng)


def conversations() -> Iterator[bytes]:
    """Short honest connections, one after the other."""
    rng = random.Random(2)
    for number in range(1 << 62):
        for frame, _ in conversation(rng, numbered(LONG + 1 + number % 1_000_000)):
            yield frame


def produce(out: BinaryIO) -> None:
    """Frames until nobody wants them, each behind its length and, if of the long stream, with the top bit set there."""
    hostile = [endless(name) for name in SHAPES]
    honest = conversations()
    long = numbered(LONG)
    rng = random.Random(3)

    def put(frame: bytes, mark: int = 0) -> None:
        out.write((len(frame) | mark).to_bytes(4, "big") + frame)

    for frame in long.handshake():
        put(frame)
    while True:
        for shape in hostile:
            for _ in range(TURN):
                put(next(shape))
            for _ in range(TURN // 4):
                put(next(honest))
            for _ in range(4):
                put(long.segment(0, payload(rng, 1000), ACK | PSH), 1 << 31)


def handlers(received: Any) -> Any:
    """A factory: the long stream is hashed into `received`, one connection in sixteen keeps all it gets."""
    from tcpstitch import Chunk, Stream, StreamFactory

    long_key = numbered(LONG).sides[0].key

    class Long(Stream):
        def reassembled(self, chunk: Chunk) -> None:
            if chunk.direction == 0:
                received.update(chunk.data)

    class Counting(Stream):
        __slots__ = ("bytes",)

        def __init__(self) -> None:
            self.bytes = 0

        def reassembled(self, chunk: Chunk) -> None:
            self.bytes += len(chunk.data)

    class Keeping(Counting):
        __slots__ = ()

        def reassembled(self, chunk: Chunk) -> None:
            chunk.keep_from(0)

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            if flow.key == long_key:
                return Long()
            return Keeping() if flow.client.port % 16 == 0 else Counting()

    return Factory()


def quarters(samples: List[int]) -> List[float]:
    """The mean of each quarter of the samples, in MiB."""
    size = len(samples) // 4
    return [statistics.mean(samples[turn * size : (turn + 1) * size]) / 1024 for turn in range(4)]


def soak(source: BinaryIO, seconds: float, budget: str) -> dict[str, Any]:
    from tcpstitch import Assembler, Limits

    sent, received = hashlib.sha256(), hashlib.sha256()
    assembler = Assembler(handlers(received), limits=Limits.from_memory(budget))
    timestamp, total = 1.0, 0
    samples: List[int] = []
    started = now = time.monotonic()
    next_sample = started + 1
    while now - started < seconds or total < WARM_UP:
        for _ in range(1000):
            size = int.from_bytes(source.read(4), "big")
            frame = source.read(size & 0x7FFFFFFF)
            if size >> 31:
                sent.update(frame[54:])
            timestamp += STEP
            assembler.assemble(frame, timestamp)
        total += 1000
        now = time.monotonic()
        if total == WARM_UP:
            started, next_sample = now, now + 1
            samples.clear()
        if now >= next_sample:
            samples.append(memory_kib("VmRSS"))
            next_sample += 1
            if len(samples) % REPORT_EVERY == 0:
                means = ", ".join(f"{mean:.2f}" for mean in quarters(samples))
                print(f"{len(samples)} s, {total:,} packets, mean MiB of each quarter so far: {means}",
                      file=sys.stderr, flush=True)  # fmt: skip
    counts = assembler.statistics()
    assembler.flush_all()
    means = quarters(samples)
    return {
        "seconds": round(now - started), "packets": total,
        "packets_per_second": round((total - WARM_UP) / (now - started)),
        "start_mib": round(samples[0] / 1024, 1), "quarters_mib": [round(mean, 2) for mean in means],
        "change": round(means[3] / means[1] - 1, 4),
        "peak_mib": round(memory_kib("VmHWM") / 1024, 1), "honest": sent.digest() == received.digest(),
        "given_up": dict(counts.evictions_by_kind), "after_flush_mib": round(memory_kib("VmRSS") / 1024, 1),
    }  # fmt: skip


def in_own_process(seconds: float, budget: str) -> dict[str, Any]:
    program = [sys.executable, os.path.abspath(__file__)]
    with subprocess.Popen([*program, "--produce"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as producer:
        words = [*program, "--here", "--seconds", str(seconds), "--budget", budget]
        done = subprocess.run(words, stdin=producer.stdout, stdout=subprocess.PIPE, check=True)
        producer.kill()
    return dict(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--budget", default="16MiB")
    parser.add_argument("--here", action="store_true", help="take frames from standard input")
    parser.add_argument("--produce", action="store_true", help="write frames to standard output")
    options = parser.parse_args()
    if options.produce:
        produce(sys.stdout.buffer)
    elif options.here:
        # The process may have what the interpreter has now and three budgets of address space; beyond that it fails.
        room = memory_kib("VmSize") * 1024 + 3 * int(options.budget.replace("MiB", "")) * 2**20 + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        print(json.dumps(soak(sys.stdin.buffer, options.seconds, options.budget)))
    else:
        answer = in_own_process(options.seconds, options.budget)
        print(json.dumps(answer, indent=1))
        return 0 if abs(answer["change"]) <= 0.02 and answer["honest"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
