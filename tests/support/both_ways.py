"""Packets as frames, which may take the short path, and as segments, which never do: both have to lead to the same."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from support.recorder import Recorder
from tcpstitch import Assembler


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
    """The statistics without the number of chunks, which depends on the path, and errors, which depend on the link."""
    return assembler.statistics()._replace(chunks=0, decode_errors={})
