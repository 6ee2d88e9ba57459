"""Processor instructions per packet, counted by valgrind: ratios that a busy machine does not change.

    python benchmarks/processor.py --write

A capture of each workload and one four times as large; the difference of the two runs, so that start-up does not count.
Instructions are not time (a cache miss costs what a hundred of them do), but they rise and fall with it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from typing import Dict

import workloads
from report import write_section

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL, LARGE = 0.01, 0.04
_PART = "import cores; from tcpstitch import parallel as p; a = p._work(p._Task({path!r}, {part}, cores.Factory, {{}}))"
PROGRAMS = {
    "dpkt, read and decode": "import runners; runners.dpkt_decode({path!r}, None)",
    "tcpstitch, read only": "import tcpstitch; sum(1 for _ in tcpstitch.open_capture({path!r}))",
    "tcpstitch run": "import runners; runners.run({path!r}, None)",
    "tcpstitch assemble": "import runners; runners.assemble({path!r}, None)",
    "tcpstitch.parallel, all in one part": _PART.replace("{part}", "0, 1") + "; assert not a.failure",
    "tcpstitch.parallel, one of two parts": _PART.replace("{part}", "1, 2") + "; assert not a.failure",
}


def instructions(program: str, path: str) -> int:
    words = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", sys.executable, "-c"]
    folders = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": folders}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or else modules are compiled each time
    words.append(program.format(path=path))
    done = subprocess.run(words, stderr=subprocess.PIPE, env=environment, check=True)
    return int(re.findall(rb"Collected : (\d+)", done.stderr)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workloads", default="bulk,mixed,lossy,many")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    options = parser.parse_args()
    names = options.workloads.split(",")
    table: Dict[str, Dict[str, float]] = {program: {} for program in PROGRAMS}
    for name in names:
        small, large = workloads.make(name, SMALL), workloads.make(name, LARGE)
        for title, program in PROGRAMS.items():
            if name == names[0]:
                instructions(program, small.path)  # compiles what is not compiled yet
            more = instructions(program, large.path) - instructions(program, small.path)
            table[title][name] = more / (large.packets - small.packets)
            print(f"{name:8} {title:40} {table[title][name]:10,.0f}", flush=True)
    lines = ["    python benchmarks/processor.py --write", "", "| | " + " | ".join(names) + " |"]
    lines.append("|---" + "|---:" * len(names) + "|")
    base = table["dpkt, read and decode"]
    for title, row in table.items():
        cells = [f"{row[name]:,.0f} (×{base[name] / row[name]:.2f})" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if options.write:
        write_section("processor", "\n".join(lines))


if __name__ == "__main__":
    main()
