"""A share of a capture: whole connections, each in exactly one share, in every format."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, List

import pytest

from small_captures import ACK, capture, frame, numbered, varied
from tcpstitch import CaptureWarning, open_capture
from tcpstitch.capture import Share


def big(path: Path, count: int = 3000) -> List[bytes]:
    """Many blocks of reading, with a packet shorter than a header among them and at the end."""
    frames = []
    for number in range(count):
        client, server = (f"10.1.{number % 7}.{number % 11}", 1024 + number % 97), ("10.2.2.2", 443)
        ends = (client, server) if number % 2 else (server, client)
        frames.append(frame(*ends, number, 0, ACK, bytes(number % 1300)))
        if number % 500 == 3:
            frames.append(frames[-1][: number % 50])
    frames.append(b"\2" * 20)
    path.write_bytes(capture(*frames).getvalue())
    return frames


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_packet_of_a_connection_is_in_exactly_one_share(tmp_path: Path, count: int) -> None:
    path = tmp_path / "big.pcap"
    frames = big(path)
    seen = [0] * len(frames)
    for index in range(count):
        share = Share(index, count)
        before = len(seen)
        for timestamp, packet in open_capture(path, share=share):
            number = share.number - 1
            assert packet == frames[number]
            assert timestamp == pytest.approx(1000 + number / 1000)
            assert len(packet) < 54 or share.owns(packet[26:38])
            seen[number] += 1
        assert share.number == before
    assert [times for times, packet in zip(seen, frames) if len(packet) >= 54] == [1] * 3000
    assert {times for times, packet in zip(seen, frames) if len(packet) < 54} == {count}


def test_both_directions_of_any_key_belong_to_the_same_share() -> None:
    for size in (4, 16):
        for number in range(200):
            raw = bytes((number * 37 + byte * 101) % 256 for byte in range(2 * size + 4))
            back = raw[size : 2 * size] + raw[:size] + raw[2 * size + 2 :] + raw[2 * size : 2 * size + 2]
            assert Share(1, 3).owns(raw) == Share(1, 3).owns(back)


def test_a_cut_capture_is_reported_by_each_share(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    frames = big(path, 20)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(CaptureWarning, match="ends in the middle of a packet"):
        got = [packet for _, packet in open_capture(path, share=Share(0, 1))]
    assert got == frames[:-1]


def rewritten(path: Path, kind: str, frames: List[bytes]) -> Path:
    """The frames, a millisecond apart from second 1000 on, in another format than a little-endian pcap's."""
    out = path.with_suffix("." + kind)
    if kind == "pcapng":
        data = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
        data += struct.pack("<IIHHII", 1, 20, 1, 0, 1 << 16, 20)
    else:
        order, magic = (">", 0xA1B2C3D4) if kind == "big" else ("<", 0xA1B23C4D)
        data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 1 << 16, 1)
    for number, packet in enumerate(frames):
        size = len(packet)
        seconds, micros = 1000 + number // 1000, number % 1000 * 1000
        if kind == "pcapng":
            ticks, padding = seconds * 10**6 + micros, bytes(-size % 4)
            total = 32 + size + len(padding)
            data += struct.pack("<7I", 6, total, 0, ticks >> 32, ticks & 0xFFFFFFFF, size, size)
            data += packet + padding + struct.pack("<I", total)
        else:
            data += struct.pack(order + "IIII", seconds, micros * (1 if kind == "big" else 1000), size, size) + packet
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("kind", ["big", "nano", "pcapng"])
@pytest.mark.parametrize("count", [2, 5])
def test_a_share_is_the_same_packets_in_every_format(tmp_path: Path, kind: str, count: int) -> None:
    path = tmp_path / "plain.pcap"
    frames = [*big(path), *varied()]
    path.write_bytes(capture(*frames).getvalue())
    other = rewritten(path, kind, frames)
    for index in range(count):
        shares = Share(index, count), Share(index, count)
        expected = [(shares[0].number, packet) for _, packet in open_capture(path, share=shares[0])]
        got = [(shares[1].number, time, packet) for time, packet in open_capture(other, share=shares[1])]
        assert [(number, packet) for number, _, packet in got] == expected
        assert all(time == pytest.approx(1000 + (number - 1) / 1000) for number, time, _ in got)
        assert shares[0].number == shares[1].number == len(frames)


@pytest.mark.parametrize("linktype,head", [(101, b""), (113, bytes(14)), (276, None)])
def test_a_share_of_other_link_types_has_whole_connections(tmp_path: Path, linktype: int, head: Any) -> None:
    def relinked(packet: bytes) -> bytes:
        if head is None:
            return packet[12:14] + bytes(18) + packet[14:]
        return head + packet[12:] if head else packet[14:]

    frames = [packet for number in range(40) for packet in numbered(number, ipv6=number % 2 == 1)]
    data = bytearray(capture(*map(relinked, frames)).getvalue())
    struct.pack_into("<I", data, 20, linktype)
    path = tmp_path / "other.pcap"
    path.write_bytes(data)
    seen = [0] * len(frames)
    for index in range(3):
        share = Share(index, 3)
        for _, _packet in open_capture(path, share=share):
            raw = frames[share.number - 1]
            assert share.owns(raw[26:38] if raw[12] == 8 else raw[22:58])
            seen[share.number - 1] += 1
    assert seen == [1] * len(frames)
