"""Where a tracing compiler had better stop.

PyPy compiles paths, from a loop's head all the way through the functions it calls and back. The rules of TCP branch
often: compiled as one path each combination of branches is a path of its own, of thousands of steps, and has to happen
hundreds of times before it is compiled. A function `apart` is compiled by itself, once for all its callers.

It is compiled at its first call, but not if an attribute changes for the first time then; and if not then, only after
thousands of calls. So each runs a few times before it is set apart.
"""

from __future__ import annotations

from typing import Any, Callable, List, Optional, TypeVar

from .uncut import PYPY

Function = TypeVar("Function", bound=Callable[..., Any])

if PYPY:
    from pypyjit import dont_trace_here  # type: ignore[import-not-found]

    _asking: Optional[List[Any]] = []  # their code, until they have run

    def apart(function: Function) -> Function:
        """`function` itself, which is not to be compiled into those that call it."""
        if _asking is None:
            dont_trace_here(0, False, function.__code__)
        else:
            _asking.append(function.__code__)
        return function

    def set_apart(rehearsal: Callable[[], None]) -> None:
        """Set apart what asked for it, after `rehearsal` has run it; once."""
        global _asking
        if _asking is not None:
            codes, _asking = _asking, None
            rehearsal()
            for code in codes:
                dont_trace_here(0, False, code)

else:

    def apart(function: Function) -> Function:
        """`function` itself."""
        return function

    def set_apart(rehearsal: Callable[[], None]) -> None:
        """Nothing: no compiler looks on."""
