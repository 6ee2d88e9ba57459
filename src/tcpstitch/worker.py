"""One part of a capture assembled, in whatever process this runs, and what is told of it."""

from __future__ import annotations

import pickle
import sys
import traceback
from math import inf
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .assembler import Assembler
from .capture import Share, open_capture
from .capture.share import HEAD, Piece
from .errors import UsageError, said
from .segment import Segment, address_bytes
from .statistics import Statistics
from .stream import StreamFactory

Emit = Callable[[Any], None]
MakeFactory = Callable[[Emit], StreamFactory]


class ByName:
    """What makes a factory, looked up when it is called: a process that does not have it, as one that was not forked
    has nothing of a notebook, then says so; sent as it is, it would end the process. Raises what pickling does."""

    __slots__ = ("_pickle",)

    def __init__(self, make_factory: MakeFactory) -> None:
        self._pickle = pickle.dumps(make_factory)

    def __call__(self, emit: Emit) -> StreamFactory:
        try:
            make_factory: MakeFactory = pickle.loads(self._pickle)
        except (AttributeError, ImportError) as error:
            advice = "define it at the top level of a module that processes can import"
            raise UsageError(f"make_factory is not found in the worker's process: {error}; {advice}") from error
        return make_factory(emit)


class Failure(NamedTuple):
    """A part that ended early: `part`, counted from 0, of the `parts` of `source`. `packet` is the one it ended at,
    counted from 1 in the capture; 0: before the first one; None: behind the last one, or the process died and could not
    say, or the capture cannot be read again to count. `error` and `trace` are text."""

    source: Any
    part: int
    parts: int
    packet: Optional[int]
    error: str
    trace: str

    def __str__(self) -> str:
        place = "behind the last packet, or at an unknown one" if self.packet is None else f"at packet {self.packet}"
        place = place if self.packet != 0 else "before the first packet"
        return f"{self.source}, part {self.part + 1} of {self.parts}: {place}: {self.error}"


class Task(NamedTuple):
    source: Any
    part: int
    parts: int
    make_factory: MakeFactory
    options: Dict[str, Any]
    pieces: Sequence[Piece] = ()  # where the part's packets lie, if that is known

    def failure(self, packet: Optional[int], error: BaseException) -> Failure:
        """Of the error that is being handled."""
        text = f"{type(error).__name__}: {said(error, str)}"
        return Failure(self.source, self.part, self.parts, packet, text, traceback.format_exc())


Result = Tuple[float, Any]  # with the place of the packet: its number where a capture is one part, else `Share.place`


class Answer(NamedTuple):
    results: List[Result]
    failure: Optional[Failure]
    statistics: Optional[Statistics]
    warnings: Sequence[str] = ()


class _PartAssembler(Assembler):
    """Takes the segments of one share only: the reader cannot tell for packets that must be decoded first."""

    def __init__(self, factory: StreamFactory, share: Share, options: Dict[str, Any]) -> None:
        super().__init__(factory, **options)
        self._share = share

    def _route(self, segment: Segment, timestamp: float) -> None:
        if self._share.owns(address_bytes(segment.key)):
            super()._route(segment, timestamp)


class _Emitter:
    """Notes at which packet each result came."""

    def __init__(self) -> None:
        self.results: List[Result] = []
        self.place: Callable[[], float] = float  # nothing is read yet

    def __call__(self, result: Any) -> None:
        self.results.append((self.place(), result))


class Sent:
    """An answer on its way to who asked. It is pickled only where it leaves its process, which this notices itself, as
    executors differ in what they do about a result that cannot be: Dask's never tells."""

    __slots__ = ("_task", "_answer")

    def __init__(self, task: Task, answer: Answer) -> None:
        self._task = task
        self._answer = answer

    def answer(self) -> Answer:
        return self._answer

    def __reduce__(self) -> Tuple[Any, ...]:
        """With the results pickled: one that cannot be costs what comes from it on, not all of the part."""
        answer = self._answer
        try:
            results = _pickled(answer.results)
        except Exception:
            answer = _before_the_first_that_cannot_be_sent(self._task, answer)
            results = _pickled(answer.results)
        return Arrived, (results, answer._replace(results=[]))


class Arrived:
    """What came of it in another process."""

    __slots__ = ("_results", "_rest")

    def __init__(self, results: bytes, rest: Answer) -> None:
        self._results = results
        self._rest = rest

    def answer(self) -> Answer:
        """Raises whatever making a result again raises."""
        return self._rest._replace(results=pickle.loads(self._results))


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:
        other = sys.modules.get("cloudpickle")  # Dask's, which takes more: objects of classes of a notebook, say
        if other is None:
            raise
        dumped: bytes = other.dumps(value)
        return dumped


def work(task: Task) -> Sent:
    """Assemble a part; errors become a `Failure`."""
    return Sent(task, _work(task))


def _work(task: Task) -> Answer:
    emitter = _Emitter()
    assembler: Optional[Assembler] = None
    share = Share(task.part, task.parts, counted=False)
    share.pieces = list(task.pieces)
    warnings: List[str] = []
    try:
        factory = task.make_factory(emitter)
        if task.parts == 1:
            assembler = alone = Assembler(factory, **task.options)
            emitter.place = lambda: alone._packets
        else:
            assembler = _PartAssembler(factory, share, task.options)
            emitter.place = share.place
        with open_capture(task.source, share=share if task.parts > 1 else None) as capture:
            warnings = capture.warnings  # which grows
            assembler.run(capture)
        emitter.place = lambda: inf
        assembler.flush_all()
    except KeyboardInterrupt:  # whoever waits for the results shall hear of it
        raise
    except BaseException as error:  # `sys.exit` in a handler ends its part, and not the program
        statistics = None if assembler is None else assembler.statistics()
        return Answer(emitter.results, task.failure(_number(task, emitter.place()), error), statistics, warnings)
    return Answer(emitter.results, None, assembler.statistics(), warnings)


def _before_the_first_that_cannot_be_sent(task: Task, answer: Answer) -> Answer:
    for index, (place, result) in enumerate(answer.results):
        try:
            _pickled(result)
        except Exception as error:
            failure = task.failure(_number(task, place), error)
            advice = f"{failure.error}; results are pickled to reach another process: emit what can be"
            return answer._replace(results=answer.results[:index], failure=failure._replace(error=advice))
    return answer


def _number(task: Task, place: float) -> Optional[int]:
    """The number of the packet at this place, None behind the last one or where the capture cannot be read again."""
    if task.parts == 1 or place in (0, inf):
        return None if place == inf else int(place)
    number = 0
    try:
        with open_capture(task.source) as capture:
            for _, packet in capture:
                number += 1
                place -= HEAD + len(packet)
                if place <= 0:
                    break
    except Exception:
        return None
    return number
