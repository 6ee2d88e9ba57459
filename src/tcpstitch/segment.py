"""What enters: one TCP segment as captured, the connection it belongs to, and the names of both ends."""

from __future__ import annotations

import enum
import struct
from typing import Any, NamedTuple, Optional, Tuple, Union

from .checksum import word_sum
from .errors import UsageError
from .options import OPTION_MSS, OPTION_TIMESTAMPS, OPTION_WINDOW_SCALE, TIMESTAMP_LAYOUT, parse_options, shift_of
from .sequence import MASK

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
SYN_ACK, CONTROL = SYN | ACK, FIN | SYN | RST
_FLAG_LETTERS = {"F": FIN, "S": SYN, "R": RST, "P": PSH, "A": ACK, "U": URG, "E": ECE, "C": CWR}

# A directed key: the addresses and ports as they lie in the packet (12 bytes for IPv4, 36 for IPv6), or a tuple of
# those bytes and the context (VLANs, tunnels) when `flow_key` asks for it. Whole values, never hashes of them.
FlowKey = Union[bytes, Tuple[bytes, Tuple[Any, ...]]]
_ENDS_V4, _ENDS_V6 = struct.Struct("4s4s2s2s").unpack, struct.Struct("16s16s2s2s").unpack


class Direction(enum.IntEnum):
    """Which way a segment or chunk travels, 0 or 1: also an index into pairs kept per direction."""

    CLIENT_TO_SERVER = 0
    SERVER_TO_CLIENT = 1


class Endpoint(NamedTuple):
    """One end of a connection; `address` is written as `ipaddress` writes it."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def _address_text(raw: bytes) -> str:
    if len(raw) == 4:
        return "%d.%d.%d.%d" % (*raw,)  # noqa: UP031  (half the time of a format string)
    from socket import AF_INET6, inet_ntop  # here, as below: most programs start without ever needing it

    if raw[:10] != b"\0" * 10:
        return inet_ntop(AF_INET6, raw)
    from ipaddress import ip_address

    return str(ip_address(raw))  # inet_ntop writes IPv4-mapped addresses with dots, ipaddress does not


def address_bytes(key: FlowKey) -> bytes:
    """The addresses and ports of a key, without its context. O(1)."""
    return key if key.__class__ is bytes else key[0]  # type: ignore[return-value]


def reverse_key(key: FlowKey) -> FlowKey:
    """The key of the opposite direction. O(1)."""
    if len(key) == 12:
        source, destination, source_port, destination_port = _ENDS_V4(key)  # type: ignore[arg-type]
    elif key.__class__ is bytes:
        source, destination, source_port, destination_port = _ENDS_V6(key)
    else:
        return reverse_key(key[0]), key[1]  # type: ignore[return-value, arg-type]
    return b"".join((destination, source, destination_port, source_port))


def key_endpoints(key: FlowKey) -> Tuple[Endpoint, Endpoint]:
    """(source, destination) of a directed key. O(1)."""
    raw = address_bytes(key)
    size = (len(raw) - 4) // 2
    source_port, destination_port = struct.unpack_from("!HH", raw, 2 * size)
    return (
        Endpoint(_address_text(raw[:size]), source_port),
        Endpoint(_address_text(raw[size : 2 * size]), destination_port),
    )


def make_key(source: Tuple[str, int], destination: Tuple[str, int]) -> bytes:
    """The directed key of two (address, port) pairs of one IP version. Raises `UsageError` on anything else."""
    (sender, source_port), (receiver, destination_port) = _packed("source", source), _packed("destination", destination)
    if len(sender) != len(receiver):
        raise UsageError(f"{source!r} and {destination!r}: give two addresses of one IP version")
    return sender + receiver + source_port + destination_port


def _packed(name: str, end: Any) -> Tuple[bytes, bytes]:
    from ipaddress import ip_address

    try:
        address, port = end
        return ip_address(address).packed, struct.pack("!H", port)
    except (ValueError, TypeError, struct.error) as error:
        advice = "give a pair of (address, port), an IP address as text and a whole number up to 65535"
        raise UsageError(f"{name} {end!r}: {advice}: {error}") from None


def context_text(part: Any) -> str:
    """A part of a key's context to be read: `vlan 42`, `vxlan 7`, `gre 192.0.2.1 192.0.2.2 9`."""
    return f"vlan {part}" if isinstance(part, int) else _words(part)


def _words(part: Any) -> str:
    if isinstance(part, tuple):
        return " ".join(map(_words, part))
    return _address_text(part) if isinstance(part, bytes) and len(part) in (4, 16) else str(part)


class Flow:
    """A connection's two ends, told apart; hashable, equal by value, addresses formatted only when asked.

    The client is the side that sent the SYN; without one the SYN/ACK, the port numbers, or the first packet tell.
    `context` holds the VLAN ids and tunnels that form part of the key, if any.
    """

    __slots__ = ("key",)

    def __init__(self, key: FlowKey) -> None:
        self.key = key  # directed client to server

    @property
    def client(self) -> Endpoint:
        """Address and port of the side that opened the connection."""
        return key_endpoints(self.key)[0]

    @property
    def server(self) -> Endpoint:
        """Address and port of the other side."""
        return key_endpoints(self.key)[1]

    @property
    def context(self) -> Tuple[Any, ...]:
        """VLAN ids and tunnels, outermost first; empty with `flow_key="plain"`."""
        return () if self.key.__class__ is bytes else self.key[1]  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flow) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        client, server = key_endpoints(self.key)
        context = "".join(f" {context_text(part)}" for part in self.context)
        return f"{client} > {server}{context}"

    def __repr__(self) -> str:
        return f"<Flow {self}>"


class Segment:
    """One TCP segment as captured.

    `payload` holds the captured bytes; `length` is what the IP header says the payload has, so that
    `len(payload) < length` is a snap-length cut. `seq` and `ack` are the raw 32-bit numbers, `flags` the bits of which
    this module has the names (`SYN`, `ACK`, ...); `window` is not scaled; `options` are the raw bytes behind the fixed
    header, `ttl` the IP TTL or hop limit. `frame[tcp_start:tcp_end]` is the segment with its header,
    for the checksum. Fields are to be read, not written.
    """

    __slots__ = (
        "key", "seq", "ack", "flags", "window", "payload", "length", "options", "ttl", "urgent_pointer",
        "frame", "tcp_start", "tcp_end", "context",
    )  # fmt: skip

    def __init__(
        self,
        key: FlowKey,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        payload: bytes,
        length: int,
        options: bytes = b"",
        ttl: int = 64,
        urgent_pointer: int = 0,
        frame: bytes = b"",
        tcp_start: int = 0,
        tcp_end: int = 0,
    ) -> None:
        self.key = key
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.window = window
        self.payload = payload
        self.length = length
        self.options = options
        self.ttl = ttl
        self.urgent_pointer = urgent_pointer
        self.frame = frame
        self.tcp_start = tcp_start
        self.tcp_end = tcp_end
        self.context: Any = None

    @classmethod
    def make(
        cls,
        source: Tuple[str, int],
        destination: Tuple[str, int],
        seq: int,
        payload: bytes = b"",
        flags: Union[int, str] = ACK,
        ack: int = 0,
        window: int = 65535,
        options: bytes = b"",
        ttl: int = 64,
        urgent_pointer: int = 0,
        context: Any = None,
    ) -> Segment:
        """A segment from plain values, its ends as (address, port); `flags` as bits or letters of FSRPAUEC, `seq` and
        `ack`, which strict checks need, modulo 2**32. `context` comes back in `packet_at`. Raises `UsageError`."""
        if isinstance(flags, str):
            try:
                flags = sum({_FLAG_LETTERS[letter] for letter in flags})
            except KeyError:
                raise UsageError(f"flags {flags!r}: use letters of FSRPAUEC or an int") from None
        try:
            payload = bytes(memoryview(payload))  # `bytes(5)` would be five bytes
        except TypeError:
            raise UsageError(f"payload={payload!r}: give bytes") from None
        try:
            seq, ack = seq & MASK, ack & MASK
        except TypeError:
            raise UsageError(f"seq={seq!r}, ack={ack!r}: give whole numbers") from None
        segment = cls(make_key(source, destination), seq, ack, flags, window, payload, len(payload), options, ttl,
                      urgent_pointer)  # fmt: skip
        segment.context = context
        return usable(segment)

    @property
    def source(self) -> Endpoint:
        """Who sent it."""
        return key_endpoints(self.key)[0]

    @property
    def destination(self) -> Endpoint:
        """Whom it was sent to."""
        return key_endpoints(self.key)[1]

    def option(self, kind: int) -> Optional[bytes]:
        """The value of the first option of this kind, or None. O(n)."""
        return parse_options(self.options).get(kind)

    @property
    def window_scale(self) -> Optional[int]:
        """The shift of a window scale option, at most 14 (RFC 7323 2.3), or None."""
        shift = shift_of(self.option(OPTION_WINDOW_SCALE) or b"")
        return shift if shift >= 0 else None

    @property
    def mss(self) -> Optional[int]:
        """The maximum segment size option in bytes, or None."""
        value = self.option(OPTION_MSS)
        return int.from_bytes(value, "big") if value is not None and len(value) == 2 else None

    @property
    def timestamps(self) -> Optional[Tuple[int, int]]:
        """(TSval, TSecr) of RFC 7323 3.2, or None."""
        options = self.options
        if options[:4] == TIMESTAMP_LAYOUT and len(options) >= 12:
            value: Optional[bytes] = options[4:12]
        else:
            value = self.option(OPTION_TIMESTAMPS)
        if value is None or len(value) != 8:
            return None
        return int.from_bytes(value[:4], "big"), int.from_bytes(value[4:], "big")

    def checksum_ok(self) -> Optional[bool]:
        """Whether the TCP checksum (RFC 9293 3.1) holds; None where it cannot be told (cut, or not from a frame).

        A checksum that holds just the pseudo header's sum was left to the network card of the capturing host
        (checksum offload): None as well. O(length).
        """
        start, end, frame = self.tcp_start, self.tcp_end, self.frame
        if end <= start or end > len(frame):
            return None
        addresses = address_bytes(self.key)[:-4]
        pseudo = word_sum(addresses) + 6 + end - start
        body = bytes(frame[start:end])
        if (pseudo + word_sum(body)) % 0xFFFF == 0:
            return True
        field = int.from_bytes(body[16:18], "big")
        return None if field == (pseudo % 0xFFFF or 0xFFFF) else False

    def flag_letters(self) -> str:
        """The flags that are set, of FSRPAUEC."""
        return "".join(letter for letter, bit in _FLAG_LETTERS.items() if self.flags & bit)

    def __repr__(self) -> str:
        source, destination = key_endpoints(self.key)
        return (
            f"<Segment {source} > {destination} {self.flag_letters() or '-'} seq={self.seq} ack={self.ack} "
            f"length={self.length}>"
        )


def options_cut(segment: Segment) -> bool:
    """Whether the capture ends within the header, and lacks options. O(1)."""
    frame, offset_at = segment.frame, segment.tcp_start + 12
    if not offset_at < len(frame) < segment.tcp_end:
        return False
    return len(segment.options) < ((frame[offset_at] >> 2) & 0x3C) - 20


def usable(segment: Segment) -> Segment:
    """`segment`, which the caller made, unchanged. Raises `UsageError` where no packet could hold it."""
    key, payload = segment.key, segment.payload
    if key.__class__ is tuple and len(key) == 2 and key[1].__class__ is tuple:
        key = key[0]
    if key.__class__ is not bytes or len(key) not in (12, 36):
        raise UsageError(f"Segment with key {segment.key!r}: give addresses and ports as they lie in a packet")
    length = segment.length
    if payload.__class__ is not bytes or not isinstance(length, int) or not len(payload) <= length < 1 << 31:
        raise UsageError(
            f"Segment with payload {payload!r:.60} and length {length!r}: give bytes, and a length of at least as many"
        )
    seq, ack, window, flags = segment.seq, segment.ack, segment.window, segment.flags
    ttl, urgent, options = segment.ttl, segment.urgent_pointer, segment.options
    try:
        bits = seq | ack | window | flags | ttl | urgent  # whole numbers have them
        fits = 0 <= bits <= MASK and flags <= 0xFFF and ttl <= 0xFF and window | urgent <= 0xFFFF
    except TypeError:
        fits = False
    if not fits or options.__class__ is not bytes or len(options) > 40:
        raise UsageError(
            f"Segment with {seq=}, {ack=}, {window=}, {flags=}, {ttl=}, urgent_pointer={urgent!r}, {options=}: "
            "give whole numbers that their fields hold, and up to 40 bytes of options"
        )
    return segment


class UnreadSegment(Segment):
    """A segment without data, known by key, flags and place in the frame; the rest of its header is read when somebody
    asks, which handlers rarely do."""

    __slots__ = ()

    # Who makes one stores `key`, `flags`, `frame`, `tcp_start`, `tcp_end` and `context`: cheaper than a call from C.
    __init__ = object.__init__

    def __getattr__(self, name: str) -> Any:
        # Called for a slot that is empty, and for what is no slot.
        if name not in _READ_LATE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        frame, start = self.frame, self.tcp_start
        self.seq, self.ack, self.window, self.urgent_pointer = _NUMBERS(frame, start + 4)
        self.ttl = frame[start - (12 if len(self.key) == 12 else 33)]
        self.options = bytes(frame[start + 20 : self.tcp_end])
        self.payload, self.length = b"", 0
        return getattr(self, name)


_READ_LATE = {"seq", "ack", "window", "urgent_pointer", "ttl", "options", "payload", "length"}
_NUMBERS = struct.Struct("!II2xH2xH").unpack_from


def directed_flow(segment: Segment) -> Flow:
    """The connection that a first segment opens.

    The SYN tells, or the SYN/ACK; else the port in the lower range is the server's: system, user (RFC 6335), or
    ephemeral, which begins at 32768 in Linux; else the first sender is the client.
    """
    flags = segment.flags
    if flags & SYN:
        from_client = not flags & ACK
    else:
        source, destination = segment.source.port, segment.destination.port
        ranks = [0 if port < 1024 else 1 if port < 32768 else 2 for port in (source, destination)]
        from_client = ranks[0] >= ranks[1]
    return Flow(segment.key if from_client else reverse_key(segment.key))
