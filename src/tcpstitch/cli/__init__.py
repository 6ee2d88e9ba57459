"""The `tcpstitch` command.

Exit status: 0 when the whole capture was read, 1 when it ends too early, is damaged or was left by a signal (what was
read is used), 2 when nothing useful could be done; then one line on standard error says why. 130 when SIGINT came a
second time, or where it is no end of a capture.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import NoReturn, Optional, Sequence

from .. import __version__
from ..errors import StreamCallbackError, TcpStitchError
from . import extract as extract_command
from . import list as list_command
from .common import say


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        say(f"tcpstitch: {message}; see {self.prog} --help")
        self.exit(2)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tcpstitch", description="Put TCP streams back together from captured packets, inside a memory bound.",
        epilog="Exit status: 0, 1 when a capture was not read to its end (what was read is used), 2 with the reason.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"tcpstitch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    list_command.add_parser(commands)
    extract_command.add_parser(commands)
    return parser


def _broken_pipe(error: Optional[BaseException]) -> bool:
    # A handler's error arrives wrapped, with the original as its cause.
    return isinstance(error, BrokenPipeError) or (
        isinstance(error, StreamCallbackError) and isinstance(error.__cause__, BrokenPipeError)
    )


def _reason(error: BaseException, output: str) -> str:
    """In one line; `output` is where the command writes, which a failing write does not name."""
    cause = error.__cause__ if isinstance(error, StreamCallbackError) and error.__cause__ else error
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.filename or output}: {cause.strerror}"
    return " ".join(str(cause).split()) or type(cause).__name__


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command with `arguments` (default: those of the process); returns the exit status."""
    options, unknown = build_parser().parse_known_args(arguments)
    if all(text == "-" or not text.startswith("-") for text in unknown):
        options.files += unknown  # argparse knows the files only that stand together
    else:
        # Not of the command itself, whose help has no options: of the one that was named.
        _Parser(prog=f"tcpstitch {options.command}").error(f"unrecognized arguments: {' '.join(unknown)}")
    # When output fails, it fails for every connection; the library logs those after the first, one line is enough here.
    logging.getLogger("tcpstitch").addHandler(logging.NullHandler())
    try:
        status: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except (TcpStitchError, OSError) as error:
        if _broken_pipe(error):
            # The reader has enough. Standard output goes to nowhere, so that the flush at exit does not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        say(f"tcpstitch: {_reason(error, getattr(options, 'output', 'standard output'))}")
        return 2
    except KeyboardInterrupt:
        return 130
