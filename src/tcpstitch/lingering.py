"""Connections that ended in the usual way, kept small until their time has come or a packet needs them whole.

Late packets are judged by a connection that is over for a minute, so a monitor of short connections holds many more of
these than of living ones: as a tuple each, a third of the memory, and most of what a collection would go through.
"""

from __future__ import annotations

from typing import Optional

from .half import OVER, HalfStream
from .segment import FlowKey, reverse_key
from .state import StreamState
from .upkeep import Upkeep, make_state


class Lingering(Upkeep):
    """The part of the assembler that remembers what is over."""

    __slots__ = ()

    def _complete_usual(self, state: StreamState) -> None:
        """Complete a connection of which both SYNs, all data and both FINs were seen: nothing about it is unusual."""
        state.closed = True
        state.reason = "fin"
        stream = state.stream
        try:
            stream.complete("fin")
        except Exception as error:
            self._handler_failed(state, stream, error)
        except BaseException:
            self._abandon(state)
            raise
        finally:
            self._counters.completion_reasons["fin"] += 1
            client = state.client
            server = state.server
            key = state.key
            closed = self._closed
            if key in closed:
                closed.move_to_end(key)
            closed[key] = (
                self._now, None, client.expected_seq, client.next_offset, server.expected_seq, server.next_offset,
                state.stream, state.last_seen,
            )  # fmt: skip
            self._take_apart(state)

    def _whole_again(self, key: FlowKey) -> Optional[HalfStream]:
        """The direction of such a connection, as the rules want it; None where there is none. O(1)."""
        client, server = key, reverse_key(key)
        if client not in self._closed:
            client, server = server, client
            if client not in self._closed:
                return None
        state = make_state(self, client, server, 0.0)
        since, _, *ends, state.watcher, state.last_seen = self._closed[client]
        self._closed[client] = (since, state)
        for half, expected_seq, next_offset in ((state.client, *ends[:2]), (state.server, *ends[2:])):
            half.expected_seq = expected_seq
            half.next_offset = half.fin_offset = next_offset
            half.syn_seen = half.started = half.ended = half.good_checksums = True
            half.plain = OVER
        state.closed, state.reason = True, "fin"
        self._halves[server] = state.server
        self._halves[client] = state.client
        return self._halves[key]

    def _forget_small(self, key: FlowKey) -> None:
        """Let go of one that is kept small. O(1)."""
        del self._closed[key]
        self._note_peak()
        self._state_count -= 1

    def _forget_small_before(self, before: float) -> None:
        """Let go of those without a packet since `before`. O(all that linger)."""
        closed = self._closed
        old = [key for key, kept in closed.items() if kept[1] is None and kept[-1] < before]
        for key in old:
            del closed[key]
        self._note_peak()
        self._state_count -= len(old)

    def _evict_connection(self) -> None:
        key = next(iter(self._closed), None)
        if key is not None and self._closed[key][1] is None:
            self._counters.count_eviction("connection_lingering", key)
            self._forget_small(key)
        else:
            super()._evict_connection()
