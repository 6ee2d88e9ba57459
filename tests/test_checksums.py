"""Data whose TCP checksum is wrong, of a direction that has shown good ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_frames import A6, B6, C4, D4, ethernet, ipv4, ipv6, tcp
from support.files import pcap
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import C2S, Recorder
from tcpstitch import Assembler, PacketDecoder, UsageError, open_capture
from tcpstitch.checksum import word_sum
from tcpstitch.cli import main

OPENING = (
    tcp_frame(CLIENT, SERVER, 99, flags="S"),
    tcp_frame(SERVER, CLIENT, 499, flags="SA", ack=100),
    tcp_frame(CLIENT, SERVER, 100, ack=500),
    tcp_frame(CLIENT, SERVER, 100, b"good ", ack=500),
    tcp_frame(SERVER, CLIENT, 500, ack=105),
)
BAD = tcp_frame(CLIENT, SERVER, 105, b"bad ", ack=500, bad_checksum=True)
COPY = tcp_frame(CLIENT, SERVER, 105, b"true", ack=500)
BEHIND = tcp_frame(CLIENT, SERVER, 109, b"more", ack=500)


@given(st.one_of(st.binary(max_size=200), st.integers(0, 200).map(lambda size: b"\xff" * size)))
def test_a_sum_is_that_of_the_words(data: bytes) -> None:
    words = (int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    assert word_sum(data) % 0xFFFF == sum(words) % 0xFFFF


def test_every_byte_counts_in_every_size() -> None:
    for size in (*range(130), 1460):
        for at in range(size):
            data = bytes(at) + b"\1" + bytes(size - at - 1)
            assert word_sum(data) % 0xFFFF == (1 if at % 2 else 256), (size, at)


def run(*frames: bytes, checks: str = "lenient") -> Recorder:
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    for number, frame in enumerate((*OPENING, *frames)):
        assembler.assemble(frame, 1000.0 + number / 1000)
    assembler.check()
    assembler.flush_all()
    return recorder


@pytest.mark.parametrize(
    "frames",
    [
        [tcp_frame(CLIENT, SERVER, 100, b"data", "FA", ack=500, bad_checksum=True)],
        [*OPENING, tcp_frame(CLIENT, SERVER, 105, b"data", "FA", ack=500, bad_checksum=True)],
        [OPENING[0], tcp_frame(SERVER, CLIENT, 499, flags="SFA", ack=100)],
        [OPENING[1]],
    ],
    ids=["offloaded", "damaged", "fin of a syn", "syn/ack that waits"],
)
def test_a_segment_stays_as_it_was_given(frames: List[bytes]) -> None:
    """Another assembler may be given it too, or a handler look at it later."""
    segments = [PacketDecoder().decode(frame)[0] for frame in frames]
    before = [(segment.flags, segment.checksum_ok()) for segment in segments]
    assembler = Assembler(Recorder())
    for segment in segments:
        assembler.assemble(segment, 1000.0)
    assert [(segment.flags, segment.checksum_ok()) for segment in segments] == before


def acknowledge(ack: int) -> bytes:
    return tcp_frame(SERVER, CLIENT, 500, ack=ack)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ((BAD, acknowledge(109), BEHIND), "good bad more"),
        ((BAD, BEHIND, acknowledge(113)), "good bad more"),
        ((BEHIND, BAD, acknowledge(113)), "good bad more"),
        ((BAD, BAD, acknowledge(109)), "good bad "),
    ],
)
def test_it_counts_once_the_receiver_acknowledges_it_and_no_other_copy_came(frames: Any, text: str) -> None:
    """The receiver had good bytes there: who captured them, or made them anonymous, has changed the checksum."""
    recorder = run(*frames)
    assert recorder.only.text() == text
    assert recorder.only.gaps == []
    assert "bad_checksum" in recorder.kinds


@pytest.mark.parametrize(
    "frames",
    [
        (BAD, COPY, acknowledge(109)),
        (COPY, BAD, acknowledge(109)),
        (BAD, tcp_frame(CLIENT, SERVER, 103, b"d true", ack=500), acknowledge(109)),
    ],
)
def test_a_copy_with_a_good_checksum_takes_its_place(frames: Any) -> None:
    """Whichever comes first."""
    assert run(*frames).only.text() == "good true"


@pytest.mark.parametrize("frames", [(BAD,), (BAD, acknowledge(105)), (BAD, acknowledge(107))])
def test_without_an_acknowledgement_of_all_of_it_it_does_not_count(frames: Any) -> None:
    """Nobody is known to have taken it."""
    assert run(*frames).only.data(C2S) == b"good "


def test_an_acknowledgement_of_it_ends_the_handshake_as_one_of_other_data_does() -> None:
    """The ACK that was to end it is not in the capture, so this is the first that the client is seen to send."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    bad = tcp_frame(CLIENT, SERVER, 100, b"bad ", ack=500, bad_checksum=True)
    for frame in (*OPENING[:2], bad, tcp_frame(SERVER, CLIENT, 500, ack=104)):
        assembler.assemble(frame, 1000.0)
    assert recorder.only.text() == "bad "
    assert recorder.kinds == {"bad_checksum"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_the_nearest_wait_where_several_have_wrong_checksums(count: int, order: Any) -> None:
    """What lies far ahead, which nobody may ever acknowledge, does not keep them out."""
    near = [tcp_frame(CLIENT, SERVER, 105 + 2 * n, b"%d " % n, ack=500, bad_checksum=True) for n in range(3)]
    far = [tcp_frame(CLIENT, SERVER, 50_000 + n, b"far", ack=500, bad_checksum=True) for n in range(count)]
    for frames in ([*far, *(near[n] for n in order)], [*(near[n] for n in order), *far]):
        recorder = run(*frames, acknowledge(111))
        assert (recorder.only.data(C2S), recorder.only.gaps) == (b"good 0 1 2 ", [])


def test_strict_checks_never_take_it() -> None:
    """RFC 9293 3.1: the receiver drops it; what it acknowledged was another copy."""
    assert run(BAD, acknowledge(109), BEHIND, checks="strict").only.text() == "good [4 bytes missing]more"


def routed(kind: int, pointer: int) -> bytes:
    """To a segment for D4, in IPv4 with a source route of one address behind another option."""
    return ethernet(ipv4(tcp(destination=D4), destination=C4, options=bytes((1, kind, 7, pointer)) + D4))


HOME = ethernet(ipv6(bytes((6, 2, 1, 2, 0, 0, 0xC9, 16)) + B6 + tcp(source=B6, destination=B6), 60, source=A6), 0x86DD)


@pytest.mark.parametrize("frame", [routed(131, 4), routed(137, 4), HOME], ids=["loose", "strict", "home address"])
def test_a_checksum_over_an_address_that_an_option_names_is_not_judged(frame: bytes) -> None:
    (segment,) = PacketDecoder().decode(frame)
    assert segment.checksum_ok() is None


@pytest.mark.parametrize(
    "frame",
    [
        routed(131, 8),
        routed(7, 4),
        ethernet(ipv4(tcp(destination=D4), destination=C4, options=bytes((0, 131, 7, 4)))),
        HOME.replace(b"\xc9\x10", b"\xc8\x10"),
    ],
    ids=["route at its end", "recorded route", "behind the end of options", "another option"],
)
def test_a_checksum_over_the_addresses_in_the_header_is(frame: bytes) -> None:
    (segment,) = PacketDecoder().decode(frame)
    assert segment.checksum_ok() is False


def _told(checksums: str, bad: bool, checks: str, follows: str) -> Any:
    """All calls for two connections one after the other on the same ports, as a capture or packet by packet."""
    recorder = Recorder()
    packets = []
    for first, second in ((99, 499), (5_000_000, 7_000_000)):
        ends = {"c": (CLIENT, SERVER), "s": (SERVER, CLIENT)}
        for side, seq, data, flags, ack in (
            ("c", first, b"", "S", 0), ("s", second, b"", "SA", first + 1), ("c", first + 1, b"", "A", second + 1),
            ("c", first + 1, b"ask", "PA", second + 1), ("s", second + 1, bytes(500), "A", first + 4),
            ("s", second + 501, b"", "FA", first + 4), ("c", first + 4, b"", "FA", second + 502),
            ("s", second + 502, b"", "A", first + 5),
        ):  # fmt: skip
            packets.append(tcp_frame(*ends[side], seq, data, flags, ack=ack, bad_checksum=bad))
    with Assembler(recorder, checks=checks, checksums=checksums) as assembler:
        if follows == "run":
            assembler.run(open_capture(io.BytesIO(pcap([(1000 + n / 8, packet) for n, packet in enumerate(packets)]))))
        for number, packet in enumerate(packets if follows != "run" else ()):
            assembler.assemble(packet, 1000 + number / 8)
    calls = [(c.data(0), c.data(1), c.gaps, c.anomalies, c.completions) for c in recorder.connections]
    return calls, assembler.statistics().anomalies


@pytest.mark.parametrize("follows", ["run", "assemble"])
@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_ignored_they_are_all_right(checks: str, follows: str) -> None:
    calls, anomalies = right = _told("verify", False, checks, follows)
    assert [(len(call[0]), len(call[1]), call[-1]) for call in calls] == [(3, 500, ["fin"])] * 2
    assert set(anomalies) == {"tuple_reuse"}
    assert _told("ignore", True, checks, follows) == right
    assert _told("ignore", False, checks, follows) == right
    assert _told("verify", True, checks, follows) != right


def test_the_command_ignores_them_where_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    syn = tcp_frame(CLIENT, SERVER, 99, flags="S", bad_checksum=True)
    rest = [tcp_frame(CLIENT, SERVER, 100, b"data", flags="FA", bad_checksum=True) for _ in range(2)]
    path = tmp_path / "changed.pcap"
    path.write_bytes(pcap([(1.0 + n, packet) for n, packet in enumerate([syn, *rest])]))
    assert main(["list", str(path)]) == 0
    assert "3 wrong checksums (see --checksums)" in capsys.readouterr().err
    assert main(["list", str(path), "--checksums", "ignore"]) == 0
    assert "wrong" not in capsys.readouterr().err
    assert main(["list", str(path), "--checksums", "no"]) == 2


def test_they_are_verified_or_ignored() -> None:
    for make in (Assembler, lambda _, checksums: PacketDecoder(checksums=checksums)):
        with pytest.raises(UsageError, match="use one of verify, ignore"):
            make(Recorder(), checksums="no")
    frame = ethernet(ipv4(tcp(destination=D4), destination=C4))
    for linktype, header in ((1, b""), (192, b"\0\0\x08\0\1\0\0\0")):  # the second takes the long path
        assert PacketDecoder().decode(header + frame, 0.0, linktype)[0].checksum_ok() is False
        (segment,) = PacketDecoder(checksums="ignore").decode(header + frame, 0.0, linktype)
        assert segment.checksum_ok() is None
