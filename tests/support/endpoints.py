"""Two honest hosts, a wire that loses, doubles and reorders, and a tap that does so once more: what a monitor sees.

A host sends what is written, in segments of at most `mss`, inside a window; it acknowledges late and together, sends
again after a timeout or three duplicate acknowledgements, then in pieces of other sizes, and closes when all is sent.
With a small buffer, from which the application reads now and then, windows close, and the next byte probes them.
"""

from __future__ import annotations

import heapq
from functools import partial
from itertools import count
from random import Random
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from support.frames import CLIENT, SERVER, Address, tcp_frame

_FIRST_TIMEOUT, _LONGEST_TIMEOUT, _LATE_ACK, _PROBE_AFTER = 0.25, 3.0, 0.04, 0.3  # seconds
_LARGEST_WINDOW = 65535
_END = 400.0


class Wire(NamedTuple):
    """`lost` before and behind the tap, and `doubled`, are shares of the packets; the rest seconds."""

    mss: int = 50
    segments_in_window: int = 4
    delay: float = 0.02
    lost_before_tap: float = 0.0
    lost_behind_tap: float = 0.0
    doubled: float = 0.0
    jitter: float = 0.0
    missed_by_tap: float = 0.0
    jitter_of_tap: float = 0.0
    buffer: int = 0  # bytes that a host has room for, 0 for as many as come
    keep_alive: float = 0.0  # seconds without a packet of its own, after which a host sends one byte of garbage
    hasty: bool = False  # the client reads no answer: once it has sent all, data gets a RST


class Sent(NamedTuple):
    start: int  # in the stream; of a SYN -1
    data: bytes
    flags: str
    ack: int  # in the other one, -1 for none
    window: int = _LARGEST_WINDOW


class Captured(NamedTuple):
    timestamp: float
    sender: int
    sent: Sent
    frame: bytes


class Host:
    """One end; `number` 0 connects, 1 listens."""

    def __init__(self, world: World, number: int, data: bytes) -> None:
        self.world, self.number, self.data = world, number, data
        self.isn = world.random.choice([world.random.getrandbits(32), 2**32 - 5])
        self.acked = self.next = -1  # of what it sent, its SYN at -1
        self.received = -2  # in order, of what the other one sent: nothing
        self.waiting: Dict[int, int] = {}
        self.written = 0
        self.closing = self.fin_sent = False
        self.fin_at: Optional[int] = None
        self.duplicates = self.unanswered = self.epoch = 0
        self.timeout = _FIRST_TIMEOUT
        self.peer_window = _LARGEST_WINDOW
        self.taken = self.right_edge = 0  # what the application has read, and how far the window went
        self.last_sent = 0.0
        self.probing = False
        self.gone = False  # it knows the connection no more

    @property
    def window(self) -> int:
        in_order = max(0, self.received)
        self.right_edge = max(self.right_edge, in_order, self.taken + self.world.wire.buffer)  # it is never taken back
        return self.right_edge - in_order if self.world.wire.buffer else _LARGEST_WINDOW

    def emit(self, start: int, size: int, flags: str = "") -> None:
        self.send(start, self.data[max(start, 0) : max(start, 0) + size], flags)

    def send(self, start: int, data: bytes, flags: str = "") -> None:
        if self.gone:
            return
        flags += "A" if self.received > -2 else ""
        self.unanswered, self.last_sent = 0, self.world.now
        self.world.carry(self, Sent(start, data, flags, self.received, self.window))

    def acknowledge(self) -> None:
        self.emit(max(self.next, 0), 0)

    def arm(self) -> None:
        self.epoch += 1
        epoch = self.epoch
        self.world.later(self.timeout, lambda: self.ring(epoch))

    def ring(self, epoch: int) -> None:
        if epoch == self.epoch and self.acked < self.next:
            self.timeout = min(2 * self.timeout, _LONGEST_TIMEOUT)
            self.send_again()
            self.arm()

    def connect(self) -> None:
        self.next = 0
        self.emit(-1, 0, "S")
        self.arm()

    def send_again(self) -> None:
        if self.acked < 0:
            return self.emit(-1, 0, "S")
        size = min(self.world.random.choice([1, 2, 4]) * self.world.wire.mss // 2, len(self.data) - self.acked)
        size = max(0, min(size, self.next - self.acked))
        return self.emit(self.acked, size, "F" if self.fin_sent and self.acked + size == len(self.data) else "")

    def write(self, size: int) -> None:
        self.written = min(len(self.data), self.written + size)
        self.push()

    def close(self) -> None:
        self.closing = True
        self.write(len(self.data))

    def probe(self) -> None:
        """The next byte into a closed window (RFC 9293 3.8.6.1); `received` may then be one ahead of `next`."""
        self.probing = self.peer_window == 0 and self.acked == self.next < self.written
        if self.probing:
            self.emit(self.next, 1)
            self.world.later(_PROBE_AFTER, self.probe)

    def read(self) -> None:
        """The application takes what it likes; the peer hears of it once that is worth a segment."""
        before = self.window
        self.taken = min(max(0, self.received), self.taken + self.world.random.randint(1, self.world.wire.buffer))
        if before < self.world.wire.mss <= self.window:
            self.acknowledge()
        self.world.later(self.world.random.choice([0.01, 0.1, 0.7]), self.read)

    def keep_alive(self) -> None:
        silence = self.world.now - self.last_sent
        if silence > self.world.wire.keep_alive and self.acked == self.next >= 0 and not self.fin_sent:
            self.send(self.next - 1, b"\0")
        self.world.later(self.world.wire.keep_alive * (1 + self.world.random.random()), self.keep_alive)

    def push(self) -> None:
        if self.acked < 0:
            return
        wire, random = self.world.wire, self.world.random
        idle = self.acked == self.next
        window = min(wire.mss * wire.segments_in_window, self.peer_window)
        while self.next < self.written and self.next - self.acked < window:
            size = min(wire.mss, self.written - self.next, window - (self.next - self.acked))
            size = random.randint(1, size) if random.random() < 0.1 else size
            last = self.closing and self.next + size == len(self.data) and random.random() < 0.5
            self.emit(self.next, size, "F" if last else "")
            self.next += size + last
            self.fin_sent = self.fin_sent or last
        if self.closing and not self.fin_sent and self.next == len(self.data):
            self.emit(self.next, 0, "F")
            self.next += 1
            self.fin_sent = True
        if idle and self.acked < self.next:
            self.arm()
        if self.peer_window == 0 and not self.probing:
            self.probing = True
            self.world.later(_PROBE_AFTER, self.probe)

    def take(self, sent: Sent) -> None:
        if "R" in sent.flags:
            self.gone = self.gone or sent.start == self.received
            return None
        if self.gone or self.world.wire.hasty and self.fin_sent and self.number == 0 and sent.data:
            self.gone = True
            return self.world.carry(self, Sent(sent.ack, b"", "R", -2, 0))  # RFC 9293 3.10.7.1
        if "S" in sent.flags:
            if self.received < 0:
                self.received = 0
            elif self.acked >= 0:
                return self.acknowledge()
            if self.number == 1 and self.acked < 0:
                return self.connect()  # its SYN/ACK
        if self.received < 0:
            return None
        self.note_ack(sent)
        if sent.data or "F" in sent.flags or "S" in sent.flags:
            self.note_data(sent)
        return None

    def note_ack(self, sent: Sent) -> None:
        if sent.ack >= self.acked:
            self.peer_window = sent.window
        if self.acked < sent.ack <= self.next + (sent.ack <= self.written):
            self.acked, self.duplicates, self.timeout = sent.ack, 0, _FIRST_TIMEOUT
            self.next = max(self.next, sent.ack)  # the probe was taken
            self.epoch += 1
            if self.acked < self.next:
                self.arm()
            self.push()
        elif sent.ack == self.acked < self.next and not sent.data:
            self.duplicates += 1
            if self.duplicates == 3:
                self.send_again()
        elif sent.ack == self.acked == self.next:
            self.push()  # the window may have opened

    def note_data(self, sent: Sent) -> None:
        before, edge = self.received, self.received + self.window
        for index, byte in enumerate(sent.data[: max(0, edge - sent.start)]):
            self.waiting.setdefault(sent.start + index, byte)
        if "F" in sent.flags and sent.start + len(sent.data) <= edge:
            self.fin_at = sent.start + len(sent.data)
        while self.received in self.waiting:
            self.received += 1
        if self.received == self.fin_at:
            self.received += 1
        self.unanswered += 1
        if self.received == before or self.unanswered > 1 or "F" in sent.flags or "S" in sent.flags:
            self.acknowledge()
        else:
            self.world.later(_LATE_ACK, lambda: self.acknowledge() if self.unanswered else None)


class World:
    """A connection from its SYN to its end, or to 400 seconds: `captured` by the tap, in its order."""

    def __init__(self, seed: int, wire: Wire, sizes: Tuple[int, int]) -> None:
        self.random = Random(seed)
        self.wire = wire
        self.hosts = [Host(self, number, self.random.randbytes(size)) for number, size in enumerate(sizes)]
        self.captured: List[Captured] = []
        self.now = 0.0
        self._events: List[Tuple[float, int, Callable[[], Any]]] = []
        self._numbers = count()
        self.hosts[0].connect()
        for host in self.hosts:
            moment = 0.1
            for _ in range(self.random.randint(0, 8)):
                moment += self.random.choice([0.001, 0.01, 0.3])
                self.later(moment, partial(host.write, self.random.randint(1, 4) * wire.mss))
            self.later(moment + self.random.choice([0.0, 0.2, 1.0]), host.close)
            if wire.buffer:
                self.later(moment, host.read)
            if wire.keep_alive:
                self.later(moment + self.random.random(), host.keep_alive)
        while self._events and self.now < _END:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.captured.sort(key=lambda packet: packet.timestamp)

    def later(self, seconds: float, event: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def carry(self, host: Host, sent: Sent) -> None:
        wire, random = self.wire, self.random
        for _ in range(2 if random.random() < wire.doubled else 1):
            if random.random() >= wire.lost_before_tap:
                self.later(wire.delay / 2 + random.random() * wire.jitter, lambda: self._pass_tap(host, sent))

    def _pass_tap(self, host: Host, sent: Sent) -> None:
        wire, random = self.wire, self.random
        other = self.hosts[1 - host.number]
        if random.random() >= wire.missed_by_tap:
            timestamp = 1000.0 + self.now + random.random() * wire.jitter_of_tap
            ends: List[Address] = [CLIENT, SERVER] if host.number == 0 else [SERVER, CLIENT]
            ack = 0 if sent.ack < -1 else other.isn + 1 + sent.ack
            frame = tcp_frame(*ends, host.isn + 1 + sent.start, sent.data, sent.flags, ack=ack, window=sent.window)
            self.captured.append(Captured(timestamp, host.number, sent, frame))
        if random.random() >= wire.lost_behind_tap:
            self.later(wire.delay / 2 + random.random() * wire.jitter, lambda: other.take(sent))
