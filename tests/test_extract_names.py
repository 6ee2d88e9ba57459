"""How `tcpstitch extract` finds a name for the next connection of a pair of endpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, List

import pytest

from tcpstitch import Segment
from tcpstitch.cli.extract import Output
from tcpstitch.segment import directed_flow

FLOW = directed_flow(Segment.make(("10.0.0.1", 40000), ("10.0.0.2", 80), 0, b""))
CLIENT_FILE, SERVER_FILE = "010.000.000.001.40000-010.000.000.002.00080", "010.000.000.002.00080-010.000.000.001.40000"


def use(directory: Path, counts: List[int]) -> None:
    for count in counts:  # of each connection one direction had data
        (directory / ((SERVER_FILE if count % 3 else CLIENT_FILE) + (f"c{count}" if count else ""))).touch()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 9, 100])
def test_the_next_connection_gets_the_next_number(tmp_path: Path, count: int) -> None:
    output = Output(str(tmp_path))
    use(tmp_path, list(range(count)))
    suffix = f"c{count}" if count else ""
    assert output.names(FLOW) == (CLIENT_FILE + suffix, SERVER_FILE + suffix)
    output.close()


@pytest.mark.parametrize("missing", range(12))
def test_a_name_is_unused_also_where_somebody_takes_files_away(tmp_path: Path, missing: int) -> None:
    output = Output(str(tmp_path))
    use(tmp_path, [count for count in range(12) if count != missing])
    assert not set(output.names(FLOW)) & set(os.listdir(tmp_path))
    output.close()


def test_finding_a_name_among_many_takes_few_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, looks, exists = Output(str(tmp_path)), [], os.path.exists
    use(tmp_path, list(range(600)))

    def counted(path: Any) -> bool:
        looks.append(path)
        return exists(path)

    monkeypatch.setattr(os.path, "exists", counted)
    assert output.names(FLOW)[0] == CLIENT_FILE + "c600"
    assert len(looks) < 50
    output.close()
