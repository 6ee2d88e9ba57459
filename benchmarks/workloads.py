"""The captures that the benchmarks read: made by rule, the same bytes every time, with the digest of what is in them.

    python benchmarks/workloads.py bulk mixed --scale 0.5 --folder /tmp/captures
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import os
import random
import struct
import tempfile
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from frames import ACK, PSH, Connection, numbered

VERSION = 2  # part of the file names: a changed rule must not meet a cached file of the old one
_POOL = random.Random(7).randbytes(1 << 20)

# A frame, and for data also its connection, direction and payload.
Packet = Tuple[bytes, Optional[Tuple[Connection, int, bytes]]]


class Capture(NamedTuple):
    """A capture file and what a right answer delivers out of it."""

    path: str
    packets: int
    bytes: int
    digest: str
    zeroed: str  # the digest of one that has zeros where bytes were lost
    connections: int


class Digest:
    """Order-free digest over all directions: XOR of sha256(key + sha256(bytes)); silent directions do not count."""

    def __init__(self) -> None:
        self._hashes: Dict[bytes, Any] = {}
        self.bytes = 0

    def update(self, key: bytes, data: bytes) -> None:
        """Append `data` to the direction `key` (packed addresses, then ports)."""
        if not data:
            return
        self.bytes += len(data)
        found = self._hashes.get(key)
        if found is None:
            found = self._hashes[key] = hashlib.sha256()
        found.update(data)

    def hexdigest(self) -> str:
        total = 0
        for key, found in self._hashes.items():
            total ^= int.from_bytes(hashlib.sha256(key + found.digest()).digest(), "big")
        return f"{total:064x}"


def payload(rng: random.Random, size: int) -> bytes:
    start = rng.randrange(len(_POOL) - size)
    return _POOL[start : start + size]


def data(connection: Connection, direction: int, content: bytes) -> Packet:
    return connection.segment(direction, content, ACK | PSH), (connection, direction, content)


def control(frames: List[bytes]) -> Iterator[Packet]:
    for frame in frames:
        yield frame, None


def long_transfers(rng: random.Random, segments: int, size: int, v6: bool = False) -> Iterator[Packet]:
    """100 connections, segments interleaved at random, one pure ACK for every second segment."""
    open_now = [numbered(number, v6, 42 if v6 else None) for number in range(100)]
    for connection in open_now:
        yield from control(connection.handshake())
    for index in range(segments):
        connection = rng.choice(open_now)
        yield data(connection, 0, payload(rng, size))
        if index & 1:
            yield connection.segment(1), None
    for connection in open_now:
        yield from control(connection.goodbye())


def conversation(rng: random.Random, connection: Connection) -> Iterator[Packet]:
    """A request and its answer, as a short HTTP exchange has them."""
    yield from control(connection.handshake())
    yield data(connection, 0, payload(rng, rng.randrange(80, 700)))
    for index in range(rng.randrange(1, 7)):
        yield data(connection, 1, payload(rng, rng.randrange(200, 1449 if connection.options else 1461)))
        if index & 1:
            yield connection.segment(0), None
    yield from control(connection.goodbye())


def short_connections(rng: random.Random, count: int, options: bool = False) -> Iterator[Packet]:
    """`count` conversations, 64 of them open at any time."""
    started = 0
    running: List[Iterator[Packet]] = []
    while True:
        while len(running) < 64 and started < count:
            running.append(conversation(rng, numbered(started, options=options)))
            started += 1
        if not running:
            return
        index = rng.randrange(len(running))
        packet = next(running[index], None)
        if packet is None:
            running[index] = running[-1]
            running.pop()
        else:
            yield packet


def open_together(rng: random.Random, count: int, rounds: int, size: int, close: bool = True) -> Iterator[Packet]:
    """`count` connections open at once; in every round each sends and is answered."""
    connections = [numbered(number) for number in range(count)]
    for connection in connections:
        yield from control(connection.handshake())
    for _ in range(rounds):
        for connection in connections:
            yield data(connection, 0, payload(rng, size))
        for connection in connections:
            yield data(connection, 1, payload(rng, 2 * size))
    if close:
        for connection in connections:
            yield from control(connection.goodbye())


def open_and_close(rng: random.Random, count: int) -> Iterator[Packet]:
    """`count` connections one after the other, each with one byte and nothing else."""
    for number in range(count):
        connection = numbered(number)
        yield from control(connection.handshake())
        yield data(connection, 0, payload(rng, 1))
        yield from control(connection.goodbye())


class Impairment(NamedTuple):
    """What the wire does to data segments: shares of 1, and the most packets by which one comes late."""

    reordered: float = 0.0
    depth: int = 0
    doubled: float = 0.0
    lost: float = 0.0


def impaired(
    packets: Iterator[Packet], rng: random.Random, rule: Impairment, digest: Digest, zeroed: Digest
) -> Iterator[bytes]:
    """The frames in the order of the wire. Bytes count in `digest` unless they are lost, in `zeroed` as zeros then."""
    late: List[Tuple[int, int, bytes]] = []
    for position, (frame, content) in enumerate(packets):
        while late and late[0][0] <= position:
            yield heapq.heappop(late)[2]
        if content is None:
            yield frame
            continue
        connection, direction, sent = content
        key = connection.sides[direction].key
        if rule.lost and rng.random() < rule.lost:
            zeroed.update(key, bytes(len(sent)))
            continue
        digest.update(key, sent)
        if rule.lost:
            zeroed.update(key, sent)
        if rule.reordered and rng.random() < rule.reordered:
            heapq.heappush(late, (position + rng.randint(1, rule.depth), position, frame))
        else:
            yield frame
        if rule.doubled and rng.random() < rule.doubled:
            heapq.heappush(late, (position + rng.randint(1, 8), position, frame))
    while late:
        yield heapq.heappop(late)[2]


NONE = Impairment()
_MAKERS: Dict[str, Tuple[Callable[[random.Random, float], Iterator[Packet]], Impairment]] = {
    "bulk": (lambda rng, scale: long_transfers(rng, int(200_000 * scale), 1460), NONE),
    "mixed": (lambda rng, scale: short_connections(rng, int(20_000 * scale)), NONE),
    "stamped": (lambda rng, scale: short_connections(rng, int(20_000 * scale), True), NONE),
    "lossy": (lambda rng, scale: long_transfers(rng, int(200_000 * scale), 1460), Impairment(0.05, 8, 0.01, 0.001)),
    "many": (lambda rng, scale: open_together(rng, int(50_000 * scale), 1, 300), NONE),
    "v6vlan": (lambda rng, scale: long_transfers(rng, int(200_000 * scale), 1400, True), NONE),
    "small": (lambda rng, scale: long_transfers(rng, int(200_000 * scale), 64), NONE),
    "reorder": (lambda rng, scale: long_transfers(rng, int(200_000 * scale), 1460), Impairment(0.2, 1000)),
    "churn": (lambda rng, scale: open_and_close(rng, int(40_000 * scale)), NONE),
    "million": (lambda rng, scale: open_together(rng, int(1_000_000 * scale), 1, 40), NONE),
}
NAMES = tuple(_MAKERS)
# Connections; the others have 100.
COUNTS = {"mixed": 20_000, "stamped": 20_000, "many": 50_000, "churn": 40_000, "million": 1_000_000}


def write(path: str, frames: Iterator[bytes]) -> int:
    """A pcap file of `frames`, ten microseconds apart. Returns how many."""
    count = 0
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for count, frame in enumerate(frames, 1):
            seconds, ticks = divmod(count, 100_000)
            size = len(frame)
            file.write(struct.pack("<IIII", 1_600_000_000 + seconds, ticks * 10, size, size) + frame)
    return count


def make(name: str, scale: float = 1.0, folder: Optional[str] = None) -> Capture:
    """The capture of workload `name`, from `folder` if it was made before. Raises KeyError on an unknown name."""
    folder = folder or os.path.join(tempfile.gettempdir(), "tcpstitch-benchmarks")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}-{scale:g}-v{VERSION}.pcap")
    try:
        with open(path + ".json", encoding="ascii") as file:
            return Capture(path, *json.load(file))
    except OSError:
        pass
    maker, rule = _MAKERS[name]
    digest, zeroed, rng = Digest(), Digest(), random.Random(name)
    frames = impaired(maker(rng, scale), random.Random(name + " wire"), rule, digest, zeroed)
    packets = write(path + ".part", frames)
    os.replace(path + ".part", path)
    connections = int(COUNTS[name] * scale) if name in COUNTS else 100
    sums = digest.hexdigest(), (zeroed if rule.lost else digest).hexdigest()
    capture = Capture(path, packets, digest.bytes, *sums, connections)
    with open(path + ".json", "w", encoding="ascii") as file:
        json.dump(capture[1:], file)
    return capture


def pcapng(path: str) -> str:
    """The same capture as pcapng, one interface with microseconds, beside it."""
    other = path + "ng"
    if os.path.exists(other):
        return other
    with open(path, "rb") as file, open(other + ".part", "wb", buffering=1 << 20) as out:
        file.seek(24)
        out.write(struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28))
        out.write(struct.pack("<IIHHII", 1, 20, 1, 0, 262144, 20))
        while head := file.read(16):
            seconds, fraction, length, on_wire = struct.unpack("<IIII", head)
            ticks = seconds * 10**6 + fraction
            size = 32 + (length + 3 & -4)
            out.write(struct.pack("<IIIIIII", 6, size, 0, ticks >> 32, ticks & 0xFFFFFFFF, length, on_wire))
            out.write(file.read(length) + bytes(-length % 4) + struct.pack("<I", size))
    os.replace(other + ".part", other)
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help="of " + ", ".join(NAMES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder")
    options = parser.parse_args()
    for name in options.names:
        print(json.dumps(make(name, options.scale, options.folder)._asdict()))


if __name__ == "__main__":
    main()
