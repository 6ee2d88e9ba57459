"""Capture files built from plain values in every format, what reading them gives, and reading them cut short."""

from __future__ import annotations

import io
import struct
import warnings

import pytest

from tcpstitch.capture import open_capture
from tcpstitch.errors import CaptureError, CaptureWarning

FIRST_HEADER = 28  # a file cut inside the first header of any format is no capture
PACKETS = [(1000.25, b"first packet"), (1001.5, b""), (1002.75, b"third" * 50)]


def pcap(packets=PACKETS, order="<", magic=0xA1B2C3D4, linktype=1, units=10**6):
    extra = b"\0" * 8 if magic == 0xA1B2CD34 else b""
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, linktype)]
    for when, data in packets:
        head = struct.pack(order + "IIII", int(when), int(when % 1 * units), len(data), len(data) + 7)
        out.append(head + extra + data)
    return b"".join(out)


def block(kind, body, order="<"):
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(order="<", options=b""):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options, order)


def interface(linktype=1, order="<", snaplen=0, options=b""):
    return block(1, struct.pack(order + "HHI", linktype, 0, snaplen) + options, order)


def enhanced(ticks, data, index=0, order="<", options=b""):
    head = struct.pack(order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(6, head + data + b"\0" * (-len(data) % 4) + options, order)


def snoop(packets=PACKETS, datalink=4):
    out = [b"snoop\0\0\0" + struct.pack(">II", 2, datalink)]
    for when, data in packets:
        pad = -len(data) % 4
        head = struct.pack(">IIIIII", len(data), len(data), 24 + len(data) + pad, 0, int(when), int(when % 1 * 1e6))
        out.append(head + data + b"\0" * pad)
    return b"".join(out)


def pcapng(packets=PACKETS, order="<"):
    return (
        section(order)
        + interface(order=order)
        + b"".join(enhanced(int(when * 10**6), data, order=order) for when, data in packets)
    )


def read(raw, **options):
    with open_capture(io.BytesIO(raw), **options) as capture:
        return list(capture)


def damaged(raw):
    with open_capture(io.BytesIO(raw)) as capture, pytest.warns(CaptureWarning):
        return list(capture), capture.warnings


def packet_ends(raw):
    """The offset behind each packet of an uncompressed pcap, pcapng or snoop file, found without the library."""
    if raw[:4] == b"\x0a\x0d\x0d\x0a":
        return list(_pcapng_ends(raw))
    if raw[:8] == b"snoop\0\0\0":
        first, head, order, at, fixed = 16, 24, ">", 8, 0
    else:
        order = "<" if raw[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1", b"\x34\xcd\xb2\xa1") else ">"
        first, head, at, fixed = 24, 16 + 8 * (raw[:4] in (b"\x34\xcd\xb2\xa1", b"\xa1\xb2\xcd\x34")), 8, 1
    ends, pos = [], first
    while pos + head <= len(raw):
        length = struct.unpack_from(order + "I", raw, pos + at)[0]
        pos += length + head if fixed else length
        if pos <= len(raw):
            ends.append(pos)
    return ends


def _pcapng_ends(raw):
    pos, order = 0, "<"
    while pos + 12 <= len(raw):
        if raw[pos : pos + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if raw[pos + 8 : pos + 12] == b"\x4d\x3c\x2b\x1a" else ">"
        kind, size = struct.unpack_from(order + "II", raw, pos)
        pos += size
        if kind in (2, 3, 6) and pos <= len(raw):
            yield pos


def cut_anywhere(raw, positions):
    """Read `raw` cut at each position: each packet that ends before the cut comes, in order, then at most a warning."""
    whole, ends = read(raw), packet_ends(raw)
    assert len(whole) == len(ends)
    for cut in positions:
        expected = [record for record, end in zip(whole, ends) if end <= cut]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                records = read(raw[:cut])
            except CaptureError:
                assert not expected and cut < FIRST_HEADER, cut
                continue
        assert records == expected, cut
        assert {item.category for item in caught} <= {CaptureWarning} and len(caught) <= 1
