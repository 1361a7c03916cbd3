"""Log of a run: every line that is said of it, with its time, in ``log.txt`` in its folder. A hook, while entered."""

from __future__ import annotations

import logging
import shlex
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from hexshards import __version__
from hexshards.cli import display
from hexshards.errors import escaped, without_secrets
from hexshards.training.tracking.hooks import Event, RunStarted

LOG = "log.txt"
"""In the run's folder."""


class RunLog(logging.Handler):
    """Adds to the log; what was said before the folder was this run's is added then, and nowhere before.

    Warnings of the package are said, and so logged, as its other lines are.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG if display.verbose() else logging.WARNING)
        self._path: Path | None = None
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        logger = logging.getLogger("hexshards")
        self._level = logger.level
        if display.verbose():
            logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        display.listeners.append(self._heard)
        self._heard(escaped(without_secrets(f"hexshards {__version__}: {shlex.join(sys.argv)}")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._heard(without_secrets(f"error: {escaped(error)}"))
        display.listeners.remove(self._heard)
        logger = logging.getLogger("hexshards")
        logger.removeHandler(self)
        logger.setLevel(self._level)

    def __call__(self, event: Event, /) -> None:
        """Begin to write where a run starts; rank 0 alone."""
        if isinstance(event, RunStarted) and not event.run.rank:
            self._path = event.run.folder / LOG
            self._heard("")

    def emit(self, record: logging.LogRecord) -> None:
        """Say a warning of the package."""
        display.warn(record.getMessage())

    def _heard(self, text: str) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} "
        self._lines += [f"{now}{line}\n" for line in text.split("\n") if line]
        # a disk that is full ends a run where it saves, not where it is told of
        with suppress(OSError):
            if self._path:
                with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write("".join(self._lines))
                self._lines.clear()
