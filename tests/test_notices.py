"""What the logger "tcpstitch" hears; without anybody who listens, nothing is written anywhere."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any, List, Tuple

import pytest

from support.frames import SERVER
from support.recorder import Recorder, Recording
from tcpstitch import Assembler, Limits, Segment, StreamCallbackError

FLOODED = """
from tcpstitch import Assembler, Limits, Segment, Stream, StreamFactory
class Factory(StreamFactory):
    def new(self, flow, segment, timestamp):
        return Stream()
assembler = Assembler(Factory(), limits=Limits(max_connections=1))
for port in range(100):
    assembler.assemble(Segment.make(("10.0.0.1", port), ("10.0.0.2", 80), 1, b"data"), 1.0)
assert assembler.statistics().evictions_by_kind == {"connection_idle": 99}
"""


def heard(caplog: pytest.LogCaptureFixture) -> List[Tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "tcpstitch"]


def flood(assembler: Assembler, count: int, flags: str, data: bytes = b"") -> None:
    for number in range(count):
        assembler.assemble(Segment.make(("10.0.0.1", 40000 + number), SERVER, 999, data, flags=flags), 1.0)


def test_evictions_are_logged_at_powers_of_ten_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tcpstitch")
    assembler = Assembler(Recorder(), limits=Limits(max_connections=1))
    flood(assembler, 500, "S")
    assert assembler.statistics().evictions_by_kind == {"connection_embryonic": 499}
    assert len(heard(caplog)) == 3
    assert "half-open" in heard(caplog)[0][1] and "10.0.0.1:40000 > 10.0.0.2:80" in heard(caplog)[0][1]


@pytest.mark.parametrize("flags, data, level", [("S", b"", logging.INFO), ("A", b"data", logging.WARNING)])
def test_what_may_cost_data_is_a_warning(caplog: Any, flags: str, data: bytes, level: int) -> None:
    """A half-open connection has none; one that is given up because it was idle longest may go on."""
    caplog.set_level(logging.INFO, "tcpstitch")
    flood(Assembler(Recorder(), limits=Limits(max_connections=1)), 2, flags, data)
    assert [found for found, _ in heard(caplog)] == [level]


def test_a_program_that_set_up_no_logging_gets_nothing_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", FLOODED], stderr=subprocess.PIPE, check=True)
    assert done.stderr == b""


def test_of_several_handlers_that_fail_at_once_the_first_is_raised_and_the_others_are_logged(caplog: Any) -> None:
    def fail(recording: Recording, chunk: Any) -> None:
        raise ValueError(recording.flow.client.port)

    assembler = Assembler(Recorder(fail))
    for port in (1, 2, 3):
        client = ("10.0.0.1", port)
        assembler.assemble(Segment.make(client, SERVER, 99, flags="S"), 1.0)
        assembler.assemble(Segment.make(client, SERVER, 200, b"behind a hole"), 1.0)
    with pytest.raises(StreamCallbackError) as raised:
        assembler.flush_all()
    ports = {1, 2, 3} - {raised.value.__cause__.args[0]}  # type: ignore[union-attr]
    assert sorted(heard(caplog)) == [
        (logging.WARNING, f"handler of 10.0.0.1:{port} > 10.0.0.2:80 raised ValueError({port}) as well")
        for port in sorted(ports)
    ]


def test_a_pressure_callback_that_fails_beside_a_handler_is_logged_too(caplog: Any) -> None:
    def fail(anything: Any, chunk: Any = None) -> None:
        raise ValueError("of the callback" if chunk is None else "of the handler")

    assembler = Assembler(Recorder(fail), limits=Limits(max_connections=1), on_pressure=fail)
    with pytest.raises(StreamCallbackError, match="of the callback"):
        assembler.assemble(Segment.make(("10.0.0.1", 1), SERVER, 99, flags="S"), 1.0)
    with pytest.raises(StreamCallbackError, match="of the handler"):  # whose end makes room
        assembler.assemble(Segment.make(("10.0.0.1", 1), SERVER, 100, b"data"), 1.0)
    assert heard(caplog) == [(logging.WARNING, "on_pressure raised ValueError('of the callback') as well")]
