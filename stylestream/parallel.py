"""One function over many songs: the only room that starts workers.

Workers are fresh processes (spawned: a forked torch can hang) with one thread each, and only a few tasks are in flight at a time, so
memory does not grow with the number of songs. A song that fails is an answer, not an exception.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_state: Any = None  # what a worker's ``setup`` returned: made once in each worker, for example a loaded SoundFont


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_songs(
    work: Callable[[Any, Task], Result], tasks: Iterable[Task], *, setup: Callable[[], Any], jobs: int | None = None
) -> Iterator[tuple[Task, Result | ValueError]]:
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
        yield pending.pop(future), future.result()


def _start(setup: Callable[[], Any]) -> None:
    global _state
    import torch

    torch.set_num_threads(1)  # workers share the cores among themselves
    _state = setup()


def _call(work: Callable[[Any, Any], Any], task: Any) -> Any:
    try:
        return work(_state, task)
    except (ValueError, OSError) as error:
        return ValueError(str(error))
