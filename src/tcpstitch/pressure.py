"""How full the bounds are, as a level that does not flutter."""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, Tuple

from .errors import UsageError, is_plain

DEFAULT_MARKS = (0.5, 0.8, 0.95)
HYSTERESIS = 0.05


class PressureGauge:
    """Calls `callback(level)` when the level changes: the number of `marks` that the pressure has reached, 0 for none.

    A level is left only when the pressure is `HYSTERESIS` below its mark. Raises `UsageError` for marks that cannot
    work.
    """

    __slots__ = ("marks", "callback", "level")

    def __init__(self, callback: Optional[Callable[[int], Any]], marks: Sequence[float]) -> None:
        self.marks: Tuple[float, ...] = ()
        try:
            self.marks = tuple(marks)
            rising = list(self.marks) == sorted(set(self.marks))
            fits = bool(self.marks) and rising and 0 < self.marks[0] <= self.marks[-1] <= 1
        except TypeError:
            fits = False
        if not fits:
            raise UsageError(f"pressure_marks={marks!r}: give rising fractions above 0 and up to 1, such as (0.5, 0.8)")
        if callback is not None and not callable(callback):
            raise UsageError(f"on_pressure={callback!r}: give a function that takes the level, or None")
        if not is_plain(callback):
            raise UsageError(f"on_pressure={callback!r} is async or a generator: a plain function is called")
        self.callback: Any = callback  # None where only the marks are checked
        self.level = 0

    def update(self, pressure: float) -> None:
        """Compare with the marks; calls the callback at most once. O(marks)."""
        level = self.level
        while level < len(self.marks) and pressure >= self.marks[level]:
            level += 1
        while level and pressure < self.marks[level - 1] - HYSTERESIS:
            level -= 1
        if level != self.level:
            self.level = level
            self.callback(level)
