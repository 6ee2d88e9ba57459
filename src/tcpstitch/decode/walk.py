"""The unusual packet's way through its layers: a cursor, the tables of handlers, and what one packet yields.

The layers are own code, not dpkt: dpkt's objects keep no offsets, so that what a snap length cut off, what lies
beyond the IP length (Ethernet padding) and where the TCP header starts cannot be told from them; they also parse
every inner layer whether wanted or not and differ in what they raise on damaged input.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..errors import DecodeError
from ..segment import FlowKey, Segment
from .fragments import FragmentTable

MAX_FIELDS = 64  # that a header may have of one kind, far above any real one: bounds the time one packet takes

U16, LITTLE16 = struct.Struct("!H").unpack_from, struct.Struct("<H").unpack_from
U32, LITTLE32 = struct.Struct("!I").unpack_from, struct.Struct("<I").unpack_from
_TCP = struct.Struct("!4sIIBBHxxH").unpack_from


class At:
    """A position in a packet, moved forward by each layer.

    `limit` ends the captured bytes of the present layer; `end` is where its headers say it ends, beyond `limit` when
    a snap length cut the packet. `depth` counts encapsulations.
    """

    __slots__ = ("data", "pos", "limit", "end", "depth", "context", "addresses", "ttl", "checkable", "declared")

    def __init__(self, data: bytes, pos: int, limit: int, depth: int = 0, context: Tuple[Any, ...] = ()) -> None:
        self.data = data
        self.pos = pos
        self.limit = limit
        self.end = limit
        self.depth = depth
        self.context = context
        self.addresses = b""
        self.ttl = 0
        self.checkable = True
        self.declared = False  # whether a header set `end`, rather than the capture

    def need(self, size: int) -> int:
        """The position, once `size` captured bytes are known to follow. Raises `DecodeError`."""
        if self.limit - self.pos < size:
            raise DecodeError("short_header")
        return self.pos

    def skip(self, size: int) -> None:
        """Go behind `size` captured bytes. Raises `DecodeError`."""
        self.pos = self.need(size) + size

    def u16(self, offset: int = 0) -> int:
        """The 16-bit number that lies `offset` bytes ahead; `u32` and `byte` are alike. Raises `DecodeError`."""
        value: int = U16(self.data, self.need(offset + 2) + offset)[0]
        return value

    def u32(self, offset: int = 0) -> int:
        value: int = U32(self.data, self.need(offset + 4) + offset)[0]
        return value

    def byte(self, offset: int = 0) -> int:
        return self.data[self.need(offset + 1) + offset]

    def ends(self) -> Tuple[bytes, ...]:
        """The two addresses of the innermost IP header, the same for both directions."""
        half = len(self.addresses) // 2
        return tuple(sorted((self.addresses[:half], self.addresses[half:])))

    def clip(self, end: int) -> None:
        """The present layer ends at `end`, as its header says; beyond the layer around it no host would take it."""
        if end > self.end and self.declared:
            raise DecodeError("bad_length")
        self.end = end
        self.declared = True
        if end < self.limit:
            self.limit = end


class Walk:
    """What is common to all packets of a decoder, and the segments of the present one."""

    __slots__ = ("counts", "fragments", "vlan_wanted", "tunnel_wanted", "max_depth", "verify", "timestamp", "found",
                 "bad_key")  # fmt: skip

    def __init__(self, bounds: Tuple[int, int, float], flow_key: str, max_depth: int, verify: bool) -> None:
        self.counts: Dict[str, int] = {}
        self.fragments = FragmentTable(*bounds, self.counts)
        self.vlan_wanted = flow_key != "plain"
        self.tunnel_wanted = flow_key == "tunnel"
        self.max_depth = max_depth
        self.verify = verify
        self.timestamp = 0.0
        self.found: List[Segment] = []
        self.bad_key: Optional[FlowKey] = None

    def count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def attempt(self, handler: Handler, at: At) -> None:
        """Run a handler; whatever stops it is counted by reason and goes no further."""
        try:
            handler(self, at)
        except DecodeError as stop:
            self.count(stop.reason)
        except (IndexError, struct.error):  # a header that claims bytes which are not there
            self.count("short_header")

    def link(self, linktype: int, at: At) -> None:
        handler = LINKS.get(linktype)
        if handler is None:
            self.count("unknown_linktype")
        else:
            self.attempt(handler, at)

    def ethertype(self, kind: int, at: At) -> None:
        handler = ETHERTYPES.get(kind)
        if handler is None:
            raise DecodeError("not_ip")
        handler(self, at)

    def protocol(self, number: int, at: At) -> None:
        handler = PROTOCOLS.get(number)
        if handler is None:
            raise DecodeError("not_tcp")
        handler(self, at)

    def vlan(self, at: At, number: int) -> None:
        if self.vlan_wanted and number:  # VLAN 0 is a priority tag, no VLAN (IEEE 802.1Q)
            at.context += (number,)

    def enter(self, at: At, name: str, ident: Any = None) -> None:
        """One encapsulation deeper. Ids both directions share name the tunnel, else its two ends, sorted."""
        at.depth += 1
        if at.depth > self.max_depth:
            raise DecodeError("too_deep")
        if self.tunnel_wanted and name:
            at.context += ((name, at.ends() if ident is None else ident),)

    def key(self, at: At, ports: bytes) -> FlowKey:
        plain = at.addresses + ports
        return (plain, at.context) if at.context else plain


Handler = Callable[[Walk, At], None]
LINKS: Dict[int, Handler] = {}
ETHERTYPES: Dict[int, Handler] = {}
PROTOCOLS: Dict[int, Handler] = {}
UDP_PORTS: Dict[int, Handler] = {}


def register(table: Dict[int, Handler], *numbers: int) -> Callable[[Handler], Handler]:
    """Decorator: this function handles these numbers of a table."""

    def add(handler: Handler) -> Handler:
        for number in numbers:
            table[number] = handler
        return handler

    return add


@register(PROTOCOLS, 6)
def tcp(walk: Walk, at: At) -> None:
    """RFC 9293 3.1. A header that is captured in part only, beyond its fixed 20 bytes, still places the segment."""
    start, limit, end, data = at.pos, at.limit, at.end, at.data
    if limit - start < 20:
        if end - start >= 20:
            raise DecodeError("short_header")
        walk.bad_key = walk.key(at, data[start : start + 4]) if limit - start >= 4 else None
        raise DecodeError("bad_header")
    ports, seq, ack, offset, flags, window, urgent = _TCP(data, start)
    body = start + ((offset >> 2) & 0x3C)
    key = walk.key(at, ports)
    if body < start + 20 or body > end:
        walk.bad_key = key
        raise DecodeError("bad_header")
    frame, begin = data, start
    if not (at.checkable and walk.verify):
        frame = b""
    elif limit < end <= len(data):  # the bytes behind an outer layer's end are not this segment's
        frame, begin = data[start:limit], 0  # and no more, as a packet may have thousands of segments
    segment = Segment(key, seq, ack, flags, window, data[body:limit] if body < limit else b"", end - body,
                      data[start + 20 : min(body, limit)], at.ttl, urgent,
                      frame, begin, begin + end - start)  # fmt: skip
    walk.found.append(segment)
