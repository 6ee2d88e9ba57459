"""Overlap policies against published, derived and measured outcomes (tests/data/overlap_*.json).

A case is a list of segments `offset:bytes` in order of arrival and the stream that each policy makes of them; `.` is a
byte that never came. `linux-kernel` is what a running kernel gave.
"""

from __future__ import annotations

from typing import Dict, List

import pytest

from support.data import load
from support.frames import CLIENT, SERVER
from support.recorder import C2S, Recorder
from tcpstitch import Assembler, Segment

INITIAL_SEQS = (0, 1, 2**32 - 1, 2**32 - 11)
ALIASES = {
    "vista": "first", "windows": "bsd", "win-2003": "bsd", "windows2k3": "bsd", "macos": "bsd", "bsd-right": "bsd",
    "hpux11": "solaris", "old-solaris": "solaris",
}  # fmt: skip
VECTORS = load("overlap_vectors.json")
TRIPLETS = load("overlap_triplets.json")


def stream_of(sent: str, policy: str, initial_seq: int) -> str:
    """What the client's side becomes when these segments follow its SYN, `.` for each missing byte."""
    recorder = Recorder()
    with Assembler(recorder, overlap=policy) as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, initial_seq, flags="S"), 1000.0)
        for index, item in enumerate(sent.split(" "), start=1):
            offset, payload = item.split(":")
            segment = Segment.make(CLIENT, SERVER, initial_seq + 1 + int(offset), payload.encode("ascii"))
            assembler.assemble(segment, 1000.0 + index / 1000)
    events = recorder.only.events[C2S]
    return "".join(str(event, "ascii") if isinstance(event, bytes) else "." * event.length for event in events)


def differences(case: Dict[str, Dict[str, str]], with_kernel: bool) -> List[str]:
    found = []
    for expected, names in case["gives"].items():  # type: ignore[attr-defined]
        for policy in names.split(" "):
            if (policy == "linux-kernel") != with_kernel:
                continue
            for initial_seq in INITIAL_SEQS:
                got = stream_of(case["sent"], policy, initial_seq)  # type: ignore[arg-type]
                if got != expected.rstrip("."):
                    found.append(f"{policy} at ISN {initial_seq}: {got} instead of {expected}")
    return found


@pytest.mark.parametrize("name", VECTORS)
def test_every_policy_gives_the_stream_of_the_vector(name: str) -> None:
    assert not differences(VECTORS[name], with_kernel=False)


@pytest.mark.parametrize("name", TRIPLETS)
def test_every_policy_gives_the_stream_of_the_triplet(name: str) -> None:
    assert not differences(TRIPLETS[name], with_kernel=False)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_behaves_as_the_policy_it_stands_for(alias: str) -> None:
    for name, case in TRIPLETS.items():
        expected = {policy: stream for stream, names in case["gives"].items() for policy in names.split(" ")}
        assert stream_of(case["sent"], alias, 1) == expected[ALIASES[alias]], name


KERNEL = {
    name: case for name, case in {**VECTORS, **TRIPLETS}.items() if "linux-kernel" in " ".join(case["gives"].values())
}


@pytest.mark.parametrize("name", KERNEL)
def test_linux_kernel_gives_what_a_running_kernel_gave(name: str) -> None:
    assert not differences(KERNEL[name], with_kernel=True)
