"""Whole connections, for small jobs and notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, List, Optional

from .assembler import Assembler
from .capture import checked_sources, open_capture
from .chunk import Anomaly, Chunk, Gap
from .errors import UsageError
from .segment import Direction, Flow, Segment
from .stream import Stream, StreamFactory

if TYPE_CHECKING:
    from .capture import Sources


class Connection(Stream):
    """One completed connection, held whole.

    `client_data` and `server_data` are the bytes that each side sent, in order, with what is missing left out: `gaps`
    says where, in stream offsets. `start_time` is the capture time, in seconds, of the first packet; `reason` how the
    connection ended (`Stream.complete`); `anomalies` are those reported until then. Empty connections are included.
    """

    __slots__ = ("flow", "start_time", "gaps", "anomalies", "reason", "_parts", "_completed")

    def __init__(self, flow: Flow, start_time: float, completed: List[Connection]) -> None:
        self.flow = flow
        self.start_time = start_time
        self.gaps: List[Gap] = []
        self.anomalies: List[Anomaly] = []
        self.reason = ""
        self._parts: List[List[bytes]] = [[], []]
        self._completed: Optional[List[Connection]] = completed

    def _joined(self, direction: Direction) -> bytes:
        parts = self._parts[direction]
        if len(parts) > 1:
            parts[:] = [b"".join(parts)]
        return parts[0] if parts else b""

    @property
    def client_data(self) -> bytes:
        """What the client sent. The first use costs O(bytes), later ones O(1)."""
        return self._joined(Direction.CLIENT_TO_SERVER)

    @property
    def server_data(self) -> bytes:
        """What the server sent. The first use costs O(bytes), later ones O(1)."""
        return self._joined(Direction.SERVER_TO_CLIENT)

    def reassembled(self, chunk: Chunk) -> None:
        if chunk.data:
            self._parts[chunk.direction].append(chunk.data)

    def gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    def anomaly(self, anomaly: Anomaly) -> None:
        # Those of the linger after the close would change a connection that the caller already has.
        if self._completed is not None:
            self.anomalies.append(anomaly)

    def complete(self, reason: str) -> None:
        self.reason = reason
        completed, self._completed = self._completed, None
        if completed is not None:
            completed.append(self)

    def __repr__(self) -> str:
        return (
            f"<Connection {self.flow} client={len(self.client_data)} server={len(self.server_data)} "
            f"gaps={len(self.gaps)} reason={self.reason!r}>"
        )


class _Factory(StreamFactory):
    def __init__(self) -> None:
        self.completed: List[Connection] = []

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return Connection(flow, timestamp, self.completed)


def connections(source: Sources, **options: Any) -> Iterator[Connection]:
    """The connections of a capture, each as soon as it is complete, in that order.

    `source` is what `open_capture` takes: a path, "-", a binary file object, or a list of them; `options` are those of
    `Assembler`. Memory: each connection is held whole until it is complete and you let go of it, so this is for
    captures whose open connections fit in memory together; the limits bound out-of-order data only. For anything larger
    subclass `Stream`. Raises `UsageError` for a wrong source or option at once, `CaptureError` from the iteration,
    which opens the capture.
    """
    checked_sources(source)
    for name in ("factory", "follow"):
        if name in options:
            raise UsageError(f"connections() takes no {name}: it holds whole connections; subclass Stream instead")
    factory = _Factory()
    return _completed(source, Assembler(factory, **options), factory)


def _completed(source: Sources, assembler: Assembler, factory: _Factory) -> Iterator[Connection]:
    completed = factory.completed
    with open_capture(source) as capture:
        for timestamp, packet in capture:
            assembler.assemble(packet, timestamp)
            if completed:
                yield from completed
                completed.clear()
    assembler.flush_all()
    yield from completed
