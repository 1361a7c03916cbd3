"""Signal handling: the first Ctrl-C, SIGTERM or SIGHUP is remembered until work can end; a second acts as ever.

SIGUSR1 is remembered too, as often as it comes: it asks to save and go on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""What asks a program to end. A group of processes hears each together."""

_interrupted = threading.Event()


class _CtrlC:
    """How often Ctrl-C was heard."""

    times = 0


def ctrl_c_times() -> int:
    """How often Ctrl-C was heard so far: a terminal shows ``^C`` for each."""
    return _CtrlC.times


def remember_ctrl_c() -> None:
    """From here on Ctrl-C is an exception as ever, and remembered for the next StopSignals that are entered.

    An exception alone may be lost: what imports a library or frees memory swallows it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember_and_raise)
        sys.unraisablehook = partial(_unless_ctrl_c, sys.unraisablehook)


def _unless_ctrl_c(told: Callable[[Any], None], unraisable: Any) -> None:
    """What frees memory tells of an exception that it swallows; a Ctrl-C is remembered, and no fault."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        told(unraisable)


def _remember_and_raise(number: int, frame: FrameType | None) -> None:
    _CtrlC.times += 1
    _interrupted.set()
    raise KeyboardInterrupt


@contextmanager
def ctrl_c_at_the_end() -> Iterator[Sequence[int]]:
    """A Ctrl-C that comes meanwhile is an exception at the end, and not before; yields those that were heard so far.

    To block the signal is not enough: a mask is of one thread, and what another hears is an exception in the main one.
    """
    before = signal.getsignal(signal.SIGINT)
    heard = list[int]()
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield heard
        return
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    if not callable(signal.getsignal(signal.SIGINT)):  # a shell's background jobs ignore it
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)  # waits where Ctrl-C waits


@contextmanager
def stops_as_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP do meanwhile what Ctrl-C does; one that is ignored stays so (nohup)."""
    before = dict[int, Any]()
    if threading.current_thread() is threading.main_thread():
        for number in STOPS[1:]:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _as_ctrl_c)
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)


class StopSignals:
    """While entered, the first SIGINT, SIGTERM or SIGHUP (a closed terminal) is remembered; the next acts as before."""

    SIGNALS = STOPS
    SAVE = getattr(signal, "SIGUSR1", None)
    """Windows has none."""

    def __init__(self) -> None:
        self.asked = self.save_asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (*self.SIGNALS, *([self.SAVE] if self.SAVE else [])):
                # a signal that is ignored stays so (nohup); None is a handler that Python cannot put back
                if (before := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._hear)
            if _interrupted.is_set():  # and nobody ended for it
                _interrupted.clear()
                self._hear(signal.SIGINT, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore(list(self._before))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == self.SAVE:
            self.save_asked = True
            return
        _CtrlC.times += number == signal.SIGINT
        # a forked worker inherits this, so a signal to the whole process group leaves its parent its workers
        self.asked = True
        self._restore(self.SIGNALS)

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in [number for number in numbers if number in self._before]:
            signal.signal(number, self._before.pop(number))
