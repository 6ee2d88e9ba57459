"""connections(): whole connections from a capture."""

from __future__ import annotations

import io
import struct
from ipaddress import ip_address
from typing import Any, List, Tuple

import pytest

from tcpstitch import connections
from tcpstitch.errors import CaptureError, UsageError

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
SYN, FIN, ACK, RST = 2, 1, 16, 4


def frame(source: Tuple[str, int], target: Tuple[str, int], seq: int, flags: int, payload: bytes = b"") -> bytes:
    """An Ethernet frame with IPv4 or IPv6 and TCP; checksums left out."""
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], seq & 0xFFFFFFFF, 1, 0x50, flags, 65535, 0, 0) + payload
    addresses = ip_address(source[0]).packed + ip_address(target[0]).packed
    if len(addresses) == 8:
        network = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
        return b"\2" * 12 + b"\x08\x00" + network + tcp
    return b"\2" * 12 + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + addresses + tcp


def capture(*frames: bytes) -> io.BytesIO:
    """A pcap file, one packet per second."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for second, data in enumerate(frames):
        parts.append(struct.pack("<IIII", 1000 + second, 0, len(data), len(data)) + data)
    return io.BytesIO(b"".join(parts))


def exchange(client: Tuple[str, int] = CLIENT, server: Tuple[str, int] = SERVER) -> List[bytes]:
    """A whole connection whose client's data comes out of order."""
    return [
        frame(client, server, 99, SYN),
        frame(server, client, 499, SYN | ACK),
        frame(client, server, 100, ACK),
        frame(client, server, 105, ACK, b" there"),
        frame(client, server, 100, ACK, b"hello"),
        frame(server, client, 500, ACK, b"welcome"),
        frame(client, server, 111, FIN | ACK),
        frame(server, client, 507, FIN | ACK),
        frame(client, server, 112, ACK),
    ]


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


@pytest.mark.parametrize("options", [{"overlap": "newest"}, {"checks": "sometimes"}])
def test_a_wrong_option_raises_at_once(options: Any) -> None:
    with pytest.raises(UsageError):
        connections(capture(), **options)


def test_a_file_that_is_no_capture_raises_when_iterated() -> None:
    with pytest.raises(CaptureError):
        list(connections(io.BytesIO(b"this is no capture file at all")))
