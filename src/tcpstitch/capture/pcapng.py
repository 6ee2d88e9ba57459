"""pcapng files (draft-ietf-opsawg-pcapng): sections of either byte order, interfaces of different link types."""

from __future__ import annotations

import struct
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from .pcap import end
from .report import CUT, MAX_RECORD, Record, Report, packet_class
from .share import Share
from .source import Source

MAGIC = b"\x0a\x0d\x0d\x0a"
SECTION, INTERFACE, OLD_PACKET, SIMPLE, NAMES, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 4, 6
_PACKETS = frozenset((OLD_PACKET, SIMPLE, ENHANCED))
_KEPT = _PACKETS | {SECTION, INTERFACE, NAMES}
_MAX_METADATA = 16 * 1024 * 1024
_MAX_INTERFACES = 1 << 16


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

    def fast(self) -> Tuple[Any, int, int, int, Any]:
        """What the loop over ordinary packets needs: reader, number, units, offset and type of the interface in use."""
        if self.current < 0:
            return self.unpack_enhanced, -1, 1, 0, bytes
        interface = self.interfaces[self.current]
        return self.unpack_enhanced, self.current, interface.units, interface.offset, packet_class(interface.linktype)

    def look(self, buffer: bytes, pos: int) -> Tuple[int, str]:
        """Bytes needed to go on at `pos`, and what is wrong there, if anything."""
        if len(buffer) - pos < 12:
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
            self.interfaces, self.current = [], -1
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


def read_pcapng(source: Source, held: bytes, report: Report, share: Optional[Share] = None) -> Iterator[Record]:
    """Packets of a pcapng file whose first bytes, at least 12, are `held`. Unknown blocks are skipped unread."""
    section = _Section(report)
    buffer, pos, base = held, 0, 0
    while True:
        # The usual block, a sane enhanced packet of the interface before, without a call; whatever is odd goes below.
        size = len(buffer)
        unpack, current, units, shift, make = section.fast()
        while size - pos >= 32:
            kind, length, index, high, low, captured = unpack(buffer, pos)
            start = pos + 28
            stop = start + captured
            after = pos + length
            if kind != ENHANCED or index != current or after > size or not 4 <= after - stop < 8 or length & 3:
                break
            section.timestamp = timestamp = (high << 32 | low) / units + shift
            if share is None or share.takes(buffer, start, captured, report.linktype):
                data = buffer[start:stop]
                yield timestamp, data if make is bytes else make(data)
            pos = after
        need, problem = section.look(buffer, pos)
        if problem:
            break
        have = len(buffer) - pos
        if have >= need:
            record = section.block(base + pos, buffer[pos : pos + need])
            if record is not None and (share is None or share.takes_record(record)):
                yield record
            pos += need
            continue
        if have >= 12 and not section.wanted(buffer, pos) and source.can_hold(need - have):
            base += pos + need
            buffer, pos = b"", 0
            if source.skip(need - have):
                continue
            end(source, report, base, CUT + "block")
            return
        if source.can_hold(need - have):
            base += pos
            buffer, pos = source.at_least(buffer[pos:], need), 0
            if len(buffer) >= need:
                continue
        problem = CUT + "block"
        break
    end(source, report, base + pos, problem if len(buffer) > pos or source.unread() else "")


def _bad_length(kind: int, length: int) -> str:
    if length < (28 if kind == SECTION else 12) or length % 4:
        return f"a block of {length} bytes is claimed: damaged, the rest is not read"
    limit = MAX_RECORD if kind in _PACKETS else _MAX_METADATA
    if kind in _KEPT and length > limit:
        return f"a block of {length} bytes is claimed: damaged, the rest is not read"
    return ""
