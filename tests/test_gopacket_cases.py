"""gopacket's own acceptance cases (tests/data/gopacket_cases.json): porters find what they know.

A packet is `[sender, flags, seq, payload]`; a SYN takes one sequence number, its payload starts behind it. `bytes` is
what a step delivers (null: the handler is not called), `skips` the missing counts in it (-1: the start was not seen).
"""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from support.data import load
from support.recorder import C2S, Recorder, Recording
from tcpstitch import Assembler, Chunk, Limits, Segment
from tcpstitch.sequence import difference

CASES = load("gopacket_cases.json")
CLIENT, SERVER = ("1.2.3.4", 1), ("5.6.7.8", 2)
START = 1000.0


def payload_of(text: str) -> bytes:
    """Hexadecimal bytes, or runs written `byte*count`."""
    if "*" not in text:
        return bytes.fromhex(text)
    runs = (run.split("*") for run in text.split(" "))
    return b"".join(bytes.fromhex(byte) * int(count) for byte, count in runs)


def segment_of(packet: List[Any]) -> Segment:
    sender, flags, seq, payload = packet
    source, destination = (CLIENT, SERVER) if sender == "c" else (SERVER, CLIENT)
    return Segment.make(source, destination, seq, payload_of(payload), flags=flags)


def assembler_for(name: str, case: Dict[str, Any], recorder: Recorder) -> Assembler:
    policy = "bsd" if name.startswith("tcpassembly") else "last"
    limits = Limits(max_buffered_pages_per_connection=case["pages"], page_size=1900)
    return Assembler(recorder, limits=limits, overlap=policy, start="syn")


def names(keep: bool) -> List[str]:
    return [name for name, case in CASES.items() if ("fetched" in case["steps"][0]) == keep]


@pytest.mark.parametrize("name", names(keep=False))
def test_each_step_delivers_what_gopacket_delivers(name: str) -> None:
    case = CASES[name]
    recorder = Recorder()
    assembler = assembler_for(name, case, recorder)
    for index, step in enumerate(case["steps"]):
        seen = len(recorder.chunks)
        assembler.assemble(segment_of(step["packet"]), START + step.get("at_ms", index) / 1000)
        if "close_older_than_ms" in step:
            limit = START + step["close_older_than_ms"] / 1000
            assembler.flush_older_than(limit, close_before=limit)
        chunks = recorder.chunks[seen:]
        if step["bytes"] is None:
            assert not chunks, f"step {index}"
            continue
        assert chunks, f"step {index}"
        assert b"".join(chunk.data for chunk in chunks) == payload_of(step["bytes"]), f"step {index}"
        assert [chunk.skip for chunk in chunks if chunk.skip] == step.get("skips", []), f"step {index}"
        marks = step.get("marks", [])
        assert any(chunk.start for chunk in chunks) == ("start" in marks), f"step {index}"
        assert any(chunk.end for chunk in chunks) == ("end" in marks), f"step {index}"


@pytest.mark.parametrize("name", names(keep=True))
def test_kept_bytes_come_first_in_the_next_chunk(name: str) -> None:
    case = CASES[name]
    fetched: List[bytes] = []
    last_skip, keep_from = 0, 0

    def on_chunk(recording: Recording, chunk: Chunk) -> None:
        nonlocal last_skip
        fetched.append(chunk.data)
        last_skip = chunk.skip
        chunk.keep_from(min(keep_from, len(chunk.data)))

    assembler = assembler_for(name, case, Recorder(on_chunk))
    for index, step in enumerate(case["steps"]):
        keep_from = step["keep_from"]
        fetched.clear()
        assembler.assemble(segment_of(step["packet"]), START + index / 1000)
        assert fetched == ([payload_of(step["fetched"])] if step["fetched"] else []), f"step {index}"
        assert last_skip == step["skip"], f"step {index}"
        if step.get("then_flush_all"):
            assembler.flush_all()
            assert b"".join(fetched[:1]) == b"\x01" + 1901 * b"\x5a"
            assert last_skip == -1
            assert assembler.statistics().pages_used == 0


def test_a_difference_runs_across_the_wrap() -> None:
    assert difference(2**32 - 10, 10) == 20


def test_an_ordered_stream_takes_no_page() -> None:
    """Where gopacket makes no allocation, no page is taken here: 10 bytes a packet, both ways, a thousand times."""
    recorder = Recorder()
    payload = payload_of("01020304050607080900")
    with Assembler(recorder, overlap="last", start="syn") as assembler:
        assembler.assemble(Segment.make(CLIENT, SERVER, 0, payload, flags="S"), START)
        assembler.assemble(Segment.make(SERVER, CLIENT, 0, payload, flags="SA"), START)
        for k in range(1, 1002):
            for source, destination in ((CLIENT, SERVER), (SERVER, CLIENT)):
                segment = Segment.make(source, destination, 1 + 10 * k, payload, ack=10 * k)
                assembler.assemble(segment, START + k / 1000)
        statistics = assembler.statistics()
    assert statistics.bytes == 20040
    assert statistics.pages_peak == 0


def test_pages_of_a_long_queue_go_back_when_it_is_flushed() -> None:
    payload = payload_of("01020304050607080900")
    recorder = Recorder()
    limits = Limits(max_buffered_pages_per_connection=2000, page_size=1900)
    assembler = Assembler(recorder, limits=limits, overlap="last", start="syn")
    assembler.assemble(Segment.make(CLIENT, SERVER, 999, payload, flags="S"), START)
    for index in range(1, 1050):
        assembler.assemble(Segment.make(CLIENT, SERVER, 1011 + 10 * (index - 1), payload), START + index / 1000)
    assert assembler.statistics().pages_used > 0
    assembler.flush_all()
    after_queue = assembler.statistics()
    assert after_queue.pages_used == 0
    assert recorder.only.text(C2S).count("[1 byte missing]") == 1
    for index in range(2100):
        assembler.assemble(Segment.make(CLIENT, SERVER, 20_000 + 10 * index, payload), START + 2 + index / 1000)
        if index % 50 == 0:
            assembler.flush_all()
    assembler.flush_all()
    assert assembler.statistics().pages_used == 0
    assert assembler.statistics().pages_allocated <= after_queue.pages_allocated


def test_each_offset_of_a_chunk_knows_the_packet_it_came_from() -> None:
    """Ten bytes kept, ten bytes new: the context of each packet, and none outside of the chunk."""
    chunks: List[Chunk] = []

    def on_chunk(recording: Recording, chunk: Chunk) -> None:
        chunks.append(chunk)
        chunk.keep_from(0)

    assembler = Assembler(Recorder(on_chunk), start="syn")
    assembler.assemble(Segment.make(CLIENT, SERVER, 0, flags="S"), START)
    assembler.assemble(Segment.make(CLIENT, SERVER, 1, 10 * b"a", context=1203), START + 1)
    assembler.assemble(Segment.make(CLIENT, SERVER, 11, 10 * b"b", context=794598214), START + 2)
    chunk = chunks[-1]
    assert chunk.data == 10 * b"a" + 10 * b"b"
    expected = {0: (1203, START + 1), 5: (1203, START + 1), 10: (794598214, START + 2), 19: (794598214, START + 2)}
    for index, (context, timestamp) in expected.items():
        info = chunk.packet_at(index)
        assert (info.context, info.timestamp, info.seq) == (context, timestamp, 1 + index)
    for outside in (-1, 20, 1_000_000):
        with pytest.raises(IndexError):
            chunk.packet_at(outside)
