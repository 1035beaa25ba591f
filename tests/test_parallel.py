"""Workers that do, fail, hang, die and eat memory; in order, and on a cluster."""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from stylestream import parallel
from stylestream.parallel import over_songs


def make_state() -> dict[str, int]:
    return {"made": os.getpid()}


def obey(state: dict[str, int], task: tuple[str, Any]) -> Any:
    """What a task says, to itself."""
    what, value = task
    if what == "double":
        return 2 * value
    if what == "pid":
        assert state["made"] == os.getpid()
        return os.getpid()
    if what == "sign":
        with open(value, "w") as file:
            file.write(str(os.getpid()))
        return "signed"
    if what == "outlive":
        return outlived(int(wait_for(value)))
    if what == "fail":
        raise ValueError(value)
    if what == "hang":
        time.sleep(600)
    if what == "leave a file and hang":
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "song.wav"), "w") as file:
                file.write("half of it")
            time.sleep(600)
    if what == "die":
        os.kill(os.getpid(), value)
    if what == "eat":
        return len(b"x" * value)
    if what == "die once":
        if not os.path.exists(value):
            open(value, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return "then done"
    raise TypeError("nobody expects this")


def wait_for(path: str) -> str:
    """What somebody writes into a file, as soon as he has."""
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.01)
    with open(path) as file:
        return file.read()


def outlived(pid: int) -> bool:
    """Whether a process is gone, or a name without a body, within half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def answers(tasks: list[tuple[str, Any]], **settings: Any) -> list[Any]:
    found = over_songs(obey, tasks, setup=make_state, **settings)
    return [str(result) if isinstance(result, ValueError) else result for _, result in found]


def test_a_song_that_fails_hangs_dies_or_eats_memory_costs_that_song_and_no_other(tmp_path):
    tasks: list[tuple[str, Any]] = [
        ("double", 1),
        ("hang", 0),
        ("fail", "no music"),
        ("die", signal.SIGSEGV),
        ("eat", 3 * 2**30),
        ("die once", str(tmp_path / "mark")),
        ("double", 2),
    ]
    if not sys.platform.startswith("linux"):
        tasks[4] = ("fail", "it needs more memory than a song may take")
    found = answers(tasks, jobs=2, ordered=True, timeout_seconds=3.0, memory_mib=500)
    assert found == [
        2,
        "no result after 3 s; given up",
        "no music",
        "its worker process died (SIGSEGV), 2 times",
        "it needs more memory than a song may take",
        "then done",
        4,
    ]


def test_results_come_in_order_and_nothing_runs_far_ahead():
    asked = []

    def tasks() -> Any:
        for i in range(200):
            asked.append(i)
            yield "double", i

    got = []
    for _, result in over_songs(obey, tasks(), setup=make_state, jobs=1, ordered=True):
        got.append(result)
        assert len(asked) - len(got) <= parallel.AHEAD
    assert got == [2 * i for i in range(200)]


def test_a_worker_serves_many_songs_and_leaving_early_ends_it():
    results = over_songs(obey, [("pid", None)] * 5 + [("hang", None)], setup=make_state, jobs=1)
    pids = {next(results)[1] for _ in range(5)}
    assert len(pids) == 1
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pids.pop(), 0)  # type: ignore[arg-type]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc who is there")
def test_a_worker_without_more_songs_goes_while_another_has_one(tmp_path):
    path = str(tmp_path / "pid")
    assert answers([("outlive", path), ("sign", path)], jobs=2, ordered=True) == [True, "signed"]


def test_a_song_whose_worker_dies_when_all_others_have_gone_has_a_second_worker(tmp_path):
    tasks = [("die once", str(tmp_path / "mark")), ("double", 4)]
    assert answers(tasks, jobs=2, ordered=True) == ["then done", 8]


def test_what_a_worker_that_was_ended_had_in_temporary_files_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ((_, result),) = over_songs(obey, [("leave a file and hang", None)], setup=make_state, timeout_seconds=2)
    assert isinstance(result, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_nobody_expects_is_raised_here():
    with pytest.raises(TypeError, match="nobody expects this"):
        answers([("else", None)], jobs=1)
    with pytest.raises(ValueError, match="no engine 'abacus'; there are local, ray"):
        answers([], engine="abacus")


def refuse() -> Any:
    raise ValueError("no SoundFont")


def drop_dead() -> Any:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


@pytest.mark.parametrize(
    ("setup", "message"), [(refuse, "no SoundFont"), (drop_dead, r"a worker process ended while it started \(SIGABRT\)")]
)
def test_what_cannot_be_set_up_is_one_error(setup, message):
    with pytest.raises(ValueError, match=message):
        list(over_songs(obey, [("double", 1)] * 3, setup=setup, jobs=2))


def test_no_songs_need_no_workers(monkeypatch):
    monkeypatch.setattr(parallel._Processes, "start", lambda self: pytest.fail("a worker was started"))
    assert answers([], jobs=2) == []


def test_a_partial_travels_to_the_workers():
    assert [result for _, result in over_songs(functools.partial(add, 5), [1, 2], setup=make_state, jobs=1)] == [6, 7]


def add(more: int, state: Any, task: int) -> int:
    return more + task


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads what Linux says of its memory")
def test_free_memory_is_less_than_there_is():
    assert 2**26 < parallel.free_memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_container_leaves_what_is_below_its_limit_and_files_that_were_read_may_go(tmp_path):
    assert parallel._left_in_container(tmp_path) == float("inf")
    for name, text in (("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "anon 500\ninactive_file 150\nslab 3\n")):
        (tmp_path / name).write_text(text)
    assert parallel._left_in_container(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert parallel._left_in_container(tmp_path) == float("inf")
