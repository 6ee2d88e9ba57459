"""Has the library become slower or larger? Counted, not timed, so that a busy machine gives the same answer.

    python benchmarks/guard.py             # compare with benchmarks/guard.json; exit status 1 if something grew
    python benchmarks/guard.py --record    # write the figures of this Python version there
    python benchmarks/guard.py --where mixed    # which functions execute the most

Per packet of small fixed captures: bytecode instructions, and calls of Python and of C functions, from the file to a
handler that counts bytes. Per open connection: blocks and bytes of memory, and objects that the garbage collector
tracks. The figures depend on the version of CPython; one that has none recorded is named and passes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from typing import Any, Callable, Dict

import runners
import workloads
from frames import numbered

from tcpstitch import Assembler

RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.json")
TOLERANCE = 0.05
SCALES = {
    "bulk": 0.02, "mixed": 0.02, "stamped": 0.02, "lossy": 0.02, "many": 0.01, "v6vlan": 0.01, "reorder": 0.02,
    "churn": 0.005,
}  # fmt: skip
CONNECTIONS = 2000
Figures = Dict[str, Dict[str, float]]


def instructions(work: Callable[[], Any]) -> Counter[Any]:
    """Bytecode instructions that `work` executes, by code object, in whatever code."""
    count: Counter[Any] = Counter()

    def each(frame: Any, event: str, argument: Any) -> Any:
        if event == "opcode":
            count[frame.f_code] += 1
        return each

    def enter(frame: Any, event: str, argument: Any) -> Any:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return each

    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def calls(work: Callable[[], Any]) -> int:
    """Calls, of Python and C functions and into generators."""
    count = 0

    def each(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    sys.setprofile(each)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def per_packet(name: str, folder: str, run: Callable[[str, None], Any] = runners.run) -> Dict[str, float]:
    capture = workloads.make(name, SCALES[name], folder)

    def work() -> None:
        packets, size = run(capture.path, None)
        assert (packets, size) == (capture.packets, capture.bytes), f"{name}: {size} bytes instead of {capture.bytes}"

    work()  # imports and caches are not what is counted
    return {
        "instructions": round(sum(instructions(work).values()) / capture.packets, 1),
        "calls": round(calls(work) / capture.packets, 2),
    }


def where(name: str, folder: str) -> None:
    """Print which functions execute the most bytecode instructions per packet."""
    capture = workloads.make(name, SCALES[name], folder)
    runners.run(capture.path, None)
    counts = instructions(lambda: runners.run(capture.path, None))
    print(f"{name}: {sum(counts.values()) / capture.packets:.1f} instructions per packet")
    for code, count in counts.most_common(20):
        file = os.path.basename(code.co_filename)
        print(f"{count / capture.packets:8.1f}  {file}:{code.co_firstlineno} {code.co_name}")


def per_connection() -> Dict[str, float]:
    """What an established connection without data holds."""
    frames = [frame for number in range(CONNECTIONS) for frame in numbered(number).handshake()]
    factory, _ = runners.own_factory(None)

    def opened() -> Assembler:
        assembler = Assembler(factory)
        for index, frame in enumerate(frames):
            assembler.assemble(frame, 1 + index * 1e-6)
        gc.collect()
        return assembler

    opened()
    gc.collect()
    blocks, tracked = sys.getallocatedblocks(), len(gc.get_objects())
    kept = opened()
    counted = {
        "blocks": round((sys.getallocatedblocks() - blocks) / CONNECTIONS, 1),
        "tracked objects": round((len(gc.get_objects()) - tracked) / CONNECTIONS, 1),
    }
    del kept
    gc.collect()
    tracemalloc.start()
    kept = opened()
    counted["bytes"] = round(tracemalloc.get_traced_memory()[0] / CONNECTIONS)
    tracemalloc.stop()
    assert kept.statistics().connections == CONNECTIONS
    return counted


def measure() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: per_packet(name, folder) for name in SCALES}
        for name in ("bulk", "mixed"):
            figures[f"{name}, strict"] = per_packet(name, folder, runners.strict)
        figures["bulk, pcapng"] = per_packet("bulk", folder, lambda path, _: runners.run(workloads.pcapng(path), None))
    return {**figures, "an open connection": per_connection()}


def compare(now: Figures, before: Figures) -> int:
    """Print each figure beside the recorded one; how many grew beyond the tolerance."""
    grown = shrunk = 0
    for name, figures in now.items():
        for what, value in figures.items():
            old = before.get(name, {}).get(what)
            change = 0.0 if not old else value / old - 1
            grown += old is None or change > TOLERANCE
            shrunk += change < -TOLERANCE
            word = "NOT RECORDED" if old is None else "GREW" if change > TOLERANCE else ""
            print(f"{name:20} {what:16} {value:10,.1f}  recorded {old or 0:10,.1f}  {change:+7.1%}  {word}")
    if grown:
        print(f"{grown} grew by more than {TOLERANCE:.0%}: find out why, or record them: benchmarks/guard.py --record")
    elif shrunk:
        print("Smaller than recorded: `benchmarks/guard.py --record` holds what was won.")
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the figures instead of comparing them")
    parser.add_argument("--where", choices=list(SCALES), help="print the functions that execute the most")
    options = parser.parse_args()
    if options.where:
        with tempfile.TemporaryDirectory() as folder:
            where(options.where, folder)
        return 0
    version = "{}.{}".format(*sys.version_info)
    if sys.implementation.name != "cpython":
        print("skipped: only CPython's bytecode is counted")
        return 0
    with open(RECORD, encoding="ascii") as file:
        recorded: Dict[str, Figures] = json.load(file)
    if version not in recorded and not options.record:
        print(f"skipped: nothing is recorded for CPython {version}; recorded are {', '.join(recorded)}")
        return 0
    started = time.perf_counter()
    now = measure()
    print(f"CPython {version}, counted in {time.perf_counter() - started:.1f} s")
    if options.record:
        recorded[version] = now
        with open(RECORD, "w", encoding="ascii") as file:
            json.dump(dict(sorted(recorded.items())), file, indent=1)
            file.write("\n")
        print(f"recorded in {os.path.relpath(RECORD)}")
        return 0
    return 1 if compare(now, recorded[version]) else 0


if __name__ == "__main__":
    sys.exit(main())
