"""How fast: this library and its peers over the same captures, interleaved, each run in a process of its own.

    python benchmarks/speed.py --rounds 5 --scale 1 --write

For each workload: median packets per second, the spread (slowest to fastest), the median of the ratios to dpkt's
read-and-decode loop in the same round, and whether the bytes are right (checked by sha256 in a run of its own, so that
hashing is not timed); then the peak resident size above that before the first packet. Missing peers are named.
`--write` puts the tables into docs/benchmarks.md. Wrong bytes from this library: exit status 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import Dict, List, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import workloads  # noqa: E402
from contestants import Runner, contestants, find_interpreter  # noqa: E402
from report import write_section  # noqa: E402

SMALL = 0.02  # of a workload, for those that take a thousand packets per second
MOST_ROUNDS = {"million": 2}  # eight million packets: minutes for each contestant
RIGHT, ZEROED = "right", "zeros for lost bytes"


class Row(NamedTuple):
    rates: List[float]
    to_dpkt: List[float]
    peak_kib: List[int]
    verdict: str


Table = Dict[str, Row]  # by contestant


def verdict(runner: Runner, capture: workloads.Capture) -> str:
    if not runner.delivers:
        return "-"
    try:
        digest = runner.measure(capture.path, True).get("digest")
    except subprocess.CalledProcessError as error:
        return f"FAILED with status {error.returncode}"
    return RIGHT if digest == capture.digest else ZEROED if digest == capture.zeroed else "WRONG BYTES"


def compete(runners: List[Runner], name: str, scale: float, folder: str, rounds: int) -> Table:
    """Each round runs every contestant once, so that a slow minute of the machine hits all of them."""
    captures = {r.name: workloads.make(name, min(scale, SMALL) if r.slow else scale, folder) for r in runners}
    table = {r.name: Row([], [], [], verdict(r, captures[r.name])) for r in runners}
    for _ in range(rounds):
        base = 0.0
        for runner in runners:
            row, capture = table[runner.name], captures[runner.name]
            if row.verdict.startswith("FAILED"):
                continue
            answer = runner.measure(capture.path, False)
            rate = (answer.get("packets") or capture.packets) / answer["seconds"]
            base = base or rate
            row.rates.append(rate)
            row.to_dpkt.append(rate / base)
            row.peak_kib.append(answer["peak_kib"] - answer["start_kib"])
    return table


def rate_cell(row: Row) -> str:
    if not row.rates:
        return row.verdict
    spread = f"{min(row.rates) / 1000:,.0f}–{max(row.rates) / 1000:,.0f} k"
    note = "" if row.verdict in (RIGHT, "-") else f" **{row.verdict}**"
    return f"{statistics.median(row.rates):,.0f} ({spread}) ×{statistics.median(row.to_dpkt):.2f}{note}"


def peak_cell(row: Row) -> str:
    return f"{statistics.median(row.peak_kib) / 1024:.1f}" if row.peak_kib else "-"


def markdown(tables: Dict[str, Table], names: List[str]) -> str:
    lines = []
    for cell, title in ((rate_cell, "Packets per second"), (peak_cell, "Peak above the start, MiB")):
        lines += [f"{title}:", "", "| | " + " | ".join(tables) + " |", "|---" * (len(tables) + 1) + "|"]
        for name in names:
            cells = [cell(table[name]) if name in table else "" for table in tables.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def machine() -> str:
    words = [f"CPython {platform.python_version()}", f"{os.cpu_count()} processors"]
    pypy = find_interpreter("pypy3")
    if pypy:
        code = "import sys; print('PyPy %d.%d.%d' % sys.pypy_version_info[:3], '(Python %d.%d)' % sys.version_info[:2])"
        words.append(subprocess.run([pypy, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode().strip())
    if shutil.which("go"):
        answer = subprocess.run(["go", "version"], stdout=subprocess.PIPE, check=True).stdout.decode()
        words.append("Go " + answer.split()[2].replace("go", "", 1))
    return ", ".join(words)


def sizes(captures: List[workloads.Capture], names: List[str]) -> str:
    return "; ".join(
        f"{name}: {capture.packets:,} packets, {capture.connections:,} connections, {capture.bytes / 1e6:,.0f} MB"
        for name, capture in zip(names, captures)
    )


def usable(runner: Runner, name: str) -> bool:
    return not (runner.v4_only and name == "v6vlan" or runner.hungry and name == "million")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", default=",".join(workloads.NAMES), help="of " + ",".join(workloads.NAMES))
    parser.add_argument("--scale", type=float, default=1.0, help="size of the captures")
    parser.add_argument("--folder", help="where the captures are kept (default: the temporary folder)")
    parser.add_argument("--only", default="", help="run only contestants whose name begins with one of these; a|b")
    parser.add_argument("--without", default="", help="leave out contestants whose name has one of these; a|b")
    parser.add_argument("--write", nargs="?", const="speed", help="write the tables into this section of the page")
    options = parser.parse_args()
    folder = options.folder or os.path.join(tempfile.gettempdir(), "tcpstitch-benchmarks")
    os.makedirs(folder, exist_ok=True)
    runners, missing = contestants(folder)
    wanted = tuple(word for word in options.only.split("|") if word)
    runners = [r for r in runners if not any(word in r.name for word in options.without.split("|") if word)]
    runners = [r for r in runners if r is runners[0] or not wanted or r.name.startswith(wanted)]
    names = options.workloads.split(",")
    tables: Dict[str, Table] = {}
    for name in names:
        rounds = min(options.rounds, MOST_ROUNDS.get(name, options.rounds))
        tables[name] = compete([r for r in runners if usable(r, name)], name, options.scale, folder, rounds)
        print(f"### {name}\n\n{markdown({name: tables[name]}, list(tables[name]))}", flush=True)
    captures = [workloads.make(name, options.scale, folder) for name in names]
    arguments = " ".join(word if word.replace("-", "").isalnum() else f'"{word}"' for word in sys.argv[1:])
    head = f"    python benchmarks/speed.py {arguments}\n\n{machine()}. {sizes(captures, names)}.\n"
    fewer = f", {MOST_ROUNDS['million']} for million" if "million" in names else ""
    head += f"Medians of {options.rounds} rounds{fewer} (slowest–fastest), × to dpkt in "
    head += "the same round. Missing here: " + (", ".join(missing) or "nobody") + ".\n\n"
    if options.write:
        write_section(options.write, head + markdown(tables, [runner.name for runner in runners]))
    own_rows = [row for table in tables.values() for name, row in table.items() if name.startswith("tcpstitch")]
    return 0 if all(row.verdict == RIGHT for row in own_rows) else 1


if __name__ == "__main__":
    sys.exit(main())
