"""What the commands share: their options, reading the capture, the closing lines."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any, Iterator, List, Mapping

from ..assembler import Assembler
from ..capture import open_capture
from ..capture.stopping import STOP_SIGNALS, stop_on
from ..errors import CaptureWarning, UsageError
from ..limits import Limits
from ..live import sniff
from ..statistics import Statistics
from ..stream import StreamFactory


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads a capture."""
    parser.add_argument("files", metavar="FILE", nargs="*",
                        help='pcap, pcapng or snoop capture, also compressed, or "-" for standard input; '
                             "several are read in the order of time")  # fmt: skip
    parser.add_argument("--follow", action="store_true", help="wait for more at the end of one file, until a signal")
    live = parser.add_argument_group("live capture on Linux, instead of FILE")
    live.add_argument("-i", "--interface", metavar="NAME", help='network interface, or "any", until a signal')
    live.add_argument("-f", "--filter", metavar="EXPRESSION", help="pcap-filter(7) expression; needs tcpdump")
    live.add_argument("-s", "--snaplen", metavar="BYTES", type=int, help="bytes kept of each packet")
    live.add_argument("-p", "--no-promiscuous", action="store_true",
                      help="do not ask the interface for packets for other hosts")  # fmt: skip
    parser.add_argument("--overlap", default="first", metavar="POLICY",
                        help="who owns a byte that several segments carry: first (default), last, bsd, linux, "
                             "old-linux, solaris, linux-kernel, or an operating system such as win-2003")  # fmt: skip
    parser.add_argument("--checks", default="lenient", metavar="LEVEL",
                        help="lenient (default), or strict: leave out what an endpoint would refuse")  # fmt: skip
    parser.add_argument("--flow-key", default="plain", metavar="KIND",
                        help="what tells connections apart besides addresses and ports: plain (default), nothing; "
                             "vlan, their VLANs; tunnel, these and the tunnels around them")  # fmt: skip
    parser.add_argument("--checksums", default="verify", metavar="HOW",
                        help="verify (default), or ignore: take all TCP checksums for right, as where a tool has "
                             "changed the addresses")  # fmt: skip
    parser.add_argument("--memory", metavar="SIZE", help="bound on what is held, for example 256MiB")


def make_assembler(factory: StreamFactory, options: argparse.Namespace) -> Assembler:
    """Raises `UsageError` for an option that cannot work."""
    limits = Limits.from_memory(options.memory) if options.memory is not None else Limits()
    return Assembler(
        factory, limits=limits, overlap=options.overlap, checks=options.checks, flow_key=options.flow_key,
        checksums=options.checksums,
    )  # fmt: skip


def open_source(options: argparse.Namespace) -> Any:
    """The files or the interface that the options name. Raises `UsageError` and `CaptureError`."""
    if bool(options.files) == (options.interface is not None):
        either = "not both: " if options.files else ""
        raise UsageError(f'{either}name one or more capture files ("-" is standard input), or an interface with -i')
    if options.interface is not None:
        if options.follow:
            raise UsageError("--follow is for a file that grows; an interface is followed anyway")
        kept = {} if options.snaplen is None else {"snaplen": options.snaplen}
        return sniff(options.interface, filter=options.filter, promiscuous=not options.no_promiscuous,
                     signals=(), **kept)  # fmt: skip
    if options.filter is not None:
        raise UsageError("--filter works on a live capture only: give -i, or filter the file with tcpdump -r")
    if options.snaplen is not None or options.no_promiscuous:
        raise UsageError("--snaplen and --no-promiscuous work on a live capture only: give -i")
    with stop_on(STOP_SIGNALS if _endless(options) else (), _stop_opening):
        try:
            return open_capture(options.files if len(options.files) > 1 else options.files[0], options.follow)
        except _Stopped:
            return _Nothing()


class _Stopped(BaseException):
    """A signal came before a source had said what it is: so no `Exception`, which the libraries in between catch."""


class _Nothing:
    """What was read of it, then."""

    warnings: List[str] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *ending: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _stop_opening() -> None:
    raise _Stopped


def _endless(options: argparse.Namespace) -> bool:
    """Whether what is read has no end of its own, so that a signal is its end. Standard input may be a file."""
    return options.follow or not all(os.path.isfile(0 if name == "-" else name) for name in options.files)


def read(assembler: Assembler, capture: Any, options: argparse.Namespace) -> int:
    """Run the whole capture through the assembler; returns the exit status. Raises `CaptureError`."""
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        getattr(capture, "stop", capture.close)()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)  # said below, in one line each
        iter(capture)  # it has begun: a signal ends it from now on, and is no mistake
        with stop_on(STOP_SIGNALS, stop):
            assembler.run(capture)
            assembler.flush_all()
    said = list(capture.warnings)
    if stopped and options.files and not _endless(options):
        said.append("stopped by a signal: the rest was not read")
    for warning in said:
        say(f"tcpstitch: warning: {warning}")
    return 1 if said else 0


def say(text: str) -> None:
    """A line on standard error, if there is one and it takes it: the exit status says the same. A name in it may have
    been made to command the terminal."""
    if sys.stderr is not None:
        line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            sys.stderr = None  # or the flush at exit fails, which has a status of its own


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(statistics: Statistics) -> str:
    """One line on the whole capture."""
    parts = [
        counted(statistics.packets, "packet"),
        counted(statistics.segments, "TCP segment"),
        counted(statistics.connections_opened, "connection"),
        counted(statistics.bytes, "byte"),
        f"{statistics.missing_bytes} missing in {counted(statistics.gaps, 'gap')}",
    ]
    if statistics.ignored and not statistics.connections_opened:
        parts.append(f"{statistics.ignored} opened none: wrong SYNs (checksum, flags), or neither SYN nor data")
    if statistics.anomalies.get("bad_checksum"):
        parts.append(f"{counted(statistics.anomalies['bad_checksum'], 'wrong checksum')} (see --checksums)")
    if statistics.evictions_by_kind:
        parts.append(f"given up at a limit: {_counts(statistics.evictions_by_kind)}")
    if statistics.dropped:
        parts.append(f"{statistics.dropped} dropped by the kernel")
    if statistics.decode_errors:
        parts.append(f"not decoded: {_counts(statistics.decode_errors)}")
    return ", ".join(parts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
