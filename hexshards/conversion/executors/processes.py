"""Process pool executor: tasks run in this process, or in spawned ones that stay for the next tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any

from hexshards.conversion.executors.runner import Job, Runner, T
from hexshards.errors import WorkerKilled, sendable
from hexshards.main_guard import ADVICE, lacks_main_guard
from hexshards.signals import STOPS, ctrl_c_at_the_end

LOOK_S = 0.05
"""How often one who waits for the end of tasks looks whether it is asked to leave."""


@contextmanager
def local(workers: int) -> Iterator[Runner]:
    """This process for one task at a time, else at most so many spawned ones."""
    pools = _Pools(workers)
    try:
        yield pools
    finally:
        pools.leave()


class _Pools:
    """Spawned processes, which stay for the next tasks: starting one takes as long as reading a small file."""

    def __init__(self, workers: int) -> None:
        self._workers, self._size = workers, 0
        self._pool: ProcessPoolExecutor | None = None
        self._futures: list[Future[Any]] = []
        self._processes: list[BaseProcess] = []

    def each(self, task: Callable[..., T], jobs: Sequence[Job], *, at_once: int) -> Iterator[T]:
        at_once = min(at_once, self._workers)
        if at_once == 1 or len(jobs) < 2:
            self.leave()  # what they hold is not counted any more
            yield from (task(*job) for job in jobs)
            return
        try:
            yield from self._each(self._of(at_once), task, jobs)
        except BrokenProcessPool:
            self.leave()  # how a process ended is known when nobody else waits for it any more
            if lacks_main_guard(self._processes):
                raise RuntimeError(f"the workers of convert ran the script again. {ADVICE}") from None
            raise WorkerKilled(
                "a worker process was killed, most likely for want of memory",
                where="convert",
                fix="Run the same command again, with fewer --workers; finished files are not read again",
            ) from None

    def leave(self) -> None:
        """End the processes, when they have done what they are at; a Ctrl-C meanwhile ends them at once."""
        pool = self._pool
        if pool is None:
            return
        try:
            # A Ctrl-C is looked for and never an exception here: one that comes while a future's lock is taken would
            # keep it for good, and the pool's thread would wait for it. Not by the pool's own wait: interrupted in it,
            # Python 3.11 takes the pool's thread for ended, and ends itself such that the processes wait for ever
            with ctrl_c_at_the_end() as heard:
                for future in self._futures:
                    future.cancel()
                while not heard and wait(self._futures, timeout=LOOK_S).not_done:
                    pass
        except BaseException:
            with ctrl_c_at_the_end():
                for future in self._futures:
                    if future.cancelled():
                        # Python 3.11's pool tells these too that its processes died, and its thread would die of it
                        future.set_exception = _unheard  # type: ignore[assignment, method-assign]
                for process in self._processes:
                    process.kill()
            raise
        finally:
            with _ctrl_c_held_back():
                pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None

    def _of(self, size: int) -> ProcessPoolExecutor:
        if self._pool is None or size != self._size:
            self.leave()
            context = _Spawning()
            self._processes, self._size = context.started, size
            with _ctrl_c_held_back():  # a pool's locks start the first process
                self._pool = ProcessPoolExecutor(size, mp_context=context, initializer=_start_worker)
        return self._pool

    def _each(self, pool: ProcessPoolExecutor, task: Callable[..., T], jobs: Sequence[Job]) -> Iterator[T]:
        done = SimpleQueue[Future[T]]()
        with _ctrl_c_held_back():
            futures: list[Future[T]] = [pool.submit(_sent_home, task, job) for job in jobs]
            self._futures = [*futures]
            for future in futures:
                future.add_done_callback(done.put)
        for _ in futures:
            future = done.get()  # which takes no lock of a future, as as_completed does
            with ctrl_c_at_the_end():
                result = future.result()
            yield result


class _Spawning(SpawnContext):
    """Starts processes and keeps them: of one that has ended already, multiprocessing tells nothing any more."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **kwargs)
        self.started.append(process)
        return process


def _unheard(error: BaseException | None) -> None:
    """For what nobody waits for."""


def _sent_home(task: Callable[..., T], job: Job) -> T:
    """In a worker: what the task raises is made such that it arrives, for one that does not ends all processes."""
    try:
        return task(*job)
    except Exception as error:
        if (other := sendable(error)) is error:
            raise
        raise other from None


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """What stops waits for the end; processes started meanwhile never hear it, not even while they still import."""
    with ctrl_c_at_the_end():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            resource_tracker.ensure_running()  # the first process would start it, which lets two through again
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    # what stops reaches the whole group; the parent decides. A killed parent must not leave workers behind.
    for number in {*STOPS} - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
        if hasattr(signal, "sigwaitinfo"):
            # a pool whose process died ends the others by a SIGTERM of its own
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_obey, args=(parent,), daemon=True).start()
        elif hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _obey(parent: BaseProcess) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(1)


def _leave_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
