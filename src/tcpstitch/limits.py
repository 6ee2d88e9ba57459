"""The bounds: how much may be held, and for how long. Frozen, checked when made."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Optional, Union

from .errors import LimitsError, are_seconds, whole
from .page import page_cost

_UNITS = {"": 1, "B": 1, "K": 1000, "KB": 1000, "KIB": 1 << 10, "M": 10**6, "MB": 10**6, "MIB": 1 << 20,
          "G": 10**9, "GB": 10**9, "GIB": 1 << 30}  # fmt: skip
# What one connection takes at most besides pages, with everything unusual that traffic can make it remember, measured
# by `benchmarks/parts.py` with a stream object of `__slots__ = ()`, and 300 more where the tables have just grown while
# connections come and go. An ordinary idle one takes a third.
CONNECTION_BYTES = 3200
HISTORY_RECORDS = 1200  # bytes for both directions' histories, besides five times the bound on what they keep
FRAGMENT_BYTES = 1024  # an incomplete datagram with one fragment, besides the fragment's bytes
OPENING_BYTES = 1024  # a segment that has opened no connection, with its options and keys
_PAGE_SHARE, _CONNECTION_SHARE, _FRAGMENT_SHARE = 0.45, 0.40, 0.05  # the rest: what is in flight, the allocator's slack
LEAST_FRAGMENT_BYTES = 1 << 17  # of all incomplete datagrams: room for one of the largest size
_LEAST = {"max_history_bytes_per_connection": 0, "max_fragment_bytes": LEAST_FRAGMENT_BYTES}  # 1 elsewhere


def parse_bytes(size: Union[int, str]) -> int:
    """256 * 2**20 from "256MiB"; an int stays as it is. Raises `LimitsError` on anything else."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
    if match is None or match.group(2).upper() not in _UNITS:
        units = ", ".join(unit.replace("IB", "iB") for unit in _UNITS if unit.endswith("B") and unit != "B")
        raise LimitsError(f'memory size {size!r}: give a number of bytes, or of {units}: "256MiB"')
    try:
        return int(float(match.group(1)) * _UNITS[match.group(2).upper()])
    except OverflowError:
        raise LimitsError("memory size: no float can hold that many bytes") from None


def connection_cost(history_bytes: int) -> int:
    """The most bytes that a connection takes besides pages. Both its directions keep what was delivered last, with
    when it came, and what was refused."""
    return CONNECTION_BYTES + (HISTORY_RECORDS + 5 * history_bytes if history_bytes else 0)


def context_cost(context: Any) -> int:
    """What VLANs and tunnels take in memory, estimated from above. O(parts)."""
    if context.__class__ is tuple:
        return 64 + sum(8 + context_cost(part) for part in context)
    return 48 + len(context) if context.__class__ is bytes else 32


def key_cost(key: Any) -> int:
    """What the keys of both directions take beyond those of a connection without VLANs and tunnels. O(parts)."""
    return 0 if key.__class__ is bytes else 144 + context_cost(key[1])


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an assembler may hold. Every bound is on by default and hard: it is checked before memory is taken.

    `max_buffered_pages_per_connection` and `max_buffered_pages_total` bound out-of-order and kept bytes, in pages of
    `page_size` bytes (gopacket: MaxBufferedPagesPerConnection, MaxBufferedPagesTotal; there 0 means unlimited, here it
    is refused; the former counts both directions together, where gopacket counts each). As in gopacket, a connection
    that reaches its bound gives up its lowest missing range.
    `max_connections` bounds connection state, also of connections that are over and linger so that late packets open
    nothing; `max_fragments` the incomplete IP datagrams and `max_fragment_bytes` their bytes.
    `max_history_bytes_per_connection`, off by default, keeps the last delivered bytes of each direction so that a
    later segment with other bytes at the same offsets is reported; it costs up to five times that per connection, and
    1 200 bytes, for what was delivered and what was refused of both directions and when it came.
    Raises `LimitsError`.
    """

    max_buffered_pages_per_connection: int = 500
    max_buffered_pages_total: int = 100_000
    max_connections: int = 1_000_000
    page_size: int = 2048
    max_fragments: int = 1024
    max_history_bytes_per_connection: int = 0
    max_fragment_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = _LEAST.get(field.name, 1)
            try:
                whole(field.name, value, least, LimitsError)
            except LimitsError as error:
                hint = " (gopacket's 0 for unlimited does not exist here: name a bound)" if value == 0 else ""
                raise LimitsError(f"{error}{hint}") from None
        if not 64 <= self.page_size <= 1 << 16:
            raise LimitsError(f"page_size={self.page_size}: give 64 to 65536 bytes; 2048 holds an Ethernet segment")

    @property
    def memory_bound(self) -> int:
        """The most bytes that an assembler with these limits holds: pages with their records, connections with their
        history, fragments, segments that may come to nothing. What is vacant in slabs comes on top, two of them at
        most: an eighth of the pages' bytes (or two memory pages of the system), never more than 2 MiB. What handlers
        keep themselves is theirs."""
        return self._most_of_what_counts + self.held_bytes + self.opening_bytes

    @property
    def _most_of_what_counts(self) -> int:
        return (
            self.max_buffered_pages_total * page_cost(self.page_size)
            + self.max_connections * connection_cost(self.max_history_bytes_per_connection)
            + self.max_fragments * FRAGMENT_BYTES
            + self.max_fragment_bytes
        )

    @property
    def held_bytes(self) -> int:
        """The most bytes of segments that wait for word of whether they count, such as a SYN on a living connection."""
        return min(1 << 20, self._most_of_what_counts >> 5)

    @property
    def opening_bytes(self) -> int:
        """The most bytes of what came before a connection that may never be, such as a SYN/ACK without a SYN."""
        return min(256 * OPENING_BYTES, self.held_bytes >> 1)

    @classmethod
    def from_memory(
        cls, size: Union[int, str], page_size: int = 2048, max_history_bytes_per_connection: int = 0
    ) -> Limits:
        """Limits that keep all that grows with traffic inside `size` bytes: "256MiB" or an int.

        45% goes to pages with their records, 40% to connections, 5% to IP fragments (half for their bytes, 4 MiB at
        most, half for records); the rest is left for segments that may come to nothing, for what is being delivered and
        for the allocator. One connection gets at most a quarter of the pages. Below 5 MiB one IP datagram takes more
        than the 5%, at the cost of pages.
        Raises `LimitsError` below 1 MiB, and where the 40% are less than one connection with its history.
        """
        budget = parse_bytes(size)
        if budget < 1 << 20:
            raise LimitsError(f"{size!r} is too small: give at least 1MiB")
        # Refuses what cannot be, before anything is divided by it.
        cls(page_size=page_size, max_history_bytes_per_connection=max_history_bytes_per_connection)
        connections = int(budget * _CONNECTION_SHARE) // connection_cost(max_history_bytes_per_connection)
        if not connections:
            raise LimitsError(
                f"{size!r} is too small for max_history_bytes_per_connection={max_history_bytes_per_connection}"
            )
        fragments = int(budget * _FRAGMENT_SHARE)
        fragment_bytes = min(4 << 20, max(LEAST_FRAGMENT_BYTES, fragments // 2))
        beyond = max(0, fragment_bytes - fragments // 2)  # of a small budget one datagram takes more than its share
        pages = (int(budget * _PAGE_SHARE) - beyond) // page_cost(page_size)
        return cls(
            max_buffered_pages_per_connection=max(1, min(500, pages // 4)),
            max_buffered_pages_total=pages,
            max_connections=connections,
            page_size=page_size,
            max_fragments=min(1024, fragments // 2 // FRAGMENT_BYTES),
            max_history_bytes_per_connection=max_history_bytes_per_connection,
            max_fragment_bytes=fragment_bytes,
        )


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Seconds of capture time after which waiting ends; None = never. Raises `LimitsError`.

    `gap`: a missing range older than this is given up (2 minutes, the age gopacket's examples flush at).
    `idle`: a connection without packets is completed (RFC 5382 REQ-5: at least 2 hours 4 minutes), up to an eighth of
    that later, and not before a quarter as many packets came as connections are open: looking at all of them costs.
    `embryonic`: a handshake that does not finish (RFC 5382 REQ-5: 4 minutes).
    `closed`: how long a closed connection lingers so that late packets open nothing (60 s, Linux TIME-WAIT), from its
    end, or from when data or a FIN of it was last sent again.
    `acknowledged`: grace for bytes that the receiver confirmed but the capture does not hold (reordering taps;
    docs/decisions/0003 has the measurement).
    `fragment`: an IP datagram whose fragments do not all come (Linux waits 30 s for IPv4; RFC 8200 says 60 for IPv6).

    A clock that jumps ahead by more than an hour, or back by more than a minute, is believed after 16 packets in a row.
    Ordinary data does not show that the clock went back; a SYN, or a packet that is not TCP, does. Until one comes,
    nothing ends by its time, but for no longer than the clock went back by.
    """

    gap: Optional[float] = 120.0
    idle: Optional[float] = 7440.0
    embryonic: Optional[float] = 240.0
    closed: Optional[float] = 60.0
    acknowledged: Optional[float] = 0.1
    fragment: Optional[float] = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not are_seconds(value):
                raise LimitsError(f"{field.name}={value!r}: give seconds, an int or float from 0 on, or None for never")
