"""The values that programs make and read: limits, ends, segments, chunks, results of flushes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from decimal import Decimal
from typing import Any, List, Tuple

import pytest

from small_captures import exchange
from support.frames import CLIENT, CLIENT6, SERVER, SERVER6, tcp_frame
from support.recorder import C2S, S2C, Recorder
from tcpstitch import (
    Assembler,
    Chunk,
    DecodeError,
    Endpoint,
    Flow,
    FlushResult,
    Limits,
    LimitsError,
    PacketDecoder,
    PacketInfo,
    Segment,
    TcpStitchError,
    Timeouts,
    UsageError,
)

# -- bounds


@pytest.mark.parametrize(
    "text, size",
    [("1MiB", 1 << 20), (" 2 mib ", 2 << 20), ("1.5GiB", 3 << 29), ("2048KiB", 2 << 20), ("3000k", 3_000_000),
     ("3000KB", 3_000_000), ("2M", 2_000_000), ("2MB", 2_000_000), ("1G", 10**9), ("1GB", 10**9), ("1048576", 1 << 20),
     ("2000000B", 2_000_000)],
)  # fmt: skip
def test_a_budget_is_a_number_of_bytes_or_has_a_decimal_or_a_binary_unit(text: str, size: int) -> None:
    assert Limits.from_memory(text) == Limits.from_memory(size)


@pytest.mark.parametrize("size", ["1 gigabyte", "", "MiB", "-5MiB", "1,5GiB", "0x100000", 1e9, True, None, b"1MiB"])
def test_what_is_no_size_is_refused_with_an_example(size: Any) -> None:
    with pytest.raises(LimitsError, match='"256MiB"'):
        Limits.from_memory(size)


@pytest.mark.parametrize("size", [0, -1, (1 << 20) - 1, "1023KiB"])
def test_a_budget_below_a_mebibyte_is_refused(size: Any) -> None:
    with pytest.raises(LimitsError, match="at least 1MiB"):
        Limits.from_memory(size)


@pytest.mark.parametrize("page_size", [64, 2048, 65536])
def test_a_budget_holds_with_pages_of_any_size(page_size: int) -> None:
    """And one connection gets at most a quarter of the pages."""
    limits = Limits.from_memory("16MiB", page_size=page_size)
    assert limits.page_size == page_size and limits.memory_bound <= 16 << 20
    assert limits.max_buffered_pages_per_connection <= limits.max_buffered_pages_total / 4


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [-1, True, 5.0, "5", None])
def test_a_limit_is_a_whole_number(name: str, value: Any) -> None:
    with pytest.raises(LimitsError, match=f"{name}=.*give a whole number of at least"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_no_bound_is_no_limit(name: str) -> None:
    """gopacket's 0 means unlimited; here only the history may be 0, which turns it off."""
    if name == "max_history_bytes_per_connection":
        assert Limits(**{name: 0}) == Limits()
    else:
        with pytest.raises(LimitsError, match="unlimited does not exist"):
            Limits(**{name: 0})


@pytest.mark.parametrize("fields", [{"page_size": 63}, {"page_size": 65537}, {"max_fragment_bytes": (1 << 17) - 1}])
def test_what_cannot_hold_a_segment_or_a_datagram_is_no_limit(fields: Any) -> None:
    with pytest.raises(LimitsError, match=next(iter(fields))):
        Limits(**fields)
    Limits(page_size=64, max_fragment_bytes=1 << 17)
    Limits(page_size=65536)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Timeouts)])
def test_a_timeout_is_seconds_or_never(name: str) -> None:
    for value in (0, 0.5, 10**9, float("inf"), None):
        assert getattr(Timeouts(**{name: value}), name) == value  # type: ignore[arg-type]
    for wrong in (-1, -0.001, float("nan"), "2m", 1j, True):
        with pytest.raises(LimitsError, match=f"{name}=.*or None for never"):
            Timeouts(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [Limits(), Timeouts()])
def test_bounds_are_frozen(made: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(made)[0].name, 7)


# -- ends and directions


@pytest.mark.parametrize(
    "ends, text",
    [
        ((CLIENT, SERVER), "10.0.0.1:40000 > 10.0.0.2:80"),
        ((CLIENT6, SERVER6), "[2001:db8::1]:40000 > [2001:db8::2]:80"),
        ((("::ffff:10.0.0.1", 1), ("::1", 65535)), "[::ffff:10.0.0.1]:1 > [::1]:65535"),
        ((("0.0.0.0", 0), ("255.255.255.255", 9)), "0.0.0.0:0 > 255.255.255.255:9"),
    ],
)
def test_a_flow_is_written_with_brackets_around_ipv6_addresses(ends: Any, text: str) -> None:
    segment = Segment.make(*ends, 1)
    flow = Flow(segment.key)
    # Python 3.13 writes mapped addresses with dots, older versions without: as `ipaddress` of the same Python does
    from ipaddress import ip_address

    for end, expected in zip((flow.client, flow.server), ends):
        assert end == Endpoint(str(ip_address(expected[0])), expected[1])
    assert str(flow) == text.replace("::ffff:10.0.0.1", str(ip_address("::ffff:10.0.0.1")))
    assert (segment.source, segment.destination) == (flow.client, flow.server)


def test_flows_are_equal_by_value_and_not_by_identity() -> None:
    there, again = (Flow(Segment.make(CLIENT, SERVER, 1).key) for _ in range(2))
    back = Flow(Segment.make(SERVER, CLIENT, 1).key)
    in_vlan = Flow((there.key, (5,)))  # type: ignore[arg-type]
    assert there == again and there != back and there != in_vlan and there != str(there)
    assert {there: 1}[again] == 1
    assert (there.context, in_vlan.context, str(in_vlan)) == ((), (5,), f"{there} vlan 5")


HIGH, USER, DYNAMIC = ("10.0.0.1", 40000), ("10.0.0.2", 8080), ("10.0.0.3", 50000)
LOW = ("10.0.0.4", 443)


@pytest.mark.parametrize(
    "source, target, flags, client",
    [
        (LOW, DYNAMIC, "S", LOW),  # the SYN tells, whatever the ports
        (HIGH, USER, "SA", USER),  # so does the SYN/ACK
        (DYNAMIC, LOW, "A", DYNAMIC),
        (LOW, DYNAMIC, "A", DYNAMIC),  # the server's port is in the lower range
        (LOW, USER, "A", USER),
        (USER, DYNAMIC, "A", DYNAMIC),
        (USER, HIGH, "A", HIGH),  # where Linux begins with ephemeral ports
        (HIGH, DYNAMIC, "A", HIGH),  # both in the same one: who is seen first
        (DYNAMIC, HIGH, "A", DYNAMIC),
    ],
)
def test_who_the_client_is_is_told_by_syns_then_by_ports_then_by_who_comes_first(
    source: Any, target: Any, flags: str, client: Any
) -> None:
    recorder = Recorder()
    with Assembler(recorder) as assembler:
        assembler.assemble(Segment.make(source, target, 9, b"" if "S" in flags else b"data", flags=flags), 1.0)
        assembler.assemble(Segment.make(source, target, 10 + 3 * ("S" not in flags), b"data"), 1.1)
    assert recorder.only.flow.client == client
    assert recorder.only.data(C2S if source == client else S2C).endswith(b"data")


# -- segments

MSS, SCALE, STAMPS = b"\x02\x04\x05\xb4", b"\x03\x03\x0f", b"\x08\x0a" + bytes([0, 0, 1, 0, 0, 0, 0, 9])


@pytest.mark.parametrize("letters, bits", [("", 0), ("S", 2), ("SA", 18), ("FSRPAUEC", 255), ("AA", 16), ("CE", 192)])
def test_flags_are_given_as_letters_or_bits_and_read_as_letters(letters: str, bits: int) -> None:
    for given in (letters, bits):
        segment = Segment.make(CLIENT, SERVER, 1, flags=given)
        assert (segment.flags, set(segment.flag_letters())) == (bits, set(letters))


def test_sequence_numbers_of_a_made_segment_wrap() -> None:
    segment = Segment.make(CLIENT, SERVER, 2**32 + 5, b"x", ack=-1)
    assert (segment.seq, segment.ack, segment.length) == (5, 2**32 - 1, 1)


@pytest.mark.parametrize(
    "options, mss, scale, stamps",
    [
        (b"", None, None, None),
        (MSS + SCALE + b"\x01" + b"\x01\x01" + STAMPS, 1460, 14, (256, 9)),  # a shift above 14 counts as 14
        (b"\x01\x01" + STAMPS, None, None, (256, 9)),
        (STAMPS + b"\x01\x01", None, None, (256, 9)),
        (MSS + b"\x02\x04\x00\x07", 1460, None, None),  # the first of a kind
        (b"\x00\x02" + MSS, None, None, None),  # nothing behind the end of the list
        (b"\x03\x01" + MSS, None, None, None),  # a length that cannot be ends the search
        (MSS + b"\x03\x09\x07\x00", 1460, None, None),  # so does one beyond the header
        (b"\x02\x03\x05\x01" + b"\x03\x04\x07\x07" + b"\x08\x04\x00\x00", None, None, None),  # of another size
    ],
)
def test_options_are_read_as_rfc_9293_lays_them_out(options: bytes, mss: Any, scale: Any, stamps: Any) -> None:
    """RFC 9293 3.1 and 3.2, RFC 7323 2.2, 2.3 and 3.2."""
    segment = Segment.make(CLIENT, SERVER, 1, options=options)
    assert (segment.mss, segment.window_scale, segment.timestamps) == (mss, scale, stamps)


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (CLIENT6, SERVER6)])
@pytest.mark.parametrize("data", [b"", b"odd", b"even"])
def test_a_checksum_holds_or_not_or_cannot_be_told(ends: Any, data: bytes) -> None:
    """It cannot where the frame was cut, where there is none, and where the network card was to fill it in."""
    frame = tcp_frame(*ends, 7, data)
    size = len(frame) if len(frame) > 60 else 54 + len(data)  # without Ethernet's padding
    decode = PacketDecoder().decode
    (good,), (bad,) = decode(frame), decode(tcp_frame(*ends, 7, data, bad_checksum=True))
    assert (good.checksum_ok(), bad.checksum_ok()) == (True, False)
    assert Segment.make(*ends, 7, data).checksum_ok() is None
    if data:
        (cut,) = decode(frame[: size - 1])
        assert cut.checksum_ok() is None and len(cut.payload) == cut.length - 1
    at = size - len(data) - 4  # the checksum: the header's last four bytes are it and the urgent pointer
    addresses = frame[26:34] if ends[0] == CLIENT else frame[22:54]
    pseudo = sum(int.from_bytes(addresses[i : i + 2], "big") for i in range(0, len(addresses), 2)) + 6 + 20 + len(data)
    offloaded = frame[:at] + (pseudo % 0xFFFF).to_bytes(2, "big") + frame[at + 2 :]
    assert decode(offloaded)[0].checksum_ok() is None


# -- chunks


def chunks_of(*sent: Tuple[int, bytes, str], on_chunk: Any = None) -> List[Chunk]:
    recorder = Recorder(on_chunk)
    with Assembler(recorder) as assembler:
        for number, (seq, data, flags) in enumerate(sent):
            segment = Segment.make(CLIENT, SERVER, seq, data, flags=flags, context=f"packet {number}")
            assembler.assemble(segment, 10.0 + number)
    return recorder.only.chunks


def test_a_byte_leads_to_its_packet_and_what_the_caller_attached_to_it() -> None:
    _, chunk = chunks_of((99, b"", "S"), (100, b"ab", "A"), (104, b"ef", "A"), (102, b"cd", "A"))[-2:]
    assert (chunk.data, len(chunk), chunk.offset) == (b"ef", 2, 4)
    assert chunk.packet_at(1) == PacketInfo(12.0, 105, "packet 2")
    assert chunk.flow.client == CLIENT and chunk.direction is C2S


def test_outside_of_a_chunk_there_is_no_packet() -> None:
    for chunk in chunks_of((99, b"", "S"), (100, b"abc", "A"), (103, b"", "FA")):
        for index in (-1, max(len(chunk), 1), 100):
            with pytest.raises(IndexError, match=f"index {index} outside of a chunk of {len(chunk)} bytes"):
                chunk.packet_at(index)
    assert (chunk.end, chunk.data, chunk.packet_at(0).seq) == (True, b"", 103)  # where the FIN lies


def test_nothing_can_be_kept_from_outside_of_a_chunk() -> None:
    asked: List[int] = []

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        for index in (-1, len(chunk) + 1):
            with pytest.raises(IndexError, match=f"cannot keep from {index}"):
                chunk.keep_from(index)
            asked.append(index)
        chunk.keep_from(len(chunk))  # which is nothing

    chunks = chunks_of((99, b"", "S"), (100, b"abc", "A"), (103, b"def", "A"), on_chunk=on_chunk)
    assert [chunk.data for chunk in chunks] == [b"abc", b"def"] and asked == [-1, 4] * 2


@pytest.mark.parametrize("syn, start, skip", [(True, True, 0), (False, False, -1)])
def test_bytes_that_were_kept_back_bring_neither_start_nor_skip_again(syn: bool, start: bool, skip: int) -> None:
    sent = [(99, b"", "S")] * syn + [(100 + at, b"data"[at : at + 1], "A") for at in range(4)] + [(104, b"", "FA")]
    chunks = chunks_of(*sent, on_chunk=lambda recording, chunk: chunk.keep_from(0))
    assert (chunks[-1].offset, chunks[-1].data, chunks[-1].end) == (0, b"data", True)
    assert [(chunk.start, chunk.skip) for chunk in chunks] == [(start, skip)] + [(False, 0)] * (len(chunks) - 1)


@pytest.mark.parametrize("index", [1.5, "1", None, Decimal(1)])
def test_the_place_of_a_byte_is_a_whole_number(index: Any) -> None:
    """Else the mistake would be found behind the handler, by the assembler."""

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        for wrong in (chunk.keep_from, chunk.packet_at):
            with pytest.raises(UsageError, match="give a whole number"):
                wrong(index)

    assert [chunk.data for chunk in chunks_of((99, b"", "S"), (100, b"abc", "A"), on_chunk=on_chunk)] == [b"abc"]


def test_the_place_of_a_byte_may_be_any_object_that_is_a_whole_number() -> None:
    class One:
        def __index__(self) -> int:
            return 1

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        assert chunk.packet_at(One()).seq == 101 + chunk.offset  # type: ignore[arg-type]
        if len(chunk) == 3:
            chunk.keep_from(One())  # type: ignore[arg-type]

    chunks = chunks_of((99, b"", "S"), (100, b"abc", "A"), (103, b"def", "A"), on_chunk=on_chunk)
    assert [chunk.data for chunk in chunks] == [b"abc", b"bcdef"]


def test_bytes_can_be_kept_only_while_their_chunk_is_being_received() -> None:
    """Neither in the call that brings the next chunk nor later."""
    before: List[Chunk] = []

    def on_chunk(recording: Any, chunk: Chunk) -> None:
        for old in before:
            with pytest.raises(UsageError, match="only inside the reassembled"):
                old.keep_from(0)
        before.append(chunk)

    chunks = chunks_of((99, b"", "S"), (100, b"abc", "A"), (103, b"def", "A"), on_chunk=on_chunk)
    with pytest.raises(UsageError, match="only inside the reassembled"):
        chunks[-1].keep_from(0)
    assert [chunk.data for chunk in before] == [b"abc", b"def"]


def test_a_chunk_says_whether_the_stream_starts_there_and_what_is_missing_before() -> None:
    """-1 where the start was not seen; then nothing is a start."""
    seen = chunks_of((99, b"", "S"), (100, b"a", "A"), (101, b"b", "A"), (104, b"c", "FA"))
    assert [(chunk.start, chunk.skip, chunk.end) for chunk in seen] == [
        (True, 0, False), (False, 0, False), (False, 2, True),
    ]  # fmt: skip
    unseen = chunks_of((100, b"a", "A"), (101, b"b", "A"), (102, b"", "FA"))
    assert [chunk.start for chunk in unseen] == [False] * len(unseen)
    assert [chunk.skip for chunk in unseen if chunk.data] == [-1] + [0] * (len(unseen) - 2)
    assert unseen[0].offset == 0 and b"".join(chunk.data for chunk in unseen) == b"ab"


# -- flushes and errors


def both_ways(assembler: Assembler, port: int, start: int, when: float) -> None:
    """A connection on which each side has sent four bytes at offset `start`."""
    client = (CLIENT[0], port)
    assembler.assemble(Segment.make(client, SERVER, 99, flags="S"), when)
    assembler.assemble(Segment.make(SERVER, client, 499, flags="SA", ack=100), when)
    assembler.assemble(Segment.make(client, SERVER, 100 + start, b"data", ack=500), when)
    assembler.assemble(Segment.make(SERVER, client, 500 + start, b"data", ack=100), when)


def test_a_flush_says_how_many_directions_it_delivered_and_connections_it_closed() -> None:
    """gopacket's pair of numbers."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    for number, (start, when) in enumerate([(0, 1.0), (5, 2.0), (5, 3.0)]):
        both_ways(assembler, 1000 + number, start, when)
    assert assembler.flush_older_than(2.0) == FlushResult(0, 0)
    assert assembler.flush_older_than(2.5) == FlushResult(flushed=2, closed=0)
    assert assembler.flush_older_than(0.0, close_before=1.0) == FlushResult(0, 0)
    assert assembler.flush_older_than(0.0, close_before=1.5) == FlushResult(0, closed=1)
    assert assembler.flush_all() == FlushResult(flushed=2, closed=2)
    assert assembler.flush_all() == FlushResult(0, 0)
    assert [recording.completions for recording in recorder.connections] == [["flushed"]] * 3


@pytest.mark.parametrize("flush", [lambda assembler: assembler.flush_older_than(0.0, 9.0), Assembler.flush_all])
def test_a_connection_that_is_over_already_is_forgotten_but_not_closed_by_a_flush(flush: Any) -> None:
    recorder = Recorder()
    assembler = Assembler(recorder)
    both_ways(assembler, 1000, 0, 1.0)
    assembler.assemble(Segment.make((CLIENT[0], 1000), SERVER, 104, flags="R"), 1.0)
    for packet in exchange():
        assembler.assemble(packet, 1.0)
    both_ways(assembler, 1001, 0, 1.0)
    assert assembler.statistics().connections_lingering == 2
    assert flush(assembler) == FlushResult(0, closed=1)
    assert [recording.completions for recording in recorder.connections] == [["rst"], ["fin"], ["flushed"]]
    assert assembler.statistics().connections_lingering == 0


def test_a_decode_error_names_its_counter() -> None:
    assert (str(DecodeError("too_deep")), DecodeError("too_deep").reason) == ("too_deep", "too_deep")
    assert issubclass(DecodeError, TcpStitchError) and issubclass(LimitsError, ValueError)


@pytest.mark.parametrize("index", [0, -1])
def test_a_chunk_that_is_pickled_is_answered_with_what_can_be(index: int) -> None:
    """Not with a complaint about a struct inside of the assembler, to which it leads."""
    recorder = Recorder()
    assembler = Assembler(recorder)
    for number, packet in enumerate(exchange()):
        assembler.assemble(packet, number)
    chunks = recorder.only.chunks
    assert chunks[-1].end
    with pytest.raises(UsageError, match=r"pickle what you want of it, such as chunk\.data"):
        pickle.dumps(chunks[index])


@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_assembler_that_is_pickled_or_copied_is_answered_with_what_to_do(make: Any) -> None:
    """As where it is given to a process that is spawned; a copy would share its tables with it."""
    with pytest.raises(UsageError, match=r"stays in its process: make one where it works"):
        make(Assembler(Recorder()))
