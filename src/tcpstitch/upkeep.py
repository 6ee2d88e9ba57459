"""What the assembler does about bounds, endings and time. PageCache decides who; this decides what happens."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, Optional

from .errors import StreamCallbackError
from .half import NEEDS_RULES, OVER, HalfStream
from .hostpolicy import Policies
from .limits import Limits, Timeouts
from .pages import PageCache
from .segment import FlowKey
from .state import StreamState
from .statistics import Counters, Holder


class Upkeep:
    """The part of the assembler that states and halves talk to."""

    def __init__(self, limits: Limits, policies: Policies, timeouts: Timeouts, on_limit: str, start_any: bool,
                 on_error: Optional[Callable[[Any, BaseException], None]]) -> None:  # fmt: skip
        self.counters = Counters()
        self.limits = limits
        self.timeouts = timeouts
        self.policies = policies
        self.on_limit = on_limit
        self.start_any = start_any
        self.on_error = on_error
        self.pages = PageCache(limits.page_size, limits.max_buffered_pages_total)
        self.max_pages_per_connection = limits.max_buffered_pages_per_connection
        self.history_bytes = limits.max_history_bytes_per_connection
        self.verify_bytes = 64
        self.now = 0.0
        # Every connection is in `_halves`, once for each direction. Those that are half open or (half) closed are also
        # in a table by the time since when they are, the oldest first; an established one costs no more than it must.
        self._halves: Dict[FlowKey, HalfStream] = {}
        self._embryonic: OrderedDict[StreamState, float] = OrderedDict()
        self._closed: OrderedDict[StreamState, float] = OrderedDict()
        self._state_count = 0
        self._idle_batch: List[StreamState] = []
        self._idle_mark = 0
        self._age_batch: List[StreamState] = []
        self._age_packets = 0
        self._error: Optional[StreamCallbackError] = None
        self.busy: Any = None  # what runs: the assembler itself, or the chunk that a handler has
        self.asked = False  # the handler that has the chunk asked for something
        self.keep_offset: Optional[int] = None
        self.last_end: Optional[HalfStream] = None  # its last data said that it was the last
        self._arrivals = 0
        self._clock_started = False
        self._next_timer = float("-inf")
        self._next_sweep = 0.0
        self._sweep_packets = 0
        self._jump: Optional[float] = None
        self._packets = 0

    # -- handlers

    def call(self, state: StreamState, method: str, argument: Any) -> None:
        """Run a handler's method; if it raises, its stream is abandoned and the error kept for the caller."""
        handler = state.stream if state.stream is not None else state.watcher
        if handler is None or (state.stream is None and method != "anomaly"):
            return
        try:
            getattr(handler, method)(argument)
        except Exception as error:
            self.handler_failed(state, handler, error)
        except BaseException:
            self.abandon(state)
            raise

    def handler_failed(self, state: StreamState, handler: Any, error: Exception) -> None:
        """Abandon the stream; the error goes to `on_error`, else to the caller once this packet is done with."""
        self.abandon(state)
        self._note_error(state, handler, error)

    def _note_error(self, state: StreamState, handler: Any, error: Exception) -> None:
        if self.on_error is not None:
            self.on_error(handler, error)
        elif self._error is None:
            self._error = StreamCallbackError(f"handler of {state.flow} raised {error!r}; its stream is abandoned")
            self._error.__cause__ = error
        else:
            import logging  # costs more to import than most of this package

            logging.getLogger("tcpstitch").warning("handler of %s raised %r as well", state.flow, error)

    def raise_pending(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def next_arrival(self) -> int:
        self._arrivals += 1
        return self._arrivals

    # -- bounds

    def make_room(self, half: HalfStream, needed: int) -> bool:
        """True if `needed` pages may be taken now; else something was given up and the caller looks again."""
        state = half.state
        pages = self.pages
        if state.page_count + needed > self.max_pages_per_connection:
            self.counters.page_limit_hits += 1
            self._relieve(state, half, "page_limit", needed)
            return False
        if needed > pages.max_pages - pages.used:
            victim = pages.victim(state)
            self.counters.evictions += 1
            self._relieve(victim if victim is not None else state, half, "total_limit", needed)
            return False
        return True

    def enforce_connection_limit(self, half: HalfStream) -> None:
        """As in gopacket, a connection that has reached its bound gives up its lowest missing range at once."""
        state = half.state
        while state.stream is not None and state.page_count >= self.max_pages_per_connection:
            self.counters.page_limit_hits += 1
            self._relieve(state, half, "page_limit", 0)

    def _relieve(self, state: StreamState, speaker: HalfStream, reason: str, needed: int) -> None:
        """Make one connection give something up; always makes progress."""
        waiting = [half for half in (state.client, state.server) if half.queue]
        if self.on_limit == "abandon" and state.page_count:
            self.abandon(state)
        elif waiting and self.on_limit == "drop":
            half = min(waiting, key=_first_timestamp)
            assert half.queue is not None
            half.queue.drop_first_page()
            half.holding = half.holding and bool(half.queue)
        elif waiting:
            half = min(waiting, key=_first_timestamp)
            before = state.page_count, half.next_offset
            half.skip_hole(reason)
            if half.queue and (state.page_count, half.next_offset) == before:
                half.queue.clear()  # never wait for a rule that does not come
        elif state.page_count:
            state.client.drop_kept()
            state.server.drop_kept()
        elif needed:
            self._pass_over(speaker, reason)
        if state is not speaker.state:
            state.refresh()

    def _pass_over(self, speaker: HalfStream, reason: str) -> None:
        """A segment that needs more pages than there are: nothing waits before it, so the stream jumps to it."""
        speaker.jump_to_waiting(reason)

    def kept_room(self, state: StreamState) -> int:
        """How many pages a handler may keep back now; one stays free for the stream to go on."""
        return max(0, min(self.max_pages_per_connection - 1 - state.page_count, self.pages.room()))

    def evict_connection(self) -> None:
        """Make room for a connection: closed ones go first, then the oldest embryonic, then the longest idle."""
        if self._closed:
            state = next(iter(self._closed))
            self.counters.evicted += not state.closed  # half closed ones linger here too
            self.complete(state, "evicted")
            self.forget(state)
            return
        self.counters.evicted += 1
        victim = next(iter(self._embryonic)) if self._embryonic else self._longest_idle()
        self.complete(victim, "evicted")
        self.forget(victim)

    def _longest_idle(self) -> StreamState:
        """Exact least recently active established connection; O(log n) amortised, by sorting one batch at a time."""
        while True:
            while self._idle_batch:
                state = self._idle_batch.pop()
                if self._is_established(state) and state.last_packet <= self._idle_mark:
                    return state
            order = sorted(filter(self._is_established, self._states()), key=_last_packet)
            del order[len(order) // 16 + 1 :]
            self._idle_mark = order[-1].last_packet
            self._idle_batch = order[::-1]

    def _states(self) -> Iterator[StreamState]:
        """Every connection."""
        return (half.state for half in self._halves.values() if half is half.state.client)

    def _is_established(self, state: StreamState) -> bool:
        return not (state.closed or state.embryonic or state in self._closed)

    # -- the life of connections

    def established(self, state: StreamState) -> None:
        if state.closed:
            return
        if state.embryonic:
            state.embryonic = False
            self._embryonic.pop(state, None)
        state.restartable = False
        self._closed.pop(state, None)

    def half_closed(self, state: StreamState) -> None:
        """Only one side will speak, or none: the linger decides."""
        if not state.closed and state not in self._closed:
            self._embryonic.pop(state, None)
            self._closed[state] = self.now

    def complete(self, state: StreamState, reason: str) -> None:
        """Deliver what is held, then call `Stream.complete`, exactly once."""
        if state.closed:
            return
        state.closed = True
        if state.stream is not None:
            state.finish("flushed" if reason == "flushed" else "aged" if reason == "idle" else "closed")
        state.release_pages()
        state.reason = state.reason or reason
        if state.stream is not None:
            self.call(state, "complete", reason)
        self.counters.completed += 1
        state.watcher, state.stream = state.stream, None
        state.client.plain = state.server.plain = NEEDS_RULES if state.accepts else OVER
        if self._closed.pop(state, None) is None:
            self._embryonic.pop(state, None)
        self._closed[state] = self.now

    def abandon(self, state: StreamState) -> None:
        """Stop following at once, without another delivery; the addresses linger."""
        stream, state.stream, state.watcher = state.stream, None, None
        told = bool(state.reason)
        state.reason = state.reason or "abandoned"
        if state.closed:
            state.release_pages()
        else:
            self.complete(state, "abandoned")
        if stream is not None and not told:
            try:
                stream.complete("abandoned")
            except Exception as error:
                self._note_error(state, stream, error)

    def forget(self, state: StreamState) -> None:
        """Take a completed connection out of the tables."""
        for half in (state.client, state.server):
            key = state.key_of(half)
            if self._halves.get(key) is half:
                del self._halves[key]
            half.peer = None
        self._state_count -= 1
        self._closed.pop(state, None)
        self._embryonic.pop(state, None)
        self.policies.forget(state)
        state.watcher = None
        # Chunks may still point here; without the way back nothing is a cycle, and the collector is not needed.
        state.client = state.server = None

    # -- flushing

    def flush_state(self, state: StreamState, before: float) -> bool:
        """Give up what has waited since before `before`; True if something was delivered."""
        flushed = False
        for half in (state.client, state.server):
            if half.holding and half.queue and half.queue.end_of_older(before) is not None:
                flushed = half.skip_hole("aged") or flushed  # offsets count from its first byte from now on
            end = half.queue.end_of_older(before) if half.queue else None
            while end is not None and half.queue and state.stream is not None and half.queue.first_offset < end:
                flushed = half.skip_hole("aged") or flushed
        state.refresh()
        return flushed

    # -- bounds and counters, while running

    @property
    def max_buffered_pages_per_connection(self) -> int:
        return self.max_pages_per_connection

    @max_buffered_pages_per_connection.setter
    def max_buffered_pages_per_connection(self, pages: int) -> None:
        Limits(max_buffered_pages_per_connection=pages)
        self.max_pages_per_connection = pages
        self._shrink()

    @property
    def max_buffered_pages_total(self) -> int:
        return self.pages.max_pages

    @max_buffered_pages_total.setter
    def max_buffered_pages_total(self, pages: int) -> None:
        Limits(max_buffered_pages_total=pages)
        self.pages.max_pages = pages
        self._shrink()

    def _shrink(self) -> None:
        """Evict down to the bounds at once."""
        outer, self.busy = self.busy, self
        try:
            for state in list(self.pages.lru):
                self.enforce_connection_limit(state.client)
            while self.pages.used > self.pages.max_pages:
                victim = self.pages.victim(None)
                assert victim is not None
                self.counters.evictions += 1
                self._relieve(victim, victim.client, "total_limit", 0)
        finally:
            self.busy = outer
        if outer is None:
            self.raise_pending()

    def top(self, count: int = 10) -> List[Holder]:
        """The connections that hold the most pages, largest first. O(holders)."""
        states = sorted(self.pages.lru, key=lambda state: -state.page_count)[:count]
        return [
            Holder(
                state.flow,
                state.page_count,
                sum(
                    queue.buffered_bytes
                    for half in (state.client, state.server)
                    for queue in (half.queue, half.kept)
                    if queue is not None
                ),
                self.now - state.last_seen,
            )
            for state in states
        ]

    def check(self) -> None:
        """Verify the invariants of the page cache and of every queue. O(connections + pages); for tests."""
        self.pages.check()
        for half in self._halves.values():
            for queue in (half.queue, half.kept):
                if queue is not None:
                    queue.check()
            assert half.plain < 0 or half.state.page_count == 0


def _first_timestamp(half: HalfStream) -> float:
    assert half.queue is not None
    return half.queue.first_timestamp


def _last_packet(state: StreamState) -> int:
    return state.last_packet
