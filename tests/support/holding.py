"""Connections that hold pages, each known by a number."""

from __future__ import annotations

from support.frames import SERVER
from tcpstitch import Assembler, Segment


def syn(number: int) -> Segment:
    return Segment.make(("10.0.0.1", 40000 + number), SERVER, 999, flags="S")


def piece(number: int, offset: int, data: bytes = b"x" * 100) -> Segment:
    return Segment.make(("10.0.0.1", 40000 + number), SERVER, 1000 + offset, data)


def feed(assembler: Assembler, *segments: Segment, timestamp: float = 1.0) -> None:
    for segment in segments:
        assembler.assemble(segment, timestamp)


def holding(assembler: Assembler, number: int, pages: int) -> None:
    """A connection with `pages` pages behind a hole, each behind one of its own."""
    feed(assembler, syn(number), *(piece(number, 4096 * (index + 1)) for index in range(pages)))
