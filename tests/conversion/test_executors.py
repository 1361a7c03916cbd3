from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers.processes import wait_for
from helpers.small_data import processed

from hexshards.conversion.convert import convert
from hexshards.conversion.executors import processes
from hexshards.errors import DataError, InputRejected

PATIENCE_S = 60
"""What has not happened by then does not happen."""
SLEEP_S = 10 * PATIENCE_S
"""Who is waited for that long was waited for in vain."""

ENGINES = [1, 2]
"""Workers: none but this process, and a pool."""


def square(number):
    return number * number


def fail(error):
    raise error


def tell_and_sleep(folder):
    """Leave a file named like this process, stay in the way, and leave another file."""
    (folder / str(os.getpid())).touch()
    time.sleep(SLEEP_S)
    (folder / f"{os.getpid()} woke").touch()


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def pids_in(folder, *, count):
    """What so many sleepers wrote."""
    return wait_for(lambda: len(pids := sleepers(folder)) == count and pids)


def sleepers(folder):
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def runs(pid):
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()[:1] not in ("", "Z")


# results ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ENGINES)
def test_every_job_gives_its_result_once(workers):
    with processes.local(workers) as runner:
        assert sorted(runner.each(square, [(number,) for number in range(100)], at_once=2)) == [
            n * n for n in range(100)
        ]
        assert list(runner.each(square, [], at_once=2)) == []
        assert list(runner.each(square, [(7,)], at_once=2)) == [49]


@pytest.mark.parametrize("workers", ENGINES)
@pytest.mark.parametrize(
    "error",
    [InputRejected("is empty", where="a.pkl.gz", fix="Leave it out"), OSError(28, "No space left"), KeyError("stones")],
    ids=lambda error: type(error).__name__,
)
def test_what_a_task_raises_arrives_as_itself(workers, error):
    with processes.local(workers) as runner, pytest.raises(type(error)) as caught:
        list(runner.each(fail, [(error,)] * 2, at_once=2))
    assert type(caught.value) is type(error)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


class Unmakeable(OSError):
    """No other process can make it again from what it is made of."""

    def __init__(self, number, words):
        super().__init__(f"{words} {number}")


@pytest.mark.parametrize("workers", ENGINES)
def test_an_error_of_the_system_that_cannot_be_sent_is_told_by_its_words_and_not_taken_for_a_death(workers):
    with processes.local(workers) as runner, pytest.raises(OSError, match="the tape is torn 7"):
        list(runner.each(fail_unmakeably, [(7,)] * 2, at_once=2))


def fail_unmakeably(number):
    raise Unmakeable(number, "the tape is torn")


def test_what_the_system_says_of_a_source_is_the_same_from_a_worker(tmp_path):
    def told(workers):
        sources = processed(tmp_path / f"in{workers}", games=6, games_per_file=2)
        lost = sources[1]
        with pytest.raises(OSError) as caught:
            convert(sources, out=tmp_path / f"out{workers}", workers=workers, progress=lambda _: lost.unlink(True))
        return type(caught.value), str(caught.value).replace(str(lost), "")

    assert told(1) == told(2)


def test_an_engine_that_is_not_there_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    sources = processed(tmp_path / "in", games=2)
    with pytest.raises(ValueError, match=r"engine must be one of \('local', 'ray'\), got 'slurm'"):
        convert(sources, out=tmp_path / "out", engine="slurm")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'hexshards\[ray\]'"):
        convert(sources, out=tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def me(_):
    return os.getpid()


def test_processes_stay_for_the_next_tasks_unless_fewer_are_to_run():
    jobs = [(number,) for number in range(20)]
    with processes.local(2) as runner:
        first, again = (set(runner.each(me, jobs, at_once=5)) for _ in range(2))
        assert len(first) <= 2 and again <= first and os.getpid() not in first
        assert set(runner.each(me, jobs, at_once=1)) == {os.getpid()}
        wait_for(lambda: not any(map(runs, first)))


# sudden ends --------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_ends_in_an_error_that_says_what_to_do():
    with processes.local(2) as runner, pytest.raises(DataError, match=r"worker process was killed.*fewer --workers"):
        list(runner.each(die, [(number,) for number in range(20)], at_once=2))


def test_one_of_two_workers_killed_from_outside_ends_the_job_at_once(tmp_path):
    def kill_one():
        os.kill(pids_in(tmp_path, count=2)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with processes.local(2) as runner, pytest.raises(DataError, match="killed"):
        list(runner.each(tell_and_sleep, [(tmp_path,)] * 6, at_once=2))
    killer.join()
    assert not list(tmp_path.glob("* woke")), "the other worker was waited for"
    assert not any(map(runs, sleepers(tmp_path)))


SLEEP = """
import signal, sys
from pathlib import Path
from test_executors import processes, tell_and_sleep
def heard(number, frame):
    Path(sys.argv[1], "heard").touch()
    signal.default_int_handler(number, frame)
signal.signal(signal.SIGINT, heard)
if __name__ == "__main__":
    with processes.local(2) as runner:
        list(runner.each(tell_and_sleep, [(Path(sys.argv[1]),)] * 6, at_once=2))
"""


HELD = """
import signal, threading, time
from hexshards.conversion.executors import processes
enter, running = threading.Condition.__enter__, []
def entered(condition):
    got = enter(condition)
    if condition in running and threading.current_thread() is threading.main_thread():
        running.clear()
        signal.raise_signal(signal.SIGINT)
    return got
threading.Condition.__enter__ = entered
if __name__ == "__main__":
    with processes.local(2) as runner:
        next(runner.each(time.sleep, [(0,), *[(600,)] * 5], at_once=2))
        running += [each._condition for each in runner._futures if each.running()]
"""


def test_ctrl_c_while_a_lock_of_a_running_task_is_held_ends_all(tmp_path):
    script = tmp_path / "held.py"
    script.write_text(HELD)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in ended.stderr


@pytest.fixture
def sleeping(tmp_path):
    """A process with two workers that sleep, in a group of their own; and their numbers."""
    command = [sys.executable, "-c", SLEEP, tmp_path]
    parent = subprocess.Popen(
        command, cwd=Path(__file__).parent, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        yield parent, pids_in(tmp_path, count=2)
    finally:
        if any(map(runs, [parent.pid, *sleepers(tmp_path)])):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_a_killed_parent_leaves_no_worker(sleeping):
    parent, workers = sleeping
    assert all(map(runs, workers))
    parent.kill()
    wait_for(lambda: not any(map(runs, workers)))


def test_ctrl_c_is_the_parents_to_answer(sleeping):
    parent, workers = sleeping
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.5)
    assert all(map(runs, workers)), "a worker took the signal for its own"


def test_a_second_ctrl_c_leaves_at_once_and_leaves_nothing(sleeping, tmp_path):
    parent, workers = sleeping
    os.killpg(parent.pid, signal.SIGINT)
    wait_for(lambda: (tmp_path / "heard").exists())
    os.killpg(parent.pid, signal.SIGINT)
    _, told = parent.communicate(timeout=PATIENCE_S)
    assert told.rstrip().endswith("KeyboardInterrupt") and "Process" not in told
    wait_for(lambda: not any(map(runs, workers)))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_is_killed_while_tasks_wait_says_nothing(monkeypatch):
    pools = processes._Pools(2)
    results = pools.each(time.sleep, [(60.0,)] * 20, at_once=2)

    def begin():
        with suppress(CancelledError, BrokenProcessPool):
            next(results)

    threading.Thread(target=begin, daemon=True).start()
    wait_for(lambda: any(future.running() for future in pools._futures))
    assert not all(future.running() for future in pools._futures)

    def interrupted(futures, timeout):
        raise KeyboardInterrupt

    @contextmanager
    def late():
        time.sleep(0.5)  # so that the pool's thread sees the dead before it is told to end
        yield

    monkeypatch.setattr(processes, "wait", interrupted)
    monkeypatch.setattr(processes, "_ctrl_c_held_back", late)
    with pytest.raises(KeyboardInterrupt):
        pools.leave()
    wait_for(lambda: not any(process.is_alive() for process in pools._processes))
