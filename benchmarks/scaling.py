"""The shape of the cost: by connections, by buffered extents, by bytes. Each point in a process of its own.

    python benchmarks/scaling.py --write

`connections`: microseconds per packet with that many connections open, data in order on all of them in turn, beside a
plain dict of the same keys with a counter each; and the bytecode instructions per packet, which no cache changes.
`extents`: microseconds per segment to put that many segments, each behind a hole of its own, into one connection in
random order, and to close it; beside a `dict` of offsets, sorted at the end. `bytes`: the same for each segment size,
data in order on one connection.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

from frames import ACK, PSH, numbered
from guard import instructions
from picture import Panel, draw
from report import write_picture, write_section
from runners import own_factory

PACKETS = 200_000
COUNTED = "instructions"  # of bytecode, not microseconds
Point = Dict[str, float]


def assembler(**options: Any) -> Any:
    from tcpstitch import Assembler, Limits, Timeouts

    return Assembler(own_factory(None)[0], limits=Limits(**options), timeouts=Timeouts(gap=None, idle=None))


def connections(count: int) -> Point:
    """One segment of 100 bytes per connection and turn; frames are made before the clock starts, turn by turn."""
    wanted = assembler(max_connections=2 * count)
    sides = []
    for number in range(count):
        connection = numbered(number)
        for frame in connection.handshake():
            wanted.assemble(frame, 1.0)
        sides.append(connection)
    gc.collect()
    gc.freeze()
    plain: Dict[bytes, int] = dict.fromkeys((side.sides[0].key for side in sides), 0)
    turns = max(1, PACKETS // count)
    own_seconds = dict_seconds = 0.0
    for _ in range(turns):
        for start in range(0, count, 20_000):
            frames = [side.segment(0, b"x" * 100, ACK | PSH) for side in sides[start : start + 20_000]]
            started = time.perf_counter()
            for frame in frames:
                wanted.assemble(frame, 2.0)
            between = time.perf_counter()
            for frame in frames:
                plain[frame[26:38]] += len(frame) - 34 - (frame[46] >> 4) * 4
            dict_seconds += time.perf_counter() - between
            own_seconds += between - started
    packets = turns * count
    assert wanted.statistics().bytes == 100 * packets
    frames = [side.segment(0, b"x" * 100, ACK | PSH) for side in sides[:2000]]
    steps = instructions(lambda: [wanted.assemble(frame, 2.0) for frame in frames])
    return {
        "tcpstitch": own_seconds / packets * 1e6,
        "plain dict": dict_seconds / packets * 1e6,
        COUNTED: sum(steps.values()) / len(frames),
    }


def extents(count: int) -> Point:
    """Every second segment of 10 bytes is missing; the others come in random order."""
    wanted = assembler(max_buffered_pages_per_connection=2 * count + 10, max_buffered_pages_total=2 * count + 10)
    connection = numbered(0)
    for frame in connection.handshake():
        wanted.assemble(frame, 1.0)
    side, first = connection.sides[0], connection.next_seq[0]
    order = list(range(count))
    random.Random(count).shuffle(order)
    frames = [side.frame(first + 20 * index + 10, 0, ACK, b"0123456789") for index in order]
    started = time.perf_counter()
    for frame in frames:
        wanted.assemble(frame, 2.0)
    held = wanted.statistics().pages_used
    wanted.flush_all()
    own_seconds = time.perf_counter() - started
    assert held and wanted.statistics().bytes == 10 * count
    started = time.perf_counter()
    plain = {frame[38:42]: frame[54:] for frame in frames}
    total = sum(len(plain[key]) for key in sorted(plain))
    dict_seconds = time.perf_counter() - started
    assert total == 10 * count
    return {"tcpstitch": own_seconds / count * 1e6, "dict, sorted at the end": dict_seconds / count * 1e6}


def segment_bytes(size: int) -> Point:
    """Data in order in segments of `size` bytes."""
    wanted = assembler()
    connection = numbered(0)
    for frame in connection.handshake():
        wanted.assemble(frame, 1.0)
    spent, count = 0.0, min(PACKETS, 400_000_000 // (size + 54)) // 1000
    for _ in range(count):
        frames = [connection.segment(0, bytes(size), ACK | PSH) for _ in range(1000)]
        started = time.perf_counter()
        for frame in frames:
            wanted.assemble(frame, 2.0)
        spent += time.perf_counter() - started
    assert wanted.statistics().bytes == size * count * 1000
    return {"tcpstitch": spent / count * 1e3}


SHAPES: Dict[str, Tuple[Callable[[int], Point], List[int], str]] = {
    "connections": (connections, [100, 1_000, 10_000, 100_000, 1_000_000], "open connections"),
    "extents": (extents, [10, 100, 1_000, 10_000, 100_000, 1_000_000], "buffered extents"),
    "bytes": (segment_bytes, [10, 100, 1_000, 10_000, 60_000], "bytes per segment"),
}


def measured(shape: str, value: int, rounds: int) -> Point:
    words = [sys.executable, __file__, "--here", shape, "--value", str(value)]
    points = [json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout) for _ in range(rounds)]
    return {name: statistics.median(point[name] for point in points) for name in points[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--write", action="store_true", help="write table and picture into docs/benchmarks.md")
    parser.add_argument("--here", help="measure one point in this process")
    parser.add_argument("--value", type=int)
    options = parser.parse_args()
    if options.here:
        SHAPES[options.here][0](10)  # whatever is imported when it is first needed
        json.dump(SHAPES[options.here][0](options.value), sys.stdout)
        return
    lines = [f"    python benchmarks/scaling.py --rounds {options.rounds} --write", ""]
    lines += ["| | | microseconds per packet |", "|---|---:|---|"]
    panels = []
    for shape in options.shapes.split(","):
        _, values, label = SHAPES[shape]
        drawn: Dict[str, List[Tuple[float, float]]] = {}
        for value in values:
            point = measured(shape, value, options.rounds)
            for name, cost in point.items():
                if name != COUNTED:
                    drawn.setdefault(name, []).append((float(value), cost))
            lines.append(f"| {label} | {value:,} | " + ", ".join(f"{n} {c:.2f}" for n, c in point.items()) + " |")
            print(lines[-1], flush=True)
        panels.append(Panel(f"Cost by {label}", label, "µs per packet", drawn, True))
    if options.write:
        lines += ["", write_picture("scaling", draw(panels, 3))]
        write_section("scaling", "\n".join(lines))


if __name__ == "__main__":
    main()
