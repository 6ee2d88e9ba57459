"""The house stands: imports only go down the floors, and no room grows too large."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator, List, Set, Tuple

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tcpstitch"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LONGER = {"assemble": 130}  # the loop over the packets, in which a call costs a tenth of what a packet does

# Room to floor. A fraction orders rooms of one floor of docs/architecture.md that build on each other.
FLOORS = {
    "errors": 0, "sequence": 0, "notices": 0, "uncut": 0, "apart": 0.1, "checksum": 0.2, "options": 0,
    "segment": 1, "layouts": 1, "chunk": 1.5, "redblack": 1, "page": 1, "cuts": 1, "limits": 1.2, "statistics": 1.1,
    "details": 1, "history": 1.3,
    "decode": 2, "overlap": 2, "stream": 2, "rehearsal": 2.2, "hostpolicy": 2.5,
    "pages": 3,
    "pageindex": 3.5, "reorder": 4, "kernel_queue": 4.2, "shifted": 4.2, "evidence": 4.3, "keeping": 4.4,
    "sequencing": 4.4, "delivery": 4.45, "half": 4.5,
    "openings": 5, "state_machine": 5, "handshake": 5.2, "validate": 5, "resets": 5.3, "reuse": 5.35,
    "doubts": 5.4, "state": 5.5,
    "explain": 6, "pressure": 6, "settings": 6, "bounds": 6.1, "upkeep": 6.2, "lingering": 6.22, "timers": 6.25,
    "routing": 6.3, "ordinary": 6.35, "waiting": 6.37, "strictly": 6.38, "shortpath": 6.4, "assembler": 6.5,
    "capture": 7, "live": 7.5,
    "readers": 8, "metrics": 8, "worker": 8, "parallel": 8.1,
    "__init__": 8.5,  # what `from tcpstitch import ...` reaches; may import everything below
    "cli": 9, "__main__": 9.5,
}  # fmt: skip
MAY_TOUCH_THE_WORLD = 7  # clocks and files: this floor and up


def source_files() -> List[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].replace(".py", "")


def is_room(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


def imported_modules(path: Path) -> Iterator[Tuple[int, Tuple[str, ...]]]:
    """(line, dotted name in parts) of each import, also of those inside functions; relative ones made absolute."""
    package = ("tcpstitch", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, alias.name)


def imported_rooms(path: Path) -> Iterator[Tuple[int, str]]:
    for line, parts in imported_modules(path):
        if parts[0] == "tcpstitch":
            yield line, parts[1] if len(parts) > 1 and is_room(parts[1]) else "__init__"


def called_names(tree: ast.AST) -> Iterator[Tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr


def label(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


each_file = pytest.mark.parametrize("path", source_files(), ids=label)


def test_the_table_has_a_row_for_every_room_and_for_nothing_else() -> None:
    rooms: Set[str] = {room_of(path) for path in source_files()}
    assert rooms == set(FLOORS)


def test_the_architecture_page_names_every_room_on_its_floor() -> None:
    page = (SOURCE.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {
        room: int(floor)
        for floor, rooms in re.findall(r"^\| (\d) \| ([^|]*) \|", page, re.MULTILINE)
        for room in re.findall(r"`(\w+)/?`", rooms)
    }
    rooms = {room_of(path) for path in source_files()} - {"__init__", "__main__"}
    assert {room: named.get(room) for room in rooms} == {room: int(FLOORS.get(room, -1)) for room in rooms}


@each_file
def test_imports_only_go_down(path: Path) -> None:
    room = room_of(path)
    wrong = [
        f"line {line}: {room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[target]})"
        for line, target in imported_rooms(path)
        if target != room and FLOORS[target] >= FLOORS[room]
    ]
    assert wrong == []


@each_file
def test_dpkt_is_imported_by_the_decoder_only(path: Path) -> None:
    if room_of(path) != "decode":
        assert [line for line, parts in imported_modules(path) if parts[0] == "dpkt"] == []


@each_file
def test_below_the_capture_floor_there_is_no_clock_and_no_file(path: Path) -> None:
    if FLOORS[room_of(path)] >= MAY_TOUCH_THE_WORLD:
        return
    assert [line for line, parts in imported_modules(path) if parts[0] in {"time", "datetime"}] == []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [line for line, name in called_names(tree) if name == "open"] == []


@each_file
def test_files_and_functions_stay_small_enough_to_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long_functions = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > LONGER.get(node.name, MAX_FUNCTION_LINES)
    ]
    assert long_functions == []
