"""What more processes bring: one capture in parts on several processes, beside the same on one.

    python benchmarks/cores.py --workloads mixed,many --scale 4 --processes 2

Both times are from the call of `tcpstitch.parallel.run` to its return, processes and all; the ceiling is what two
independent processes that share nothing reach on this machine at the same time, each over the whole capture.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from typing import Any, Callable, Dict, List

import workloads
from report import write_section

from tcpstitch import Chunk, Flow, Segment, Stream, StreamFactory, parallel
from tcpstitch.capture import ahead


class Counter(Stream):
    __slots__ = ("emit", "bytes")

    def __init__(self, emit: Callable[[Any], None]) -> None:
        self.emit = emit
        self.bytes = 0

    def reassembled(self, chunk: Chunk) -> None:
        self.bytes += len(chunk.data)

    def complete(self, reason: str) -> None:
        self.emit(self.bytes)


class Factory(StreamFactory):
    """Emits the bytes of each connection."""

    def __init__(self, emit: Callable[[Any], None]) -> None:
        self.emit = emit

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return Counter(self.emit)


class Here(Executor):
    """Does in this process what others would be sent, and what they would do with it."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        function, given = pickle.loads(pickle.dumps((fn, args)))
        future.set_result(pickle.loads(pickle.dumps(function(*given))))
        return future


def in_this_process(path: str, parts: int) -> None:
    """What `parts` workers do, one after the other, also where the capture is too small to be looked at before."""
    ahead.LEAST_BYTES = 0
    parallel.run(path, Factory, parts=parts, workers=parts, executor=Here())


def seconds(path: str, processes: int, size: int) -> float:
    started = time.perf_counter()
    outcome = parallel.run(path, Factory, workers=processes)
    spent = time.perf_counter() - started
    if sum(outcome.results) != size:
        raise SystemExit(f"{path} on {processes} processes: {sum(outcome.results)} bytes instead of {size}")
    return spent


def together(path: str, count: int) -> float:
    """`count` independent processes over the whole capture at once: their seconds, as each measures itself."""
    words = [sys.executable, __file__, "--one", path]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(count)]
    return statistics.mean(float(process.communicate()[0]) for process in running)


def compare(name: str, scale: float, processes: int, rounds: int) -> Dict[str, Any]:
    capture = workloads.make(name, scale)
    times: Dict[int, List[float]] = {1: [], processes: []}
    ceilings = []
    for _ in range(rounds):
        for count, spent in times.items():
            spent.append(seconds(capture.path, count, capture.bytes))
        ceilings.append(processes * together(capture.path, 1) / together(capture.path, processes))
    return {
        "packets": capture.packets,
        "one": capture.packets / statistics.median(times[1]),
        "several": capture.packets / statistics.median(times[processes]),
        "gain": statistics.median(one / several for one, several in zip(times[1], times[processes])),
        "ceiling": statistics.median(ceilings),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="mixed,many")
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", metavar="PATH", help="measure one process over PATH and print its seconds")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    options = parser.parse_args()
    if options.one:
        started = time.perf_counter()
        parallel.run(options.one, Factory, workers=1)
        print(time.perf_counter() - started)
        return
    lines = [f"    python benchmarks/cores.py {' '.join(sys.argv[1:])}", ""]
    lines.append(f"| | packets | one process, packets/s | {options.processes} processes | gain | ceiling |")
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name in options.workloads.split(","):
        row = compare(name, options.scale, options.processes, options.rounds)
        line = "| {} | {packets:,} | {one:,.0f} | {several:,.0f} | {gain:.2f} | {ceiling:.2f} |".format(name, **row)
        print(line, flush=True)
        lines.append(line)
    if options.write:
        write_section("cores", "\n".join(lines))


if __name__ == "__main__":
    main()
