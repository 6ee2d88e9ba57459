"""The assembler: packets in, handlers called.

The ordinary packet (Ethernet, IP, TCP data in order on an open connection about which nothing is pending) takes the
short path in `shortpath`. Every other packet becomes a `Segment` in `routing` and meets the rules in `state`.
"""

from __future__ import annotations

from _thread import get_ident
from contextlib import closing
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

from .apart import set_apart
from .decode import PacketDecoder
from .errors import ReentrantCallError, TcpStitchError, UsageError, shown, whole
from .hostpolicy import Overlap, Policies
from .layouts import ALONE, usual
from .limits import Limits, Timeouts
from .openings import Openings
from .pressure import DEFAULT_MARKS, PressureGauge
from .settings import choose
from .shortpath import ShortPath
from .statistics import FlushResult, Statistics
from .stream import StreamFactory
from .timers import BeforeAll, seconds
from .uncut import PYPY


class Assembler(ShortPath):
    """Puts TCP streams back together inside `limits`, calling the streams that `factory` makes.

    `overlap`: who owns a byte that several segments carry: a policy's name, a function from `Flow` to one, or a table
    of networks (docs/tcp-rules.md). `checks`: "strict" refuses what an endpoint would refuse. `start`: "syn" holds
    data whose SYN was not seen as if it lay behind a hole. `delivery`: "acked" holds bytes until they are acknowledged.
    `urgent`: data marked urgent stays ("inline"), or its byte is taken out ("oob"), the segment ignored ("drop") or
    made a `Gap` ("gap"); by default as the checks have it. `on_limit`: what is given up at a page bound, "deliver",
    "drop" or "abandon", unless `Stream.over_limit` says. `timeouts`: when waiting ends, in capture time.

    `linktype` of packets that come as plain bytes: 1, Ethernet, also with `open_capture`, which tags its others.
    `flow_key`: "vlan" or "tunnel" keeps equal addresses in different VLANs or tunnels apart. `checksums`: "ignore" is
    for captures whose addresses a tool has changed: none is wrong then, and what seems so costs more.
    `on_error(handler, exception)` hears of what raised, a stream, the factory or `on_pressure`; without it `assemble`
    raises `StreamCallbackError` once the packet is done with. `on_pressure(level)` hears how many of the
    `pressure_marks`, as shares of the bounds, the fullest bound has reached.

    `limits`, also as gopacket's two, `timeouts`, `factory`, `on_error`, `on_limit` and `urgent` can be set later on.

    A `with` block calls `flush_all` at its end, also when an exception leaves it.

    Not thread-safe; use one per thread. A signal's handler may come at any time: it may call `statistics`, and so
    `tcpstitch.metrics`, and set `limits` and `timeouts`. So may another thread; while `run` is at work, all else that
    looks at connections, but for `assemble`, raises `ReentrantCallError` there.
    Raises `UsageError` (or `LimitsError`) for options that cannot work.
    """

    __slots__ = ("_sources", "_trim_due")

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
        checksums: str = "verify",
        urgent: Optional[str] = None,
        delivery: str = "arrival",
        on_error: Optional[Callable[[Any, Exception], Any]] = None,
        on_pressure: Optional[Callable[[int], Any]] = None,
        pressure_marks: Sequence[float] = DEFAULT_MARKS,
    ) -> None:
        self.factory, self.on_error, self.on_limit = factory, on_error, on_limit
        choose("checks", checks, ("lenient", "strict"))
        choose("start", start, ("any", "syn"))
        choose("delivery", delivery, ("arrival", "acked"))
        # RFC 6093: data marked urgent is in line; sockets without SO_OOBINLINE take one byte out all the same.
        self.urgent = ("oob" if checks == "strict" else "inline") if urgent is None else urgent
        limits = Limits() if limits is None else limits
        timeouts = _checked(Timeouts() if timeouts is None else timeouts)
        gauge = PressureGauge(on_pressure, pressure_marks)
        super().__init__(limits, Policies(overlap), timeouts, start == "any")
        self._strict = checks == "strict"
        self._acked_only = delivery == "acked"
        self._choose_paths()
        self._gauge = gauge if on_pressure is not None else None
        self._decoder = PacketDecoder(linktype=linktype, flow_key=flow_key, max_fragments=limits.max_fragments,
                                      max_fragment_bytes=limits.max_fragment_bytes,
                                      fragment_timeout=timeouts.fragment, checksums=checksums)  # fmt: skip
        self._frames = bytes if linktype == 1 and flow_key == "plain" else None
        self._layout = usual(ALONE)
        self._next_timer = BeforeAll()
        self._usual_class, self._usual_accepts = None, False
        self._sources: List[Any] = []
        self._trim_due = False  # the bound of histories has changed
        self._openings = Openings(limits.opening_bytes)
        set_apart(_rehearse)

    # -- packets in; `assemble` stands in `shortpath`

    def run(self, capture: Iterable[Tuple[float, Any]]) -> None:
        """Assemble every (timestamp, packet) of `capture`, as a loop over `assemble` would. Does not flush: `with` or
        `flush_all` does. Faster than the loop where `capture` is a pcap or pcapng file of Ethernet frames.

        Raises what `assemble` raises, `UsageError` for something that holds no packets, such as a path, and
        `ReentrantCallError` while it is at work in another thread.
        """
        given: Any = capture
        if isinstance(given, (str, bytes)) or hasattr(given, "read") or not hasattr(given, "__iter__"):
            raise UsageError(f"capture={shown(given)}: give open_capture(path), or an iterable of (timestamp, packet)")
        if self._elsewhere():
            raise ReentrantCallError
        self.watch_drops(capture)
        self._home = get_ident()
        outer, self._running = self._running, True
        try:
            self._run(capture)
        finally:
            self._running = outer

    def _run(self, capture: Any) -> None:
        assemble = self.assemble
        if self._frames is bytes and getattr(assemble, "__func__", None) is ShortPath.assemble:
            with closing(getattr(capture, "packet_blocks", _no_blocks)()) as blocks:
                for block in blocks:
                    if block.__class__ is tuple:
                        assemble(block[1], block[0])
                    elif PYPY:
                        block.feed(self)
                    else:
                        assemble(None, 0.0, block)
        try:
            for timestamp, packet in capture:
                assemble(packet, timestamp)
        except (TypeError, ValueError) as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # out of what was called
            advice = "give pairs of (timestamp, packet), as ((float(p.time), p.original) for p in reader) of scapy's"
            raise UsageError(f"capture={shown(capture)}: {advice}: {error}") from error

    def watch_drops(self, source: Any) -> None:
        """Let `statistics().dropped` include `source.dropped`, what a live capture lost. `run` calls this."""
        if hasattr(source, "dropped") and source not in self._sources:
            self._sources.append(source)

    # -- flushing

    def flush_older_than(self, timestamp: float, close_before: Optional[float] = None) -> FlushResult:
        """Give up holes whose data has waited since before `timestamp`, and, where `close_before` is given, complete
        connections without a packet since then (gopacket: FlushWithOptions, T and TC). O(connections), and O(pages
        held).

        Raises `UsageError` for something that is no time in seconds, and what `flush_all` raises.
        """
        timestamp = seconds(timestamp, endless=True)
        close_before = None if close_before is None else seconds(close_before, endless=True)
        if self._at_work():
            raise ReentrantCallError
        flushed = closed = 0
        self._busy = self
        try:
            self._note_present()
            self._shrink()
            for state in list(self._pages.lru):
                flushed += self._flush_state(state, timestamp)
            if close_before is not None:
                for state in [state for state in self._states() if state.last_seen < close_before]:
                    closed += not state.closed
                    self._complete(state, self._end_of(state, "flushed"))
                    self._forget(state)
                self._forget_small_before(close_before)
            self._watch_pressure()
            self._shrink()
        finally:
            self._busy = None
        self._raise_pending()
        return FlushResult(flushed, closed)

    def flush_all(self) -> FlushResult:
        """End of input: deliver what is held behind its gaps, and complete every stream. O(connections), and O(bytes
        held). The assembler may be used again. Raises `StreamCallbackError`; in a handler, and in a signal's in the
        middle of a packet, `ReentrantCallError`."""
        if self._at_work():
            raise ReentrantCallError
        flushed = closed = 0
        self._busy = self
        try:
            self._note_present()
            for state in self._states():
                if not state.closed:
                    flushed += sum(bool(half.queue or half.held) for half in (state.client, state.server))
                    closed += 1
                    self._complete(state, self._end_of(state, "flushed"))
                self._forget(state)
            self._forget_small_before(float("inf"))
            self._openings.clear()
            self._decoder.forget_fragments()
            self._forget_all()
            self._watch_pressure()
            self._shrink()
        finally:
            self._busy = None
        self._raise_pending()
        return FlushResult(flushed, closed)

    def __enter__(self) -> Assembler:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.flush_all()
        except Exception as failure:
            # An interrupt that came in the middle of a packet may have left a queue half changed: it is what goes on.
            if kind is None or issubclass(kind, TcpStitchError) or isinstance(failure, TcpStitchError):
                raise

    def _take_over(self) -> None:
        before = getattr(self, "_history_bytes", None)
        super()._take_over()
        if before is not None:  # not the first time
            self._trim_due = self._trim_due or before != self._history_bytes
            self._choose_paths()

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts in force. Set them to change them while running: what is over by the new ones ends when the
        timers run next, once in a second of capture time. Raises `UsageError`. O(1)."""
        return self._timeouts

    @timeouts.setter
    def timeouts(self, timeouts: Timeouts) -> None:
        self._timeouts = _checked(timeouts)
        self._next_sweep = float("-inf")
        self._decoder.expire_fragments(timeouts.fragment)

    def _choose_paths(self) -> None:
        self._always_rules = self._acked_only or bool(self._history_bytes)

    def _trim_others(self) -> None:
        limits = self._limits
        self._decoder.limit_fragments(limits.max_fragments, limits.max_fragment_bytes)
        self._openings.limit(limits.opening_bytes)
        if not self._trim_due:
            return
        self._trim_due = False
        for state in self._states():
            state.limit_history(self._history_bytes)

    def statistics(self) -> Statistics:
        """A snapshot of the counters. O(kinds of anomalies)."""
        counters, pages, decoder = self._counters, self._pages, self._decoder
        # One look at each: another thread goes on meanwhile, and a signal's handler may find pages on the move.
        used, free, lingering, states = pages.used, max(pages.free, 0), len(self._closed), self._state_count
        gaps, completions = dict(counters.gap_reasons), dict(counters.completion_reasons)
        evictions = dict(counters.eviction_kinds)
        return Statistics(
            self._packets, counters.segments + self._packets - self._taken,
            counters.bytes, counters.chunks, sum(gaps.values()), counters.missing_bytes,
            counters.retransmissions, counters.ignored, max(states - lingering, 0),
            counters.opened, sum(completions.values()), counters.evicted,
            used, free, used + free, pages.peak,
            evictions.get("total_limit", 0), evictions.get("page_limit", 0), counters.kept_bytes_dropped,
            dict(counters.anomalies), dict(decoder.counts), sum(source.dropped for source in self._sources),
            len(self._embryonic), lingering, max(counters.connections_peak, states), gaps,
            completions, evictions, decoder.fragments_held,
            decoder.fragment_bytes, self.memory_bytes() + decoder.fragment_bytes, self._limits.memory_bound,
            self.pressure(),
        )  # fmt: skip

    def __reduce__(self) -> Tuple[Any, ...]:
        """It can be neither pickled nor copied, as its streams and what they hold are in this process. Raises
        `UsageError`."""
        raise UsageError("an assembler stays in its process: make one where it works, pickle results or statistics()")

    def explain(self, holders: int = 5) -> str:
        """Who holds the memory, what bounds it and what was given up for that, as text of one line per subject; the
        `holders` connections with the most pages by name. For people: the words may change. Costs and
        raises what `statistics` and `top` do."""
        from .explain import explain

        return explain(self._now, self._limits, self.statistics(), self.top(whole("holders", holders, 0)))


def _no_blocks() -> Any:
    yield from ()


def _checked(timeouts: Timeouts) -> Timeouts:
    if not isinstance(timeouts, Timeouts):
        raise UsageError(f"timeouts={timeouts!r}: give a Timeouts(...)")
    return timeouts


def _rehearse() -> None:
    from .rehearsal import rehearse  # here: only PyPy needs it

    rehearse(Assembler)
