"""What leaves: in-order bytes, the gaps between them, and evidence about how they came."""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from operator import index as as_index
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Tuple

from .errors import UsageError
from .segment import Direction, Flow


class Gap(NamedTuple):
    """Bytes of one direction that will never come: `[offset, offset + length)`.

    `reason` is one of `page_limit`, `total_limit`, `aged`, `acknowledged` (the receiver confirmed bytes that the
    capture never saw), `closed`, `flushed`, `urgent` (with `urgent="gap"`), `truncated` (cut by the snap length).
    `timestamp` is the capture time, in seconds, at which it was given up.
    """

    direction: Direction
    offset: int
    length: int
    reason: str
    timestamp: float


class Anomaly(NamedTuple):
    """Evidence: a segment that says something else than the stream so far, from a careless host, a faulty wire or an
    attacker; docs/anomalies.md tells which kinds honest traffic has too.

    `offset` is the stream offset it concerns (0 = first byte after the SYN), `timestamp` the capture time in seconds of
    the segment that showed it, `detail` what depends on the kind, by name.
    """

    kind: str
    direction: Direction
    offset: int
    timestamp: float
    detail: Mapping[str, Any] = {}


class PacketInfo(NamedTuple):
    """Where a byte came from: the packet's capture time in seconds, the sequence number of the byte, and the context
    object of the `Segment` that the caller made, if any."""

    timestamp: float
    seq: int
    context: Any = None


class Chunk:
    """In-order bytes of one direction.

    `data` are the `bytes`; `offset` is the stream offset of the first (0 = first byte after the SYN);
    `timestamp` the capture time, in seconds, of the packet that carried the first byte. `skip` is the number of bytes
    missing just before it, 0 when none, or -1 when the start of the stream was not seen. `start` marks data at offset 0
    behind a SYN that was seen, `end` the last chunk (FIN), which may be empty. As in gopacket, bytes kept back bring
    neither `skip` nor `start` again. The bytes are contiguous, but for urgent ones taken out (`urgent="oob"`)
    behind bytes that were kept back: `packet_at` knows the places then too.
    """

    # The ordinary chunk stores four values, and the short path stores them itself; the others are class constants or
    # follow from these, and are slots in the subclass for the rare chunk that needs them. Few classes, because code
    # that sees several at one place is specialised for none.
    __slots__ = ("data", "offset", "timestamp", "_half")

    skip: int = 0
    end: bool = False
    _marks: Tuple[Any, ...] = ()

    data: bytes
    offset: int
    timestamp: float
    _half: Any

    @property
    def start(self) -> bool:
        """Whether the stream starts here, behind a SYN that was seen."""
        return self.offset == 0 and bool(self._half.syn_seen)

    @property
    def direction(self) -> Direction:
        """Who sent the bytes."""
        return self._half.direction  # type: ignore[no-any-return]

    @property
    def flow(self) -> Flow:
        """The connection's ends."""
        return self._half.state.flow  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def _base(self) -> int:
        """The offset that `data` would begin at to end where it does, if no byte had been taken out of it."""
        return self.offset

    def _offset_at(self, index: int) -> int:
        return self.offset + index

    def packet_at(self, index: int) -> PacketInfo:
        """The packet that carried `data[index]`. Raises IndexError outside of the chunk. O(log packets).

        Where more packets shared a page than its bound on records allows, the next earlier recorded one stands in.
        """
        if index.__class__ is not int:
            index = _whole(index)
        if not 0 <= index < max(len(self.data), 1):
            raise IndexError(f"index {index} outside of a chunk of {len(self.data)} bytes")
        place = self._base + index
        timestamp, context = self.timestamp, None
        behind = bisect_right(self._marks, (place, inf))
        if behind:
            _, timestamp, context = self._marks[behind - 1]
        return PacketInfo(timestamp, self._half.seq_at(self._offset_at(index)), context)

    def keep_from(self, index: int) -> None:
        """Hold `data[index:]` back: the next chunk of this direction starts with it again.

        `index == len(data)` keeps nothing. Kept bytes count as pages of the connection; what the bounds do not allow
        is dropped from the front. A gap ends what was kept, and so does any end but a FIN: what `Stream.complete` is to
        see then, the handler has to note. Each chunk costs one copy of the kept bytes that it brings.
        Raises IndexError outside of the chunk, `UsageError` outside of the `reassembled` call that received it and for
        what is no whole number.
        """
        if index.__class__ is not int:
            index = _whole(index)
        if not 0 <= index <= len(self.data):
            raise IndexError(f"cannot keep from {index} in a chunk of {len(self.data)} bytes")
        self._half.request_keep(self, self._base + index)

    def stop(self) -> None:
        """End the interest in this direction: its further packets are counted, not buffered and not delivered. Its end
        still comes, as an empty last chunk, and `Stream.complete`."""
        self._half.request_stop()

    def stop_connection(self) -> None:
        """End the interest in both directions; `Stream.complete` still comes. From then on a packet that is no SYN, FIN
        or RST costs next to nothing and is evidence of nothing; a stream's own `accept` is still asked about each."""
        peer = self._half.peer
        self._half.request_stop()
        if peer is not None:  # else the connection is over and forgotten
            peer.request_stop()

    def __reduce__(self) -> Tuple[Any, ...]:
        """It cannot be pickled: with its connection it would take the assembler along. Raises `UsageError`."""
        raise UsageError("a chunk belongs to its assembler: pickle what you want of it, such as chunk.data")

    def __repr__(self) -> str:
        return (
            f"<Chunk {self.direction.name.lower()} offset={self.offset} bytes={len(self.data)} skip={self.skip} "
            f"start={self.start} end={self.end}>"
        )


def _whole(index: Any) -> int:
    try:
        return as_index(index)
    except TypeError:
        raise UsageError(f"index {index!r}: give a whole number, the place of a byte in the chunk's data") from None


class LastChunk(Chunk):
    """A FIN without data, behind all that came."""

    __slots__ = ()
    start = False
    end = True


class DetailedChunk(Chunk):
    """A chunk that starts or ends a stream, follows a gap, or came out of pages."""

    __slots__ = ("skip", "start", "end", "_marks")

    def __init__(
        self,
        data: bytes,
        offset: int,
        timestamp: float,
        half: Any,
        skip: int = 0,
        start: bool = False,
        end: bool = False,
        marks: Optional[Tuple[Any, ...]] = None,
    ) -> None:
        self.data = data
        self.offset = offset
        self.timestamp = timestamp
        self._half = half
        self.skip = skip
        self.start = start  # type: ignore[misc]  # a slot here
        self.end = end
        self._marks = marks or ()


class SplicedChunk(DetailedChunk):
    """A chunk of which a byte inside was taken out, as urgent: before that lie bytes that the handler kept back."""

    __slots__ = ("_removed",)

    _removed: Sequence[int]  # the offsets of such bytes, sorted

    @property
    def _base(self) -> int:
        return self.offset + len(self._removed)

    def _offset_at(self, index: int) -> int:
        offset = self.offset + index
        for place in self._removed:
            offset += place <= offset
        return offset
