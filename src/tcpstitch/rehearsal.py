"""Short conversations out of order, to run once what is to stand apart: see `apart`."""

from __future__ import annotations

from struct import pack
from typing import Any, Iterator, Tuple

from .checksum import word_sum
from .segment import ACK, FIN, SYN, Flow, Segment
from .stream import Stream, StreamFactory

_SIZE = 1448
_ENDS = (b"\x0a\0\0\1", b"\x0a\0\0\2")


class _Listener(Stream):
    __slots__ = ()


class _Listeners(StreamFactory):
    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return _Listener()


def rehearse(assembler: Any) -> None:
    """Let an `assembler`, the class, put two of them together."""
    for port in range(2):
        with assembler(_Listeners()) as one:
            for timestamp, frame in _conversation(port):
                one.assemble(frame, timestamp)


def _conversation(port: int) -> Iterator[Tuple[float, bytes]]:
    """A handshake, a client's segments out of order, doubled and lost, a server's acknowledgements, and FINs."""

    def frame(side: int, flags: int, place: int, acked: int, size: int) -> bytes:
        seq, ack = (1000 + place * _SIZE, 2001) if side == 0 else (2001, 1000 + acked * _SIZE)
        if flags & SYN:
            seq -= 1
        ends = _ENDS[side] + _ENDS[1 - side] + pack("!HH", *((port, 80) if side == 0 else (80, port)))
        rest = pack("!IIHHHH", seq, ack if flags & ACK else 0, 0x5000 | flags, 65535, 0, 0) + b"x" * size
        total = word_sum(ends + rest) + 6 + 20 + size
        rest = rest[:12] + pack("!H", 0xFFFF - total % 0xFFFF) + rest[14:]
        head = pack("!12xHBBHHHBBH", 0x800, 0x45, 0, 40 + size, 0, 0, 64, 6, 0)
        return head + ends + rest

    yield 1.0, frame(0, SYN, 0, 0, 0)
    yield 1.0, frame(1, SYN | ACK, 0, 0, 0)
    yield 1.0, frame(0, ACK, 0, 0, 0)
    # In order, behind holes, doubled, filling a hole; and a hole (of the 12th segment) that the receiver does not have
    for round_ in range(2):
        first = 20 * round_
        for place in (0, 1, 3, 4, 5, 6, 7, 8, 10, 9, 6, 2, 2, 12, 13, 14, 15, 17, 16):
            yield 1.0 + round_, frame(0, ACK, first + place, 0, _SIZE)
            yield 1.0 + round_, frame(1, ACK, 0, first + max(place - 2, 0), 0)
        yield 1.0 + round_, frame(1, ACK, 0, first + 18, 0)
        for place in (18, 19):
            yield 1.5 + round_ + place / 100, frame(0, ACK, first + place, 0, _SIZE)
    yield 4.0, frame(0, ACK, 39, 0, 10)
    yield 4.0, frame(0, FIN | ACK, 40, 0, 100)  # with data
    yield 4.0, frame(1, FIN | ACK, 0, 40, 0)
