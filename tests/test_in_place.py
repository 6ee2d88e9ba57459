"""`run` takes the packets of a pcap file where they lie: the same calls as the loop written out, over many blocks."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest

from small_captures import capture, frame, in_fragments, numbered, tagged
from support.recorder import Recorder
from tcpstitch import Assembler, Chunk, Stream, StreamCallbackError, StreamFactory, open_capture
from tcpstitch.capture import Share
from tcpstitch.parallel import run as run_in_parts

Frames = List[bytes]


def mangled(seed: int) -> Frames:
    """About 600 KiB: connections of all layouts interleaved, their packets cut, changed, doubled and out of order."""
    dice = random.Random(seed)
    lists = []
    for number in range(600):
        frames = numbered(number * 3, ipv6=dice.random() < 0.3)
        if dice.random() < 0.3:
            frames = [packet[:12] + struct.pack("!HH", 0x8100, dice.choice((7, 0x2007, 9))) + packet[12:]
                      for packet in frames]  # fmt: skip
        elif dice.random() < 0.1:
            frames = [piece for n, packet in enumerate(frames) for piece in in_fragments(packet, n) or [packet]]
        lists.append(frames)
    packets = [frames[step] for step in range(20) for frames in lists if step < len(frames)]
    for _ in range(len(packets) // 10):
        place = dice.randrange(len(packets))
        packet = bytearray(packets[place])
        what = dice.randrange(6)
        if what == 0:
            del packet[dice.randrange(len(packet) + 1) :]
        elif what == 1 and packet:
            packet[dice.randrange(len(packet))] = dice.randrange(256)
        elif what == 2 and len(packet) > 20:
            packet[dice.randrange(12, 20)] = dice.choice((0, 8, 0x45, 0x60, 0x81, 0x86, 0xDD))
        elif what == 3:
            packet += bytes(dice.randrange(50))  # padding
        elif what == 4:
            packets.insert(dice.randrange(len(packets)), bytes(packet))
        else:
            other = dice.randrange(len(packets))
            packets[other], packet = bytes(packet), bytearray(packets[other])
        packets[place] = bytes(packet)
    return packets


def as_big_endian(file: bytes) -> bytes:
    words = [struct.pack(">IHHiIII", *struct.unpack_from("<IHHiIII", file))]
    pos = 24
    while pos < len(file):
        head = struct.unpack_from("<IIII", file, pos)
        words.append(struct.pack(">IIII", *head) + file[pos + 16 : pos + 16 + head[2]])
        pos += 16 + head[2]
    return b"".join(words)


def heard(recorder: Recorder, assembler: Assembler) -> List[Any]:
    rows: List[Any] = [assembler.statistics()]
    for connection in recorder.connections:
        chunks = [(c.direction, c.data, c.offset, c.skip, c.start, c.end, c.timestamp) for c in connection.chunks]
        rows.append((str(connection.flow), chunks, connection.gaps, connection.anomalies, connection.completions))
    return rows


def one_by_one(source: Any, **options: Any) -> List[Any]:
    recorder = Recorder()
    with Assembler(recorder, **options) as assembler:
        for timestamp, packet in open_capture(source):
            assembler.assemble(packet, timestamp)
    return heard(recorder, assembler)


def in_place(source: Any, **options: Any) -> List[Any]:
    recorder = Recorder()
    with Assembler(recorder, **options) as assembler:
        assembler.run(open_capture(source))
    return heard(recorder, assembler)


@pytest.mark.parametrize("seed", range(4))
def test_run_leads_to_the_calls_that_the_loop_leads_to(tmp_path: Path, seed: int) -> None:
    file = capture(*mangled(seed)).getvalue()
    path = tmp_path / "mangled.pcap"
    path.write_bytes(as_big_endian(file) if seed % 2 else file)
    expected = one_by_one(path)
    assert len(expected) > 500
    assert in_place(path) == expected
    assert in_place(io.BytesIO(path.read_bytes())) == expected  # blocks of another kind
    assert in_place(path, flow_key="tunnel") == one_by_one(path, flow_key="tunnel")
    assert in_place(path, checks="strict") == one_by_one(path, checks="strict")


@pytest.mark.parametrize("end", ["1", "2001:db8::1"], ids=["ipv4", "ipv6"])
def test_segments_with_timestamps_lead_to_the_same_calls_in_place(tmp_path: Path, end: str) -> None:
    client, server = (end if ":" in end else f"10.0.0.{end}", 4000), ("2001:db8::2" if ":" in end else "10.0.0.2", 80)

    def stamped(up: bool, seq: int, ack: int, flags: int, payload: bytes, value: int) -> bytes:
        options = struct.pack("!IIII", 0x0101080A, value, max(value - 1, 0), 0)[:12]
        return frame(client if up else server, server if up else client, seq, ack, flags, payload, options)

    frames = [stamped(True, 99, 0, 2, b"", 1), stamped(False, 499, 100, 0x12, b"", 2)]
    frames.append(stamped(True, 100, 500, 0x10, b"", 3))
    for number in range(300):
        place = 100 + number * 300
        frames.append(stamped(True, place, 500, 0x10, bytes([number % 256]) * 300, 4 + number))
        frames.append(stamped(False, 500, place + 300, 0x10, b"", 4 + number))
    path = tmp_path / "stamped.pcap"
    path.write_bytes(capture(*frames).getvalue())
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        assembler.run(open_capture(path))
    assert heard(recorder, assembler) == one_by_one(path)
    assert sum(len(chunk.data) for chunk in recorder.connections[0].chunks) == 300 * 300
    assert not recorder.connections[0].anomalies


def test_what_was_taken_before_run_does_not_come_again() -> None:
    frames = mangled(100)
    source = open_capture(io.BytesIO(capture(*frames).getvalue()))
    recorder, expected = Recorder(), one_by_one(io.BytesIO(capture(*frames).getvalue()))
    with Assembler(recorder) as assembler:
        for _ in range(300):
            timestamp, packet = next(iter(source))
            assembler.assemble(packet, timestamp)
        assembler.run(source)
    assert heard(recorder, assembler) == expected


class Failing(Recorder):
    """Fails once, at the chunk of this number."""

    def __init__(self, at: int) -> None:
        super().__init__(self.fail)
        self.left = at

    def fail(self, recording: Any, chunk: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise ValueError("a handler's")


def goes_on_behind_its_packet(file: bytes, packets: int, again: str) -> None:
    """What a handler's failure leaves of a capture of so many packets comes with the next `run`, or loop."""
    source = open_capture(io.BytesIO(file))
    assembler = Assembler(Failing(400))
    with pytest.raises(StreamCallbackError):
        assembler.run(source)
    assert 0 < assembler.statistics().packets < packets
    if again == "run":
        assembler.run(source)
    else:
        for timestamp, packet in source:
            assembler.assemble(packet, timestamp)
    assert assembler.statistics().packets == packets


@pytest.mark.parametrize("again", ["run", "loop"])
def test_after_a_handler_has_failed_the_capture_goes_on_behind_its_packet(again: str) -> None:
    frames = mangled(101)
    goes_on_behind_its_packet(capture(*frames).getvalue(), len(frames), again)


@pytest.mark.parametrize("read", [iter, Assembler(Recorder()).run])
def test_a_handler_cannot_read_on_where_run_has_the_packets(read: Any) -> None:
    """They would come twice, or never. Afterwards the capture goes on."""
    frames = mangled(106)
    source = open_capture(io.BytesIO(capture(*frames).getvalue()))
    refused: List[Any] = []

    def on_chunk(recording: Any, chunk: Any) -> None:
        if not refused:
            refused.append(chunk)
            read(source)

    assembler = Assembler(Recorder(on_chunk))
    with pytest.raises(StreamCallbackError, match="run.. has its packets: to read on in a handler"):
        assembler.run(source)
    for timestamp, packet in source:
        assembler.assemble(packet, timestamp)
    assert assembler.statistics().packets == len(frames)


def test_an_assemble_of_ones_own_sees_every_packet() -> None:
    class Counting(Assembler):
        seen: List[bytes] = []

        def assemble(self, packet: Any, timestamp: float) -> None:  # type: ignore[override]
            self.seen.append(packet)
            super().assemble(packet, timestamp)

    frames = mangled(102)
    counting = Counting(Recorder())
    counting.run(open_capture(io.BytesIO(capture(*frames).getvalue())))
    assert set(counting.seen) == set(frames)
    assert counting.statistics().packets == len(frames)

    class Patched(Assembler):  # whose objects, unlike those of `Assembler`, have attributes of their own
        pass

    patched, seen = Patched(Recorder()), []
    patched.assemble = lambda packet, timestamp: seen.append(packet)  # type: ignore[method-assign, assignment]
    patched.run(open_capture(io.BytesIO(capture(*frames).getvalue())))
    assert seen == frames


def test_run_ends_where_a_handler_closes_the_capture() -> None:
    frames = mangled(103)
    source = open_capture(io.BytesIO(capture(*frames).getvalue()))
    assembler = Assembler(Recorder(lambda recording, chunk: source.close()))
    assembler.run(source)
    assert 0 < assembler.statistics().packets <= len(frames)


class Emitting(Stream):
    def __init__(self, emit: Any) -> None:
        self.emit = emit

    def reassembled(self, chunk: Chunk) -> None:
        self.emit((chunk.timestamp, chunk.data))


class Numbering(StreamFactory):
    """Emits the time and data of each chunk."""

    def __init__(self, emit: Any) -> None:
        self.emit = emit

    def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
        return Emitting(self.emit)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("parts", [2, 3])
def test_parts_see_their_packets_in_place_and_in_order(tmp_path: Path, parts: int, order: str) -> None:
    """The order of results is that of the packets' numbers, which are counted in every block."""
    frames = [packet for number in range(500) for packet in numbered(number * 5, ipv6=number % 4 == 1)]
    frames = [tagged(packet) if len(packet) % 9 == 0 else packet for packet in frames]
    file = capture(*frames).getvalue()
    path = tmp_path / "plain.pcap"
    path.write_bytes(as_big_endian(file) if order == "big" else file)
    results = run_in_parts(path, Numbering, parts=parts, workers=1).results
    expected: List[Tuple[float, bytes]] = []
    with Assembler(Numbering(expected.append)) as assembler:
        assembler.run(open_capture(path))
    assert len(expected) > 1000
    assert results == expected


def test_a_share_counts_all_packets_whether_they_are_its_own_or_not(tmp_path: Path) -> None:
    path = tmp_path / "mangled.pcap"
    frames = mangled(104)
    path.write_bytes(capture(*frames, b"\2" * 20).getvalue())

    def shares() -> Iterator[int]:
        for index in range(3):
            share = Share(index, 3)
            assembler = Assembler(Recorder())
            assembler.run(open_capture(path, share=share))
            assert share.number == len(frames) + 1
            yield assembler.statistics().packets

    taken = list(shares())
    assert sum(taken) >= len(frames)
    assert max(taken) < len(frames) * 0.6


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_short_packet_at_the_end_is_of_one_share_only(tmp_path: Path, order: str) -> None:
    """Though the layout of the packet before would reach beyond the file."""
    file = capture(*numbered(1, ipv6=True), numbered(2)[2]).getvalue()
    path = tmp_path / "short.pcap"
    path.write_bytes(as_big_endian(file) if order == "big" else file)
    packets = 0
    for index in range(5):
        assembler = Assembler(Recorder())
        assembler.run(open_capture(path, share=Share(index, 5, counted=False)))
        packets += assembler.statistics().packets
    assert packets == len(numbered(1)) + 1


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_share_in_place_is_the_share_that_is_read_one_by_one(tmp_path: Path, count: int, order: str) -> None:
    """Of all layouts, damaged packets among them; and how far it was read is the same number in the end."""
    file = capture(*mangled(105), b"\2" * 20).getvalue()
    path = tmp_path / "mangled.pcap"
    path.write_bytes(as_big_endian(file) if order == "big" else file)
    for index in range(count):
        shares = Share(index, count), Share(index, count, counted=False)
        recorder = Recorder()
        with Assembler(recorder) as assembler:
            for timestamp, packet in open_capture(path, share=shares[0]):
                assembler.assemble(packet, timestamp)
        placed = Recorder()
        with Assembler(placed) as other:
            other.run(open_capture(path, share=shares[1]))
        assert heard(placed, other) == heard(recorder, assembler)
        assert shares[0].place() == shares[1].place() == len(file) - 24
