"""gopacket's cases for its simple TCP state machine and its option check (tests/data/gopacket_checks.json).

A step is `[sender, flags, seq, ack, payload length, (next seq for the option check, -1 for none,) accepted]`.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import pytest

from support.data import load
from tcpstitch import Assembler, Direction, Flow, Segment, Stream, StreamFactory
from tcpstitch.state_machine import OptionCheck, TcpStateMachine

CASES = load("gopacket_checks.json")
CLIENT, SERVER = ("1.2.3.4", 54842), ("5.6.7.8", 53)


def names(kind: str, through_assembler: bool = False) -> List[str]:
    return [n for n, c in CASES.items() if c["kind"] == kind and c["through_assembler"] == through_assembler]


def segment_of(step: List[Any]) -> Segment:
    sender, flags, seq, ack, length = step[:5]
    source, destination = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
    return Segment.make(source, destination, seq, length * b"x", flags=flags, ack=ack)


def direction_of(step: List[Any]) -> Direction:
    return Direction.CLIENT_TO_SERVER if step[0] == "c" else Direction.SERVER_TO_CLIENT


@pytest.mark.parametrize("name", names("machine"))
def test_the_state_machine_accepts_what_gopacket_accepts(name: str) -> None:
    case = CASES[name]
    machine = TcpStateMachine(support_missing_establishment=case["support_missing_establishment"])
    for index, step in enumerate(case["steps"]):
        assert machine.check(segment_of(step), direction_of(step)) is step[-1], f"step {index}"


@pytest.mark.parametrize("name", names("options"))
def test_the_option_check_accepts_what_gopacket_accepts(name: str) -> None:
    check = OptionCheck()
    for index, step in enumerate(CASES[name]["steps"]):
        assert check.check(segment_of(step), direction_of(step), step[5]) is step[-1], f"step {index}"


class Guarded(Stream):
    def __init__(self, machine: TcpStateMachine) -> None:
        self.machine = machine
        self.accepted: List[bool] = []

    def accept(self, segment: Segment, direction: Direction) -> bool:
        self.accepted.append(self.machine.check(segment, direction))
        return self.accepted[-1]


class GuardedFactory(StreamFactory):
    def __init__(self, machine: TcpStateMachine) -> None:
        self.stream = Guarded(machine)

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        return self.stream


@pytest.mark.parametrize("name", names("machine", through_assembler=True))
def test_a_stream_can_veto_by_the_state_machine(name: str) -> None:
    """What the machine refuses is refused; segments behind the end of the connection do not reach the stream at all."""
    case = CASES[name]
    factory = GuardedFactory(TcpStateMachine(support_missing_establishment=case["support_missing_establishment"]))
    assembler = Assembler(factory, start="syn", overlap="last")
    for index, step in enumerate(case["steps"]):
        before = sum(factory.stream.accepted)
        assembler.assemble(segment_of(step), 1000.0 + index / 1000)
        assert (sum(factory.stream.accepted) > before) is step[-1], f"step {index}"


def options(sender: str, seq: int, length: int = 0, **fields: Any) -> Tuple[Segment, Direction]:
    ends = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
    return Segment.make(*ends, seq, length * b"x", **fields), Direction("cs".index(sender))


@pytest.mark.parametrize(
    "seq, length, accepted",
    [
        (100, 0, True), (100, 100, True), (100, 101, False),  # the server's MSS
        (99, 0, True), (99, 1, True),  # a keep-alive
        (99, 2, False), (98, 1, False),  # below the next byte
        (100 + 4000, 10, True), (100 + 4001, 10, False),  # the window, scaled
    ],
)  # fmt: skip
def test_the_option_check_keeps_to_mss_and_scaled_window_but_for_keep_alives(
    seq: int, length: int, accepted: bool
) -> None:
    """The receiver's, as its SYN and its last segment said."""
    check = OptionCheck()
    assert check.check(*options("c", 99, flags="S", options=b"\x02\x04\x05\xb4\x03\x03\x00\x00"), -1)
    syn_ack = b"\x02\x04\x00\x64\x03\x03\x02\x00"  # an MSS of 100, windows in units of 4
    assert check.check(*options("s", 499, flags="SA", options=syn_ack), -1)
    assert check.check(*options("s", 500, window=1000), 500)
    assert check.check(*options("c", seq, length), 100) is accepted


@pytest.mark.parametrize(
    "value, accepted",
    [(b"\x02\x04\x05\xb4", True), (b"\x02\x03\x05\x01", False), (b"\x03\x04\x01\x01", False)],
)
def test_the_option_check_refuses_a_syn_with_an_option_of_a_wrong_length(value: bytes, accepted: bool) -> None:
    assert OptionCheck().check(*options("c", 99, flags="S", options=value), -1) is accepted


def test_the_option_check_keeps_to_a_window_that_is_not_scaled() -> None:
    """A refused segment says nothing, not even about its own window."""
    check = OptionCheck()
    assert check.check(*options("s", 500, window=10), -1)
    assert check.check(*options("c", 111), 100)  # it may be scaled
    assert check.check(*options("s", 499, flags="SA", window=10), -1)
    assert check.check(*options("c", 110), 100)
    assert not check.check(*options("c", 111), 100)
    assert not check.check(*options("s", 400, window=5000), 500)
    assert not check.check(*options("c", 111), 100)


@pytest.mark.parametrize(
    "lenient, steps, state",
    [
        # What gopacket's machine gives for these; a step is the sender and the flags, with "!" where it is refused.
        (False, "cS sSA cA cFA sA sP! sFA sA! sFA! cA cA!", "closed"),
        (False, "cS sSA cFA sF! s! cA sFA cR cA!", "reset"),
        (False, "cS sS! cSA! sSA cF cFA cS!", "close_wait"),
        (True, "sSA cA", "established"),
        (True, "cSA sA", "established"),
        (True, "cFA sA cA sA", "established"),
        (True, "cF sFA", "last_ack"),
        (True, "cR cA!", "reset"),
        (True, "cS cA!", "syn_sent"),
    ],
)
def test_the_state_machine_closes_and_joins_as_gopacket_does(lenient: bool, steps: str, state: str) -> None:
    machine = TcpStateMachine(support_missing_establishment=lenient)
    for step in steps.split():
        segment, direction = options(step[0], 1, flags=step[1:].rstrip("!"))
        assert machine.check(segment, direction) is not step.endswith("!"), step
    assert machine.state == state


def test_the_option_check_takes_the_window_of_a_syn_as_it_is() -> None:
    """It is never scaled (RFC 7323 2.2); the windows that follow are."""
    check = OptionCheck()
    assert check.check(*options("s", 499, flags="SA", options=b"\x03\x03\x02\x00", window=1000), -1)
    assert not check.check(*options("c", 100 + 1001, 10), 100)
    assert check.check(*options("c", 100 + 1000, 10), 100)
    assert check.check(*options("s", 500, window=1000), 500)
    assert check.check(*options("c", 100 + 4000, 10), 100)
