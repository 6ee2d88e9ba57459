"""The bounds: how much may be held, and for how long. Frozen, checked when made."""

from __future__ import annotations

import dataclasses
import re
from typing import Optional, Union

from .errors import LimitsError

_UNITS = {"": 1, "B": 1, "K": 1000, "KB": 1000, "KIB": 1 << 10, "M": 10**6, "MB": 10**6, "MIB": 1 << 20,
          "G": 10**9, "GB": 10**9, "GIB": 1 << 30}  # fmt: skip
# Measured on CPython 3.11 with a stream object of `__slots__ = ()`; see docs/benchmarks.md.
_CONNECTION_BYTES = 2048
_PAGE_OVERHEAD_BYTES = 512  # the Page object, its records and its place in the index


def parse_bytes(size: Union[int, str]) -> int:
    """256 * 2**20 from "256MiB"; an int stays as it is. Raises `LimitsError` on anything else."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
    if match is None or match.group(2).upper() not in _UNITS:
        raise LimitsError(f'memory size {size!r}: give bytes as an int, or text such as "256MiB"')
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an assembler may hold. Every bound is on by default and hard: it is checked before memory is taken.

    `max_buffered_pages_per_connection` and `max_buffered_pages_total` bound out-of-order and kept bytes, in pages of
    `page_size` bytes (gopacket: MaxBufferedPagesPerConnection, MaxBufferedPagesTotal; there 0 means unlimited, here it
    is refused). As in gopacket, a connection that reaches its bound gives up its lowest missing range.
    `max_connections` bounds connection state, `max_fragments` the incomplete IP datagrams.
    `max_history_bytes_per_connection`, off by default, keeps the last delivered bytes of each direction so that a
    later segment with other bytes at the same offsets is reported; it costs up to that many bytes per direction.
    Raises `LimitsError`.
    """

    max_buffered_pages_per_connection: int = 500
    max_buffered_pages_total: int = 100_000
    max_connections: int = 1_000_000
    page_size: int = 2048
    max_fragments: int = 1024
    max_history_bytes_per_connection: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_history_bytes_per_connection" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise LimitsError(
                    f"{field.name}={value!r}: give a whole number of at least {least}"
                    + (" (gopacket's 0 for unlimited does not exist here: name a bound)" if value == 0 else "")
                )
        if not 64 <= self.page_size <= 1 << 16:
            raise LimitsError(f"page_size={self.page_size}: give 64 to 65536 bytes; 2048 holds an Ethernet segment")

    @classmethod
    def from_memory(cls, size: Union[int, str], page_size: int = 2048) -> Limits:
        """Limits that keep what grows with traffic inside `size` bytes: "256MiB" or an int.

        A quarter goes to pages with their records, a third to connections, the rest to fragments and slack.
        Raises `LimitsError` below 1 MiB.
        """
        budget = parse_bytes(size)
        if budget < 1 << 20:
            raise LimitsError(f"{size!r} is too small: give at least 1MiB")
        pages = budget // 4 // (page_size + _PAGE_OVERHEAD_BYTES)
        return cls(
            max_buffered_pages_per_connection=max(1, min(500, pages // 2)),
            max_buffered_pages_total=pages,
            max_connections=max(16, budget // 3 // _CONNECTION_BYTES),
            page_size=page_size,
            max_fragments=max(1, min(1024, budget // 16 // (1 << 16))),
        )


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Seconds of capture time after which waiting ends; None = never. Raises `LimitsError`.

    `gap`: a missing range older than this is given up (2 minutes, the age gopacket's examples flush at).
    `idle`: a connection without packets is completed (RFC 5382 REQ-5: at least 2 hours 4 minutes).
    `embryonic`: a handshake that does not finish (RFC 5382 REQ-5: 4 minutes).
    `closed`: how long a closed connection lingers so that late packets open nothing (60 s, Linux TIME-WAIT).
    `acknowledged`: grace for bytes that the receiver confirmed but the capture does not hold (reordering taps).
    `fragment`: an IP datagram whose fragments do not all come (Linux waits 30 s for IPv4; RFC 8200 says 60 for IPv6).
    """

    gap: Optional[float] = 120.0
    idle: Optional[float] = 7440.0
    embryonic: Optional[float] = 240.0
    closed: Optional[float] = 60.0
    acknowledged: Optional[float] = 1.0
    fragment: Optional[float] = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and (not isinstance(value, (int, float)) or not value >= 0):
                raise LimitsError(f"{field.name}={value!r}: give seconds of at least 0, or None for never")
