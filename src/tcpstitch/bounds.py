"""The bounds carried out: who gives what up for whom, and what is said about it.

PageCache names the connection that has to give; here it is made to, and its handler is asked how. `Upkeep` adds the
tables of connections.
"""

from __future__ import annotations

import dataclasses
from _thread import get_ident  # as in `threading`, of which nothing else is needed
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple, Type

from .details import Pending, without
from .errors import ReentrantCallError, StreamCallbackError, UsageError, said, whole
from .half import HalfStream
from .limits import CONNECTION_BYTES, Limits, connection_cost, key_cost
from .notices import WARNING, notice
from .openings import Openings
from .pages import PageCache
from .pressure import PressureGauge
from .segment import Segment
from .settings import Settings
from .state import StreamState
from .statistics import Counters, Holder
from .stream import ON_LIMIT, OverLimit, Stream

CLOSE = 2  # pages: owners are charged by the 32


class Bounds(Settings):
    """The part of the assembler that owns the limits."""

    # First what packets read and write, whichever part of the assembler owns it. There is no `__dict__`, so that an
    # attribute that is none, such as a misspelt one, is refused; and with 30 attributes or more in it CPython would
    # specialise neither these nor the calls of methods.
    __slots__ = (
        "__weakref__", "_acked_only", "_always_rules", "_arrivals", "_asked", "_busy", "_closed",
        "_counters", "_decoder", "_embryonic", "_error", "_frames", "_gauge", "_halves", "_history_bytes",
        "_keep_offset", "_key_bytes", "_last_end", "_layout", "_max_connections", "_max_pages_per_connection",
        "_next_timer", "_now", "_openings", "_packets", "_pages", "_policies", "_present", "_state_count", "_strict",
        "_taken", "_timeouts", "_usual_accepts", "_usual_class",
        "_held", "_held_bytes", "_home", "_limits", "_running", "_shrink_due",
    )  # fmt: skip

    _busy: Any
    _now: float
    _at_work: Callable[[], bool]
    _abandon: Callable[[StreamState], None]
    _handler_failed: Callable[[StreamState, Any, Exception], None]
    _raise_pending: Callable[[], None]
    _evict_connection: Callable[[], None]
    _note_present: Callable[[], None]
    _error: Optional[StreamCallbackError]
    _closed: Any
    _next_timer: Any
    _openings: Openings

    def __init__(self, limits: Limits) -> None:
        _check(limits)
        self._counters = Counters()
        self._pages = PageCache(limits.page_size, limits.max_buffered_pages_total)
        self._gauge: Optional[PressureGauge] = None
        self._limits = limits
        self._shrink_due = False
        self._running = False  # in `run`
        self._home = get_ident()  # the thread of the last `run`, or that made it: who changes something may be another
        self._state_count = 0
        self._key_bytes = 0  # of VLANs and tunnels in the keys of connections
        self._held: Deque[Tuple[Any, str, Pending]] = deque()
        self._held_bytes = 0
        self._take_over()

    # -- pages

    def _make_room(self, half: HalfStream, needed: int, start: int) -> bool:
        """True if `needed` pages may be taken now for data at `start`; else something was given up and the caller looks
        again.

        To look has its cost. So more than one thing may be given up before that: below `start`, or of others, and only
        what would be given up all the same. What is needed may be less by `CLOSE` then.
        """
        state, pages = half.state, self._pages
        base = half.base_seq if half.known else -1
        close = 0
        while True:
            beyond = state.page_count + needed - self._max_pages_per_connection
            if beyond > close:
                victim, reason = state, "page_limit"
            elif beyond > 0:
                return False
            elif needed > pages.room() + close:
                victim, reason = pages.victim(state) or state, "total_limit"
            else:
                return not close
            self._relieve(victim, half, reason, start)
            if state.stream is None or half.stopped or half.fin_received or half.base_seq != base:
                return False
            if victim is state and not (half.queue and half.queue.first_offset < start):
                return False
            close = CLOSE

    def _enforce_connection_limit(self, half: HalfStream) -> None:
        """As in gopacket, a connection that has reached its bound gives up its lowest missing range at once."""
        state = half.state
        while state.stream is not None and state.page_count >= self._max_pages_per_connection:
            self._relieve(state, half, "page_limit")

    def _relieve(self, state: StreamState, speaker: HalfStream, reason: str, start: Optional[int] = None) -> None:
        """Make one connection give something up, for data of `speaker` at `start` if it is for any; always makes
        progress."""
        before = state.page_count, state.client.next_offset, state.server.next_offset
        if state.client.held or state.server.held:
            for half in (state.client, state.server):
                half.hand_over()  # rather before the acknowledgement than not at all
        else:
            self._evict(state, speaker, reason, start)
        if before == (state.page_count, state.client.next_offset, state.server.next_offset) and state.page_count:
            state.release_pages()  # never wait for a rule that does not come
        if state is not speaker.state:
            state.refresh()

    def _evict(self, state: StreamState, speaker: HalfStream, reason: str, start: Optional[int]) -> None:
        self._counters.count_eviction(reason, state.key)
        before = state.page_count
        choice = self._choice_of(state, reason)
        if state.page_count < before:
            return  # its handler failed, or stopped: that is enough
        waiting = [half for half in (state.client, state.server) if half.queue]
        if choice == "abandon" and state.page_count:
            self._abandon(state)
        elif waiting:
            half = min(waiting, key=_first_timestamp)
            if choice == "drop":
                half.drop_lowest()
            else:
                half.skip_hole(reason)
        elif state.page_count:
            state.client.drop_kept()
            state.server.drop_kept()
        elif start is not None and speaker.state.stream is not None:
            # A segment that needs more pages than there are: nothing waits before it, so the stream jumps to it.
            speaker.jump_to(start, reason)

    def _choice_of(self, state: StreamState, reason: str) -> str:
        """What the handler wants to be done at a limit; the assembler's own choice where it says nothing."""
        stream = state.stream
        try:
            ask = getattr(stream, "over_limit", None)  # a property may raise
            if ask is None or getattr(ask, "__func__", None) is Stream.over_limit:
                return self._on_limit
            info = OverLimit(reason, state.page_count, _buffered(state), self._age(state))
            choice = ask(info)
            if choice is not None and choice not in ON_LIMIT:
                raise UsageError(f"over_limit() returned {choice!r}: return one of {', '.join(ON_LIMIT)}, or None")
        except Exception as error:
            self._handler_failed(state, stream, error)
            return self._on_limit
        except BaseException:
            self._abandon(state)
            raise
        return choice or self._on_limit

    def _kept_room(self, state: StreamState) -> int:
        """How many pages a handler may keep back now; one stays free for the stream to go on."""
        return max(0, min(self._max_pages_per_connection - 1 - state.page_count, self._pages.room()))

    def _hold(self, owner: Any, name: str, segment: Segment, timestamp: float, kind: Type[Pending] = Pending) -> None:
        """Let the attribute `name` be this segment, as `kind`, or have it behind others, until it is taken. All such
        segments together have a bound; the oldest give way. O(1) amortised."""
        waiting = kind(segment, timestamp)
        before = getattr(owner, name)
        setattr(owner, name, (*before, waiting) if before.__class__ is tuple else waiting)
        self._held.append((owner, name, waiting))
        self._held_bytes += _cost(segment)
        self._drop_held(self._limits.held_bytes)

    def _drop_held(self, bound: int) -> None:
        while self._held_bytes > bound:
            owner, name, waiting = self._held.popleft()
            self._held_bytes -= _cost(waiting.segment)
            value = getattr(owner, name)
            if value is waiting:
                setattr(owner, name, None)
            elif value.__class__ is tuple:
                setattr(owner, name, without(value, waiting))

    # -- limits, while running

    @property
    def limits(self) -> Limits:
        """The limits in force. Set them to change them while running: smaller ones evict down to them at once; or, if a
        handler or a signal's sets them, `run` is at work, or the thread is neither that of the last `run` nor, before
        the first, the one that made the assembler, with the next packet, and before a flush returns; until then
        `statistics()` may show more. The page size stays. Raises `UsageError`. O(connections), O(what is evicted), and
        O(pages held) where the slabs become smaller."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        _check(limits)
        if limits.page_size != self._limits.page_size:
            raise UsageError("the page size cannot change while running: give the limits the same, or start anew")
        self._limits = limits
        self._take_over()
        self._shrink_due = True
        # Another thread cannot know whether `run`, a packet or a flush begins or ends in this moment.
        if self._running or self._home != get_ident() or self._at_work():
            self._next_timer = float("-inf")  # that is, with the next packet
        else:
            self._shrink()
            self._raise_pending()

    def _elsewhere(self) -> bool:
        """Whether `run` is at work in another thread than the one that asks."""
        return self._running and self._home != get_ident()

    def _take_over(self) -> None:
        """Copy the limits to where they are looked at for each packet. May come at any time, so it evicts nothing."""
        limits = self._limits
        self._pages.bound(limits.max_buffered_pages_total)
        self._max_pages_per_connection = limits.max_buffered_pages_per_connection
        self._max_connections = limits.max_connections
        self._history_bytes = limits.max_history_bytes_per_connection

    def _trim_others(self) -> None:
        """What the limits bound besides pages and connections."""

    @property
    def max_buffered_pages_per_connection(self) -> int:
        """gopacket's MaxBufferedPagesPerConnection; the same as in `limits`."""
        return self._max_pages_per_connection

    @max_buffered_pages_per_connection.setter
    def max_buffered_pages_per_connection(self, pages: int) -> None:
        self.limits = dataclasses.replace(self._limits, max_buffered_pages_per_connection=pages)

    @property
    def max_buffered_pages_total(self) -> int:
        """gopacket's MaxBufferedPagesTotal; the same as in `limits`."""
        return self._pages.max_pages

    @max_buffered_pages_total.setter
    def max_buffered_pages_total(self, pages: int) -> None:
        self.limits = dataclasses.replace(self._limits, max_buffered_pages_total=pages)

    def _counted_connections(self, extra: int = 0) -> int:
        """How many of `max_connections` there are: VLANs and tunnels, those of `extra` bytes too, count as what else
        fits in their room. O(1)."""
        return self._state_count + (self._key_bytes + extra) // CONNECTION_BYTES

    def _shrink(self) -> None:
        """Evict down to the bounds, if they have changed; and again, while handlers that hear of it change them."""
        outer, self._busy = self._busy, self
        heard = False
        try:
            while self._shrink_due:
                self._shrink_due = False
                self._note_present()
                self._evict_down()
                if not heard:  # once: it may answer each level with other limits, and would never come to an end
                    heard = True
                    self._watch_pressure()
        except BaseException:  # an interrupt passes through here, and what `on_error` raises
            self._shrink_due = True
            self._next_timer = float("-inf")  # go on with the next packet
            raise
        finally:
            self._busy = outer

    def _evict_down(self) -> None:
        self._take_over()  # once more: of two threads that set limits the one may have overtaken the other in it
        for state in list(self._pages.lru):
            if state.page_count:
                self._enforce_connection_limit(state.client)
                state.refresh()
        while self._pages.used > self._pages.max_pages:
            victim = self._pages.victim(None)
            assert victim is not None
            self._relieve(victim, victim.client, "total_limit")
            victim.refresh()
        self._pages.fit()
        while self._counted_connections() > self._max_connections:
            self._evict_connection()
        self._drop_held(self._limits.held_bytes)
        self._trim_others()

    # -- who holds what

    def top(self, count: int = 10) -> List[Holder]:
        """The connections that hold the most pages, largest first. O(holders log holders). Raises
        `ReentrantCallError` while `run` is at work in another thread."""
        if self._elsewhere():
            raise ReentrantCallError
        states = sorted(self._pages.lru, key=lambda state: -state.page_count)[: whole("count", count, 0)]
        return [Holder(state.flow, state.page_count, _buffered(state), self._age(state)) for state in states]

    def _age(self, state: StreamState) -> float:
        # `last_seen` may be exact, and ahead of a clock that goes in steps.
        return max(0.0, self._now - float(state.last_seen))

    def pressure(self) -> float:
        """How full the fullest bound is: of pages, or of connections that are not over. O(1)."""
        living = self._counted_connections() - len(self._closed)
        return max(self._pages.used / self._pages.max_pages, living / self._max_connections)

    def memory_bytes(self) -> int:
        """What pages, connections and segments that may come to nothing hold now, estimated from above. O(1)."""
        connections = self._state_count * connection_cost(self._history_bytes) + self._key_bytes
        return self._pages.memory_bytes() + connections + self._held_bytes + self._openings.bytes

    def _watch_pressure(self) -> None:
        """Let the user's callback hear of a new level of pressure."""
        gauge = self._gauge
        if gauge is None:
            return
        try:
            gauge.update(self.pressure())
        except Exception as error:
            self._note_error("on_pressure", gauge.callback, error)

    def _note_error(self, name: str, handler: Any, error: Exception, fate: str = "") -> None:
        """What the user's `handler` raised goes to `on_error`, or to the caller; to the log where another waits."""
        if self._on_error is not None:
            self._on_error(handler, error)
        elif self._error is None:
            self._error = StreamCallbackError(f"{name} raised {said(error)}{fate}")
            self._error.__cause__ = error
        else:
            notice(WARNING, "%s raised %s as well", name, said(error))


def _check(limits: Any) -> None:
    if not isinstance(limits, Limits):
        raise UsageError(f"limits={limits!r}: give a Limits(...) or Limits.from_memory(...)")


def _cost(segment: Segment) -> int:
    """What a held segment takes at most, with a connection that is over and would be gone but for it."""
    return CONNECTION_BYTES + len(segment.frame) + len(segment.payload) + key_cost(segment.key)


def _first_timestamp(half: HalfStream) -> float:
    assert half.queue is not None
    return half.queue.first_timestamp


def _buffered(state: StreamState) -> int:
    """The bytes that a connection holds in pages."""
    return sum(queue.buffered_bytes for half in (state.client, state.server) for queue in half.queues())
