"""The evasions in which only the client speaks, sent to the running kernel: we deliver what the application reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from kernel import Address, Kernel, Peer, record

sys.path.insert(0, str(Path(__file__).parent.parent))
from test_kernel_oracle import POLICY, Factory  # noqa: E402

from support.data import load  # noqa: E402
from support.frames import (  # noqa: E402
    fast_open_option,
    ip_packet,
    md5_option,
    tcp_segment,
    timestamps_option,
)
from tcpstitch import Assembler  # noqa: E402

_REASON = record.unavailable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(_REASON is not None, reason=str(_REASON)),
]

CASES: Dict[str, Any] = {**load("evasions.json"), **load("evasions_measured.json")}
CLIENT_ISN = 10_000_000
# Here the tap and the kernel do not see the same packets, or the application would have to wait before it reads.
ELSEWHERE = {
    "rst_low_ttl", "fin_low_ttl", "ack_of_unseen_data", "midstream", "data_after_syn_without_synack",
    "zero_window_probe", "zero_window_probe_conflict", "syn_two_isns", "split_handshake_4",
    "data_low_ttl", "syn_low_ttl", "two_synacks", "two_synacks_first_data", "reuse_after_rst",
    "urg_twice",  # a reader that has not yet come to the first urgent byte gets it in line
}  # fmt: skip


def client_speaks(case: Dict[str, Any]) -> bool:
    """Whether the server only answers: no data, no FIN, no SYN of its own."""
    for sender, flags, _, _, payload, *_ in case["packets"]:
        if sender == "s" and (payload or "F" in flags or flags == "S" or ("R" in flags and "A" in flags)):
            return False
    return True


CHOSEN = [name for name, case in CASES.items() if client_speaks(case) and name not in ELSEWHERE]


def packets_of(case: Dict[str, Any], client: Address, server: Address, peer: Peer) -> Iterator[bytes]:
    isn = case.get("client_isn", CLIENT_ISN)
    for sender, flags, seq, ack, payload, *rest in case["packets"]:
        if sender != "c":
            continue
        more = rest[0] if rest else {}
        # The kernel refuses a handshake that echoes what it never sent.
        options = timestamps_option(more["ts"][0], peer.tsval) if "ts" in more else b""
        options += md5_option() if more.get("md5") else b""
        options += fast_open_option() if more.get("tfo") else b""
        segment = tcp_segment(
            client, server, isn + seq, payload.encode("latin-1"), flags,
            ack=0 if ack is None else peer.isn + ack, window=more.get("win", 65535), options=options,
            urgent_pointer=more.get("urg", 0), doff=more.get("doff"), bad_checksum=more.get("bad_checksum", False),
        )  # fmt: skip
        yield ip_packet(client[0], server[0], segment, ttl=more.get("ttl", 64))


@pytest.fixture(scope="module")
def host() -> Iterator[Kernel]:
    running = Kernel()
    yield running
    running.close()


@pytest.mark.parametrize("name", CHOSEN)
def test_what_an_evasion_makes_the_application_read_is_delivered(host: Kernel, name: str) -> None:
    case = CASES[name]
    read, packets = host.replay(lambda client, server, peer: packets_of(case, client, server, peer))
    factory = Factory()
    assembler = Assembler(factory, linktype=record.LINKTYPE_RAW, **POLICY)
    for index, packet in enumerate(packets):
        assembler.assemble(packet, index / 1000)
    delivered = [stream.data for stream in factory.streams if stream.data]
    assembler.flush_all()
    assert delivered == [data for data in read if data]
