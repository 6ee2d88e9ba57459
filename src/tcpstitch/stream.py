"""The callback contract: what users subclass."""

from __future__ import annotations

from typing import NamedTuple, Optional

from .chunk import Anomaly, Chunk, Gap
from .segment import Direction, Flow, Segment

ON_LIMIT = ("deliver", "drop", "abandon")


class OverLimit(NamedTuple):
    """Why a connection has to give something up: `reason` is "page_limit" (its own bound is reached) or "total_limit"
    (the bound of all, and it is the one idle longest). It holds `pages` pages with `bytes` bytes; its last packet came
    `age` seconds of capture time ago, by a clock that goes in steps of a second."""

    reason: str
    pages: int
    bytes: int
    age: float


class Stream:
    """The handler of one connection; every method has a default that does nothing.

    One `assemble` call makes, in this order, at most one `StreamFactory.new`, then deliveries on that connection, then
    at most one `complete` of it; calls on *other* connections happen only for eviction and timers. No method may call
    back into the assembler. A method that raises has its stream abandoned; the error reaches the caller of `assemble`
    as `StreamCallbackError`.

    Two attributes, of the class or of an object, say how much a stream wants:

    `depth`: the offset at which each direction ends for the handler: what is missing before it counts, what lies behind
    it is not told, and packets are only counted from there on, as after `Chunk.stop`; None for all. Read when the
    connection opens.
    `on_gap`: "continue" behind a gap, or "abandon" the connection once `gap` was called: `complete("abandoned")`
    follows. Read at each gap.
    """

    __slots__ = ()

    depth: Optional[int] = None
    on_gap: str = "continue"

    def accept(self, segment: Segment, direction: Direction) -> bool:
        """True, or False to drop this segment from the stream. Overriding it takes the connection off the short path.

        May still be asked while a completed connection lingers. Looked for when the first object of a class comes."""
        return True

    def reassembled(self, chunk: Chunk) -> None:
        """In-order data of one direction, each byte once, but for those that `Chunk.keep_from` asked for again.

        `keep_from` works only until this returns; the chunk and its `data` may be kept as long as wanted."""

    def gap(self, gap: Gap) -> None:
        """Bytes that will never come; called before the chunk behind them, whose `skip` counts them too."""

    def anomaly(self, anomaly: Anomaly) -> None:
        """Evidence; the delivery goes on as it would. May still come while a completed connection lingers (data after a
        reset, say)."""

    def over_limit(self, info: OverLimit) -> Optional[str]:
        """What this connection gives up at a page limit: "deliver" its data behind the lowest hole, "drop" its oldest
        data, "abandon" it all; None leaves it to the assembler's `on_limit`. Asked each time."""
        return None

    def complete(self, reason: str) -> None:
        """Exactly once, after all deliveries: "fin", "rst", "idle", "evicted", "flushed", "abandoned" or "replaced"
        (docs/tcp-rules.md, "Gaps and ends")."""


class StreamFactory:
    """Makes a handler for each connection. Subclass it, and give an object of the subclass to `Assembler`."""

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        """A `Stream` for the connection that `segment` opens, or None to ignore the connection.

        `timestamp` is the capture time of `segment` in seconds. It is the connection's SYN or, where that was not seen,
        its first segment, which may come from the server. What this raises ends as what a stream's method raises."""
        raise NotImplementedError("subclass StreamFactory and return a Stream (or None) from new()")
