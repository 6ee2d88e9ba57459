"""Captures assembled in several workers come out as in one, in order, and a worker's failure costs its part only."""

from __future__ import annotations

import functools
import gzip
import io
import os
import struct
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from small_captures import ACK, SYN, capture, exchange, frame
from tcpstitch import (
    CaptureWarning,
    Chunk,
    Flow,
    Limits,
    Segment,
    Stream,
    StreamFactory,
    UsageError,
    connections,
    open_capture,
)  # fmt: skip
from tcpstitch.capture import Share
from tcpstitch.parallel import PartsFailed, run

Emit = Callable[[Any], None]


class Whole(Stream):
    def __init__(self, flow: Flow, emit: Emit) -> None:
        self.flow, self.emit, self.data = str(flow), emit, [b"", b""]

    def reassembled(self, chunk: Chunk) -> None:
        self.data[chunk.direction] += chunk.data

    def complete(self, reason: str) -> None:
        self.emit((self.flow, self.data[0], self.data[1], reason))


class Factory(StreamFactory):
    """Emits (flow, client's bytes, server's bytes, reason) of each connection."""

    stream: Callable[[Flow, Emit], Stream] = Whole

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Stream:
        return self.stream(flow, self.emit)


def dies(data: bytes, how: Callable[[], None]) -> Callable[[Flow, Emit], Stream]:
    class Dying(Whole):
        def reassembled(self, chunk: Chunk) -> None:
            super().reassembled(chunk)
            if data in chunk.data:
                how()

    return Dying


def refuse() -> None:
    raise RuntimeError("no more")


class FailingFactory(Factory):
    stream = dies(b"number 7 ", refuse)


class DyingFactory(Factory):
    stream = dies(b"number 7 ", functools.partial(os._exit, 9))


class LastFirst(Executor):
    """Runs what was submitted in the opposite order, when a result is waited for."""

    def __init__(self) -> None:
        self.waiting: List[Tuple[Future, Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        executor = self

        class Lazy(Future):  # type: ignore[type-arg]
            def result(self, timeout: Any = None) -> Any:
                while executor.waiting:
                    future, work = executor.waiting.pop()
                    future.set_result(work())
                return super().result(timeout)

        future: Future = Lazy()  # type: ignore[type-arg]
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future


def numbered(number: int, ipv6: bool = False) -> List[bytes]:
    client = (f"2001:db8::{number + 1:x}" if ipv6 else f"10.0.{number % 3}.1", 40000 + number)
    server = ("2001:db8::80" if ipv6 else "10.9.9.9", 80)
    frames = exchange(client, server)
    frames[4:5] = [frame(client, server, 100, 500, ACK, b"hello")]
    data = b"number %d " % number + b"x" * (number * 7 % 900)
    frames[5] = frame(server, client, 500, 111, ACK, data)
    last = 500 + len(data)
    frames[6:] = [
        frame(client, server, 111, last, 1 | ACK), frame(server, client, last, 112, 1 | ACK),
        frame(client, server, 112, last + 1, ACK),
    ]  # fmt: skip
    return frames


def tagged(packet: bytes) -> bytes:
    return packet[:12] + b"\x81\x00\x00\x2a" + packet[12:]


def in_fragments(packet: bytes, ident: int) -> List[bytes]:
    """The frame's IPv4 packet in two fragments, the later one first."""
    head, body = packet[14:34], packet[34:]
    cut = len(body) // 2 & ~7

    def fragment(offset: int, more: int, piece: bytes) -> bytes:
        lengths = struct.pack("!HHH", 20 + len(piece), ident, more << 13 | offset // 8)
        return packet[:14] + head[:2] + lengths + head[8:] + piece

    return [fragment(cut, 0, body[cut:]), fragment(0, 1, body[:cut])]


def in_tunnel(packet: bytes) -> bytes:
    """The frame's IPv4 packet in another one (RFC 2003) between two routers."""
    inner = packet[14:]
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), 0, 0, 64, 4, 0) + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    return packet[:14] + outer + inner


def varied() -> List[bytes]:
    """60 connections interleaved: plain, IPv6, behind a VLAN tag, in fragments, in a tunnel; and what is not TCP."""
    lists: List[List[bytes]] = []
    for number in range(60):
        frames = numbered(number, ipv6=number % 5 == 1)
        if number % 5 == 2:
            frames = [tagged(packet) for packet in frames]
        elif number % 5 == 3:
            frames = [piece for n, packet in enumerate(frames) for piece in in_fragments(packet, 50 * number + n)]
        elif number % 5 == 4:
            frames = [in_tunnel(packet) for packet in frames]
        lists.append([*frames, b"\2" * 12 + b"\x08\x06" + b"\0" * 46, b"short"])
    return [packets[step] for step in range(25) for packets in lists if step < len(packets)]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.pcap"
    path.write_bytes(capture(*varied()).getvalue())
    return path


def alone(source: Any) -> List[Any]:
    return [(str(c.flow), c.client_data, c.server_data, c.reason) for c in connections(source)]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_parts_of_a_capture_give_what_one_assembler_gives_in_the_same_order(
    mixed: Path, parts: int, compressed: bool
) -> None:
    expected = alone(mixed)
    assert len(expected) == 60
    if compressed:
        packed = mixed.with_suffix(".gz")
        packed.write_bytes(gzip.compress(mixed.read_bytes()))
        mixed = packed
    with ThreadPoolExecutor(2) as executor:
        outcome = run(mixed, Factory, parts=parts, workers=2, executor=executor)
    assert outcome.results == expected
    assert [(report.part, report.parts) for report in outcome.parts] == [(part, parts) for part in range(parts)]


def test_what_is_complete_at_the_end_only_comes_last_and_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "open.pcap"
    open_ones = [exchange(("10.7.7.7", port), ("10.7.7.8", 2))[0] for port in range(9)]
    path.write_bytes(capture(*open_ones, *numbered(1)).getvalue())
    results = run(path, Factory, parts=3, workers=3).results
    assert [row[3] for row in results] == ["fin"] + ["flushed"] * 9
    assert sorted(results) == sorted(alone(path))
    assert [row for part in range(3) for row in results[1:] if Share(part, 3).owns(key_of(row[0]))] == results[1:]


def test_processes_of_their_own_are_the_default(mixed: Path) -> None:
    outcome = run([mixed], Factory, workers=2)
    assert outcome.results == alone(mixed)
    assert all(report.statistics is not None and report.statistics.connections_opened > 9 for report in outcome.parts)


def test_results_do_not_depend_on_which_part_is_done_first(mixed: Path) -> None:
    assert run(mixed, Factory, workers=4, executor=LastFirst()).results == alone(mixed)


def test_the_results_of_several_captures_come_in_the_order_of_the_captures(tmp_path: Path) -> None:
    paths = []
    for number in (3, 1, 2):
        paths.append(tmp_path / f"{number}.pcap")
        paths[-1].write_bytes(capture(*numbered(number)).getvalue())
    outcome = run(paths, Factory, workers=2)
    assert outcome.results == [row for path in paths for row in alone(path)]
    assert [report.parts for report in outcome.parts] == [1, 1, 1]


def test_files_in_an_inner_list_are_one_capture(tmp_path: Path) -> None:
    frames = varied()
    halves = [tmp_path / "first.pcap", tmp_path / "second.pcap"]
    halves[0].write_bytes(capture(*frames[:300]).getvalue())
    shifted = bytearray(capture(*frames[300:]).getvalue())
    pos = 24
    while pos < len(shifted):  # a minute later
        seconds, _, size = struct.unpack_from("<III", shifted, pos)
        struct.pack_into("<I", shifted, pos, seconds + 60)
        pos += 16 + size
    halves[1].write_bytes(bytes(shifted))
    assert run([halves], Factory, parts=2, workers=2).results == alone(halves)


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


@pytest.mark.parametrize("parts", [1, 3])
def test_a_failing_handler_is_reported_with_the_file_and_the_packet(mixed: Path, parts: int) -> None:
    guilty = [number for number, packet in enumerate(varied(), 1) if b"number 7 " in packet]
    with pytest.raises(PartsFailed, match="no more") as caught:
        run(mixed, FailingFactory, parts=parts, workers=2)
    outcome = caught.value.outcome
    (failure,) = outcome.failures
    assert (failure.source, failure.packet, failure.parts) == (mixed, guilty[0], parts)
    assert "RuntimeError: no more" in failure.trace
    lost = Share(failure.part, parts)
    kept = [row for row in alone(mixed) if not lost.owns(key_of(row[0]))]
    assert [row for row in outcome.results if not lost.owns(key_of(row[0]))] == kept


def key_of(flow: str) -> bytes:
    from ipaddress import ip_address

    ends = [end.strip().rpartition(":") for end in flow.replace("->", ">").split(">")]
    raw = b"".join(ip_address(address.strip("[] ")).packed for address, _, _ in ends)
    return raw + b"".join(int(port).to_bytes(2, "big") for _, _, port in ends)


def test_a_worker_that_dies_costs_its_part_only(mixed: Path) -> None:
    outcome = run(mixed, DyingFactory, parts=3, workers=2, failures="return")
    (failure,) = outcome.failures
    lost = Share(failure.part, 3)
    assert failure.packet is None and outcome.parts[failure.part].statistics is None
    assert outcome.results == [row for row in alone(mixed) if not lost.owns(key_of(row[0]))]


def test_a_capture_that_cannot_be_read_costs_the_others_nothing(mixed: Path) -> None:
    missing = mixed.with_name("missing.pcap")
    outcome = run([missing, mixed], Factory, workers=2, failures="return")
    assert outcome.results == alone(mixed)
    assert [(failure.source, failure.packet) for failure in outcome.failures] == [(missing, 0)]
    assert "missing.pcap, part 1 of 1: at packet 0: CaptureError" in str(outcome.failures[0])


def test_the_bounds_are_divided_among_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "open.pcap"
    frames = [frame(("10.0.0.1", port), ("10.0.0.2", 80), 99, 0, SYN) for port in range(1000, 1064)]
    path.write_bytes(capture(*frames).getvalue())
    outcome = run(path, Factory, parts=4, workers=4, limits=Limits(max_connections=32))
    for report in outcome.parts:
        assert report.statistics is not None
        kept = report.statistics.connections_opened - report.statistics.connections_evicted
        assert kept == 8
    assert sum(row[3] == "evicted" for row in outcome.results) == 32


def wrong() -> Iterator[Tuple[str, Callable[[Path], Any]]]:
    yield "worker", lambda path: run(path, Factory, workers=0)
    yield "parts", lambda path: run(path, Factory, parts=0)
    yield "failures", lambda path: run(path, Factory, failures="ignore")
    yield "share", lambda path: run(["-"], Factory)
    yield "path", lambda path: run([io.BytesIO()], Factory)
    yield "overlap", lambda path: run(path, Factory, overlap="nobody's")
    yield "top level", lambda path: run(path, lambda emit: Factory(emit))
    yield "fewer", lambda path: run(path, Factory, workers=3, limits=Limits(max_connections=2))
    yield "linktype", lambda path: run(path, Factory, linktype=101)


@pytest.mark.parametrize("message,call", list(wrong()), ids=[message for message, _ in wrong()])
def test_arguments_that_cannot_work_are_refused_before_anything_is_read(
    tmp_path: Path, message: str, call: Callable[[Path], Any]
) -> None:
    with pytest.raises(UsageError, match=message):
        call(tmp_path / "never-read.pcap")


def test_no_source_gives_no_result() -> None:
    outcome = run([], Factory)
    assert (outcome.results, outcome.failures, outcome.parts) == ([], [], [])


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
