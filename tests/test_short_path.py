"""The short path does what the rules do: a frame as bytes may take it, the same packet as a `Segment` never does."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.both_ways import calls
from support.frames import CLIENT, CLIENT6, SERVER, SERVER6, md5_option, tcp_frame, timestamps_option
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Limits, PacketDecoder, StreamFactory, Timeouts
from tcpstitch.capture import make_packet

SYN_OPTIONS = (
    b"",
    b"\x02\x04\x05\xb4",
    b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\x09\0\0\0\0\x01\x03\x03\x07",
    b"\x01\x03\x03\x02",
    md5_option(),
    b"\x03\x00\x00\x00",
)

# What may be done to the packets of an orderly connection: (position, change).
changes = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.sampled_from(["drop", "double", "swap", "ttl", "checksum", "window", "flag", "ack", "seq", "stamp", "grow"]),
        st.integers(0, 255),
    ),
    max_size=5,
)

# Who speaks, and what: bytes that can be told apart, tiny and large.
pieces = st.lists(
    st.tuples(st.booleans(), st.builds(lambda size, first: bytes((first + i) & 255 for i in range(size)),
                                       st.sampled_from([1, 2, 64, 65, 400, 1460, 3000]), st.integers(0, 255))),
    max_size=9,
)  # fmt: skip


class Talk:
    """An orderly connection as a list of packets in the form of arguments for `tcp_frame`."""

    def __init__(
        self, version: int, isn: int, options: Tuple[bytes, bytes], pieces: List[Tuple[bool, bytes]], port: int = 0
    ) -> None:
        (client, client_port), server = (CLIENT, SERVER) if version == 4 else (CLIENT6, SERVER6)
        self.ends = ((client, client_port + port), server)
        self.seq = [isn, isn ^ 0x5A5A5A5A]
        self.stamped = all(b"\x08\x0a" in option for option in options)
        self.packets: List[Dict[str, Any]] = []
        self.add(0, "S", options=options[0])
        self.add(1, "SA", options=options[1])
        self.add(0, "A")
        for number, (from_client, payload) in enumerate(pieces):
            self.add(1 - from_client, "PA", payload)
            if number % 2 == 0:
                self.add(from_client, "A")
        self.add(0, "FA")
        self.add(1, "A")
        self.add(1, "FA")
        self.add(0, "A")

    def add(self, side: int, flags: str, payload: bytes = b"", options: bytes = b"") -> None:
        if "S" not in flags and self.stamped:
            options = timestamps_option(10 + len(self.packets), 5)
        self.packets.append(
            {
                "source": self.ends[side], "destination": self.ends[1 - side], "seq": self.seq[side], "flags": flags,
                "ack": self.seq[1 - side] if "A" in flags else 0, "payload": payload, "options": options, "ttl": 64,
                "window": 8000, "bad_checksum": False,
            }  # fmt: skip
        )
        self.seq[side] += len(payload) + ("S" in flags) + ("F" in flags)


def change(packets: List[Dict[str, Any]], position: int, what: str, value: int) -> None:
    position %= len(packets)
    packet = packets[position] = dict(packets[position])
    if what == "drop":
        del packets[position]
    elif what == "double":
        packets.insert(position, packet)
    elif what == "swap":
        packets.insert((position + 1 + value % 3) % len(packets), packets.pop(position))
    elif what == "ttl":
        packet["ttl"] = value
    elif what == "checksum":
        packet["bad_checksum"] = True
    elif what == "window":
        packet["window"] = value % 3
    elif what == "flag":
        packet["flags"] = "".join(sorted({*packet["flags"], "FSRPAUEC"[value % 8]}))
    elif what in ("ack", "seq"):
        packet[what] += value - 128
    elif what == "stamp":
        packet["options"] = timestamps_option(value, 0)
    elif what == "grow":
        packet["payload"] += b"+" * (value % 80)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.sampled_from([0, 1, 5000, 2**32 - 1, 2**32 - 11]),
    st.tuples(st.sampled_from(SYN_OPTIONS), st.sampled_from(SYN_OPTIONS)),
    pieces,
    changes,
    st.sampled_from(
        [
            {},
            {"start": "syn"},
            {"overlap": "last"},
            {"overlap": "solaris"},
            {"checks": "strict"},
            {"checks": "strict", "overlap": "solaris"},
            {"checks": "strict", "start": "syn", "overlap": "linux-kernel"},
            {"timeouts": Timeouts(acknowledged=0.003)},
            {"timeouts": Timeouts(acknowledged=None)},
            {"limits": Limits(max_buffered_pages_per_connection=5)},
            {"limits": Limits(max_buffered_pages_total=7, page_size=512)},
        ]
    ),
)
@example(4, 0, (b"", b""), [(True, b"1"), (True, b"2")], [(4, "flag", 1), (15, "grow", 1), (16, "drop", 0)], {})
@example(4, 0, (b"", b""), [(False, b"1"), (False, b"2"), (False, b"3")], [(4, "checksum", 0), (4, "grow", 1)], {})
@example(4, 0, (b"", b""), [(True, b"1"), (False, b"2"), (False, b"3")], [(4, "ttl", 67), (5, "flag", 0)], {})
@example(4, 0, (SYN_OPTIONS[2], SYN_OPTIONS[2]), [(True, b"x" * 90)], [], {})
def test_bytes_and_segments_lead_to_the_same_calls(
    version: int,
    isn: int,
    options: Tuple[bytes, bytes],
    pieces: List[Tuple[bool, bytes]],
    alterations: List[Tuple[int, str, int]],
    settings_of_assembler: Dict[str, Any],
) -> None:
    """Whatever happens to an orderly connection, the handlers hear the same from frames as from segments."""
    talk = Talk(version, isn, options, pieces)
    for alteration in alterations:
        if talk.packets:
            change(talk.packets, *alteration)
    frames = [tcp_frame(**packet) for packet in talk.packets]
    decoder = PacketDecoder()
    segments = [segment for frame in frames for segment in decoder.decode(frame)]
    assert calls(frames, settings_of_assembler) == calls(segments, settings_of_assembler)


# Data behind holes, holes filled from both ends, doubles, losses: for each segment, who sends it, its size, how many
# packets later it comes (-1: never), and how many later it comes again (0: it does not).
disorder = st.lists(
    st.tuples(
        st.sampled_from([True, True, True, False]),
        st.sampled_from([65, 100, 700, 1460, 3000, 20]),
        st.sampled_from([0, 0, 0, 1, 2, 3, 5, 9, 20, -1]),
        st.sampled_from([0, 0, 0, 0, 0, 1, 4, 12]),
    ),
    min_size=3,
    max_size=30,
)


def on_the_wire(packets: List[Any], late: Dict[int, Tuple[int, int]]) -> List[Any]:
    """The packets in the order in which they come, some late, some twice, some never."""
    come = []
    for place, packet in enumerate(packets):
        delay, again = late.get(place, (0, 0))
        if delay >= 0:
            come.append((place + delay + 0.5 * (delay > 0), place, packet))
        if again:
            come.append((place + again + 0.7, place, packet))
    return [packet for _, _, packet in sorted(come, key=lambda item: item[:2])]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.sampled_from([0, 5000, 2**32 - 2000]),
    st.sampled_from([SYN_OPTIONS[0], SYN_OPTIONS[0], SYN_OPTIONS[2]]),
    st.lists(disorder, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([0.0, 0.0001, 0.001, 0.03, 0.4]),
    st.one_of(st.just((0, "")), st.tuples(st.integers(1, 20), st.sampled_from(["fail", "keep", "stop"]))),
    changes,
    st.sampled_from(
        [
            {},
            {},
            {"overlap": "last"},
            {"overlap": "solaris"},
            {"overlap": "linux-kernel"},
            {"checks": "strict"},
            {"checks": "strict", "overlap": "last"},
            {"timeouts": Timeouts(acknowledged=0.003)},
            {"timeouts": Timeouts(acknowledged=0.0)},
            {"timeouts": Timeouts(acknowledged=None, gap=0.9)},
            {"limits": Limits(max_buffered_pages_per_connection=5)},
            {"limits": Limits(max_buffered_pages_per_connection=9, page_size=256)},
            {"limits": Limits(max_buffered_pages_total=7, page_size=512)},
            {"limits": Limits(max_buffered_pages_total=12)},
        ]
    ),
)
@example(4, 0, b"", [[(True, 65, 0, 4), (True, 65, 0, 0), (True, 65, 0, 0)]], False, 0.0, (0, ""), [(0, "ttl", 0)], {})
@example(6, 0, b"", [[(True, 65, 0, 4), (True, 65, 0, 0), (True, 65, 0, 0)]], False, 0.0, (0, ""), [(0, "ttl", 0)], {})
def test_disorder_leads_to_the_same_calls(
    version: int,
    isn: int,
    options: bytes,
    connections: List[List[Tuple[bool, int, int, int]]],
    in_turn: bool,
    step: float,
    unruly: Tuple[int, str],
    alterations: List[Tuple[int, str, int]],
    settings_of_assembler: Dict[str, Any],
) -> None:
    """Late, lost and doubled data of several connections at a time: the same from frames as from segments."""
    wires = []
    for number, segments in enumerate(connections):
        pieces = [
            (mine, bytes((place + i) & 255 for i in range(size))) for place, (mine, size, *_) in enumerate(segments)
        ]
        talk = Talk(version, isn + number, (options, options), pieces, number)
        data = [place for place, packet in enumerate(talk.packets) if packet["payload"]]
        late = {place: (delay, again) for place, (_, _, delay, again) in zip(data, segments)}
        for position, what, value in alterations if not number else ():  # behind the handshake
            change(talk.packets, 3 + position % (len(talk.packets) - 3), what, value)
        wires.append(on_the_wire(talk.packets, late))
    if in_turn:
        wire = [wire[place] for place in range(max(map(len, wires))) for wire in wires if place < len(wire)]
    else:
        wire = [packet for wire in wires for packet in wire]
    frames = [tcp_frame(**packet) for packet in wire]
    decoder = PacketDecoder()
    decoded = [segment for frame in frames for segment in decoder.decode(frame)]
    assert calls(frames, settings_of_assembler, step, unruly) == calls(decoded, settings_of_assembler, step, unruly)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("size", [0, 1])
def test_what_looks_like_a_keep_alive_is_judged_alike_whatever_path_came_before(
    size: int, acknowledged: bool, over: bool
) -> None:
    """What the short path noted of acknowledgements counts; behind a FIN, whose number is the last, nothing is one."""
    talk = Talk(4, 7, (b"", b""), [(True, b"question")])
    data = talk.packets[3]
    packets = [*talk.packets[: 4 + acknowledged], *((talk.packets[5], talk.packets[7]) if over else ())]
    probe = {**data, "seq": data["seq"] + 7, "payload": b"?" * size}
    decoder = PacketDecoder()
    frames = [tcp_frame(**packet) for packet in [*packets, probe]]
    for form in frames, [segment for frame in frames for segment in decoder.decode(frame)]:
        recorder = Recorder()
        assembler = Assembler(recorder)
        for number, packet in enumerate(form):
            assembler.assemble(packet, 1.0 + number)
        assert recorder.only.completions == ["fin"] * over
        if acknowledged and not over:
            assert recorder.only.kinds == {"keepalive"}
        else:
            assert recorder.only.kinds == ({"retransmission"} if size else set())


def damage(frames: List[bytes], position: int, how: str, place: int, value: int) -> None:
    """Change one frame behind its link-layer addresses, or put a changed copy of it before it."""
    position %= len(frames)
    frame = bytearray(frames[position])
    place = min(12 + place, len(frame) - 1)
    if how == "cut":
        del frame[place:]
    elif how == "pad":
        frame += bytes(value % 20)
    elif how == "type":
        frame[12:14] = ((0x0800, 0x86DD, 0x8100, 0x0806, 0x08DD, 0x8864)[value % 6]).to_bytes(2, "big")
    else:
        frame[place] = value
    if how != "cut" and value & 1:
        frames[position] = bytes(frame)
    else:
        frames.insert(position, bytes(frame))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.sampled_from([b"", b"\x81\0\0\5", b"\x88\xa8\0\5", b"\x81\1\0\5", b"\x81\0\x86\xdd", b"\x81\0\x08\0"]),
    st.sampled_from([SYN_OPTIONS[0], SYN_OPTIONS[2]]),
    pieces,
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["byte", "byte", "cut", "pad", "type"]), st.integers(0, 70),
                  st.integers(0, 255)),
        max_size=3,
    ),
)  # fmt: skip
@example(4, b"", SYN_OPTIONS[2], [], [(2, "byte", 46, 0x90)])
@example(4, b"\x81\0\0\5", SYN_OPTIONS[0], [(False, b"\0"), (True, b"\0")], [(5, "byte", 34, 0)])
def test_damaged_frames_lead_to_the_calls_that_they_lead_to_behind_another_header(
    version: int,
    tag: bytes,
    options: bytes,
    pieces: List[Tuple[bool, bytes]],
    alterations: List[Tuple[int, str, int, int]],
) -> None:
    """Ethernet, which may take the short path, and Linux cooked capture, which never does, lead to the same."""
    talk = Talk(version, 7, (options, options), pieces)
    frames = [frame[:12] + tag + frame[12:] for frame in (tcp_frame(**packet) for packet in talk.packets)]
    for alteration in alterations:
        damage(frames, *alteration)
    cooked = [make_packet(113, bytes(14) + frame[12:]) for frame in frames]
    assert calls(frames, {}) == calls(cooked, {})


def test_an_orderly_connection_is_delivered_whole() -> None:
    """The comparison above compares something: both directions arrive, and the end is heard once."""
    talk = Talk(4, 7, (SYN_OPTIONS[2], SYN_OPTIONS[2]), [(True, b"question"), (False, b"answer")])
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for number, packet in enumerate(talk.packets):
            assembler.assemble(tcp_frame(**packet), float(number) / 10)
        assert recorder.only.completions == ["fin"]
    assert recorder.only.data(C2S) == b"question" and recorder.only.data(S2C) == b"answer"
    assert recorder.only.ended == {C2S, S2C} and recorder.only.anomalies == []


def test_a_gap_given_up_at_the_end_bears_the_time_of_the_last_packet() -> None:
    """Also where that packet took the short path."""
    talk = Talk(4, 7, (SYN_OPTIONS[0], SYN_OPTIONS[0]), [(True, b"a" * 100)])
    hole = {**talk.packets[3], "seq": talk.packets[3]["seq"] + 500}
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        for number, packet in enumerate([*talk.packets[:5], hole, {**talk.packets[4], "ack": talk.packets[4]["ack"]}]):
            assembler.assemble(tcp_frame(**packet), 1.0 + number / 10)
    assert [(gap.reason, gap.timestamp) for gap in recorder.only.gaps] == [("flushed", 1.6)]


@given(
    version=st.sampled_from([4, 6]),
    isn=st.integers(0, 0xFFFFFFFF),
    options=st.sampled_from(SYN_OPTIONS),
    tagged=st.booleans(),
)
def test_the_factory_is_given_the_segment_that_opened_the_connection(version, isn, options, tagged):
    """Each field of it is what the decoder reads, asked for in any order, also of a copy; what is no field is none."""
    source, destination = (CLIENT, SERVER) if version == 4 else (CLIENT6, SERVER6)
    frame = tcp_frame(source, destination, seq=isn, flags="S", options=options)
    if tagged:
        frame = frame[:12] + b"\x81\0\0\x05" + frame[12:]
    given_segments: List[Any] = []

    class Factory(StreamFactory):
        def new(self, flow, segment, timestamp):
            given_segments.append(segment)

    Assembler(Factory()).assemble(frame, 1.0)
    (expected,) = PacketDecoder().decode(frame, 1.0)
    (segment,) = given_segments
    twin = pickle.loads(pickle.dumps(segment))
    for name in reversed(type(expected).__slots__):
        for found in (segment, twin, copy.copy(segment)):
            assert getattr(found, name) == getattr(expected, name), name
    assert (segment.checksum_ok(), segment.source, segment.mss) == (True, expected.source, expected.mss)
    with pytest.raises(AttributeError, match="no attribute 'sequence'"):
        segment.sequence  # noqa: B018
    Assembler(Factory()).assemble(segment, 1.0)
    assert given_segments[1].key == expected.key


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_subclass_with_an_assemble_of_its_own_is_called_once_for_each_packet(checks: str) -> None:
    """Whatever way a packet takes inside, a program that counts or filters in `assemble` sees it once."""
    seen: List[Any] = []

    class Counting(Assembler):
        def assemble(self, packet: Any, timestamp: Any, *more: Any) -> None:
            seen.append(packet)
            super().assemble(packet, timestamp, *more)

    talk = Talk(4, 0, (b"", b""), [(True, b"x" * 700), (False, b"y" * 1400), (True, b"z" * 3)])
    del talk.packets[2]  # the data that follows confirms the handshake too
    frames = [tcp_frame(**packet) for packet in talk.packets]
    recorder = Recorder()
    with Counting(recorder, checks=checks) as assembler:
        for number, frame in enumerate(frames):
            timestamp = Decimal(number) if number == 5 else number
            assembler.assemble(memoryview(frame) if number % 3 == 1 else frame, timestamp)
    assert len(seen) == len(frames) == assembler.statistics().packets
    assert recorder.connections[0].data(C2S) == b"x" * 700 + b"z" * 3
