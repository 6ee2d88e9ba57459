"""The examples of docs/parallel.md do what the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple

import pytest

from tcpstitch import connections

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "parallel.md").read_text(encoding="utf-8")
LOCAL, CLUSTER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CAPTURES = [HERE / "captures" / name for name in ("clean.pcap", "lossy-v4.pcap", "lossy-v6.pcap")]


def expected(paths: List[Path]) -> List[Tuple[str, int, str]]:
    return [
        (str(connection.flow), len(connection.client_data) + len(connection.server_data), connection.reason)
        for path in paths
        for connection in connections(path)
    ]


def printed(script: Path, *arguments: str) -> List[List[str]]:
    words = [sys.executable, script.name, *arguments]
    done = subprocess.run(words, cwd=script.parent, stdout=subprocess.PIPE, check=True, timeout=120)
    return [line.rsplit(" ", 2 - len(arguments)) for line in done.stdout.decode().splitlines()]


def test_the_first_example_prints_each_connection(tmp_path: Path) -> None:
    script = tmp_path / "sizes.py"
    script.write_text(LOCAL, encoding="utf-8")
    shutil.copy(CAPTURES[1], tmp_path / "big.pcap")
    assert printed(script) == [[flow, str(size), reason] for flow, size, reason in expected(CAPTURES[1:2])]


def test_the_example_with_a_dask_cluster_prints_the_connections_of_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed: pip install tcpstitch[dask]")
    folder = tmp_path / "captures"
    folder.mkdir()
    for path in CAPTURES:
        shutil.copy(path, folder)
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER, encoding="utf-8")
    assert printed(script, str(folder)) == [[flow, str(size)] for flow, size, _ in expected(CAPTURES)]
