"""Which RST ends a connection, which waits for silence to confirm it, and which counts for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from support.frames import CLIENT, SERVER, md5_option
from support.recorder import Recorder
from tcpstitch import Assembler, Segment
from test_port_reuse import CHECKS, FORMS, assembled, exchange, handshake, streams


@FORMS
@CHECKS
@pytest.mark.parametrize("ack", [1000, 1002])
def test_a_refusal_of_another_number_than_the_syn_s_refuses_nothing(ack: int, checks: str, form: str) -> None:
    """RFC 9293 3.10.7.3."""
    recorder = assembled([("c", "S", 1000, 0, b""), ("s", "RA", 0, ack, b"")], form, checks=checks)
    assert (recorder.only.completions, recorder.kinds) == (["flushed"], {"rst_bad_ack"})


@FORMS
@CHECKS
@pytest.mark.parametrize("place", [1005, 1010])
def test_where_no_start_was_seen_a_reset_ahead_ends_the_connection(place: int, checks: str, form: str) -> None:
    recorder = assembled([("c", "A", 1001, 5001, b"held"), ("c", "RA", place, 5001, b"")], form, checks=checks)
    assert streams(recorder) == [("held", "", ["rst"])]
    assert recorder.kinds == {"midstream"}


@FORMS
def test_an_acknowledgement_refutes_only_the_resets_before_it(form: str) -> None:
    packets = [*handshake(1000, 5000), ("c", "A", 1001, 5001, b"0123456789"), ("s", "A", 5001, 1003, b"")]
    early, late, answer = ("c", "R", 1005, 0, b""), ("c", "R", 1009, 0, b""), ("s", "A", 5001, 1007, b"")
    ends = [assembled([*packets, *resets, answer], form).only.completions for resets in ([early], [late, early])]
    assert ends == [["flushed"], ["rst"]]


@FORMS
@CHECKS
def test_an_endpoint_reads_nothing_behind_the_reset_that_answers_data_in_flight(checks: str, form: str) -> None:
    """An observer does: the server may have sent it before the RST reached it (RFC 9293 3.10.7.1)."""
    packets = [
        *exchange(1000, 5000, b"one", b"ONE"), ("c", "FA", 1004, 5004, b""), ("s", "A", 5004, 1005, b"TWO"),
        ("c", "R", 1005, 0, b""), ("s", "A", 5007, 1005, b"THREE"),
    ]  # fmt: skip
    end = ("ONETWO", ["rst"]) if checks == "strict" else ("ONETWOTHREE", ["flushed"])
    assert streams(assembled(packets, form, checks=checks)) == [("one", *end)]


@CHECKS
@pytest.mark.parametrize("signed, ends", [([False, False, True], ["flushed"]), ([True, True, True], ["rst"])])
def test_a_signed_reset_counts_where_all_is_signed(signed: Any, ends: Any, checks: str) -> None:
    """RFC 2385: who has agreed on no key drops it."""
    recorder = Recorder()
    with Assembler(recorder, checks=checks) as assembler:
        for (sender, seq, ack, flags), signs in zip(
            [("c", 1000, 0, "S"), ("s", 5000, 1001, "SA"), ("c", 1001, 5001, "A"), ("c", 1001, 5001, "RA")],
            [signed[0], signed[0], signed[1], signed[2]],
        ):
            ends_of = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
            options = md5_option() if signs else b""
            assembler.assemble(Segment.make(*ends_of, seq, flags=flags, ack=ack, options=options), 1000.0)
    assert recorder.only.completions == ends


@FORMS
def test_a_reset_behind_data_of_a_syn_ack_ends_the_connection_that_has_them(form: str) -> None:
    """With Fast Open a server may speak before the handshake is over; another SYN begins another connection."""
    refused = [("c", "S", 1000, 0, b""), ("s", "SA", 5000, 1001, b"early"), ("c", "RA", 1001, 5006, b"")]
    recorder = assembled([*refused, *exchange(90_000, 70_000, b"question", b"answer")], form)
    assert streams(recorder) == [("", "early", ["rst"]), ("question", "answer", ["flushed"])]
