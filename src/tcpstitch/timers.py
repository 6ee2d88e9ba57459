"""What happens by itself as capture time goes on."""

from __future__ import annotations

from math import inf, nan
from typing import Any, Optional

from .errors import UsageError, shown
from .lingering import Lingering

TIMER_STEP = 1.0  # seconds of capture time between looks at the timers
JUMP_SECONDS = 3600.0  # a jump ahead by more is believed only when packet after packet confirms it
BACK_SECONDS = 60.0  # so is a jump back by more; by less, the clock just stands until time has caught up
JUMP_PACKETS = 16  # so many in a row


def seconds(stamp: Any, endless: bool = False) -> float:
    """A time as a float; dpkt gives those of nanosecond captures as `Decimal`. Raises `UsageError` for what is no time;
    infinity is one only if `endless`."""
    if isinstance(stamp, float) and abs(stamp) < inf:
        return stamp
    try:
        number = hasattr(stamp, "__float__") and not isinstance(stamp, (bool, str))  # numpy's strings have that too
        value = float(stamp) if number else nan
    except (TypeError, ValueError, ArithmeticError):  # an array, a `Decimal` that signals, an int beyond all floats
        value = nan
    if abs(value) < inf or endless and value == value:
        return value
    advice = "give seconds since the epoch, as the packets' timestamps are"
    if callable(getattr(stamp, "timestamp", None)):  # a datetime
        advice = "give seconds since the epoch, its timestamp()"
    elif isinstance(stamp, (bytes, bytearray, memoryview)):
        advice = "assemble takes (packet, timestamp), run pairs of (timestamp, packet): give seconds as timestamp"
    raise UsageError(f"{shown(stamp)} is no time: {advice}")


def blame(stamp: Any, error: Exception) -> Exception:
    """The error to raise for `error`, which came while `stamp` was compared or acted upon: `UsageError` if that is no
    time, else `error` itself."""
    try:
        seconds(stamp)
    except UsageError as refused:
        return refused
    return error


class BeforeAll:
    """What stands for the time of the next timer until the first packet has come: no time is before it, and only a time
    can be compared with it. So what is no time is refused at no cost for the packets that follow."""

    def __gt__(self, stamp: Any) -> bool:
        seconds(stamp)
        return False


class Timers(Lingering):
    """The part of the assembler that runs on the packets' own timestamps."""

    __slots__ = ()

    def _run_timers(self, timestamp: float) -> None:
        """Advance the capture clock and let what is due happen. Constant cost per packet, amortised."""
        self._shrink()
        if self._clock_started and not self._clock_allows(timestamp):
            return
        self._clock_started = True
        self._now = self._present = timestamp
        self._next_timer = timestamp + TIMER_STEP
        # Not more connections than packets came since the last time, so that the cost per packet is constant.
        count = max(64, self._packets - self._age_packets)
        self._age_packets = self._packets
        self._expire_closed(self._timeouts.closed, timestamp, count)
        self._expire_embryonic(self._timeouts.embryonic, timestamp, count)
        self._age_gaps(timestamp, count)
        idle = self._timeouts.idle
        # A look at all connections costs O(n): at most once per n/4 packets, whatever the timestamps say.
        if idle is not None and timestamp >= self._next_sweep and (
            self._packets - self._sweep_packets >= self._state_count // 4
        ):
            self._next_sweep = timestamp + idle / 8
            self._sweep_packets = self._packets
            self._idle_batch = []  # connections of it that have ended are not to stay
            silent = [state for state in self._states() if self._since(state.last_seen) < timestamp - idle]
            for state in filter(self._is_established, silent):
                self._complete(state, "idle")
                self._forget(state)
        self._watch_pressure()

    def _clock_allows(self, timestamp: float) -> bool:
        """Whether the clock goes to `timestamp`. A few packets with a wrong time, or with that of another clock between
        those of this one, do not move it, so they flush nothing."""
        ahead = timestamp - self._now
        if -BACK_SECONDS <= ahead <= JUMP_SECONDS:
            self._jump_packets = 0
            self._next_timer = self._now + TIMER_STEP
            return ahead >= TIMER_STEP
        if timestamp < self._jump - BACK_SECONDS:
            self._jump_packets = 0
        self._jump = timestamp
        if self._packets != self._jump_seen:  # else this is the same packet, on its way from one path to another
            self._jump_seen = self._packets
            self._jump_packets += 1
        if self._jump_packets < JUMP_PACKETS:
            self._next_timer = float("-inf")  # look at the next packet too
            if ahead > 0:
                self._future_since = self._now
            return False
        self._jump_packets = 0
        if ahead < 0:
            self._future_since = self._next_sweep = timestamp
        return True

    def _since(self, stamp: float) -> float:
        """When something happened, by the clock as it goes now: what lies in the future counts from when the clock was
        last set back, or a packet with such a time last came."""
        return stamp if stamp <= self._now + TIMER_STEP else self._future_since

    def _expire_closed(self, wait: Optional[float], timestamp: float, count: int) -> None:
        """Those that are over for so long. Of those that still speak `count` get more time; the next ends the look."""
        while wait is not None and self._closed:
            key, (since, state, *_) = next(iter(self._closed.items()))
            if self._since(since) >= timestamp - wait:
                return
            if state is None:
                self._forget_small(key)
                continue
            seen = self._since(state.last_seen)
            if seen >= timestamp - wait and (not state.closed or state.reason == "ignored"):
                if not count:
                    return
                count -= 1
                self._closed.move_to_end(key)  # one side still speaks
                self._closed[key] = (seen, state)
                continue
            self._complete(state, self._end_of(state, "fin"))
            self._forget(state)

    def _expire_embryonic(self, wait: Optional[float], timestamp: float, count: int) -> None:
        while wait is not None and self._embryonic:
            state, since = next(iter(self._embryonic.items()))
            if self._since(since) >= timestamp - wait:
                return
            seen = self._since(state.last_seen)
            if seen >= timestamp - wait:
                if not count:
                    return
                count -= 1
                self._embryonic.move_to_end(state)
                self._embryonic[state] = seen
                continue
            self._complete(state, "idle")
            self._forget(state)

    def _age_gaps(self, timestamp: float, count: int) -> None:
        """Holds and holes of the next `count` connections that have waited long enough."""
        gap, grace = self._timeouts.gap, self._timeouts.acknowledged
        if not self._age_batch:
            self._age_batch = list(self._pages.lru)
        batch = self._age_batch[-count:]
        del self._age_batch[-count:]
        for state in batch:
            if not state.page_count:
                continue
            for half in (state.client, state.server):
                if gap is not None and half.held and timestamp - self._since(half.held.first_timestamp) >= gap:
                    half.hand_over()
                if not half.queue or state.stream is None:
                    continue
                age = timestamp - self._since(half.queue.first_timestamp)
                if half.holding and self._start_any and age >= TIMER_STEP:
                    half.release_hold()
                elif gap is not None and age >= gap:
                    half.skip_hole("aged")
                elif grace is not None and half.acked > half.next_offset and not half.holding:
                    state.after_segment(timestamp)
            state.refresh()
