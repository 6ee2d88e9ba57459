"""Compressed captures, known by their first bytes. Output is bounded per step, so a small bomb stays small."""

from __future__ import annotations

import importlib
from typing import Any, Callable, Optional

from ..errors import CaptureError

_XZ_MEMORY = 256 * 1024 * 1024
_MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


class _Gzip:
    """zlib's object in the manner of bz2's and lzma's: it keeps its own unread input."""

    def __init__(self) -> None:
        import zlib  # each of these libraries is imported by who has such a file

        self._zlib = zlib.decompressobj(wbits=31)
        self._tail = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._tail + data, max_length)
        self._tail = self._zlib.unconsumed_tail
        return out

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


class Members:
    """Concatenated compressed members as one stream. `read` raises EOFError where the last one is cut."""

    def __init__(self, kind: str, new: Callable[[], Any], head: bytes, pull: Callable[[], bytes]) -> None:
        self.kind = kind
        self._new = new
        self._pull = pull
        self._object: Any = new()
        self._input = head
        self._between = False

    def read(self, size: int) -> bytes:
        while True:
            if self._object.eof:
                rest = self._object.unused_data or self._input
                self._input = rest.lstrip(b"\0")
                self._object = self._new()
                self._between = True
            if not self._input and (self._between or self._object.needs_input):
                self._input = self._pull()
                if self._between:
                    # Tapes and block devices pad with zeros, which are no member.
                    self._input = self._input.lstrip(b"\0")
                if not self._input:
                    if self._between:
                        return b""
                    raise EOFError("it ends early")
            self._between = False
            data, self._input = self._input, b""
            out: bytes = self._object.decompress(data, size)
            if out:
                return out


class _Zstandard:
    """The `zstandard` package's reader, which pulls for itself."""

    kind = "zstd"

    def __init__(self, module: Any, head: bytes, pull: Callable[[], bytes]) -> None:
        self._reader = module.ZstdDecompressor().stream_reader(_Pull(head, pull), read_across_frames=True)

    def read(self, size: int) -> bytes:
        data: bytes = self._reader.read1(size)
        return data


class _Pull:
    def __init__(self, head: bytes, pull: Callable[[], bytes]) -> None:
        self._held = head
        self._pull = pull

    def read(self, size: int = -1) -> bytes:
        data = self._held or self._pull()
        if 0 <= size < len(data):
            self._held = data[size:]
            return data[:size]
        self._held = b""
        return data


def _optional(name: str, kind: str, *modules: str) -> Any:
    for module in modules:
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise CaptureError(f"{name}: is compressed with {kind}: install tcpstitch[{kind}] to read it")


def open_decompressor(name: str, head: bytes, pull: Callable[[], bytes]) -> Any:
    """An object with `read(size)` and `kind` for what begins with `head`; None if that is not compressed."""
    kind: Optional[str] = next((kind for magic, kind in _MAGICS if head.startswith(magic)), None)
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
