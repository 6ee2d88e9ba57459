"""Compressed captures, known by their first bytes. Output is bounded per step, so a small bomb stays small."""

from __future__ import annotations

import importlib
from typing import Any, Callable, List, Optional, Tuple

from ..errors import CaptureError

_XZ_MEMORY = 256 * 1024 * 1024
_MAGICS: Tuple[Tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
# zstd (RFC 8878 3.1.2) and lz4 may begin with frames of no data, which look the same in both; pzstd writes one of 12
# bytes. More than so many bytes of them are no beginning.
_FRAMED = _MAGICS[-2:]
_SKIPPABLE = tuple(bytes((0x50 + low, 0x2A, 0x4D, 0x18)) for low in range(16))
_MOST_SKIPPED = 1 << 16


# A library that meets damage gives nothing of what it unpacked at that time. So it is fed little, and asked for little;
# gzip's can go back. Bytes of input and of output at a time.
_STEPS = {"gzip": (1 << 15, 1 << 18), "bz2": (256, 2048), "xz": (256, 2048), "lz4": (4096, 4096), "zstd": (4096, 4096)}


class _Pull:
    """Bytes that lie ahead, and what `pull` gives behind them."""

    def __init__(self, head: bytes, pull: Callable[[], bytes]) -> None:
        self._held = head
        self._pos = 0
        self._pull = pull

    @property
    def waits(self) -> bool:
        """Whether nothing lies ahead, so that reading may take its time."""
        return self._pos >= len(self._held)

    def read(self, size: int = -1) -> bytes:
        if self.waits:
            self._held, self._pos = self._pull(), 0
        start = self._pos
        self._pos = len(self._held) if size < 0 else start + size
        return self._held[start : self._pos]


class _Gzip:
    """zlib's object in the manner of bz2's and lzma's: it keeps its own unread input."""

    def __init__(self) -> None:
        import zlib  # each of these libraries is imported for its own files only

        self._zlib = zlib.decompressobj(wbits=31)
        self._damage = zlib.error
        self._tail = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """What lies before damaged bytes comes first; the call that finds nothing before them raises."""
        data = self._tail + data
        feed = len(data)
        while True:
            before = self._zlib.copy()
            try:
                out = self._zlib.decompress(data[:feed], max_length)
            except self._damage:
                self._zlib = before
                if feed == 1:
                    raise
                feed //= 2
                continue
            # At the end what is left is in `unused_data`, and may be in `unconsumed_tail` once more.
            self._tail = data = (b"" if self._zlib.eof else self._zlib.unconsumed_tail) + data[feed:]
            if out or not data or self._zlib.eof:
                return out
            feed = len(data)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data + self._tail


class Members:
    """Concatenated compressed members as one stream. `read` raises EOFError where the last one is cut, and what the
    library raises where one is damaged, once all before it was given."""

    def __init__(self, kind: str, new: Callable[[], Any], head: bytes, pull: Callable[[], bytes]) -> None:
        self.kind = kind
        self._new = new
        self._source = _Pull(head, pull)
        self._feed, self._most = _STEPS[kind]
        self._object: Any = new()
        self._input = self._source.read(self._feed)
        self._between = False
        self._damage: Optional[Exception] = None

    def read(self, size: int) -> bytes:
        """At least one byte, and up to `size` of what is there already."""
        if self._damage is not None:
            raise self._damage
        parts: List[bytes] = []
        while size > 0:
            try:
                data = self._step(min(size, self._most), not parts)
            except Exception as error:
                if not parts:
                    raise
                self._damage = error
                break
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _step(self, size: int, wait: bool) -> bytes:
        """What comes next; nothing at the end, or where it does not `wait` for input that is not there yet."""
        while True:
            if self._object.eof:
                rest = self._object.unused_data or self._input
                self._input = rest.lstrip(b"\0")
                self._object = self._new()
                self._between = True
            if not self._input and (self._between or self._object.needs_input):
                if self._source.waits and not wait:
                    return b""
                self._input = self._source.read(self._feed)
                if not self._input:
                    if self._between:
                        return b""
                    raise EOFError("it ends early")
                if self._between:
                    # Tapes and block devices pad with zeros, which are no member.
                    self._input = self._input.lstrip(b"\0")
                    continue
            self._between = False
            data, self._input = self._input, b""
            out: bytes = self._object.decompress(data, size)
            if out:
                return out


class _ZstdFrames:
    """Follows the frames of zstd data from block to block (RFC 8878 3.1), to know whether it ends with one."""

    def __init__(self, source: _Pull) -> None:
        self._source = source
        self._held = b""  # the beginning of a header
        self._skip = 0  # bytes to the next header
        self._inside = False
        self._checksum = 0

    @property
    def whole(self) -> bool:
        return not (self._held or self._skip or self._inside)

    def read(self, size: int) -> bytes:
        """What the source gives. O(blocks), and O(bytes)."""
        data = self._source.read(size)
        held = self._held + data
        pos = self._skip
        while pos < len(held):
            step = self._header(held[pos : pos + 8])
            if not step:
                break
            pos += step
        self._held, self._skip = held[pos:], max(0, pos - len(held))
        return data

    def _header(self, held: bytes) -> int:
        """The size of the header at the start of `held` and what it announces; 0 if that is too little to tell."""
        if self._inside:
            block = int.from_bytes(held[:3], "little")
            if len(held) < 3:
                return 0
            self._inside = not block & 1
            repeated = block >> 1 & 3 == 1  # one byte, however often
            return 3 + (1 if repeated else block >> 3) + (0 if self._inside else self._checksum)
        if held[:4] in _SKIPPABLE:
            return 8 + int.from_bytes(held[4:8], "little") if len(held) == 8 else 0
        if len(held) < 5:
            return 0
        described = held[4]
        alone = described >> 5 & 1  # a single segment, which has no window
        self._inside, self._checksum = True, described & 4
        return 5 + (1 - alone) + (0, 1, 2, 4)[described & 3] + (alone, 2, 4, 8)[described >> 6]


class _Zstandard:
    """The `zstandard` package's reader, which pulls for itself, and takes data that is cut for whole."""

    kind = "zstd"

    def __init__(self, module: Any, head: bytes, pull: Callable[[], bytes]) -> None:
        self._frames = _ZstdFrames(_Pull(head, pull))
        feed = _STEPS["zstd"][0]
        self._reader = module.ZstdDecompressor().stream_reader(self._frames, read_size=feed, read_across_frames=True)

    def read(self, size: int) -> bytes:
        data: bytes = self._reader.read1(size)
        if not data and size and not self._frames.whole:
            raise EOFError("it ends early")
        return data


def _optional(name: str, kind: str, *modules: str) -> Any:
    for module in modules:
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    package = modules[-1].partition(".")[0]
    raise CaptureError(f"{name}: is compressed with {kind}: to read it, pip install {package}, or unpack it first")


def _behind_skippable(head: bytes, pull: Callable[[], bytes]) -> bytes:
    """What comes after the skippable frames that `head` begins with. O(`_MOST_SKIPPED`)."""
    held = bytearray(head)
    start = 0
    while start <= _MOST_SKIPPED and bytes(held[start : start + 4]) in _SKIPPABLE:
        start += 8 + int.from_bytes(held[start + 4 : start + 8], "little")
        while len(held) < start + 8 and start <= _MOST_SKIPPED:  # the least that tells a frame and its length
            block = pull()
            if not block:
                break
            held += block
    return bytes(held[start:])


def open_decompressor(name: str, head: bytes, pull: Callable[[], bytes]) -> Any:
    """An object with `read(size)` and `kind` for what begins with `head`; None if that is not compressed."""
    magics = _MAGICS
    if head.startswith(_SKIPPABLE):
        head, magics = _behind_skippable(head, pull), _FRAMED
    kind: Optional[str] = next((kind for magic, kind in magics if head.startswith(magic)), None)
    if kind is None:
        return None
    if kind == "gzip":
        return Members(kind, _Gzip, head, pull)
    if kind == "bz2":
        import bz2

        return Members(kind, bz2.BZ2Decompressor, head, pull)
    if kind == "xz":
        import lzma

        # xz itself never asks for more than 65 MiB; a header can ask for 4 GiB.
        return Members(kind, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), head, pull)
    if kind == "lz4":
        module = _optional(name, kind, "lz4.frame")
        return Members(kind, module.LZ4FrameDecompressor, head, pull)
    module = _optional(name, kind, "compression.zstd", "zstandard")
    if hasattr(module, "ZstdFile"):
        return Members(kind, module.ZstdDecompressor, head, pull)
    return _Zstandard(module, head, pull)
