"""IP fragments: reassembled before TCP, whatever their order, inside bounds."""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_frames import A6, B6, KEY4, KEY6, ethernet, fragment6, fragments4, gre, ipv4, over_ip, tcp, udp
from support.recorder import Recorder
from tcpstitch import Assembler, Timeouts
from tcpstitch.decode import PacketDecoder

BODY = bytes(range(100, 160))
WHOLE4 = tcp(BODY)
WHOLE6 = tcp(BODY, A6, B6)


def feed(packets, start=0.0, **options):
    decoder = PacketDecoder(101, **options)
    segments = [segment for index, packet in enumerate(packets) for segment in decoder.decode(packet, start + index)]
    return segments, decoder


def pieces6(payload, size, ident=7):
    return [
        fragment6(payload[at : at + size], at, at + size < len(payload), ident) for at in range(0, len(payload), size)
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fragments_of_either_version_in_any_order_give_the_segment(order):
    for key, pieces in ((KEY4, fragments4(WHOLE4, 24)), (KEY6, pieces6(WHOLE6, 24))):
        assert len(pieces) == 4
        segments, decoder = feed([pieces[index] for index in order])
        (segment,) = segments
        assert (segment.key, segment.payload, segment.length) == (key, BODY, len(BODY))
        assert segment.tcp_start == 0 and segment.tcp_end == len(segment.frame) and segment.checksum_ok() is True
        assert decoder.counts == {"fragment": 3}
        assert (decoder.fragments_held, decoder.fragment_bytes) == (0, 0)


def test_a_first_fragment_is_no_segment():
    assert feed(fragments4(WHOLE4, 48)[:1])[0] == []
    assert feed(pieces6(WHOLE6, 48)[:1])[0] == []


def test_an_atomic_fragment_is_a_segment_of_its_own_and_touches_no_other():
    first, second = pieces6(WHOLE6, 48)
    segments, decoder = feed([first, fragment6(tcp(b"alone", A6, B6), 0, False), second])
    assert [segment.payload for segment in segments] == [b"alone", BODY]
    assert decoder.counts == {"fragment": 1}


def test_datagrams_are_told_apart_by_id_and_addresses():
    one, two = fragments4(WHOLE4, 48, ident=1), fragments4(tcp(BODY[::-1]), 48, ident=2)
    segments, _ = feed([one[0], two[0], two[1], one[1]])
    assert [segment.payload for segment in segments] == [BODY[::-1], BODY]


def test_ipv4_overlap_keeps_the_bytes_that_came_first():
    first = ipv4(WHOLE4[:48], fragment=0x2000)
    over = ipv4(b"\xff" * 40 + WHOLE4[64:72], fragment=0x2000 | 3)
    last = ipv4(WHOLE4[56:], fragment=7)
    (segment,), _ = feed([first, last, over])
    assert segment.payload[: 48 - 20] == BODY[: 48 - 20]
    assert segment.payload[48 - 20 : 56 - 20] == b"\xff" * 8
    assert segment.payload[56 - 20 :] == BODY[56 - 20 :]


def test_ipv6_overlap_drops_the_whole_datagram_and_its_later_fragments():
    first, second = pieces6(WHOLE6, 48)
    over = fragment6(b"\xff" * 16, 40, True)
    segments, decoder = feed([first, over, second, first])
    assert segments == []
    assert decoder.counts["fragment_dropped"] == 3


def test_an_exact_duplicate_of_an_ipv6_fragment_does_no_harm():
    first, second = pieces6(WHOLE6, 48)
    (segment,), decoder = feed([first, first, second])
    assert segment.payload == BODY
    assert decoder.counts == {"fragment": 1, "fragment_duplicate": 1}


def test_a_fragment_cut_by_the_snap_length_is_dropped():
    first, second = fragments4(WHOLE4, 48)
    segments, decoder = feed([first[:-1], second])
    assert segments == []
    assert decoder.counts == {"fragment": 1, "fragment_dropped": 1}


def test_a_datagram_beyond_64_kib_is_refused():
    decoder = PacketDecoder(101)
    assert decoder.decode(ipv4(bytes(400), fragment=0x1FFF)) == ()
    assert decoder.decode(fragment6(bytes(400), 0xFFF8, False)) == ()
    assert decoder.counts == {"fragment_dropped": 2}


def test_an_incomplete_datagram_is_forgotten_after_the_timeout_of_capture_time():
    first, second = fragments4(WHOLE4, 48)
    decoder = PacketDecoder(101, fragment_timeout=5.0)
    decoder.decode(first, 100.0)
    assert decoder.decode(second, 105.5) == ()
    assert decoder.counts["fragments_expired"] == 1
    assert decoder.decode(first, 106.0)[0].payload == BODY


def test_the_timeout_counts_from_a_datagrams_first_fragment():
    """However many follow: RFC 8200 4.5, RFC 791."""
    pieces = fragments4(WHOLE4, 24)
    decoder = PacketDecoder(101, fragment_timeout=5.0)
    for number, piece in enumerate(pieces[:-1]):
        decoder.decode(piece, 100.0 + number * 4.9 / len(pieces))
    assert decoder.decode(pieces[-1], 105.1) == ()
    assert decoder.counts["fragments_expired"] == 1


@pytest.mark.parametrize(("before", "after", "segments"), [(5.0, None, 1), (None, 5.0, 0)])
def test_a_timeout_set_while_running_holds_for_datagrams_that_wait(before, after, segments):
    first, second = fragments4(WHOLE4, 48)
    assembler = Assembler(Recorder(), linktype=101, timeouts=Timeouts(fragment=before))
    assembler.assemble(first, 1.0)
    assembler.timeouts = Timeouts(fragment=after)
    assembler.assemble(second, 10.0)
    assert assembler.statistics().segments == segments


def test_the_least_recently_used_datagram_goes_first():
    pieces = [fragments4(WHOLE4, 24, ident=ident) for ident in range(3)]
    decoder = PacketDecoder(101, max_fragments=2)
    for packet in (pieces[0][0], pieces[1][0], *pieces[0][1:-1], pieces[2][0]):
        decoder.decode(packet)
    assert decoder.counts["fragments_evicted"] == 1
    assert decoder.decode(pieces[0][-1])[0].payload == BODY


def test_the_number_of_incomplete_datagrams_is_bounded_and_the_oldest_goes():
    decoder = PacketDecoder(101, max_fragments=10)
    pairs = [fragments4(WHOLE4, 48, ident=ident) for ident in range(100)]
    for first, _ in pairs:
        decoder.decode(first)
        assert decoder.fragments_held <= 10
    assert decoder.counts["fragments_evicted"] == 90
    assert decoder.decode(pairs[0][1]) == ()
    assert decoder.decode(pairs[99][1])[0].payload == BODY


def test_the_bytes_of_incomplete_datagrams_are_bounded_tiny_fragments_included():
    decoder = PacketDecoder(101, max_fragment_bytes=1 << 17, max_fragments=1_000_000)
    for ident, start in itertools.product(range(20), range(1, 400, 2)):
        decoder.decode(ipv4(b"12345678", fragment=0x2000 | start, ident=ident))
        assert decoder.fragment_bytes <= 1 << 17
    for ident in range(20):
        decoder.decode(ipv4(bytes(60_000), fragment=0x2000, ident=1000 + ident))
        assert decoder.fragment_bytes <= 1 << 17


@pytest.mark.parametrize("wrap", [lambda packet: over_ip(packet, 4), lambda packet: gre(ethernet(packet), 0x6558)])
def test_fragments_inside_a_tunnel_are_reassembled(wrap):
    (segment,), _ = feed([wrap(piece) for piece in fragments4(WHOLE4, 24)])
    assert segment.payload == BODY


def test_a_fragmented_tunnel_packet_is_reassembled_and_followed():
    outer = udp(struct.pack("!II", 8 << 24, 5 << 8) + ethernet(ipv4(WHOLE4)), 4789)
    (segment,), _ = feed(fragments4(outer[20:], 64, protocol=17))
    assert (segment.key, segment.payload, segment.checksum_ok()) == (KEY4, BODY, True)


def test_extension_headers_inside_the_fragmented_part_are_stepped_over():
    part = bytes((6, 0)) + bytes(6) + WHOLE6
    (segment,), _ = feed([fragment6(part[:48], 0, True, following=60), fragment6(part[48:], 48, False, following=60)])
    assert (segment.key, segment.payload) == (KEY6, BODY)


def test_fragments_in_different_vlans_do_not_mix_when_asked():
    first, second = (ethernet(piece, tags=[(0x8100, vlan)]) for piece, vlan in zip(fragments4(WHOLE4, 48), (1, 2)))
    apart, together = PacketDecoder(flow_key="vlan"), PacketDecoder()
    for packet in (first, second):
        assert apart.decode(packet) == ()
        found = together.decode(packet)
    assert found[0].payload == BODY


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(1, 8)), max_size=30), st.randoms(use_true_random=False))
def test_ipv4_reassembly_agrees_with_a_byte_map(cuts, rng: random.Random):
    total = 120
    spans = [(start * 8, min((start + count) * 8, total)) for start, count in cuts] + [(0, 64), (64, total)]
    rng.shuffle(spans)
    held, done = {}, None
    decoder = PacketDecoder(101)
    for index, (low, high) in enumerate(spans):
        content = bytes(rng.randrange(256) for _ in range(low, high))
        for at in range(low, high):
            held.setdefault(at, content[at - low])
        more = 0 if high == total else 0x2000
        decoder.decode(ipv4(content, fragment=more | low // 8, protocol=6))
        if len(held) == total and done is None:
            done = index
            break
    assert done is not None
    assert decoder.fragments_held == 0


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_fragments_with_overlaps_give_first_wins_bytes(data):
    size = 96
    truth = tcp(bytes(size - 20))[:20]
    model = dict(enumerate(truth))
    decoder = PacketDecoder(101)
    decoder.decode(ipv4(truth + b"\1\1\1\1", fragment=0x2000))
    model.update(dict.fromkeys(range(20, 24), 1))
    for value in range(2, 12):
        low = data.draw(st.integers(0, 10)) * 8
        high = data.draw(st.integers(low // 8 + 1, 11)) * 8
        for at in range(low, high):
            model.setdefault(at, value)
        assert decoder.decode(ipv4(bytes([value]) * (high - low), fragment=0x2000 | low // 8)) == ()
    for at in range(0, size):
        model.setdefault(at, 99)
    found = decoder.decode(ipv4(b"\x63" * 8, fragment=(size - 8) // 8))
    found = found or decoder.decode(ipv4(b"\x63" * (size - 8), fragment=0x2000))
    assert found[0].payload == bytes(model[at] for at in range(20, size))


def test_ipv6_fragments_not_in_units_of_eight_are_dropped():
    assert feed([fragment6(WHOLE6[:47], 0, True)])[1].counts == {"fragment_dropped": 1}


def test_the_assembler_takes_the_timeout_of_fragments_from_its_timeouts():
    first, second = fragments4(WHOLE4, 48)
    for seconds, pause, delivered in ((5.0, 4.0, len(BODY)), (5.0, 6.0, 0), (None, 1e6, len(BODY))):
        assembler = Assembler(Recorder(), linktype=101, timeouts=Timeouts(fragment=seconds))
        assembler.assemble(first, 100.0)
        assembler.assemble(second, 100.0 + pause)
        assembler.flush_all()
        assert assembler.statistics().bytes == delivered


def test_the_assembler_sees_no_segment_in_a_first_fragment():
    """Its TCP header is all there, yet the rest of its payload comes with the second one."""
    first, second = fragments4(WHOLE4, 48)
    recorder = Recorder()
    assembler = Assembler(recorder, linktype=101)
    assembler.assemble(first, 1.0)
    assert assembler.statistics().segments == 0 and recorder.connections == []
    assembler.assemble(second, 1.1)
    assembler.flush_all()
    assert recorder.only.data() == BODY
