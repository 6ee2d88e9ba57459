"""Bytes of a capture, from wherever they come, in blocks: never more in memory than what was asked for."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from _thread import allocate_lock  # as in `threading`, of which nothing else is needed
from _weakref import proxy  # likewise
from contextlib import suppress
from typing import Any, Callable, Optional, Tuple

from ..errors import CaptureError, UsageError
from ..pages import anonymous
from ..uncut import PYPY
from .compress import open_decompressor
from .report import CUT, Report

# Measured on captures of full-size segments: CPython reads them 1.3 times faster in large blocks than in blocks of
# 16 KiB; PyPy twice as fast in small ones, which its garbage collector need not treat as large objects.
BLOCK = 32 * 1024 if PYPY else 256 * 1024
WINDOW = 256 * 1024
# Modules whose errors, where a file object unpacks what is damaged, are no `OSError`.
_UNPACKERS = ("zlib", "_lzma", "zipfile")


class Source:
    """One stream of bytes. `read_some` gives at least one byte, or `b""` at the end; `damage` then says what broke."""

    def __init__(self, what: Any, follow: bool, poll_seconds: float, idle_seconds: Optional[float]) -> None:
        self.damage: Optional[str] = None
        self.stopped: Any = False  # set by other threads or a handler, of which mypy knows nothing
        # What a wait waits for. A lock, since a signal's handler may close while this very thread waits: an `Event`
        # would wait for itself there.
        self._closed = allocate_lock()
        self._closed.acquire()
        self._poll = poll_seconds
        self._idle = idle_seconds
        self._decompressor: Any = None
        self._ahead = b""
        self._unwanted = 0  # bytes to be skipped before anything else is read
        self._consumed = 0
        self._reading = False  # or what read raised
        self.name, self._file, self._owned = open_file(what)
        self._read: Callable[[int], Any] = getattr(self._file, "read1", None) or self._file.read
        self._size = regular_size(self._file)
        self._wait_readable = poller(self._file)
        # Nobody writes to a pipe of the shell again: as with `tail -f` (POSIX), nothing is waited for there.
        self.follow = follow and not (what == "-" and self._wait_readable is not None)
        self._window: Any = None

    def read_some(self, size: int = BLOCK) -> bytes:
        """Up to `size` bytes (a pipe may give fewer), waiting for more where the source is followed."""
        return b"" if self._unwanted and not self.skip(self._unwanted) else self._some(size)

    def _some(self, size: int) -> bytes:
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        if self._decompressor is None:
            return self._read_raw(size)
        if self.damage is not None:
            return b""
        self._reading = False
        try:
            data: bytes = self._decompressor.read(size)
            return data
        except Exception as error:  # each library has exceptions of its own, some of them plain RuntimeError
            if self._reading:
                raise  # the file's, or that of a signal's handler
            # What could not be read, or is still being written, only ends early.
            if self.damage is None and not (self.follow and isinstance(error, EOFError)):
                self.damage = f"damaged {self._decompressor.kind} data: {error}"
        return b""

    def _read_raw(self, size: int = BLOCK) -> bytes:
        self._reading = True
        try:
            data = self._attempt(self._read, size) or b""
        except UnicodeDecodeError:  # of a text file
            data = ""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise UsageError(f"{self.name}: open the file in binary mode, not as text")
        self._reading = False
        self._consumed += len(data)
        return data if data.__class__ is bytes else bytes(data)

    def _attempt(self, read: Callable[[Any], Any], argument: Any) -> Any:
        """What `read(argument)` gives once there is something; nothing at the end, or when the waiting is over."""
        deadline = None if self._idle is None else time.monotonic() + self._idle
        while not self.stopped:
            # Before the first read bytes may lie in a buffer of the file object, of which its descriptor knows nothing.
            if self._wait_readable is not None and self._consumed and not self._wait_readable(self._poll):
                if deadline is not None and time.monotonic() >= deadline:
                    break
                continue
            try:
                data = read(argument)
            except Exception as error:
                self._failed(error)
                break
            if data:
                return data
            # None is what a non-blocking file answers when it has nothing yet; behind a buffer that of its end.
            if data is not None and not self.follow and not self._nothing_yet():
                break
            if (regular_size(self._file) or 0) < 0:  # what comes there now is no continuation
                self.damage = "the file has become shorter than what was read of it"
                break
            if deadline is not None and time.monotonic() >= deadline:
                break
            self._closed.acquire(timeout=self._poll)
        return None

    def _failed(self, error: Exception) -> None:
        """The source ends where it cannot be read on; what is the caller's fault, or a handler's, is raised."""
        if isinstance(error, (OSError, EOFError)) or type(error).__module__ in _UNPACKERS:
            self.damage = f"cannot be read: {error}"
        elif not (isinstance(error, ValueError) and self.stopped):
            if isinstance(error, ValueError) and getattr(self._file, "closed", False):
                raise UsageError(f"{self.name}: the file is closed: open it again") from error
            raise error

    def _nothing_yet(self) -> bool:
        """Whether a pipe that does not block has no bytes, but may have some later: at its end it is readable."""
        wait = self._wait_readable
        with suppress(ValueError, OSError):  # closed meanwhile
            return wait is not None and not os.get_blocking(self._file.fileno()) and not wait(0)
        return False

    def at_least(self, held: bytes, need: int) -> bytes:
        """`held` and what follows it, `need` bytes or more in all; fewer only where the source ends.

        What completes `held` is read alone, and a block only where nothing is held: so a block is never copied, but
        for the one record that two blocks share. Bulk captures are read twice as fast for it.
        """
        known = len(held)
        if not held and need:
            held = self.read_some()
        if len(held) >= need or not held:
            return held
        whole = bytearray(held)  # no list: a pipe may give it byte by byte
        try:
            while len(whole) < need:
                block = self.read_some(min(need - len(whole), BLOCK))
                if not block:
                    break
                whole += block
        except BaseException:  # a signal's handler ends the wait: what came comes again
            self._ahead = bytes(whole[known:])
            raise
        return bytes(whole)

    def refill(self, rest: bytes, need: int) -> Tuple[Any, int]:
        """A buffer that begins with `rest` and goes on, and how many bytes of it count: `need` or more, fewer only
        where the source ends.

        A plain file is read into one piece of memory that is used again and again: a new block each time costs bulk
        captures a third of their speed on CPython, in page faults, and half on PyPy, in copies. So what is to stay
        must be cut out of the buffer before the next call; where an exception ends that, `rest` is all there is of it.
        """
        held = len(rest)
        alone = not self._owned or self._decompressor is not None
        if alone or self._ahead or self._unwanted or max(need, held) > WINDOW:
            buffer = self.at_least(rest, need)
            return memoryview(buffer) if PYPY else buffer, len(buffer)
        if self._window is None:
            self._window = memoryview(anonymous(WINDOW))
        self._window[:held] = rest
        held = self._fill(held, need, WINDOW)
        return self._window if PYPY else self._window.obj, held  # each as it can be cut at least cost

    def _fill(self, held: int, need: int, most: int) -> int:
        """Read into the window, behind `held` bytes, until there are `need`, and no more than `most`; how many then."""
        known = held
        try:
            while held < need:
                count = self._attempt(self._file.readinto, self._window[held:most])
                if not count:
                    break
                self._consumed += count
                held += count
        except BaseException:  # as in `at_least`
            self._ahead = bytes(self._window[known:held])
            raise
        return held

    def plain_size(self) -> Optional[int]:
        """The size of a file of which any `piece` can be had; None for what can be read once only."""
        return self._size if self._owned and self._decompressor is None and not self.follow else None

    def piece(self, offset: int, size: int) -> Tuple[Any, int]:
        """`size` bytes, at most `WINDOW`, from this offset of a file on, as from `refill`. What follows is next."""
        self._file.seek(offset)
        self._ahead, self._consumed = b"", offset
        if self._window is None:
            self._window = memoryview(anonymous(WINDOW))
        return self._window.obj, self._fill(0, size, size)

    def skip(self, count: int) -> bool:
        """Throw `count` bytes away, with the next read those that an exception left; False where the source ends."""
        self._unwanted = count
        while self._unwanted:
            block = self._some(BLOCK)
            if not block:
                return False
            self._ahead = block[self._unwanted :]
            self._unwanted = max(0, self._unwanted - len(block))
        return True

    def can_hold(self, missing: int) -> bool:
        """False if it is known already that fewer than `missing` bytes remain: no need to read them to find out."""
        if self._size is None or self.follow or self._decompressor is not None:
            return True
        return missing <= self._size - self._consumed + len(self._ahead)

    def unread(self) -> bool:
        """Whether it is known that bytes are left, too few to be worth reading."""
        known = self._size is not None and not self.follow and self._decompressor is None
        return known and self.can_hold(1)

    def unpack(self, head: bytes) -> bytes:
        """If `head` begins a compressed stream, decompress from here on; the first bytes of the content."""
        weak: Any = proxy(self)  # no cycle: what unpacks is large, and is not to wait for the collector
        decompressor = open_decompressor(self.name, head, lambda: weak._read_raw())
        if decompressor is None:
            return head
        self._decompressor = decompressor
        return self.at_least(b"", 24)

    def end(self, report: Report, offset: int, problem: Optional[str]) -> None:
        """Say how it ended, and let go of it. A followed file's last packet is not cut but still being written."""
        if self.stopped:
            problem = None  # closed by the caller, who did not want the rest
        elif self.damage is not None:
            problem = f"{problem} ({self.damage})" if problem else self.damage
        elif self.follow and problem is not None and problem.startswith(CUT):
            problem = None
        # Closed before the warning, which may be turned into an exception.
        self.close()
        if problem:
            report.warn(offset, problem)

    def close(self) -> None:
        """End a wait, and close the file if it was opened here. May be called by a signal's handler, and again."""
        self.stopped = True
        with suppress(RuntimeError):  # released before
            self._closed.release()
        if self._owned:
            self._file.close()


def open_file(what: Any) -> Tuple[str, Any, bool]:
    """`(name, file, owned)` of a path, a binary file object or `"-"`."""
    if isinstance(what, str) and what == "-":
        if sys.stdin is None:
            raise CaptureError("standard input: is closed")
        return "standard input", getattr(sys.stdin, "buffer", sys.stdin), False
    if isinstance(what, (str, os.PathLike)):
        try:
            path = os.fspath(what)
            # Unbuffered: the readers take large blocks themselves, and a pipe's bytes come as soon as they are there.
            return os.fsdecode(path), open(path, "rb", buffering=0), True
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error  # without the number and the name once more
            raise CaptureError(f"{what if what else repr(what)}: cannot be opened: {reason}") from error
    name = getattr(what, "name", None)
    return (name if name and isinstance(name, str) else f"<{type(what).__name__}>"), what, False


def regular_size(file: Any) -> Optional[int]:
    """Bytes between the file's position and its end, if it is a regular file on disk."""
    try:
        info = os.fstat(file.fileno())
        # A wrapper such as GzipFile has the descriptor of the compressed file: its size says nothing.
        if not stat.S_ISREG(info.st_mode) or type(file).__module__ not in ("_io", "io"):
            return None
        return info.st_size - int(file.tell())
    except (OSError, AttributeError, ValueError, TypeError):
        return None


def poller(file: Any) -> Optional[Callable[[float], bool]]:
    """For a pipe, socket or terminal a function that waits so many seconds for bytes: so `close` can end the wait."""
    try:
        mode = os.fstat(file.fileno()).st_mode
        if not hasattr(select, "poll") or type(file).__module__ not in ("_io", "io"):
            return None
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
            return None
        poll = select.poll()
        poll.register(file.fileno(), select.POLLIN)
        return lambda seconds: bool(poll.poll(seconds * 1000))
    except (OSError, AttributeError, ValueError, TypeError):
        return None
