"""Where the packets of each share lie in a piece of a pcap file of Ethernet frames."""

from __future__ import annotations

from struct import Struct
from struct import error as HeaderError
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .share import HEAD, MOST_SHARES, bucket_of

Places = List[int]
# What reads a record, and what plain TCP has there. Read are the record's length; EtherType and version, or a tag and
# both; the fragment word (none with IPv6) and the protocol; the last four bytes of the sender's address; the twelve
# that end with the ports, of which the first four are the receiver's. The rest: EtherType or tag; version, or both; the
# fragment word of "don't fragment"; the end of a TCP header without options.
_Layout = Tuple[Any, int, Any, int, int]
_IPV4, _IPV6, _TAG = b"\x08\x00\x45", b"\x86\xdd\x60", b"\x81\x00"


def _layouts(order: str) -> Dict[bytes, _Layout]:
    """The layouts by tag, EtherType and version."""
    number = "little" if order == "<" else "big"
    whole = int.from_bytes(b"\x40\x00", number)  # type: ignore[arg-type]
    found: Dict[bytes, _Layout] = {}
    for start, rest, least in ((_IPV4, "5xHxB2xIQ", 54), (_IPV6, "5x0sB13xI12xQ", 74)):
        ethertype, tag = (int.from_bytes(kind, number) for kind in (start[:2], _TAG))  # type: ignore[arg-type]
        found[start] = (Struct(f"{order}8xI16xHB{rest}").unpack_from, ethertype, start[2], whole, least)
        found[_TAG + start] = (Struct(f"{order}8xI16xH2x3s{rest}").unpack_from, tag, start, whole, least + 4)
    return found


_LAYOUTS = {order: _layouts(order) for order in "<>"}
_LENGTH = {order: Struct(order + "8xI4x").unpack_from for order in "<>"}


def in_order(lists: List[Places], order: str) -> List[Places]:
    """`lists` by the remainders of numbers read in this byte order."""
    return lists if order == "<" else [lists[-bucket % MOST_SHARES] for bucket in range(MOST_SHARES)]


def find_places(
    buffer: Any, pos: int, size: int, order: str, buckets: Sequence[Places], everyone: Sequence[Places]
) -> int:
    """Append the place of each whole record in `buffer[pos:size]` to the list of its bucket, or, where it must be
    decoded to be told apart, to `everyone`, which are the lists among `buckets` that matter. Where the last one ends.
    """
    if size < len(buffer):
        buffer = buffer[:size]  # a copy, but only what a file ends with is that short
    layouts = _LAYOUTS[order]
    layout = layouts[_IPV4]
    read, ethertype, version, whole, least = layout
    length = 0
    try:
        while True:  # a comparison less for each packet, as there is always an end; numbers instead of `HEAD` and so on
            length, kind, first, fragment, protocol, source, ends = read(buffer, pos)
            if (
                kind == ethertype and first == version and protocol == 6
                and (fragment == whole or not fragment) and length >= least
            ):  # fmt: skip
                buckets[(source + ends) % 257].append(pos)
            else:
                start = buffer[pos + 28 : pos + 35]
                found = layouts.get(_TAG + start[4:] if start[:2] == _TAG else start[:3], layout)
                if found is not layout:
                    layout = found
                    read, ethertype, version, whole, least = layout
                    continue
                _note(pos, bucket_of(buffer, pos + 28, length - 12), order, buckets, everyone)
            pos += 16 + length
    except HeaderError:
        pass  # too little is left to look for headers
    if pos > size:  # the last one goes on beyond the buffer
        pos -= HEAD + length
        for places in everyone:
            if places and places[-1] == pos:
                places.pop()
    while size - pos >= HEAD:
        (length,) = _LENGTH[order](buffer, pos)
        if length > size - pos - HEAD:
            break
        _note(pos, bucket_of(buffer, pos + 28, length - 12), order, buckets, everyone)
        pos += HEAD + length
    return pos


def _note(
    pos: int, bucket: Optional[int], order: str, buckets: Sequence[Places], everyone: Sequence[Places]
) -> None:  # fmt: skip
    for places in everyone if bucket is None else (buckets[bucket if order == "<" else -bucket],):
        places.append(pos)
