"""Reading captures: paths, file objects, several files in order, files that grow."""

from __future__ import annotations

import gc
import gzip
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from small_captures import exchange
from support.files import PACKETS, pcap, pcapng, snoop
from support.recorder import Recorder
from tcpstitch import Assembler
from tcpstitch.capture import Capture, open_capture
from tcpstitch.errors import CaptureError, CaptureWarning, UsageError


def test_a_path_is_opened_and_closed(tmp_path):
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap())
    for source in (path, str(path)):
        with open_capture(source) as capture:
            assert capture.name == str(path)
            assert list(capture) == PACKETS


def test_a_file_object_stays_open_and_standard_input_is_a_dash(monkeypatch):
    file = io.BytesIO(pcap())
    with open_capture(file) as capture:
        assert list(capture) == PACKETS
    assert not file.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcapng())))
    with open_capture("-") as capture:
        assert capture.name == "standard input"
        assert list(capture) == PACKETS


def test_several_sources_are_merged_in_time_order():
    one = io.BytesIO(pcap([(1.0, b"a"), (3.0, b"c"), (5.0, b"e")]))
    two = io.BytesIO(pcap([(2.0, b"b"), (4.0, b"d")], linktype=101))
    with open_capture([one, two]) as capture:
        assert capture.name == "<BytesIO>, <BytesIO>"
        seen = [(when, bytes(packet), capture.linktype) for when, packet in capture]
    assert seen == [(1.0, b"a", 1), (2.0, b"b", 101), (3.0, b"c", 1), (4.0, b"d", 101), (5.0, b"e", 1)]


def test_a_ring_buffer_of_more_files_than_may_be_open_is_merged(tmp_path):
    resource = pytest.importorskip("resource")
    paths = []
    for number in range(120):
        paths.append(tmp_path / f"ring{number}.pcap")
        paths[-1].write_bytes(pcap([(number + 0.25, b"x"), (number + 1.5, b"y")] if number % 9 else []))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
    try:
        with open_capture(paths[::-1]) as capture:
            times = [when for when, _ in capture]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(times) == 212 and times == sorted(times)


@pytest.mark.parametrize("make", [pcap, pcapng, snoop])
def test_files_of_a_ring_buffer_that_were_read_are_not_held(tmp_path, make):
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    paths = [tmp_path / str(number) for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(make([(1000.0 + 10 * number + index, b"data" * 300) for index in range(50)]))
    tracemalloc.start()
    try:
        with open_capture(paths) as capture:
            assert sum(1 for _ in capture) == 2000
            held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 500_000  # of 2.4 million bytes


def test_merged_files_warn_once_each(tmp_path):
    paths = [tmp_path / "one.pcap", tmp_path / "two.pcap"]
    for path in paths:
        path.write_bytes(pcap()[:-1])
    with open_capture(paths) as capture, pytest.warns(CaptureWarning) as caught:
        assert [when for when, _ in capture] == [1000.25, 1000.25, 1001.5, 1001.5]
    assert len(caught) == len(capture.warnings) == 2


@pytest.mark.parametrize("change", [pathlib.Path.unlink, lambda path: path.write_bytes(b"something else, by now")])
def test_a_file_of_several_that_is_gone_when_its_turn_comes_costs_a_warning(tmp_path, change):
    paths = [tmp_path / f"ring{number}.pcap" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(pcap([(number + 0.25, b"x"), (number + 0.5, b"y")]))
    with open_capture(paths) as capture, pytest.warns(CaptureWarning) as caught:
        change(paths[1])
        assert [when for when, _ in capture] == [0.25, 0.5, 2.25, 2.5]
        assert list(capture) == []
    assert len(caught) == len(capture.warnings) == 1
    assert capture.warnings[0].startswith(f"{paths[1]}: ") and "it has changed: " in capture.warnings[0]


def test_a_file_of_several_that_cannot_be_opened_for_want_of_descriptors_is_an_error(tmp_path):
    resource = pytest.importorskip("resource")
    paths = [tmp_path / f"at_once{number}.pcap" for number in range(70)]
    for path in paths:
        path.write_bytes(pcap([(1.0, b"x"), (2.0, b"y")]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open_capture(paths) as capture:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
        try:
            with pytest.raises(CaptureError, match="open files"):
                list(capture)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_capture_read_to_its_end_leaves_no_file_open(tmp_path):
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(open_capture(path)) == PACKETS
        assert list(open_capture([path, path])) == sorted(PACKETS * 2)
        gc.collect()


@pytest.mark.parametrize("cut_at", [24, 30, 60])
def test_a_followed_file_is_waited_for(tmp_path, cut_at):
    path = tmp_path / "growing.pcap"
    raw = pcap()
    path.write_bytes(raw[:cut_at])
    with open_capture(path, follow=True, poll_seconds=0.01) as capture:
        writer = threading.Timer(0.05, lambda: path.write_bytes(raw))
        writer.start()
        records = iter(capture)
        assert [next(records) for _ in PACKETS] == PACKETS
        writer.join()


def test_closing_ends_the_wait_for_a_followed_file_without_a_warning(tmp_path):
    path = tmp_path / "growing.pcap"
    path.write_bytes(pcap()[:-3])
    with open_capture(path, follow=True, poll_seconds=0.01) as capture:
        threading.Timer(0.05, capture.close).start()
        assert list(capture) == PACKETS[:2]
        assert capture.warnings == []


CLOSED_BY_A_SIGNAL = """
import signal, sys
from tcpstitch import Assembler
from tcpstitch.capture import Capture, open_capture
for turn in range(300):
    capture = open_capture(sys.argv[1], follow=True, poll_seconds=1e-5)
    packets = iter(capture)
    next(packets), next(packets)  # both, however slow the machine is
    signal.signal(signal.SIGALRM, lambda number, frame: capture.close())
    signal.setitimer(signal.ITIMER_REAL, 1e-3 + turn * 1e-6)
    assert list(packets) == []
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no signals by a timer on this system")
def test_a_signals_handler_may_close_whatever_the_wait_is_doing(tmp_path):
    path = tmp_path / "growing.pcap"
    path.write_bytes(pcap()[:-3])
    subprocess.run([sys.executable, "-c", CLOSED_BY_A_SIGNAL, str(path)], check=True, timeout=120)


def test_closing_in_the_middle_ends_the_iteration_without_a_warning(tmp_path):
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([(1.0, b"x" * 1000)] * 2000))
    capture = open_capture(path)
    assert next(iter(capture)) == (1.0, b"x" * 1000)
    capture.close()
    capture.close()
    assert len(list(capture)) < 1999
    assert capture.warnings == []


@pytest.mark.parametrize("kind", ["path", "file object"])
def test_an_empty_source_among_several_costs_a_warning(tmp_path, kind):
    empty = tmp_path / "newest.pcap"
    empty.write_bytes(b"")
    sources = [io.BytesIO(pcap()), empty if kind == "path" else io.BytesIO()]
    with pytest.warns(CaptureWarning, match="is empty"), open_capture(sources) as capture:
        assert list(capture) == PACKETS
    with pytest.raises(CaptureError, match="is empty"):
        open_capture(empty if kind == "path" else io.BytesIO())


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("read", [list, Assembler(Recorder()).run])
def test_a_closed_capture_of_which_nothing_was_read_says_so_instead_of_being_empty(tmp_path, read, several):
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap())
    for close in (Capture.close, lambda capture: capture.__exit__(None, None, None)):
        capture = open_capture([path, path] if several else path)
        close(capture)
        with pytest.raises(UsageError, match="some.pcap.* is closed, .* open it again"):
            read(capture)


@pytest.mark.parametrize("way", ["iterated", "run"])
def test_a_capture_that_is_closed_while_it_is_read_just_ends(tmp_path, way):
    """Whoever closes it: here a handler, in the middle; and reading on gives nothing more than what was in memory."""
    path = tmp_path / "long.pcap"
    path.write_bytes(pcap([(1.0, packet) for packet in [*exchange(), *[b"x" * 1000] * 2000]]))
    capture = open_capture(path)
    recorder = Recorder(lambda recording, chunk: capture.close())
    with Assembler(recorder) as assembler:
        for _ in range(2):
            if way == "run":
                assembler.run(capture)
            else:
                for timestamp, packet in capture:
                    assembler.assemble(packet, timestamp)
    assert 0 < assembler.statistics().packets < 1999
    assert recorder.connections[0].completions == ["fin"] and capture.warnings == []


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="needs a pipe that does not block")
def test_a_pipe_that_does_not_block_is_not_over_where_its_first_byte_is_late():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def write():
        time.sleep(0.1)  # if this comes first, the test only shows less
        os.write(writing, pcap())
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with open(reading, "rb") as file, open_capture(file, poll_seconds=0.01) as capture:
        assert list(capture) == PACKETS
    writer.join()


def test_following_can_end_after_a_silence(tmp_path):
    path = tmp_path / "done.pcap"
    path.write_bytes(pcap())
    with open_capture(path, follow=True, poll_seconds=0.01, idle_seconds=0.03) as capture:
        assert list(capture) == PACKETS


@pytest.mark.parametrize("kind", ["pcap", "gzip"])
def test_a_followed_file_that_is_written_anew_is_not_read_on_in_the_middle(tmp_path, kind):
    """What comes at the old place is no continuation: the reading ends and says why."""
    path = tmp_path / "restarted.pcap"
    raw = pcap() if kind == "pcap" else gzip.compress(pcap())
    path.write_bytes(raw)
    with open_capture(path, follow=True, poll_seconds=0.01, idle_seconds=30) as capture:
        packets = iter(capture)
        read = [next(packets) for _ in PACKETS]
        path.write_bytes(raw[:30])
        with pytest.warns(CaptureWarning, match="has become shorter"):
            assert next(packets, None) is None
    assert read == PACKETS


def test_a_file_that_cannot_be_opened_is_a_capture_error(tmp_path):
    with pytest.raises(CaptureError, match=r"absent\.pcap"):
        open_capture(tmp_path / "absent.pcap")
    with pytest.raises(CaptureError):
        open_capture(tmp_path)


@pytest.mark.parametrize("source", [5, None, [], io.StringIO("text")])
def test_an_unusable_source_is_a_usage_error(source):
    with pytest.raises(UsageError):
        open_capture(source)


def test_a_file_opened_as_text_is_answered_with_how_to_open_it(tmp_path):
    path = tmp_path / "binary.pcap"
    path.write_bytes(b"\xd4\xc3\xb2\xa1" * 20)
    with open(path, encoding="utf-8") as text, pytest.raises(UsageError, match="binary mode"):
        open_capture(text)


def test_follow_refuses_several_sources():
    with pytest.raises(UsageError):
        open_capture([io.BytesIO(pcap()), io.BytesIO(pcap())], follow=True)


@pytest.mark.parametrize(
    "source, advice",
    [
        (b"bytes", "io.BytesIO"),
        (iter(["path"]), "make a list of the paths"),
        (iter([(1.0, b"packet")]), "packets are for Assembler.run"),
        ([(1.0, b"packet")], "packets with their times are for Assembler.run"),
        ({"path"}, "not set$"),
    ],
)
def test_what_is_no_source_is_refused_with_what_to_make_of_it(source, advice):
    with pytest.raises(UsageError, match=advice):
        open_capture(source)
