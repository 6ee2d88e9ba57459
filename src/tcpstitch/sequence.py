"""32-bit serial arithmetic (RFC 9293 3.4) and unwrapping to absolute stream offsets.

Sequence numbers live on a circle of 2^32; everything above this floor counts absolute 64-bit offsets instead,
where 0 is the first byte after the SYN. `unwrap` is the only door between the two.
"""

from __future__ import annotations

MODULUS = 1 << 32
MASK = MODULUS - 1
HALF = 1 << 31
NEVER = -HALF  # instead of a number: negative, and no number is less than half the circle above it


def difference(a: int, b: int) -> int:
    """Signed distance from `a` to `b` on the circle, in [-2^31, 2^31). gopacket: `Sequence.Difference`."""
    return ((b - a + HALF) & MASK) - HALF


def unwrap(seq: int, near_seq: int, near_offset: int) -> int:
    """The absolute offset of `seq`, given that offset `near_offset` has sequence number `near_seq`.

    Right whenever the two are less than 2^31 bytes apart, which TCP's largest window (2^30, RFC 7323 2.3) ensures.
    """
    return near_offset + ((seq - near_seq + HALF) & MASK) - HALF
