"""How fast: this library and its peers over the same captures, interleaved, each run in a process of its own.

    python benchmarks/speed.py --rounds 5 --scale 0.3 --workloads bulk,mixed,lossy,many

Prints, for each workload, the median packets per second, the spread (slowest to fastest), the median of the ratios to
dpkt's read-and-decode loop in the same round, the peak resident size above that before the first packet, and whether
the bytes are right (checked in a run of its own, so that hashing is not timed). Missing peers are named. Wrong bytes
from this library: exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import workloads  # noqa: E402

Answer = Dict[str, Any]
Measure = Callable[[str, bool], Answer]  # (path, hashing)
Environment = Optional[Dict[str, str]]


class Runner(NamedTuple):
    """A contestant: `measure(path, hashing)` gives the object that runners.py prints."""

    name: str
    measure: Measure
    delivers: bool = True  # False: it only decodes, so there are no bytes to check
    v4_only: bool = False


def command(*words: str, environment: Environment = None) -> Measure:
    """A runner that prints its answer as JSON."""

    def measure(path: str, hashing: bool) -> Answer:
        extra = ["--hash"] if hashing else []
        done = subprocess.run([*words, *extra, path], stdout=subprocess.PIPE, env=environment, check=True)
        return dict(json.loads(done.stdout))

    return measure


def python(interpreter: str, runner: str, environment: Environment = None) -> Measure:
    def measure(path: str, hashing: bool) -> Answer:
        words = [interpreter, os.path.join(HERE, "runners.py"), runner, path] + (["--hash"] if hashing else [])
        done = subprocess.run(words, stdout=subprocess.PIPE, env=environment, check=True)
        return dict(json.loads(done.stdout))

    return measure


def has_module(interpreter: str, name: str, environment: Environment = None) -> bool:
    words = [interpreter, "-c", f"import {name}"]
    done = subprocess.run(words, stderr=subprocess.DEVNULL, env=environment, check=False)
    return done.returncode == 0


def pypy_environment(folder: str) -> Dict[str, str]:
    """PyPy sees this library and the two pure Python packages it needs, and nothing else of this interpreter."""
    import dpkt
    import sortedcontainers

    import tcpstitch

    shelf = os.path.join(folder, "pypy-path")
    os.makedirs(shelf, exist_ok=True)
    for module in (dpkt, sortedcontainers, tcpstitch):
        source = os.path.dirname(os.path.abspath(str(module.__file__)))
        link = os.path.join(shelf, os.path.basename(source))
        if not os.path.exists(link):
            os.symlink(source, link)
    return {**os.environ, "PYTHONPATH": shelf, "PYTHONDONTWRITEBYTECODE": "1"}


def build_go(engine: str, folder: str) -> Optional[str]:
    """The peer program of a gopacket engine, or None where Go or the packages are missing."""
    go = shutil.which("go")
    target = os.path.join(folder, f"gopacket-{engine}")
    sources = [os.path.join(HERE, "peers", name) for name in ("capture.go", f"{engine}.go")]
    if go is None:
        return None
    environment = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": os.path.join(folder, "go-cache")}
    done = subprocess.run([go, "build", "-o", target, *sources], env={**os.environ, **environment}, check=False)
    return target if done.returncode == 0 else None


def timed(words: List[str], **options: Any) -> Answer:
    """A foreign program as a whole: its start-up counts, so short captures do it wrong."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise subprocess.CalledProcessError(status, words)
    return {"seconds": time.perf_counter() - started, "peak_kib": usage.ru_maxrss, "start_kib": 0}


def tcpflow(path: str, hashing: bool) -> Answer:
    """tcpflow to files in memory. With hashing the files' names and bytes become the digest."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        answer = timed(["tcpflow", "-q", "-o", folder, "-r", path])
        if hashing:
            answer["digest"] = digest_of_files(folder)
    return answer


def digest_of_files(folder: str) -> str:
    digest = workloads.Digest()
    for entry in os.scandir(folder):
        ends = [end.split(".") for end in entry.name.split("-")]
        if len(ends) == 2 and all(len(end) == 5 and all(part.isdigit() for part in end) for end in ends):
            key = b"".join(bytes(int(part) for part in end[:4]) for end in ends)
            key += b"".join(int(end[4]).to_bytes(2, "big") for end in ends)
            with open(entry.path, "rb") as file:
                digest.update(key, file.read())
    return digest.hexdigest()


def tshark(path: str, hashing: bool) -> Answer:
    """tshark printing the payload of each segment: no reassembly, no digest."""
    return timed(["tshark", "-n", "-r", path, "-T", "fields", "-e", "tcp.stream", "-e", "tcp.payload"])


def contestants(folder: str, slow: bool) -> "tuple[List[Runner], List[str]]":
    """Who can run here, and who is missing."""
    me = sys.executable
    found = [
        Runner("dpkt, read and decode", python(me, "dpkt"), delivers=False),
        Runner("dpkt and a dict of lists", python(me, "dpkt-dict")),
        Runner("plain dict, count only", python(me, "plain-dict"), delivers=False, v4_only=True),
        Runner("tcpstitch run", python(me, "run")),
        Runner("tcpstitch assemble", python(me, "assemble")),
    ]
    missing: List[str] = []
    pypy = shutil.which("pypy3")
    environment = pypy_environment(folder)
    if pypy and has_module(pypy, "tcpstitch, dpkt", environment):
        found.append(Runner("tcpstitch run, PyPy", python(pypy, "run", environment)))
        found.append(Runner("tcpstitch assemble, PyPy", python(pypy, "assemble", environment)))
    else:
        missing.append("PyPy")
    for engine in ("reassembly", "tcpassembly"):
        program = build_go(engine, folder)
        if program is None:
            missing.append(f"gopacket {engine}")
            continue
        for decode in ("lazy", "parser"):
            found.append(Runner(f"gopacket {engine}, {decode}", command(program, "-decode", decode)))
    for name, measure in (("tcpflow", tcpflow), ("tshark", tshark)):
        if shutil.which(name):
            found.append(Runner(name, measure, delivers=name == "tcpflow", v4_only=name == "tcpflow"))
        else:
            missing.append(name)
    if not has_module(me, "scapy.all"):
        missing.append("scapy")
    elif slow:
        found.append(Runner("scapy TCPSession", python(me, "scapy"), delivers=False))
    return found, missing


class Row(NamedTuple):
    name: str
    rates: List[float]
    peak_kib: List[int]
    verdict: str


def verdict(runner: Runner, capture: workloads.Capture) -> str:
    if not runner.delivers:
        return "-"
    return "right" if runner.measure(capture.path, True).get("digest") == capture.digest else "WRONG"


def compete(runners: List[Runner], capture: workloads.Capture, rounds: int) -> List[Row]:
    """Each round runs every contestant once, so that a slow minute of the machine hits all of them."""
    rows = [Row(runner.name, [], [], verdict(runner, capture)) for runner in runners]
    for _ in range(rounds):
        for runner, row in zip(runners, rows):
            answer = runner.measure(capture.path, False)
            row.rates.append(answer.get("packets", capture.packets) / answer["seconds"])
            row.peak_kib.append(answer["peak_kib"] - answer["start_kib"])
    return rows


def table(rows: List[Row]) -> List[str]:
    lines = ["| | packets/s | spread | to dpkt | peak MiB | bytes |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        middle = statistics.median(row.rates)
        spread = f"{min(row.rates) / 1000:,.0f} to {max(row.rates) / 1000:,.0f} k"
        ratio = statistics.median(own / base for own, base in zip(row.rates, rows[0].rates))
        peak = statistics.median(row.peak_kib) / 1024
        lines.append(f"| {row.name} | {middle:,.0f} | {spread} | {ratio:.2f} | {peak:.1f} | {row.verdict} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", default=",".join(workloads.NAMES[:4]), help="of " + ",".join(workloads.NAMES))
    parser.add_argument("--scale", type=float, default=1.0, help="size of the captures")
    parser.add_argument("--folder", help="where the captures are kept (default: the temporary folder)")
    parser.add_argument("--only", default="", help="run only contestants whose name holds one of these, by comma")
    parser.add_argument("--slow", action="store_true", help="run scapy too")
    options = parser.parse_args()
    folder = options.folder or os.path.join(tempfile.gettempdir(), "tcpstitch-benchmarks")
    os.makedirs(folder, exist_ok=True)
    runners, missing = contestants(folder, options.slow)
    wanted = [word for word in options.only.split(",") if word]
    runners = [r for r in runners if r is runners[0] or not wanted or any(word in r.name for word in wanted)]
    print("Missing here: " + (", ".join(missing) or "nobody") + "\n")
    wrong = False
    for name in options.workloads.split(","):
        capture = workloads.make(name, options.scale, folder)
        usable = [runner for runner in runners if not (runner.v4_only and name == "v6vlan")]
        rows = compete(usable, capture, options.rounds)
        wrong = wrong or any(row.verdict == "WRONG" and row.name.startswith("tcpstitch") for row in rows)
        sizes = f"{capture.packets:,} packets, {capture.connections:,} connections, {capture.bytes:,} bytes"
        print(f"### {name}\n\n{sizes}\n")
        print("\n".join(table(rows)) + "\n", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
