"""Strict checks: a host that answers a SYN by other numbers, or with a RST, takes no data behind it (RFC 9293 3.10.7).

What is delivered here was read from a socket of Linux 6.18.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import pytest

from support.frames import CLIENT, SERVER, tcp_frame, timestamps_option
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler
from tcpstitch.details import NOTHING

Packet = Tuple[Any, ...]  # sender, flags, seq, ack, payload, options
CLOSED: List[Packet] = [
    ("c", "S", 1000, 0), ("s", "SA", 5000, 1001), ("c", "A", 1001, 5001), ("s", "FA", 5001, 1001),
    ("c", "FA", 1001, 5002), ("s", "A", 5002, 1002),
]  # fmt: skip
CHALLENGE: Packet = ("s", "A", 5002, 1002)
REFUSAL: Packet = ("s", "RA", 0, 1001)


def assembled(packets: List[Packet]) -> Recorder:
    recorder = Recorder()
    with Assembler(recorder, checks="strict") as assembler:
        for number, (sender, flags, seq, ack, *more) in enumerate(packets):
            ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            payload, options = (*more, b"", b"")[:2]
            frame = tcp_frame(*ends, seq, payload, flags, ack=ack, window=10, options=options)
            assembler.assemble(frame, 1000.0 + number / 100)
            assembler.check()
    return recorder


@pytest.mark.parametrize("isn", [900, 990, 1010, 2**31])
@pytest.mark.parametrize("flags", ["A", "FA"])
def test_data_behind_a_syn_that_was_answered_by_the_numbers_of_the_connection_before_does_not_count(
    flags: str, isn: int
) -> None:
    """A server in TIME-WAIT challenges a SYN whose number is too low, and goes on to do so."""
    data = ("c", flags, isn + 1, 5002, b"never")
    recorder = assembled([*CLOSED, ("c", "S", isn, 0), CHALLENGE, data, CHALLENGE])
    _, second = recorder.connections
    assert second.text() == ""
    assert not second.ended
    assert second.kinds == {"tuple_reuse", "bad_ack", "data_before_handshake"}


def test_a_challenge_covers_no_data_behind_the_syn_that_it_answers() -> None:
    """The same number as before, which data in between happens to reach."""
    data = ("c", "A", 998, 5002, b"never")
    recorder = assembled([*CLOSED, ("c", "S", 997, 0), CHALLENGE, data, CHALLENGE])
    assert recorder.connections[1].text() == ""


def test_a_challenge_covers_no_data_on_a_syn() -> None:
    recorder = assembled([*CLOSED, ("c", "S", 900, 0, b"never"), CHALLENGE])
    assert recorder.connections[1].text() == ""


def test_data_behind_a_syn_that_was_refused_does_not_count() -> None:
    recorder = assembled([("c", "S", 1000, 0), REFUSAL, ("c", "A", 1001, 1, b"never"), ("s", "R", 1, 0)])
    assert recorder.only.text() == ""


def test_a_refusal_that_was_forged_costs_nothing() -> None:
    """The handshake goes on; the tap has the data ahead of the SYN/ACK."""
    rest: List[Packet] = [("c", "A", 1001, 5001, b"one"), ("s", "SA", 5000, 1001), ("s", "A", 5001, 1004)]
    recorder = assembled([("c", "S", 1000, 0), REFUSAL, *rest, ("c", "A", 1004, 5001, b"two")])
    assert recorder.only.text() == "onetwo"


def stamp(value: int) -> bytes:
    return timestamps_option(value, 0)


@pytest.mark.parametrize("again", [5, 2_000_000], ids=["older", "newer"])
def test_a_copy_of_a_syn_does_not_set_the_clock(again: int) -> None:
    """It is answered by the SYN/ACK once more, and changes nothing."""
    recorder = assembled([
        ("c", "S", 1000, 0, b"", stamp(1_000_000)), ("s", "SA", 5000, 1001, b"", stamp(1)),
        ("c", "S", 1000, 0, b"", stamp(again)),
        ("c", "A", 1001, 5001, b"decoy", stamp(5)), ("c", "A", 1001, 5001, b"right", stamp(1_000_001)),
    ])  # fmt: skip
    assert recorder.only.text() == "right"


def test_a_copy_of_a_syn_does_not_set_the_scale_of_windows() -> None:
    scale = b"\x03\x03\x04\x01"
    recorder = assembled([
        ("c", "S", 1000, 0, b"", scale), ("s", "SA", 5000, 1001, b"", scale), ("c", "S", 1000, 0),
        ("c", "A", 1001, 5001), ("s", "A", 5021, 1001, b"more"), ("s", "A", 5001, 1001, bytes(20)),
    ])  # fmt: skip
    assert recorder.only.data(S2C) == bytes(20) + b"more"
    assert recorder.only.data(C2S) == b""
    assert recorder.kinds == set()


@pytest.mark.parametrize("checks, kept", [("lenient", False), ("strict", True)])
def test_lenient_checks_keep_nothing_of_a_refusal(checks: str, kept: bool) -> None:
    """A scan of ports is full of them."""
    assembler = Assembler(Recorder(), checks=checks)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 99, flags="S"), 1000.0)
    assembler.assemble(tcp_frame(SERVER, CLIENT, 0, flags="RA", ack=100), 1000.1)
    (state,) = {half.state for half in assembler._halves.values()}
    assert (state.details is not NOTHING) is kept
