"""One function over many songs: the only room that starts workers.

Workers are fresh processes (spawned: a forked torch can hang) with one thread each, on this machine or, with the engine ``ray``, on a
cluster. A worker has one song at a time and the parent hands out the next when it is done, so memory does not grow with the number of
songs; a worker that hangs, dies or eats memory costs that song and nobody else's. A song that fails is an answer, not an exception.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Engine = str  # local or ray
ENGINES = ("local", "ray")

ATTEMPTS = 2  # of a song whose worker died: once it may have been the machine's fault
AHEAD = 16  # songs for each worker that may be done before the one that is due


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> float:
    """Memory that this process may still take, without pushing out others or leaving its container's limit; half of all, where only
    that is known, and infinite where nothing is."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return min(1024.0 * int(text.split("MemAvailable:")[1].split()[0]), _left_in_container(Path("/sys/fs/cgroup")))
    except (OSError, IndexError):
        return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else float("inf")


def _left_in_container(group: Path) -> float:
    """Bytes below the limit of a control group (v2); infinite where there is none."""
    try:
        limit, used = (float((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        cached = float((group / "memory.stat").read_text(encoding="ascii").split("inactive_file ")[1].split()[0])
    except (OSError, ValueError, IndexError):  # "max" is no number
        return float("inf")
    return limit - used + cached  # files that were read are given up where memory is wanted


def over_songs(
    work: Callable[[Any, Task], Result],
    tasks: Iterable[Task],
    *,
    setup: Callable[[], Any],
    jobs: int | None = None,
    ordered: bool = False,
    timeout_seconds: float | None = None,
    memory_mib: int | None = None,
    engine: Engine = "local",
) -> Generator[tuple[Task, Result | ValueError], None, None]:
    """``work(setup(), task)`` for every task, in worker processes.

    Parameters
    ----------
    work, setup : functions at the top of a module, or ``functools.partial`` of such (they travel to the workers)
        ``setup`` runs once in each worker.
    jobs : int, optional
        Worker processes; all cores (of the cluster) when not given.
    ordered : bool
        Give the results in the order of the tasks, not as they are done.
    timeout_seconds : float, optional
        Of one task; then its worker is ended.
    memory_mib : int, optional
        That one task may take on top of what ``setup`` took. Kept on Linux only.
    engine : str
        ``local``, or ``ray``: a cluster, the one at ``$RAY_ADDRESS`` or on this machine, else a new one here.

    Yields
    ------
    (task, result)
        A ``ValueError`` or ``OSError`` of the work comes as the result, as a ``ValueError``; so does its running out of time or memory, and
        its worker's death, twice. Any other error is raised here.

    Raises
    ------
    ValueError
        If ``setup`` raised one, or an ``OSError``; if there is no such engine.
    """
    crew = _crew(engine, functools.partial(_call, work), setup, jobs, memory_mib)
    try:
        shift = _Shift(crew, iter(enumerate(tasks)), timeout_seconds, crew.jobs * AHEAD if ordered else None)
        with contextlib.closing(shift.results()) as results:
            yield from (_in_order(results) if ordered else ((job.task, result) for job, result in results))
    finally:
        crew.close()


def _in_order(results: Iterator[tuple[_Job, Any]]) -> Iterator[tuple[Any, Any]]:
    early: dict[int, tuple[Any, Any]] = {}
    due = 0
    for job, result in results:
        early[job.index] = job.task, result
        while due in early:
            yield early.pop(due)
            due += 1


# --- who does what, and for how long -----------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    index: int
    task: Any
    attempts: int = 0
    deadline: float = float("inf")


class _Died(Exception):
    """A worker has gone, and how."""


class _Worker(Protocol):
    """A process that was told what to set up. It says ``("ready", None)`` once, then one ``(kind, value)`` for every task."""

    def give(self, task: Any) -> None: ...

    def take(self) -> tuple[str, Any]:
        """What it says; `_Died` if it will say nothing more."""

    def dismiss(self) -> None:
        """Let it go, without waiting until it has gone."""

    def end(self) -> None:
        """Let it go, and wait until it has."""


class _Crew(Protocol):
    """Where workers come from."""

    jobs: int

    def start(self) -> _Worker: ...

    def wait(self, workers: Sequence[_Worker], seconds: float | None) -> list[_Worker]:
        """Those that have something to say."""

    def close(self) -> None: ...


class _Shift:
    """Workers and the songs they have in hand."""

    def __init__(self, crew: _Crew, tasks: Iterator[tuple[int, Any]], timeout_seconds: float | None, ahead: int | None) -> None:
        self.crew, self.tasks, self.timeout, self.ahead = crew, tasks, timeout_seconds, ahead
        self.queue: deque[_Job] = deque()
        self.starting: list[_Worker] = []
        self.idle: list[_Worker] = []
        self.busy: dict[int, tuple[_Worker, _Job]] = {}  # by the id of the worker
        self.dismissed: list[_Worker] = []
        self.given, self.all_given = 0, False

    def results(self) -> Generator[tuple[_Job, Any], None, None]:
        try:
            while True:
                self._hand_out()
                if not self.busy and not self.queue:
                    return
                for worker in self.crew.wait([*self.starting, *(worker for worker, _ in self.busy.values())], self._patience()):
                    yield from self._hear(worker)
                yield from self._overdue()
        finally:
            workers = [*self.starting, *self.idle, *(worker for worker, _ in self.busy.values())]
            for worker in workers:  # all at once: to give back its memory takes a process as long as half a song
                worker.dismiss()
            for worker in [*self.dismissed, *workers]:
                worker.end()

    def _hand_out(self) -> None:
        self._fill()
        while self.idle and self.queue:
            worker, job = self.idle.pop(), self.queue.popleft()
            job.attempts += 1
            job.deadline = time.monotonic() + self.timeout if self.timeout else float("inf")
            self.busy[id(worker)] = worker, job
            with contextlib.suppress(_Died):  # it will be heard of
                worker.give(job.task)
            self._fill()
        while self.queue and len(self.starting) < len(self.queue) and self._workers() < self.crew.jobs:
            self.starting.append(self.crew.start())
        while self.all_given and not self.queue and self.idle:  # to be gone by the time that the others are done
            self.dismissed.append(self.idle.pop())
            self.dismissed[-1].dismiss()

    def _workers(self) -> int:
        return len(self.starting) + len(self.idle) + len(self.busy)

    def _fill(self) -> None:
        """As many tasks as there are hands, but none too far ahead of the oldest that is not done."""
        oldest = min((job.index for job in [*self.queue, *(job for _, job in self.busy.values())]), default=self.given)
        while len(self.queue) + len(self.busy) < self.crew.jobs and (self.ahead is None or self.given < oldest + self.ahead):
            numbered = next(self.tasks, None)
            if numbered is None:
                self.all_given = True
                return
            self.queue.append(_Job(*numbered))
            self.given += 1

    def _patience(self) -> float | None:
        deadline = min((job.deadline for _, job in self.busy.values()), default=float("inf"))
        return None if deadline == float("inf") else max(deadline - time.monotonic(), 0.0)

    def _hear(self, worker: _Worker) -> Iterator[tuple[_Job, Any]]:
        try:
            kind, value = worker.take()
        except _Died as death:
            yield from self._bury(worker, str(death))
            return
        if kind == "setup failed":
            raise ValueError(value)
        if kind == "raised":
            raise value
        self.idle.append(worker)  # first: whoever takes the result may take no more, and then all workers that are known are ended
        if kind == "ready":
            self.starting.remove(worker)
        else:
            yield self.busy.pop(id(worker))[1], value

    def _bury(self, worker: _Worker, how: str) -> Iterator[tuple[_Job, Any]]:
        worker.end()
        if worker in self.starting:
            raise ValueError(f"a worker process ended while it started ({how}); is there enough memory?")
        _, job = self.busy.pop(id(worker))
        if job.attempts < ATTEMPTS:
            self.queue.appendleft(job)
        else:
            yield job, ValueError(f"its worker process died ({how}), {ATTEMPTS} times")

    def _overdue(self) -> Iterator[tuple[_Job, Any]]:
        now = time.monotonic()
        for worker, job in [pair for pair in self.busy.values() if pair[1].deadline <= now]:
            worker.end()
            del self.busy[id(worker)]
            yield job, ValueError(f"no result after {self.timeout:g} s; given up")


# --- in a worker -------------------------------------------------------------------------------------------------------------------------


def _begin(setup: Callable[[], Any], memory_mib: int | None) -> Any:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores among themselves
    _one_thread()
    state = setup()
    _one_thread()
    if memory_mib is not None:
        _limit_memory(memory_mib)
    return state


def _one_thread() -> None:
    """Told to torch, if it is here already: then it has read its environment, and importing it only for this would take a second."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _limit_memory(mib: int) -> None:
    """Let this process have so much more memory than it has; where the system can (Linux)."""
    with contextlib.suppress(ImportError, OSError, ValueError, StopIteration):
        import resource

        with open("/proc/self/status", encoding="ascii") as lines:
            has_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (has_kib * 1024 + mib * 2**20, hard))


def _call(work: Callable[[Any, Any], Any], state: Any, task: Any) -> tuple[str, Any]:
    try:
        return "done", work(state, task)
    except (ValueError, OSError) as error:
        return "done", ValueError(str(error))
    except MemoryError:
        return "done", ValueError("it needs more memory than a song may take")
    except Exception as error:
        return "raised", error


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"stylestream: warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


# --- on this machine ---------------------------------------------------------------------------------------------------------------------


def _crew(engine: Engine, call: Callable[[Any, Any], Any], setup: Callable[[], Any], jobs: int | None, memory_mib: int | None) -> _Crew:
    if engine == "local":
        return _Processes(call, setup, jobs or cores(), memory_mib)
    if engine == "ray":
        return _RayCluster(call, setup, jobs, memory_mib)
    raise ValueError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")


class _Processes:
    def __init__(self, call: Callable[[Any, Any], Any], setup: Callable[[], Any], jobs: int, memory_mib: int | None) -> None:
        self.jobs = jobs
        # workers are killed where they stand: what they had in temporary files is removed here
        self._scratch = tempfile.TemporaryDirectory(prefix="stylestream-")
        self._arguments = self._scratch.name, call, setup, memory_mib
        self._context = multiprocessing.get_context("spawn")

    def start(self) -> _Worker:
        return _Process(self._context, self._arguments)

    def wait(self, workers: Sequence[Any], seconds: float | None) -> list[_Worker]:
        ready = set(multiprocessing.connection.wait([worker.connection for worker in workers], seconds))
        return [worker for worker in workers if worker.connection in ready]

    def close(self) -> None:
        self._scratch.cleanup()


class _Process:
    def __init__(self, context: Any, arguments: tuple[Any, ...]) -> None:
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *arguments), daemon=True)
        self._process.start()
        other.close()

    def give(self, task: Any) -> None:
        try:
            self.connection.send(task)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _Died from error

    def take(self) -> tuple[str, Any]:
        try:
            said: tuple[str, Any] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise _Died(_how(self._process.exitcode)) from None
        return said

    def dismiss(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()


def _how(exit_code: int | None) -> str:
    """How a process ended.

    >>> _how(-9), _how(3)
    ('SIGKILL', 'exit code 3')
    """
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _serve(connection: Any, scratch: str, call: Callable[[Any, Any], Any], setup: Callable[[], Any], memory_mib: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us in order
    tempfile.tempdir = scratch
    threading.Thread(target=_follow_parent, args=(scratch,), daemon=True).start()
    warnings.showwarning = _print_warning
    try:
        state = _begin(setup, memory_mib)
    except (ValueError, OSError) as error:
        connection.send(("setup failed", str(error)))
        return
    connection.send(("ready", None))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent needs us no more
        while True:
            said = call(state, connection.recv())
            try:
                connection.send(said)
            except MemoryError:
                connection.send(("done", ValueError("it needs more memory than a song may take")))


def _follow_parent(scratch: str) -> None:
    """End with the parent, even if it was killed: a worker alone would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


# --- on a cluster ------------------------------------------------------------------------------------------------------------------------


class _RayCluster:
    """Actors on every node, one core each. Tasks and results travel through Ray: no node but this one reads sources or writes files."""

    def __init__(self, call: Callable[[Any, Any], Any], setup: Callable[[], Any], jobs: int | None, memory_mib: int | None) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise ValueError("the engine ray needs Ray: pip install 'stylestream[scale]'") from None
        self._ray, self._arguments = ray, (call, setup, memory_mib)
        self._started = not ray.is_initialized()
        if self._started:
            _join_cluster(ray, jobs)
        self.jobs = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_RayServant)

    def start(self) -> _Worker:
        return _RayWorker(self._ray, self._actor.remote(*self._arguments))

    def wait(self, workers: Sequence[Any], seconds: float | None) -> list[_Worker]:
        ready, _ = self._ray.wait([worker.answer for worker in workers], num_returns=1, timeout=seconds)
        return [worker for worker in workers if worker.answer in ready]

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()


def _join_cluster(ray: Any, jobs: int | None) -> None:
    """The cluster that is there, else a new one on this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), **quiet)
    except ConnectionError:
        if "RAY_ADDRESS" in os.environ:
            raise ValueError(f"no Ray cluster at {os.environ['RAY_ADDRESS']}; start one with `ray start --head`") from None
        ray.init(num_cpus=jobs or cores(), include_dashboard=False, **quiet)


class _RayServant:
    """What runs in an actor."""

    def __init__(self, call: Callable[[Any, Any], Any], setup: Callable[[], Any], memory_mib: int | None) -> None:
        self._call = call
        self._problem = ""
        try:
            self._state = _begin(setup, memory_mib)
        except (ValueError, OSError) as error:
            self._problem = str(error)

    def ready(self) -> tuple[str, Any]:
        return ("setup failed", self._problem) if self._problem else ("ready", None)

    def call(self, task: Any) -> Any:
        return self._call(self._state, task)


class _RayWorker:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self.answer = actor.ready.remote()

    def give(self, task: Any) -> None:
        self.answer = self._actor.call.remote(task)

    def take(self) -> tuple[str, Any]:
        try:
            said: tuple[str, Any] = self._ray.get(self.answer)
        except self._ray.exceptions.RayActorError:
            raise _Died("its Ray actor is gone") from None
        return said

    def dismiss(self) -> None:
        self._ray.kill(self._actor)

    def end(self) -> None:
        self._ray.kill(self._actor)
