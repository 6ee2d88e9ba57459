"""`PacketDecoder`: the short path for the ordinary packet, and the door to the long one for all others."""

from __future__ import annotations

import struct
from typing import Any, Dict, Optional, Tuple

from ..errors import LimitsError, PacketTypeError, UsageError, are_seconds, whole
from ..limits import LEAST_FRAGMENT_BYTES
from ..segment import FlowKey, Segment
from . import link, network, overudp, ppp, rare, tunnels, wireless  # noqa: F401  (they fill the tables of handlers)
from .link import IPV4, IPV6, RAW
from .walk import At, Walk

# IP header without options and TCP header in one go; addresses and ports lie side by side and are the key.
_IPV4_TCP = struct.Struct("!BxH2xHBB2x12sIIBBHxxH").unpack_from
_IPV6_TCP = struct.Struct("!B3xHBB36sIIBBHxxH").unpack_from
_FLOW_KEYS = ("plain", "vlan", "tunnel")
_CHECKSUMS = ("verify", "ignore")
_MAX_DEPTH = 64  # each encapsulation is a few Python calls; the interpreter's stack has room for this many


class PacketDecoder:
    """Turns captured packets into TCP segments. Never raises on what a packet holds: it counts the reason in `counts`.

    `linktype` is the number of tcpdump.org's registry, used where `decode` is not told another. `flow_key` selects
    what makes a connection besides addresses and ports: nothing ("plain"), its VLAN ids ("vlan"), or these and the
    tunnels around it ("tunnel"). At most `max_fragments` incomplete IP datagrams, `max_fragment_bytes` bytes of them,
    are kept, each `fragment_timeout` seconds of capture time (None: for ever; RFC 791: 15, RFC 8200: 60). Packets with
    more than `max_depth` encapsulations are counted as "too_deep". With `checksums="ignore"` no TCP checksum is
    known to be wrong, for captures whose addresses were changed, and `Segment.frame` is empty. Raises `UsageError` on
    values that cannot work.
    """

    __slots__ = ("linktype", "flow_key", "counts", "_walk", "_keyed", "_verify")

    def __init__(
        self,
        linktype: int = 1,
        flow_key: str = "plain",
        max_fragments: int = 1024,
        max_fragment_bytes: int = 4 << 20,
        fragment_timeout: Optional[float] = 30.0,
        max_depth: int = 8,
        checksums: str = "verify",
    ) -> None:
        if flow_key not in _FLOW_KEYS:
            raise UsageError(f"flow_key {flow_key!r}: use one of {', '.join(_FLOW_KEYS)}")
        if linktype.__class__ is not int or linktype < 0:
            raise UsageError(f"linktype {linktype!r}: use a number of tcpdump.org's registry, such as 1 for Ethernet")
        whole("max_fragments", max_fragments, 1, LimitsError)
        whole("max_fragment_bytes", max_fragment_bytes, LEAST_FRAGMENT_BYTES, LimitsError)
        if whole("max_depth", max_depth, 1) > _MAX_DEPTH:
            raise UsageError(f"max_depth {max_depth!r}: use 1 to {_MAX_DEPTH}")
        self.linktype = linktype
        self.flow_key = flow_key
        self._keyed = flow_key != "plain"
        if checksums not in _CHECKSUMS:
            raise UsageError(f"checksums {checksums!r}: use one of {', '.join(_CHECKSUMS)}")
        self._verify = checksums == "verify"
        fragments = (max_fragments, max_fragment_bytes, _timeout(fragment_timeout))
        self._walk = Walk(fragments, flow_key, max_depth, self._verify)
        self.counts: Dict[str, int] = self._walk.counts

    @property
    def last_bad_key(self) -> Optional[FlowKey]:
        """The directed key of the packet decoded last if it gave no segment for its damaged TCP header, else None.

        Meaningful only right after a `decode` that returned no segment.
        """
        return self._walk.bad_key

    @property
    def fragments_held(self) -> int:
        """Incomplete IP datagrams kept at present."""
        return len(self._walk.fragments)

    @property
    def fragment_bytes(self) -> int:
        """Bytes that incomplete IP datagrams occupy at present, overhead included."""
        return self._walk.fragments.bytes_used

    def limit_fragments(self, max_fragments: int, max_fragment_bytes: int) -> None:
        """Change the bounds while running; smaller ones evict the datagrams used least recently at once."""
        self._walk.fragments.limit(max_fragments, max_fragment_bytes)

    def expire_fragments(self, fragment_timeout: Optional[float]) -> None:
        """Change the timeout while running; it counts from the next fragment on."""
        self._walk.fragments.timeout = _timeout(fragment_timeout)

    def forget_fragments(self) -> None:
        """Forget every incomplete IP datagram."""
        self._walk.fragments.clear()

    def decode(self, packet: Any, timestamp: float = 0.0, linktype: Optional[int] = None) -> Tuple[Segment, ...]:
        """The TCP segments of a packet: none, one, or several where the link layer aggregates frames.

        `packet` is bytes-like; `timestamp` its capture time in seconds. Raises `PacketTypeError` if it is not bytes.
        O(1) for the ordinary packet plus one copy of the payload.
        """
        if packet.__class__ is not bytes:
            packet, linktype = _admit(packet, linktype)
        if linktype is None:
            linktype = self.linktype
        size = len(packet)
        vlan = 0
        if linktype == 1:
            at = 14
            kind = packet[12:14]
            if kind == b"\x81\x00" and size > 18:
                at = 18
                kind = packet[16:18]
                vlan = (packet[14] & 15) << 8 | packet[15]
        elif linktype in RAW:
            at = 0
            kind = IPV4 if packet[:1] == b"\x45" else IPV6
        elif linktype == 113:
            at = 16
            kind = packet[14:16]
        elif linktype == 276:
            at = 20
            kind = packet[:2]
        else:
            return self._decode_unusual(packet, timestamp, linktype)
        key: Any
        if kind == IPV4 and size >= at + 40:
            first, total, part, ttl, number, key, seq, ack, offset, flags, window, urgent = _IPV4_TCP(packet, at)
            if first != 0x45 or part & 0x3FFF or number != 6:
                return self._decode_unusual(packet, timestamp, linktype)
            start = at + 20
            end = at + total if total else size
        elif kind == IPV6 and size >= at + 60:
            first, total, number, ttl, key, seq, ack, offset, flags, window, urgent = _IPV6_TCP(packet, at)
            if number != 6 or first >> 4 != 6:
                return self._decode_unusual(packet, timestamp, linktype)
            start = at + 40
            end = start + total if total else size
        else:
            return self._decode_unusual(packet, timestamp, linktype)
        body = start + ((offset >> 2) & 0x3C)
        if not start + 20 <= body <= end or body > size:
            return self._decode_unusual(packet, timestamp, linktype)
        if vlan and self._keyed:
            key = (key, (vlan,))
        frame = packet if self._verify else b""
        segment = Segment(key, seq, ack, flags, window, packet[body:end], end - body,
                          packet[start + 20 : body], ttl, urgent, frame, start, end)  # fmt: skip
        return (segment,)

    def _decode_unusual(self, packet: bytes, timestamp: float, linktype: int) -> Tuple[Segment, ...]:
        walk = self._walk
        walk.timestamp = timestamp
        walk.bad_key = None
        walk.found = []
        walk.link(linktype, At(packet, 0, len(packet)))
        return tuple(walk.found)

    def from_dpkt(self, packet: Any, timestamp: float = 0.0) -> Tuple[Segment, ...]:
        """The TCP segments of a dpkt `Ethernet`, `IP`, `IP6`, `SLL` or `SLL2`. Raises `PacketTypeError` on others.

        dpkt writes the packet anew, so this costs several times what `decode` of the captured bytes does.
        """
        linktype = _dpkt_linktype(packet)
        if linktype is None:
            raise PacketTypeError(
                f"{type(packet).__name__}: pass the bytes of a packet, or a dpkt Ethernet, IP, IP6, SLL or SLL2 object"
            )
        try:
            raw = bytes(packet)
        except Exception as error:  # dpkt raises whatever its fields make struct raise
            raise PacketTypeError(f"dpkt cannot write this packet: {error}") from error
        return self.decode(raw, timestamp, linktype)


def _timeout(seconds: Optional[float]) -> float:
    if seconds is None:
        return float("inf")
    if not are_seconds(seconds):
        raise UsageError(f"fragment_timeout {seconds!r}: use seconds of at least 0, or None for never")
    return seconds


def _dpkt_linktype(packet: Any) -> Optional[int]:
    # A subclass defined by the user lives elsewhere; ask the ancestors, still without importing dpkt.
    if not any(base.__module__.startswith("dpkt.") for base in type(packet).__mro__):
        return None
    import dpkt  # here, not above: who passes bytes never pays for the import

    kinds = {1: dpkt.ethernet.Ethernet, 101: (dpkt.ip.IP, dpkt.ip6.IP6), 113: dpkt.sll.SLL, 276: dpkt.sll2.SLL2}
    for linktype, kind in kinds.items():
        if isinstance(packet, kind):
            return linktype
    return None


def _admit(packet: Any, linktype: Optional[int]) -> Tuple[bytes, Optional[int]]:
    """Bytes-like things other than exact bytes; those that `open_capture` yields carry their link type."""
    if linktype is None:
        linktype = getattr(packet, "linktype", None)
    if isinstance(packet, bytes):
        return packet, linktype
    try:
        return memoryview(packet).tobytes(), linktype
    except TypeError:
        raise PacketTypeError(f"{type(packet).__name__}: pass the bytes of a packet") from None
