"""Sums for the checksum of RFC 1071."""

from __future__ import annotations

from struct import Struct

from .apart import apart
from .uncut import PYPY

if PYPY:
    # Little-endian numbers, which most machines read at once. The sum of words whose bytes are swapped is the swapped
    # sum (RFC 1071 2), and modulo 2^16-1 a word with its bytes swapped is 256 times that word.
    _SIXTEEN, _SEVEN, _SIX, _THREE, _TWO, _ONE = (Struct(f"<{n}I").unpack_from for n in (16, 7, 6, 3, 2, 1))

    def even_sum(data: bytes, order: str) -> int:
        """`word_sum` of an even number of bytes; `order` is "big"."""
        # Straight on for the sizes of headers with usual options: a loop is a call there, and its frame an object.
        size, at = len(data), 28
        if size < at or size > 96:
            return _sum_from(data, 0, 0)
        a, b, c, d, e, f, g = _SEVEN(data, 0)
        total: int = a + b + c + d + e + f + g
        if size == at:
            return total << 8
        if size >= 52:
            a, b, c, d, e, f = _SIX(data, 28)
            total, at = total + a + b + c + d + e + f, 52
        if size >= at + 12:
            a, b, c = _THREE(data, at)
            total, at = total + a + b + c, at + 12
        if size >= at + 8:
            a, b = _TWO(data, at)
            total, at = total + a + b, at + 8
        if size >= at + 4:
            (a,) = _ONE(data, at)
            total, at = total + a, at + 4
        return total << 8 if size == at else _sum_from(data, at, total)

    @apart
    def _sum_from(data: bytes, at: int, total: int) -> int:
        size = len(data)
        while at + 64 <= size:
            a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q = _SIXTEEN(data, at)
            total += a + b + c + d + e + f + g + h + i + j + k + m + n + o + p + q
            at += 64
        while at + 4 <= size:
            total += _ONE(data, at)[0]
            at += 4
        return (total if at == size else total + (data[at] | data[at + 1] << 8)) << 8

else:
    even_sum = int.from_bytes  # type: ignore[assignment]  # itself: a call of a Python function costs more than the sum


def word_sum(data: bytes) -> int:
    """A number that leaves the same remainder modulo 2^16-1 as the sum of the 16-bit words. O(length)."""
    return even_sum(data + b"\0" if len(data) & 1 else data, "big")
