"""Ordered map: threads work beforehand, results come in order; the threads end with the iteration that began them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

JOIN_S = 5.0
"""How long the end of an iteration waits for work in progress; a thread that hangs in a read then ends on its own."""


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, depth: int
) -> Generator[Result, None, None]:
    """``map(work, items)``, with up to ``depth`` results begun beyond the one that is asked for.

    ``items`` are drawn in the caller's thread, ``work`` runs in others; what it raises is raised here, in its turn. A
    forked process has none of the threads: there, going on raises RuntimeError.
    """
    tasks: SimpleQueue[tuple[Future[Result], Item] | None] = SimpleQueue()
    crew = [threading.Thread(target=_serve, args=(work, tasks), daemon=True) for _ in range(threads)]
    pending: deque[Future[Result]] = deque()
    owner = os.getpid()
    for thread in crew:
        thread.start()
    try:
        for item in items:
            _check_owner(owner)
            pending.append(Future())
            tasks.put((pending[-1], item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            _check_owner(owner)
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for _ in crew:
            tasks.put(None)
        for thread in crew:
            if thread is not threading.current_thread():  # the garbage collector may run in any of them
                thread.join(JOIN_S)


def _serve(work: Callable[[Item], Result], tasks: SimpleQueue[tuple[Future[Result], Item] | None]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)
        del task, future, item  # a thread that waits holds on to nothing


def _check_owner(owner: int) -> None:
    if os.getpid() != owner:
        raise RuntimeError("this iterator was begun before the process forked: begin a new one in the child")
