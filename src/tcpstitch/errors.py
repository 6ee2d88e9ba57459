"""The exceptions of the library, but for `PartsFailed` of `parallel`. Each blames one party: the caller, the packet,
the capture or the handler.

What arguments in several places have to be is checked here as well.
"""

from __future__ import annotations

import sys
from math import inf
from reprlib import Repr
from typing import Any, Callable, Type

MOST_SECONDS = sys.float_info.max
_NO_PLAIN_CALL = 0x20 | 0x80 | 0x200  # of `co_flags`: generators, coroutines, both


class TcpStitchError(Exception):
    """Root of everything this library raises on purpose."""


class UsageError(TcpStitchError, ValueError):
    """The caller passed something that cannot work; the message says what to do instead."""


class LimitsError(UsageError):
    """A bound, a size of memory or a timeout that cannot work."""


class PacketTypeError(UsageError, TypeError):
    """`assemble` was given something that is neither bytes, a dpkt packet nor a `Segment`."""


class ReentrantCallError(TcpStitchError, RuntimeError):
    """A handler called back into the assembler that is calling it; or a signal's handler, or another thread, called it
    in the middle of a packet."""

    def __init__(
        self,
        message: str = "the assembler is at work: call it once the handler has returned; in a signal's handler set a "
        "flag, or close the capture to end `run`; for another thread make an assembler of its own",
    ) -> None:
        super().__init__(message)


class DecodeError(TcpStitchError):
    """A packet that cannot be decoded; `reason` is the counter's name. `PacketDecoder` catches and counts it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CaptureError(TcpStitchError):
    """A capture that cannot be opened or read; the message names it and says what was found."""


class CaptureWarning(UserWarning):
    """A capture that ends in the middle of a packet or holds a damaged block; everything before it was read."""


class StreamCallbackError(TcpStitchError):
    """A handler raised. Its stream is abandoned, all others go on; the handler's exception is the `__cause__`."""


def whole(name: str, value: Any, least: int, kind: Type[UsageError] = UsageError) -> int:
    """`value`, where it is a whole number of at least `least`. Raises `kind`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise kind(f"{name}={value!r}: give a whole number of at least {least}")
    return value


def are_seconds(value: Any) -> bool:
    """Whether this is a number from 0 on with which floats can be reckoned, infinity too; True and False are none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and (0 <= value <= MOST_SECONDS or value == inf)


def is_plain(function: Any) -> bool:
    """Whether a call runs it: one of a generator or a coroutine runs nothing."""
    code = getattr(function, "__code__", None)
    return code is None or not code.co_flags & _NO_PLAIN_CALL


def said(error: BaseException, how: Callable[[BaseException], str] = repr) -> str:
    """`how(error)` for a message: somebody else's exception may fail even in that."""
    try:
        return how(error)
    except Exception as failure:
        return f"{type(error).__name__}, of which {how.__name__}() raises {type(failure).__name__}"


def shown(value: Any) -> str:
    """`repr(value)` for a message, which is no place for a whole packet or for all packets of a list."""
    short = Repr()
    short.maxother = short.maxstring = 80
    short.maxlist = short.maxtuple = 2
    return short.repr(value)
