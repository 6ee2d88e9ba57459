"""What the limits count for a connection and for a page is enough, whatever traffic makes them remember."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tcpstitch import Limits

pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from frames import numbered  # noqa: E402
from parts import COUNT, PAGE, PAGES, WORST_OPTIONS, Line, added, lone_pages, riddled_pages, worst  # noqa: E402

MANY = 100_000  # so that no bound is a share of the others
CONNECTION = Limits(1, 1, MANY + 1).memory_bound - Limits(1, 1, MANY).memory_bound
PAGE_AND_RECORDS = Limits(1, MANY + 1, 1).memory_bound - Limits(1, MANY, 1).memory_bound
OVERLAPS = ["first", "linux", "linux-kernel"]  # the kinds of queue and of what is known beside the bytes


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_connection_with_everything_unusual_at_once_takes_no_more_than_is_counted_for_it(checks: str) -> None:
    size, assembler = added(lambda assembler: worst(assembler, False), checks=checks, **WORST_OPTIONS)
    statistics = assembler.statistics()
    assert statistics.connections + statistics.connections_lingering == COUNT  # some wait for a reset to be confirmed
    assert statistics.pages_used == 0
    assert size <= CONNECTION


def acknowledged(assembler: Any) -> int:
    """Data in both directions, which the receivers have."""
    line = Line(assembler)
    for number in range(COUNT):
        connection = numbered(number)
        line.open(connection)
        for direction in (0, 1, 0):
            line.put(connection.segment(direction, bytes(100)))
        line.put(connection.segment(1))
    return COUNT


def test_what_waited_for_its_acknowledgement_leaves_no_queue_behind() -> None:
    arrival, _ = added(acknowledged, checks="strict")
    acked, assembler = added(acknowledged, checks="strict", delivery="acked")
    assert assembler.statistics().pages_used == 0
    assert assembler.statistics().bytes == 300 * COUNT
    assert acked < arrival + 100


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_such_connections_with_data_that_waits_take_no_more_than_they_and_their_pages_count(overlap: str) -> None:
    size, assembler = added(lambda assembler: worst(assembler, True), overlap=overlap)
    pages = assembler.statistics().pages_used / COUNT
    assert pages >= 2
    assert size + pages * PAGE <= CONNECTION + pages * PAGE_AND_RECORDS


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_single_bytes_take_no_more_than_is_counted_for_their_pages(overlap: str) -> None:
    """Under policies that need to know owners some of the pages counted stand for what is known of these."""
    size, assembler = added(riddled_pages, overlap=overlap)
    used = assembler.statistics().pages_used
    in_slabs = used if overlap == "linux-kernel" else min(used, PAGES + 4)
    assert size * used + PAGE * in_slabs <= used * PAGE_AND_RECORDS


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_a_page_alone_in_its_direction_takes_no_more_than_is_counted_for_it(overlap: str) -> None:
    size, assembler = added(lone_pages, overlap=overlap)
    assert assembler.statistics().pages_used == 2 * COUNT
    assert size + PAGE <= CONNECTION / 2 + PAGE_AND_RECORDS
