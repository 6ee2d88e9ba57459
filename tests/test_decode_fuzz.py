"""No packet, however damaged, raises out of the decoder or leaves its bounds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_frames import ethernet, frame80211, pieces_of_everything
from tcpstitch.decode import PacketDecoder, walk

FRAMES = pieces_of_everything()
LINKTYPES = sorted({linktype for linktype, _ in FRAMES})
KEYS = st.sampled_from(["plain", "vlan", "tunnel"])


def check(decoder, packet, linktype, timestamp=0.0):
    before = sum(decoder.counts.values())
    segments = decoder.decode(packet, timestamp, linktype)
    assert segments or sum(decoder.counts.values()) > before, "a packet without a segment leaves a reason"
    for segment in segments:
        assert 0 <= len(segment.payload) <= segment.length
        assert len(segment.payload) <= len(packet) or decoder.counts.get("fragment")
        assert segment.checksum_ok() in (True, False, None)
        repr(segment)
    assert decoder.fragment_bytes <= 4 << 20


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([*LINKTYPES, 147, 2**31]), KEYS)
def test_any_bytes_of_any_link_type_are_decoded_or_counted(packet, linktype, flow_key):
    check(PacketDecoder(flow_key=flow_key), packet, linktype)


mutations = st.lists(
    st.tuples(st.sampled_from(["set", "flip", "cut", "insert", "repeat", "length"]), st.integers(0, 400),
              st.integers(0, 255)),
    min_size=1, max_size=6,
)  # fmt: skip


def mutate(packet, steps):
    data = bytearray(packet)
    for what, where, value in steps:
        at = where % len(data) if data else 0
        if what == "set":
            data[at : at + 1] = bytes([value])
        elif what == "flip" and data:
            data[at] ^= 1 << value % 8
        elif what == "cut":
            del data[at:]
        elif what == "insert":
            data[at:at] = bytes([value]) * (value % 9)
        elif what == "repeat":
            data[at:at] = data[at : at + value]
        elif what == "length":
            data[at : at + 2] = len(data[at:]).to_bytes(2, "big") if value % 2 else bytes([0, value])
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(FRAMES), mutations, KEYS)
def test_damaged_frames_are_decoded_or_counted(frame, steps, flow_key):
    linktype, packet = frame
    check(PacketDecoder(flow_key=flow_key), mutate(packet, steps), linktype)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FRAMES), mutations, st.floats(0, 1e9)), max_size=25))
def test_one_decoder_survives_a_run_of_damaged_frames(run):
    decoder = PacketDecoder(flow_key="tunnel", max_fragments=4)
    for (linktype, packet), steps, timestamp in run:
        check(decoder, mutate(packet, steps), linktype, timestamp)
        assert decoder.fragments_held <= 4


def values(segment):
    return (segment.key, segment.seq, segment.ack, segment.flags, segment.window, segment.payload, segment.length,
            segment.options, segment.ttl, segment.urgent_pointer, segment.tcp_end - segment.tcp_start)  # fmt: skip


SHORT_PATH = [frame for frame in FRAMES if frame[0] in (1, 101, 113, 228, 229, 276)]


@settings(max_examples=1200, deadline=None)
@given(st.sampled_from(SHORT_PATH), mutations, KEYS)
def test_the_short_path_and_the_long_path_say_the_same(frame, steps, flow_key):
    linktype, packet = frame
    packet = mutate(packet, steps)
    behind_a_header = struct.pack("<BBHI", 0, 0, 8, linktype) + packet
    short, long = PacketDecoder(flow_key=flow_key, max_depth=20), PacketDecoder(flow_key=flow_key, max_depth=21)
    found = [values(segment) for segment in short.decode(packet, 0.0, linktype)]
    assert found == [values(segment) for segment in long.decode(behind_a_header, 0.0, 192)]
    assert (short.counts, short.last_bad_key) == (long.counts, long.last_bad_key)


def test_every_frame_cut_at_every_byte_is_decoded_or_counted():
    for linktype, packet in FRAMES:
        for size in range(len(packet)):
            check(PacketDecoder(), packet[:size], linktype)


@pytest.mark.parametrize("table", ["LINKS", "ETHERTYPES", "PROTOCOLS", "UDP_PORTS"])
def test_every_handler_has_a_frame_among_those_that_are_damaged(monkeypatch, table):
    """Each number of each table is reached by one of `FRAMES`; PPI in front keeps them off the short path."""
    handlers, reached = getattr(walk, table), set()

    def watched(number, handler):
        def call(*arguments):
            reached.add(number)
            handler(*arguments)

        return call

    for number, handler in list(handlers.items()):
        monkeypatch.setitem(handlers, number, watched(number, handler))
    for linktype, packet in FRAMES:
        PacketDecoder(max_depth=20).decode(struct.pack("<BBHI", 0, 0, 8, linktype) + packet, 0.0, 192)
    assert sorted(set(handlers) - reached) == []


def test_packets_made_of_endless_headers_end():
    for packet in (
        ethernet(b"", 0x8100) + b"\0\1\x81\0" * 16_000,
        ethernet(b"\0\1\0\0" * 16_000, 0x8847),
        ethernet(b"\x60" + bytes(5) + b"\0\1" + bytes(32) + bytes(60_000), 0x86DD),
        ethernet(b"\0\1" + b"\xaa\xaa\x03\0\0\0\x81\0\0\1\0\x50" * 5_000, 0x8100),
    ):
        check(PacketDecoder(), packet, 1)
    check(PacketDecoder(), frame80211((bytes(12) + b"\0\x02\1\1") * 4_000, 0x88, qos=b"\x80\0"), 105)
