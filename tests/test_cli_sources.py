"""The command reading from a pipe, from a file that grows, and from the files of a ring buffer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, List

import pytest

from small_captures import capture, exchange
from tcpstitch.capture.stopping import STOP_SIGNALS, stop_on
from tcpstitch.cli import main

COMMAND = [sys.executable, "-m", "tcpstitch", "list"]
LINE = b"10.0.0.1:40000 > 10.0.0.2:80  client 11 bytes 0 missing  server 7 bytes 0 missing  fin\n"


def started(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams)


def let_it_wait(process: subprocess.Popen[bytes]) -> None:
    """Until it catches SIGTERM, as Linux tells, however slow it starts; then for its first look at the input."""
    status = Path(f"/proc/{process.pid}/status")
    while status.exists() and process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.05)
    time.sleep(0.2 if status.exists() else 1.0)


def out(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def test_a_pipe_is_read_as_it_is_written() -> None:
    """The line of a finished connection comes while the writer still holds the pipe open, as tcpdump -w - does."""
    process = started("-", stdin=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        process.stdin.write(capture(*exchange()).getvalue())
        process.stdin.flush()
        assert out(process).readline() == LINE
        process.stdin.write(capture(*exchange(client=("10.0.0.9", 1))).getvalue()[24:])
        process.stdin.close()
        assert out(process).readline().startswith(b"10.0.0.9:1 > ")
        assert out(process).read() == b""
        assert process.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_pipe_is_silent_flushes_what_is_open(number: int) -> None:
    """An open connection is listed as flushed, and the exit status is 0, though the pipe never ends."""
    process = started("-", stdin=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        frames = exchange() + exchange(client=("10.0.0.9", 1))[:5]
        process.stdin.write(capture(*frames).getvalue())
        process.stdin.flush()
        assert out(process).readline() == LINE
        time.sleep(0.3)  # let it wait for more
        process.send_signal(number)
        assert out(process).read().endswith(b"client 11 bytes 0 missing  server 0 bytes 0 missing  flushed\n")
        assert process.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("pause, ends_well", [(0.02, True), (0.9, False)])
def test_a_signal_sent_twice_at_once_is_one_and_a_later_one_ends_the_program(pause: float, ends_well: bool) -> None:
    """As `timeout` sends it, to the process and to its group."""
    waits = """
import time
from tcpstitch.capture.stopping import STOP_SIGNALS, stop_on
with stop_on(STOP_SIGNALS, lambda: print("stop", flush=True)):
    print("ready", flush=True)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        time.sleep(0.05)
print("end")
"""
    with subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE) as process:
        assert out(process).readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert out(process).readline() == b"stop\n"
        time.sleep(pause)
        process.send_signal(signal.SIGTERM)
        assert out(process).read() == (b"end\n" if ends_well else b"")
    assert process.returncode == (0 if ends_well else -signal.SIGTERM)


BEHIND = """
import signal, time
from tcpstitch.capture.stopping import STOP_SIGNALS, stop_on
with stop_on(STOP_SIGNALS, lambda: print("stop")):
    signal.raise_signal(signal.SIGTERM)
signal.raise_signal(signal.SIGTERM)
print("flushed", flush=True)
time.sleep(0.6)
signal.raise_signal(signal.SIGTERM)
print("went on")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_sent_twice_at_once_ends_nothing_either_where_the_first_has_ended_the_reading() -> None:
    """What was read is being flushed then. Later on a signal does what it did."""
    done = subprocess.run([sys.executable, "-c", BEHIND], stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"stop\nflushed\n")


EARLY = """
import os, signal, sys
from tcpstitch.assembler import Assembler
from tcpstitch.cli import main
run = Assembler.run
def interrupted(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    run(*arguments)
Assembler.run = interrupted
sys.exit(main(["list", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_that_the_program_around_python_handles_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python cannot put such a handler back, of which it knows nothing but that there is one."""
    taken: List[Any] = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: taken.append(handler))
    with stop_on(STOP_SIGNALS, lambda: None):
        pass
    assert taken == []


def test_a_signal_before_the_first_packet_ends_the_command_as_a_later_one_does(tmp_path: Path) -> None:
    """With a summary of what was in memory already, and no error."""
    path = tmp_path / "some.pcap"
    path.write_bytes(capture(*exchange()).getvalue())
    words = [sys.executable, "-c", EARLY, str(path)]
    done = subprocess.run([*words, "--follow"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr[:11]) == (0, LINE, b"9 packets, ")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["a file that grows", "a pipe", "standard input"])
def test_a_signal_before_anything_has_come_ends_the_command_with_a_summary(
    kind: str, number: int, tmp_path: Path
) -> None:
    path = tmp_path / "nothing"
    if kind == "a file that grows":
        path.write_bytes(b"")
        process = started("--follow", str(path))
    elif kind == "a pipe":
        os.mkfifo(path)
        process = started(str(path))
        writer = os.open(path, os.O_WRONLY)  # comes back once the other end is open
    else:
        process = started("-", stdin=subprocess.PIPE)
    with process:
        let_it_wait(process)
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None and process.stderr.read().startswith(b"0 packets, ")
    if kind == "a pipe":
        os.close(writer)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["its path", "-"])
def test_a_file_that_a_signal_cuts_short_is_not_taken_for_a_whole_one(tmp_path: Path, name: str) -> None:
    """What was read is used, as of a file that is cut: a warning, and status 1. Also where it is standard input."""
    path = tmp_path / "some.pcap"
    path.write_bytes(capture(*exchange()).getvalue())
    words = [sys.executable, "-c", EARLY, name if name == "-" else str(path)]
    with path.open("rb") as file:
        done = subprocess.run(words, stdin=file, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tcpstitch: warning: stopped by a signal: the rest was not read\n")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_growing_file_is_followed_until_a_signal(tmp_path: Path) -> None:
    """What is appended later is listed; a record half written is waited for, and is no damage at the end."""
    path = tmp_path / "growing.pcap"
    raw = capture(*exchange()).getvalue()
    path.write_bytes(raw[:200])
    process = started("--follow", str(path))
    with process, path.open("ab") as file:
        file.write(raw[200:-9])
        file.flush()
        time.sleep(0.3)
        file.write(raw[-9:])
        file.flush()
        assert out(process).readline() == LINE
        file.write(raw[24:60])
        file.flush()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert process.stderr is not None and b"warning" not in process.stderr.read()


@pytest.mark.skipif(os.name != "posix", reason="pipes that can be waited for")
def test_a_followed_pipe_ends_when_its_writer_does() -> None:
    """Nobody else can write to it; what its last packet lacks is missing."""
    words = [sys.executable, "-m", "tcpstitch", "list", "--follow", "-"]
    cut = capture(*exchange()).getvalue()[:-9]
    done = subprocess.run(words, input=cut, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1 and done.stdout
    assert b"standard input: " in done.stderr and b"in the middle of a packet" in done.stderr


def test_the_index_tells_of_a_connection_as_soon_as_it_is_over(tmp_path: Path) -> None:
    """While a file is followed: with the files that it names, written to the end."""
    path, target = tmp_path / "growing.pcap", tmp_path / "out"
    path.write_bytes(capture(*exchange()).getvalue())
    words = [sys.executable, "-m", "tcpstitch", "extract", "--follow", str(path), "-o", str(target)]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        try:
            index, deadline = target / "index.jsonl", time.monotonic() + 30
            while not (index.exists() and index.read_text(encoding="utf-8")) and time.monotonic() < deadline:
                time.sleep(0.05)
            entry = json.loads(index.read_text(encoding="utf-8"))
            assert (target / entry["client_to_server"]["file"]).read_bytes() == b"hello there"
        finally:
            process.kill()


def ring(directory: Path) -> List[str]:
    """Files whose names are not in the order of time, and a connection that spans all of them."""
    whole = capture(*exchange()).getvalue()
    head, size, packets = whole[:24], 0, []
    while 24 + size < len(whole):
        length = 16 + int.from_bytes(whole[24 + size + 8 : 24 + size + 12], "little")
        packets.append(whole[24 + size : 24 + size + length])
        size += length
    names = []
    for number, start in ((2, 0), (0, 3), (1, 6)):
        names.append(str(directory / f"ring{number}.pcap"))
        Path(names[-1]).write_bytes(head + b"".join(packets[start : start + 3]))
    return sorted(names)


def test_the_files_of_a_ring_buffer_are_one_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A connection across three files, given by name and not by time, is one whole connection."""
    assert main(["list", *ring(tmp_path)]) == 0
    assert capsys.readouterr().out.encode() == LINE


def test_a_file_of_a_ring_into_which_nothing_was_written_yet_costs_a_warning(tmp_path: Path, capsys: Any) -> None:
    """tcpdump makes the next file before it has a packet for it. Alone it is no capture."""
    names, empty = ring(tmp_path), tmp_path / "ring0.pcap0"
    empty.touch()
    assert main(["list", str(empty), *names]) == 1
    printed = capsys.readouterr()
    assert printed.out.encode() == LINE
    assert printed.err.startswith(f"tcpstitch: warning: {empty}: at byte 0: the file is empty\n9 packets")
    assert main(["list", str(empty)]) == 2


def test_extract_reads_several_files_too(tmp_path: Path) -> None:
    names = ring(tmp_path)
    assert main(["extract", *names, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "010.000.000.001.40000-010.000.000.002.00080").read_bytes() == b"hello there"
