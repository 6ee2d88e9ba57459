"""Live capture as far as it can be tested without rights: what is refused, and what drops become."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest

from small_captures import capture, exchange
from support.recorder import Recorder
from tcpstitch import Assembler, CaptureError, UsageError, open_capture
from tcpstitch.cli import main
from tcpstitch.live import Live, sniff

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="packet sockets are of Linux")


@pytest.fixture
def live() -> Iterator[Live]:
    try:
        made = sniff("lo")
    except CaptureError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def send_to_itself(data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(data, sock.getsockname())


@linux
def test_a_closed_live_capture_of_which_nothing_was_read_says_so(live: Live) -> None:
    live.close()
    for read in (iter, list, Assembler(Recorder()).run):
        with pytest.raises(UsageError, match="^lo: the capture is closed, .* call sniff"):
            read(live)
    live.close()


@linux
def test_closing_a_live_capture_while_it_is_iterated_ends_that_quietly(live: Live) -> None:
    send_to_itself(b"first")
    send_to_itself(b"second")
    count = 0
    for _ in live:
        live.close()
        count += 1
    assert count == 1 and list(live) == []


@linux
def test_the_next_loop_goes_on_where_a_signals_handler_ended_the_wait(live: Live) -> None:
    """And a third one ends at once, where the second was stopped."""

    def alarm(number: int, frame: Any) -> None:
        raise TimeoutError

    sent = [os.urandom(100) for _ in range(20)]  # another run of this test may send on the same interface
    got = []
    before = signal.signal(signal.SIGALRM, alarm)
    try:
        for data in sent:
            send_to_itself(data)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeoutError):
                got.extend(live)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    send_to_itself(b"last" * 25)
    live.stop()
    got.extend(live)
    assert [packet[-100:] for _, packet in got if packet[-100:] in sent] == sent
    assert any(packet.endswith(b"last" * 25) for _, packet in got)
    assert list(live) == []


@linux
def test_a_capture_that_another_thread_closes_while_it_is_asked_for_drops_says_what_it_knows() -> None:
    """As when metrics are read in a thread of their own."""

    class ClosedMeanwhile(socket.socket):
        def getsockopt(self, *which: Any) -> Any:
            self.close()
            return super().getsockopt(*which)

    live = Live("lo", ClosedMeanwhile(), 1, 65536, ())
    assembler = Assembler(Recorder())
    assembler.watch_drops(live)
    assert assembler.statistics().dropped == 0
    live.close()


@linux
def test_a_forked_child_that_closes_its_copy_leaves_the_other_waiting(live: Live, monkeypatch: Any) -> None:
    """Each wait ends with a packet, or with the one word of the child's stop; it used to end at once from then on."""
    waits = 0

    class Counted:
        def __init__(self) -> None:
            self.poll_object = poll()
            self.register = self.poll_object.register

        def poll(self) -> Any:
            nonlocal waits
            waits += 1
            return self.poll_object.poll()

    poll = select.poll
    monkeypatch.setattr("select.poll", Counted)
    child = os.fork()
    if not child:
        try:
            live.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    timer = threading.Timer(0.2, live.stop)
    timer.start()
    for _ in live:
        pass
    timer.join()
    assert 0 < waits <= live.received + 2


@linux
@pytest.mark.parametrize("name", ["lo", "any", "nope0"])
def test_without_a_file_left_to_open_the_capture_cannot_begin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socket", none_left)
    with pytest.raises(CaptureError, match=f"^{name}: cannot be captured: Too many open files$"):
        sniff(name)


@linux
@pytest.mark.parametrize("name", ["nope0", "lo\0", "\udcff", "\ud800", "lo" + 20 * "o"])
def test_an_interface_that_does_not_exist_is_named_with_those_that_do(name: str) -> None:
    with pytest.raises(CaptureError, match=f"^{name}: no such interface; there are: .*lo.*, any$"):
        sniff(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"interface": ""}, {"interface": 7}, {"snaplen": 10}, {"snaplen": 1 << 30}, {"filter": 80}, {"signals": 15},
        {"signals": ("TERM",)}, {"signals": (999,)}, {"signals": (9,)}, {"buffer_bytes": "16MiB"}, {"buffer_bytes": 0},
        {"buffer_bytes": 1 << 31}, {"filter": "tcp\0"}, {"filter": "tcp or " * 100_000 + "tcp"},
    ],
)  # fmt: skip
@linux
def test_arguments_that_cannot_work_are_refused(wrong: Any) -> None:
    if "filter" in wrong and shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    with pytest.raises(UsageError, match=next(iter(wrong))) as caught:
        sniff(**{"interface": "lo", **wrong})
    assert len(str(caught.value)) < 1000


@linux
def test_without_rights_one_line_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The command started by somebody who may not capture: status 2 and one line, no traceback."""

    class Refused(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *rest: Any, **options: Any) -> None:
            if family == socket.AF_PACKET:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            super().__init__(family, *rest, **options)

    if os.geteuid() == 0:  # who is root is refused by this stand-in, others by the kernel
        monkeypatch.setattr("socket.socket", Refused)
    for interface in ("any", "lo"):
        assert main(["list", "-i", interface]) == 2
        said = capsys.readouterr().err
        assert said == f"tcpstitch: {interface}: capturing needs root, or the capability CAP_NET_RAW\n"


def test_another_system_is_told_what_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.AF_PACKET", raising=False)
    with pytest.raises(CaptureError, match=r"needs Linux; elsewhere use: tcpdump -B 65536 -U -w - \| tcpstitch list -"):
        sniff("en0")


@linux
def test_a_filter_without_tcpdump_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *arguments, **options: None)
    with pytest.raises(UsageError, match="needs tcpdump"):
        sniff("any", filter="tcp")


@linux
@pytest.mark.parametrize("steps", [5000, 70_000])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_filter_that_the_kernel_refuses_is_named(live: Live, steps: int, monkeypatch: Any, tmp_path: Path) -> None:
    """It takes 4096 steps, and none back: another filter would do, it is not the interface that cannot be captured."""
    program = "40 0 0 12\n" * (steps - 1) + "6 0 0 1\n"
    (tmp_path / "tcpdump").write_text(f"#!/bin/sh\ncat <<end\n{steps}\n{program}end\n")
    (tmp_path / "tcpdump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UsageError, match="^filter 'tcp': the kernel refuses its program"):
        sniff("lo", filter="tcp")


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.pcap", "-i", "lo"], ["a.pcap", "-f", "tcp"], ["-i", "lo", "--follow"], ["a.pcap", "b.pcap", "--follow"]],
)
def test_commands_that_mix_files_and_interfaces_are_refused(arguments: Any, capsys: Any) -> None:
    assert main(["list", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_packets_that_a_source_dropped_are_in_the_statistics() -> None:
    """Any source that knows what it lost is asked by `run`; a second one adds to the first."""

    class Lossy:
        def __init__(self, dropped: int) -> None:
            self.dropped = dropped

        def __iter__(self) -> Any:
            return iter(open_capture(capture(*exchange())))

    assembler = Assembler(Recorder())
    assert assembler.statistics().dropped == 0
    first = Lossy(3)
    assembler.run(first)
    assembler.run(first)
    assembler.run(Lossy(4))
    first.dropped += 1
    assert assembler.statistics().dropped == 8
