"""TCP options: what is read where they lie as they lay before is what reading them one by one gives."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcpstitch.options import OPTION_MD5, SynOptions, option_places, parse_options, syn_options

MSS, SACK, NOP, SCALE = b"\x02\x04\x05\xb4", b"\x04\x02", b"\x01", b"\x03\x03\x07"
SIGNED = b"\x13\x12" + b"m" * 16


def stamps(value: int) -> bytes:
    return b"\x08\x0a" + value.to_bytes(4, "big") + bytes(4)


def one_by_one(options: bytes) -> SynOptions | None:
    """RFC 9293 3.1 and RFC 7323 2.3, 3.2."""
    found = parse_options(options)
    if OPTION_MD5 in found:
        return None
    scale, stamp = found.get(3, b""), found.get(8, b"")
    return (
        min(scale[0], 14) if len(scale) == 1 else -1,
        int.from_bytes(stamp[:4], "big") if len(stamp) == 8 else -1,
        4 in found,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (MSS + SACK + stamps(7) + NOP + SCALE, (7, 7, True)),  # Linux
        (MSS + SACK + stamps(0xFFFFFFFF) + NOP + b"\x03\x03\x0f", (14, 0xFFFFFFFF, True)),
        (MSS + NOP + SCALE + NOP + NOP + SACK, (7, -1, True)),  # Windows
        (MSS + NOP + SCALE + NOP + NOP + stamps(9) + SACK + b"\0\0", (7, 9, True)),  # macOS
        (NOP * 2 + stamps(5), (-1, 5, False)),
        (b"\0" + stamps(5) + NOP, (-1, -1, False)),  # behind the end of the list
        (MSS + b"\x08\x06abcd" + NOP * 2, (-1, -1, False)),  # too short for timestamps
        (b"\x03\x04\x07\x07" + MSS, (-1, -1, False)),
        (b"\x09\x0c" + stamps(1) + stamps(2) + NOP * 2, (-1, 2, False)),  # the first lies in another's value
        (MSS + SIGNED + NOP * 2, None),
    ],
)
def test_what_systems_send(options: bytes, said: SynOptions | None) -> None:
    assert syn_options(options) == said == one_by_one(options)


pieces = st.sampled_from([MSS, SACK, NOP, NOP, SCALE, b"\x03\x03\x02", SIGNED, b"\0", b"\x08\x06abcd", b"\x22\x02"])
pieces |= st.integers(0, 0xFFFFFFFF).map(stamps) | st.binary(min_size=1, max_size=6)
lists = st.lists(pieces, max_size=8).map(b"".join).map(lambda options: (options + bytes(-len(options) % 4))[:40])


@given(st.lists(lists, min_size=1, max_size=6))
@example([MSS + SACK + stamps(1) + NOP + SCALE, MSS + SACK + NOP + SCALE + stamps(1)] * 2)
def test_layouts_that_change_are_read_anew(several: list[bytes]) -> None:
    for options in several * 2:
        assert syn_options(options) == one_by_one(options)


@given(st.integers(0, 0xFFFFFFFF), lists)
def test_a_layout_that_is_known_says_what_it_said_with_other_timestamps(stamp: int, options: bytes) -> None:
    before = syn_options(options)
    start, end = option_places(options).get(8, (0, 0))
    if end - start == 8:
        options = options[:start] + stamp.to_bytes(4, "big") + options[start + 4 :]
        before = before and (before[0], stamp, before[2])
    assert syn_options(options) == before
