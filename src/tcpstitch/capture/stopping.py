"""SIGINT and SIGTERM taken as the end of a capture, so that what was read before is flushed and not lost."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Sequence

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NEVER_CAUGHT = {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}


def can_stop(number: Any) -> bool:
    """Whether this is a signal that a program may take for itself."""
    return isinstance(number, int) and number in signal.valid_signals() - _NEVER_CAUGHT


@contextmanager
def stop_on(signals: Sequence[int], stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first of `signals` calls `stop`; then, as after the block, the old handlers are back.

    So a second signal does what it always did. Only the main thread may set handlers: elsewhere this does nothing.
    """
    if not signals or threading.current_thread() is not threading.main_thread():
        yield
        return
    old: Dict[int, Any] = {}

    def restore() -> None:
        while old:
            number, handler = old.popitem()
            signal.signal(number, handler)

    def caught(number: int, frame: object) -> None:
        restore()
        stop()

    try:
        for number in signals:
            old[number] = signal.signal(number, caught)
        yield
    finally:
        restore()
