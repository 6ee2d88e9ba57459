"""The assembler: packets in, handlers called.

The ordinary packet (Ethernet, IP, TCP data in order on an open connection about which nothing is pending) takes the
short path in `shortpath`. Every other packet becomes a `Segment` here and meets the rules in `state`.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

from .decode import PacketDecoder
from .errors import PacketTypeError, ReentrantCallError, UsageError
from .half import IGNORED
from .hostpolicy import Overlap, Policies
from .limits import Limits, Timeouts
from .openings import Openings
from .pressure import DEFAULT_MARKS, PressureGauge
from .segment import ACK, RST, SYN, Segment, directed_flow, reverse_key
from .sequence import MASK
from .shortpath import ShortPath
from .state import StreamState
from .statistics import FlushResult, Statistics
from .stream import ON_LIMIT, Stream, StreamFactory


class Assembler(ShortPath):
    """Puts TCP streams back together inside `limits`, calling the streams that `factory` makes.

    Not thread-safe; use one per thread. Raises `UsageError` (or `LimitsError`) for options that cannot work.
    """

    def __init__(
        self,
        factory: StreamFactory,
        *,
        limits: Optional[Limits] = None,
        overlap: Overlap = "first",
        checks: str = "lenient",
        start: str = "any",
        on_limit: str = "deliver",
        timeouts: Optional[Timeouts] = None,
        linktype: int = 1,
        flow_key: str = "plain",
        urgent: Optional[str] = None,
        on_error: Optional[Callable[[Any, BaseException], None]] = None,
        on_pressure: Optional[Callable[[int], Any]] = None,
        pressure_marks: Sequence[float] = DEFAULT_MARKS,
    ) -> None:
        if not callable(getattr(factory, "new", None)):
            raise UsageError(f"factory={factory!r}: give a StreamFactory with a method new(flow, segment, timestamp)")
        _choice("checks", checks, ("lenient", "strict"))
        _choice("start", start, ("any", "syn"))
        _choice("on_limit", on_limit, ON_LIMIT)
        limits = Limits() if limits is None else limits
        if not isinstance(limits, Limits):
            raise UsageError(f"limits={limits!r}: give a Limits(...) or Limits.from_memory(...)")
        timeouts = Timeouts() if timeouts is None else timeouts
        if not isinstance(timeouts, Timeouts):
            raise UsageError(f"timeouts={timeouts!r}: give a Timeouts(...)")
        gauge = PressureGauge(on_pressure, pressure_marks)
        super().__init__(limits, Policies(overlap), timeouts, on_limit, start == "any", on_error)
        self.strict = checks == "strict"
        # RFC 6093: data marked urgent is in line; sockets without SO_OOBINLINE take one byte out all the same.
        self.urgent = urgent or ("oob" if self.strict else "inline")
        _choice("urgent", self.urgent, ("inline", "oob"))
        self.always_rules = self.strict or bool(self.history_bytes)
        self.gauge = gauge if on_pressure is not None else None
        self.factory = factory
        self.linktype = linktype
        self._decoder = PacketDecoder(linktype=linktype, flow_key=flow_key, max_fragments=limits.max_fragments,
                                      max_fragment_bytes=limits.max_fragment_bytes,
                                      fragment_timeout=timeouts.fragment)  # fmt: skip
        self._ethernet = linktype == 1 and flow_key == "plain"
        self._taken = 0  # packets that did not go the short path
        self._sources: List[Any] = []
        self._openings = Openings()

    # -- packets in; `assemble` stands in `shortpath`

    def _take(self, packet: Any, timestamp: float) -> None:
        """Any packet: decode it and apply its segments."""
        self._packets += 1
        self._taken += 1
        kind = packet.__class__
        if kind is bytes:
            segments = self._decoder.decode(packet, timestamp)
        elif kind is Segment:
            segments = (packet,)
        elif isinstance(packet, (bytes, bytearray, memoryview)):
            segments = self._decoder.decode(bytes(packet), timestamp, getattr(packet, "linktype", None))
        elif hasattr(packet, "__hdr__"):
            segments = self._decoder.from_dpkt(packet, timestamp)
        else:
            raise PacketTypeError(
                f"packet of type {kind.__name__}: give a frame as bytes, a dpkt packet, or a tcpstitch.Segment"
            )
        self.busy = self
        try:
            for segment in segments:
                self._route(segment, timestamp)
            if not segments and getattr(self._decoder, "last_bad_key", None) is not None:
                self._bad_header(timestamp)
            if self.gauge is not None:
                self.watch_pressure()
        finally:
            self.busy = None
        if self._error is not None:
            self.raise_pending()

    def run(self, capture: Iterable[Tuple[float, Any]]) -> None:
        """Assemble every (timestamp, packet) of `capture`; the same as the loop written out. Does not flush."""
        self.watch_drops(capture)
        assemble = self.assemble
        for timestamp, packet in capture:
            assemble(packet, timestamp)

    def watch_drops(self, source: Any) -> None:
        """Let `statistics().dropped` include `source.dropped`, what a live capture lost. `run` calls this."""
        if hasattr(source, "dropped") and source not in self._sources:
            self._sources.append(source)

    # -- routing

    def _route(self, segment: Segment, timestamp: float) -> None:
        self.counters.segments += 1
        half = self._halves.get(segment.key)
        if half is not None and half.state.closed:
            half = self._after_close(half, segment, timestamp)
        if half is None:
            half = self._opened_by(segment, timestamp)
            if half is None:
                self.counters.ignored += 1
                return
        self._apply(half, segment, timestamp)

    def _apply(self, half: Any, segment: Segment, timestamp: float) -> None:
        state = half.state
        if state.stream is None:
            self.counters.ignored += 1
            return
        if state.page_count:
            self.pages.touch(state)
        if not state.accepts or self._accepted(state, half, segment):
            state.receive(half, segment, timestamp)
        state.last_packet = self._packets
        state.last_seen = timestamp
        state.refresh()

    def _accepted(self, state: StreamState, half: Any, segment: Segment) -> bool:
        try:
            return bool(state.stream.accept(segment, half.direction))
        except Exception as error:
            self.handler_failed(state, state.stream, error)
            return False

    def _opened_by(self, segment: Segment, timestamp: float) -> Any:
        """The direction of the connection that this segment opens, or None."""
        before = self._openings.released_by(segment)
        if before is not None:
            self._apply(self._open(*before), *before)
            return self._halves[segment.key]
        return self._open(segment, timestamp) if self._openings.opens(segment, timestamp) else None

    def _open(self, segment: Segment, timestamp: float) -> Any:
        while self._state_count >= self.max_connections:
            self.evict_connection()
        flow, from_client = directed_flow(segment)
        key = segment.key
        reverse = reverse_key(key)
        state = StreamState(self, flow.key, timestamp)
        half, peer = (state.client, state.server) if from_client or key == reverse else (state.server, state.client)
        self._halves[reverse] = peer
        self._halves[key] = half
        self._state_count += 1
        if self._state_count > self.counters.connections_peak:
            self.counters.connections_peak = self._state_count
        state.last_packet = self._packets
        self.counters.opened += 1
        try:
            stream = self.factory.new(flow, segment, timestamp)
        except Exception as error:
            self.handler_failed(state, self.factory, error)
            return half
        state.stream = stream
        if stream is None:
            state.closed = True
            state.reason = "ignored"
            state.client.plain = state.server.plain = IGNORED
            self._closed[state] = timestamp
            return half
        try:
            self.policies.choose(state)
        except Exception as error:
            self.handler_failed(state, stream, error)
            return half
        state.accepts = getattr(type(stream), "accept", Stream.accept) is not Stream.accept
        if segment.flags & SYN:
            state.embryonic = True
            self._embryonic[state] = timestamp
        self._openings.evidence(half, key)
        return half

    def _after_close(self, half: Any, segment: Segment, timestamp: float) -> Any:
        """A packet on addresses whose connection is over: a SYN opens anew, all else is counted as late."""
        state = half.state
        flags = segment.flags
        if flags & SYN and not flags & (ACK | RST) and (segment.seq + 1) & MASK != half.base_seq:
            if segment.checksum_ok() is not False:
                self.forget(state)
                fresh = self._open(segment, timestamp)
                fresh.anomaly("tuple_reuse", 0, timestamp)
                return fresh
        if state.accepts and state.watcher is not None:
            try:
                state.watcher.accept(segment, half.direction)
            except Exception as error:
                self.handler_failed(state, state.watcher, error)
        if state.watcher is not None and segment.length:
            state.late_data(half, segment, timestamp)
        return half

    def replace(self, state: StreamState, syn: Segment, segment: Segment) -> None:
        """The addresses belong to a new connection, opened by `syn` and confirmed by `segment`."""
        timestamp = self.now
        self.complete(state, "replaced")
        self.forget(state)
        half = self._open(syn, timestamp)
        half.anomaly("tuple_reuse", 0, timestamp)
        self._apply(half, syn, timestamp)
        following = self._halves.get(segment.key)
        if following is not None:
            self._apply(following, segment, timestamp)

    def _bad_header(self, timestamp: float) -> None:
        key = self._decoder.last_bad_key
        half = self._halves.get(key) if key is not None else None
        if half is not None:
            half.anomaly("bad_header", half.max_offset, timestamp)

    # -- flushing

    def flush_older_than(self, timestamp: float, close_before: Optional[float] = None) -> FlushResult:
        """Give up holes whose data has waited since before `timestamp`, and, where `close_before` is given, complete
        connections without a packet since then (gopacket: FlushWithOptions, T and TC). O(connections)."""
        if self.busy is not None:
            raise ReentrantCallError("a handler called its own assembler: return first, or collect and call later")
        flushed = closed = 0
        self.busy = self
        try:
            for state in list(self.pages.lru):
                flushed += self.flush_state(state, timestamp)
            if close_before is not None:
                for state in [state for state in self._states() if state.last_seen < close_before]:
                    closed += not state.closed
                    self.complete(state, "flushed")
                    self.forget(state)
        finally:
            self.busy = None
        self.raise_pending()
        return FlushResult(flushed, closed)

    def flush_all(self) -> FlushResult:
        """End of input: deliver what is held behind its gaps, and complete every stream. O(connections)."""
        if self.busy is not None:
            raise ReentrantCallError("a handler called its own assembler: return first, or collect and call later")
        flushed = closed = 0
        self.busy = self
        try:
            for state in list(self._states()):
                if not state.closed:
                    flushed += bool(state.client.queue) + bool(state.server.queue)
                    closed += 1
                    reason = "rst" if state.restartable else "fin" if state in self._closed else "flushed"
                    self.complete(state, reason)
                self.forget(state)
            self._openings.clear()
        finally:
            self.busy = None
        self.raise_pending()
        return FlushResult(flushed, closed)

    def __enter__(self) -> Assembler:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.flush_all()

    def _take_over(self) -> None:
        super()._take_over()
        if hasattr(self, "_decoder"):  # not the first time
            self._decoder.limit_fragments(self._limits.max_fragments, self._limits.max_fragment_bytes)
            self.always_rules = self.strict or bool(self.history_bytes)
            for state in self._states():
                state.limit_history(self.history_bytes)

    def statistics(self) -> Statistics:
        """A snapshot of the counters. O(kinds of anomalies)."""
        counters, pages, decoder = self.counters, self.pages, self._decoder
        return Statistics(
            self._packets, counters.segments + self._packets - self._taken,
            counters.bytes, counters.chunks, counters.gaps, counters.missing_bytes,
            counters.retransmissions, counters.ignored, self._state_count - len(self._closed),
            counters.opened, counters.completed, counters.evicted, pages.used, pages.free, pages.allocated, pages.peak,
            counters.evictions, counters.page_limit_hits, counters.kept_bytes_dropped, dict(counters.anomalies),
            dict(decoder.counts), sum(source.dropped for source in self._sources),
            len(self._embryonic), len(self._closed), counters.connections_peak, dict(counters.gap_reasons),
            dict(counters.completion_reasons), dict(counters.eviction_kinds), decoder.fragments_held,
            decoder.fragment_bytes, self.memory_bytes() + decoder.fragment_bytes, self._limits.memory_bound,
            self.pressure(),
        )  # fmt: skip

    def explain(self, holders: int = 5) -> str:
        """Who holds the memory, what bounds it and what was given up for that, as text of one line per subject; the
        `holders` connections with the most pages by name. For people: the words may change. O(holders of pages)."""
        from .explain import explain

        return explain(self.now, self._limits, self.statistics(), self.top(holders))


def _choice(name: str, value: Any, choices: Tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name}={value!r}: use one of {', '.join(choices)}")
