"""The short path: plain segments in order, on open connections about which nothing is pending.

It works on the frame as it lies: one struct over the headers, one look-up under the addresses and ports as they lie
side by side in the frame, three comparisons. Everything it declines meets the rules in `state`, which would do the same
with more work.
"""

from __future__ import annotations

import sys
from struct import error as HeaderError
from types import FrameType
from typing import Any, Optional

from .chunk import Chunk
from .decode import as_ethernet
from .details import NOTHING
from .errors import ReentrantCallError
from .half import ANSWERS, IGNORED, NEEDS_RULES, STRICTLY, WAITS, HalfStream
from .layouts import ALONE, ENHANCED, Layout, Mode, layout_of
from .ordinary import LAYOUT_WORD, option_words, same_path, sound
from .segment import CONTROL, FIN
from .sequence import HALF, MASK
from .strictly import Strictly
from .timers import blame, seconds
from .uncut import Uncut
from .validate import OLD_TIMESTAMP, VERIFY_BYTES


class ShortPath(Strictly):
    """The part of the assembler that most packets see."""

    __slots__ = ()

    # One function for a packet and for all those of a block, as for each packet a call would cost a tenth of what
    # everything else does; so it is longer than others may be.

    def assemble(self, packet: Any, timestamp: float, _block: Any = None) -> None:
        """Take one packet, captured at `timestamp` (seconds): a bytes-like frame, a dpkt packet, or a `Segment`.

        What cannot be decoded is counted, never raised. O(1) for data in order, else O(log n) in what is buffered.
        Raises `PacketTypeError`, `UsageError` for a time, `StreamCallbackError`, in a handler `ReentrantCallError`.
        """
        if self._busy is not None:
            raise ReentrantCallError
        if _block is not None:
            packet, pos, full, scale, units, among, mode, layout, second = _block.parts()
            after = pos
        elif type(packet) is self._frames or type(packet) is Uncut:
            at, limit, layout = 0, len(packet), self._layout
        else:
            return self._no_frame(packet, timestamp)
        headers, front, rest, marked, ahead, spare = layout
        while True:
            try:
                if _block is None:
                    mark, total, middle, key, seq, ack, word, window = headers(packet, at)
                else:
                    try:
                        if among is None:
                            epoch, fraction, size, mark = front(packet, pos)
                        elif units:  # enhanced packet blocks of pcapng, of interfaces that are alike
                            kind, length, index, epoch, fraction, size, mark = front(packet, after)
                            if kind != ENHANCED or index not in among or length != size + 35 & -4:
                                break
                            if epoch != second:
                                second, high = epoch, epoch << 32
                            time, fraction = (high | fraction) / units + scale, 0
                            pos = after + 12
                            after += length
                        else:
                            for pos in among:  # noqa: B007  (the next place; a call of `next` costs twice as much)
                                break
                            epoch, fraction, size, mark = front(packet, pos)
                    except HeaderError:
                        epoch, fraction, size, mark = _block.head(pos)
                    at = pos + 16
                    limit = at + size
                    if limit > full:
                        break
                    _block.pos = pos = limit
                    if epoch != second:
                        second, time = epoch, float(epoch)
                    timestamp = time + scale * fraction
                    total, middle, key, seq, ack, word, window = rest(packet, at)
                if not timestamp < self._next_timer:  # nor does NaN
                    mark = None
            except HeaderError:
                mark = None
            except (TypeError, ValueError, ArithmeticError) as error:  # what is no time cannot be compared with one
                raise blame(timestamp, error)  # noqa: B904  (it may be the same)
            if mark != marked:
                layout = self._look(packet, at, limit, timestamp, ALONE if _block is None else mode)
                if layout is None:
                    if _block is None:
                        return
                    continue
                headers, front, rest, marked, ahead, spare = layout
                mark, total, middle, key, seq, ack, word, window = headers(packet, at)
            half: Optional[HalfStream] = self._halves[key]
            length = total - spare
            if half is None or (middle != half.line and (ahead + length > limit - at or not same_path(half, middle))):
                self._stranger(packet, at, limit, timestamp, half, key, middle, ahead, length, seq, word, window)
            elif word & 0xFFF7 != half.plain or seq != half.expected_seq or not window:
                if word & FIN:
                    self._fin(packet, at, limit, timestamp, half, ahead, length, seq, ack, word, window)
                elif half.plain <= ANSWERS:
                    self._handshake(packet, at, limit, timestamp, half, middle, ahead, length, seq, ack, word, window)
                else:
                    self._other(packet[at:limit], timestamp, half, ahead, length, seq, ack, word, window)
            else:
                state = half.state
                start = at + ahead
                stop = start + length
                if word >= 0x8000:  # the only two that `plain` allows; as in `_renews`, of which a call is a tenth
                    start += 12
                    length -= 12
                    if length >= 0 and stop <= limit:
                        options, stamp = option_words(packet, start - 12)
                        recent = half.ts_recent
                        if options != LAYOUT_WORD or stamp != recent and not -OLD_TIMESTAMP <= stamp - recent < HALF:
                            length = -1  # for the rules
                if not length and (  # a third of bulk: the usual one confirms all that came and has no call to make
                    ack == (expected := half.peer.expected_seq)
                    and 0 <= expected - half.last_ack < HALF
                    and window <= half.shown
                    and stop <= limit
                    and not state.page_count
                ):
                    half.last_ack = expected  # one object for one number, as in `_acknowledges`
                    self._packets = state.last_packet = self._packets + 1
                    state.last_seen = timestamp
                    if word >= 0x8000 and stamp > recent:
                        half.ts_recent = stamp
                elif (
                    stop > limit
                    or length <= VERIFY_BYTES and length
                    and (length < 2 or not sound(half, packet, at + ahead, ahead, total - spare))
                    or (ack != half.last_ack or window > half.shown or not length)
                    and not self._acknowledges(half, ack, window)
                    or state.page_count and not self._may_wait(half.peer, timestamp)
                ):  # fmt: skip
                    self._take(packet[at:limit], timestamp)
                else:
                    self._packets = state.last_packet = self._packets + 1
                    state.last_seen = timestamp
                    if word >= 0x8000 and stamp > recent:
                        half.ts_recent = stamp
                    if length:
                        self._counters.bytes += length
                        half.started = True
                        chunk = Chunk()  # filled here: a call of __init__ costs as much as all of it
                        chunk.offset = offset = half.next_offset
                        chunk.data, chunk.timestamp, chunk._half = packet[start:stop], timestamp, half
                        half.next_offset, half.expected_seq = offset + length, (seq + length) & MASK
                        self._busy = chunk
                        try:
                            state.stream.reassembled(chunk)
                        except BaseException as error:
                            self._handler_raised(state, error)
                        self._busy = None
                        if self._asked:
                            self._answer(half, chunk)
            if _block is None:
                return
        _block.leave(pos, timestamp)

    _assemble = assemble  # once more for the same packet, also where a subclass has an `assemble` of its own

    def _at_work(self) -> bool:
        """Whether who asks is another thread than that of `run`, a handler, or a signal's that came in the middle of a
        packet: between most steps of one only the stack tells, as anything else would cost every packet. O(depth of the
        stack)."""
        if self._busy is not None or self._elsewhere():
            return True
        frame: Optional[FrameType] = sys._getframe(1)
        while frame is not None:
            if frame.f_code is _ASSEMBLE and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _no_frame(self, packet: Any, timestamp: Any) -> None:
        """Something else than an Ethernet frame, after the timers; what can be made one may take the short path."""
        frame = as_ethernet(packet) if self._frames is not None else None
        if frame is not None:
            return self._assemble(frame, timestamp)
        try:
            if not timestamp < self._next_timer:
                self._before(timestamp)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise blame(timestamp, error)  # noqa: B904
        self._take(packet, timestamp)

    def _look(self, buffer: Any, at: int, limit: int, timestamp: Any, mode: Mode) -> Optional[Layout]:
        """Let the timers run, if it is their time, and find out how the headers of the frame `buffer[at:limit]` lie.
        None where the rules had to take it."""
        try:
            due = not timestamp < self._next_timer
        except (TypeError, ValueError, ArithmeticError) as error:
            raise blame(timestamp, error)  # noqa: B904
        if not due or self._before(timestamp):
            layout = layout_of(buffer, at, limit, mode)
            if layout is not None:
                if mode is ALONE:
                    self._layout = layout
                return layout
        self._take(buffer[at:limit], timestamp)
        return None

    def _before(self, timestamp: Any) -> bool:
        """Let the timers run; False if a handler failed there, or if the packet has to come again with its time as a
        float."""
        seconds(timestamp)
        if not isinstance(timestamp, (float, int)):
            self._exact_times = True
            return False
        self._busy = self
        try:
            self._run_timers(timestamp)
        finally:
            self._busy = None
        if self._exact_times or self._shrink_due:  # limits were set, by a signal's handler or another thread
            self._next_timer = float("-inf")  # look at the next packet too
        return self._error is None

    def _other(
        self, packet: bytes, timestamp: float, half: HalfStream, ahead: int, length: int, seq: int, ack: int, word: int,
        window: int,
    ) -> None:  # fmt: skip
        """A TCP segment without FIN that is not plain data or a plain ACK in order on an open connection."""
        plain = half.plain
        tcp, end = ahead - 20, ahead + length
        start = tcp + (word >> 10 & 0x3C)
        if word < 0x5000 or start > end or end > len(packet):
            pass
        elif plain == STRICTLY:
            if self._strictly(packet, timestamp, half, tcp, start, end, seq, ack, word, window):
                return
        elif plain >= 0 or plain == WAITS:
            if window:
                if self._out_of_order(packet, timestamp, half, tcp, start, end, seq, ack, word, window):
                    return
        elif plain != NEEDS_RULES and not word & CONTROL and (
            plain == IGNORED or start == end and half.state.details is NOTHING  # or over, and nothing else is expected
        ):
            self._packets += 1
            self._counters.ignored += 1
            self._present = timestamp
            if plain == IGNORED:
                half.state.last_seen = timestamp
            return
        self._take(packet, timestamp)

    def _answer(self, half: HalfStream, chunk: Chunk) -> None:
        """What the handler asked for, or did wrong, in the call that the short path made."""
        self._busy = self
        try:
            half.answer(chunk)
            half.catch_up()
            half.peer.catch_up()
            half.state.refresh()
        finally:
            self._busy = None
        self._watch()


_ASSEMBLE = ShortPath.assemble.__code__
