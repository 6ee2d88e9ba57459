"""More cores: captures, or the parts of one capture, assembled in worker processes or on a cluster.

A capture is cut into parts by connection, so that both directions of one, and all of its packets, meet in one part.
Of a large pcap file each worker looks at a range first, to find the packets of every part; of other captures every
worker reads the whole and skips what belongs to other parts. Packets that must be decoded to be told apart (fragments,
tunnels) are decoded by each. A part's timers run on its own packets.

Any executor of PEP 3148 will do: `concurrent.futures.ProcessPoolExecutor`, which is the default, or, beyond one
machine, `distributed.Client(...).get_executor()` (the extra `dask`); see docs/parallel.md.
"""

from __future__ import annotations

import dataclasses
import gc
import inspect
import multiprocessing
import os
import pickle
import signal
import stat
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from operator import itemgetter
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from .assembler import Assembler
from .capture import Capture, ahead
from .capture.share import MOST_SHARES
from .errors import TcpStitchError, UsageError, shown, whole
from .limits import LEAST_FRAGMENT_BYTES, Limits
from .statistics import Statistics
from .stream import StreamFactory
from .worker import Answer, Arrived, ByName, Failure, MakeFactory, Sent, Task, work

__all__ = ["Failure", "Outcome", "PartReport", "PartsFailed", "divided", "run"]

_Sent = Union[Sent, Arrived]


class PartReport(NamedTuple):
    """What one part came to: `part`, counted from 0, of the `parts` of `source`; `statistics` is None where there was
    no assembler, or its process died. `warnings` say what of the capture was cut or damaged, as `Capture.warnings`;
    each part meets the same."""

    source: Any
    part: int
    parts: int
    statistics: Optional[Statistics]
    warnings: Sequence[str] = ()


class Outcome(NamedTuple):
    """All results in order, what failed, and the statistics of each part.

    The order: by source as given, then by the number of the packet at which a result was emitted; what is emitted when
    the capture has ended comes last, part by part. So it does not depend on which worker was quicker.
    """

    results: List[Any]
    failures: List[Failure]
    parts: List[PartReport]


class PartsFailed(TcpStitchError):
    """Some parts ended early; `outcome` holds everything that did not."""

    def __init__(self, outcome: Outcome) -> None:
        failures = outcome.failures
        super().__init__(f"{len(failures)} of {len(outcome.parts)} parts failed; first: {failures[0]}")
        self.outcome = outcome

    def __reduce__(self) -> Tuple[Any, ...]:
        return PartsFailed, (self.outcome,)


def run(
    sources: Any,
    make_factory: MakeFactory,
    *,
    workers: Optional[int] = None,
    parts: Optional[int] = None,
    executor: Optional[Executor] = None,
    failures: str = "raise",
    **options: Any,
) -> Outcome:
    """Assemble `sources` on several cores, and return what the streams emitted, in order.

    `sources` is a path or a list; each member is a path, or a list of paths that are one capture in several files.
    `make_factory(emit)` makes the `StreamFactory` of a part, in the worker; its streams call `emit(result)`. It must be
    importable there, as must the results be picklable: a class or function at the top level of a module, or a
    `functools.partial` of one. Results are held until the end: emit what is small.

    `workers` parts are worked on at the same time (default: the processors this process may use), in processes of
    their own unless an `executor` is given. Each capture is cut into `parts` (default: one, when there are as many
    captures as workers, else as many as workers). `options` are those of `Assembler` but for `linktype`; the bounds of
    `limits` are those of all workers together: totals, connections and fragments are divided among them (64 datagrams
    in fragments, of 128 KiB, stay).

    A part that fails (an unreadable file, a handler that raises, a process that dies) costs the others nothing, and
    keeps what it emitted before. With `failures="raise"`, `PartsFailed`, which has everything else as its `outcome`,
    is raised in the end; with "return" failures are in the outcome only. Raises `UsageError` for arguments that cannot
    work, before anything is read.
    """
    if not callable(make_factory):
        raise UsageError(f"make_factory={shown(make_factory)}: give a class or function that makes a StreamFactory")
    _check_takes_emit(make_factory)
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        raise UsageError(f"executor={executor!r}: give a concurrent.futures.Executor, or None for processes")
    wanted = _wanted(sources)
    workers = whole("workers", _processors() if workers is None else workers, 1)
    usual = 1 if len(wanted) >= workers else min(workers, MOST_SHARES)
    parts = whole("parts", usual if parts is None else parts, 1)
    options = _checked(wanted, workers, parts, failures, options)
    if executor is None or isinstance(executor, ProcessPoolExecutor):
        make_factory = _by_name(make_factory, options)
    tasks = [Task(source, part, parts, make_factory, options) for source in wanted for part in range(parts)]
    if executor is None:
        answers = [_answer(task, future, None) for task, future in zip(tasks, _pooled(tasks, workers))]
    else:
        answers = _answers(tasks, executor)
    outcome = _merged(tasks, answers)
    if outcome.failures and failures == "raise":
        raise PartsFailed(outcome)
    return outcome


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return min(os.cpu_count() or 1, 61)  # a pool on Windows refuses to be larger


def _wanted(sources: Any) -> List[Any]:
    """The captures, each a path or several. Raises `UsageError`."""
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    elif isinstance(sources, (Capture, bytes)) or hasattr(sources, "read") or not hasattr(sources, "__iter__"):
        raise UsageError(f"sources={shown(sources)}: give paths, as each process opens the captures itself")
    wanted = list(sources)
    for source in wanted:
        if source in ([], ()):
            raise UsageError(f"source {source!r}: give a path, or a list of at least one")
        for path in _paths(source):
            if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
                raise UsageError(f"source {path!r} is a directory: give a list of its captures")
            if not isinstance(path, (str, os.PathLike)) or path == "-":
                raise UsageError(f"source {path!r}: give a path, as several processes cannot share one stream")
    return wanted


def _paths(source: Any) -> Sequence[Any]:
    return source if isinstance(source, (list, tuple)) else [source]


def _is_pipe(path: Any) -> bool:
    """Whether there is a pipe here; a cluster's files may be elsewhere."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _checked(
    sources: List[Any], workers: int, parts: int, failures: str, options: Dict[str, Any]
) -> Dict[str, Any]:
    """The options of one worker's assembler. Raises `UsageError`."""
    if parts > MOST_SHARES:
        raise UsageError(f"parts={parts}: give at most {MOST_SHARES}")
    for path in [path for source in sources for path in _paths(source)]:
        if parts > 1 and _is_pipe(path):
            raise UsageError(f"source {path!r}: a pipe can be read once only: give parts=1, or a file")
    if failures not in ("raise", "return"):
        raise UsageError(f'failures={failures!r}: use "raise" or "return"')
    if "linktype" in options:
        raise UsageError("linktype: captures name it themselves")
    at_once = max(1, min(workers, len(sources) * parts))
    limits = options.get("limits")
    Assembler(_NoStreams(), **options)  # refuses what cannot work
    return {**options, "limits": divided(Limits() if limits is None else limits, at_once)}


class _NoStreams(StreamFactory):
    def new(self, flow: Any, segment: Any, timestamp: float) -> None:
        return None


def divided(limits: Limits, workers: int) -> Limits:
    """The bounds of one of `workers` that keep `limits` together. Raises `UsageError` where too little is left."""
    total, connections = limits.max_buffered_pages_total // workers, limits.max_connections // workers
    if not total or not connections:
        raise UsageError(f"{limits} is too little for {workers} workers: raise the bounds, or use fewer")
    return dataclasses.replace(
        limits,
        max_buffered_pages_total=total,
        max_buffered_pages_per_connection=min(limits.max_buffered_pages_per_connection, total),
        max_connections=connections,
        # Each worker meets the fragments of all, so it needs room for what travels at the same time.
        max_fragments=min(limits.max_fragments, max(64, limits.max_fragments // workers)),
        max_fragment_bytes=max(LEAST_FRAGMENT_BYTES, limits.max_fragment_bytes // workers),
    )


def _check_takes_emit(make_factory: MakeFactory) -> None:
    try:
        signature = inspect.signature(make_factory)
    except (TypeError, ValueError):  # not everything says
        return
    try:
        signature.bind(print)
    except TypeError as error:
        raise UsageError(
            f"make_factory={make_factory!r}: it is called with one argument, emit, the function that its streams give "
            f"their results to, but: {error}"
        ) from error


def _by_name(make_factory: MakeFactory, options: Dict[str, Any]) -> ByName:
    try:
        pickle.dumps(options)
        return ByName(make_factory)
    except Exception as error:
        raise UsageError(
            f"make_factory={make_factory!r} and the options must reach another process, but: {error}; "
            "define functions and classes at the top level of a module"
        ) from error


def _looked_ahead(executor: Executor, tasks: List[Task]) -> List[Task]:
    """The tasks with what the parts of each large file find out together about where the packets of each lie."""
    captures = [task for task in tasks if task.part == 0 and task.parts > 1]
    if not captures:
        return tasks
    looks = [ahead.looks(executor, _paths(task.source), task.parts, len(captures)) for task in captures]
    pieces = [own for futures in looks for own in ahead.found(futures, tasks[0].parts)]
    return [task._replace(pieces=own) for task, own in zip(tasks, pieces)]


class _Asking(Executor):
    """Another executor, and all that it was asked for."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._futures: List[Future[Any]] = []

    def submit(self, *call: Any) -> Future[Any]:  # type: ignore[override]
        future = self._executor.submit(*call)
        self._futures.append(future)
        return future

    def take_back(self) -> None:
        for future in self._futures:
            with suppress(Exception):  # of an executor that has ended, perhaps
                future.cancel()


def _answers(tasks: List[Task], executor: Executor) -> List[Answer]:
    asking = _Asking(executor)
    try:
        futures = _submit(asking, _looked_ahead(asking, tasks))
        return [_answer(task, future, executor) for task, future in zip(tasks, futures)]
    except BaseException:  # an interrupt: who leaves the executor's `with` block waits for what it still has to do
        asking.take_back()
        raise


def _submit(executor: Executor, tasks: Iterable[Task]) -> List[Future[_Sent]]:
    futures: List[Future[_Sent]] = []
    for task in tasks:
        try:
            futures.append(executor.submit(work, task))
        except Exception as error:  # an executor that broke takes no more
            futures.append(_failed(error))
    return futures


def _failed(error: Exception) -> Future[_Sent]:
    future: Future[_Sent] = Future()
    future.set_exception(error)
    return future


def _answer(task: Task, future: Future[_Sent], executor: Optional[Executor]) -> Answer:
    try:
        return _sent(task, future, executor).answer()
    except Exception as error:  # the worker's process died, or its results could not be sent
        return Answer([], task.failure(None, error), None)


def _sent(task: Task, future: Future[_Sent], executor: Optional[Executor]) -> _Sent:
    """What came back. A process that dies breaks its pool: what it left undone is done again, each part alone."""
    try:
        return future.result()
    except BrokenProcessPool:
        if not isinstance(executor, (ProcessPoolExecutor, type(None))):
            raise
    except OSError:  # a pool that does not fork begins a process with each of the first tasks, as many as it can
        if executor is not None:
            raise
    if executor is not None:
        executor.shutdown()  # broken as it is, it may still have a thread, beside which no process should be forked
    return _pooled([task], 1, executor)[0].result()


def _pooled(tasks: List[Task], workers: int, like: Optional[Executor] = None) -> List[Future[_Sent]]:
    """What became of the tasks, all of them done, in a pool of their own, whose processes begin as those of `like`."""
    if not tasks:
        return []
    try:
        pool = _begun(min(workers, len(tasks)), like)
    except (OSError, RuntimeError) as error:  # not a single process
        return [_failed(error) for _ in tasks]
    try:
        futures = _submit(pool, _looked_ahead(pool, tasks))
        wait(futures)
        pool.shutdown()
        return futures
    except BaseException:  # an interrupt: what is being done is no use any more
        _end(pool)
        raise


def _begun(workers: int, like: Optional[Executor]) -> ProcessPoolExecutor:
    """A pool of so many processes, or of fewer where the system has no room for them: a pool that could not begin all
    of those it forks never ends the others, each of which the interpreter waits for at its exit."""
    while True:
        pool = ProcessPoolExecutor(
            workers,
            getattr(like, "_mp_context", None),
            _begin,
            (getattr(like, "_initializer", None), *getattr(like, "_initargs", ())),
        )
        try:
            pool.submit(int)
            return pool
        except BaseException as error:
            _end(pool)
            if workers == 1 or not isinstance(error, Exception):
                raise
        del pool
        gc.collect()  # what is left of it has descriptors
        workers //= 2


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((getattr(pool, "_processes", None) or {}).values())
    for process in processes:
        process.kill()  # SIGTERM may have a handler of the caller's, which what was forked has as well
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.join()


def _begin(initializer: Optional[Callable[..., Any]], *its: Any) -> None:
    """In a worker, which Ctrl-C reaches too: as an exception it could leave a lock held, and the pool wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    if initializer is not None:
        initializer(*its)


def _end_with_the_caller() -> None:
    """Killed, by SIGTERM say, it ends no process of its pool, and each would wait for tasks for ever."""
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)


def _merged(tasks: List[Task], answers: List[Answer]) -> Outcome:
    results: List[Any] = []
    count = tasks[0].parts if tasks else 1
    for first in range(0, len(tasks), count):
        pairs = [pair for answer in answers[first : first + count] for pair in answer.results]
        pairs.sort(key=itemgetter(0))  # stable, and quick, as each part's are in order already
        results += [result for _, result in pairs]
    reports = [PartReport(*task[:3], answer.statistics, answer.warnings) for task, answer in zip(tasks, answers)]
    return Outcome(results, [answer.failure for answer in answers if answer.failure is not None], reports)
