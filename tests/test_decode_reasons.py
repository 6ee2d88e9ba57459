"""docs/encapsulations.md explains exactly the reasons for which the decoder gives no segment."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator, Set

ROOT = Path(__file__).resolve().parent.parent


def texts(node: ast.AST) -> Iterator[str]:
    return (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str))


def counted() -> Set[str]:
    """What is raised, counted, or set as the reason why a fragment is kept back."""
    found: Set[str] = set()
    for path in (ROOT / "src" / "tcpstitch" / "decode").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                if getattr(node.func, "attr", getattr(node.func, "id", "")) in ("DecodeError", "count", "_give_up"):
                    found.update(*(set(texts(argument)) for argument in node.args))
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "reason":
                found.update(texts(node.value))
    return found - {""}


def test_the_page_has_each_reason_and_no_other() -> None:
    page = (ROOT / "docs" / "encapsulations.md").read_text(encoding="utf-8")
    table = page.partition("## Counters")[2].partition("## Speed")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == counted()
