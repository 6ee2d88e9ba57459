"""Packets as frames, which may take the short path, and as segments, which never do: both have to lead to the same."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from support.frames import CLIENT, SERVER, tcp_frame, timestamps_option
from support.recorder import Recorder
from tcpstitch import Assembler, PacketDecoder

ISN = {"c": 1000, "s": 2**32 - 70_000}
SCALED = b"\x01\x03\x03\x07"
STAMPED = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\x09\0\0\0\0"


class Unruly(Recorder):
    """One whose handlers, at the chunk or the anomaly of this number, stop, keep bytes back, or fail."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(self.behave)
        self.left = at
        self.what = what

    def new(self, *arguments: Any) -> Any:
        recording = super().new(*arguments)
        recording.anomaly = lambda anomaly: (recording.anomalies.append(anomaly), self.behave(recording, None))
        return recording

    def behave(self, recording: Any, chunk: Any) -> None:
        self.left -= 1
        if self.left == 0 and self.what == "fail":
            raise ValueError("a handler's")
        if self.what == "keep" and chunk is not None and self.left % 3 == 0:
            chunk.keep_from(len(chunk) // 2)
        if self.left == 0 and self.what == "stop" and recording.chunks:
            (chunk or recording.chunks[-1]).stop()
        if self.left == 0 and self.what == "stop both" and recording.chunks:
            (chunk or recording.chunks[-1]).stop_connection()


def calls(
    packets: List[Any], options: Dict[str, Any], step: float = 0.001, unruly: Tuple[int, str] = (0, "")
) -> List[Any]:
    """Everything that the handlers hear, and the counters that do not depend on the path, in passing and at the end.

    With `on_pressure` among the options the levels that a callback hears are in it too.
    """
    recorder = Unruly(*unruly) if unruly[0] else Recorder()
    failures: List[str] = []
    passing: List[Any] = []
    options = {**options, "on_error": lambda handler, error: failures.append(str(error))}
    if "on_pressure" in options:
        options["on_pressure"] = passing.append
    assembler = Assembler(recorder, **options)
    for number, packet in enumerate(packets):
        assembler.assemble(packet, 1.0 + number * step)
        passing.append((counted(assembler), assembler.pressure(), [str(holder) for holder in assembler.top()]))
    assembler.check()
    assembler.flush_all()
    heard: List[Any] = [passing, failures]
    for connection in recorder.connections:
        chunks = [
            (chunk.direction, bytes(chunk.data), chunk.offset, chunk.skip, chunk.start, chunk.end, chunk.timestamp)
            for chunk in connection.chunks
        ]
        heard.append((str(connection.flow), chunks, connection.gaps, connection.anomalies, connection.completions))
    return [*heard, counted(assembler)]


def counted(assembler: Assembler) -> Any:
    """The statistics without the number of chunks, which depends on the path, and without errors and the memory that
    segments in doubt take with their frames, which depend on the link."""
    return assembler.statistics()._replace(chunks=0, decode_errors={}, memory_bytes=0)


def packet(side: str, flags: str, at: int, ack: int = 0, size: int = 0, **other: Any) -> Dict[str, Any]:
    """A packet of the client or the server, by its offset in the stream and the offset that it acknowledges; of a SYN
    the offset is -1. The bytes tell where they belong."""
    ends = (CLIENT, SERVER) if side == "c" else (SERVER, CLIENT)
    return {
        "source": ends[0], "destination": ends[1], "flags": flags, "seq": (ISN[side] + 1 + at) % 2**32,
        "payload": bytes((at + i) & 255 for i in range(size)),
        "ack": (ISN["s" if side == "c" else "c"] + 1 + ack) % 2**32 if "A" in flags else 0, **other,
    }  # fmt: skip


def opened(windows: Tuple[int, int] = (65535, 65535), options: bytes = b"") -> List[Dict[str, Any]]:
    """A connection after its handshake, each side with a window of its own; `options` are those of both SYNs."""
    return [
        packet("c", "S", -1, window=windows[0], options=options),
        packet("s", "SA", -1, window=windows[1], options=options),
        packet("c", "A", 0, window=windows[0], options=timestamps_option(9, 9) if options == STAMPED else b""),
    ]


def both(packets: List[Dict[str, Any]], options: Dict[str, Any], *more: Any) -> Tuple[List[Any], List[Any]]:
    """What these packets lead to as frames, and as segments."""
    frames = [tcp_frame(**packet) for packet in packets]
    decoder = PacketDecoder()
    segments = [segment for frame in frames for segment in decoder.decode(frame)]
    return calls(frames, options, *more), calls(segments, options, *more)
