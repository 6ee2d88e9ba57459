"""Live transfers between two kernels over an impaired wire come out as the bytes that the applications sent."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Dict, Tuple

import pytest

from support.recorder import HashingFactory
from tcpstitch import Assembler, Direction, Limits
from tcpstitch.capture import open_capture

sys.path.insert(0, str(Path(__file__).parent.parent / "captures"))
import record  # noqa: E402

_REASON = record.unavailable()
pytestmark = [pytest.mark.root, pytest.mark.skipif(_REASON is not None, reason=str(_REASON))]

BOTH_BUSY = ((2_000_000, 2_000_000), (1_000_000, 50_000), (20, 1_000_000))
SETTINGS = {
    "clean": record.Settings(BOTH_BUSY),
    "little loss, IPv4": record.Settings(BOTH_BUSY, loss=0.005, reorder=0.02, duplicate=0.01, seed=11),
    "little loss, IPv6": record.Settings(BOTH_BUSY, version=6, loss=0.005, reorder=0.02, duplicate=0.01, seed=12),
    "no timestamps": record.Settings(BOTH_BUSY, timestamps=False, loss=0.01, reorder=0.05, seed=13),
    "heavy reordering": record.Settings(BOTH_BUSY, reorder=0.4, duplicate=0.05, reorder_delay=0.006, seed=14),
    "many duplicates, IPv6, no timestamps": record.Settings(
        BOTH_BUSY, version=6, timestamps=False, duplicate=0.3, reorder=0.1, loss=0.002, seed=15
    ),
    "small buffers, slow readers": record.Settings(
        ((150_000, 150_000), (9, 100_000)), loss=0.01, reorder=0.2, reorder_delay=0.006, receive_buffer=4096,
        pause=0.03, seed=17,
    ),
    "heavy loss, small packets": record.Settings(((150_000, 150_000), (9, 100_000)), loss=0.06, mtu=576, seed=16),
}
# A receive window of Linux grows to 6 MB: behind one lost packet more is in flight than the default limit holds.
LIMITS = Limits(max_buffered_pages_per_connection=6000)


@pytest.fixture(scope="module", params=list(SETTINGS))
def recording(request: pytest.FixtureRequest) -> Tuple[bytes, Dict]:
    """One transfer, as a pcap file's bytes and its truth."""
    packets, truth = record.record(SETTINGS[request.param])
    file = io.BytesIO()
    record.write_pcap(file, packets)
    return file.getvalue(), truth


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_live_transfer_gives_the_bytes_that_the_applications_sent(recording: Tuple[bytes, Dict], checks: str) -> None:
    pcap, truth = recording
    factory = HashingFactory()
    with Assembler(factory, limits=LIMITS, checks=checks) as assembler, open_capture(io.BytesIO(pcap)) as capture:
        assembler.run(capture)
    assert len(factory.streams) == len(truth["connections"])
    streams = {stream.flow.client.port: stream for stream in factory.streams}
    for connection in truth["connections"]:
        stream = streams[connection["client"][1]]
        assert stream.gaps == []
        for way, direction in (("up", Direction.CLIENT_TO_SERVER), ("down", Direction.SERVER_TO_CLIENT)):
            assert connection[way]["received_intact"]
            assert stream.sizes[direction] == connection[way]["bytes"]
            assert stream.hashes[direction].hexdigest() == connection[way]["sha256"]
        assert stream.reason == "fin"
    assert assembler.statistics().pages_used == 0
