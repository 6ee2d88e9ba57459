"""pcapng files (draft-ietf-opsawg-pcapng): sections of either byte order, interfaces of different link types."""

from __future__ import annotations

import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ..layouts import ENHANCED, PCAPNG, Mode, usual
from ..uncut import PYPY, Uncut
from .report import CUT, MAX_RECORD, Begin, Record, Report, packet_class
from .share import Share
from .source import Source

MAGIC = b"\x0a\x0d\x0d\x0a"
SECTION, INTERFACE, OLD_PACKET, SIMPLE, NAMES = 0x0A0D0D0A, 1, 2, 3, 4
_PACKETS = frozenset((OLD_PACKET, SIMPLE, ENHANCED))
_KEPT = _PACKETS | {SECTION, INTERFACE, NAMES}
_MAX_INTERFACES = 1 << 16
_MAX_COMPARED = 64  # interfaces that are compared with each other, to take packets of different ones as if of one


class _Interface(NamedTuple):
    linktype: int
    snaplen: int
    units: int
    offset: int


class _Section:
    """Byte order, interfaces and the last packet's time: what a block's meaning depends on."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.timestamp = 0.0
        self.interfaces: List[_Interface] = []
        self.like: Dict[Tuple[int, int, int], Set[int]] = {}  # the numbers of those that are alike
        self.current = -1  # the interface of the last packet
        self.set_order("<")

    def set_order(self, order: str) -> None:
        self.order = order
        self.unpack_head = struct.Struct(order + "II").unpack_from
        self.unpack_packet = struct.Struct(order + "IIII").unpack_from
        self.unpack_enhanced = struct.Struct(order + "IIIIII").unpack_from
        self.unpack_old = struct.Struct(order + "HxxIII").unpack_from

    def options(self, data: bytes) -> Iterator[Tuple[int, bytes]]:
        pos = 0
        while pos + 4 <= len(data):
            code, length = struct.unpack_from(self.order + "HH", data, pos)
            if code == 0 or pos + 4 + length > len(data):
                return
            yield code, data[pos + 4 : pos + 4 + length]
            pos += 4 + (length + 3 & ~3)

    def comments(self, where: str, offset: int, data: bytes) -> None:
        for code, value in self.options(data):
            if code == 1:
                self.report.comment(where, offset, value)

    def add_interface(self, offset: int, body: bytes) -> None:
        linktype, snaplen = struct.unpack_from(self.order + "HxxI", body)
        units, shift = 10**6, 0
        for code, value in self.options(body[8:]):
            if code == 1:
                self.report.comment("interface", offset, value)
            elif code == 9 and value:
                exponent = value[0] & 0x7F
                units = 2**exponent if value[0] & 0x80 else 10**exponent
            elif code == 14 and len(value) == 8:
                shift = struct.unpack(self.order + "q", value)[0]
        if not self.interfaces:
            self.report.linktype = linktype
        elif len(self.interfaces) >= _MAX_INTERFACES:
            self.report.warn(offset, f"an interface beyond the first {_MAX_INTERFACES}: its packets are skipped")
            return
        if len(self.interfaces) < _MAX_COMPARED:
            self.like.setdefault((linktype, units, shift), set()).add(len(self.interfaces))
        self.interfaces.append(_Interface(linktype, snaplen, units, shift))

    def add_names(self, body: bytes) -> None:
        from ipaddress import ip_address

        pos = 0
        while pos + 4 <= len(body):
            kind, length = struct.unpack_from(self.order + "HH", body, pos)
            value = body[pos + 4 : pos + 4 + length]
            size = {1: 4, 2: 16}.get(kind)
            if kind == 0 or len(value) < length:
                return
            if size is not None and length > size:
                name = value[size:].split(b"\0", 1)[0][:256].decode("utf-8", "replace")
                self.report.resolve(str(ip_address(value[:size])), name)
            pos += 4 + (length + 3 & ~3)

    def packet(self, kind: int, offset: int, body: bytes) -> Optional[Record]:
        """The packet of one block's body; None, with a warning, if the block contradicts itself."""
        ticks: Optional[int] = None
        if kind == SIMPLE:
            index, start, length = 0, 4, len(body) - 4
        elif len(body) < 20:
            self.report.warn(offset, "a packet block is too short: skipped")
            return None
        else:
            unpack = self.unpack_packet if kind == ENHANCED else self.unpack_old
            index, high, low, length = unpack(body)
            start, ticks = 20, high << 32 | low
        if index >= len(self.interfaces) or start > len(body) or length > len(body) - start:
            self.report.warn(offset, "a packet block names no known interface or more bytes than it has: skipped")
            return None
        interface = self.interfaces[index]
        if ticks is None:
            # A simple packet has its length on the wire and no time: the last packet's keeps time monotonic.
            length = min(length, struct.unpack_from(self.order + "I", body)[0], interface.snaplen or length)
        else:
            self.timestamp = ticks / interface.units + interface.offset
            options = start + (length + 3 & ~3)
            if options + 4 <= len(body):
                self.comments("packet", offset, body[options:])
        self.current = index
        self.report.linktype = interface.linktype
        data = body[start : start + length]
        make = packet_class(interface.linktype)
        return self.timestamp, data if make is bytes else make(data)

    def usual(self) -> Tuple[Set[int], int, float, Any]:
        """What the loops over ordinary packets need: the numbers of the interfaces that are like the one in use; their
        units, offset and type."""
        if self.current < 0:
            return set(), 1, 0.0, bytes
        linktype, _, units, offset = self.interfaces[self.current]
        like = {self.current} if self.current >= _MAX_COMPARED else self.like[linktype, units, offset]
        return like, units, float(offset), packet_class(linktype)

    def look(self, buffer: Any, pos: int, size: int) -> Tuple[int, str]:
        """Bytes needed to go on at `pos`, and what is wrong there, if anything."""
        if size - pos < 12:
            return 12, ""
        kind, length = self.unpack_head(buffer, pos)
        if kind == SECTION:
            order = check_section(buffer[pos : pos + 12])
            if order is None:
                return 0, "a section header is damaged, the rest is not read"
            self.set_order(order)
            length = self.unpack_head(buffer, pos)[1]
        return length, _bad_length(kind, length)

    def wanted(self, buffer: bytes, pos: int) -> bool:
        return self.unpack_head(buffer, pos)[0] in _KEPT

    def block(self, offset: int, block: bytes) -> Optional[Record]:
        """Take in a whole block; its packet, if it has one."""
        kind, body = self.unpack_head(block, 0)[0], block[8:-4]
        if kind in _PACKETS:
            return self.packet(kind, offset, body)
        if kind == SECTION:
            self.interfaces, self.like, self.current = [], {}, -1
            self.comments("section", offset, body[16:])
        elif kind == NAMES:
            self.add_names(body)
        elif kind == INTERFACE and len(body) >= 8:
            self.add_interface(offset, body)
        elif kind == INTERFACE:
            self.report.warn(offset, "an interface block is too short: skipped")
        return None


def check_section(held: bytes) -> Optional[str]:
    """The byte order of a section header block, None if it is not one."""
    magic = held[8:12]
    return "<" if magic == b"\x4d\x3c\x2b\x1a" else ">" if magic == b"\x1a\x2b\x3c\x4d" else None


class Blocks:
    """A pcapng file as it is read: packets one by one, or in place, as `Block` has those of a pcap file. `pos` is where
    the last packet's data ends: the next block begins behind its padding and 4 bytes more, `base` bytes further in the
    file. Blocks are multiples of 4 bytes long, and the buffer begins with one. Unknown ones are skipped unread.
    """

    share = None  # no one's, where packets are taken in place

    def __init__(self, source: Source, held: bytes, report: Report, share: Optional[Share]) -> None:
        self.source = source
        self.report = report
        self.section = _Section(report)
        self.buffer: Any = memoryview(held) if PYPY and share is None else held
        self.size = len(held)
        self.base = 0
        self.pos = -4
        self._begun: Optional[int] = None  # where the loop over the packets began that has not left yet
        self.usable = share is None  # until packets are read one by one
        self._share = share
        self._usual = self.section.usual()  # for `feed`
        self._over = self._apart = False
        self._vain = 0  # times in a row that nothing could be taken in place

    # -- in place

    def parts(self) -> Tuple[Any, ...]:
        """As those of `Block`, with what time counts from for the scale, and the interfaces that are alike for the
        places. The last 7 bytes, which may be padding and a length, are left."""
        self._catch_up()
        mode: Mode = (self.section.order, PCAPNG)
        like, units, offset, make = self.section.usual()
        if make is not bytes:
            like = set()
        self._begun = self.pos
        return self.buffer, self.pos + 7 & -4, self.size - 7, offset, units, like, mode, usual(mode), -1

    def head(self, pos: int) -> Tuple[Any, ...]:
        """As that of `Block`; no such packet is so short."""
        return 0, 0, self.size, None

    def leave(self, pos: int, timestamp: float) -> None:
        """The loop over the packets stops; `timestamp` is that of the last it took, if it took one."""
        if self.pos != self._begun:
            self.section.timestamp = timestamp
            self._vain = 0
        self._begun = None

    def _catch_up(self) -> None:
        """Note the time of the last packet that a loop took which a handler's failure ended."""
        if self._begun is not None and self._begun != self.pos:
            at = last = self._begun + 7 & -4
            while at < self.pos:
                last, at = at, at + self.section.unpack_enhanced(self.buffer, at)[1]
            _, _, _, high, low, _ = self.section.unpack_enhanced(self.buffer, last)
            _, units, offset, _ = self.section.usual()
            self.section.timestamp = (high << 32 | low) / units + offset
        self._begun = None

    def feed(self, assembler: Any) -> None:
        """As that of `Block`, for PyPy."""
        self._usual = self.section.usual()
        while self._feed_one(assembler):
            self._vain = 0

    def _feed_one(self, assembler: Any) -> bool:
        buffer, start = self.buffer, self.pos + 7 & -4
        if start + 28 > self.size:
            return False
        like, units, offset, make = self._usual
        kind, length, index, high, low, size = self.section.unpack_enhanced(buffer, start)
        if kind != ENHANCED or index not in like or make is not bytes or length != size + 35 & -4:
            return False
        if start + length > self.size:
            return False
        self.pos = start + 28 + size
        self.section.timestamp = timestamp = (high << 32 | low) / units + offset
        frame = Uncut()
        frame.memory, frame.start, frame.size = buffer, start + 28, size
        assembler.assemble(frame, timestamp, None)
        return True

    def more(self) -> Any:
        """What to take next: a packet by itself, or, behind it, this; None where the file ends, or where one packet
        after the other came by itself."""
        if self._apart:
            self._apart = False
            self._vain += 1
            return self if self._vain < 8 else None
        found = self._step()
        if found is None:
            return self
        self._apart = bool(found)
        return found or None

    # -- one by one

    def records(self) -> Iterator[Record]:
        """The packets that are left."""
        self.usable = False
        self._catch_up()
        section, share, report = self.section, self._share, self.report
        record: Any = None
        while record is not False:
            # The usual block, a sane enhanced packet of an interface like the one before, without a call.
            buffer, last, pos = self.buffer, self.size - 32, self.pos + 7 & -4
            unpack, (like, units, shift, make) = section.unpack_enhanced, section.usual()
            if make is bytes and buffer.__class__ is memoryview:
                make = memoryview.tobytes
            while pos <= last:
                kind, length, index, high, low, captured = unpack(buffer, pos)
                start = pos + 28
                after = pos + length
                if kind != ENHANCED or index not in like or after > self.size or length != captured + 35 & -4:
                    break
                section.timestamp = timestamp = (high << 32 | low) / units + shift
                pos = after
                if share is None or share.takes(buffer, start, captured, report.linktype):
                    data = buffer[start : start + captured]
                    packet = data if make is bytes else make(data)
                    self.pos = pos - 4  # whatever ends this loop, the next one begins there
                    yield timestamp, packet
                else:
                    self.pos = pos - 4
            record = self._step()
            if record and (share is None or share.takes_record(record)):
                yield record

    def _step(self) -> Any:
        """Past what is not the usual block, or read on: a packet that was there, None, or False where the file ends."""
        if self._over:
            return False
        source, start = self.source, self.pos + 7 & -4
        have = self.size - start
        need, problem = self.section.look(self.buffer, start, self.size)
        missing = need - have
        if not problem:
            if missing <= 0:
                self.pos = start + need - 4
                return self.section.block(self.base + start, bytes(self.buffer[start : start + need]))
            problem = CUT + "block"
            if source.can_hold(missing):
                if have >= 12 and not self.section.wanted(self.buffer, start):
                    self._go_on(start + need, b"")
                    return None if source.skip(missing) else self._end(-need, problem)
                self._read_on(start, need)
                if self.size >= need:
                    return None
                start = 0
        return self._end(start, problem if self.size > start or source.unread() else "")

    def _go_on(self, start: int, rest: bytes) -> None:
        """The buffer is `rest` now, which begins at `start` of the one before."""
        self.base, self.pos = self.base + start, -4
        self.buffer, self.size = rest, len(rest)

    def _read_on(self, start: int, need: int) -> None:
        rest = bytes(self.buffer[start : self.size])
        self._go_on(start, rest)
        if PYPY and self._share is not None:  # its window is a memoryview, and what is cut out of that another
            self.buffer = self.source.at_least(rest, need)
            self.size = len(self.buffer)
        else:
            self.buffer, self.size = self.source.refill(rest, need)

    def _end(self, start: int, problem: str) -> bool:
        self._over = True
        self.source.end(self.report, self.base + start, problem)
        return False


def read_pcapng(
    source: Source, held: bytes, report: Report, share: Optional[Share] = None
) -> Tuple[Begin, Optional[Blocks]]:
    """Packets of a pcapng file whose first bytes, at least 12, are `held`, one by one; and the same in place."""
    blocks = Blocks(source, held, report, share)
    return blocks.records, blocks if blocks.usable else None


def _bad_length(kind: int, length: int) -> str:
    if length < (28 if kind == SECTION else 12) or length % 4 or kind in _KEPT and length > MAX_RECORD:
        return f"a block of {length} bytes is claimed: damaged, the rest is not read"
    return ""
