"""What an assembler is told when it is made, and may be told anew while it runs. Checked each time."""

from __future__ import annotations

from typing import Any, Callable, Optional, Tuple

from .errors import UsageError, is_plain
from .stream import ON_LIMIT, StreamFactory

URGENT = ("inline", "oob", "drop", "gap")


def choose(name: str, value: Any, choices: Tuple[str, ...]) -> None:
    """Raises `UsageError` for a value that is none of the choices."""
    if value not in choices:
        raise UsageError(f"{name}={value!r}: use one of {', '.join(choices)}")


class Settings:
    """The part of the assembler that keeps them."""

    __slots__ = ("_factory", "_on_error", "_on_limit", "_urgent")

    @property
    def factory(self) -> StreamFactory:
        """Makes the streams of connections that open from now on."""
        return self._factory

    @factory.setter
    def factory(self, factory: StreamFactory) -> None:
        if isinstance(factory, type):
            raise UsageError(f"factory={factory!r}: give an object, {factory.__name__}(...), not the class")
        if not callable(getattr(factory, "new", None)):
            raise UsageError(f"factory={factory!r}: give a StreamFactory with a method new(flow, segment, timestamp)")
        if getattr(factory.new, "__func__", None) is StreamFactory.new:
            raise UsageError(f"factory={factory!r}: give its class a method new(flow, segment, timestamp) of its own")
        self._factory = factory

    @property
    def on_error(self) -> Optional[Callable[[Any, Exception], Any]]:
        """Hears of a handler that raised; None where `assemble` is to raise."""
        return self._on_error

    @on_error.setter
    def on_error(self, on_error: Optional[Callable[[Any, Exception], Any]]) -> None:
        if on_error is not None and not callable(on_error):
            raise UsageError(f"on_error={on_error!r}: give a function of the failed handler and the exception")
        if not is_plain(on_error):
            raise UsageError(f"on_error={on_error!r} is async or a generator: a plain function is called")
        self._on_error = on_error

    @property
    def on_limit(self) -> str:
        """What is given up at a page bound from now on."""
        return self._on_limit

    @on_limit.setter
    def on_limit(self, on_limit: str) -> None:
        choose("on_limit", on_limit, ON_LIMIT)
        self._on_limit = on_limit

    @property
    def urgent(self) -> str:
        """What becomes of data marked urgent that comes from now on."""
        return self._urgent

    @urgent.setter
    def urgent(self, urgent: str) -> None:
        choose("urgent", urgent, URGENT)
        self._urgent = urgent
