"""Map in threads that work beforehand; who has to wait for one takes on a part of its work."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

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
    try:
        for thread in crew:
            thread.start()
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
            if (
                thread.ident and thread is not threading.current_thread()
            ):  # the garbage collector may run in any of them
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


class Piece(Generic[Result]):
    """A piece of one thread's work, which at most one other thread does in its stead."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work: Callable[[], Result] | None = work
        self._results = list[Result]()
        # locks, and no conditions or futures, which Ctrl-C can leave locked for good
        self._taken, self._done = threading.Lock(), threading.Lock()
        self._done.acquire()
        self._mine = False

    def help(self) -> None:
        """Do it in another's stead, where nobody has begun."""
        if not self._taken.acquire(blocking=False):
            return
        try:
            with suppress(Exception):  # it comes again in the thread whose work it is
                self._run()
        finally:
            self._done.release()

    def result(self) -> Result:
        """The result, in the thread whose work it is. Raises what work raises."""
        self._mine = self._mine or self._taken.acquire(blocking=False) or self._done.acquire()
        if self._work:
            self._run()
        return self._results[0]

    def _run(self) -> None:
        assert self._work
        self._results.append(self._work())
        self._work = None  # what it was done with is let go


class SharedWork:
    """Work of one thread, of which another takes on pieces while it waits for that thread."""

    def __init__(self) -> None:
        self._open: SimpleQueue[Piece[Any] | None] = SimpleQueue()
        """What nobody has begun; None: what is waited for is there."""
        self._waited_for = False

    def __reduce__(self) -> tuple[type[SharedWork], tuple[()]]:
        return SharedWork, ()  # in another process it is others' work

    def begin(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Piece[Result]:
        """A piece of work that is done when its result is asked for, or before by one who waits."""
        piece = Piece(partial(work, *args, **kwargs))
        self._offered(piece)
        return piece

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``list(map(work, items))``: items are drawn, and what is raised is raised, in this thread.

        Only while somebody waits is more than an item drawn at a time: what lies about is no longer in the cache when
        it is needed.
        """
        pieces = list[Piece[Result]]()
        for item in items:
            pieces.append(Piece(partial(work, item)))
            del item  # the next may come to lie where it did
            if not self._offered(pieces[-1]):
                pieces[-1].result()
        return [piece.result() for piece in pieces]

    def result_of(self, future: Future[Result]) -> Result:
        """Wait for what a thread makes, and meanwhile take on pieces of its work. One at a time may wait."""
        future.add_done_callback(lambda _: self._open.put(None))
        try:
            self._waited_for = True
            while (piece := self._open.get()) is not None:
                piece.help()
                del piece  # and with it what it came to
        finally:
            self._waited_for = False
        return future.result()

    def _offered(self, piece: Piece[Any]) -> bool:
        """Offer a piece to one who waits, unless there is another for it."""
        wanted = self._waited_for and self._open.empty()
        if wanted:
            self._open.put(piece)
        return wanted
