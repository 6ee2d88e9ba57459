"""What the commands share: their options, reading the capture, the closing lines."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import Any

from ..assembler import Assembler
from ..errors import CaptureWarning
from ..limits import Limits
from ..statistics import Statistics
from ..stream import StreamFactory


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads a capture."""
    parser.add_argument("file", metavar="FILE", help='pcap or pcapng capture, or "-" for standard input')
    parser.add_argument("--overlap", default="first", metavar="POLICY",
                        help="who owns a byte that several segments carry: first (default), last, bsd, linux, "
                             "old-linux, solaris")  # fmt: skip
    parser.add_argument("--checks", default="lenient", metavar="LEVEL",
                        help="lenient (default), or strict: leave out what an endpoint would refuse")  # fmt: skip
    parser.add_argument("--memory", metavar="SIZE", help="bound on what is held, for example 256MiB")


def make_assembler(factory: StreamFactory, options: argparse.Namespace) -> Assembler:
    """Raises `UsageError` for an option that cannot work."""
    limits = Limits.from_memory(options.memory) if options.memory else Limits()
    return Assembler(factory, limits=limits, overlap=options.overlap, checks=options.checks)


def read(assembler: Assembler, capture: Any) -> int:
    """Run the whole capture through the assembler; returns the exit status. Raises `CaptureError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)  # said below, in one line each
        assembler.run(capture)
    assembler.flush_all()
    for warning in capture.warnings:
        print(f"tcpstitch: warning: {warning}", file=sys.stderr)
    return 1 if capture.warnings else 0


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(statistics: Statistics) -> str:
    """One line on the whole capture."""
    parts = [
        counted(statistics.packets, "packet"),
        counted(statistics.segments, "TCP segment"),
        counted(statistics.connections_opened, "connection"),
        counted(statistics.bytes, "byte"),
        f"{statistics.missing_bytes} missing in {counted(statistics.gaps, 'gap')}",
    ]
    if statistics.decode_errors:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(statistics.decode_errors.items()))
        parts.append(f"not decoded: {reasons}")
    return ", ".join(parts)
