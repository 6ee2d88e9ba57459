"""The README's Python examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List

from small_captures import ACK, CLIENT, SERVER, capture, exchange, frame

README = Path(__file__).resolve().parent.parent / "README.md"


def examples() -> List[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(example: str, folder: Path, monkeypatch: Any, *frames: bytes) -> None:
    (folder / "capture.pcap").write_bytes(capture(*frames).getvalue())
    monkeypatch.chdir(folder)
    exec(compile(example, str(README), "exec"), {"__name__": "example"})


def test_the_quick_start_prints_a_first_line_that_came_in_two_pieces(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    start = exchange()[:3]
    first = frame(CLIENT, SERVER, 100, 500, ACK, b"GET / HT")
    second = frame(CLIENT, SERVER, 108, 500, ACK, b"TP/1.1\r\nmore")
    run(examples()[0], tmp_path, monkeypatch, *start, first, second)
    assert capsys.readouterr().out == "10.0.0.1:40000 GET / HTTP/1.1\r\n"


def test_the_example_of_connections_prints_the_bytes_of_both_sides(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    run(examples()[1], tmp_path, monkeypatch, *exchange())
    assert capsys.readouterr().out == "10.0.0.1:40000 > 10.0.0.2:80 11 7 fin\n"
