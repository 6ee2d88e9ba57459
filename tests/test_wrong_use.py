"""The caller's mistakes raise at once, and the message says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from support.recorder import Recorder
from tcpstitch import Assembler, UsageError


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


@pytest.mark.parametrize("stamps", [("noon",), (None,), (1.0, "noon")])
def test_flushing_takes_times_in_seconds(stamps: Any) -> None:
    """Also where there is nothing to flush."""
    with pytest.raises(UsageError, match="seconds"):
        Assembler(Recorder()).flush_older_than(*stamps)
