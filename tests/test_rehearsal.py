"""What runs once before PyPy compiles."""

from __future__ import annotations

from typing import Any, List

from tcpstitch import Assembler, Statistics
from tcpstitch.rehearsal import rehearse


def test_the_rehearsal_meets_what_is_compiled_apart() -> None:
    """It has data that waits in pages, comes twice and fills a hole, a hole that is given up, and an orderly end."""
    seen: List[Statistics] = []

    class Watched(Assembler):
        def __exit__(self, *raised: Any) -> None:
            super().__exit__(*raised)
            seen.append(self.statistics())

    rehearse(Watched)
    assert len(seen) == 2
    for statistics in seen:
        assert statistics.gaps_by_reason == {"acknowledged": 2}
        assert statistics.completions_by_reason == {"fin": 1}
        assert statistics.anomalies == {"retransmission": 5}
        assert statistics.pages_peak > 4 and not statistics.decode_errors
