"""Packets of which less was captured than their headers say."""

from __future__ import annotations

from typing import List, Optional

import pytest

from support.frames import CLIENT, SERVER, fast_open_option, tcp_frame
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Chunk, Limits

HEADERS = 14 + 20 + 20


def opened(checks: str = "lenient") -> tuple[Assembler, Recorder]:
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 99, flags="S"), 1.0)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 499, flags="SA", ack=100), 1.1)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 100, ack=500), 1.2)
    return assembler, recorder


def test_what_a_snap_length_cut_off_is_a_gap_before_the_next_segment() -> None:
    """The bytes are reported as truncated, in order, as soon as the segment behind them shows that they were sent."""
    assembler, recorder = opened()
    for number in range(3):
        whole = tcp_frame(CLIENT, SERVER, 100 + 100 * number, bytes([65 + number]) * 100, ack=500)
        assembler.assemble(whole[: HEADERS + 4], 2.0 + number)
    assert recorder.only.text() == "AAAA[96 bytes missing]BBBB[96 bytes missing]CCCC"
    assembler.flush_all()
    assert recorder.only.text() == "AAAA[96 bytes missing]BBBB[96 bytes missing]CCCC[96 bytes missing]"
    assert {gap.reason for gap in recorder.only.gaps} == {"truncated"}


SCALED = b"\x02\x04\x05\xb4\x04\x02" + b"\x08\x0a" + bytes(8) + b"\x01\x03\x03\x07"  # as Linux: the scale comes last


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("handshake", ["both", "SYN", "SYN/ACK"])
@pytest.mark.parametrize("sender", [C2S, S2C])
def test_a_window_scale_that_was_cut_off_is_taken_for_the_largest(sender: int, handshake: str, checks: str) -> None:
    """Of a SYN with Linux' options, 68 bytes lack the last ones. What is sent by the true window is no decoy."""
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    syn = tcp_frame(CLIENT, SERVER, 99, flags="S", options=SCALED, window=1000)
    answer = tcp_frame(SERVER, CLIENT, 499, flags="SA", ack=100, options=SCALED, window=1000)
    ends = ((CLIENT, 100), (SERVER, 500))
    (source, seq), (destination, ack) = ends[sender], ends[1 - sender]
    packets = [
        *{"both": [syn, answer], "SYN": [syn], "SYN/ACK": [answer]}[handshake],
        tcp_frame(source, destination, seq, ack=ack, window=64),
        tcp_frame(destination, source, ack, ack=seq, window=64),  # 8192 bytes
        tcp_frame(source, destination, seq + 7000, b"behind", ack=ack, window=64),
        tcp_frame(source, destination, seq + 7006, flags="FA", ack=ack, window=64),
    ]
    for packet in packets:
        assembler.assemble(packet[:68], 1.0)
    assembler.flush_all()
    assert recorder.only.data(sender) == b"behind"
    assert not recorder.kinds & {"out_of_window", "fin_out_of_window"}


def test_data_on_a_syn_whose_options_were_cut_off_may_be_fast_open() -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    syn = tcp_frame(CLIENT, SERVER, 99, b"early", "S", options=SCALED + fast_open_option())
    assembler.assemble(syn[:68], 1.0)
    assert "data_on_syn" not in recorder.kinds


def test_an_acknowledgement_or_a_fin_shows_that_cut_bytes_were_sent() -> None:
    """Nothing waits for a next segment that need not come."""
    for proof in (
        tcp_frame(SERVER, CLIENT, 500, ack=200),
        tcp_frame(CLIENT, SERVER, 200, flags="FA", ack=500),
        tcp_frame(CLIENT, SERVER, 200, flags="R"),
    ):
        assembler, recorder = opened()
        assembler.assemble(tcp_frame(CLIENT, SERVER, 100, b"x" * 100, ack=500)[: HEADERS + 4], 2.0)
        assembler.assemble(proof, 2.1)
        assert recorder.only.text() == "xxxx[96 bytes missing]"


@pytest.mark.parametrize("refuted", [False, True])
def test_strict_checks_believe_a_reset_behind_cut_bytes_once_silence_follows(refuted: bool) -> None:
    """The length in the header is a claim, and the RST is exact only if it is true."""
    assembler, recorder = opened("strict")
    assembler.assemble(tcp_frame(CLIENT, SERVER, 100, b"x" * 100, ack=500)[: HEADERS + 4], 2.0)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 200, flags="RA", ack=500), 2.1)
    if refuted:
        assembler.assemble(tcp_frame(CLIENT, SERVER, 104, b"y" * 10, ack=500), 2.2)
    assembler.flush_all()
    assert recorder.only.data(C2S) == b"xxxx" + b"y" * 10 * refuted
    assert recorder.only.completions == ["flushed" if refuted else "rst"]


def test_a_wrong_length_does_not_swallow_the_bytes_that_follow() -> None:
    """An IP length beyond the frame is a claim; the segments that really carry those offsets win."""
    assembler, recorder = opened()
    lying = bytearray(tcp_frame(CLIENT, SERVER, 100, b"0123456789", ack=500))
    lying[16:18] = (20000).to_bytes(2, "big")
    assembler.assemble(bytes(lying), 2.0)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 110, b"the rest ", ack=500), 2.1)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 500, ack=119), 2.2)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 119, b"of it", ack=500), 2.3)
    assert recorder.only.data(C2S) == b"0123456789the rest of it"
    assert recorder.only.gaps == []


def test_a_stream_of_headers_only_that_is_picked_up_in_its_middle_begins() -> None:
    """After as many segments as one with data: so few ranges without a page are remembered."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    for number in range(50):
        whole = tcp_frame(CLIENT, SERVER, 100 + 100 * number, bytes(100), ack=500)
        assembler.assemble(whole[:HEADERS], 2.0 + number / 100)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 500, ack=5100), 3.0)
    assert recorder.only.text() == "[100 bytes missing]" * 50


@pytest.mark.parametrize("known", [False, True])
def test_nothing_is_missing_behind_a_fin(known: bool) -> None:
    """An IP length may claim bytes there: they were not sent."""
    assembler, recorder = opened()
    for seq, captured in ((100, 4), (160, 0)):
        assembler.assemble(tcp_frame(CLIENT, SERVER, seq, b"A" * 100, ack=500)[: HEADERS + captured], 2.0)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 150, flags="FA", ack=500), 2.1)
    if known:
        assembler.assemble(tcp_frame(SERVER, CLIENT, 500, ack=261), 2.2)
        assembler.assemble(tcp_frame(SERVER, CLIENT, 500, b"more", ack=261), 3.0)
        assert recorder.only.ended == {C2S}
    assembler.flush_all()
    assert recorder.only.text() == "AAAA[46 bytes missing]"
    assert [chunk.offset for chunk in recorder.only.chunks if chunk.end] == [50]


@pytest.mark.parametrize("captured", [0, 4])
@pytest.mark.parametrize("cut_first", [False, True])
def test_a_stopped_direction_hears_of_no_cut_bytes(cut_first: bool, captured: int) -> None:
    """Neither of those behind the place where it was stopped, nor of those that were cut off before that."""
    chunks: List[Chunk] = []
    recorder = Recorder(lambda recording, chunk: chunks.append(chunk) if cut_first else chunk.stop())
    assembler = Assembler(recorder)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 99, flags="S"), 1.0)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 499, flags="SA", ack=100), 1.1)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 100, b"heard", ack=500), 1.2)
    for number in range(3):
        whole = tcp_frame(CLIENT, SERVER, 105 + 100 * number, bytes(100), ack=500)
        assembler.assemble(whole[: HEADERS + captured], 2.0 + number)
        if chunks and not number:
            chunks[0].stop()
    assembler.assemble(tcp_frame(SERVER, CLIENT, 500, ack=405), 6.0)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 405, flags="FA", ack=500), 6.1)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 500, flags="FA", ack=406), 6.2)
    assembler.check()
    assert recorder.only.gaps == []
    assert assembler.statistics().missing_bytes == 0
    assert recorder.only.completions == ["fin"]
    assert recorder.only.ended == {C2S, S2C}


@pytest.mark.parametrize("later", [1, 3, 10, 30, 0])
def test_a_capture_of_headers_only_accounts_for_every_byte_around_a_retransmission(later: int) -> None:
    """However many segments overtake the one that is sent again after `later` others, or (0) was never captured."""
    assembler, recorder = opened()
    count, size, lost = 60, 1000, 10
    now = 2.0
    for number in range(count):
        whole = tcp_frame(CLIENT, SERVER, 100 + size * number, bytes(size), ack=500)
        if number != lost:
            assembler.assemble(whole[:HEADERS], now)
        if number == lost + later and later:
            again = tcp_frame(CLIENT, SERVER, 100 + size * lost, bytes(size), ack=500)
            assembler.assemble(again[:HEADERS], now)
        arrived = number + 1 if number >= lost + later or number < lost else lost
        assembler.assemble(tcp_frame(SERVER, CLIENT, 500, ack=100 + size * arrived), now + 0.01)
        now += 0.05
    assembler.check()
    assembler.flush_all()
    gaps = recorder.only.gaps
    assert [gap.offset for gap in gaps] == [sum(gap.length for gap in gaps[:place]) for place in range(len(gaps))]
    assert sum(gap.length for gap in gaps) == count * size


@pytest.mark.parametrize("first_cut", [0, 50])
@pytest.mark.parametrize("second_cut", [None, 0, 50])
@pytest.mark.parametrize("start", ["any", "syn"])
@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("ending", ["reset", "flush", "timers", "fin"])
def test_what_was_cut_off_below_a_start_that_moved_ends(
    first_cut: int, second_cut: Optional[int], start: str, checks: str, ending: str
) -> None:
    """A SYN with a wrong checksum whose number is acknowledged moves the start beyond what is held; the held bytes may
    be taken for the start all the same. Nobody waits for ever for what was cut off there."""
    recorder = Recorder()
    assembler = Assembler(recorder, start=start, checks=checks)
    isn = 100_000
    held = tcp_frame(CLIENT, SERVER, isn - 999, b"x" * 100, ack=1)
    later = tcp_frame(CLIENT, SERVER, isn - 499, b"y" * 100, ack=1)
    assembler.assemble(tcp_frame(CLIENT, SERVER, isn, flags="S", bad_checksum=True), 1.0)
    assembler.assemble(held[: len(held) - first_cut], 1.1)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 1, ack=isn + 1), 1.2)
    assembler.check()
    if second_cut is not None:
        assembler.assemble(later[: len(later) - second_cut], 1.3)
        assembler.check()
    if ending == "reset":
        assembler.assemble(tcp_frame(SERVER, CLIENT, 1, flags="RA", ack=isn + 1), 1.4)
    elif ending == "fin":
        assembler.assemble(tcp_frame(CLIENT, SERVER, isn + 1, flags="FA", ack=1), 1.4)
    elif ending == "timers":
        for timestamp in range(2, 300, 2):
            assembler.assemble(tcp_frame(("10.9.9.9", 9), SERVER, 1, flags="S"), float(timestamp))
            assembler.check()
    assembler.check()
    assembler.flush_all()
    assembler.check()
    assert recorder.connections
    assert all(len(stream.completions) == 1 for stream in recorder.connections)
    assert assembler.statistics().pages_used == 0


def test_data_that_a_limit_gave_up_as_a_decoy_leaves_the_queue_in_order() -> None:
    """What gave way was all that lay ahead: the segment for which it did lies ahead now, and what follows goes before
    it."""
    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(8, 100, page_size=256))
    assembler.assemble(tcp_frame(CLIENT, SERVER, 99, flags="S", window=2000), 1.0)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 499, flags="SA", ack=100, window=2000), 1.1)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 100, ack=500, window=2000), 1.2)
    for place, data in ((50_000, b"a" * 1400), (1400, b"c" * 700), (700, b"b" * 200), (0, b"d" * 150)):
        assembler.assemble(tcp_frame(CLIENT, SERVER, 100 + place, data, ack=500, window=2000), 1.3)
        assembler.check()
    assembler.flush_all()
    offsets = [chunk.offset for chunk in recorder.only.chunks if chunk.direction == C2S]
    assert offsets == sorted(offsets)


def test_copies_of_a_cut_packet_behind_a_hole_count_once() -> None:
    """Few such packets are remembered: none gives way to a copy, and none to one farther on."""
    assembler, recorder = opened()
    for start in [10] * 20 + [30] * 20 + [50, 70] + [90] * 3:
        assembler.assemble(tcp_frame(CLIENT, SERVER, 100 + start, b"x" * 10, ack=500)[:HEADERS], 2.0)
    assembler.flush_all()
    cut = [gap.offset for gap in recorder.only.gaps if gap.reason == "truncated"]
    assert cut == [10, 30, 50, 70]
