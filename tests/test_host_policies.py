"""The overlap policy of each connection, by a function or a table of networks, and the RST rule with it."""

from __future__ import annotations

from typing import Any, List, Tuple

import pytest

from support.frames import Address
from support.recorder import C2S, S2C, Recorder
from tcpstitch import Assembler, Direction, Flow, Segment, UsageError
from tcpstitch.errors import StreamCallbackError

ISN = 2**32 - 2
A4, B4, C4 = ("10.1.2.3", 40000), ("10.1.9.9", 80), ("192.0.2.7", 80)
A6, B6 = ("2001:db8::5", 40000), ("2001:db8:1::5", 80)
# "bb" and "cccc" start together, so: first keeps b, last takes c, linux (the longer wins) takes c, bsd keeps b.
CONFLICT: List[Tuple[int, bytes]] = [(1, b"bb"), (1, b"cccc"), (0, b"a")]
BYTES = {"first": b"abbcc", "bsd": b"abbcc", "last": b"acccc", "linux": b"acccc"}


def opened(assembler: Assembler, client: Address, server: Address) -> None:
    assembler.assemble(Segment.make(client, server, ISN, flags="S"), 1000.0)
    assembler.assemble(Segment.make(server, client, ISN, flags="SA", ack=ISN + 1), 1000.0)
    assembler.assemble(Segment.make(client, server, ISN + 1, ack=ISN + 1), 1000.0)


def conflict(overlap: Any, client: Address = A4, server: Address = B4) -> Tuple[bytes, bytes]:
    """What becomes of CONFLICT, sent in both directions of one connection."""
    recorder = Recorder()
    with Assembler(recorder, overlap=overlap) as assembler:
        opened(assembler, client, server)
        for source, destination in ((client, server), (server, client)):
            for start, data in CONFLICT:
                assembler.assemble(Segment.make(source, destination, ISN + 1 + start, data, ack=ISN + 1), 1000.0)
    return recorder.only.data(C2S), recorder.only.data(S2C)


@pytest.mark.parametrize("name", BYTES)
def test_a_function_chooses_the_policy_of_a_connection(name: str) -> None:
    asked: List[Flow] = []

    def choose(flow: Flow) -> str:
        asked.append(flow)
        return name

    assert conflict(choose) == (BYTES[name], BYTES[name])
    assert [(flow.client, flow.server) for flow in asked] == [(A4, B4)]  # once, with the connection's flow


def test_each_direction_has_the_policy_of_the_host_that_receives_it() -> None:
    table = {"10.1.2.0/24": "last", "10.1.9.0/24": "first"}
    assert conflict(table, A4, B4) == (BYTES["first"], BYTES["last"])
    assert conflict(table, ("10.1.9.9", 4000), ("10.1.2.3", 80)) == (BYTES["last"], BYTES["first"])


@pytest.mark.parametrize(
    "table",
    [
        [("10.0.0.0/8", "first"), ("10.1.9.0/24", "linux"), ("10.1.0.0/16", "first")],
        {"10.1.9.9": "linux", "10.1.9.0/24": "first", "0.0.0.0/0": "first"},
        {"10.1.9.77/24": "linux"},  # host bits are let pass
        {"default": "linux", "10.1.2.0/24": "first"},
        {"0.0.0.0/0": "linux", "10.1.2.0/24": "first", "::/0": "first"},
    ],
)
def test_the_most_specific_network_wins(table: Any) -> None:
    assert conflict(table) == (BYTES["linux"], BYTES["first"])


def test_ipv6_networks_hold_ipv6_hosts_only() -> None:
    table = {"2001:db8::/48": "first", "2001:db8:1::/48": "linux", "0.0.0.0/0": "last"}
    assert conflict(table, A6, B6) == (BYTES["linux"], BYTES["first"])
    assert conflict(table, A4, C4) == (BYTES["last"], BYTES["last"])


def test_hosts_in_no_network_have_the_default_policy() -> None:
    assert conflict({"172.16.0.0/12": "last"}) == (BYTES["first"], BYTES["first"])


@pytest.mark.parametrize(
    "overlap",
    ["freebsd", None, 7, {"10.0.0.0/8": "nonsense"}, {"10.0.0.0/33": "first"}, [("10.0.0.0/8",)], {4: "last"},
     {"default": None}, "", ["first"]],
)  # fmt: skip
def test_what_cannot_work_is_refused_when_the_assembler_is_made(overlap: Any) -> None:
    with pytest.raises(UsageError):
        Assembler(Recorder(), overlap=overlap)


def failing(flow: Flow) -> str:
    raise ZeroDivisionError("no policy today")


@pytest.mark.parametrize("choose, cause", [(failing, ZeroDivisionError), (lambda flow: "rubbish", UsageError),
                                           (lambda flow: None, UsageError)])  # fmt: skip
def test_a_function_that_fails_is_a_failing_handler(choose: Any, cause: type) -> None:
    """Its stream is abandoned, the caller is told, and connections that come later go on."""
    recorder = Recorder()
    assembler = Assembler(recorder, overlap=lambda flow: choose(flow) if flow.client.port == 1 else "linux")
    bad, good = ("10.0.0.1", 1), ("10.0.0.1", 2)
    with pytest.raises(StreamCallbackError) as raised:
        assembler.assemble(Segment.make(bad, B4, ISN, flags="S"), 1000.0)
    assert isinstance(raised.value.__cause__, cause)
    opened(assembler, good, B4)
    assembler.assemble(Segment.make(bad, B4, ISN + 1, b"late"), 1000.0)
    for start, data in CONFLICT:
        assembler.assemble(Segment.make(good, B4, ISN + 1 + start, data), 1000.0)
    assembler.flush_all()
    assert [connection.completions for connection in recorder.connections] == [["abandoned"], ["flushed"]]
    assert [connection.data() for connection in recorder.connections] == [b"", BYTES["linux"]]


RESETS = {  # where strict checks take a RST, by policy
    "exact": ["first", "last", "bsd", "linux", "linux-kernel", "macos", "windows", "bsd-right"],
    "window": ["solaris", "old-linux", "vista", "win-2003", "windows2k3", "irix", "hpux10"],
    "right": ["hpux11"],
}
PLACES = {"exact": {0}, "window": {0, 1, 500}, "right": {0, 1, 500, 100_000, 2_000_000}}


@pytest.mark.parametrize("place", [-100, -1, 0, 1, 500, 100_000, 2_000_000])
@pytest.mark.parametrize("rule, policy", [(rule, policy) for rule, names in RESETS.items() for policy in names])
def test_a_reset_counts_where_the_receivers_stack_takes_it(rule: str, policy: str, place: int) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder, overlap={"10.1.9.9": policy, "default": "first"}, checks="strict")
    opened(assembler, A4, B4)
    assembler.assemble(Segment.make(A4, B4, ISN + 1, b"abc", ack=ISN + 1), 1000.0)
    assembler.assemble(Segment.make(B4, A4, ISN + 1, ack=ISN + 4), 1000.0)
    assembler.assemble(Segment.make(A4, B4, ISN + 4 + place, flags="R"), 1000.0)
    assert recorder.only.completions == (["rst"] if place in PLACES[rule] else [])
    assert ("rst_out_of_window" in recorder.kinds) is (place not in PLACES[rule] and place not in (1, 500))


@pytest.mark.parametrize("policy", [name for names in RESETS.values() for name in names])
def test_lenient_checks_take_a_reset_by_rfc_5961_whatever_the_policy(policy: str) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder, overlap=policy)
    opened(assembler, A4, B4)
    assembler.assemble(Segment.make(A4, B4, ISN + 101, flags="R"), 1000.0)
    assert recorder.only.completions == []
    assert "rst_in_window_not_exact" in recorder.kinds
    assembler.assemble(Segment.make(A4, B4, ISN + 1, flags="R"), 1000.0)
    assert recorder.only.completions == ["rst"]


def test_connections_come_and_go_without_leaving_their_policies_behind() -> None:
    """Two hundred connections with policies of their own in an assembler that may hold four."""
    from tcpstitch import Limits

    recorder = Recorder()
    overlap = {"10.1.0.0/16": "linux", "default": "last"}
    with Assembler(recorder, overlap=overlap, limits=Limits(max_connections=4)) as assembler:
        for port in range(1000, 1200):
            opened(assembler, ("192.0.2.1", port), B4)
            for start, data in CONFLICT:
                assembler.assemble(Segment.make(("192.0.2.1", port), B4, ISN + 1 + start, data), 1000.0)
            assembler.check()
    assert {connection.data(Direction.CLIENT_TO_SERVER) for connection in recorder.connections} == {BYTES["linux"]}
