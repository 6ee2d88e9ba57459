"""`tcpstitch list`: one line per connection."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..chunk import Chunk, Gap
from ..errors import UsageError
from ..segment import Flow, Segment
from ..stream import Stream, StreamFactory
from .common import add_options, make_assembler, open_source, read, say, summary


class _Line(Stream):
    """Counts one connection; constant memory."""

    __slots__ = ("_flow", "_bytes", "_missing", "_at_once")

    def __init__(self, flow: Flow, at_once: bool) -> None:
        self._flow = flow
        self._at_once = at_once
        self._bytes = [0, 0]
        self._missing = [0, 0]

    def reassembled(self, chunk: Chunk) -> None:
        self._bytes[chunk.direction] += len(chunk.data)

    def gap(self, gap: Gap) -> None:
        self._missing[gap.direction] += gap.length

    def complete(self, reason: str) -> None:
        sent = "  ".join(
            f"{side} {self._bytes[index]} bytes {self._missing[index]} missing"
            for index, side in enumerate(("client", "server"))
        )
        print(f"{self._flow}  {sent}  {reason}", flush=self._at_once)


class _Factory(StreamFactory):
    def __init__(self, at_once: bool) -> None:
        self._at_once = at_once

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return _Line(flow, self._at_once)


def run(options: argparse.Namespace) -> int:
    # Where packets come one by one a line is worth a write, and a pipe's reader waits for it.
    at_once = bool(options.interface or options.follow or options.files == ["-"])
    assembler = make_assembler(_Factory(at_once), options)
    if sys.stdout is None:
        raise UsageError("standard output is closed: there is nowhere to list to")
    with open_source(options) as capture:
        status = read(assembler, capture, options)
    sys.stdout.flush()  # before the summary, where both go to one terminal
    say(summary(assembler.statistics()))
    return status


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "list",
        help="one line per connection",
        description="Print one line per connection, when it is complete: client > server, the bytes and the missing "
        "bytes that each side sent, and how it ended. A summary goes to standard error.",
    )
    add_options(parser)
    parser.set_defaults(run=run)
