"""The model of Linux's receive queue agrees with the running kernel, and the library with the model.

The second half needs no root: it holds `overlap="linux-kernel"` to the kernel's behaviour wherever the tests run.
"""

from __future__ import annotations

import socket
from random import Random
from typing import Callable, Iterator, List, Tuple

import pytest
from kernel import ACK, FIN, RST, SYN, Crafted, Kernel, craft, record
from linux_queue import Receiver
from test_kernel_oracle import KINDS, LISTS, MSS_AND_SACK, POLICY, SEED, Case, Outcome, case, ours

_REASON = record.unavailable()
Kind = Callable[[Random], List[Crafted]]
LISTS_WITHOUT_ROOT = 400
CLIENT, CLIENT_PORT, SERVER_ISN = "10.9.0.1", 40000, 2**32 - 3


def model(case: Case) -> Outcome:
    """What the model's application reads, and how the reading ends."""
    receiver = Receiver(sack=case.options == MSS_AND_SACK)
    for segment in case.segments:
        if segment.bad_checksum:
            continue
        if segment.flags & RST:
            receiver.reset(segment.start)
        elif segment.flags & ACK and not segment.flags & SYN and segment.ack_shift == 0:
            receiver.segment(segment.start, segment.data, bool(segment.flags & FIN))
    return receiver.read(), receiver.end


def packets_of(case: Case) -> Iterator[Tuple[float, bytes]]:
    """The packets of `case` with a handshake, and without the replies that the kernel would have sent."""
    source = socket.inet_aton(CLIENT)
    yield 0.0, craft(source, CLIENT_PORT, case.isn, 0, SYN, options=case.options)
    answer = craft(source, CLIENT_PORT, SERVER_ISN, case.isn + 1, SYN | ACK, options=case.options, window=64240)
    # Swapping addresses and ports leaves both checksums as they are.
    yield 0.001, answer[:12] + answer[16:20] + answer[12:16] + answer[22:24] + answer[20:22] + answer[24:]
    yield 0.002, craft(source, CLIENT_PORT, case.isn + 1, SERVER_ISN + 1, ACK)
    for index, segment in enumerate(case.segments):
        ack = SERVER_ISN + 1 + segment.ack_shift if segment.flags & ACK else 0
        seq = case.isn + 1 + segment.start
        packet = craft(source, CLIENT_PORT, seq, ack, segment.flags, segment.data, window=segment.window)
        if segment.bad_checksum:
            packet = packet[:36] + bytes([packet[36] ^ 0x55]) + packet[37:]
        yield 0.003 + index / 1000, packet


def cases(kind: Kind, count: int) -> Iterator[Case]:
    return (case(kind, Random(f"model/{kind.__name__}/{number}")) for number in range(SEED, SEED + count))


@pytest.mark.root
@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_reads_what_an_application_on_the_running_kernel_reads(kind: Kind) -> None:
    host = Kernel()
    found = []
    for made in cases(kind, LISTS):
        outcome = host.receive(*made)
        if model(made) != (outcome.data, outcome.end):
            found.append((made, model(made), (outcome.data, outcome.end)))
    host.close()
    assert not found, f"{len(found)} of {LISTS} lists differ, the first: {found[0]}"


@pytest.mark.parametrize("kind", KINDS)
def test_linux_kernel_with_strict_checks_delivers_what_the_model_reads(kind: Kind) -> None:
    found = []
    for made in cases(kind, LISTS_WITHOUT_ROOT):
        mine = ours(list(packets_of(made)), POLICY)
        if mine != model(made):
            found.append((made, mine, model(made)))
    assert not found, f"{len(found)} of {LISTS_WITHOUT_ROOT} lists differ (list, ours, model), the first: {found[0]}"
