"""A program with annotations passes mypy --strict: the package is typed, and nothing documented is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = '''
from typing import Any, Callable, List, Optional

from tcpstitch import (
    Assembler, Chunk, Direction, Flow, Gap, Limits, OverLimit, Segment, Stream, StreamFactory, Timeouts, connections,
    open_capture,
)
from tcpstitch.live import sniff
from tcpstitch.parallel import run


class Opening(Stream):
    depth = 4096

    def reassembled(self, chunk: Chunk) -> None:
        if chunk.direction is Direction.CLIENT_TO_SERVER and not chunk.end:
            chunk.keep_from(len(chunk) // 2)
        print(chunk.packet_at(0).timestamp, chunk.flow.client.port)


class Chosen(Stream):
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.depth = 100 if flow.server.port == 80 else None
        self.on_gap = "abandon"

    def gap(self, gap: Gap) -> None:
        print(self.flow, gap.offset + gap.length)

    def over_limit(self, info: OverLimit) -> Optional[str]:
        return "drop" if info.reason == "page_limit" else None


class Slotted(Stream):
    __slots__ = ("depth", "emit")

    def __init__(self, emit: Callable[[Any], None]) -> None:
        self.depth = 9
        self.emit = emit


class Factory(StreamFactory):
    def __init__(self, emit: Callable[[Any], None]) -> None:
        self.emit = emit

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        return Chosen(flow) if flow.server.port != 8080 else Opening() if segment.length else Slotted(self.emit)


errors: List[Exception] = []


def failed(handler: Any, error: Exception) -> None:
    errors.append(error)


def anything(handler: object, error: BaseException) -> bool:
    return True


bounded = Assembler(Factory(print), limits=Limits.from_memory("64MiB"), timeouts=Timeouts(gap=10, idle=None),
                    on_error=failed)
with bounded as assembler, open_capture("-") as packets:
    assembler.run(packets)
    assembler.assemble(Segment.make(("10.0.0.1", 1), ("10.0.0.2", 2), 0, b"a", flags="SA"), 1.0)
    print(assembler.statistics().gaps_by_reason.get("aged", 0), assembler.top(3)[0].pages)
Assembler(Factory(print), on_error=anything, overlap={"default": "linux"}, on_pressure=print)
Assembler(Factory(print), on_error=lambda handler, error: ..., overlap=lambda flow: "bsd")
with Assembler(Factory(print)) as assembler, sniff("lo", filter="tcp") as live:
    assembler.run(live)
for part in run(["a.pcap", ["b.pcap", "c.pcap"]], Factory, workers=2, failures="return").parts:
    print(part.warnings)
for connection in connections("a.pcap", checks="strict"):
    print(len(connection.client_data), connection.gaps[0].reason, connection.anomalies[0].kind)
'''


def test_a_program_with_annotations_is_accepted(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e .[dev]")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    # A process of its own: mypy changes when this one's garbage is collected.
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)]
    ran = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
