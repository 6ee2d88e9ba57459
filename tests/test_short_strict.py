"""What a short step of strict checks leaves behind decides about later packets as what the rules leave would."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from support.both_ways import SCALED, STAMPED, both, opened, packet
from support.frames import md5_option, timestamps_option
from tcpstitch import Limits

SACK = b"\x01\x01\x04\x02"


def strictly(packets: List[Dict[str, Any]], **options: Any) -> Any:
    """The statistics of strict checks, the same both ways."""
    short, rules = both(packets, {"checks": "strict", **options})
    assert short == rules
    return short[-1]


def stamp(value: int) -> Dict[str, Any]:
    return {"options": timestamps_option(value, 9)}


def ended(first: str = "c", **last: Any) -> List[Dict[str, Any]]:
    """Both sides close an open connection, without a packet of its own for the first confirmation; `last` changes the
    second FIN."""
    second = "s" if first == "c" else "c"
    return [packet(first, "FA", 0), packet(second, "FA", 0, 1, **last), packet(first, "A", 1, 1)]


@pytest.mark.parametrize("options", [b"", SCALED, SACK])
@pytest.mark.parametrize("side", ["c", "s"])
def test_the_windows_of_the_handshake_bound_the_other_side(side: str, options: bytes) -> None:
    """Up to the last byte that the window allows, as the third packet scales it."""
    other = "s" if side == "c" else "c"
    handshake = opened((1000, 1000), options)
    reach = 1000 * (128 if options == SCALED and other == "c" else 1)  # only the client has shown a scaled one
    inside, outside = packet(side, "PA", reach - 100, 0, 100), packet(side, "PA", reach - 99, 0, 100)
    assert strictly([*handshake, inside]).anomalies == {}
    assert strictly([*handshake, outside]).anomalies == {"out_of_window": 1}


@pytest.mark.parametrize("side", ["c", "s"])
def test_a_window_that_shrinks_takes_nothing_back(side: str) -> None:
    """What the handshake allowed stays allowed (RFC 9293 3.8.6), whatever smaller window follows."""
    other = "s" if side == "c" else "c"
    packets = [*opened((2000, 2000)), packet(other, "A", 0, window=100), packet(side, "PA", 1900, 0, 50)]
    assert strictly(packets).anomalies == {}
    assert strictly([*packets, packet(side, "PA", 2000, 0, 50)]).anomalies == {"out_of_window": 1}


def test_a_window_that_was_never_open_takes_nothing() -> None:
    assert strictly([*opened((65535, 0)), packet("c", "PA", 0, 0, 100)]).anomalies == {"out_of_window": 1}
    assert strictly([*opened((0, 65535)), packet("s", "PA", 0, 0, 1)]).anomalies == {"zero_window_probe": 1}


@pytest.mark.parametrize("late", ["third", "FIN"])
@pytest.mark.parametrize("age, refused", [(0, False), (900, False), (1001, True)])
def test_an_old_timestamp_is_refused_in_the_opening_and_the_closing(late: str, age: int, refused: bool) -> None:
    """RFC 7323 5.3, with the slack of `validate`; what is older but taken renews nothing."""
    first = {"options": b"\x01\x01" + STAMPED[6:8] + (5000).to_bytes(4, "big") + bytes(4)}
    packets = [packet("c", "S", -1, **first), packet("s", "SA", -1, **first)]
    if late == "third":
        packets += [packet("c", "A", 0, **stamp(5000 - age)), packet("c", "A", 0, **stamp(3999))]
    else:
        packets += [packet("c", "A", 0, **stamp(5000)), packet("c", "FA", 0, **stamp(5000 - age))]
    assert strictly(packets).anomalies.get("paws_old_timestamp", 0) == refused + (late == "third")


@pytest.mark.parametrize("wrong", [{"bad_checksum": True}, {"ack": 7}, {"window": 0}, {"ttl": 61}, {"options": SACK}])
@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 5])
def test_one_wrong_packet_of_an_opening_or_a_closing_is_judged_alike(place: int, wrong: Dict[str, Any]) -> None:
    packets = [*opened(), *ended()]
    packets[place] = {**packets[place], **wrong}
    strictly(packets)
    strictly([*packets, *packets[3:]])


@pytest.mark.parametrize("first", ["c", "s"])
def test_what_follows_the_first_fin_is_taken_until_the_second(first: str) -> None:
    """The acknowledgement of a FIN, alone and with data, and an older one after it; then a reused pair of ports."""
    second = "s" if first == "c" else "c"
    packets = [*opened(), packet(first, "PA", 0, 0, 100), packet(first, "FA", 100), packet(second, "A", 0, 101)]
    packets += [packet(second, "PA", 0, 101, 700), packet(second, "PA", 700, 101, 70), packet(second, "A", 770, 100)]
    packets += [packet(first, "A", 101, 770), packet(second, "FA", 770, 101), packet(first, "A", 101, 771)]
    counted = strictly(packets)
    assert (counted.bytes, counted.completions_by_reason, counted.anomalies) == (870, {"fin": 1}, {})
    for place, ack in ((3, 1), (4, 101), (5, 102)):
        beyond = [*packets[:place], packet(second, "A", 0, ack), packet(second, "FA", 0, ack)]
        assert strictly(beyond).anomalies == {"bad_ack": 2}


@pytest.mark.parametrize("end", [packet("s", "FA", 0, 100, bad_checksum=True), packet("s", "A", 0, 101)])
def test_what_is_refused_acknowledges_nothing(end: Dict[str, Any]) -> None:
    """Else the client's next packet would be a keep-alive."""
    packets = [*opened(), packet("c", "PA", 0, 0, 100), end, packet("c", "A", 99)]
    assert "keepalive" not in strictly(packets).anomalies
    assert "keepalive" in strictly([*packets[:4], packet("s", "A", 0, 100), *packets[4:]]).anomalies


def test_a_reset_at_the_end_of_selectively_acknowledged_data_counts_for_linux() -> None:
    """What both SYNs said of SACK is known."""
    for options, reason in ((SACK, "rst"), (b"", "flushed")):
        packets = [*opened(options=options), packet("c", "PA", 100, 0, 50), packet("c", "R", 150)]
        assert strictly(packets, overlap="linux-kernel").completions_by_reason == {reason: 1}


@pytest.mark.parametrize("options", [b"", SCALED, md5_option()])
def test_the_third_packet_may_have_data(options: bytes) -> None:
    """Its checksum counts however long it is."""
    packets = [*opened(options=options)[:2], packet("c", "PA", 0, 0, 700)]
    strictly(packets)
    assert "bad_checksum" in strictly([*packets[:2], {**packets[2], "bad_checksum": True}]).anomalies


@pytest.mark.parametrize("most", [1, 10])
def test_a_connection_that_ended_lingers_as_the_rules_have_it(most: int) -> None:
    """Late packets are counted, another SYN opens the next one on the same ports, and room is made for others."""
    late = [packet("s", "PA", 0, 1, 10), packet("c", "A", 1, 1), packet("c", "FA", 0), packet("s", "RA", 1, 1)]
    again = [packet("c", "S", 50_000), packet("s", "SA", 70_000, 50_001), packet("c", "A", 50_001, 70_001)]
    elsewhere = [{**each, "source": ("10.0.0.9", 9)} for each in opened()[:1]]
    for more in (late, again, elsewhere, [*late, *again, *elsewhere], [*elsewhere, *late]):
        counted = strictly([*opened(), *ended(), *more], limits=Limits(max_connections=most))
        assert counted.completions_by_reason["fin"] == 1
