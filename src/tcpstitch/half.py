"""One direction of a connection: its place in sequence space, what waits, and what goes to the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional, Union

from .apart import apart
from .cuts import CUTS_PER_PAGE, FREE_CUTS, Cuts
from .delivery import Delivery, Owners
from .details import NOTHING, settled, unusual
from .overlap import Policy, Sent
from .pages import PageCache
from .reorder import ReorderQueue
from .segment import ACK, Direction, Segment
from .sequence import difference, unwrap
from .sequencing import NEAR

if TYPE_CHECKING:
    from .kernel_queue import KernelQueue

# What `plain` holds instead of an offset-and-flags word.
NEEDS_RULES = -1  # something is pending
OVER = -2  # the connection was completed
IGNORED = -3  # nobody follows it
WAITS = -4  # data waits behind a hole, and nothing else is unusual
STRICTLY = -5  # nothing is unusual, and checks are strict
ANSWERS = -6  # the SYN was as usual and the only packet so far: this direction has to answer it
CONFIRMS = -7  # so was the SYN/ACK: this direction has to confirm it; nothing is below these two
PLAIN, STAMPED = 0x5000 | ACK, 0x8000 | ACK  # a plain segment: no options, or just timestamps
OUTAGE_BYTES = 4096  # more than so many beyond the window are no stray segment: the capture had an outage
HOLD_SEGMENTS = 4  # a start not seen is held for this many segments: RFC 5681's duplicate threshold of 3, and one


class HalfStream(Delivery):
    """One direction.

    Offsets are absolute; the 32-bit `expected_seq` mirrors `next_offset` (-1: nothing known yet) so that the short path
    can compare the raw number. `plain` is the TCP offset-and-flags word (PSH masked out) that the short path may take,
    or negative whenever anything about the connection needs the rules.
    """

    __slots__ = (
        "ts_recent", "queue", "scale", "syn_seen", "direction",
        "holding", "fin_offset", "ended", "good_checksums", "details",
    )  # fmt: skip

    acked_since = unusual("acked_since")
    acked_mark = unusual("acked_mark")
    ahead = unusual("ahead")
    claimed_end = unusual("claimed_end")
    cuts = unusual("cuts")
    doubtful = unusual("doubtful")
    early_end = unusual("early_end")
    fin_unsure = unusual("fin_unsure")
    held_segments = unusual("held_segments")
    isns = unusual("isns")
    kept = unusual("kept")
    refused = unusual("refused")
    rst_offset = unusual("rst_offset")
    sack = unusual("sack")
    sends_md5 = unusual("sends_md5")
    skip = unusual("skip")
    urgent = unusual("urgent")
    window = unusual("window")
    window_edge = unusual("window_edge")

    direction: Direction
    queue: Optional[Union[ReorderQueue, KernelQueue]]
    fin_offset: Optional[int]
    ts_recent: int  # RFC 7323 4.3, -1 without timestamps
    good_checksums: bool

    # -- data in

    @apart
    def receive(self, start: int, segment: Segment, timestamp: float) -> None:
        """Data at `start`. The next expected byte is delivered whatever the bounds; the rest waits in pages."""
        data = segment.payload
        end = start + segment.length
        sent = Sent(start, end, self.state.host._next_arrival())
        context = segment.context
        if self.fin_offset is not None and end > self.fin_offset and not self.fin_unsure:
            data = data[: max(0, self.fin_offset - start)]
            end = max(start, min(end, self.fin_offset))
        if self.cuts and not self.holding:
            self._cross_cuts(start)
        if len(data) < end - start:
            self._note_cut(start + len(data), end)
        if start < self.next_offset and not self.holding:
            self.compare_old(start, data, sent, timestamp, context)
            self.anomaly("retransmission", start, timestamp)
            data = data[self.next_offset - start :]
            start = self.next_offset
        if self.stopped:
            self._advance(max(self.next_offset, end))
        elif data and start == self.next_offset and not self.holding:
            self._deliver_now(start, data, sent, timestamp, context)
        elif data:
            if end > self.ahead:
                self.ahead = end
            self._buffer(start, data, sent, timestamp, context)
        self.drain()

    def compare_old(self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any = None) -> None:
        """`data` begins below the next expected byte: compare it with what came before, where that is still known."""
        if self.history:
            self.check_history(start, data, timestamp)
        if self.held:
            self.revise(start, data, sent, timestamp, context)

    def queue_fin(self, start: int, segment: Segment, timestamp: float) -> None:
        """A FIN behind a hole takes its place in the kernel's queue, and can lose it again."""
        data = segment.payload + b"\0"
        sent = Sent(start, start + len(data), self.state.host._next_arrival())
        self.ahead = max(self.ahead, sent.end)
        self._buffer(start, data, sent, timestamp, segment.context, True)

    def _note_cut(self, start: int, end: int) -> None:
        if not self.stopped and (end > self.next_offset or self.holding):
            if not self.cuts:
                self.cuts = Cuts()
            self.cuts.add(start, end, self._most_cuts())
            self.ahead = max(self.ahead, end)

    def _most_cuts(self) -> int:
        most: int = FREE_CUTS + CUTS_PER_PAGE * self.state.page_count
        return most

    def fit_cuts(self) -> None:
        """Forget what the pages of the connection have no place for any more. O(1), or O(ranges)."""
        if self.cuts.__class__ is Cuts:
            self.cuts = self.cuts.fitting(self._most_cuts())

    def _deliver_now(self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any) -> None:
        queue = self.queue
        end = start + len(data)
        owners: Owners = [(start, end, sent)]
        marks = None if context is None else [(start, timestamp, context)]
        if queue and queue.first_offset < end:
            if self.state.host._acked_only:
                owners = queue.owners_under(start, end, sent)
            data, marks = queue.overlay(data, sent, (start, timestamp, context))
            queue.discard_below(end)
            self._report_conflicts(queue.take_conflicts(), timestamp)
        self._deliver(data, timestamp, marks, owners)

    @apart
    def _buffer(self, start: int, data: bytes, sent: Sent, timestamp: float, context: Any, fin: bool = False) -> None:
        host = self.state.host
        end = start + len(data)
        base = self.base_seq
        while True:
            if self.queue is None:
                self.queue = make_queue(host._pages, self.state, host._policies.of(self))
            queue = self.queue  # another where offsets count from elsewhere
            if self.base_seq != base:  # what made room was the start that was held: offsets count from it now
                start -= unwrap(self.base_seq, base, 0)
                end = start + len(data)
                sent, base = Sent(start, end, sent.arrival), self.base_seq
            if self.state.stream is None or self.stopped or self.fin_received:
                return  # what had to be given up made the handler say so, or was followed by the end
            if start <= self.next_offset and not self.holding:
                end -= fin  # its place in the queue is no byte
                if end > self.next_offset:
                    data = data[self.next_offset - start : end - start]
                    self._deliver_now(self.next_offset, data, sent, timestamp, context)
                if fin and self.next_offset == end:
                    self.fin_offset = end
                    self._settle()
                return
            if host._make_room(self, queue.pages_needed(start, end), start):
                break
        self.ahead = max(self.ahead, end)  # again: what gave up as a decoy may have been all that lay ahead
        extra = (True,) if fin else ()
        added = queue.insert(start, data, sent, timestamp, context, *extra)
        self._report_conflicts(queue.take_conflicts(), timestamp)
        if not added:
            host._counters.retransmissions += 1
            self.anomaly("retransmission", start, timestamp)
        if self.holding:
            self.held_segments += 1
        host._enforce_connection_limit(self)

    # -- data out

    @apart
    def drain(self) -> None:
        """Deliver what has become contiguous."""
        if self.holding:
            return
        if self.early_end:
            if self.acked < self.early_end and self.queue and self.queue.first_offset < self.early_end:
                return
            self.early_end = 0
        if not (self.queue or self.cuts):
            if self.fin_offset is not None or self.rst_offset is not None:
                self._settle()
            return
        while self.state.stream is not None:
            if self.queue and self.queue.first_offset <= self.next_offset:
                owners: Optional[Owners] = [] if self.state.host._acked_only else None
                data, marks = self.queue.pop(self.next_offset, owners=owners)
                if self.queue.fin_reached:
                    self.fin_offset = self.next_offset + len(data)
                if data:
                    self._deliver(data, marks[0][1], marks, owners)
                    continue
            if not self.cuts or not self._cross_cuts(self._known_reach()):
                break
        self._settle()

    def _known_reach(self) -> int:
        """How far the direction certainly got: what was acknowledged, its end, or what waits behind a hole."""
        ends = (self.acked, self.fin_offset or 0, self.rst_offset or 0)
        return max(*ends, self.queue.end_offset) if self.queue else max(ends)

    def _cross_cuts(self, reach: int) -> bool:
        """Step over bytes that the snap length cut off, once the stream has come to them and is known to go on.

        Until then they are a claim: the length in a header may be wrong, and the bytes come in the next segment.
        """
        cuts, before = self.cuts, self.next_offset
        while cuts and cuts.first()[0] <= self.next_offset and cuts.first()[1] <= reach:
            _, stop = cuts.first()
            cuts.pop_first()
            if self.queue:
                stop = min(stop, self.queue.first_offset)
            if self.fin_offset is not None and not self.fin_unsure:
                stop = min(stop, self.fin_offset)
            if stop > self.next_offset:
                self._give_up(stop, "truncated")
        while cuts and cuts.first()[1] <= self.next_offset:
            cuts.pop_first()
        return self.next_offset > before

    def release_hold(self) -> None:
        """Take the lowest byte held, or known to be cut off, for the start of a stream whose SYN was not seen."""
        self.end_hold()
        if self.queue or self.cuts:
            starts = [self.queue.first_offset] if self.queue else []
            if self.cuts:
                starts.append(self.cuts.first()[0])
            start, acked = self.seq_at(min(starts)), self.peer.last_ack
            if self.peer.syn_seen and acked >= 0 and 0 <= difference(acked, start) <= NEAR:
                start = acked  # the capture has the handshake, in part: what the receiver lacks was sent after that
            self.set_base(start)
        self.drain()

    def end_hold(self) -> None:
        """The start was not seen, and is not waited for any more."""
        self.holding, self.held_segments, self.skip = False, 0, -1

    def hole_end(self) -> int:
        """Where the lowest missing range ends, as far as something is known to lie behind it; -1 if nothing is."""
        if self.queue:
            return self.queue.first_offset
        if self.cuts or self.fin_offset is None:
            return int(self.cuts.first()[0]) if self.cuts else -1
        return self.fin_offset if self.fin_waits() else -1

    @apart
    def skip_hole(self, reason: str) -> None:
        """Give up the lowest missing range and deliver what lies behind it."""
        queue = self.queue
        if self.holding:
            return self.release_hold()
        self.early_end = 0
        if self.cuts and self._cross_cuts(self.max_offset):
            return self.drain()
        if not queue:
            start = self.hole_end()
            if self.next_offset < start <= self.window_end():
                self._give_up(start, reason)
                self._cross_cuts(self.max_offset)
                self.drain()
            elif self.cuts:
                self.cuts.pop_first()  # a claim that nobody would have accepted, or of more than was sent
            elif start > self.next_offset:
                self.fin_offset = None
            return None
        first = queue.first_offset
        if queue.only_fin and self.peer.known and self.acked <= first:
            queue.clear()  # it may be a decoy; it keeps its place, as under the other policies
            self.ahead = self.cuts.end() if self.cuts else -1
            self.fin_offset = first if self.fin_offset is None else self.fin_offset
            return None
        if first >= self.window_end() and first > self.next_offset and queue.buffered_bytes <= OUTAGE_BYTES:
            queue.discard_from(first)  # nobody would have accepted it, and little followed: a decoy
            self.ahead = self.cuts.end() if self.cuts else -1  # it was not sent, as far as anybody knows
            return None
        stop = first if self.fin_offset is None else min(first, max(self.fin_offset, self.next_offset))
        if stop > self.next_offset:
            self._give_up(stop, reason)
        if self.fin_offset is not None and self.next_offset >= self.fin_offset:
            self.fin_unsure = False  # what waits lies behind the end
        return self.drain()

    def drop_lowest(self) -> None:
        """Discard the lowest page of what waits."""
        if self.queue:
            self.queue.drop_pages()
        if self.holding and not self.queue:
            self.end_hold()

    def jump_to(self, start: int, reason: str) -> None:
        """Let the stream go on at the segment that no bound has room for."""
        self.early_end = 0
        if self.holding:
            self.end_hold()
            self.set_base(self.seq_at(start))
        elif start > self.next_offset:
            self._give_up(start, reason)

    def _settle(self) -> None:
        """Let FIN and RST take effect where the stream has come to them (RFC 9293 3.10.7.4)."""
        if self.fin_received:
            if self.queue:
                self.queue.clear()  # it came while the FIN was in doubt, and lies behind it
            self.cuts = ()  # so do these
            if not (self.ended or self.held):  # what was not acknowledged is waited for
                self.end()
        elif self.rst_offset is not None and self.next_offset >= self.rst_offset:
            if self.next_offset == self.rst_offset:
                self.state.reset(self.state.host._present)
            else:
                self.rst_offset = None

    def end(self) -> None:
        """The direction is over: a last chunk with what is kept, or empty, says so unless the last data did."""
        self.ended = True
        host = self.state.host
        if host._last_end is not self:
            self._send(self.make_chunk(b"", self.next_offset, host._present, None, False, True))
        host._last_end = None
        self.state.half_ended()

    def readiness(self) -> int:
        """What `plain` is to be, as far as this direction decides; the connection's own conditions are the caller's."""
        if (
            self.fin_offset is not None
            or self.holding
            or self.stopped
            or self.expected_seq < 0
            or not (self.window and self.peer.window)
            or not (self.started or self.peer.expected_seq >= 0)
            or self.peer.fin_offset is not None
            and not self.peer.ended
            or self.peer.details is not NOTHING
            and self.peer.waits_for_ack()
        ):
            return NEEDS_RULES
        if self.details is not NOTHING:
            if self.rst_offset is not None or self.cuts or self.skip or self.kept or self.urgent or self.held:
                return NEEDS_RULES
            if self.doubtful or self.early_end:
                return NEEDS_RULES
            if self.queue:
                return WAITS if self.queue.appends and not self.state.host._strict else NEEDS_RULES
            self._settle_details()
        if self.state.host._strict:
            return STRICTLY
        return PLAIN if self.ts_recent < 0 else STAMPED

    def _settle_details(self) -> None:
        """Nothing waits any more: keep nothing of it."""
        details = self.details
        details.acked_since, details.acked_mark = None, 0
        if details.ahead <= self.next_offset:  # else a limit made drop what lay there
            details.ahead = -1
        details.kept = details.held = None  # they are empty, or the rules were needed
        if details.claimed_end <= self.next_offset:
            details.claimed_end = -1
        if settled(details):
            self.details = NOTHING

    def request_stop(self) -> None:
        if not self.stopped and self.peer is not None:
            self.peer.catch_up()  # what is acknowledged from now on, nobody counts
        super().request_stop()
        if self.holding:
            self.end_hold()
        if self.state.stream is not None:
            self.plain = NEEDS_RULES  # a chunk kept from an earlier call may ask for it at any time

    def queues(self) -> List[Any]:
        """All that may hold pages."""
        return [queue for queue in (self.queue, self.kept, self.held) if queue is not None]

    def release_pages(self) -> None:
        for queue in self.queues():
            queue.clear()


def make_queue(cache: PageCache, owner: Any, policy: Policy) -> Union[ReorderQueue, KernelQueue]:
    """The queue that works by `policy`."""
    if policy.name != "linux-kernel":
        return ReorderQueue(cache, owner, policy)
    from .kernel_queue import KernelQueue  # here: few programs need it, and loading it takes a millisecond

    return KernelQueue(cache, owner)
