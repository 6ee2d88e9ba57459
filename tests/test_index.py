"""The index of `tcpstitch extract` where there are more gaps than are held."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from small_captures import CLIENT, SERVER, capture, exchange, frame
from tcpstitch.cli import index, main
from tcpstitch.cli.index import Gaps, Index
from tcpstitch.segment import ACK, RST


@pytest.mark.parametrize("held", [1, 2, 7, 1000])
def test_gaps_come_back_from_the_spool_in_their_order(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of connections that are over at any time, and of both directions."""
    monkeypatch.setattr(index, "HELD_GAPS", held)
    rng = random.Random(held)
    written = Index(str(tmp_path))
    open_: List[Tuple[Dict[str, Any], List[List[Tuple[int, int, str]]]]] = []
    expected: List[Dict[str, Any]] = []

    def finish() -> None:
        entry, told = open_.pop(rng.randrange(len(open_)))
        written.record(entry)
        expected.append({**entry, "one": {"gaps": told[0]}, "other": {"gaps": told[1], "bytes": 1}})

    for number in range(400):
        if rng.random() < 0.1 or not open_:
            entry = {"number": number, "one": {"gaps": Gaps()}, "other": {"gaps": Gaps(), "bytes": 1}, "last": {}}
            open_.append((entry, [[], []]))
        entry, told = rng.choice(open_)
        side = rng.randrange(2)
        gap = (number, 1, rng.choice(["closed", "aged"]))
        written.add(entry[("one", "other")[side]]["gaps"], *gap)
        told[side].append(gap)
        if rng.random() < 0.05:
            finish()
    while open_:
        finish()
    written.close()
    text = (tmp_path / index.INDEX_NAME).read_text(encoding="utf-8")
    assert text == "".join(json.dumps(entry) + "\n" for entry in expected)
    assert [path.name for path in tmp_path.iterdir()] == [index.INDEX_NAME]


def test_gaps_of_connections_that_go_on_take_bounded_memory(tmp_path: Path) -> None:
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    written = Index(str(tmp_path))
    sides = [Gaps() for _ in range(50)]
    tracemalloc.start()
    try:
        for number in range(60_000):
            written.add(sides[number % 50], 10**6 + number, number + 1000, "closed")
        for side in sides:
            written.record({"gaps": side})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        written.close()
    lines = (tmp_path / index.INDEX_NAME).read_text(encoding="utf-8").splitlines()
    assert sum(len(json.loads(line)["gaps"]) for line in lines) == 60_000
    assert peak < 4 << 20


def test_extract_lists_the_same_gaps_whatever_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = exchange()[:3]
    for number in range(1, 200):
        frames.append(frame(CLIENT, SERVER, 99 + 2 * number, 500, ACK, b"x"))
    frames.append(frame(CLIENT, SERVER, 498, 500, RST | ACK))
    path = tmp_path / "gaps.pcap"
    path.write_bytes(capture(*frames).getvalue())
    texts = []
    for held in (10_000, 3):
        monkeypatch.setattr(index, "HELD_GAPS", held)
        out = tmp_path / str(held)
        assert main(["extract", str(path), "-o", str(out), "--memory", "1MiB"]) == 0
        texts.append((out / index.INDEX_NAME).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert len(json.loads(texts[0])["client_to_server"]["gaps"]) == 199
