"""What PyPy made of the packet path, counted: not changed by a busy machine, but by what it happened to compile first.

    python benchmarks/traces.py --write
    python benchmarks/traces.py --workloads many --where many

Per packet of a capture that is gone over several times, from PyPy's own log of the paths that it compiled and of how
often each was taken: operations executed, bytes allocated where the size is a constant, calls of functions that the
compiler does not look into. With `busy` for `run` the handler does what programs do: it formats the flow, keeps lists.
Operations are not time, but a path that was too long for PyPy, and was cut into calls, shows here at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from typing import Dict, Iterator, List, NamedTuple, Tuple

import contestants
import workloads
from report import write_section

NO_CODE = ("debug_merge_point", "enter_portal_frame", "leave_portal_frame", "force_token", "keepalive", "#", "-")
_HEAD = re.compile(r"# (?:Loop (\d+) |bridge out of Guard (0x\w+) with)")
_PLACE = re.compile(r"debug_merge_point\(\d+, \d+, '([\w<>]+);.*/(\w+)\.py:")
_LABEL = re.compile(r"label\(.*descr=(TargetToken\(\d+\))")
_GUARD = re.compile(r"descr=<Guard(0x\w+)>")
# Headers of PyPy's objects on 64 bits: of an object it is in its size, a string's has hash and length as well.
_OBJECT = re.compile(r"= new(?:_with_vtable)?\(descr=<SizeDescr (\d+)>")
_STRING = re.compile(r"= newstr\((\d+)\)")
_ARRAY = re.compile(r"= new_array(?:_clear)?\((\d+), descr=<Array\w+ (\d+)>")


class Operation(NamedTuple):
    """One that was compiled: how often it was executed, in which function, and its text."""

    times: int
    place: str
    text: str


def log_of(pypy: str, runner: str, path: str, packets: int, folder: str) -> List[str]:
    """PyPy's log of a process that goes over the capture until it has seen so many packets."""
    log = os.path.join(folder, "jit.log")
    environment = {**contestants.shelf_environment(folder), "PYPYLOG": f"jit-log-opt,jit-backend-counts:{log}"}
    contestants.python(pypy, runner, environment, warm=packets)(path, False)
    with open(log, encoding="utf-8", errors="replace") as lines:
        return lines.read().splitlines()


def executed(lines: List[str]) -> Iterator[Operation]:
    """All that was compiled. A path is left at a guard as often as the path that starts there was entered."""
    counts: Dict[str, int] = {}
    for line in lines[max(index for index, line in enumerate(lines) if "{jit-backend-counts" in line) :]:
        name, _, count = line.rpartition(":")
        if count.isdigit():
            counts[name] = int(count)
    entered = {guard: counts.get(f"bridge {int(guard, 16)}", 0) for _, guard in map(_head, lines) if guard}
    times, place = 0, ""
    inside = False
    for line in lines:
        loop, guard = _head(line)
        if loop or guard:
            times, place, inside = counts.get(f"entry {loop}", 0) if loop else entered[guard], "", True
        elif line.startswith("[") and "jit-" in line:
            inside = False
        elif inside:
            found, label = _PLACE.search(line), _LABEL.search(line)
            place = f"{found[2]}.{found[1]}" if found else place
            times = counts.get(label[1], 0) if label else times
            text = line.partition(": ")[2]
            if text and not label and not text.startswith(NO_CODE):
                yield Operation(times, place, text)
                leaves = _GUARD.search(line)
                times -= entered.get(leaves[1], 0) if leaves else 0


def _head(line: str) -> Tuple[str, str]:
    found = _HEAD.match(line)
    return (found[1] or "", found[2] or "") if found else ("", "")


def size_of(text: str) -> int:
    thing, string, array = _OBJECT.search(text), _STRING.search(text), _ARRAY.search(text)
    if thing:
        return int(thing[1])
    if string:
        return 25 + int(string[1])
    return 16 + int(array[1]) * int(array[2]) if array else 0


def is_call(text: str) -> bool:
    return re.search(r"(^|= )(cond_)?call_", text) is not None


def measure(pypy: str, runner: str, name: str, options: argparse.Namespace) -> Dict[str, float]:
    """Operations, bytes and calls per packet, of all passes over the capture."""
    capture = workloads.make(name, options.scale)
    with tempfile.TemporaryDirectory() as folder:
        operations = list(executed(log_of(pypy, runner, capture.path, options.packets, folder)))
    packets = capture.packets * (-(-options.packets // capture.packets) + 1)
    places: Counter[str] = Counter()
    sums = dict.fromkeys(("operations", "bytes", "calls"), 0.0)
    for times, place, text in operations:
        sums["operations"] += times / packets
        sums["bytes"] += times * size_of(text) / packets
        sums["calls"] += times * is_call(text) / packets
        places[place] += times
    print(name, runner, *(f"{value:.1f} {what}" for what, value in sums.items()), flush=True)
    if options.where == name:
        print(*(f"  {times / packets:7.1f} {place}" for place, times in places.most_common(20)), sep="\n")
    return sums


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="bulk,mixed,lossy,many")
    parser.add_argument("--scale", type=float, default=0.2, help="size of the captures")
    parser.add_argument("--packets", type=int, default=2_000_000, help="to go over")
    parser.add_argument("--where", metavar="WORKLOAD", help="name the functions that execute the most of one")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    options = parser.parse_args()
    pypy = contestants.find_interpreter("pypy3")
    if pypy is None:
        print("PyPy is not installed here: nothing counted")
        return 0
    names = options.workloads.split(",")
    lines = ["    python benchmarks/traces.py --write", "", "| | " + " | ".join(names) + " |"]
    lines.append("|---" + "|---:" * len(names) + "|")
    for runner in ("run", "busy"):
        found = [measure(pypy, runner, name, options) for name in names]
        for what, digits in (("operations", 0), ("bytes", 0), ("calls", 1)):
            cells = " | ".join(f"{sums[what]:,.{digits}f}" for sums in found)
            lines.append(f"| `{runner}`, {what} | {cells} |")
    if options.write:
        write_section("traces", "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
