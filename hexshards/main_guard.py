"""Main guard: a spawned process runs a script again, up to ``if __name__ == "__main__":``; without it, all of it.

What must not happen there ends the process with an exit code of its own, by which its parent knows the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing.process import BaseProcess, current_process

EXIT_CODE = 79
"""Exit code of a process that would have run the script again."""

ADVICE = 'Put what the script does under `if __name__ == "__main__":`, or do it without workers'


def check_main_guard() -> None:
    """End this process, without a word, where a spawned one has come to what only the script itself should do."""
    if getattr(current_process(), "_inheriting", False):  # as multiprocessing itself tells that a process still starts
        raise SystemExit(EXIT_CODE)


def lacks_main_guard(processes: Iterable[BaseProcess]) -> bool:
    """Whether one of some processes that ended did so by ``check_main_guard``."""
    return any(process.exitcode == EXIT_CODE for process in processes)
