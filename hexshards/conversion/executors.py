"""Executors, local or ray, run the same tasks in some order, somewhere; the results do not depend on where.

A task is a function of its job alone and publishes what it writes in one step, so it may be run again at any time.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, get_args

from hexshards.conversion.options import Engine
from hexshards.errors import DataError, escaped, printable, sendable
from hexshards.main_guard import ADVICE, lacks_main_guard
from hexshards.signals import STOPS, ctrl_c_at_the_end

T = TypeVar("T")

Job = tuple[object, ...]

RETRIES = 3
"""How often Ray runs a task again whose process or machine died under it."""

LOOK_S = 0.05
"""How often one who waits for the end of tasks looks whether it is asked to leave."""

SHAPERS = ("hexshards", "numpy", "zstandard")
"""Packages whose versions must be the same on every machine, for they shape the bytes of a shard."""


class Runner(Protocol):
    """A started engine."""

    def each(self, task: Callable[..., T], jobs: Sequence[Job], *, at_once: int) -> Iterator[T]:
        """Results of ``task(*job)`` as they come, of at most so many running at once.

        What a task raises is raised here, as itself.
        """
        ...


def start(engine: Engine, *, workers: int, folder: Path) -> AbstractContextManager[Runner]:
    """An engine by name; ``folder`` is where its tasks write, and must exist when the engine is entered.

    Raises ValueError for an engine that does not exist or is not installed.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {get_args(Engine)}, got {escaped(engine)}")
    return local(workers) if engine == "local" else cluster(workers, folder=folder, ray=_import_ray())


# this machine -------------------------------------------------------------------------------------------------------


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
            raise DataError(
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


# Ray ----------------------------------------------------------------------------------------------------------------


def _import_ray() -> Any:
    try:
        return import_module("ray")
    except ModuleNotFoundError:
        raise ValueError("engine ray is not installed. Run: pip install 'hexshards[ray]'") from None


@contextmanager
def cluster(workers: int, *, folder: Path, ray: Any) -> Iterator[Runner]:
    """The Ray cluster of this machine or of RAY_ADDRESS, ``workers`` tasks at a time; without one, a Ray of its own."""
    joined = nullcontext() if ray.is_initialized() else _joined(ray, workers)
    # a new name, so that no machine can have such a file but by sharing the folder
    with joined, tempfile.NamedTemporaryFile(dir=folder.absolute(), prefix="seen-by-all-") as proof:
        yield _Ray(ray, workers, _Site(Path.cwd(), Path(proof.name), _versions()))


@contextmanager
def _joined(ray: Any, workers: int) -> Iterator[None]:
    before, in_main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    try:
        _init(ray, workers)
        if in_main and callable(before):  # ray.init puts a handler of its own there
            signal.signal(signal.SIGTERM, before)
        yield
    finally:
        ray.shutdown()
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _init(ray: Any, workers: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    try:
        try:
            ray.init(num_cpus=workers, **quiet)
        except ValueError:  # a cluster was found, and has the CPUs that it has
            ray.init(**quiet)
    except (ConnectionError, ray.exceptions.RayError) as error:
        fix = "Start the cluster as docs/ray.md says; to do without one, unset RAY_ADDRESS and run `ray stop`"
        raise DataError(str(error).rstrip("."), where="Ray", fix=fix) from None


class _Ray:
    def __init__(self, ray: Any, workers: int, site: _Site) -> None:
        self._ray, self._workers, self._site = ray, workers, site
        self._start = ray.remote(max_retries=RETRIES)(_work)

    def each(self, task: Callable[..., T], jobs: Sequence[Job], *, at_once: int) -> Iterator[T]:
        shared, queue, running = self._ray.put(task), iter(jobs), list[Any]()
        at_once = min(at_once, self._workers)
        try:
            while True:
                free = at_once - len(running)
                running += [self._start.remote(self._site, shared, job) for job in islice(queue, free)]
                if not running:
                    return
                (done,), running = self._ray.wait(running)
                yield self._result(done)
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", error)
            # a machine without hexshards, too, is told as if the task had failed by itself
            if not isinstance(cause, self._ray.exceptions.RayError) and "import on the worker" not in str(cause):
                raise cause from None
            raise DataError(
                f"could not finish a task: {printable(str(cause).splitlines()[0].split('. ')[0], width=200)}",
                where="Ray",
                fix="See the causes in docs/ray.md and run the same command again; finished files are not read again",
            ) from None


@dataclass(frozen=True, slots=True)
class _Site:
    """What a machine must have in common with the one that commands."""

    cwd: Path
    proof: Path
    versions: dict[str, str]

    def check(self) -> None:
        """Raise DataError on a machine that could not do the work, or would do it differently."""
        here = f"Ray worker on {platform.node()}"
        if _versions() != self.versions:
            fix = "Install the same versions on every machine"
            raise DataError(f"has {_listed(_versions())}, not {_listed(self.versions)}", where=here, fix=fix)
        if not self.proof.exists():
            fix = "Sources and --out must be on a filesystem that every machine mounts at the same path"
            raise DataError(f"does not see {self.proof.parent} as the commanding machine does", where=here, fix=fix)


def _work(site: _Site, task: Callable[..., T], job: Job) -> T:
    """A task on whatever machine it came to; checked every time, since machines come and go."""
    site.check()
    if site.cwd.is_dir():  # relative paths mean what they mean to the caller
        os.chdir(site.cwd)
    return task(*job)


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in SHAPERS}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
