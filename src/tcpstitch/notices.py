"""Messages for whoever listens to the logger "tcpstitch"; nobody has to."""

from __future__ import annotations

from typing import Any

INFO, WARNING = 20, 30  # as logging has them


def notice(level: int, message: str, *arguments: Any) -> None:
    """Log it. The module is imported here because it costs more than most of this package."""
    import logging

    logger = logging.getLogger("tcpstitch")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # a library does not write to standard error by itself
    logger.log(level, message, *arguments)
