"""Map in threads that work beforehand; who has to wait for one takes on a part of its work."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
P = ParamSpec("P")

JOIN_S = 5.0
"""How long the end of an iteration waits for work in progress; a thread that hangs in a read then ends on its own."""


def ordered_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    depth: int,
    result_of: Callable[[Future[Result]], Result] = Future.result,
) -> Generator[Result, None, None]:
    """Ordered map: ``map(work, items)``, with up to ``depth`` results begun beyond the one that is asked for.

    ``items`` are drawn in the caller's thread, ``work`` runs in others; what it raises is raised here, in its turn. A
    forked process has none of the threads: there, going on raises RuntimeError. ``result_of`` waits for a result. The
    threads end with the iteration.
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
                yield result_of(pending.popleft())
        while pending:
            _check_owner(owner)
            yield result_of(pending.popleft())
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


class SharedWork:
    """Work of one thread at a time, which others share while they wait."""

    def __init__(self) -> None:
        self._open = deque[Callable[[], None]]()
        """What nobody has begun."""
        self._news = threading.Condition()
        self._waiting = 0
        """Threads that wait for a result, and take on what is open."""

    def __reduce__(self) -> tuple[type[SharedWork], tuple[()]]:
        return SharedWork, ()  # in another process it is others' work

    def begin(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        """Open work: whoever waits in ``result_of`` runs it, this thread too when it does."""
        future = Future[Result]()
        self._open.append(partial(_run, future, partial(work, *args, **kwargs)))
        self._tell()
        return future

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``list(map(work, items))``: items are drawn, and what work raises is raised, in this thread.

        Each runs once, here or in a thread that waits in ``result_of``. Only while one waits is more than an item drawn
        at a time: what lies about is no longer in the cache when it is needed.
        """
        begun = list[Future[Result]]()
        for item in items:
            begun.append(self.begin(work, item))
            del item  # the next may come to lie where it did, which is still in the cache
            if len(self._open) > 1 or not self._waiting:
                self._take_one(self._open.pop)
        return [self.result_of(future) for future in begun]

    def result_of(self, future: Future[Result]) -> Result:
        """Wait for a future's result, and meanwhile run what is open."""
        future.add_done_callback(self._tell)
        with self._news:
            self._waiting += 1
        try:
            while not future.done():
                if not self._take_one(self._open.popleft):
                    with self._news:
                        self._news.wait_for(lambda: future.done() or self._open)
        finally:
            with self._news:
                self._waiting -= 1
        return future.result()

    def _take_one(self, take: Callable[[], Callable[[], None]]) -> bool:
        """Run one of what is open. Whether there was any."""
        try:
            run = take()
        except IndexError:  # another thread was quicker
            return False
        try:
            run()
        except BaseException:  # Ctrl-C, which is this thread's own business
            self._open.appendleft(run)
            self._tell()
            raise
        return True

    def _tell(self, future: Future[Result] | None = None) -> None:
        """Wake those that wait: something is open, or done."""
        with self._news:
            self._news.notify_all()


def _run(future: Future[Result], work: Callable[[], Result]) -> None:
    if future.done():  # Ctrl-C came just behind it
        return
    try:
        result = work()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
