"""The first Ctrl-C or SIGTERM is remembered, so that work can end at a good place; a second acts as ever.

SIGUSR1 is remembered too, as often as it comes: it asks to save and go on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is remembered and the next acts as before."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore(list(self._before))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == self.SAVE:
            self.save_asked = True
            return
        # a forked worker inherits this, so a signal to the whole process group leaves its parent its workers
        self.asked = True
        self._restore(self.SIGNALS)

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in [number for number in numbers if number in self._before]:
            signal.signal(number, self._before.pop(number))
