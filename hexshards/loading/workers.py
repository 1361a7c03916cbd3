"""Worker processes: one that reads for a loader ends with its parent, not before it; one that dies is named."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from hexshards.errors import WorkerDied
from hexshards.main_guard import ADVICE, EXIT_CODE, check_main_guard, lacks_main_guard

_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is )?(.+?)\.? *", re.DOTALL)

_TO_ALL = (signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""What a terminal sends to all processes of a command: for Ctrl-C, and when it is closed."""


@contextmanager
def named() -> Iterator[None]:
    """Turn PyTorch's error for a dead worker into WorkerDied. It comes by signal, wherever the program is just then.

    How a worker ended is told of those that run when the block is entered.
    """
    children = multiprocessing.active_children()
    try:
        yield
    except RuntimeError as error:
        if not (died := _DIED.fullmatch(str(error))):
            raise
        pids, how = died.groups()
        # one that had ended when the block was entered is known by PyTorch's words alone
        if lacks_main_guard(children) or f"exit code {EXIT_CODE}." in how:
            raise WorkerDied(f"the workers of the loader ran the script again. {ADVICE}") from None
        ends = [f" ({_end(child.exitcode)})" for child in children if str(child.pid) in pids.split(", ")]
        raise WorkerDied(
            f"a worker process of the loader (pid {pids}) died: {how}{''.join(ends)}. The system kills what takes too "
            "much memory: try fewer workers; with num_workers 0 this process reads"
        ) from None


def tells_of_death(error: BaseException) -> bool:
    """Whether an error is PyTorch's for a dead worker: it says nothing of what was done when it came."""
    return isinstance(error, RuntimeError) and _DIED.fullmatch(str(error)) is not None


def _end(exit_code: int | None) -> str:
    return signal.Signals(-exit_code).name if exit_code and exit_code < 0 else f"exit code {exit_code}"


@contextmanager
def starting() -> Iterator[None]:
    """Processes that are started meanwhile hear nothing of what is sent to all, until ``start_worker``."""
    check_main_guard()
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_TO_ALL, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(_number: int) -> None:
    """Set up a worker, in its own process.

    A signal to the whole process group asks the parent to save, and a second one to leave. Until it has saved it needs
    its workers, and when it leaves they end with it.
    """
    parent = multiprocessing.parent_process()
    for number in _TO_ALL:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        # before any thread is started: one that did not block it would end the process
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed_sigterm, args=(parent.pid if parent else os.getppid(),), daemon=True).start()
    elif hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(os.getppid(), parent), daemon=True).start()


def _end_with(above: int, parent: BaseProcess | None) -> None:
    # a DataLoader's worker looks for its parent when it has nothing to do, and a download may take minutes. Where the
    # parent died before this worker began, another process is above it from the first; what the parent held open tells
    while os.getppid() == above and (parent is None or parent.is_alive()):
        time.sleep(0.5)
    os._exit(1)


def _heed_sigterm(parent: int | None) -> None:
    # a program that ends in the middle of an epoch sends its workers one and waits for them: the parent's is obeyed
    if signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        signal.sigwaitinfo({signal.SIGTERM})
    os._exit(0)
