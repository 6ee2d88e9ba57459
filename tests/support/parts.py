"""What tests of captures in parts share: handlers that emit all they were given."""

from __future__ import annotations

from typing import Any, Callable, List

from tcpstitch import Chunk, Flow, Segment, Stream, StreamFactory, connections

Emit = Callable[[Any], None]


class Unshown(Exception):
    """Fails again where it is to be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Whole(Stream):
    def __init__(self, flow: Flow, emit: Emit) -> None:
        self.flow, self.emit, self.data = str(flow), emit, [b"", b""]

    def reassembled(self, chunk: Chunk) -> None:
        self.data[chunk.direction] += chunk.data

    def complete(self, reason: str) -> None:
        self.emit((self.flow, self.data[0], self.data[1], reason))


class Factory(StreamFactory):
    """Emits (flow, client's bytes, server's bytes, reason) of each connection."""

    stream: Callable[[Flow, Emit], Stream] = Whole

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return self.stream(flow, self.emit)


def alone(source: Any) -> List[Any]:
    return [(str(c.flow), c.client_data, c.server_data, c.reason) for c in connections(source)]


def key_of(flow: str) -> bytes:
    from ipaddress import ip_address

    ends = [end.strip().rpartition(":") for end in flow.replace("->", ">").split(">")]
    raw = b"".join(ip_address(address.strip("[] ")).packed for address, _, _ in ends)
    return raw + b"".join(int(port).to_bytes(2, "big") for _, _, port in ends)
