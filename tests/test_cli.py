"""The tcpstitch command, run in this process; one test runs it as users do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

import tcpstitch
from small_captures import ACK, CLIENT, RST, SERVER, SYN, capture, exchange, frame, tagged
from tcpstitch.cli import main

CLIENT_FILE = "010.000.000.001.40000-010.000.000.002.00080"
SERVER_FILE = "010.000.000.002.00080-010.000.000.001.40000"


def write(path: Path, *frames: bytes) -> str:
    path.write_bytes(capture(*frames).getvalue())
    return str(path)


@pytest.fixture
def sample(tmp_path: Path) -> str:
    return write(tmp_path / "sample.pcap", *exchange())


def extract(source: str, target: Path, *options: str) -> Tuple[int, List[Dict[str, Any]]]:
    status = main(["extract", source, "-o", str(target), *options])
    return status, [json.loads(line) for line in (target / "index.jsonl").read_text().splitlines()]


def test_list_prints_one_line_per_connection_and_a_summary_apart(sample: str, capsys: Any) -> None:
    assert main(["list", sample]) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "10.0.0.1:40000 > 10.0.0.2:80  client 11 bytes 0 missing  server 7 bytes 0 missing  fin\n"
    )
    assert "1 connection" in printed.err and len(printed.err.splitlines()) == 1


def test_list_counts_missing_bytes(tmp_path: Path, capsys: Any) -> None:
    frames = exchange()
    del frames[4]
    assert main(["list", write(tmp_path / "gap.pcap", *frames)]) == 0
    assert "client 6 bytes 5 missing" in capsys.readouterr().out


def test_list_reads_standard_input(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(capture(*exchange())))
    assert main(["list", "-"]) == 0
    assert "client 11 bytes" in capsys.readouterr().out


def test_extract_writes_a_file_per_direction_named_as_tcpflow_does(sample: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    status, (entry,) = extract(sample, target)
    assert status == 0
    assert sorted(path.name for path in target.iterdir()) == [CLIENT_FILE, SERVER_FILE, "index.jsonl"]
    assert (target / CLIENT_FILE).read_bytes() == b"hello there"
    assert (target / SERVER_FILE).read_bytes() == b"welcome"
    assert entry == {
        "client": {"address": "10.0.0.1", "port": 40000},
        "server": {"address": "10.0.0.2", "port": 80},
        "start": 1000.0,
        "reason": "fin",
        "client_to_server": {"file": CLIENT_FILE, "bytes": 11, "missing": 0, "gaps": []},
        "server_to_client": {"file": SERVER_FILE, "bytes": 7, "missing": 0, "gaps": []},
        "anomalies": entry["anomalies"],
    }


def test_extract_leaves_missing_bytes_out_and_lists_them_in_the_index(tmp_path: Path) -> None:
    frames = exchange()
    del frames[4]
    _, (entry,) = extract(write(tmp_path / "gap.pcap", *frames), tmp_path / "out")
    side = entry["client_to_server"]
    assert (tmp_path / "out" / side["file"]).read_bytes() == b" there"
    assert side["missing"] == 5
    assert [gap[:2] for gap in side["gaps"]] == [[0, 5]]


def test_extract_writes_ipv6_addresses_in_full(tmp_path: Path) -> None:
    frames = exchange(("fd00::1", 40000), ("fd00::2", 80))
    _, (entry,) = extract(write(tmp_path / "v6.pcap", *frames), tmp_path / "out")
    full = "fd00:0000:0000:0000:0000:0000:0000:000"
    assert entry["client_to_server"]["file"] == f"{full}1.40000-{full}2.00080"


def test_extract_gives_a_recurring_pair_of_endpoints_a_suffix(tmp_path: Path) -> None:
    again = [
        frame(CLIENT, SERVER, 900_000, 0, SYN),
        frame(SERVER, CLIENT, 700_000, 900_001, SYN | ACK),
        frame(CLIENT, SERVER, 900_001, 700_001, ACK, b"second"),
        frame(CLIENT, SERVER, 900_007, 700_001, RST | ACK),
    ]
    third = [
        frame(CLIENT, SERVER, 3_900_000, 0, SYN),
        frame(SERVER, CLIENT, 3_700_000, 3_900_001, SYN | ACK),
        frame(SERVER, CLIENT, 3_700_001, 3_900_001, ACK, b"third"),
    ]
    _, entries = extract(write(tmp_path / "again.pcap", *exchange(), *again, *third), tmp_path / "out")
    assert [entry["client_to_server"]["file"] for entry in entries] == [CLIENT_FILE, CLIENT_FILE + "c1", None]
    assert [entry["server_to_client"]["file"] for entry in entries] == [SERVER_FILE, None, SERVER_FILE + "c2"]
    assert (tmp_path / "out" / (CLIENT_FILE + "c1")).read_bytes() == b"second"


def test_the_index_tells_connections_in_different_vlans_apart(tmp_path: Path) -> None:
    source = write(tmp_path / "tagged.pcap", *exchange(), *map(tagged, exchange()))
    status, entries = extract(source, tmp_path / "out", "--flow-key", "vlan")
    assert status == 0
    assert [entry.get("context") for entry in entries] == [None, ["vlan 42"]]


def test_extract_makes_no_file_for_a_connection_without_data(tmp_path: Path) -> None:
    _, (entry,) = extract(write(tmp_path / "syn.pcap", frame(CLIENT, SERVER, 1, 0, SYN)), tmp_path / "out")
    assert entry["client_to_server"] == {"file": None, "bytes": 0, "missing": 0, "gaps": []}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.jsonl"]


def test_extract_keeps_many_interleaved_streams_apart(tmp_path: Path) -> None:
    whole = [exchange((f"10.1.{number // 200}.{number % 200 + 1}", 40000)) for number in range(400)]
    frames = [packets[step] for step in range(len(whole[0])) for packets in whole]
    _, entries = extract(write(tmp_path / "many.pcap", *frames), tmp_path / "out")
    assert len(entries) == 400
    for entry in entries:
        assert (tmp_path / "out" / entry["client_to_server"]["file"]).read_bytes() == b"hello there"


def test_extract_refuses_a_directory_with_something_in_it(sample: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["extract", sample, "-o", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["list", "extract"])
@pytest.mark.parametrize("content", [None, b"", b"\x7fELF but no capture, whatever its name says"])
def test_bad_input_is_status_2_and_one_line(command: str, content: Any, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "bad.pcap"
    if content is not None:
        path.write_bytes(content)
    target = tmp_path / "out"
    assert main([command, str(path), *(["-o", str(target)] if command == "extract" else [])]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1 and "bad.pcap" in printed.err
    assert not target.exists()


def test_a_missing_file_is_named_once_and_why(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "absent.pcap"
    assert main(["list", str(path)]) == 2
    assert capsys.readouterr().err == f"tcpstitch: {path}: cannot be opened: No such file or directory\n"
    assert main(["list", ""]) == 2  # an unset variable of a shell
    assert capsys.readouterr().err == "tcpstitch: '': cannot be opened: No such file or directory\n"


def test_extract_into_an_empty_name_says_so(sample: str, capsys: Any) -> None:
    assert main(["extract", sample, "-o", ""]) == 2
    assert "the output's name is empty" in capsys.readouterr().err


def test_extract_into_a_file_says_that_it_is_no_directory(sample: str, capsys: Any) -> None:
    assert main(["extract", sample, "-o", sample]) == 2
    assert capsys.readouterr().err == f"tcpstitch: {sample}: is no directory; give a new one\n"


@pytest.mark.parametrize(
    "arguments", [[], ["show"], ["list", "--newest"], ["list", "-s", "few"], ["extract", "a.pcap"]]
)
def test_a_command_line_that_cannot_be_read_is_status_2_and_one_line(arguments: List[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "--help" in error


def test_the_help_tells_what_the_status_means(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Exit status: 0, " in capsys.readouterr().out


def test_an_unknown_option_leads_to_the_help_of_the_command_that_was_named(sample: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["list", sample, "--newest"])
    assert capsys.readouterr().err == "tcpstitch: unrecognized arguments: --newest; see tcpstitch list --help\n"


def test_files_may_stand_on_either_side_of_an_option(sample: str, tmp_path: Path, capsys: Any) -> None:
    other = write(tmp_path / "other.pcap", frame(CLIENT, ("10.0.0.3", 80), 100, 0, SYN))
    assert main(["list", sample, "--memory", "64MiB", other]) == 0
    assert "2 connections" in capsys.readouterr().err


def test_a_name_of_a_file_with_control_characters_stays_in_its_line(tmp_path: Path, capsys: Any) -> None:
    cut = tmp_path / "line\n\x1b[31m.pcap"
    cut.write_bytes(capture(*exchange()).getvalue()[:-1])
    assert main(["list", str(cut)]) == 1
    warning, _ = capsys.readouterr().err.splitlines()
    assert r"line\n\x1b[31m.pcap: at byte" in warning and warning.isprintable()


def test_files_and_an_interface_together_are_told_from_neither(sample: str, capsys: Any) -> None:
    assert main(["list", sample, "-i", "lo"]) == 2
    assert capsys.readouterr().err.startswith("tcpstitch: not both: ")
    assert main(["list"]) == 2
    assert capsys.readouterr().err.startswith("tcpstitch: name one or more")


@pytest.mark.parametrize("option", [["-f", "tcp"], ["-s", "96"], ["-p"]])
def test_an_option_of_live_captures_is_refused_for_a_file(option: List[str], sample: str, capsys: Any) -> None:
    assert main(["list", sample, *option]) == 2
    assert "live capture only" in capsys.readouterr().err


def test_standard_input_twice_is_refused(capsys: Any) -> None:
    assert main(["list", "-", "-"]) == 2
    assert "once only" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--overlap", "newest"], ["--checks", "loose"], ["--memory", "plenty"], ["--memory", "1"], ["--memory", ""],
        ["-i", ""],
    ],
)  # fmt: skip
def test_a_wrong_option_is_status_2_and_one_line(options: List[str], sample: str, capsys: Any) -> None:
    assert main(["list", sample, *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("options", [["--overlap", "last"], ["--checks", "strict"], ["--memory", "16MiB"]])
def test_the_options_reach_the_assembler(options: List[str], sample: str, capsys: Any) -> None:
    assert main(["list", sample, *options]) == 0
    assert "client 11 bytes" in capsys.readouterr().out


def test_a_cut_capture_gives_what_is_whole_a_warning_and_status_1(sample: str, tmp_path: Path, capsys: Any) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(Path(sample).read_bytes()[:-5])
    assert main(["list", str(cut)]) == 1
    printed = capsys.readouterr()
    assert "client 11 bytes" in printed.out
    assert [line for line in printed.err.splitlines() if "warning" in line and "cut.pcap" in line]


def test_python_m_runs_the_command_and_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    frames = [frame((f"10.2.{n // 250}.{n % 250 + 1}", 1000), SERVER, 1, 0, SYN) for n in range(5000)]
    source = write(tmp_path / "many.pcap", *frames)
    process = subprocess.Popen(
        [sys.executable, "-m", "tcpstitch", "list", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert first.startswith(b"10.2.")
    assert (process.wait(), errors) == (0, b"")


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX closes the descriptors")
@pytest.mark.parametrize(
    "command, status, said",
    [
        ("list FILE >&-", 2, "tcpstitch: standard output is closed: there is nowhere to list to"),
        ("list - <&-", 2, "tcpstitch: standard input: is closed"),
        ("extract FILE -o DIR >&-", 0, "2 files in DIR"),
        ("list FILE 2>&-", 0, None),
    ],
)
def test_closed_standard_streams_are_no_traceback(
    sample: str, tmp_path: Path, command: str, status: int, said: Any
) -> None:
    """What does not need the stream goes on without it; where it is needed one line says so."""
    words = command.replace("FILE", sample).replace("DIR", str(tmp_path / "new"))
    ran = subprocess.run(f"{sys.executable} -m tcpstitch {words}", shell=True, capture_output=True, text=True)
    assert ran.returncode == status
    if said is None:
        assert ran.stdout.count("\n") == 1 and "10.0.0.1:40000 > " in ran.stdout
    else:
        assert ran.stderr.strip().endswith(said.replace("DIR", str(tmp_path / "new"))) and ran.stderr.count("\n") == 1


@pytest.mark.parametrize("size", ["9" * 400 + "GiB", "1" * 5000, "0.5"])
def test_a_memory_size_that_no_machine_has_is_one_line(sample: str, capsys: Any, size: str) -> None:
    """Whatever number it is."""
    assert main(["list", sample, "--memory", size]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_version_is_the_packages(capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"tcpstitch {tcpstitch.__version__}\n")


def test_a_line_is_written_as_soon_as_its_connection_is_over_where_packets_come_through_a_pipe() -> None:
    """Whoever reads the output of a live capture waits for it."""
    words = [sys.executable, "-m", "tcpstitch", "list", "-"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(capture(*exchange()).getvalue())
        process.stdin.flush()
        giving_up = threading.Timer(60, process.kill)
        giving_up.start()
        line = process.stdout.readline()  # standard input is open still
        giving_up.cancel()
        process.stdin.close()
        assert line.startswith(b"10.0.0.1:40000 > 10.0.0.2:80  client 11 bytes") and process.stdout.read() == b""
        assert process.wait(60) == 0


def test_the_summary_says_what_was_given_up_for_memory(tmp_path: Path, capsys: Any) -> None:
    """Or else what is missing for that would seem to be missing from the capture."""
    behind_a_hole = [frame(CLIENT, SERVER, 1000 + 1400 * i, 1, ACK, bytes(1400)) for i in range(100)]
    source = write(tmp_path / "hole.pcap", frame(CLIENT, SERVER, 1, 0, SYN), *behind_a_hole)
    assert main(["list", source, "--memory", "1MiB"]) == 0
    assert "1 gap, given up at a limit: page_limit 1\n" in capsys.readouterr().err
    assert main(["list", source]) == 0
    assert "limit" not in capsys.readouterr().err


def test_the_summary_says_why_segments_came_to_no_connection(tmp_path: Path, sample: str, capsys: Any) -> None:
    assert main(["list", write(tmp_path / "acks.pcap", frame(CLIENT, SERVER, 1, 1, ACK))]) == 0
    assert "1 TCP segment, 0 connections" in (said := capsys.readouterr().err) and "1 opened none" in said
    assert main(["list", sample]) == 0
    assert "opened none" not in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_list_says_where_there_is_no_room(sample: str) -> None:
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "tcpstitch", "list", sample]
        ran = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, "tcpstitch: standard output: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("source, status", [("whole", 0), ("cut", 1), ("absent", 2)])
def test_the_status_tells_also_where_there_is_no_room_for_the_summary(tmp_path: Path, source: str, status: int) -> None:
    path = write(tmp_path / "whole", *exchange())
    (tmp_path / "cut").write_bytes(Path(path).read_bytes()[:-9])
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "tcpstitch", "list", str(tmp_path / source)]
        ran = subprocess.run(words, stdout=subprocess.PIPE, stderr=full, check=False)
    assert (ran.returncode, bool(ran.stdout)) == (status, status != 2)


def test_extract_says_where_there_is_no_room(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits on the size of files here")
    frames = [frame(CLIENT, SERVER, 1 + 1000 * i, 1, ACK, bytes(1000)) for i in range(9)]
    source = write(tmp_path / "long.pcap", *frames)
    target = tmp_path / "out"
    ran = subprocess.run(
        [sys.executable, "-m", "tcpstitch", "extract", source, "-o", str(target)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"tcpstitch: {target}: ") and len(ran.stderr.splitlines()) == 1


def test_extract_makes_do_with_the_files_that_may_be_open(tmp_path: Path) -> None:
    """Fewer than it would keep open, of more connections at once."""
    resource = pytest.importorskip("resource", reason="no limits on open files here")
    sent = {f"010.000.000.001.{port:05d}": b"number %d" % port for port in range(1000, 1060)}
    clients = [("10.0.0.1", int(name[-5:])) for name in sent]
    syns = [frame(client, SERVER, 1, 0, SYN) for client in clients]
    data = [frame(client, SERVER, 2, 1, ACK, sent[name]) for name, client in zip(sent, clients)]
    source = write(tmp_path / "many.pcap", *syns, *data)
    ran = subprocess.run(
        [sys.executable, "-m", "tcpstitch", "extract", source, "-o", str(tmp_path / "out")], capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    written = {path.name[: len("010.000.000.001.01000")]: path.read_bytes() for path in (tmp_path / "out").glob("0*")}
    assert written == sent
