"""Any order of packets, flushes, changed limits and failing handlers leaves the assembler whole."""

from __future__ import annotations

import random
from typing import Any, Optional

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.recorder import Recorder, Recording
from tcpstitch import Anomaly, Assembler, Chunk, Flow, Gap, Limits, Segment, Stream, Timeouts
from tcpstitch.errors import StreamCallbackError

SERVER = ("10.0.0.2", 80)
PAYLOAD = bytes(range(256)) * 2


class HandlerFailed(Exception):
    """What the handlers of this test raise."""


class Fragile(Recording):
    """Raises in the call named by the factory, once."""

    def reassembled(self, chunk: Chunk) -> None:
        super().reassembled(chunk)
        self.owner.fail_in("reassembled")  # type: ignore[attr-defined]

    def gap(self, gap: Gap) -> None:
        super().gap(gap)
        self.owner.fail_in("gap")  # type: ignore[attr-defined]

    def anomaly(self, anomaly: Anomaly) -> None:
        super().anomaly(anomaly)
        self.owner.fail_in("anomaly")  # type: ignore[attr-defined]

    def complete(self, reason: str) -> None:
        super().complete(reason)
        self.owner.fail_in("complete")  # type: ignore[attr-defined]


class FragileRecorder(Recorder):
    def __init__(self) -> None:
        super().__init__(self.keep_some)
        self.failing: Optional[str] = None
        self.random = random.Random(1)
        self.keeping = False

    def new(self, flow: Flow, segment: Segment, timestamp: float) -> Optional[Stream]:
        self.fail_in("new")
        fragile = Fragile(self, flow, timestamp)
        self.connections.append(fragile)
        return fragile

    def keep_some(self, recording: Recording, chunk: Chunk) -> None:
        if self.keeping:
            chunk.keep_from(self.random.randint(0, len(chunk.data)))

    def fail_in(self, place: str) -> None:
        if self.failing == place:
            self.failing = None
            raise HandlerFailed(place)


class AssemblerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.recorder = FragileRecorder()
        self.now = 1000.0

    @initialize(
        checks=st.sampled_from(["lenient", "strict"]),
        start=st.sampled_from(["any", "syn"]),
        overlap=st.sampled_from(["first", "last", "bsd", "linux", "old-linux", "solaris", "linux-kernel"]),
        on_limit=st.sampled_from(["deliver", "drop", "abandon"]),
        max_connections=st.integers(1, 5),
        history=st.sampled_from([0, 100]),
        isn=st.sampled_from([0, 5000, 2**32 - 100]),
        delivery=st.sampled_from(["arrival", "acked"]),
        urgent=st.sampled_from(["inline", "oob", "drop", "gap"]),
    )
    def make(
        self, checks: Any, start: Any, overlap: Any, on_limit: Any, max_connections: int, history: int, isn: int,
        delivery: str, urgent: str,
    ) -> None:
        limits = Limits(4, 10, max_connections, page_size=64, max_history_bytes_per_connection=history)
        timeouts = Timeouts(gap=5.0, idle=60.0, embryonic=30.0, closed=3.0)
        self.isn = isn
        self.assembler = Assembler(
            self.recorder, limits=limits, overlap=overlap, checks=checks, start=start, on_limit=on_limit,
            timeouts=timeouts, delivery=delivery,
            urgent=urgent,
        )  # fmt: skip

    def call(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except StreamCallbackError as error:
            assert isinstance(error.__cause__, HandlerFailed)

    @rule(
        connection=st.integers(0, 4),
        from_client=st.booleans(),
        flags=st.sampled_from(["A", "A", "A", "A", "PA", "AU", "S", "SA", "FA", "R", "RA", ""]),
        offset=st.integers(0, 600),
        length=st.integers(0, 300),
        ack=st.integers(0, 700),
        delay=st.sampled_from([0.0, 0.001, 0.5, 2.0, -1.0, 20.0]),
    )
    def packet(
        self, connection: int, from_client: bool, flags: str, offset: int, length: int, ack: int, delay: float
    ) -> None:
        client = ("10.0.0.1", 40000 + connection)
        source, destination = (client, SERVER) if from_client else (SERVER, client)
        seq = self.isn if "S" in flags else self.isn + 1 + offset
        data = b"" if "S" in flags or "R" in flags else PAYLOAD[offset % 200 : offset % 200 + length]
        self.now += delay
        segment = Segment.make(source, destination, seq, data, flags=flags, ack=self.isn + 1 + ack)
        self.call(self.assembler.assemble, segment, self.now)

    @rule(
        connection=st.integers(0, 4),
        order=st.permutations(range(6)),
        length=st.integers(1, 200),
    )
    def burst(self, connection: int, order: Any, length: int) -> None:
        """A SYN, then segments in this order: what fills pages."""
        client = ("10.0.0.1", 40000 + connection)
        self.call(self.assembler.assemble, Segment.make(client, SERVER, self.isn, flags="S"), self.now)
        for index in order:
            data = PAYLOAD[:length]
            segment = Segment.make(client, SERVER, self.isn + 1 + index * length, data)
            self.now += 0.001
            self.call(self.assembler.assemble, segment, self.now)

    @rule(age=st.sampled_from([0.0, 1.0, 10.0]), close_age=st.one_of(st.none(), st.sampled_from([0.0, 5.0, 30.0])))
    def flush_older(self, age: float, close_age: Optional[float]) -> None:
        close_before = None if close_age is None else self.now - close_age
        self.call(self.assembler.flush_older_than, self.now - age, close_before)

    @rule()
    def flush_all(self) -> None:
        self.recorder.failing = None
        self.assembler.flush_all()
        self.everything_completed()

    @rule(pages=st.integers(1, 12))
    def limit_connection(self, pages: int) -> None:
        self.call(setattr, self.assembler, "max_buffered_pages_per_connection", pages)

    @rule(pages=st.integers(1, 20))
    def limit_total(self, pages: int) -> None:
        self.call(setattr, self.assembler, "max_buffered_pages_total", pages)

    @precondition(lambda self: self.recorder.failing is None)
    @rule(place=st.sampled_from(["new", "reassembled", "gap", "anomaly", "complete"]))
    def break_handler(self, place: str) -> None:
        self.recorder.failing = place

    @rule(keeping=st.booleans())
    def keep(self, keeping: bool) -> None:
        self.recorder.keeping = keeping

    @invariant()
    def pages_add_up_and_stay_inside_the_bounds(self) -> None:
        if not hasattr(self, "assembler"):
            return
        self.assembler.check()
        statistics = self.assembler.statistics()
        assert statistics.pages_used + statistics.pages_free == statistics.pages_allocated
        assert statistics.pages_used <= self.assembler.max_buffered_pages_total
        holders = self.assembler.top(100)
        assert sum(holder.pages for holder in holders) == statistics.pages_used
        for holder in holders:
            assert holder.pages <= self.assembler.max_buffered_pages_per_connection

    @invariant()
    def no_stream_completes_twice(self) -> None:
        for connection in self.recorder.connections:
            assert len(connection.completions) <= 1

    def everything_completed(self) -> None:
        assert [len(connection.completions) for connection in self.recorder.connections] == [1] * len(
            self.recorder.connections
        )
        assert self.assembler.statistics().pages_used == 0
        assert self.assembler.statistics().connections == 0

    def teardown(self) -> None:
        if hasattr(self, "assembler"):
            self.recorder.failing = None
            self.assembler.flush_all()
            self.everything_completed()
            self.assembler.check()


TestAssemblerMachine = AssemblerMachine.TestCase
TestAssemblerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
