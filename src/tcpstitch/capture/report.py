"""What a reader says besides packets: link type, comments, names, warnings. Everything here is bounded."""

from __future__ import annotations

import warnings
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type

from ..errors import CaptureWarning, UsageError

ETHERNET = 1
# Of a packet, which is held up to three times. Libpcap takes none of more than 256 KiB, but for links such as USB.
MAX_RECORD = 16 * 1024 * 1024
MAX_COMMENTS = 1000
MAX_COMMENT_BYTES = 4096
MAX_NAMES = 10_000
MAX_WARNINGS = 100
MAX_CLASSES = 256  # there are fewer than 300 link types, and a file has few of them

CUT = "the file ends in the middle of a "  # packet, or block
Record = Tuple[float, bytes]
Begin = Callable[[], Iterator[Record]]  # gives the packets that are left


class Comment(NamedTuple):
    """A pcapng comment: `where` is `section`, `interface` or `packet`, `offset` the byte offset of its block."""

    where: str
    offset: int
    text: str


class Report:
    """The side channel of one source; merged sources share the three collections."""

    def __init__(self, name: str, shared: Optional[Report] = None, quiet: bool = False) -> None:
        self.name = name
        self.linktype = ETHERNET
        self._quiet = quiet
        self.fcs_bytes: Optional[int] = None
        self.comments: List[Comment] = shared.comments if shared else []
        self.names: Dict[str, str] = shared.names if shared else {}
        self.warnings: List[str] = shared.warnings if shared else []

    def warn(self, offset: int, text: str) -> None:
        """Report damage at a byte offset; silent after `MAX_WARNINGS`, for a hostile file has no end of them."""
        if self._quiet or len(self.warnings) >= MAX_WARNINGS:
            return
        message = f"{self.name}: at byte {offset}: {text}"
        self.warnings.append(message)
        warnings.warn(message, CaptureWarning, stacklevel=3)

    def comment(self, where: str, offset: int, raw: bytes) -> None:
        if len(self.comments) < MAX_COMMENTS:
            self.comments.append(Comment(where, offset, raw[:MAX_COMMENT_BYTES].decode("utf-8", "replace")))

    def resolve(self, address: str, name: str) -> None:
        if len(self.names) < MAX_NAMES:
            self.names.setdefault(address, name)


_classes: Dict[int, Type[bytes]] = {}


def packet_class(linktype: int) -> Type[bytes]:
    """The type of this link type's packets: `bytes` itself for Ethernet, otherwise a subclass with `.linktype`."""
    if linktype == ETHERNET:
        return bytes
    made = _classes.get(linktype)
    if made is None:

        def reduce(packet: bytes) -> Tuple[Any, ...]:
            return make_packet, (linktype, bytes(packet))

        if len(_classes) >= MAX_CLASSES:
            _classes.clear()  # no honest capture; a class of its own lives as long as its packets
        # A class made at run time cannot be found by name, so pickling goes through `make_packet`.
        body = {"linktype": linktype, "__slots__": (), "__reduce__": reduce, "__module__": __name__}
        made = _classes[linktype] = type(f"Packet{linktype}", (bytes,), body)
    return made


def make_packet(linktype: int, data: bytes) -> bytes:
    """`data` as a packet of a link type; what pickled packets are rebuilt with. Raises `UsageError`."""
    if linktype.__class__ is not int or not isinstance(data, (bytes, bytearray, memoryview)):
        raise UsageError(f"make_packet({linktype!r}, ...): give the number of a link type, then the packet as bytes")
    return packet_class(linktype)(data)
