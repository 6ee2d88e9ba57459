"""Urgent bytes that are taken out of the stream: every other byte comes, and knows its place and its packet."""

from __future__ import annotations

import random
from typing import Any, Dict, List

import pytest

from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Chunk, Limits

ISN, PEER_ISN = 2**32 - 300, 9000


class Talk:
    """A client whose byte at offset n is n % 251, and whose urgent bytes are the last of their segments."""

    def __init__(self, recorder: Recorder, **options: Any) -> None:
        self.assembler = Assembler(recorder, **options)
        self.times: List[float] = []  # by offset
        self.urgent: List[int] = []
        self.now = 0.0
        self.put(CLIENT, SERVER, ISN, flags="S")
        self.put(SERVER, CLIENT, PEER_ISN, flags="SA", ack=ISN + 1)
        self.put(CLIENT, SERVER, ISN + 1, ack=PEER_ISN + 1)

    def put(self, *arguments: Any, **fields: Any) -> None:
        self.now += 1 / 64
        self.assembler.assemble(tcp_frame(*arguments, **fields), self.now)
        self.assembler.check()

    def say(self, size: int, urgent: bool = False, flags: str = "A") -> None:
        start = len(self.times)
        data = bytes((start + index) % 251 for index in range(size))
        self.times += [self.now + 1 / 64] * size
        if urgent:
            self.urgent.append(start + size - 1)
            flags += "U"
        fields: Dict[str, Any] = {"ack": PEER_ISN + 1, "urgent_pointer": size if urgent else 0}
        self.put(CLIENT, SERVER, ISN + 1 + start, data, flags, **fields)
        self.put(SERVER, CLIENT, PEER_ISN + 1, ack=ISN + 1 + start + size)

    def place_of(self, chunk: Chunk, index: int) -> int:
        """The offset of the byte, by its sequence number; the byte and its packet's time are those of that offset."""
        info = chunk.packet_at(index)
        place = (info.seq - ISN - 1) % 2**32
        assert (chunk.data[index], info.timestamp) == (place % 251, self.times[place])
        return place


@pytest.mark.parametrize("delivery", ["arrival", "acked"])
@pytest.mark.parametrize("page_size", [128, 2048])
@pytest.mark.parametrize("seed", range(12))
def test_bytes_kept_before_and_behind_an_urgent_one_keep_their_places(seed: int, page_size: int, delivery: str) -> None:
    """Whatever is kept of which chunk: `offset`, and what `packet_at` says of each byte, are right, and no byte but the
    urgent ones is missing."""
    chance = random.Random(seed)
    taken: List[int] = []
    spliced: List[bool] = []

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        places = [talk.place_of(chunk, index) for index in range(len(chunk.data))]
        assert places == sorted(set(places))
        assert not places or (chunk.offset, chunk.timestamp) == (places[0], talk.times[places[0]])
        few = sum(places[0] < place for place in talk.urgent) < 14 if places else False
        index = chance.choice((0, chance.randrange(len(places) + 1), len(places))) if few else len(places)
        spliced.append(places != list(range(chunk.offset, chunk.offset + len(places))))
        if not chunk.end:
            chunk.keep_from(index)
            del places[index:]
        taken.extend(places)

    talk = Talk(Recorder(on_chunk), urgent="oob", delivery=delivery, limits=Limits(page_size=page_size))
    for _ in range(80):
        talk.say(chance.choice((1, 1, 2, 3, 40, 200)), chance.random() < 0.4)
    talk.say(0, flags="FA")
    assert taken == [place for place in range(len(talk.times)) if place not in talk.urgent]
    assert any(spliced) and talk.assembler.statistics().kept_bytes_dropped == 0


def test_more_urgent_bytes_than_are_remembered_lose_no_other_byte() -> None:
    """Among a hundred in what is kept the newest are known, so the bytes behind them have their places."""
    places: List[int] = []

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        if len(talk.urgent) == 100:
            behind = range(270, 300) if not places else range(len(chunk.data))
            places.extend(chunk.packet_at(index).seq + 2**32 - ISN - 1 & 0xFFFFFFFF for index in behind)
        chunk.keep_from(270 if len(chunk.data) == 300 else 0)

    talk = Talk(recorder := Recorder(on_chunk), urgent="oob")
    for _ in range(100):
        talk.say(4, urgent=True)
    talk.say(20)
    assert [len(chunk.data) for chunk in recorder.chunks[-2:]] == [300, 50]
    known = [place for place in range(360, 420) if place not in talk.urgent]
    assert (places[:30], places[30:], recorder.chunks[-1].offset) == (known[:30], known, 360)
    assert recorder.chunks[-1].data == bytes(place % 251 for place in known)


def test_kept_bytes_in_the_last_chunk_bear_the_time_of_their_packet() -> None:
    """Also where nothing but a FIN brings them again, behind an urgent byte."""

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        if not chunk.end:
            chunk.keep_from(1)

    talk = Talk(recorder := Recorder(on_chunk), urgent="oob")
    talk.say(3, urgent=True)
    talk.say(4, urgent=True)
    first = talk.times[0]
    talk.say(0, flags="FA")
    chunk = recorder.chunks[-1]
    assert chunk.end and [talk.place_of(chunk, index) for index in range(len(chunk.data))] == [3, 4, 5]
    assert first < chunk.timestamp == talk.times[3]


@pytest.mark.parametrize("options", [{"urgent": "oob"}, {"checks": "strict"}])
def test_a_retransmission_over_an_urgent_byte_conflicts_only_where_it_differs(options: Dict[str, Any]) -> None:
    """The byte that was taken out is compared as well, since the receiver has it."""
    recorder = Recorder()
    talk = Talk(recorder, limits=Limits(max_history_bytes_per_connection=400), **options)
    talk.say(4, urgent=True)
    talk.say(4)
    versions = (b"\0\1\2\3\4\5\6\7", b"\0\1\2\7\4\5\6\7", b"\0\1\7\3\4\5\6\7", b"\0\1\2\3\4\5\6\7")
    for version in versions:
        talk.put(CLIENT, SERVER, ISN + 1, version, ack=PEER_ISN + 1)
    conflicts = [anomaly for anomaly in recorder.only.anomalies if anomaly.kind == "overlap_conflict"]
    assert [(anomaly.offset, anomaly.detail["old"]) for anomaly in conflicts] == [(3, b"\3"), (2, b"\2")]
    assert recorder.only.data() == b"\0\1\2\4\5\6\7"


@pytest.mark.parametrize("acked, text", [(0, "abcde"), (2, "abcdef")], ids=["in flight", "acknowledged"])
@pytest.mark.parametrize("sent_again", [b"", b"a"])
def test_the_pointer_of_what_was_acknowledged_before_marks_nothing(sent_again: bytes, acked: int, text: str) -> None:
    """Linux 6.18 drops such a segment before it looks at the pointer, and its application reads all six."""
    recorder = Recorder()
    ours, answers = {"ack": PEER_ISN + 1}, {"ack": ISN + 1 + acked}
    with Assembler(recorder, checks="strict") as assembler:
        for number, frame in enumerate((
            tcp_frame(CLIENT, SERVER, ISN, flags="S"),
            tcp_frame(SERVER, CLIENT, PEER_ISN, flags="SA", ack=ISN + 1),
            tcp_frame(CLIENT, SERVER, ISN + 1, b"ab", **ours),
            tcp_frame(SERVER, CLIENT, PEER_ISN + 1, **answers),
            tcp_frame(CLIENT, SERVER, ISN + 1, sent_again, flags="UA", urgent_pointer=6, **ours),
            tcp_frame(CLIENT, SERVER, ISN + 3, b"cdef", **ours),
        )):  # fmt: skip
            assembler.assemble(frame, float(number))
    assert recorder.only.text() == text
