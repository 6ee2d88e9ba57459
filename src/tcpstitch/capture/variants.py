"""Which of pcap's dialects a file is written in, where neither its magic nor its version says so."""

from __future__ import annotations

import struct
from typing import Any, Callable, Sequence, Tuple

Unpack = Callable[[bytes, int], Tuple[Any, ...]]

_PEEKED_RECORDS = 3
_MAX_PLAUSIBLE = 256 * 1024
_YEAR = 366 * 86400
# AIX writes interface types of RFC 1573 into headers of version 2.2: Ethernet, token ring, FDDI, loopback.
_AIX_LINKTYPES = {6: 1, 9: 6, 15: 10, 24: 0}


def record_bytes(held: bytes, first: int, order: str, units: int, sizes: Sequence[int]) -> int:
    """Size of a record's header: the first of `sizes` with which the records in `held` make sense, else `sizes[0]`.

    Patched Linux systems of 1999 and Nokia's appliances lengthened the record header without a magic of their own.
    """
    snaplen = struct.unpack_from(order + "I", held, 16)[0]
    limit = max(snaplen if snaplen < 1 << 24 else 0, _MAX_PLAUSIBLE)
    for size in sizes:
        usual = size == sizes[0]
        # The usual layout needs no proof, another one two records in a row.
        if _plausible_records(held, first, order, units, size, limit, usual) >= (0 if usual else 2):
            return size
    return sizes[0]


def _plausible_records(held: bytes, first: int, order: str, units: int, size: int, limit: int, usual: bool) -> int:
    """How many of the first few records are seen; -1 if one of them makes no sense. In the `usual` layout a clock that
    is set between two does; in a wrong one a fraction or a length passes for the seconds, and so on.
    """
    head = struct.Struct(order + "IIII")
    pos, start, seen = first, None, 0
    while seen < _PEEKED_RECORDS and pos + size <= len(held):
        seconds, fraction, length, wire = head.unpack_from(held, pos)
        start = seconds if start is None else start
        if fraction >= units or length > wire or length > limit:
            return -1
        if not usual and (seconds < units or abs(seconds - start) > _YEAR):
            return -1
        seen += 1
        pos += size + length
    return seen


def aix_linktype(version: Tuple[int, int], linktype: int) -> int:
    """The link type AIX means by its own number, or -1 if the file is not AIX's."""
    return _AIX_LINKTYPES.get(linktype, -1) if version == (2, 2) else -1


def unpacker(order: str, size: int, version: Tuple[int, int]) -> Unpack:
    """Function giving seconds, fraction and captured length of the record header at an offset."""
    # Nothing is said about the rest of the header: PyPy makes an object of each byte of padding.
    if version[0] != 543 and version >= (2, 4):
        return struct.Struct(f"{order}III").unpack_from
    both = struct.Struct(f"{order}IIII").unpack_from

    def either(buffer: bytes, pos: int) -> Tuple[Any, ...]:
        # Up to version 2.3, and in DG/UX' 543.0, the two lengths came in either order; the captured is the smaller.
        seconds, fraction, one, other = both(buffer, pos)
        return seconds, fraction, min(one, other)

    return either
