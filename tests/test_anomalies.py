"""docs/anomalies.md explains exactly the kinds of anomaly that the source can raise, and names cases that show them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

from support.recorder import C2S, Recorder
from tcpstitch import Assembler, Limits, Segment
from test_evasions import CASES, MODES, outcome

ROOT = Path(__file__).resolve().parent.parent
ROWS = re.findall(r"^\| `(\w+)` \|(.*)\|$", (ROOT / "docs" / "anomalies.md").read_text(encoding="utf-8"), re.MULTILINE)
PAGE: Dict[str, List[str]] = {kind: [cell.strip() for cell in rest.split(" | ")] for kind, rest in ROWS}
REFUSALS = {"refusal", "_outside_window", "_wrong_ack"}  # functions of `validate` that return a kind


def constants(node: ast.AST) -> Iterator[str]:
    """The texts that an expression can give."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from constants(value)


def raised() -> Set[str]:
    found: Set[str] = set()
    for path in (ROOT / "src" / "tcpstitch").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in ("anomaly", "_Before"):
                    found.update(constants(node.args[0]))
            elif isinstance(node, ast.FunctionDef) and node.name in REFUSALS:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        found.update(constants(inner.value))
    return found - {""}


def test_the_page_has_a_row_for_each_kind_that_the_source_can_raise_and_no_other() -> None:
    assert len(PAGE) == len(ROWS)
    assert set(PAGE) == raised()


@pytest.mark.parametrize("kind", PAGE)
def test_a_case_that_the_page_names_shows_the_kind(kind: str) -> None:
    cells = PAGE[kind]
    names = re.findall(r"`(\w+)`", cells[3])
    assert cells[0] and cells[2], "meaning and causes"
    assert names, "no case is named"
    for name in names:
        assert name in CASES
        for mode in MODES:
            assert kind in outcome(name, mode).recorder.kinds


def test_an_anomaly_brings_the_details_that_the_page_names_each_time() -> None:
    """So that a handler may ask for one without looking whether it is there."""
    wrong = {
        (anomaly.kind, *sorted(anomaly.detail))
        for name in CASES
        for mode in MODES
        for connection in outcome(name, mode).recorder.connections
        for anomaly in connection.anomalies
        if set(anomaly.detail) != set(re.findall(r"`(\w+)`", PAGE[anomaly.kind][1]))
    }
    assert not wrong


CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
MD5 = b"\x01\x01\x13\x12" + bytes(16)


def data(offset: int, payload: bytes, options: bytes = b"") -> Segment:
    return Segment.make(CLIENT, SERVER, 1 + offset, payload, ack=1, options=options)


@pytest.mark.parametrize(
    "overlap, checks, segments",
    [
        ("first", "lenient", [data(9, b"abcdef"), data(9, b"aXcdYf")]),  # both wait
        ("linux-kernel", "lenient", [data(9, b"abcdef"), data(9, b"aXcdYf")]),
        ("first", "lenient", [data(0, b"012345678abcdef"), data(9, b"aXcdYf")]),  # the first is delivered
        ("first", "strict", [data(0, b"012345678"), data(9, b"abcdef", MD5), data(9, b"aXcdYf")]),  # it is refused
    ],
)
def test_a_conflict_goes_from_the_first_byte_that_differs_to_the_last(
    overlap: str, checks: str, segments: List[Segment]
) -> None:
    """Wherever the other version lies."""
    recorder = Recorder()
    limits = Limits(max_history_bytes_per_connection=100)
    assembler = Assembler(recorder, overlap=overlap, checks=checks, limits=limits)
    opening = [Segment.make(CLIENT, SERVER, 0, flags="S"), Segment.make(SERVER, CLIENT, 0, flags="SA", ack=1)]
    for segment in [*opening, *segments]:
        assembler.assemble(segment, 1.0)
    (conflict,) = [each for each in recorder.only.anomalies if each.kind == "overlap_conflict"]
    told = {name: conflict.detail[name] for name in ("length", "old", "new")}
    assert (conflict.offset, told) == (10, {"length": 4, "old": b"bcde", "new": b"XcdY"})


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_byte_into_a_window_that_has_opened_again_is_no_probe(checks: str) -> None:
    shut, opened = (Segment.make(SERVER, CLIENT, 1, ack=1, window=window) for window in (0, 900))
    opening = [Segment.make(CLIENT, SERVER, 0, flags="S"), Segment.make(SERVER, CLIENT, 0, flags="SA", ack=1)]
    for told, windows in ({"zero_window_probe"}, [shut]), (set(), [shut, opened]):
        recorder = Recorder()
        assembler = Assembler(recorder, checks=checks)
        for segment in [*opening, data(0, b""), *windows, data(0, b"X")]:
            assembler.assemble(segment, 1.0)
        assert recorder.kinds == told


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("opening", [[], ["S"]])
def test_a_signed_connection_of_which_no_syn_was_captured_is_signed_from_its_first_segments(
    opening: List[str], checks: str
) -> None:
    """BGP sessions stay open for months."""
    recorder = Recorder()
    with Assembler(recorder, checks=checks) as assembler:
        for flags in opening:
            assembler.assemble(Segment.make(CLIENT, SERVER, 99, flags=flags, options=MD5), 1.0)
        for seq, ack, payload in ((100, 500, b"update"), (106, 500, b"again")):
            assembler.assemble(Segment.make(CLIENT, SERVER, seq, payload, ack=ack, options=MD5), 2.0)
            assembler.assemble(Segment.make(SERVER, CLIENT, 500, ack=seq + len(payload), options=MD5), 2.0)
    assert recorder.only.data(C2S) == b"updateagain"
    assert "unexpected_md5" not in recorder.only.kinds
