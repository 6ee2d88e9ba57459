"""The evasions in which only one side speaks, sent to the running kernel: we deliver what the application reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from kernel import Address, Kernel, Peer, record

sys.path.insert(0, str(Path(__file__).parent.parent))
from test_kernel_oracle import POLICY, Factory, Ours  # noqa: E402

from support.data import load  # noqa: E402
from support.frames import (  # noqa: E402
    fast_open_option,
    ip_packet,
    md5_option,
    tcp_segment,
    timestamps_option,
)
from tcpstitch import Assembler, Direction  # noqa: E402

_REASON = record.unavailable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(_REASON is not None, reason=str(_REASON)),
]

CASES: Dict[str, Any] = {**load("evasions.json"), **load("evasions_measured.json")}
ISN = 10_000_000
# Here the tap and the kernel do not see the same packets, or the application would have to wait before it reads.
ELSEWHERE = {
    "rst_low_ttl", "fin_low_ttl", "ack_of_unseen_data", "midstream", "data_after_syn_without_synack",
    "zero_window_probe", "zero_window_probe_conflict", "syn_two_isns", "split_handshake_4",
    "data_low_ttl", "syn_low_ttl", "two_synacks", "two_synacks_first_data", "reuse_after_rst",
    "synack_data_acked",  # Linux would have had to ask for it (RFC 7413)
    "urg_twice",  # a reader that has not yet come to the first urgent byte gets it in line
}  # fmt: skip


def client_speaks(case: Dict[str, Any]) -> bool:
    """Whether the server only answers: no data, no FIN, no SYN of its own."""
    for sender, flags, _, _, payload, *_ in case["packets"]:
        if sender == "s" and (payload or "F" in flags or flags == "S" or ("R" in flags and "A" in flags)):
            return False
    return True


def server_speaks(case: Dict[str, Any]) -> bool:
    """Whether the client only connects and answers, and some of what it hears is no part of an ordinary connection."""
    for sender, flags, seq, _, payload, *_ in case["packets"]:
        if sender == "c" and (payload or "F" in flags or flags == "S" and seq):
            return False
    return any(sender == "s" and payload for sender, _, _, _, payload, *_ in case["packets"])


CLIENTS = [name for name, case in CASES.items() if client_speaks(case) and name not in ELSEWHERE]
SERVERS = [name for name, case in CASES.items() if server_speaks(case) and name not in ELSEWHERE]


def packets_of(
    case: Dict[str, Any], speaker: str, source: Address, target: Address, peer: Peer
) -> Iterator[Optional[bytes]]:
    """The packets of one side, and None where the other, if it is the client, sends its SYN."""
    isn = case.get("client_isn", ISN) if speaker == "c" else ISN
    for sender, flags, seq, ack, payload, *rest in case["packets"]:
        if sender != speaker:
            if flags == "S" and sender == "c":
                yield None
            continue
        more = rest[0] if rest else {}
        # The kernel refuses a handshake that echoes what it never sent.
        options = timestamps_option(more["ts"][0], peer.tsval) if "ts" in more else b""
        options += md5_option() if more.get("md5") else b""
        options += fast_open_option() if more.get("tfo") else b""
        segment = tcp_segment(
            source, target, isn + seq, payload.encode("latin-1"), flags,
            ack=0 if ack is None else peer.isn + ack, window=more.get("win", 65535), options=options,
            urgent_pointer=more.get("urg", 0), doff=more.get("doff"), bad_checksum=more.get("bad_checksum", False),
        )  # fmt: skip
        yield ip_packet(source[0], target[0], segment, ttl=more.get("ttl", 64))


@pytest.fixture(scope="module")
def host() -> Iterator[Kernel]:
    running = Kernel()
    yield running
    running.close()


class OursOfServer(Ours):
    heard = Direction.SERVER_TO_CLIENT


def delivered(packets: List[bytes], stream: Callable[[], Ours] = Ours) -> List[bytes]:
    """What comes out, by connection."""
    factory = Factory(stream)
    assembler = Assembler(factory, linktype=record.LINKTYPE_RAW, **POLICY)
    for index, packet in enumerate(packets):
        assembler.assemble(packet, index / 1000)
    found = [stream.data for stream in factory.streams if stream.data]
    assembler.flush_all()
    return found


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_makes_the_application_read_is_delivered(host: Kernel, name: str) -> None:
    case = CASES[name]
    read, packets = host.replay(lambda client, server, peer: packets_of(case, "c", client, server, peer))
    assert delivered(packets) == [data for data in read if data]


@pytest.mark.parametrize("name", SERVERS)
def test_what_a_server_makes_the_application_read_is_delivered(host: Kernel, name: str) -> None:
    case = CASES[name]
    read, packets = host.replay_to_client(lambda client, server, peer: packets_of(case, "s", server, client, peer))
    assert delivered(packets, OursOfServer) == [read]
