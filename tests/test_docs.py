"""The Python examples of README and docs run as they are pasted, in the clone, and print what the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

import tcpstitch.live
from tcpstitch import Assembler, Limits, Stream, StreamFactory, connections, open_capture
from tcpstitch.limits import CONNECTION_BYTES

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = ROOT / "tests" / "captures"
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(page: str) -> List[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


QUICK_START, CONNECTIONS, LIVE = blocks("README.md")
PARALLEL, CLUSTER = blocks("docs/parallel.md")
HOSTS, ORDERLY, CAREFUL = blocks("docs/tcp-rules.md")


def printed(script: str, folder: Path, *arguments: str) -> List[str]:
    """The lines that a script prints which is run in the clone; saved elsewhere, so that nothing is left there."""
    path = folder / "example.py"
    path.write_text(script, encoding="utf-8")
    words = [sys.executable, str(path), *arguments]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=120)
    return done.stdout.decode().splitlines()


def test_every_example_is_run_here() -> None:
    """A page with a new one fails, until it is run below too."""
    counts = {page.relative_to(ROOT).as_posix(): len(blocks(str(page))) for page in PAGES}
    assert {page: count for page, count in counts.items() if count} == {
        "README.md": 3, "docs/parallel.md": 2, "docs/tcp-rules.md": 3
    }  # fmt: skip


def test_the_quick_start_prints_what_stands_below_it(tmp_path: Path) -> None:
    lines = printed(QUICK_START, tmp_path)
    assert "\n".join(["```", *lines, "```"]) in README
    assert any("missing" in line for line in lines) and any("missing" not in line for line in lines)


def test_the_command_prints_what_stands_below_it() -> None:
    arguments = ["list", "tests/captures/caploss.pcap"]
    done = subprocess.run(
        [sys.executable, "-m", "tcpstitch", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, timeout=120,
    )  # fmt: skip
    assert "\n".join(["```", f"$ tcpstitch {' '.join(arguments)}", done.stdout.decode() + "```"]) in README


def test_the_example_of_connections_prints_the_bytes_of_both_sides(tmp_path: Path) -> None:
    assert sorted(printed(CONNECTIONS, tmp_path))[0] == "10.9.0.1:35989 > 10.9.0.2:8080 3 9 fin"
    assert len(printed(CONNECTIONS, tmp_path)) == 4


def test_the_live_example_goes_behind_the_quick_start(monkeypatch: Any, capsys: Any) -> None:
    """With packets of a file instead of those of an interface."""
    monkeypatch.chdir(ROOT)
    names = {"__name__": "example"}
    exec(QUICK_START, names)
    first = capsys.readouterr().out
    asked = []

    def sniff(interface: str, filter: str) -> Any:
        asked.append((interface, filter))
        return open_capture(CAPTURES / "caploss.pcap")

    monkeypatch.setattr(tcpstitch.live, "sniff", sniff)
    exec(LIVE, names)
    assert capsys.readouterr().out == first
    assert asked == [("any", "tcp port 8080")]


def test_the_first_example_of_several_cores_prints_each_connection(tmp_path: Path) -> None:
    expected = [
        f"{whole.flow} {len(whole.client_data) + len(whole.server_data)} {whole.reason}"
        for whole in connections(CAPTURES / "lossy-v4.pcap")
    ]
    assert printed(PARALLEL, tmp_path) == expected


def test_the_example_with_a_dask_cluster_prints_the_connections_of_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed: pip install tcpstitch[dask]")
    folder = tmp_path / "captures"
    folder.mkdir()
    expected = []
    for name in ("clean.pcap", "lossy-v4.pcap", "lossy-v6.pcap"):
        shutil.copy(CAPTURES / name, folder)
        for whole in connections(CAPTURES / name):
            expected.append(f"{whole.flow} {len(whole.client_data) + len(whole.server_data)}")
    assert printed(CLUSTER, tmp_path, str(folder)) == expected


def test_the_example_of_policies_by_host_prints_each_connection(tmp_path: Path) -> None:
    lines = printed(HOSTS, tmp_path)
    assert len(lines) == 3
    assert "<Connection 10.9.0.1:55789 > 10.9.0.2:8080 client=30000 server=30000 gaps=0 reason='fin'>" in lines


@pytest.mark.parametrize("name, script", [("Orderly", ORDERLY), ("Careful", CAREFUL)])
def test_the_examples_of_gopackets_checks_refuse_nothing_of_an_orderly_capture(name: str, script: str) -> None:
    names: Any = {"__name__": "example"}
    exec(script, names)

    class Factory(StreamFactory):
        def new(self, flow: Any, segment: Any, timestamp: float) -> Stream:
            stream: Stream = names[name]()
            return stream

    with Assembler(Factory()) as assembler, open_capture(CAPTURES / "clean.pcap") as packets:
        assembler.run(packets)
    assert (assembler.statistics().bytes, assembler.statistics().missing_bytes) == (140_002, 0)


def test_the_bounds_are_those_of_the_code() -> None:
    words = " ".join(README.split())
    limits = Limits()
    assert f"{limits.max_connections:,} of {CONNECTION_BYTES:,} bytes at most".replace(",", " ") in words
    assert f"all bounds amount to {limits.memory_bound / 2**30:.1f} GiB" in words
    assert f"{limits.max_buffered_pages_total:,} × {limits.page_size} bytes".replace(",", " ", 1) in words


@pytest.mark.parametrize("page", ["Makefile", "CONTRIBUTING.md"])
def test_the_source_package_has_what_is_run_from_it(page: str) -> None:
    named = set(re.findall(r"(?<![\w./])(\.?\w+)/\w+", (ROOT / page).read_text(encoding="utf-8")))
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool.hatch.build.targets.sdist]")[1]
    packed = re.findall(r'"/([\w.]+)"', settings.splitlines()[1])
    folders = {name for name in named if (ROOT / name).is_dir() and not (ROOT / name / "pyvenv.cfg").exists()}
    assert folders and folders <= set(packed)
