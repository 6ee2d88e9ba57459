"""Timers run on the packets' own time; a step of it, back or far ahead, neither flushes everything nor stalls."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, List

import pytest

from support.both_ways import opened, packet
from support.frames import tcp_frame
from support.recorder import Recorder
from tcpstitch import Assembler, Limits, PacketDecoder, Segment, Timeouts

CLIENT, SERVER = ("10.0.0.1", 1234), ("10.0.0.2", 80)
TIMEOUTS = Timeouts(gap=30.0, idle=300.0, embryonic=20.0, closed=10.0)
HOUR = 3600.0


class Clocked:
    """An assembler with connections that wait for each of the timers, and one that goes on talking."""

    def __init__(self, start: float = 1_700_000_000.0, **options: Any) -> None:
        self.recorder = Recorder()
        self.assembler = Assembler(self.recorder, **{"timeouts": TIMEOUTS, **options})
        self.now = start
        self.talked = 0
        self._ports = 1000

    def put(self, port: int, seq: int, data: bytes = b"", flags: str = "A", back: bool = False) -> None:
        client = ("10.0.0.1", port)
        source, destination = (SERVER, client) if back else (client, SERVER)
        self.assembler.assemble(Segment.make(source, destination, seq, data, flags=flags, ack=501 if not back else 101),
                                self.now)  # fmt: skip

    def open(self, port: int) -> None:
        self.put(port, 100, flags="S")
        self.put(port, 500, flags="SA", back=True)
        self.put(port, 101)

    def waiting(self) -> List[Any]:
        """A half-open connection, one with a hole, one that is idle and one that is closed."""
        first = self._ports
        self._ports += 4
        before = len(self.recorder.connections)
        self.put(first, 100, flags="S")
        for port in range(first + 1, first + 4):
            self.open(port)
        self.put(first + 1, 111, b"behind a hole")
        self.put(first + 3, 101, flags="FA")
        self.put(first + 3, 501, flags="FA", back=True)
        return self.recorder.connections[before:]

    def talk(self, seconds: float, packets: int = 1) -> None:
        """Time goes on by `seconds` for each of `packets` of a connection of its own."""
        if not self.talked:
            self.open(9)
        for _ in range(packets):
            self.now += seconds
            self.put(9, 101 + self.talked, b"x")
            self.talked += 1

    def jump(self, seconds: float) -> None:
        self.now += seconds


def reasons(connections: List[Any]) -> List[List[str]]:
    return [connection.completions for connection in connections]


NOTHING = [[], [], [], ["fin"]]  # but what was complete before


def test_each_timer_ends_what_it_is_for() -> None:
    clocked = Clocked()
    clocked.talk(0.1)
    connections = clocked.waiting()
    clocked.talk(1.0, 15)
    assert reasons(connections) == NOTHING
    clocked.talk(1.0, 10)
    assert reasons(connections) == [["idle"], [], [], ["fin"]]
    assert connections[1].gaps == []
    assert clocked.assembler.statistics().connections_lingering == 0  # a half-open one is over without that
    clocked.talk(1.0, 10)
    assert [gap.reason for gap in connections[1].gaps] == ["aged"]
    clocked.talk(2.0, 200)
    assert reasons(connections) == [["idle"], ["idle"], ["idle"], ["fin"]]
    assert clocked.assembler.statistics().connections == 1


def test_timeouts_set_while_running_end_what_is_over_by_them() -> None:
    clocked = Clocked(timeouts=Timeouts(gap=None, idle=7200.0, embryonic=None, closed=10.0))
    clocked.talk(0.1)
    connections = clocked.waiting()
    clocked.talk(1.0, 60)
    assert reasons(connections) == NOTHING
    clocked.assembler.timeouts = Timeouts(gap=30.0, idle=50.0, embryonic=20.0, closed=10.0)
    assert clocked.assembler.timeouts.idle == 50.0
    clocked.talk(1.0, 3)
    assert reasons(connections) == [["idle"], ["idle"], ["idle"], ["fin"]]
    assert [gap.reason for gap in connections[1].gaps] == ["aged"]


@pytest.mark.parametrize("far", [2 * HOUR, 30 * 86400.0, 1e12, -120.0, -30 * 86400.0])
def test_a_few_packets_with_a_wrong_time_move_nothing(far: float) -> None:
    clocked = Clocked()
    clocked.talk(0.1)
    connections = clocked.waiting()
    for _ in range(20):
        right = clocked.now
        clocked.now = right + far
        clocked.talk(0.0, 3)
        clocked.now = right
        clocked.talk(0.05, 3)
    assert reasons(connections) == NOTHING
    assert connections[1].gaps == []
    clocked.talk(1.0, 40)  # and the timers go on
    assert reasons(connections) == [["idle"], [], [], ["fin"]]
    assert [gap.reason for gap in connections[1].gaps] == ["aged"]


@pytest.mark.parametrize("far", [2 * HOUR, 30 * 86400.0, 1e12])
@pytest.mark.parametrize("start", [0.0, 1_700_000_000.0])
def test_what_came_with_a_wrong_time_waits_from_when_it_came(far: float, start: float) -> None:
    """A hole, a half-open connection and a silent one whose last packet had a time that the clock did not believe."""
    clocked = Clocked(start)
    clocked.talk(0.1)
    clocked.open(1)
    clocked.open(2)
    clocked.jump(far)
    clocked.put(1, 111, b"behind a hole")
    clocked.put(2, 101, b"the last word")
    clocked.put(3, 100, flags="S")
    clocked.jump(-far)
    hole, silent, half_open = connections = clocked.recorder.connections[1:]
    clocked.talk(1.0, 18)
    assert reasons(connections) == [[], [], []]
    assert hole.gaps == []
    clocked.talk(1.0, 14)
    assert [gap.reason for gap in hole.gaps] == ["aged"]
    assert reasons(connections) == [[], [], ["idle"]]
    clocked.talk(1.0, 250)
    assert silent.completions == []
    clocked.talk(1.0, 80)
    assert silent.completions == ["idle"]


@pytest.mark.parametrize("back", [120.0, HOUR, 400 * 86400.0])
def test_a_clock_that_is_set_back_ends_nothing_early_and_everything_in_time(back: float) -> None:
    clocked = Clocked()
    clocked.talk(0.1)
    before = clocked.waiting()
    clocked.jump(-back)
    clocked.talk(0.01, 40)
    assert reasons(before) == NOTHING
    assert before[1].gaps == []
    after = clocked.waiting()
    clocked.talk(1.0, 15)
    assert reasons(before) == reasons(after) == NOTHING
    clocked.talk(1.0, 25)
    assert reasons(before) == reasons(after) == [["idle"], [], [], ["fin"]]
    assert [[gap.reason for gap in connections[1].gaps] for connections in (before, after)] == [["aged"], ["aged"]]
    clocked.talk(2.0, 250)
    assert reasons(before) == reasons(after) == [["idle"], ["idle"], ["idle"], ["fin"]]
    assert clocked.assembler.statistics().connections == 1


def test_ordinary_connections_show_that_the_clock_was_set_back() -> None:
    """Nothing is unusual about them, and all the same the timers go on by the clock as it is now."""
    recorder = Recorder()
    assembler = Assembler(recorder, timeouts=TIMEOUTS)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 100, b"", "S"), 10 * HOUR)
    for number in range(60):
        client, now = ("10.0.0.3", 1000 + number), 9 * HOUR + number
        assembler.assemble(tcp_frame(client, SERVER, 100, b"", "S"), now)
        assembler.assemble(tcp_frame(SERVER, client, 500, b"", "SA", ack=101), now)
        assembler.assemble(tcp_frame(client, SERVER, 101, b"", "A", ack=501), now)
    assert recorder.connections[0].completions == ["idle"]


@pytest.mark.parametrize("shown_by", ["a SYN", "no TCP", "nothing"])
def test_data_in_order_alone_delays_the_timers_by_no_more_than_the_clock_was_set_back(shown_by: str) -> None:
    """A hole of another connection waits that long; a SYN, or a packet that is no TCP, has the clock looked at."""
    recorder = Recorder()
    assembler = Assembler(recorder, timeouts=TIMEOUTS)
    sent = [(CLIENT, 201, b"x" * 100), (("10.0.0.3", 7), 101, b"")]
    for client, seq, data in sent:
        assembler.assemble(tcp_frame(client, SERVER, 100, b"", "S"), HOUR)
        assembler.assemble(tcp_frame(SERVER, client, 500, b"", "SA", ack=101), HOUR)
        assembler.assemble(tcp_frame(client, SERVER, seq, data, ack=501), HOUR)
    for second in range(1000):
        now = HOUR - 500 + second
        if second == 20 and shown_by != "nothing":
            other = tcp_frame(("10.0.0.4", 7), SERVER, 100, b"", "S")
            assembler.assemble(other if shown_by == "a SYN" else b"\2" * 12 + b"\x08\x06" + bytes(46), now)
        assembler.assemble(tcp_frame(("10.0.0.3", 7), SERVER, 101 + 100 * second, b"y" * 100, ack=501), now)
        if recorder.connections[0].gaps:
            break
    assert (second < 20 + 20 + TIMEOUTS.gap + 5) == (shown_by != "nothing")
    assert second <= 500 + TIMEOUTS.gap + 5


def test_data_out_of_order_alone_shows_that_the_clock_was_set_back() -> None:
    """The hole that it waits behind is given up by the clock as it is now."""
    recorder = Recorder()
    assembler = Assembler(recorder, timeouts=TIMEOUTS)
    for source, target, fields in ((CLIENT, SERVER, (100, b"", "S")), (SERVER, CLIENT, (500, b"", "SA", 101))):
        assembler.assemble(tcp_frame(source, target, *fields), HOUR)
    assembler.assemble(tcp_frame(CLIENT, SERVER, 101, b"x" * 100, ack=501), HOUR)
    for second in range(100):
        data = tcp_frame(CLIENT, SERVER, 301 + 100 * second, b"y" * 100, ack=501)
        assembler.assemble(data, HOUR - 500 + second)
    gap = recorder.only.gaps[0]
    assert (gap.offset, gap.length, gap.reason) == (100, 100, "aged")
    assert gap.timestamp <= HOUR - 500 + TIMEOUTS.gap + 5


@pytest.mark.parametrize("back", [0.001, 1.0, 30.0])
def test_a_small_step_back_makes_the_timers_wait_that_long(back: float) -> None:
    clocked = Clocked()
    clocked.talk(0.1)
    connections = clocked.waiting()
    clocked.jump(-back)
    clocked.talk(0.5, int(2 * back) + 30)
    assert reasons(connections) == NOTHING
    clocked.talk(1.0, 45)
    assert reasons(connections)[0] == ["idle"]
    assert [gap.reason for gap in connections[1].gaps] == ["aged"]


def test_a_first_packet_from_the_future_does_not_stop_the_clock() -> None:
    clocked = Clocked()
    clocked.jump(10 * 365 * 86400.0)
    clocked.talk(0.0)
    clocked.jump(-10 * 365 * 86400.0)
    connections = clocked.waiting()
    clocked.talk(1.0, 60)
    assert reasons(connections) == [["idle"], [], [], ["fin"]]
    assert [gap.reason for gap in connections[1].gaps] == ["aged"]


def test_a_long_silence_is_believed_after_a_few_packets() -> None:
    clocked = Clocked()
    clocked.talk(0.1)
    connections = clocked.waiting()
    clocked.jump(12 * HOUR)
    clocked.talk(0.1, 40)
    assert reasons(connections) == [["idle"], ["idle"], ["idle"], ["fin"]]


@pytest.mark.parametrize("checks", ["lenient", "strict"])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, Segment])
@pytest.mark.parametrize("time", [float, Decimal])
def test_each_packet_counts_once_for_a_clock_that_jumped(checks: str, form: Any, time: Any) -> None:
    """Sixteen in a row are believed, whatever a packet or its time is made of and whatever path it takes."""
    recorder = Recorder()
    assembler = Assembler(recorder, checks=checks)
    decoder = PacketDecoder()
    data = [packet("c", "A", 100 * number, size=100) for number in range(16)]
    for number, fields in enumerate([*opened(), *data]):
        frame = tcp_frame(**fields)
        given = decoder.decode(frame)[0] if form is Segment else form(frame)
        if number == 3:  # a half-open connection, whose time will have come
            assembler.assemble(Segment.make(("10.9.9.9", 9), SERVER, 0, flags="S"), 3.0)
        assembler.assemble(given, time(number if number < 3 else 1_000_000 + number))
        assert assembler.statistics().connections == 1 + (3 <= number < 18), number


def test_two_clocks_an_hour_and_more_apart_in_one_capture_flush_nothing() -> None:
    """Packets of two interfaces take turns; one clock is two hours ahead."""
    clocked = Clocked()
    clocked.talk(0.1)
    connections = clocked.waiting()
    for _ in range(100):
        clocked.talk(0.05, 5)
        clocked.jump(2 * HOUR)
        clocked.talk(0.0, 5)
        clocked.jump(-2 * HOUR)
    assert clocked.now < 1_700_000_000.0 + 30
    assert connections[1].completions == connections[2].completions == []
    assert connections[1].gaps == []


class Tap:
    """A sender whose segment number n is captured when the test says so, and a receiver that has all of them."""

    def __init__(self, **options: Any) -> None:
        self.recorder = Recorder()
        self.assembler = Assembler(self.recorder, **options)
        self.now = 1000.0
        self.put(Segment.make(CLIENT, SERVER, 100, flags="S"))
        self.put(Segment.make(SERVER, CLIENT, 500, flags="SA", ack=101))

    def put(self, segment: Segment) -> None:
        self.assembler.assemble(segment, self.now)
        self.assembler.check()

    def see(self, number: int) -> None:
        self.put(Segment.make(CLIENT, SERVER, 101 + 10 * number, b"%010d" % number, ack=501))

    def confirm(self, count: int) -> None:
        self.put(Segment.make(SERVER, CLIENT, 501, ack=101 + 10 * count))


@pytest.mark.parametrize("checks", ["lenient", "strict"])
def test_a_tap_that_reorders_within_the_grace_loses_nothing(checks: str) -> None:
    """Each segment is captured 0.09 s after its acknowledgement."""
    tap = Tap(checks=checks)
    for number in range(0, 60, 2):
        tap.see(number + 1)
        tap.confirm(number + 2)
        tap.now += 0.09
        tap.see(number)
    assert tap.recorder.only.gaps == []
    assert tap.recorder.only.data() == b"".join(b"%010d" % number for number in range(60))


def test_what_the_receiver_has_and_the_capture_has_not_is_given_up_after_the_grace() -> None:
    tap = Tap()
    for number in range(1, 100):
        if number % 10:
            tap.see(number)
    tap.confirm(100)
    tap.now += 0.11
    tap.confirm(100)
    recording = tap.recorder.only
    assert [(gap.offset, gap.length, gap.reason) for gap in recording.gaps] == [
        (100 * index, 10, "acknowledged") for index in range(10)
    ]
    assert tap.assembler.statistics().pages_used == 0


def test_random_loss_at_the_tap_holds_few_pages_with_a_grace_and_many_without() -> None:
    peaks = []
    for grace in (0.1, None):
        tap = Tap(timeouts=Timeouts(acknowledged=grace))
        for number in range(5000):
            tap.now += 0.001
            if number % 50:
                tap.see(number)
            tap.confirm(number + 1)
        peaks.append(tap.assembler.statistics().pages_peak)
    assert peaks[0] < 10 < peaks[1]


@pytest.mark.parametrize("form", ["frame", "segment"])
def test_a_hole_that_is_given_up_is_activity(form: str) -> None:
    """The segment that shows how long the receiver has had the missing bytes makes its connection the last to give
    pages, whichever path it takes."""
    recorder = Recorder()
    assembler = Assembler(recorder, limits=Limits(50, 8, 10))
    decode = PacketDecoder().decode

    def put(port: int, seq: int, data: bytes, timestamp: float, flags: str = "A", acks: int = 0) -> None:
        client = ("10.0.0.1", port)
        ends, ack = ((SERVER, client), acks) if acks else ((client, SERVER), 0 if flags == "S" else 500)
        frame = tcp_frame(*ends, seq, data, flags, ack=ack)
        assembler.assemble(frame if form == "frame" else decode(frame)[0], timestamp)
        assembler.check()

    place = 0
    for port in (1000, 1001, 1002):
        put(port, 99, b"", 1.0, "S")
        put(port, 499, b"", 1.0, "SA", acks=100)
        put(port, 100, b"", 1.0)
    put(1000, 3000, b"a" * 1000, 1.1)
    put(1000, 5000, b"b" * 1000, 1.2)
    put(1000, 500, b"", 1.4, acks=4000)
    put(1000, 7000, b"d" * 1000, 1.45)
    put(1001, 3000, b"c" * 1000, 1.6)
    put(1000, 9000, b"e" * 1000, 1.9)  # the first hole is given up
    assert [gap.reason for gap in recorder.connections[0].gaps] == ["acknowledged"]
    while "total_limit" not in assembler.statistics().evictions_by_kind:
        place += 2000
        put(1002, 1000 + place, b"f" * 1000, 1.95)
    assert [len(connection.gaps) for connection in recorder.connections] == [1, 1, 0]
