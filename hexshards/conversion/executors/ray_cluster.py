"""Ray executor: tasks run on whatever machine of a cluster is free, each of which shares folders and versions."""

from __future__ import annotations

import os
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from hexshards.conversion.executors.runner import Job, Runner, T
from hexshards.errors import DataError, printable

RETRIES = 3
"""How often Ray runs a task again whose process or machine died under it."""

SHAPERS = ("hexshards", "numpy", "zstandard")
"""Packages whose versions must be the same on every machine, for they shape the bytes of a shard."""


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
