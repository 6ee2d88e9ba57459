"""Capture files built from plain values, in every format that is read, and what reading them gives."""

from __future__ import annotations

import io
import struct

import pytest

from tcpstitch.capture import open_capture
from tcpstitch.errors import CaptureWarning

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


def pcapng(order="<"):
    return (
        section(order)
        + interface(order=order)
        + b"".join(enhanced(int(when * 10**6), data, order=order) for when, data in PACKETS)
    )


def read(raw, **options):
    with open_capture(io.BytesIO(raw), **options) as capture:
        return list(capture)


def damaged(raw):
    with open_capture(io.BytesIO(raw)) as capture, pytest.warns(CaptureWarning):
        return list(capture), capture.warnings
