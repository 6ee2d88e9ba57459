"""Where a tracing compiler had better stop.

PyPy compiles paths, from a loop's head all the way through the functions it calls and back. The rules of TCP branch
often: compiled as one path each combination of branches is a path of its own, of thousands of steps, and has to happen
hundreds of times before it is compiled. A function `apart` is compiled by itself, once for all its callers.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

if sys.implementation.name == "pypy":
    from pypyjit import dont_trace_here  # type: ignore[import-not-found]

    def apart(function: Function) -> Function:
        """`function` itself, which is not to be compiled into those that call it."""
        dont_trace_here(0, False, function.__code__)
        return function

else:

    def apart(function: Function) -> Function:
        """`function` itself."""
        return function
