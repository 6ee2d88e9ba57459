"""A loop over a capture goes on where an exception ended the one before, as a signal's handler may raise one."""

from __future__ import annotations

import gzip
import io
import lzma
from typing import Any, Iterator, List, Tuple

import pytest

from support.files import enhanced, interface, pcap, section, snoop
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Capture, CaptureWarning, UsageError, open_capture
from tcpstitch.capture import Share

PACKETS = [(1000.0 + at, tcp_frame(CLIENT, SERVER, 100 + 7 * at, bytes(7))) for at in range(30)]
FILES = {
    "pcap": pcap(PACKETS),
    "pcapng": section() + interface() + b"".join(enhanced(int(time * 10**6), packet) for time, packet in PACKETS),
    "snoop": snoop(PACKETS),
}


class Signalled(Exception):
    pass


class Interrupted:
    """A file that gives a few bytes at a time, and of which every so many reads end in an exception."""

    def __init__(self, file: bytes, every: int) -> None:
        self._file = io.BytesIO(file)
        self._reads = 0
        self._every = every

    def read(self, size: int) -> bytes:
        self._reads += 1
        if self._reads > 3 and self._reads % self._every == 0:  # not while it is opened
            raise Signalled
        return self._file.read(min(size, 50))


def in_loops(capture: Capture) -> Iterator[Tuple[float, bytes]]:
    """One loop after the other, until one has come to the end."""
    while True:
        try:
            yield from capture
            return
        except Signalled:
            pass


@pytest.mark.parametrize("every", [2, 3, 7])
@pytest.mark.parametrize("kind", FILES)
def test_the_next_loop_goes_on_where_an_exception_ended_the_wait(kind: str, every: int) -> None:
    capture = open_capture(Interrupted(FILES[kind], every))
    assert list(in_loops(capture)) == PACKETS
    assert list(capture) == []
    assert capture.warnings == []


@pytest.mark.parametrize("kind", FILES)
def test_a_share_goes_on_as_well(kind: str) -> None:
    packets: List[Any] = []
    for index in range(2):
        share = Share(index, 2)
        packets += in_loops(open_capture(Interrupted(FILES[kind], 3), share=share))
        assert share.number == len(PACKETS)
    assert packets == PACKETS  # they are of one connection


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("kind", FILES)
def test_the_exception_is_not_taken_for_damage_of_compressed_data(kind: str, compress: Any) -> None:
    capture = open_capture(Interrupted(compress(FILES[kind]), 3))
    assert list(in_loops(capture)) == PACKETS
    assert list(capture) == [] and capture.warnings == []


@pytest.mark.parametrize("share", [None, Share(0, 1)])
@pytest.mark.parametrize("kind", FILES)
def test_no_packet_comes_twice_where_the_exception_came_between_two(kind: str, share: Any) -> None:
    """A signal's handler may run there."""
    capture = open_capture(io.BytesIO(FILES[kind]), share=share)
    packets: List[Any] = []
    for count in range(1, 6):
        loop: Any = iter(capture)
        packets += [next(loop) for _ in range(count)]
        with pytest.raises(Signalled):
            loop.throw(Signalled)
    assert [*packets, *capture] == PACKETS


@pytest.mark.parametrize("kind", FILES)
def test_a_capture_that_is_cut_says_so_once(kind: str) -> None:
    capture = open_capture(Interrupted(FILES[kind][:-9], 3))
    with pytest.warns(CaptureWarning):
        assert list(in_loops(capture)) == PACKETS[:-1]
    assert list(capture) == []
    assert len(capture.warnings) == 1


@pytest.mark.parametrize("kind", FILES)
def test_run_goes_on_behind_a_loop_and_a_loop_behind_run(kind: str) -> None:
    for ways in ([True, False], [False, True]):
        assembler = Assembler(recorder := Recorder())
        capture = open_capture(Interrupted(FILES[kind], 7))
        for at in range(1000):
            try:
                if ways[at % 2]:
                    assembler.run(capture)
                else:
                    for time, packet in capture:
                        assembler.assemble(packet, time)
                break
            except Signalled:
                pass
        assembler.flush_all()
        assert assembler.statistics().packets == len(PACKETS)
        assert len(recorder.only.data()) == 7 * len(PACKETS)


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_exception_ends_the_capture() -> None:
    """There is nothing to wait for then."""
    capture = open_capture(io.BytesIO(FILES["pcap"][:-9]))
    packets: List[Any] = []
    with pytest.raises(CaptureWarning):
        packets.extend(capture)
    assert packets == PACKETS[:-1] and list(capture) == []


def test_several_captures_cannot_go_on_and_say_so() -> None:
    """Instead of ending there in silence."""
    capture = open_capture([Interrupted(FILES["pcap"], 5), io.BytesIO(FILES["snoop"])])
    with pytest.raises(Signalled):
        list(capture)
    with pytest.raises(UsageError, match="an exception ended the reading: open them again"):
        list(capture)


def test_nor_where_the_exception_came_between_two_packets_of_theirs() -> None:
    capture = open_capture([io.BytesIO(FILES["pcap"]), io.BytesIO(FILES["snoop"])])
    loop: Any = iter(capture)
    next(loop)
    with pytest.raises(Signalled):
        loop.throw(Signalled)
    with pytest.raises(UsageError, match="an exception ended the reading: open them again"):
        list(capture)
