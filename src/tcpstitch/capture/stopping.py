"""SIGINT and SIGTERM taken as the end of a capture, so that what was read before is flushed and not lost."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SECONDS = 0.5  # in which another signal is the same one: a terminal and `timeout` send it to a group as well
_NEVER_CAUGHT = {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}


def can_stop(number: Any) -> bool:
    """Whether this is a signal that a program may take for itself."""
    return isinstance(number, int) and number in signal.valid_signals() - _NEVER_CAUGHT


@contextmanager
def stop_on(signals: Sequence[int], stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first of `signals` calls `stop`; a second one does what it did before, as do all behind
    the block, but for the same sent twice: that ends no flush. Only the main thread may set handlers: elsewhere this
    does nothing."""
    if not signals or threading.current_thread() is not threading.main_thread():
        yield
        return
    old: Dict[int, Any] = {}
    first: Optional[float] = None

    def restore() -> None:
        while old:
            number, handler = old.popitem()
            signal.signal(number, handler)

    def caught(number: int, frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            stop()
        elif time.monotonic() - first >= SAME_SECONDS:
            restore()
            signal.raise_signal(number)

    try:
        for number in signals:
            if signal.getsignal(number) is not None:  # else of the program around Python, and could not be put back
                old[number] = signal.signal(number, caught)
        yield
    finally:
        if first is None or time.monotonic() - first >= SAME_SECONDS:
            restore()  # else the next signal does, if it is another one
