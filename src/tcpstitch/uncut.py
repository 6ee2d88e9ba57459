"""Frames that were not cut out of the memory they lie in, for PyPy.

A tracing compiler keeps objects that nobody holds on to in registers, so there a frame in place is an object with the
slices of `bytes`. CPython would pay for each; it walks through the memory itself.
"""

from __future__ import annotations

import sys
from typing import Any

PYPY = sys.implementation.name == "pypy"


class Uncut:
    """The frame `memory[start:stop]`; nobody may hold on to it. What lies behind it in memory is not clipped: as in
    memory itself, whoever reads asks for the length."""

    __slots__ = ("memory", "start", "stop")

    def __init__(self, memory: Any, start: int, stop: int) -> None:
        self.memory = memory
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, place: slice) -> bytes:
        return bytes(self.memory[self.start + place.start : self.start + place.stop])
