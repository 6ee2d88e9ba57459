"""How long an interpreter takes to warm up: processor time per packet of each pass over a capture within one process.

    python benchmarks/warmup.py --passes 4 --rounds 3
    python benchmarks/warmup.py --workloads lossy --passes 12 --jit decay=0 --jit function_threshold=300,decay=0

On PyPy unless `--interpreter` names another; microseconds, the least of the rounds. Each `--jit` takes its turn too, as
an option of the interpreter. So does gopacket's fastest in each round, where Go and its package are installed: its time
is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from typing import Dict, List

import contestants
import workloads

_PASSES = """
import sys, time
sys.path.insert(0, {here!r})
import runners
for _ in range({passes}):
    started = time.process_time()
    packets, _ = runners.run({path!r}, None)
    print((time.process_time() - started) / packets * 1e6)
"""


def passes(interpreter: List[str], environment: Dict[str, str], path: str, count: int) -> List[float]:
    program = _PASSES.format(here=contestants.HERE, passes=count, path=path)
    done = subprocess.run([*interpreter, "-c", program], stdout=subprocess.PIPE, env=environment, check=True)
    return [float(word) for word in done.stdout.split()]


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def gopacket(program: str, path: str) -> float:
    before = children_seconds()
    words = [program, "-decode", "parser", path]
    answer = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    return (children_seconds() - before) / float(answer["packets"]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="bulk,mixed,lossy,many")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interpreter", default="pypy3")
    parser.add_argument("--jit", action="append", default=[], metavar="SETTINGS")
    options = parser.parse_args()
    interpreter = contestants.find_interpreter(options.interpreter)
    if interpreter is None:
        sys.exit(f"no {options.interpreter} here")
    with tempfile.TemporaryDirectory() as folder:
        environment = contestants.shelf_environment(folder)
        go = contestants.build_go("tcpassembly", folder)
        if go is None:
            print("missing: gopacket tcpassembly")
        for name in options.workloads.split(","):
            path = os.path.abspath(workloads.make(name, options.scale).path)
            settings = ["", *options.jit]
            rows: Dict[str, List[List[float]]] = {setting: [] for setting in settings}
            peer = []
            for _ in range(options.rounds):
                for setting in settings:
                    words = [interpreter, "--jit", setting] if setting else [interpreter]
                    rows[setting].append(passes(words, environment, path, options.passes))
                if go is not None:
                    peer.append(gopacket(go, path))
            for setting in settings:
                cells = " ".join(f"{min(column):6.2f}" for column in zip(*rows[setting]))
                print(f"{name:8} passes {cells}" + (f"   --jit {setting}" if setting else ""), flush=True)
            if peer:
                print(f"{name:8} gopacket {min(peer):4.2f}", flush=True)


if __name__ == "__main__":
    main()
