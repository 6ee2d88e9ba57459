"""Which connection a packet belongs to, and what a packet that belongs to none does."""

from __future__ import annotations

from typing import Any, Optional

from .apart import apart
from .decode import PacketDecoder
from .details import Pending
from .errors import PacketTypeError, UsageError, is_plain
from .half import IGNORED, HalfStream
from .limits import key_cost
from .segment import CONTROL, FIN, RST, SYN, Flow, FlowKey, Segment, directed_flow, reverse_key, usable
from .sequence import MASK
from .sequencing import behind
from .state import StreamState
from .stream import Stream
from .timers import BACK_SECONDS, Timers, seconds
from .upkeep import make_state

HANDLERS = ("accept", "reassembled", "gap", "anomaly", "over_limit", "complete")
NEW = object.__new__  # without `__init__`, of which a call from C is what makes an object expensive


class Routing(Timers):
    """The part of the assembler that finds and opens connections."""

    __slots__ = ()

    _decoder: PacketDecoder
    _always_rules: bool  # no short path
    _taken: int  # packets that met the rules
    _frames: Any  # the class of packets that are Ethernet frames as they lie: bytes, or None
    _usual_class: Any  # of the stream made last, and whether that class has an `accept` of its own
    _usual_accepts: bool

    def _assemble(self, packet: Any, timestamp: float) -> None:
        """Take one packet, by the short path or the rules."""
        raise NotImplementedError

    @apart
    def _take(self, packet: Any, timestamp: Any) -> None:
        """Any packet: decode it and apply its segments."""
        if timestamp.__class__ is not float and not isinstance(timestamp, (float, int)):
            return self._assemble(packet, seconds(timestamp))
        kind = packet.__class__
        if timestamp < self._now - BACK_SECONDS:
            seconds(timestamp)
            self._next_timer = float("-inf")  # the timers look at each packet until the time is clear
        self._packets += 1
        self._taken += 1
        self._present = timestamp
        if kind is bytes:
            segments = self._decoder.decode(packet, timestamp)
        elif issubclass(kind, Segment):
            segments = (usable(packet),)
        elif hasattr(packet, "__hdr__"):
            segments = self._decoder.from_dpkt(packet, timestamp)
        else:
            try:
                segments = self._decoder.decode(packet, timestamp)
            except PacketTypeError:
                name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
                raise PacketTypeError(
                    f"packet of type {name}: give a frame as bytes (of scapy, packet.original as captured, "
                    "bytes(packet) as built), a dpkt packet, or a tcpstitch.Segment"
                ) from None
        self._busy = self
        try:
            for segment in segments:
                self._route(segment, timestamp)
            bad_key = None if segments else self._decoder.last_bad_key
            if bad_key is not None:
                self._bad_header(bad_key, timestamp)
            if self._gauge is not None:
                self._watch_pressure()
        finally:
            self._busy = None
        if self._error is not None:
            self._raise_pending()

    @apart
    def _route(self, segment: Segment, timestamp: float) -> None:
        self._counters.segments += 1
        half = self._direction(segment.key)
        if half is not None and half.state.closed:
            if segment.seq != half.expected_seq and self._reused_unseen(half, segment, timestamp):
                return
            half = self._after_close(half, segment, timestamp)
        if half is None:
            half = self._opened_by(segment, timestamp)
            if half is None:
                self._counters.ignored += 1
                return
        self._apply(half, segment, timestamp)

    def _direction(self, key: FlowKey) -> Optional[HalfStream]:
        """The direction with this key of a connection that is open, or lingers; None where there is none. O(1)."""
        half = self._halves.get(key)
        return self._whole_again(key) if half is None and self._closed else half

    def _apply(self, half: HalfStream, segment: Segment, timestamp: float) -> None:
        state = half.state
        nobody = half.plain == IGNORED and not segment.flags & CONTROL
        if state.stream is None or nobody:
            self._counters.ignored += 1
            if half.plain == IGNORED:
                state.last_seen = timestamp
            return
        if state.page_count:
            self._pages.touch(state)
        if not state.accepts or self._accepted(state, half, segment):
            state.receive(half, segment, timestamp)
        state.last_packet = self._packets
        state.last_seen = timestamp
        state.refresh()

    def _accepted(self, state: StreamState, half: HalfStream, segment: Segment) -> bool:
        handler = state.watcher if state.closed else state.stream
        try:
            answer = handler.accept(segment, half.direction)
            if answer is None:  # a forgotten `return` would leave out everything, in silence
                raise UsageError("accept() returned None: return True, or False to drop the segment")
            return bool(answer)
        except Exception as error:
            self._handler_failed(state, handler, error)
            return False
        except BaseException:
            self._abandon(state)
            raise

    def _opened_by(self, segment: Segment, timestamp: float) -> Optional[HalfStream]:
        """The direction of the connection that this segment opens, or None."""
        before = self._openings.released_by(segment)
        if before is not None:
            self._apply(self._open(*before), *before)
            return self._halves[segment.key]
        return self._open(segment, timestamp) if self._openings.opens(segment, timestamp) else None

    def _open(self, segment: Segment, timestamp: float) -> HalfStream:
        """Open a connection: the direction of the segment that does it."""
        key = directed_flow(segment).key
        state = self._admit(key, reverse_key(key), segment, timestamp)
        half = state.client if segment.key == key else state.server
        if self._openings.table and state.stream is not None:
            self._openings.evidence(half, segment.key)
        return half

    @apart  # the user's factory is called in it, which may take any number of steps
    def _admit(self, key: FlowKey, reverse: FlowKey, segment: Segment, timestamp: float) -> StreamState:
        """Make room for a connection and ask for its stream; `key` is the client's, `reverse` the server's."""
        extra = 0 if key.__class__ is bytes else key_cost(key)
        while self._counted_connections(extra) >= self._max_connections and self._state_count:
            self._evict_connection()
        state = make_state(self, key, reverse, timestamp)
        halves = self._halves
        halves[reverse] = state.server
        halves[key] = state.client  # second, for the one whose two ends are the same
        self._state_count += 1
        self._key_bytes += extra
        state.last_packet = self._packets
        flow = NEW(Flow)
        flow.key = key
        stream: Any = state  # anything but None: where the factory fails, a connection is abandoned
        try:
            stream = self._factory.new(flow, segment, timestamp)
            if stream.__class__ is not self._usual_class and stream is not None:
                self._look_at(stream)
            depth = getattr(stream, "depth", None)
        except Exception as error:
            self._handler_failed(state, self._factory, error)
            return state
        except BaseException:
            self._abandon(state)
            raise
        finally:
            self._counters.opened += stream is not None
        state.stream = stream
        if stream is None:
            state.closed = True
            state.reason = "ignored"
            if segment.flags & SYN:  # the same SYN again opens no other connection
                half = state.client if segment.key == key else state.server
                half.expected_seq, half.syn_seen = (segment.seq + 1) & MASK, True
            state.client.plain = state.server.plain = IGNORED
            self._closed[key] = (timestamp, state)
            return state
        if self._policies.chosen:
            try:
                self._policies.choose(state)
            except Exception as error:
                self._handler_failed(state, stream, error)
                return state
            except BaseException:
                self._abandon(state)
                raise
        if depth is not None and not self._bounded_depth(state, depth):
            return state
        state.accepts = self._usual_accepts
        if segment.flags & SYN:
            state.embryonic = True
            self._embryonic[state] = timestamp
        return state

    def _look_at(self, stream: Any) -> None:
        """A stream of another class than the one before. Raises `UsageError` where it is none."""
        if isinstance(stream, type) or not (hasattr(stream, "reassembled") and hasattr(stream, "complete")):
            raise UsageError(f"new() gave {stream!r}: return an object of a subclass of Stream, or None to ignore it")
        for name in HANDLERS:
            if not is_plain(getattr(stream, name, None)):
                raise UsageError(f"{name}() of {stream!r} is async or a generator: a plain function is called")
        self._usual_class = stream.__class__
        accept = getattr(stream, "accept", None)
        self._usual_accepts = accept is not None and getattr(accept, "__func__", None) is not Stream.accept

    def _bounded_depth(self, state: StreamState, depth: Any) -> bool:
        """Follow the connection only so far; False where that is no number of bytes."""
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 0:
            error = UsageError(f"depth={depth!r}: give a whole number of bytes, or None for all")
            self._handler_failed(state, state.stream, error)
            return False
        state.depth = depth
        return True

    def _after_close(self, half: HalfStream, segment: Segment, timestamp: float) -> Optional[HalfStream]:
        """A packet on addresses whose connection is over: another SYN opens anew, all else is counted as late."""
        state = half.state
        flags = segment.flags
        if flags & CONTROL == SYN and segment.checksum_ok() is not False:
            opening = state.opens_anew(half, segment, timestamp)
            if opening is not None:
                half = self._open_again(state, opening)
                if opening.segment is segment:
                    return half
                self._apply(half, *opening)
                return self._halves.get(segment.key)
        if (segment.length or flags & FIN) and half.known and half.offset_of(behind(segment)) <= half.next_offset + 1:
            self._linger(state)  # it is sent again: TIME-WAIT starts anew (RFC 9293 3.10.7.4, eighth check)
        accepted = state.watcher is not None and (not state.accepts or self._accepted(state, half, segment))
        if accepted and segment.length:
            state.late_data(half, segment, timestamp)
        return half

    def _reused_unseen(self, half: HalfStream, segment: Segment, timestamp: float) -> bool:
        """Whether this confirms that the addresses of a connection that is over have another one, which it opens."""
        state = half.state
        if segment.flags & (SYN | RST) or state.watcher is None:
            return False
        if not segment.length and state.pending_opening is None:
            return False  # the last acknowledgement of most connections, which is to cost nothing
        return state.of_another(half, segment, timestamp) and self._halves.get(segment.key) is not half

    def _replace(self, state: StreamState, opening: Pending, confirming: Optional[Pending] = None) -> None:
        """The addresses belong to a new connection, opened by one segment and confirmed by another, if it had to be."""
        if not state.closed:
            self._complete(state, self._end_of(state, "replaced"))
        self._apply(self._open_again(state, opening), *opening)
        if confirming is not None and confirming.segment.key in self._halves:
            self._apply(self._halves[confirming.segment.key], *confirming)

    def _open_again(self, state: StreamState, opening: Pending) -> HalfStream:
        """Let another connection have the addresses of one that is over: the direction of what opens it."""
        self._forget(state)
        half = self._open(*opening)
        half.anomaly("tuple_reuse", 0, opening.timestamp)
        return half

    def _bad_header(self, key: FlowKey, timestamp: float) -> None:
        half = self._direction(key)
        if half is not None:
            half.anomaly("bad_header", half.max_offset, timestamp)
