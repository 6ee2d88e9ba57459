"""`Chunk.packet_at` names the packet that carried the byte that was delivered."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest

from support.both_ways import opened, packet
from support.frames import CLIENT, SERVER, fast_open_option, tcp_frame
from support.recorder import Recorder, Recording
from tcpstitch import Assembler, Segment, Timeouts
from test_delivery import EVERY_POLICY, Wire


class Noting(Wire):
    """Remembers the packets of the stream: when each came, where it lies, and its bytes."""

    def __init__(self, isn: int, **options: Any) -> None:
        super().__init__(isn, **options)
        self.sent: List[Tuple[float, int, bytes]] = []

    def send(self, start: int, data: bytes, flags: str = "A") -> None:
        super().send(start, data, flags)
        self.sent.append((self.now, start, data))

    def carried(self) -> List[int]:
        """How many bytes each chunk has, once it is known of each that the packet it names carried it."""
        for chunk in self.only.chunks:
            for index, byte in enumerate(chunk.data):
                place = chunk.offset + index
                named = [(start, data) for now, start, data in self.sent if now == chunk.packet_at(index).timestamp]
                assert [data[place - start] for start, data in named if start <= place < start + len(data)] == [byte]
        return [len(chunk.data) for chunk in self.only.chunks]

    @property
    def only(self) -> Recording:
        return self.recorder.only


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
def test_what_waits_or_is_kept_over_several_pages_knows_its_packets(delivery: str) -> None:
    """One chunk of four packets goes back into pages, whose borders are not theirs."""
    wire = Noting(500, delivery=delivery)
    if delivery == "arrival":
        wire.recorder.on_chunk = lambda recording, chunk: chunk.keep_from(0)
    for place, size in ((1000, 1460), (2460, 1460), (3920, 1460), (0, 1000), (5380, 10)):
        wire.send(place, bytes((place + size) % 251 for _ in range(size)))
    wire.ack(5390)
    wire.assembler.flush_all()
    assert max(wire.carried()) == 5390


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_each_byte_of_an_overlap_names_the_packet_whose_version_was_delivered(policy: str, delivery: str) -> None:
    """Versions that differ: in front of, inside, over and behind what waits, and over the end of that."""
    for first in ((300, 200), (250, 400), (350, 50), (300, 50), (450, 100), (0, 320)):
        wire = Noting(500, delivery=delivery, overlap=policy)
        for number, (place, size) in enumerate([(300, 200), first, (320, 60), (420, 200), (0, 340), (340, 500)]):
            wire.send(place, bytes([65 + number]) * size)
        wire.ack(840)
        wire.assembler.flush_all()
        assert sum(wire.carried()) == 840


def test_data_sent_again_in_another_version_does_not_look_younger_than_it_is() -> None:
    """A hole is given up by the age of what waits behind it, whichever version of that wins."""
    wire = Wire(500, delivery="arrival", overlap="last", timeouts=Timeouts(gap=5.0))
    wire.send(100, b"a" * 100)
    for number in range(12):
        wire.now += 1.0
        wire.send(100, bytes([66 + number]) * 100)
    assert [(gap.offset, gap.length, gap.reason) for gap in wire.recorder.only.gaps] == [(0, 100, "aged")]
    assert wire.recorder.only.gaps[0].timestamp < 1007


@pytest.mark.parametrize(
    "checks, fields", [("lenient", {"bad_checksum": True}), ("strict", {"ttl": 50})], ids=["checksum", "ttl"]
)
def test_data_set_aside_bears_the_time_of_its_own_packet_once_the_receiver_confirms_it(
    checks: str, fields: Dict[str, Any]
) -> None:
    """What confirms it comes later, and is another packet."""
    recorder = Recorder()
    packets = [
        *opened(),
        packet("c", "A", 0, size=1000),
        packet("s", "A", 0, ack=1000),
        packet("c", "A", 1000, size=10, **fields),
        packet("s", "A", 0, ack=1010),
    ]
    with Assembler(recorder, checks=checks) as assembler:
        for second, fields in enumerate(packets):
            assembler.assemble(tcp_frame(**fields), float(second))
        chunk = recorder.only.chunks[-1]
        assert (chunk.offset, len(chunk), chunk.timestamp) == (1000, 10, 5.0)
        assert {chunk.packet_at(index).timestamp for index in range(10)} == {5.0}


def test_data_set_aside_to_the_end_bears_the_time_of_its_own_packet() -> None:
    """Nobody confirmed it, the end of the input delivers it."""
    recorder = Recorder()
    packets = [*opened(), packet("c", "A", 0, size=100), packet("c", "A", 100, size=10, ttl=50), packet("s", "A", 0)]
    with Assembler(recorder, checks="strict") as assembler:
        for second, fields in enumerate(packets):
            assembler.assemble(tcp_frame(**fields), 100.0 + 0.125 * second)
    assert [(chunk.offset, chunk.timestamp) for chunk in recorder.only.chunks] == [(0, 100.375), (100, 100.5)]


def test_a_connection_that_replaces_another_begins_with_the_time_of_its_syn() -> None:
    """It is believed in with the SYN/ACK; the data on the SYN came before that."""
    recorder = Recorder()
    packets = [
        *opened(),
        packet("c", "A", 0, size=100),
        packet("c", "S", 500_000, size=20, options=fast_open_option()),
        packet("s", "SA", 700_000, ack=500_021),
    ]
    with Assembler(recorder) as assembler:
        for second, fields in enumerate(packets):
            assembler.assemble(tcp_frame(**fields), float(second))
    old, new = recorder.connections
    assert (old.completions, new.opened_at) == (["replaced"], 4.0)
    assert [(anomaly.kind, anomaly.timestamp) for anomaly in new.anomalies] == [("tuple_reuse", 4.0)]
    assert [(chunk.data, chunk.timestamp) for chunk in new.chunks] == [(packets[4]["payload"], 4.0)]


def test_data_on_a_syn_that_waits_for_its_answer_bears_the_time_of_the_syn() -> None:
    """Strict checks take it once the SYN/ACK covers it."""
    recorder = Recorder()
    packets = [packet("c", "S", -1, size=20, options=fast_open_option()), packet("s", "SA", -1, ack=20)]
    with Assembler(recorder, checks="strict") as assembler:
        for second, fields in enumerate(packets):
            assembler.assemble(tcp_frame(**fields), 7.0 + second)
        assert [(len(chunk), chunk.timestamp) for chunk in recorder.only.chunks] == [(20, 7.0)]


def test_segments_that_share_a_page_keep_the_contexts_of_their_maker() -> None:
    """In front of, behind and between what is there already, and over it."""
    recorder = Recorder()
    pieces = [(100, 10), (120, 10), (110, 10), (103, 4), (90, 10), (120, 2)]
    contexts = [*range(9), None, "last"]
    far = [(place, 100) for place in (20_000, 30_000, 40_000, 50_000)]  # each takes a page of its own
    with Assembler(recorder, overlap="last") as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, 999, flags="S"), 1.0)
        for number, (place, size) in enumerate([*far, *pieces, (0, 90)]):
            segment = Segment.make(CLIENT, SERVER, 1000 + place, bytes([number]) * size, context=contexts[number])
            assembler.assemble(segment, 2.0 + number)
        chunks = recorder.only.chunks
        assert sum(map(len, chunks)) == 130
        for chunk in chunks:
            for index, number in enumerate(chunk.data):
                assert chunk.packet_at(index)[::2] == (2.0 + number, contexts[number])
