"""The caller's mistakes raise at once, and the message says what to do."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from small_captures import exchange
from support.frames import CLIENT, SERVER, tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Timeouts, UsageError

FRAME = tcp_frame(CLIENT, SERVER, 100, b"hello")


@pytest.mark.parametrize("factory", [Recorder, None, object(), "factory"])
def test_a_factory_must_be_an_object_that_makes_streams(factory: Any) -> None:
    """Also the class instead of an object of it is refused before the first packet."""
    with pytest.raises(UsageError, match="give a StreamFactory"):
        Assembler(factory)


@pytest.mark.parametrize("capture", ["capture.pcap", b"capture.pcap", None, 7])
def test_run_takes_packets_and_not_a_path(capture: Any) -> None:
    """The message names open_capture."""
    with pytest.raises(UsageError, match="open_capture"):
        Assembler(Recorder()).run(capture)


@pytest.mark.parametrize("time", ["noon", None, b"1.0", object()])
def test_a_packets_time_must_be_a_number(time: Any) -> None:
    """The first packet with something else is refused, and the message says what is wanted."""
    with pytest.raises(UsageError, match="give seconds"):
        Assembler(Recorder()).assemble(FRAME, time)


@pytest.mark.parametrize("exact", [Decimal, Fraction])
def test_a_packets_time_may_be_an_exact_number(exact: Any) -> None:
    """dpkt reads nanosecond captures with `Decimal` times: all happens as it does with floats, also at the timers."""
    outcomes = []
    for kind in (float, exact):
        recorder = Recorder()
        assembler = Assembler(recorder, timeouts=Timeouts(idle=60))
        for at, packet in enumerate(exchange()[:-3]):
            assembler.assemble(packet, kind(1000 + at / 4))
        assembler.assemble(FRAME, kind(1200))
        assembler.flush_older_than(kind(1300), kind(1300))
        outcomes.append(([connection.completions for connection in recorder.connections], assembler.statistics()))
    assert outcomes[0] == outcomes[1]
    assert ["idle"] in outcomes[0][0]


@pytest.mark.parametrize("stamps", [("noon",), (None,), (1.0, "noon")])
def test_flushing_takes_times_in_seconds(stamps: Any) -> None:
    """Also where there is nothing to flush."""
    with pytest.raises(UsageError, match="seconds"):
        Assembler(Recorder()).flush_older_than(*stamps)
