"""Handlers that write down every call, so that a test can compare them with what it expects."""

from __future__ import annotations

import hashlib
from typing import Any, Callable, List, Optional, Set, Tuple

from tcpstitch import Anomaly, Chunk, Direction, Flow, Gap, Segment, Stream, StreamFactory

C2S, S2C = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT


class Recording(Stream):
    """What one connection was told, in order."""

    def __init__(self, owner: Recorder, flow: Flow, timestamp: float) -> None:
        self.owner = owner
        self.flow = flow
        self.opened_at = timestamp
        self.events: Tuple[List[Any], List[Any]] = ([], [])  # per direction: bytes delivered and Gap
        self.chunks: List[Chunk] = []
        self.gaps: List[Gap] = []
        self.anomalies: List[Anomaly] = []
        self.completions: List[str] = []
        self.ended: Set[Direction] = set()

    def reassembled(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.events[chunk.direction].append(chunk.data)
        if chunk.end:
            self.ended.add(chunk.direction)
        if self.owner.on_chunk is not None:
            self.owner.on_chunk(self, chunk)

    def gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
        self.events[gap.direction].append(gap)

    def anomaly(self, anomaly: Anomaly) -> None:
        self.anomalies.append(anomaly)

    def complete(self, reason: str) -> None:
        self.completions.append(reason)

    def data(self, direction: Direction = C2S) -> bytes:
        """All bytes delivered, gaps left out."""
        return b"".join(event for event in self.events[direction] if isinstance(event, bytes))

    def text(self, direction: Direction = C2S) -> str:
        """All bytes delivered, with a mark for each gap."""
        return "".join(_text(event) for event in self.events[direction])

    @property
    def kinds(self) -> Set[str]:
        """The kinds of anomaly raised, and `gap` where one was reported."""
        return {anomaly.kind for anomaly in self.anomalies} | ({"gap"} if self.gaps else set())


class Recorder(StreamFactory):
    """Makes a `Recording` for each connection. `on_chunk` is called with each chunk, inside the handler."""

    def __init__(self, on_chunk: Optional[Callable[[Recording, Chunk], None]] = None) -> None:
        self.on_chunk = on_chunk
        self.connections: List[Recording] = []

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        recording = Recording(self, flow, timestamp)
        self.connections.append(recording)
        return recording

    @property
    def only(self) -> Recording:
        assert len(self.connections) == 1, f"{len(self.connections)} connections instead of one"
        return self.connections[0]

    @property
    def kinds(self) -> Set[str]:
        return {kind for connection in self.connections for kind in connection.kinds}

    @property
    def chunks(self) -> List[Chunk]:
        return [chunk for connection in self.connections for chunk in connection.chunks]


class Hashing(Stream):
    """Digests instead of bytes, for transfers too large to keep."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.hashes = (hashlib.sha256(), hashlib.sha256())
        self.sizes = [0, 0]
        self.gaps: List[Gap] = []
        self.reason = ""

    def reassembled(self, chunk: Chunk) -> None:
        self.hashes[chunk.direction].update(chunk.data)
        self.sizes[chunk.direction] += len(chunk.data)

    def gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    def complete(self, reason: str) -> None:
        self.reason = reason


class HashingFactory(StreamFactory):
    """Makes a `Hashing` for each connection."""

    def __init__(self) -> None:
        self.streams: List[Hashing] = []

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Hashing:
        self.streams.append(Hashing(flow))
        return self.streams[-1]


def _text(event: Any) -> str:
    if isinstance(event, Gap):
        return f"[{event.length} byte{'' if event.length == 1 else 's'} missing]"
    return str(event, "latin-1")
