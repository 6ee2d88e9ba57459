"""Whatever lies on the wire is counted, never raised; whatever a caller gets wrong is said at once."""

from __future__ import annotations

import os
import random
from typing import Iterator

import pytest

from support.frames import CLIENT, CLIENT6, SERVER, SERVER6, md5_option, tcp_frame, timestamps_option
from support.recorder import Recorder
from tcpstitch import Assembler, Limits

PACKETS = int(os.environ.get("TCPSTITCH_FUZZ_PACKETS", "20000"))
LINK_TYPES = (0, 1, 101, 108, 113, 228, 229, 276)
FLAGS = ("S", "SA", "A", "A", "A", "PA", "PAU", "FA", "R", "RA", "", "FSRPAUEC")


def random_bytes(chance: random.Random) -> bytes:
    return bytes(chance.getrandbits(8) for _ in range(chance.choice((0, 1, 13, 14, 20, 34, 40, 54, 60, 200))))


def random_frame(chance: random.Random) -> bytes:
    """A frame of one of a few connections whose fields are plausible but in no order."""
    client, server = (CLIENT, SERVER) if chance.random() < 0.7 else (CLIENT6, SERVER6)
    client = (client[0], client[1] + chance.randrange(8))
    source, destination = (client, server) if chance.random() < 0.6 else (server, client)
    options = chance.choice((b"", b"", timestamps_option(chance.getrandbits(32), 0), md5_option(), b"\x03\x00\xff\x01"))
    return tcp_frame(
        source, destination, chance.choice((0, 2**32 - 500, 2**31)) + chance.randrange(4000),
        chance.choice((b"", b"x", bytes(chance.randrange(1400)))), chance.choice(FLAGS),
        ack=chance.choice((0, chance.getrandbits(32), chance.randrange(4000))),
        window=chance.choice((0, 1, 65535)), options=options, ttl=chance.choice((64, 64, 2)),
        urgent_pointer=chance.choice((0, 1, 5, 65535)), doff=chance.choice((None, None, None, 0, 4, 15)),
        bad_checksum=chance.random() < 0.1,
    )  # fmt: skip


def mutated(chance: random.Random, frame: bytes) -> bytes:
    damaged = bytearray(frame)
    for _ in range(chance.randrange(1, 4)):
        damaged[chance.randrange(len(damaged))] = chance.getrandbits(8)
    if chance.random() < 0.3:
        del damaged[chance.randrange(len(damaged)) :]
    return bytes(damaged)


def traffic(seed: int, count: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        kind = chance.random()
        if kind < 0.15:
            yield random_bytes(chance)
        elif kind < 0.5:
            yield random_frame(chance)
        else:
            yield mutated(chance, random_frame(chance))


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("overlap", ["first", "solaris"])
def test_hostile_packets_never_raise_and_stay_inside_the_bounds(checks: str, overlap: str) -> None:
    chance = random.Random(7)
    recorder = Recorder()
    limits = Limits(5, 20, max_connections=50, page_size=256, max_fragments=8, max_history_bytes_per_connection=64)
    assembler = Assembler(recorder, limits=limits, overlap=overlap, checks=checks)
    timestamp = 1000.0
    for count, packet in enumerate(traffic(11, PACKETS // 4), start=1):
        timestamp += chance.choice((0.0, 0.001, 0.01, 1.0, -0.5))
        assembler.assemble(packet, timestamp)
        if count % 500 == 0:
            assembler.check()
            statistics = assembler.statistics()
            assert statistics.pages_used <= 20
            assert statistics.connections <= 50
            for connection in recorder.connections:
                connection.chunks.clear()
    assembler.flush_all()
    assembler.check()
    statistics = assembler.statistics()
    assert statistics.packets == PACKETS // 4
    assert statistics.pages_used == 0
    assert all(len(connection.completions) == 1 for connection in recorder.connections)
    assert sum(statistics.decode_errors.values()) > 0


@pytest.mark.parametrize("linktype", LINK_TYPES)
def test_every_link_type_survives_random_bytes(linktype: int) -> None:
    assembler = Assembler(Recorder(), linktype=linktype)
    for index, packet in enumerate(traffic(linktype, PACKETS // 20)):
        assembler.assemble(packet, 1000.0 + index / 1000)
    assembler.flush_all()
    assert assembler.statistics().packets == PACKETS // 20


@pytest.mark.parametrize("cut", range(0, 75))
def test_a_frame_cut_anywhere_is_counted_not_raised(cut: int) -> None:
    frame = tcp_frame(CLIENT, SERVER, 1, b"payload of twenty by", options=timestamps_option(1, 0))[:cut]
    assembler = Assembler(Recorder())
    assembler.assemble(frame, 1000.0)
    assembler.flush_all()
    statistics = assembler.statistics()
    assert statistics.packets == 1
    assert statistics.segments + sum(statistics.decode_errors.values()) >= 1
