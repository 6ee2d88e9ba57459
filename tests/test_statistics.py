"""Each number of `Statistics` counts what its docstring says: a run in which all of them differ from nothing."""

from __future__ import annotations

from typing import Any, Dict

from support.frames import tcp_frame
from support.recorder import Recorder, Recording
from tcpstitch import Assembler, Chunk, Limits, Segment, Statistics

SERVER = ("10.0.0.2", 80)
ARP = bytes(12) + b"\x08\x06" + bytes(46)
FRAGMENT = bytes.fromhex("020000000001020000000002 0800 4500001c0001200140060000 0a000001 0a000002") + b"fragment"


class Busy:
    """An assembler with narrow bounds, to which client number `who` sends pieces of 100 bytes."""

    def __init__(self) -> None:
        self.recorder = Recorder(self.keep)
        limits = Limits(max_buffered_pages_per_connection=4, max_buffered_pages_total=6, max_connections=3)
        self.assembler = Assembler(self.recorder, limits=limits)

    def keep(self, recording: Recording, chunk: Chunk) -> None:
        if chunk.data[:4] == b"keep":
            chunk.keep_from(0)

    def send(self, who: int, seq: int, data: bytes = b"", flags: str = "A", ack: int = 0) -> None:
        self.assembler.assemble(Segment.make((f"10.0.0.{who}", 40000), SERVER, seq, data, flags=flags, ack=ack), 1.0)

    def behind_holes(self, who: int, count: int) -> None:
        """A SYN and as many pieces, each behind a hole of its own, of 3 996 bytes but for the first, of 4 096."""
        self.send(who, 999, flags="S")
        for number in range(count):
            self.send(who, 1000 + 4096 * (number + 1), b"x" * 100)

    def changes(self, before: Statistics) -> Dict[str, Any]:
        """What is not as it was; slots of slabs only have to add up, and sizes are estimates."""
        now = self.assembler.statistics()
        assert now.pages_used + now.pages_free == now.pages_allocated
        aside = ("pages_free", "pages_allocated", "memory_bytes", "pressure")
        return {
            name: value for name, value in now._asdict().items() if value != getattr(before, name) and name not in aside
        }


def test_every_number_counts_what_it_says() -> None:
    busy = Busy()
    before = busy.assembler.statistics()
    busy.behind_holes(1, 2)
    assert busy.changes(before) == {
        "packets": 3, "segments": 3, "connections": 1, "connections_opened": 1, "connections_peak": 1,
        "pages_used": 2, "pages_peak": 2, "anomalies": {"one_sided": 2},
    }  # fmt: skip

    before = busy.assembler.statistics()
    busy.send(1, 1000 + 4096 * 3, b"x" * 100)
    busy.send(1, 1000 + 4096 * 4, b"x" * 100)  # the fourth page is the bound: the first hole is given up
    assert busy.changes(before) == {
        "packets": 5, "segments": 5, "bytes": 100, "chunks": 1, "gaps": 1, "missing_bytes": 4096,
        "gaps_by_reason": {"page_limit": 1}, "page_limit_hits": 1, "evictions_by_kind": {"page_limit": 1},
        "pages_used": 3, "pages_peak": 4, "anomalies": {"one_sided": 4},
    }  # fmt: skip

    before = busy.assembler.statistics()
    busy.behind_holes(3, 3)  # six pages are all there are
    busy.send(4, 999, flags="S")
    busy.send(4, 1100, b"x" * 100)  # so the connection that was idle longest gives up its next hole
    assert busy.changes(before) == {
        "packets": 11, "segments": 11, "connections": 3, "connections_opened": 3, "connections_peak": 3,
        "bytes": 200, "chunks": 2, "gaps": 2, "missing_bytes": 4096 + 3996,
        "gaps_by_reason": {"page_limit": 1, "total_limit": 1}, "evictions": 1,
        "evictions_by_kind": {"page_limit": 1, "total_limit": 1},
        "pages_used": 6, "pages_peak": 6, "anomalies": {"one_sided": 8},
    }  # fmt: skip

    before = busy.assembler.statistics()
    busy.send(4, 1000, b"keep" * 25)  # fills the hole, and is to be kept with what lies behind it
    assert busy.changes(before) == {
        "packets": 12, "segments": 12, "bytes": 400, "chunks": 4, "pages_used": 5,
        "kept_bytes_dropped": 100, "anomalies": {"one_sided": 9},
    }  # fmt: skip


def test_what_is_not_taken_is_counted_by_its_reason() -> None:
    busy = Busy()
    before = busy.assembler.statistics()
    busy.assembler.assemble(ARP, 1.0)
    busy.assembler.assemble(FRAGMENT, 1.0)
    busy.assembler.assemble(tcp_frame(("10.0.0.9", 1), SERVER, 5, flags="R"), 1.0)  # of no connection
    assert busy.assembler.statistics().fragment_bytes > 8
    assert busy.changes(before) == {
        "packets": 3, "segments": 1, "ignored": 1, "decode_errors": {"not_ip": 1, "fragment": 1}, "fragments": 1,
        "fragment_bytes": busy.assembler.statistics().fragment_bytes,
    }  # fmt: skip


def test_the_bytes_of_incomplete_datagrams_stay_within_their_limit() -> None:
    """Counted with their records; the decoder says how many it gave up."""
    assembler = Assembler(Recorder(), limits=Limits(max_fragment_bytes=1 << 17))
    for number in range(200):
        header = bytes.fromhex("45000594") + number.to_bytes(2, "big") + bytes.fromhex("200140060000 0a000001 0a000002")
        assembler.assemble(FRAGMENT[:14] + header + bytes(1408), 1.0)
        assert assembler.statistics().fragment_bytes <= 1 << 17
    statistics = assembler.statistics()
    assert 50 < statistics.fragments < 100
    assert statistics.decode_errors["fragments_evicted"] == 200 - statistics.fragments
    assert statistics.memory_bytes >= statistics.fragment_bytes > (1 << 17) - 3000


def test_connections_are_counted_from_their_first_packet_to_the_end_of_their_linger() -> None:
    busy = Busy()
    before = busy.assembler.statistics()
    busy.send(1, 999, flags="S")
    busy.send(1, 999, flags="S")
    assert busy.changes(before) == {
        "packets": 2, "segments": 2, "connections": 1, "connections_embryonic": 1, "connections_opened": 1,
        "connections_peak": 1,
    }  # fmt: skip

    busy.send(1, 1000, b"abc")
    before = busy.assembler.statistics()
    busy.send(1, 1000, b"abc")
    busy.send(1, 1003, flags="R")
    assert busy.changes(before) == {
        "packets": 5, "segments": 5, "retransmissions": 1, "anomalies": {"one_sided": 1, "retransmission": 1},
        "connections": 0, "connections_lingering": 1, "connections_completed": 1, "completions_by_reason": {"rst": 1},
    }  # fmt: skip

    before = busy.assembler.statistics()
    for who in (2, 3, 4):  # three are allowed: the one that lingers goes, then the first half-open one
        busy.send(who, 999, flags="S")
    busy.send(5, 999, flags="S")
    assert busy.changes(before) == {
        "packets": 9, "segments": 9, "connections": 3, "connections_embryonic": 3, "connections_lingering": 0,
        "connections_opened": 5, "connections_peak": 3, "connections_completed": 2, "connections_evicted": 1,
        "completions_by_reason": {"rst": 1, "evicted": 1},
        "evictions_by_kind": {"connection_lingering": 1, "connection_embryonic": 1},
    }  # fmt: skip


def test_packets_that_a_live_capture_lost_are_counted_once_for_each_source() -> None:
    class Source:
        dropped = 7

        def __iter__(self) -> Any:
            return iter([(1.0, tcp_frame(("10.0.0.9", 1), SERVER, 5, flags="S"))])

    source, other = Source(), Source()
    assembler = Assembler(Recorder())
    for each in (source, other, source):
        assembler.run(each)
    assembler.watch_drops(other)
    assert assembler.statistics().dropped == 14
    source.dropped = 10
    assert assembler.statistics().dropped == 17


def test_a_snapshot_does_not_change() -> None:
    busy = Busy()
    busy.behind_holes(1, 4)
    taken = busy.assembler.statistics()
    copy = taken._replace(**{name: dict(value) for name, value in taken._asdict().items() if isinstance(value, dict)})
    busy.behind_holes(2, 4)
    busy.assembler.assemble(ARP, 1.0)
    busy.assembler.flush_all()
    assert taken == copy


def test_a_connection_that_the_factory_declined_is_not_opened_and_completes_nothing() -> None:
    class Choosing(Recorder):
        def new(self, flow: Any, segment: Segment, timestamp: float) -> Any:
            return super().new(flow, segment, timestamp) if flow.client.port == 1 else None

    assembler = Assembler(Choosing())
    for port in (1, 2, 3):
        assembler.assemble(tcp_frame(("10.0.0.1", port), SERVER, 999, flags="S"), 1.0)
    now = assembler.statistics()
    assert (now.connections_opened, now.connections_completed, now.connections) == (1, 0, 1)
    assembler.flush_all()
    now = assembler.statistics()
    assert (now.connections_opened, now.connections_completed, now.connections) == (1, 1, 0)
