"""The recorded sample captures come out as the bytes that the applications sent, however they are fed."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Tuple

import pytest

from tcpstitch import Assembler, Chunk, Direction, Flow, Gap, Segment, Stream, StreamFactory
from tcpstitch.capture import open_capture

CAPTURES = Path(__file__).parent / "captures"
sys.path.insert(0, str(CAPTURES))
import record  # noqa: E402

WHOLE = [name for name, settings in record.SAMPLES.items() if not settings.capture_loss]
Packets = List[Tuple[float, bytes]]
SYN = 2
START_SEQUENCE = 2**32 - 11


class Collected(Stream):
    def __init__(self) -> None:
        self.chunks: Tuple[List[Tuple[int, bytes]], List[Tuple[int, bytes]]] = ([], [])
        self.gaps: List[Gap] = []
        self.reasons: List[str] = []

    def reassembled(self, chunk: Chunk) -> None:
        self.chunks[chunk.direction].append((chunk.offset, bytes(chunk.data)))

    def gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    def complete(self, reason: str) -> None:
        self.reasons.append(reason)

    def data(self, direction: Direction) -> bytes:
        return b"".join(data for _, data in self.chunks[direction])


class Collector(StreamFactory):
    def __init__(self) -> None:
        self.streams: Dict[Tuple[int, int], Collected] = {}
        self.opened = 0

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Collected:
        self.opened += 1
        stream = Collected()
        self.streams[flow.client.port, flow.server.port] = stream
        return stream


def feed(packets: Iterable[Tuple[float, bytes]], **options: Any) -> Collector:
    factory = Collector()
    with Assembler(factory, linktype=record.LINKTYPE_RAW, **options) as assembler:
        for timestamp, packet in packets:
            assembler.assemble(packet, timestamp)
    return factory


def path_of(name: str) -> Path:
    path = CAPTURES / f"{name}.pcap"
    if not path.exists():
        pytest.skip(f"{path.name} is missing: record it with tests/captures/record.py")
    return path


def packets_of(name: str) -> Packets:
    with open_capture(str(path_of(name))) as capture:
        return [(timestamp, bytes(packet)) for timestamp, packet in capture]


def truth_of(name: str) -> Dict[str, Any]:
    truth: Dict[str, Any] = json.loads((CAPTURES / f"{name}.truth.json").read_text())
    return truth


def assert_truth(name: str, collected: Collector) -> None:
    connections = truth_of(name)["connections"]
    assert collected.opened == len(connections), "as many connections as the applications opened, no more"
    for connection in connections:
        stream = collected.streams[connection["client"][1], connection["server"][1]]
        for way, direction in (("up", Direction.CLIENT_TO_SERVER), ("down", Direction.SERVER_TO_CLIENT)):
            data = stream.data(direction)
            assert connection[way]["received_intact"]
            assert len(data) == connection[way]["bytes"], (name, connection["client"], way, stream.gaps)
            assert hashlib.sha256(data).hexdigest() == connection[way]["sha256"], (name, connection["client"], way)
        assert stream.gaps == []
        assert stream.reasons == ["fin"]


def tcp_start(packet: bytes) -> int:
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def checksum(packet: bytes, start: int) -> bytes:
    """`packet` with its TCP checksum set right."""
    segment = bytearray(packet[start:])
    segment[16:18] = b"\0\0"
    addresses = packet[12:20] if start < 40 else packet[8:40]
    even = bytes(segment) + b"\0" * (len(segment) % 2)
    total = sum(struct.unpack(f"!{(len(addresses) + len(even)) // 2}H", addresses + even)) + 6 + len(segment)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", segment, 16, ~total & 0xFFFF)
    return packet[:start] + bytes(segment)


def reversed_in_windows(packets: Packets, size: int = 8) -> Packets:
    """Each `size` packets in reverse; times stay ascending, and no window reaches across a SYN.

    SYNs keep their place, since data ahead of both SYNs would be another capture: one that began in mid-stream.
    """
    changed: List[bytes] = []
    window: List[bytes] = []
    for _, packet in packets:
        is_syn = packet[tcp_start(packet) + 13] & SYN
        if not is_syn:
            window.append(packet)
        if is_syn or len(window) == size:
            changed += reversed(window)
            window = []
        if is_syn:
            changed.append(packet)
    changed += reversed(window)
    return [(timestamp, packet) for (timestamp, _), packet in zip(packets, changed)]


def moved_to_wrap(packets: Packets) -> Packets:
    """Both directions of every connection renumbered so that their SYNs have START_SEQUENCE; SACK blocks too."""
    shifts: Dict[bytes, int] = {}
    for _, packet in packets:
        start = tcp_start(packet)
        if packet[start + 13] & SYN:
            (seq,) = struct.unpack_from("!I", packet, start + 4)
            shifts[packet[start : start + 4]] = START_SEQUENCE - seq
    moved = []
    for timestamp, packet in packets:
        start = tcp_start(packet)
        changed = bytearray(packet)
        forward = shifts[packet[start : start + 4]]
        backward = shifts[packet[start + 2 : start + 4] + packet[start : start + 2]]
        places = [(start + 4, forward)]
        if packet[start + 13] & 16:
            places += [(start + 8, backward)]
        places += [(place, backward) for place in sack_places(packet, start)]
        for place, shift in places:
            (number,) = struct.unpack_from("!I", packet, place)
            struct.pack_into("!I", changed, place, (number + shift) % 2**32)
        moved.append((timestamp, checksum(bytes(changed), start)))
    return moved


def sack_places(packet: bytes, start: int) -> List[int]:
    position, end = start + 20, start + (packet[start + 12] >> 4) * 4
    while position < end and packet[position] != 0:
        if packet[position] == 1:
            position += 1
            continue
        if packet[position] == 5:
            return list(range(position + 2, position + packet[position + 1], 4))
        position += packet[position + 1]
    return []


@pytest.mark.parametrize("name", WHOLE)
def test_a_sample_read_from_its_file_gives_the_bytes_that_were_sent(name: str) -> None:
    factory = Collector()
    with Assembler(factory) as assembler, open_capture(str(path_of(name))) as capture:
        assembler.run(capture)
    assert_truth(name, factory)


@pytest.mark.parametrize("name", WHOLE)
def test_a_sample_read_whole_from_memory_gives_the_same_bytes(name: str) -> None:
    factory = Collector()
    with Assembler(factory) as assembler, open_capture(io.BytesIO(path_of(name).read_bytes())) as capture:
        assembler.run(capture)
    assert_truth(name, factory)


@pytest.mark.parametrize("name", WHOLE)
def test_a_sample_fed_one_packet_at_a_time_gives_the_same_bytes(name: str) -> None:
    assert_truth(name, feed(packets_of(name)))


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("name", WHOLE)
def test_what_a_real_stack_accepted_passes_both_kinds_of_checks(name: str, checks: str) -> None:
    assert_truth(name, feed(packets_of(name), checks=checks))


@pytest.mark.parametrize("name", WHOLE)
def test_a_sample_reversed_within_windows_of_eight_gives_the_same_bytes(name: str) -> None:
    assert_truth(name, feed(reversed_in_windows(packets_of(name))))


@pytest.mark.parametrize("name", WHOLE)
def test_a_sample_with_every_packet_doubled_gives_the_same_bytes(name: str) -> None:
    assert_truth(name, feed(pair for pair in packets_of(name) for _ in range(2)))


@pytest.mark.parametrize("name", WHOLE)
def test_a_sample_renumbered_to_wrap_after_ten_bytes_gives_the_same_bytes(name: str) -> None:
    assert_truth(name, feed(moved_to_wrap(packets_of(name))))


@pytest.mark.parametrize("name", WHOLE)
def test_reversed_doubled_and_wrapping_together_give_the_same_bytes(name: str) -> None:
    packets = reversed_in_windows(moved_to_wrap(packets_of(name)))
    assert_truth(name, feed(pair for pair in packets for _ in range(2)))


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_packets_lost_from_the_capture_become_gaps_and_shift_no_byte(checks: str) -> None:
    """Every chunk holds what was sent at its offset, and chunks and gaps together cover what was sent."""
    truth = truth_of("caploss")
    collected = feed(packets_of("caploss"), checks=checks)
    missing = 0
    for number, connection in enumerate(truth["connections"]):
        stream = collected.streams[connection["client"][1], connection["server"][1]]
        for way, direction in (("up", Direction.CLIENT_TO_SERVER), ("down", Direction.SERVER_TO_CLIENT)):
            sent = record.payload(truth["settings"]["seed"], number, way, connection[way]["bytes"])
            end = 0
            pieces = stream.chunks[direction] + [
                (gap.offset, b"?" * gap.length) for gap in stream.gaps if gap.direction == direction
            ]
            for offset, data in sorted(piece for piece in pieces if piece[1]):
                assert offset == end, (number, way, offset, end)
                end += len(data)
            for offset, data in stream.chunks[direction]:
                assert data == sent[offset : offset + len(data)], (number, way, offset)
            assert end <= len(sent)
            missing += len(sent) - len(stream.data(direction))
    assert missing > 0, "the sample holds what it is for"


@pytest.mark.parametrize("name", list(record.SAMPLES))
def test_samples_are_small(name: str) -> None:
    assert path_of(name).stat().st_size < 400_000
