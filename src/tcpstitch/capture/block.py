"""A piece of a pcap file in memory, whose packets can be taken where they lie."""

from __future__ import annotations

from struct import Struct
from typing import Any, Callable, Iterator, List, Optional, Tuple

from ..layouts import RECORDS, Mode, usual
from ..uncut import Uncut
from .places import find_places, in_order
from .report import MAX_RECORD
from .share import HEAD, Share
from .source import Source

_USUAL_RECORD = Struct("<III").unpack_from  # a constant: PyPy would compare the format each time


class Block:
    """Records of Ethernet packets from `pos` on, up to `size`: `record(buffer, pos)` gives seconds, fraction and
    length, and the packet begins `HEAD` bytes behind. `base` is the offset of `buffer` in the file. `share` tells which
    of the packets are wanted. Nobody may hold on to `buffer`.
    """

    __slots__ = ("source", "buffer", "pos", "size", "base", "first", "record", "scale", "share", "mode", "places",
                 "end", "usable", "over", "second", "time")  # fmt: skip

    def __init__(
        self, source: Source, buffer: Any, pos: int, record: Callable[[Any, int], Tuple[Any, ...]], scale: float,
        share: Optional[Share], order: str,
    ) -> None:  # fmt: skip
        self.source = source
        self.buffer: Any = buffer
        self.pos = self.first = pos
        self.size = len(buffer)
        self.base = 0
        self.record = record
        self.scale = scale
        self.share = share
        self.mode: Mode = (order, RECORDS)
        # Of the share's packets up to `end`, those that are not taken yet; the last is `end` itself.
        self.places: Optional[Iterator[int]] = None
        self.end = 0
        self.usable = True  # until packets are read one by one
        self.over = False
        self.second, self.time = -1, -1.0  # of the packet before, as an integer and as a float

    def parts(self) -> Tuple[Any, ...]:
        """For the loop over the packets: buffer, pos, size; scale, and units where that is none; places of the share's
        packets, None where all are wanted; mode and a layout of frames; a second that none has."""
        mode = self.mode
        if self.share is not None and self.pos >= self.end and not self._next_piece(self.share):
            own: List[int] = []
            rest: List[int] = []
            lists = in_order([own if mine else rest for mine in self.share.mine], mode[0])
            self.end = find_places(self.buffer, self.pos, self.size, mode[0], lists, [own])
            self.places = iter([*own, self.end])
        return self.buffer, self.pos, self.size, self.scale, 0, self.places, mode, usual(mode), -1

    def _next_piece(self, share: Share) -> bool:
        """Read the next piece of the file in which the share is known to have packets; False if there is none."""
        if not share.pieces:
            return False
        offset, size, places = share.pieces.pop()
        self.buffer, self.size = self.source.piece(offset, size)
        self.base, self.pos = offset, 0
        if self.size < size:  # the file was cut since: what is left of it has to be looked at again
            share.pieces = []
            return False
        self.places, self.end = iter(places), size
        return True

    def head(self, pos: int) -> Tuple[Any, ...]:
        """Seconds, fraction and length of the record at `pos`, of whose frame too little is left in the buffer to look
        for headers; a length beyond the buffer where there is no record. And what no layout has."""
        head = self.record(self.buffer, pos) if self.size - pos >= HEAD else (0, 0, self.size)
        return (*head, None)

    def feed(self, assembler: Any) -> None:
        """Let `assembler` take the packets, one by one. For PyPy, which this is written for: what one packet needs is
        in a function of its own, since the local variables of a loop become objects wherever its path branches."""
        while self._feed_one(assembler):
            pass

    def _feed_one(self, assembler: Any) -> bool:
        buffer, start = self.buffer, self.pos + HEAD
        if start > self.size:
            return False
        second, fraction, length = _USUAL_RECORD(buffer, self.pos)
        stop = start + length
        if stop > self.size:
            return False
        self.pos = stop
        if second != self.second:
            self.second, self.time = second, float(second)
        frame = Uncut()
        frame.memory, frame.start, frame.size = buffer, start, length
        assembler.assemble(frame, self.time + fraction * self.scale, None)
        return True

    def refill(self, need: int) -> bool:
        """Read on until `need` bytes from `pos` are there; False if the source has fewer."""
        rest = bytes(self.buffer[self.pos : self.size])
        self.base += self.pos
        self.buffer, self.pos, self.size = rest, 0, len(rest)
        self.buffer, self.size = self.source.refill(rest, need)
        self.over = self.size < need
        return not self.over

    def leave(self, pos: int, timestamp: float) -> None:
        """The loop over the packets stops at `pos`."""
        self.pos = pos

    def more(self) -> Optional[Block]:
        """Read on, when less than a record is left; None where the source ends, or is damaged."""
        self.end = 0
        if self.share is not None and self.share.pieces:
            return self
        left = self.size - self.pos
        need = HEAD + self.record(self.buffer, self.pos)[2] if left >= HEAD else HEAD
        return self if need <= MAX_RECORD and self.source.can_hold(need - left) and self.refill(need) else None
