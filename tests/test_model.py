"""The stream against an obviously right model: a dict from offset to byte that shares no code with the library."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Tuple

from hypothesis import given, settings
from hypothesis import strategies as st

from support.frames import CLIENT, SERVER
from support.recorder import C2S, Recorder, Recording
from tcpstitch import Assembler, Gap, Segment

POLICIES = ("first", "last", "bsd", "linux", "old-linux", "solaris")
STREAM = bytes((index * 131 + index // 256 * 17 + 7) % 256 for index in range(2000))

Pieces = List[Tuple[int, bytes]]

initial_seqs = st.one_of(
    st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 2**32 - 11]),
    st.integers(2**32 - 200, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
ranges = st.tuples(st.integers(0, 120), st.integers(1, 40))
honest: st.SearchStrategy[Pieces] = st.lists(ranges, max_size=30).map(
    lambda found: [(start, STREAM[start : start + length]) for start, length in found]
)
conflicting: st.SearchStrategy[Pieces] = st.lists(ranges, max_size=20).map(
    lambda found: [(start, bytes([65 + index]) * length) for index, (start, length) in enumerate(found)]
)


class Model(NamedTuple):
    """What must come out: the byte at each offset, None where there is none, and the offset at the end."""

    stream: List[object]

    @classmethod
    def of(cls, pieces: Pieces, keep_old: bool) -> Model:
        held: Dict[int, int] = {}
        final = 0  # below it everything was delivered and stays
        for start, data in pieces:
            for offset, byte in enumerate(data, start=start):
                if offset not in held or (offset >= final and not keep_old):
                    held[offset] = byte
            while final in held:
                final += 1
        return cls([held.get(offset) for offset in range(max(held, default=-1) + 1)])


def run(pieces: Pieces, initial_seq: int, policy: str = "first", syn: bool = True) -> Recording:
    recorder = Recorder()
    with Assembler(recorder, overlap=policy) as assembler:
        if syn:
            assembler.assemble(Segment.make(CLIENT, SERVER, initial_seq, flags="S"), 1000.0)
        for index, (start, data) in enumerate(pieces, start=1):
            segment = Segment.make(CLIENT, SERVER, initial_seq + 1 + start, data)
            assembler.assemble(segment, 1000.0 + index / 1000)
            assembler.check()
    return recorder.only


def stream_of(recording: Recording) -> List[object]:
    stream: List[object] = []
    for event in recording.events[C2S]:
        stream.extend([None] * event.length if isinstance(event, Gap) else list(event))
    return stream


def assert_contiguous(recording: Recording) -> None:
    """Chunks and gaps follow each other without a hole and without going back: nothing delivered ever changes."""
    position = 0
    pending = 0
    chunks = iter(recording.chunks)
    for event in recording.events[C2S]:
        if isinstance(event, Gap):
            assert event.offset == position
            assert event.length > 0
            position += event.length
            pending += event.length
            continue
        chunk = next(chunks)
        assert chunk.offset == position
        assert chunk.skip == pending
        pending = 0
        position += len(event)


@settings(max_examples=200, deadline=None)
@given(honest, initial_seqs)
def test_every_policy_gives_the_model_stream_when_segments_agree(pieces: Pieces, initial_seq: int) -> None:
    expected = Model.of(pieces, keep_old=True).stream
    for policy in POLICIES:
        recording = run(pieces, initial_seq, policy)
        assert stream_of(recording) == expected
        assert "overlap_conflict" not in recording.kinds
        assert_contiguous(recording)


@settings(max_examples=300, deadline=None)
@given(conflicting, initial_seqs)
def test_first_keeps_the_earliest_byte(pieces: Pieces, initial_seq: int) -> None:
    assert stream_of(run(pieces, initial_seq, "first")) == Model.of(pieces, keep_old=True).stream


@settings(max_examples=300, deadline=None)
@given(conflicting, initial_seqs)
def test_last_keeps_the_latest_byte_that_came_before_delivery(pieces: Pieces, initial_seq: int) -> None:
    assert stream_of(run(pieces, initial_seq, "last")) == Model.of(pieces, keep_old=False).stream


@settings(max_examples=200, deadline=None)
@given(conflicting, initial_seqs, st.sampled_from(POLICIES))
def test_bytes_and_gaps_add_up_to_the_final_offset(pieces: Pieces, initial_seq: int, policy: str) -> None:
    recording = run(pieces, initial_seq, policy)
    delivered = sum(len(chunk) for chunk in recording.chunks)
    missing = sum(gap.length for gap in recording.gaps)
    assert delivered + missing == max((start + len(data) for start, data in pieces), default=0)
    assert_contiguous(recording)


def owner_by_rule(policy: str, claims: List[Tuple[int, int, int]]) -> int:
    """The arrival number of the segment that owns a byte; `claims` are (start, end, arrival) of all that carry it."""
    rules = {
        "bsd": lambda claim: (claim[0], claim[2]),
        "linux": lambda claim: (claim[0], -claim[1], claim[2]),
        "old-linux": lambda claim: (claim[0], -claim[1], -claim[2]),
        "solaris": lambda claim: (-claim[1], claim[0], -claim[2]),
    }
    return min(claims, key=rules[policy])[2]


@settings(max_examples=300, deadline=None)
@given(conflicting, initial_seqs, st.sampled_from(["bsd", "linux", "old-linux", "solaris"]))
def test_a_policy_is_an_order_on_whole_segments(pieces: Pieces, initial_seq: int, policy: str) -> None:
    """Byte 0 arrives last, so that every byte is still in dispute when it is delivered."""
    sent = [(start + 1, data) for start, data in pieces] + [(0, b"0")]
    expected: List[object] = []
    for offset in range(max(start + len(data) for start, data in sent)):
        claims = [
            (start, start + len(data), arrival)
            for arrival, (start, data) in enumerate(sent)
            if start <= offset < start + len(data)
        ]
        expected.append(sent[owner_by_rule(policy, claims)][1][0] if claims else None)
    assert stream_of(run(sent, initial_seq, policy)) == expected


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 12), initial_seqs)
def test_a_fin_ends_the_stream_at_its_own_place(order: List[int], fin_place: int, initial_seq: int) -> None:
    """Twelve segments and a FIN in any order of arrival: all bytes, then exactly one end."""
    pieces = [(index * 10, STREAM[index * 10 : index * 10 + 10]) for index in order]
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, initial_seq, flags="S"), 1000.0)
        packets = [Segment.make(CLIENT, SERVER, initial_seq + 1 + start, data) for start, data in pieces]
        packets.insert(fin_place, Segment.make(CLIENT, SERVER, initial_seq + 121, flags="FA"))
        for index, packet in enumerate(packets, start=1):
            assembler.assemble(packet, 1000.0 + index / 1000)
        assert C2S in recorder.only.ended
    assert recorder.only.data() == STREAM[:120]
    assert [chunk.end for chunk in recorder.only.chunks].count(True) == 1
    assert recorder.only.chunks[-1].end


@settings(max_examples=200, deadline=None)
@given(honest.filter(bool), initial_seqs)
def test_a_stream_without_its_start_still_puts_each_byte_at_its_place(pieces: Pieces, initial_seq: int) -> None:
    """Without a SYN the lowest bytes may come too late to count; what is delivered is right, ordered and once."""
    recording = run(pieces, initial_seq, syn=False)
    position = -1
    for chunk in recording.chunks:
        if not chunk.data:
            continue
        place = (chunk.packet_at(0).seq - initial_seq - 1) % 2**32
        assert place >= position
        assert chunk.data == STREAM[place : place + len(chunk.data)]
        position = place + len(chunk.data)
    assert recording.chunks[0].skip == -1
    end = max(start + len(data) for start, data in pieces)
    assert position == end
