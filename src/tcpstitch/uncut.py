"""Frames that were not cut out of the memory they lie in, for PyPy.

A tracing compiler keeps objects that nobody holds on to in registers, so there a frame in place is an object with the
slices of `bytes`. CPython would pay for each; it walks through the memory itself.
"""

from __future__ import annotations

import sys

PYPY = sys.implementation.name == "pypy"


class Uncut:
    """The frame `memory[start:start + size]`; nobody may hold on to it. What lies behind it in memory is not clipped:
    as in memory itself, whoever reads asks for the size. Who makes it fills it: a call is dear until it is compiled."""

    __slots__ = ("memory", "start", "size")

    memory: memoryview
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: slice) -> bytes:
        start = self.start
        return self.memory[start + place.start : start + place.stop].tobytes()
