"""A look at a range of a pcap file, to find the packets of each share before they are taken.

Each of several workers looks at a range of its own, so that each packet is looked at once. Where the first record of a
range begins can only be guessed; the guess is right where the range before ends there. From the first range of which
that is not so on, the file is read as if nobody had looked.
"""

from __future__ import annotations

import os
from array import array
from concurrent.futures import Executor, Future
from struct import Struct
from typing import Any, List, NamedTuple, Optional, Sequence

from ..uncut import PYPY
from . import open_capture
from .block import Block
from .places import find_places, in_order
from .share import HEAD, MOST_SHARES, Piece
from .source import WINDOW

LEAST_BYTES = 4 * 1024 * 1024  # of a file for which this pays
_MOST_BYTES = 4 * 1024 * 1024 * 1024  # of a file that are looked at, and
MOST_PLACES = 16 * 1024 * 1024  # how many places, of four bytes, are held in all
_PIECE = 50  # places that need as much memory as a piece without any
_CHAIN = 5  # records in a row that make a guess


class Range(NamedTuple):
    """What lies from `start` to `end` of a file: of each share its pieces."""

    start: int
    end: int
    pieces: List[List[Piece]]


def look(path: Any, index: int, count: int, most_places: int) -> Optional[Range]:
    """Range `index` of the `count` of a pcap file, of which `most_places` may be held; None where it must be read as if
    nobody had looked: in another format, say. Raises what `open_capture` does."""
    with open_capture(path) as capture:
        block = next(capture.packet_blocks(), None)
        if not isinstance(block, Block) or PYPY:
            return None
        size = block.source.plain_size()
        if size is None:
            return None
        first = block.first
        start, stop = (first + (min(size, _MOST_BYTES) - first) * part // count for part in (index, index + 1))
        guess = _guess(block, start) if index else start
        return None if guess is None else _range(block, guess, stop, count, most_places // count)


def _range(block: Block, start: int, stop: int, count: int, most_places: int) -> Range:
    """The records that begin from `start` on before `stop`, or as many as may be held."""
    pieces: List[List[Piece]] = [[] for _ in range(count)]
    shares: List[List[int]] = [[] for _ in range(count)]
    buckets = in_order([shares[bucket % count] for bucket in range(MOST_SHARES)], block.mode[0])
    held, offset = 0, start
    while offset < stop:
        buffer, size = block.source.piece(offset, WINDOW)
        end = find_places(buffer, 0, size, block.mode[0], buckets, shares)
        if end > stop - offset:  # what begins at `stop` or behind it belongs to the next range
            end = min([place for places in shares for place in places if place >= stop - offset], default=end)
            for places in shares:
                places[:] = [place for place in places if place < end]
        held += sum(map(len, shares)) + _PIECE * count
        if not end or held > most_places:  # a record that is longer than that, or cut
            break
        for own, places in zip(pieces, shares):
            if places:
                own.append((offset, end, array("I", [*places, end])))
                places.clear()
        offset += end
    return Range(start, offset, pieces)


def _guess(block: Block, start: int) -> Optional[int]:
    """Where from `start` on the first record of the file seems to begin: with a time near that of the first packet."""
    head = Struct(block.mode[0] + "IIII").unpack_from
    top = 3 if block.mode[0] == "<" else 0  # where the highest byte of the seconds is
    buffer, size = block.source.piece(block.first, HEAD)
    highest = buffer[top : top + 1]
    buffer, size = block.source.piece(start, WINDOW)
    begin: int = buffer.find(highest, top, size) - top
    while begin >= 0:
        pos, seen = begin, 0
        while seen < _CHAIN and pos + HEAD <= size and buffer[pos + top] == highest[0]:
            _, fraction, length, wire = head(buffer, pos)
            if not (14 <= length <= wire <= WINDOW and fraction * block.scale < 1):
                break
            seen += 1
            pos += HEAD + length
        if seen == _CHAIN or seen and pos == size:
            return start + begin
        begin = buffer.find(highest, begin + 1 + top, size) - top
    return None


def looks(executor: Executor, paths: Sequence[Any], count: int, captures: int) -> List[Future[Optional[Range]]]:
    """A look at each range of one of so many captures, on its way; none at a small file, or at several."""
    try:
        if len(paths) == 1 and os.path.getsize(paths[0]) >= LEAST_BYTES:
            most_places = MOST_PLACES // captures
            return [executor.submit(look, paths[0], index, count, most_places) for index in range(count)]
    except Exception:  # whatever it is, those who read it will meet it; so below
        pass
    return []


def found(futures: Sequence[Future[Optional[Range]]], count: int) -> List[List[Piece]]:
    """Of each share the pieces, the last one first, from the file's beginning to the first guess that was wrong."""
    pieces: List[List[Piece]] = [[] for _ in range(count)]
    end: Optional[int] = None
    for future in futures:
        try:
            what = future.result()
        except Exception:
            break
        if what is None or end is not None and what.start != end:
            break
        end = what.end
        for own, more in zip(pieces, what.pieces):
            own += more
    if end is not None:
        for own in pieces:
            own.append((end, 0, array("I", [0])))  # to go on from there
            own.reverse()
    return pieces
