"""From what the receiver has to what the handler gets: at once, or once the receiver has acknowledged it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import Any, List, Optional, Tuple

from .apart import apart
from .chunk import Chunk, Gap
from .details import NOTHING, unusual
from .errors import UsageError
from .evidence import Evidence
from .keeping import Keeping
from .overlap import FIRST, Sent
from .page import Mark
from .reorder import ReorderQueue
from .sequencing import Sequencing

Owners = List[Tuple[int, int, Sent]]


class Delivery(Sequencing, Keeping, Evidence):
    """The part of a `HalfStream` that hands bytes on.

    `next_offset` is how far the receiver has come. With `delivery="acked"` the handler lags behind: bytes that were not
    acknowledged wait in `held`, where the overlap policy still decides between two versions of them. `held` is either
    empty or holds exactly the bytes from `handed` to `next_offset`.
    """

    __slots__ = ("stopped",)

    skip: Any
    urgent: Any
    refused: Any
    history = unusual("history")
    held = unusual("held")

    @property
    def fin_received(self) -> bool:
        """Whether the receiver has come to the FIN."""
        return self.fin_offset is not None and self.next_offset >= self.fin_offset and not self.fin_unsure

    @property
    def handed(self) -> int:
        """How far the handler has come."""
        return self.held.first_offset if self.held else self.next_offset

    def _settle(self) -> None:
        """Let FIN and RST take effect where the stream has come to them."""
        raise NotImplementedError

    # -- waiting for the acknowledgement

    @apart
    def _deliver(
        self, data: bytes, timestamp: float, marks: Optional[List[Mark]], owners: Optional[Owners] = None
    ) -> None:
        """The receiver has taken `data` at `next_offset`; `owners` says which segments it came from."""
        start = self.next_offset
        self._advance(start + len(data))
        if self.refused is not None and self._compare_refused(self.refused, start, data, timestamp):
            self.refused = None
        if not self.state.host._acked_only or not self.held and self.acked >= self.next_offset:
            self._emit(start, data, timestamp, marks)
            return
        if self.state.stream is None or self.stopped:
            return
        self.started = True
        marks = marks or [(start, timestamp, None)]
        for low, high, sent in owners or [(start, self.next_offset, Sent(start, self.next_offset, 0))]:
            if not self._hold_until_acked(low, data[low - start : high - start], sent, marks):
                self._hand(low)
                self._emit(low, data[low - start :], *_origins(marks, low, self.next_offset))
                break
        self._hand(min(self.acked, self.next_offset))

    def _hold_until_acked(self, start: int, data: bytes, sent: Sent, marks: List[Mark]) -> bool:
        """Keep `data` until it is acknowledged; False without room for it, since the next byte never waits for that."""
        host, state = self.state.host, self.state
        held = self.held
        if held is None:
            policy = host._policies.of(self)  # what the kernel has taken in is final
            held = ReorderQueue(host._pages, state, FIRST if policy.name == "linux-kernel" else policy)
        needed = held.pages_needed(start, start + len(data))
        if state.page_count + needed >= host._max_pages_per_connection or needed > host._pages.room():
            return False
        self.held = held
        timestamp, origins = _origins(marks, start, start + len(data))
        held.insert(start, data, sent, timestamp, origins[0][2])
        held.note_origins(origins[1:], start + len(data))
        return True

    def revise(self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any) -> None:
        """Another version of bytes that may still wait: the policy decides."""
        while self.held:
            low, high = max(start, self.held.first_offset), min(start + len(data), self.next_offset)
            if low >= high:
                return
            if self.state.host._make_room(self, self.held.pages_needed(low, high), low):
                self.held.insert(low, data[low - start : high - start], sent, timestamp, context)
                self._report_conflicts(self.held.take_conflicts(), timestamp)
                return

    def hand_over(self) -> None:
        """Give the handler all that waits, acknowledged or not."""
        self._hand(self.next_offset)
        self._settle()

    def hand_acked(self) -> None:
        """Give the handler what has been acknowledged."""
        self._hand(min(self.acked, self.next_offset))
        self._settle()

    def _hand(self, limit: int) -> None:
        while self.held and self.state.stream is not None and self.held.first_offset < limit:
            offset = self.held.first_offset
            data, marks = self.held.pop(offset, limit)
            self._emit(offset, data, marks[0][1], marks)

    # -- to the handler

    def _emit(self, offset: int, data: bytes, timestamp: float, marks: Optional[List[Mark]]) -> None:
        """Hand `data` on, without what the handler does not want."""
        end = offset + len(data)
        if self.stopped:
            return
        if self.urgent:
            while self.urgent and self.urgent[0] < offset:
                self.urgent = self.urgent[1:]
            if self.urgent and self.urgent[0] < end:
                self._emit_around(self.urgent[0], offset, data, marks or [(offset, timestamp, None)])
                return
        if self.state.host._history_bytes:
            self._remember(offset, data, _origins(marks or [(offset, timestamp, None)], offset, end)[1])
        start = offset == 0 and self.syn_seen and self.skip == 0
        depth = self.state.depth
        if depth is not None and end > depth:
            data = data[: max(depth - offset, 0)]
            end = max(offset, depth)
        last = self.fin_offset == end and not self.fin_unsure
        if data:
            self._send(self.make_chunk(data, offset, timestamp, marks, start, last))
        if depth is not None and end >= depth:
            self.request_stop()

    def _emit_around(self, place: int, offset: int, data: bytes, marks: List[Mark]) -> None:
        """`data` in two parts, without the urgent byte at `place`."""
        self.urgent = self.urgent[1:]
        if place > offset:
            self._emit(offset, data[: place - offset], *_origins(marks, offset, place))
        if self.state.host._urgent == "gap":
            self._note_gap(place, 1, "urgent")
        elif self.state.host._history_bytes:
            origins = _origins(marks, place, place + 1)[1]  # the receiver has it too
            self._remember(place, data[place - offset : place - offset + 1], origins)
        if place + 1 < offset + len(data):
            self._emit(place + 1, data[place + 1 - offset :], *_origins(marks, place + 1, offset + len(data)))

    @apart
    def _note_gap(self, start: int, length: int, reason: str) -> None:
        """Tell the handler that these bytes do not come, if it still wants to hear of any."""
        if self.stopped or self.state.stream is None:
            return
        depth = self.state.depth
        deep = depth is not None and start + length >= depth
        if deep:
            length = depth - start
        if length > 0:
            self._tell_gap(start, length, reason)
        if deep and self.state.stream is not None:
            self.skip = min(self.skip, 0)  # the last chunk, which says that the direction is over, lies elsewhere
            self.request_stop()

    def _tell_gap(self, start: int, length: int, reason: str) -> None:
        host = self.state.host
        self.started = True  # the handler knows offsets now
        if self.skip >= 0:
            self.skip += length
        self.drop_kept()
        host._counters.count_gap(reason, length)
        host._call(self.state, "gap", Gap(self.direction, start, length, reason, host._present))
        stream = self.state.stream
        try:
            choice = getattr(stream, "on_gap", "continue")  # a property may raise
            if choice not in ("continue", "abandon"):
                raise UsageError(f'on_gap={choice!r}: use "continue" or "abandon"')
        except Exception as error:
            host._handler_failed(self.state, stream, error)
        else:
            if choice == "abandon":
                host._abandon(self.state)

    def _send(self, chunk: Chunk) -> None:
        host = self.state.host
        stream = self.state.stream
        if stream is None:
            return  # abandoned in a call about the same packet
        self.started = True
        if self.skip:
            self.skip = 0
        host._counters.bytes += len(chunk.data)
        host._counters.chunks += 1
        if chunk.end:
            host._last_end = self
        outer, host._busy = host._busy, chunk
        try:
            stream.reassembled(chunk)
        except Exception as error:
            host._handler_failed(self.state, stream, error)
        except BaseException:
            host._abandon(self.state)
            raise
        finally:
            host._busy = outer
        if host._asked:
            self.answer(chunk)
        elif self.details is not NOTHING and self.kept:
            self.kept.clear()

    @apart
    def _give_up(self, stop: int, reason: str) -> None:
        """Report `[next_offset, stop)` as gone."""
        start = self.next_offset
        self._hand(start)
        self._advance(stop)
        self._note_gap(start, stop - start, reason)

    def give_up_dropped(self, reason: str) -> None:
        """At the end, report as gone what a limit made drop behind all that was held: nothing else tells of it."""
        if self.ended or self.stopped or self.ahead <= self.next_offset:
            return
        if self.queue is not None and self.queue.fin_dropped:
            self.fin_offset = self.ahead - 1
        stop = min(self.ahead, self.window_end())
        if self.fin_offset is not None:
            stop = min(stop, self.fin_offset)
        if stop > self.next_offset:
            self._give_up(stop, reason)
        self._settle()

    # -- what handlers ask for

    def request_keep(self, chunk: Chunk, offset: int) -> None:
        host = self.state.host
        if host._busy is not chunk:
            raise UsageError("keep_from works only inside the reassembled() call that received the chunk")
        host._asked = True
        host._keep_offset = offset

    def request_stop(self) -> None:
        self.stopped = self.state.host._asked = True
        self.cuts = ()
        while self.queue and self.queue.holds_fins:
            start = self.queue.first_offset
            data, _ = self.queue.pop(start)
            if self.queue.fin_reached:
                self.fin_offset = start + len(data)
        for queue in (self.queue, self.held):
            if queue:
                queue.clear()
        if self.kept:
            self.kept.clear()

    def end_stopped(self) -> None:
        """Let a stopped direction come to its FIN, if that was seen: nobody wants what it waits for."""
        if self.stopped and self.fin_offset is not None and not (self.ended or self.fin_unsure):
            self._advance(max(self.next_offset, self.fin_offset))
            self._settle()

    def answer(self, chunk: Chunk) -> None:
        """Do what the handler asked for in the call that has just returned."""
        host = self.state.host
        host._asked = False
        offset, host._keep_offset = host._keep_offset, None
        if offset is not None and self.state.stream is not None and not self.stopped:
            self.keep(chunk, offset)
        elif self.kept:
            self.kept.clear()


def _origins(marks: List[Mark], start: int, end: int) -> Tuple[float, List[Mark]]:
    """The records of origin of `[start, end)`, with the time of the first byte; `marks` begin at or before it. O(log n)
    and the records given."""
    behind = bisect_right(marks, (start, inf))
    _, timestamp, context = marks[max(behind - 1, 0)]
    return timestamp, [(start, timestamp, context), *marks[behind : bisect_left(marks, (end,))]]
