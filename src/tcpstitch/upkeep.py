"""The tables of connections: how a connection's handler is called, how it ends, and how it is forgotten."""

from __future__ import annotations

from collections import OrderedDict
from operator import attrgetter
from typing import Any, Dict, List, Optional

from .bounds import Bounds
from .details import NOTHING
from .errors import StreamCallbackError
from .half import NEEDS_RULES, OVER, WAITS, HalfStream
from .hostpolicy import Policies
from .limits import Limits, Timeouts, key_cost
from .segment import Direction, FlowKey
from .sequence import NEVER
from .state import StreamState

CLIENT_TO_SERVER, SERVER_TO_CLIENT = Direction
_last_packet = attrgetter("last_packet")


class Halves(Dict[FlowKey, HalfStream]):
    """The directions of all connections. A subscript gives None for those that are not there: what `get` does, for two
    thirds of its cost."""

    __missing__ = dict.get


class Upkeep(Bounds):
    """The part of the assembler that states and halves talk to."""

    __slots__ = (
        "_age_batch", "_age_packets", "_clock_started", "_exact_times", "_idle_batch", "_idle_mark", "_jump",
        "_jump_packets", "_jump_seen", "_next_sweep", "_future_since", "_start_any", "_sweep_packets",
    )  # fmt: skip

    _acked_only: bool

    def __init__(self, limits: Limits, policies: Policies, timeouts: Timeouts, start_any: bool) -> None:
        super().__init__(limits)
        self._timeouts = timeouts
        self._policies = policies
        self._start_any = start_any
        self._now = 0.0  # of the timers
        self._present = 0.0  # of the packet that is being taken
        # Every connection is in `_halves`, once for each direction. Those that are half open or (half) closed are also
        # in a table by the time since when they are, the oldest first; an established one costs no more than it must.
        self._halves: Dict[FlowKey, HalfStream] = Halves()
        self._embryonic: OrderedDict[StreamState, float] = OrderedDict()
        # By the client's key: since when, and the state or, instead of it, what `lingering` keeps of one.
        self._closed: OrderedDict[FlowKey, Any] = OrderedDict()
        self._idle_batch: List[StreamState] = []
        self._idle_mark = 0
        self._age_batch: List[StreamState] = []
        self._age_packets = 0
        self._error: Optional[StreamCallbackError] = None
        self._busy: Any = None  # what runs: the assembler itself, or the chunk that a handler has
        self._asked = False  # the handler that has the chunk asked for something
        self._keep_offset: Optional[int] = None
        self._last_end: Optional[HalfStream] = None  # its last data said that it was the last
        self._arrivals = 0
        self._clock_started = False
        self._exact_times = False  # whether packets came with times other than floats
        self._next_sweep = 0.0
        self._sweep_packets = 0
        self._jump = self._future_since = 0.0
        self._jump_packets = 0
        self._jump_seen = -1  # the number of the packet that was counted last
        self._packets = 0
        self._taken = 0

    # -- handlers

    def _call(self, state: StreamState, method: str, argument: Any) -> None:
        """Run a handler's method; if it raises, its stream is abandoned and the error kept for the caller."""
        handler = state.stream if state.stream is not None else state.watcher
        if handler is None or (state.stream is None and method != "anomaly"):
            return
        try:
            getattr(handler, method)(argument)
        except Exception as error:
            self._handler_failed(state, handler, error)
        except BaseException:
            self._abandon(state)
            raise

    def _handler_failed(self, state: StreamState, handler: Any, error: Exception) -> None:
        """Abandon the stream; the error goes to `on_error`, else to the caller once this packet is done with."""
        try:
            self._note_failure(state, handler, error)  # before that of a `complete` that fails as well
        finally:
            self._abandon(state)

    def _note_failure(self, state: StreamState, handler: Any, error: Exception) -> None:
        fate = "; its stream is abandoned" if state.reason in ("", "abandoned") else ""  # not in `complete`
        self._note_error(f"handler of {state.flow}", handler, error, fate)

    def _raise_pending(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # or the exception and this frame would keep each other, and the connection, alive

    def _next_arrival(self) -> int:
        self._arrivals += 1
        return self._arrivals

    # -- bounds; those of pages are in `bounds`

    def _evict_connection(self) -> None:
        """Make room for a connection: closed ones go first, then the oldest embryonic, then the longest idle."""
        if self._closed:
            state, kind = next(iter(self._closed.values()))[1], "connection_lingering"
        elif self._embryonic:
            state, kind = next(iter(self._embryonic)), "connection_embryonic"
        else:
            state, kind = self._longest_idle(), "connection_idle"
        self._counters.evicted += not state.closed  # half closed ones linger here too
        self._counters.count_eviction(kind, state.key)
        self._complete(state, "evicted")
        self._forget(state)

    def _longest_idle(self) -> StreamState:
        """Exactly the least recently active connection, where none is half open or over. O(log n) amortised, by sorting
        one batch at a time: docs/decisions/0004 says why."""
        while True:
            while self._idle_batch:
                state = self._idle_batch.pop()
                if not state.closed and state.last_packet <= self._idle_mark:
                    return state
            order = sorted(self._states(), key=_last_packet)
            del order[len(order) // 4 + 1 :]
            self._idle_mark = order[-1].last_packet
            self._idle_batch = order[::-1]

    def _states(self) -> List[StreamState]:
        """Every connection. O(connections); a list, because PyPy runs a generator slowly where C code asks it."""
        return [half.state for half in self._halves.values() if half is half.state.client]

    def _is_established(self, state: StreamState) -> bool:
        return not (state.closed or state.embryonic or state.key in self._closed)

    # -- the life of connections

    def _established(self, state: StreamState) -> None:
        if state.closed:
            return
        if state.embryonic:
            state.embryonic = False
            self._embryonic.pop(state, None)
        state.reset_unconfirmed = False
        self._closed.pop(state.key, None)

    def _half_closed(self, state: StreamState) -> None:
        """Only one side will speak, or none: the linger decides."""
        if not state.closed and state.key not in self._closed:
            self._embryonic.pop(state, None)
            self._closed[state.key] = (self._now, state)

    def _end_of(self, state: StreamState, otherwise: str) -> str:
        """The reason for the end of a connection that may have waited for its other side only."""
        if state.reset_unconfirmed:
            return "rst"
        over = self._acked_only and state.client.fin_received and state.server.fin_received
        return "fin" if over or state.key in self._closed else otherwise

    def _complete(self, state: StreamState, reason: str) -> None:
        """Deliver what is held, then call `Stream.complete`, exactly once. The connection lingers."""
        if state.closed:
            return
        try:
            self._end(state, reason)
        finally:  # an interrupt passes through here
            self._linger(state)

    def _linger(self, state: StreamState) -> None:
        """Late packets are judged by this connection, for `Timeouts.closed` from now on."""
        if state.key in self._closed:
            self._closed.move_to_end(state.key)
        self._closed[state.key] = (self._now, state)

    def _end(self, state: StreamState, reason: str) -> None:
        state.closed = True
        client, server = state.client, state.server
        try:
            try:
                nothing = not state.page_count and client.details is server.details is state.details is NOTHING
                nothing = nothing and (client.ended or client.fin_offset is None)  # and no FIN waits
                if not (nothing and (server.ended or server.fin_offset is None)):
                    if state.stream is not None:
                        state.finish("flushed" if reason == "flushed" else "aged" if reason == "idle" else "closed")
            finally:
                if state.page_count:
                    state.release_pages()
                self._tell_end(state, reason)
        finally:
            client.plain = server.plain = NEEDS_RULES if state.accepts else OVER
            if not self._history_bytes:
                client.details = server.details = state.details = NOTHING
            if state.embryonic:
                self._embryonic.pop(state, None)

    def _tell_end(self, state: StreamState, reason: str) -> None:
        """Let the handler hear that its connection is over, and count it."""
        if not state.reason:
            state.reason = reason
        stream = state.stream
        try:
            if stream is not None:
                stream.complete(reason)
        except Exception as error:
            self._handler_failed(state, stream, error)
        except BaseException:
            self._abandon(state)
            raise
        finally:
            self._counters.completion_reasons[state.reason] += 1
            state.watcher, state.stream = state.stream, None

    def _abandon(self, state: StreamState) -> None:
        """Stop following at once, without another delivery; the addresses linger."""
        stream, state.stream, state.watcher = state.stream, None, None
        self._keep_offset = None  # what it asked for in the call that failed is no other stream's
        told = bool(state.reason)
        state.reason = state.reason or "abandoned"
        if state.closed:
            state.release_pages()
        else:
            self._complete(state, "abandoned")
        if stream is not None and not told:
            try:
                stream.complete("abandoned")
            except Exception as error:
                self._note_failure(state, stream, error)

    def _forget(self, state: StreamState) -> None:
        """Take a completed connection out of the tables."""
        self._note_peak()
        self._closed.pop(state.key, None)
        self._state_count -= 1
        if state.key.__class__ is not bytes:
            self._key_bytes -= key_cost(state.key)
        state.client.details = state.server.details = state.details = NOTHING  # a held segment may lead to them
        self._take_apart(state)

    def _take_apart(self, state: StreamState) -> None:
        """Let nothing lead to the connection any more but chunks; without the way from there to its directions nothing
        is a cycle, and the collector is not needed."""
        halves = self._halves
        del halves[state.key]
        if state.reverse in halves:  # it is the same, where the two ends are the same
            del halves[state.reverse]
        state.client.peer = state.server.peer = None
        state.client = state.server = state.stream = state.watcher = None  # type: ignore[assignment]  # nobody asks any more
        if self._policies.chosen:
            self._policies.forget(state)

    def _note_peak(self) -> None:
        """Before the number of connections falls, or is asked for: so growing costs nothing."""
        if self._state_count > self._counters.connections_peak:
            self._counters.connections_peak = self._state_count

    def _forget_all(self) -> None:
        """Let go of what may still point to connections that are over."""
        self._drop_held(0)
        self._idle_batch, self._age_batch, self._last_end = [], [], None
        for table in (self._halves, self._embryonic, self._closed, self._pages.lru):
            if not table:
                table.clear()  # an empty table would keep the room of its largest size

    # -- flushing

    def _note_present(self) -> None:
        """Take in the time of the last packet, which may have taken the short path. O(connections)."""
        last = self._packets
        for half in self._halves.values():
            if half.state.last_packet == last:
                self._present = half.state.last_seen

    def _flush_state(self, state: StreamState, before: float) -> int:
        """Give up what has waited since before `before`; how many directions delivered something."""
        count = 0
        for half in (state.client, state.server):
            flushed = False
            if half.held and half.held.end_of_older(before) is not None:
                half.hand_over()
                flushed = True
            if half.holding and half.queue and half.queue.end_of_older(before) is not None:
                half.release_hold()  # offsets count from its first byte from now on
                flushed = True
            end = half.queue.end_of_older(before) if half.queue else None
            while end is not None and half.queue and state.stream is not None and half.queue.first_offset < end:
                half.skip_hole("aged")
                flushed = True
            count += flushed
        state.refresh()
        return count

    def check(self) -> None:
        """Verify the invariants of tables, page cache and queues. O(connections + pages); for tests."""
        self._pages.check()
        assert not any(state.closed for state in self._embryonic)
        for half in self._halves.values():
            for queue in half.queues():
                queue.check()
            assert half.plain != WAITS if not half.queue else half.plain < 0
            assert not half.queue or half.queue.end_offset <= half.ahead or half.holding
            assert not half.cuts or half.cuts.end() <= half.ahead or half.holding


def make_state(host: Any, key: FlowKey, reverse: FlowKey, created: float) -> StreamState:
    """A connection about which nothing is known but its two directed keys, the client's first. No `__init__`: a call of
    one from C is what makes an object expensive."""
    state = StreamState()
    state.host = host
    state.key = key
    state.reverse = reverse
    state.details = NOTHING
    state.last_seen = created
    state.page_count = state.last_packet = 0
    state.stream = state.watcher = None
    state.closed = state.embryonic = state.reset_unconfirmed = state.accepts = False
    state.reason = ""
    state.client = client = HalfStream()
    state.server = server = HalfStream()
    client.state = server.state = state
    client.peer, server.peer = server, client
    client.direction, server.direction = CLIENT_TO_SERVER, SERVER_TO_CLIENT
    client.details = server.details = NOTHING
    client.plain = client.expected_seq = client.ts_recent = -1
    server.plain = server.expected_seq = server.ts_recent = -1
    client.last_ack = server.last_ack = NEVER
    client.scale = client.max_window = client.shown = client.line = -1
    server.scale = server.max_window = server.shown = server.line = -1
    client.next_offset = client.acked = server.next_offset = server.acked = 0
    client.queue = client.fin_offset = server.queue = server.fin_offset = None
    client.syn_seen = client.holding = client.ended = client.started = client.stopped = client.good_checksums = False
    server.syn_seen = server.holding = server.ended = server.started = server.stopped = server.good_checksums = False
    return state
