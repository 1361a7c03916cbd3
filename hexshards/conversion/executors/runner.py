"""Executor protocol: a runner gives the results of many tasks as they come.

A task is a function of its job alone and publishes what it writes in one step, so it may be run again at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")

Job = tuple[object, ...]


class Runner(Protocol):
    """A started engine."""

    def each(self, task: Callable[..., T], jobs: Sequence[Job], *, at_once: int) -> Iterator[T]:
        """Results of ``task(*job)`` as they come, of at most so many running at once.

        What a task raises is raised here, as itself.
        """
        ...
