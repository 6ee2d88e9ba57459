"""Memory over time, this library beside gopacket on the same captures: the reason why this library exists.

    python benchmarks/story.py --svg docs/memory.svg

gopacket's two packages run with their defaults (no limits) and with limits of 500 pages per connection and 100 000 in
total; this library with `Limits.from_memory("64MiB")`. Nobody flushes before the end. Prints a table, and draws a
picture where one is asked for. Needs Go and Debian's golang-github-google-gopacket-dev; says so when they are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from contestants import build_go
from frames import ACK, PSH, SYN, numbered
from picture import Panel, draw
from runners import memory_kib, own_factory
from workloads import payload, write

SEGMENT = 1460
BUDGET = "64MiB"
Samples = List[Dict[str, int]]


def upload(megabytes: int) -> Iterator[bytes]:
    connection = numbered(1)
    connection.handshake()
    rng = random.Random(1)
    for _ in range(megabytes * 1_000_000 // SEGMENT):
        yield connection.segment(0, payload(rng, SEGMENT), ACK | PSH)


def first_packet_lost(megabytes: int) -> Iterator[bytes]:
    """The handshake is there, the first data packet is not."""
    yield from numbered(1).handshake()
    frames = upload(megabytes)
    next(frames)
    yield from frames


def reordering_then_quiet(megabytes: int) -> Iterator[bytes]:
    """400 connections at once get 100 segments each, the first of them last; then one connection goes on in order."""
    connections = [numbered(number) for number in range(2, 402)]
    firsts = []
    rng = random.Random(2)
    for connection in connections:
        yield from connection.handshake()
        firsts.append(connection.segment(0, payload(rng, SEGMENT), ACK | PSH))
    for _ in range(99):
        for connection in connections:
            yield connection.segment(0, payload(rng, SEGMENT), ACK | PSH)
    yield from firsts
    yield from numbered(1).handshake()
    yield from upload(megabytes // 2)


def half_open(megabytes: int) -> Iterator[bytes]:
    """100 000 SYNs that nobody answers."""
    for number in range(megabytes * 200):
        yield numbered(number).segment(0, flags=SYN)


STORIES: Dict[str, Tuple[str, Callable[[int], Iterator[bytes]]]] = {
    "first-lost": ("upload whose first packet was lost", first_packet_lost),
    "no-syn": ("upload whose SYN was not captured", upload),
    "burst": ("burst of reordering, then quiet", reordering_then_quiet),
    "half-open": ("half-open connections", half_open),
}


def ours(path: str, every: int) -> Samples:
    """This library; meant for a process of its own."""
    from tcpstitch import Assembler, Limits, open_capture

    factory, _ = own_factory(None)
    assembler = Assembler(factory, limits=Limits.from_memory(BUDGET))
    samples: Samples = []

    def look(count: int) -> None:
        statistics = assembler.statistics()
        samples.append({"packets": count, "rss_kib": memory_kib("VmRSS"), "pages_used": statistics.pages_used,
                        "pages_allocated": statistics.pages_allocated})  # fmt: skip

    count = 0
    with open_capture(path) as capture:
        for timestamp, packet in capture:
            assembler.assemble(packet, timestamp)
            count += 1
            if count % every == 0:
                look(count)
    look(count)
    assembler.flush_all()
    look(count)
    return samples


def contestants(folder: str) -> Dict[str, Callable[[str, int], Samples]]:
    def own(path: str, every: int) -> Samples:
        words = [sys.executable, os.path.abspath(__file__), "--ours", path, "--every", str(every)]
        return list(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout))

    def peer(program: str, limits: Tuple[int, int]) -> Callable[[str, int], Samples]:
        def run(path: str, every: int) -> Samples:
            words = [program, "-decode", "parser", "-pages", str(limits[0]), "-total", str(limits[1])]
            done = subprocess.run([*words, "-sample", str(every), path], stdout=subprocess.PIPE, check=True)
            return list(json.loads(done.stdout)["samples"])

        return run

    found: Dict[str, Callable[[str, int], Samples]] = {f"tcpstitch, {BUDGET}": own}
    for engine in ("reassembly", "tcpassembly"):
        program = build_go(engine, folder)
        if program is None:
            print(f"not measured: gopacket {engine}, for want of Go or its gopacket package", file=sys.stderr)
            continue
        found[f"gopacket {engine}, defaults"] = peer(program, (0, 0))
        found[f"gopacket {engine}, 500 and 100 000 pages"] = peer(program, (500, 100_000))
    return found


def table_row(name: str, samples: Samples) -> str:
    peak = max(samples, key=lambda sample: sample["rss_kib"])
    end = samples[-2] if name.startswith("tcpstitch") else samples[-3]  # the last ones are taken after the flush
    cells = [peak["rss_kib"], end["rss_kib"], samples[-1]["rss_kib"]]
    pages = [max(sample["pages_used"] for sample in samples), end["pages_allocated"], samples[-1]["pages_allocated"]]
    row = [f"{kib / 1024:,.0f}" for kib in cells] + [f"{count:,}" for count in pages]
    return f"| {name} | " + " | ".join(row) + " |"


def tell(names: List[str], megabytes: int, svg: Optional[str]) -> None:
    panels = []
    with tempfile.TemporaryDirectory() as folder:
        runners = contestants(folder)
        path = os.path.join(folder, "story.pcap")
        for name in names:
            title, maker = STORIES[name]
            packets = write(path, maker(megabytes))
            print(f"\n{title}, {packets:,} packets\n")
            print("| | peak MiB | at the end MiB | after flush MiB | most pages used | held at the end | after flush |")
            print("|---|---:|---:|---:|---:|---:|---:|")
            panel = Panel(title, "packets", "resident size, MiB", {})
            for contestant, runner in runners.items():
                samples = runner(path, max(1, packets // 100))
                print(table_row(contestant, samples), flush=True)
                panel.lines[contestant] = [(s["packets"], s["rss_kib"] / 1024) for s in samples]
            panels.append(panel)
    if svg:
        with open(svg, "w", encoding="utf-8") as file:
            file.write(draw(panels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", nargs="*", default=list(STORIES), metavar="STORY", help="of " + ", ".join(STORIES))
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--svg", help="file for the picture")
    parser.add_argument("--ours", help="measure this library on a capture, in this process")
    parser.add_argument("--every", type=int, default=1000)
    options = parser.parse_args()
    if options.ours:
        answer: Any = ours(options.ours, options.every)
        print(json.dumps(answer))
    else:
        tell(options.stories, options.megabytes, options.svg)


if __name__ == "__main__":
    main()
