"""Read windows in the order in which they were asked for, prefetched by a thread or by worker processes.

A DataLoader hands them back in that order, whatever the number of its workers, so the order of samples never depends on
workers. Rows are written where this process reads them: next to nothing crosses between processes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from torch.utils.data import DataLoader

from hexshards.errors import DataError, sendable
from hexshards.loading import workers
from hexshards.loading.buffers import Slots
from hexshards.loading.expansion.expand import Packed, rows_of
from hexshards.loading.shard_prefetch import fetching
from hexshards.loading.threads import ordered_map
from hexshards.loading.window import NOWHERE, Mixed, Windows

Task = tuple[int, int | None]
"""Which window, and the slot for its rows, or None for fresh memory."""

TOLD = (DataError, OSError, ValueError, MemoryError)
"""Errors that say what a person can do. They come home as they are, others with the text of their traceback."""

Landed = tuple[int | None, Mixed | Exception]
"""The slot that a window is in, and the rest of it; or what is wrong with it."""

_IN_ITS_SLOT = Packed(*(None for _ in Packed._fields))


def read_windows(windows: Windows, numbers: Sequence[int], *, num_workers: int) -> Generator[Mixed, None, None]:
    """Windows of these numbers, their rows as NumPy arrays. Raises in a window's place what came of making it.

    The memory of a window's rows is used again when nothing refers to them any more.
    """
    processes = min(num_workers, len(numbers))
    # a worker has two windows to make; one is in use here, one may be next to it in a batch, one has just come; and so
    # for each stream, as windows of all of them are used up at about the same time
    beside = windows.side_by_side(numbers)
    count = min(beside * (2 * processes + 3), len(numbers))
    slots = Slots(windows.columns, windows.most_rows, count=count, shared=processes > 0)
    tasks = ((number, slots.lend()) for number in numbers)
    landing = Landing(windows, slots)
    in_turn = (
        _from_processes(landing, tasks, processes, beside) if processes else _from_a_thread(landing, tasks, beside)
    )
    with closing(in_turn), fetching(windows, numbers) as reached:
        for turn, (number, (slot, mixed)) in enumerate(zip(numbers, in_turn, strict=True)):
            reached(turn)
            if isinstance(mixed, Exception):
                raise mixed
            if slot is not None:
                mixed = mixed._replace(rows=rows_of(slots.landed(slot, windows.rows_of(number))))
            yield mixed


class Landing:
    """Dataset of windows for torch's DataLoader, which does not batch them: whoever makes one writes it to its slot."""

    def __init__(self, windows: Windows, slots: Slots) -> None:
        self.windows, self.slots = windows, slots

    def __getitem__(self, task: Task) -> Landed:
        """A window, of which a slot has the rows; an error is returned, not raised.

        What a DataLoader's worker raises comes home as a RuntimeError around the text of a traceback.
        """
        number, slot = task
        into = NOWHERE if slot is None else self.slots.views(slot, self.windows.rows_of(number))
        try:
            mixed = self.windows.mix(number, into)
        except TOLD as error:
            return slot, sendable(error)
        return slot, mixed if slot is None else mixed._replace(rows=_IN_ITS_SLOT)


def _from_a_thread(landing: Landing, tasks: Iterator[Task], beside: int) -> Generator[Landed, None, None]:
    """A thread makes the next windows while one is used; where this one has to wait for it, it decodes blocks too.

    Nearly all that takes long in a window leaves Python to other threads.
    """
    result_of = landing.windows.shared.result_of
    return ordered_map(landing.__getitem__, tasks, threads=1, depth=beside, result_of=result_of)


def _as_it_is(landed: Any) -> Any:
    return landed


def _from_processes(
    landing: Landing, tasks: Iterator[Task], processes: int, beside: int
) -> Generator[Landed, None, None]:
    # a generator of its own: a DataLoader draws from torch's global one each time it is iterated, and a resumed run
    # would then go on with other random numbers than an uninterrupted one
    generator = torch.Generator()
    in_turn: DataLoader[Any] = DataLoader(
        landing,  # type: ignore[arg-type]  # a map-style dataset needs __getitem__ only, when it is told what to get
        batch_size=None,
        # rows without a slot come through a pipe: as tensors they would take shared memory that may not be there
        collate_fn=_as_it_is,
        sampler=tasks,  # drawn in this process, one when another was handed over
        num_workers=processes,
        prefetch_factor=2 * beside,
        generator=generator,
        worker_init_fn=workers.start_worker,
    )
    with workers.starting():
        turn = iter(in_turn)
    try:
        with workers.named():
            yield from turn
    finally:
        del turn  # it ends the workers, and an error's traceback would keep it
