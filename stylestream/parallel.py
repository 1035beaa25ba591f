"""One function over many songs: the only room that starts workers.

Workers are fresh processes (spawned: a forked torch can hang) with one thread each, and only a few tasks are in flight at a time, so
memory does not grow with the number of songs. A song that fails is an answer, not an exception.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_state: Any = None  # what a worker's ``setup`` returned: made once in each worker, for example a loaded SoundFont


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_songs(
    work: Callable[[Any, Task], Result], tasks: Iterable[Task], *, setup: Callable[[], Any], jobs: int | None = None
) -> Generator[tuple[Task, Result | ValueError], None, None]:
    """``work(setup(), task)`` for every task, in worker processes; results in the order in which they are done.

    Parameters
    ----------
    work, setup : functions at the top of a module, or ``functools.partial`` of such (they travel to the workers)
        ``setup`` runs once in each worker.
    jobs : int, optional
        Worker processes; all cores when not given.

    Yields
    ------
    (task, result)
        A ``ValueError`` or ``OSError`` of the work comes as the result, as a ``ValueError``; any other error is raised here.

    Raises
    ------
    ValueError
        If ``setup`` raised one, or an ``OSError``.
    """
    jobs = jobs or cores()
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(setup,))
    pending: dict[Future[Any], Task] = {}
    try:
        for task in tasks:
            pending[pool.submit(_call, work, task)] = task
            if len(pending) >= 3 * jobs:
                yield from _finished(pending)
        while pending:
            yield from _finished(pending)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(pending: dict[Future[Any], Task]) -> Iterator[tuple[Task, Any]]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        if isinstance(result, _SetupFailed):
            raise ValueError(result.reason)
        yield pending.pop(future), result


@dataclass(frozen=True)
class _SetupFailed:
    reason: str


def _start(setup: Callable[[], Any]) -> None:
    global _state
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us in order
    threading.Thread(target=_follow_parent, daemon=True).start()
    warnings.showwarning = _print_warning
    torch.set_num_threads(1)  # workers share the cores among themselves
    try:
        _state = setup()
    except (ValueError, OSError) as error:
        _state = _SetupFailed(str(error))


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"stylestream: warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def _follow_parent() -> None:
    """End with the parent, even if it was killed: a worker alone would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(work: Callable[[Any, Any], Any], task: Any) -> Any:
    if isinstance(_state, _SetupFailed):
        return _state
    try:
        return work(_state, task)
    except (ValueError, OSError) as error:
        return ValueError(str(error))
