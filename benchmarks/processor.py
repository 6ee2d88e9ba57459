"""Processor instructions per packet, counted by valgrind: ratios that a busy machine does not change.

    python benchmarks/processor.py --write
    python benchmarks/processor.py --misses --write

A capture of each workload and one four times as large; the difference of the two runs, so that start-up does not count.
Instructions are not time, but they rise and fall with it. With `--misses` what makes them slower is counted for `run`,
on larger captures: what a model of a processor misses in its caches and predicts wrongly.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from typing import Dict, List, Sequence

import workloads
from report import write_section

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL, LARGE = 0.01, 0.04
MODEL = ["--cache-sim=yes", "--branch-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=524288,8,64"]
# Places in what callgrind prints then: instructions, reads, writes; misses of code, reads, writes in the first cache,
# the same in the last; branches, those predicted wrongly, indirect ones, those predicted wrongly.
MISSES = {
    "instructions": (0,),
    "code not in 32 KiB": (3,),
    "data not in 32 KiB": (4, 5),
    "data not in 512 KiB": (7, 8),
    "branches predicted wrongly": (10,),
    "jumps to a wrong place": (12,),
}
_WORKERS = {"tcpstitch.parallel, each of two workers": 2}  # whose instructions are counted together
PROGRAMS = {
    "dpkt, read and decode": "import runners; runners.dpkt_decode({path!r}, None)",
    "tcpstitch, read only": "import tcpstitch; sum(1 for _ in tcpstitch.open_capture({path!r}))",
    "tcpstitch run": "import runners; runners.run({path!r}, None)",
    "tcpstitch run, pcapng": "import runners, workloads; runners.run(workloads.pcapng({path!r}), None)",
    "tcpstitch assemble": "import runners; runners.assemble({path!r}, None)",
    "tcpstitch.parallel, one worker": "import cores; cores.in_this_process({path!r}, 1)",
    "tcpstitch.parallel, each of two workers": "import cores; cores.in_this_process({path!r}, 2)",
}


def counts(program: str, path: str, *model: str) -> List[int]:
    words = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", *model, sys.executable, "-c"]
    folders = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": folders}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or else modules are compiled each time
    words.append(program.format(path=path))
    done = subprocess.run(words, stderr=subprocess.PIPE, env=environment, check=True)
    return [int(number) for number in re.findall(rb"Collected : ([\d ]+)", done.stderr)[0].split()]


def per_packet(program: str, name: str, scales: Sequence[float], *model: str) -> List[float]:
    small, large = (workloads.make(name, scale) for scale in scales)
    for capture in (small, large):
        workloads.pcapng(capture.path)  # some programs read that; making it shall not count
    counts(program, workloads.make(name, SMALL).path)  # compiles what is not compiled yet
    pairs = zip(counts(program, large.path, *model), counts(program, small.path, *model))
    return [(more - less) / (large.packets - small.packets) for more, less in pairs]


def misses(names: List[str]) -> List[str]:
    """The table of what makes instructions slower."""
    found = {name: per_packet(PROGRAMS["tcpstitch run"], name, (0.05, 0.2), *MODEL) for name in names}
    rows = [(what, [sum(found[name][place] for place in places) for name in names]) for what, places in MISSES.items()]
    return [f"| {what} | " + " | ".join(f"{value:,.0f}" for value in values) + " |" for what, values in rows]


def instructions(names: List[str]) -> List[str]:
    """The table of instructions, with multiples of dpkt."""
    table: Dict[str, List[float]] = {}
    for title, program in PROGRAMS.items():
        workers = _WORKERS.get(title, 1)
        table[title] = [per_packet(program, name, (SMALL, LARGE))[0] / workers for name in names]
        print(f"{title:40}", *(f"{value:10,.0f}" for value in table[title]), flush=True)
    base = table["dpkt, read and decode"]
    lines = []
    for title, row in table.items():
        cells = [f"{value:,.0f} (×{much / value:.2f})" for value, much in zip(row, base)]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="bulk,mixed,lossy,many")
    parser.add_argument("--misses", action="store_true", help="count what makes instructions slower")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    options = parser.parse_args()
    names = options.workloads.split(",")
    command = "    python benchmarks/processor.py" + " --misses" * options.misses + " --write"
    lines = [command, "", "| | " + " | ".join(names) + " |", "|---" + "|---:" * len(names) + "|"]
    lines += misses(names) if options.misses else instructions(names)
    print("\n".join(lines))
    if options.write:
        write_section("misses" if options.misses else "processor", "\n".join(lines))


if __name__ == "__main__":
    main()
