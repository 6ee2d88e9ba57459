"""How much memory: each measurement in a process of its own, resident size above that before the first packet.

    python benchmarks/memory.py                      # all of it
    python benchmarks/memory.py lost-byte --megabytes 50
    python benchmarks/memory.py idle --connections 100000
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Tuple

from frames import ACK, PSH, Connection, numbered
from runners import memory_kib, own_factory

MIB = 1 << 20
SEGMENT_BYTES = 1460
PAGES = 16 * MIB // 2048


class Watch:
    """Resident size: `start_kib` when made, the peak by the kernel's own mark."""

    def __init__(self) -> None:
        self.start_kib = memory_kib("VmRSS")

    def answer(self, **values: Any) -> Dict[str, Any]:
        above = {"peak_mib": memory_kib("VmHWM") - self.start_kib, "after_mib": memory_kib("VmRSS") - self.start_kib}
        return {**{name: round(kib / 1024, 2) for name, kib in above.items()}, **values}


def upload(connection: Connection, megabytes: int) -> Iterator[Tuple[float, bytes]]:
    """A client's upload without its handshake, a microsecond per segment so that no timer is due."""
    content = bytes(range(256)) * 6
    for index in range(megabytes * MIB // SEGMENT_BYTES):
        cut = index % 61
        yield 1.0 + index * 1e-6, connection.segment(0, content[cut : cut + SEGMENT_BYTES], ACK | PSH)


def transfer(case: str, megabytes: int) -> Dict[str, Any]:
    """`no-syn`: the capture begins after the handshake. `no-syn-held`: the same, waiting for a SYN (`start="syn"`).
    `lost-byte`: the handshake is there, the first byte is not."""
    from tcpstitch import Assembler, Chunk, Limits, Stream, StreamFactory

    counts = {"delivered": 0, "calls": 0}

    class Counter(Stream):
        __slots__ = ()

        def reassembled(self, chunk: Chunk) -> None:
            counts["delivered"] += len(chunk.data)
            counts["calls"] += 1

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Counter()

    limits = Limits(max_buffered_pages_per_connection=PAGES, max_buffered_pages_total=PAGES, page_size=2048)
    assembler = Assembler(Factory(), limits=limits, start="syn" if case == "no-syn-held" else "any")
    connection = numbered(1)
    opening = connection.handshake()
    connection.next_seq[0] += 1 if case == "lost-byte" else 0
    packets = upload(connection, megabytes)
    watch = Watch()
    if case == "lost-byte":
        for frame in opening:
            assembler.assemble(frame, 1.0)
    sent = 0
    for timestamp, packet in packets:
        assembler.assemble(packet, timestamp)
        sent += SEGMENT_BYTES
    before = assembler.statistics()
    assembler.flush_all()
    after = assembler.statistics()
    return watch.answer(
        sent=sent, **counts, gaps=after.gaps, missing=after.missing_bytes, pages_peak=after.pages_peak,
        pages_before_flush=before.pages_used, pages_used_after=after.pages_used,
        slab_mib_after=round(after.pages_allocated * 2048 / MIB, 2),
    )  # fmt: skip


def idle(count: int) -> Dict[str, Any]:
    """Established connections that say nothing, with a stream object each."""
    from tcpstitch import Assembler, Limits, Stream, StreamFactory

    class Silent(Stream):
        __slots__ = ()

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            return Silent()

    assembler = Assembler(Factory(), limits=Limits(max_connections=count + 1))
    watch = Watch()
    for number in range(count):
        for frame in numbered(number).handshake():
            assembler.assemble(frame, 1.0)
    held_kib = memory_kib("VmRSS") - watch.start_kib
    known = assembler.statistics().connections
    assembler.flush_all()
    return watch.answer(connections=known, bytes_each=round(held_kib * 1024 / count))


def arenas() -> Tuple[float, float]:
    """(MiB that CPython's allocator of small objects has from the system, MiB of these in use), by its own report."""
    with tempfile.TemporaryFile() as report:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(report.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        report.seek(0)
        text = report.read().decode()
    found = [re.search(name + r".* = +([\d,]+)", text) for name in (r"arenas \*", "bytes in allocated blocks")]
    taken, used = (int(value.group(1).replace(",", "")) / MIB if value else 0.0 for value in found)
    return taken, used


def burst() -> Dict[str, Any]:
    """The story's burst of reordering: what remains when all of it was delivered, part by part."""
    from story import BUDGET, reordering_then_quiet

    from tcpstitch import Assembler, Limits

    factory, _ = own_factory(None)
    assembler = Assembler(factory, limits=Limits.from_memory(BUDGET))
    frames = reordering_then_quiet(20)
    opening = next(frames)
    watch = Watch()
    before_burst = arenas()
    assembler.assemble(opening, 1.0)
    for index, frame in enumerate(frames):
        assembler.assemble(frame, 1.0 + index * 1e-6)
    above = memory_kib("VmRSS") - watch.start_kib
    taken, used = (now - before for now, before in zip(arenas(), before_burst))
    ctypes.CDLL(None).malloc_trim(0)
    slack = above - (memory_kib("VmRSS") - watch.start_kib)
    return watch.answer(
        above_mib=round(above / 1024, 2), slabs_mib=assembler.statistics().pages_allocated * 2048 / MIB,
        objects_mib=round(used, 2), free_in_arenas_mib=round(taken - used, 2),
        free_in_malloc_mib=round(slack / 1024, 2),
    )  # fmt: skip


def in_own_process(case: str, arguments: List[str]) -> str:
    words = [sys.executable, os.path.abspath(__file__), case, "--here", *arguments]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


CASES = ("no-syn", "no-syn-held", "lost-byte", "idle", "burst")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help="of " + ", ".join(CASES))
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--here", action="store_true", help="measure in this process")
    options = parser.parse_args()
    for case in options.cases:
        if options.here:
            if case in ("idle", "burst"):
                print(json.dumps(idle(options.connections) if case == "idle" else burst()))
            else:
                print(json.dumps(transfer(case, options.megabytes)))
        else:
            sizes = ["--megabytes", str(options.megabytes), "--connections", str(options.connections)]
            print(f"{case}: {in_own_process(case, sizes)}", flush=True)


if __name__ == "__main__":
    main()
