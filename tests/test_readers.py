"""connections(): whole connections from a capture."""

from __future__ import annotations

import io
from typing import Any

import pytest

from small_captures import CLIENT, SERVER, capture, exchange
from tcpstitch import connections
from tcpstitch.errors import CaptureError, UsageError


def test_a_connection_comes_with_both_directions_in_order() -> None:
    (connection,) = connections(capture(*exchange()))
    assert (connection.flow.client, connection.flow.server) == (CLIENT, SERVER)
    assert (connection.client_data, connection.server_data) == (b"hello there", b"welcome")
    assert (connection.gaps, connection.reason, connection.start_time) == ([], "fin", 1000.0)


def test_ipv6_connections_come_out_as_well() -> None:
    (connection,) = connections(capture(*exchange(("fd00::1", 40000), ("fd00::2", 80))))
    assert connection.client_data == b"hello there"


def test_connections_come_in_the_order_in_which_they_end() -> None:
    late, early = exchange(), exchange(("10.0.0.3", 40001))
    found = connections(capture(*late[:5], *early, *late[5:]))
    assert [connection.flow.client.port for connection in found] == [40001, 40000]


def test_a_connection_is_given_before_the_capture_ends() -> None:
    source = capture(*exchange(), *exchange(("10.0.0.3", 40001)))
    found = connections(source)
    assert next(found).flow.client == CLIENT
    assert next(found).flow.client == ("10.0.0.3", 40001)
    assert list(found) == []


def test_missing_bytes_are_left_out_and_listed() -> None:
    frames = exchange()
    del frames[4]
    (connection,) = connections(capture(*frames))
    assert connection.client_data == b" there"
    assert [(gap.direction, gap.offset, gap.length) for gap in connection.gaps] == [(0, 0, 5)]


def test_a_connection_that_never_ends_is_given_at_the_end_of_the_capture() -> None:
    (connection,) = connections(capture(*exchange()[:6]))
    assert (connection.client_data, connection.reason) == (b"hello there", "flushed")


def test_anomalies_are_those_until_the_end_of_the_connection() -> None:
    """What comes while it lingers does not change a connection that the caller has already."""
    frames = exchange()
    again = frames[4]
    found = connections(capture(*frames[:6], again, *frames[6:], again, again))
    first = next(found)
    assert [anomaly.kind for anomaly in first.anomalies] == ["retransmission"]
    assert list(found) == []
    assert len(first.anomalies) == 1


def test_a_connection_is_shown_in_one_line() -> None:
    (connection,) = connections(capture(*exchange()))
    assert repr(connection) == "<Connection 10.0.0.1:40000 > 10.0.0.2:80 client=11 server=7 gaps=0 reason='fin'>"


@pytest.mark.parametrize("options", [{"overlap": "newest"}, {"checks": "sometimes"}])
def test_a_wrong_option_raises_at_once(options: Any) -> None:
    with pytest.raises(UsageError):
        connections(capture(), **options)


def test_a_file_that_is_no_capture_raises_when_iterated() -> None:
    with pytest.raises(CaptureError):
        list(connections(io.BytesIO(b"this is no capture file at all")))


@pytest.mark.parametrize("name", ["factory", "follow"])
def test_what_whole_connections_have_no_use_for_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"takes no {name}"):
        connections("capture.pcap", **{name: None})
