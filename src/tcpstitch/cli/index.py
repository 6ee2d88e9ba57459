"""The index of `tcpstitch extract`: a JSON object per connection, whose gaps take bounded memory."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from struct import Struct
from typing import IO, Any, Dict, Iterator, List, Optional, Set, TextIO, Tuple

INDEX_NAME = "index.jsonl"
HELD_GAPS = 10_000  # of all connections together, about 150 bytes each
_PIECE = Struct("=qI")  # where the one before lies, -1 for none; bytes of this one
_MOVED = "\0"  # stands for gaps in the spool; no address or file name has it


class Gaps:
    """Those of one direction: the last ones, and the place in the spool of the piece before these, -1 for none."""

    __slots__ = ("held", "spooled")

    def __init__(self) -> None:
        self.held: List[Tuple[int, int, str]] = []
        self.spooled = -1


class Index:
    """The file `index.jsonl` of a directory. The gaps of connections that go on are held; whenever `HELD_GAPS` are,
    they move to a file without a name beside it, from where each goes into its connection's line."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # By the line, which costs little beside the files: others read it while this goes on, or after it was killed.
        self._file: TextIO = open(os.path.join(directory, INDEX_NAME), "w", 1, encoding="utf-8")
        self._spool: Optional[IO[bytes]] = None
        self._holding: Set[Gaps] = set()
        self._held = 0

    def add(self, gaps: Gaps, offset: int, length: int, reason: str) -> None:
        """O(1), amortised. Raises OSError."""
        gaps.held.append((offset, length, reason))
        self._holding.add(gaps)
        self._held += 1
        if self._held >= HELD_GAPS:
            self._move()

    def _move(self) -> None:
        if self._spool is None:
            self._spool = tempfile.TemporaryFile(dir=self._directory)
        place = self._spool.seek(0, os.SEEK_END)
        for gaps in self._holding:
            text = json.dumps(gaps.held)[1:-1].encode()
            self._spool.write(_PIECE.pack(gaps.spooled, len(text)) + text)
            gaps.spooled = place
            gaps.held.clear()
            place += _PIECE.size + len(text)
        self._holding.clear()
        self._held = 0

    def record(self, entry: Dict[str, Any]) -> None:
        """Write a line; `entry` may have `Gaps` as values, which are forgotten. O(gaps). Raises OSError."""
        moved: List[int] = []

        def listed(gaps: Gaps) -> List[Any]:
            self._holding.discard(gaps)
            self._held -= len(gaps.held)
            if gaps.spooled < 0:
                return gaps.held
            moved.append(gaps.spooled)
            return [_MOVED, *gaps.held]

        text, *others = json.dumps(entry, default=listed).split(json.dumps(_MOVED))
        for last, behind in zip(moved, others):
            self._file.write(text)
            self._file.writelines(self._spooled(last))
            text = behind
        self._file.write(text + "\n")

    def _spooled(self, last: int) -> Iterator[str]:
        """Pieces of JSON in the order in which they went to the spool."""
        places = array("q", [last])
        while places[-1] >= 0:
            places.append(self._piece(places[-1])[0])
        between = ""
        for place in reversed(places[:-1]):
            yield between + self._piece(place)[1]
            between = ", "

    def _piece(self, place: int) -> Tuple[int, str]:
        assert self._spool is not None
        self._spool.seek(place)
        before, size = _PIECE.unpack(self._spool.read(_PIECE.size))
        return before, self._spool.read(size).decode()

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._file.close()
