"""What the stricter ways of reading cost: the time of each over that of lenient checks with delivery at arrival.

    python benchmarks/modes.py [--workloads bulk,mixed,lossy] [--scale 0.1] [--rounds 3]

The ways take turns over the same captures; the best round of each counts. Each must deliver the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from typing import Any, Dict, Tuple

import workloads

from tcpstitch import Assembler, Chunk, Flow, Segment, Stream, StreamFactory, open_capture

WAYS: Dict[str, Dict[str, Any]] = {
    "lenient": {},
    "lenient, acked": {"delivery": "acked"},
    "strict": {"checks": "strict"},
    "strict, acked": {"checks": "strict", "delivery": "acked"},
    "strict, linux-kernel": {"checks": "strict", "overlap": "linux-kernel"},
}


class Hashing(Stream):
    def __init__(self) -> None:
        self.hashes = (hashlib.sha256(), hashlib.sha256())

    def reassembled(self, chunk: Chunk) -> None:
        self.hashes[chunk.direction].update(chunk.data)


class Counting(Stream):
    def reassembled(self, chunk: Chunk) -> None:
        pass


class Factory(StreamFactory):
    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.streams: Dict[Flow, Any] = {}
        self.keep = kind is Hashing

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        stream: Stream = self.kind()
        if self.keep:
            self.streams[flow] = stream
        return stream


def run(path: str, options: Dict[str, Any], kind: Any) -> Tuple[float, Factory]:
    factory = Factory(kind)
    start = time.perf_counter()
    with Assembler(factory, **options) as assembler, open_capture(path) as capture:
        assembler.run(capture)
    return time.perf_counter() - start, factory


def digest(path: str, options: Dict[str, Any]) -> Dict[str, Tuple[str, str]]:
    _, factory = run(path, options, Hashing)
    return {str(flow): tuple(h.hexdigest() for h in stream.hashes) for flow, stream in factory.streams.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="bulk,mixed,lossy")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"| workload | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for name in options.workloads.split(","):
        path = workloads.make(name, options.scale).path
        right = digest(path, {})
        best = {way: float("inf") for way in WAYS}
        for way in WAYS:
            if digest(path, WAYS[way]) != right:
                print(f"{name}: {way} delivers other bytes than lenient checks")
        for _ in range(options.rounds):
            for way in WAYS:
                best[way] = min(best[way], run(path, WAYS[way], Counting)[0])
        ratios = [f"{best[way] / best['lenient']:.2f}" for way in WAYS]
        print(f"| {name} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
