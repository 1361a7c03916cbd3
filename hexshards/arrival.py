"""Windows arrive in the order in which they were asked for, read ahead by a thread or by worker processes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch
from torch.utils.data import DataLoader

from hexshards import workers
from hexshards.ahead import ahead
from hexshards.errors import DataError
from hexshards.expand import Packed
from hexshards.prefetch import fetching
from hexshards.window import Mixed, Windows


def arriving(windows: Windows, numbers: range, *, num_workers: int) -> Generator[Mixed, None, None]:
    """Windows of these numbers, their rows as NumPy arrays. Raises the DataError that a window has in its place."""
    processes = min(num_workers, len(numbers))
    # without workers a thread makes the next window while this one is used: nearly all that takes long in it leaves
    # Python to other threads
    one_by_one = ahead(windows.__getitem__, numbers, threads=1, depth=1)
    in_turn = _from_processes(windows, numbers, processes) if processes else one_by_one
    with closing(in_turn), fetching(windows, numbers) as reached:
        for number, found in zip(numbers, in_turn, strict=True):
            reached(number)
            if isinstance(found, DataError):
                raise found
            yield found


def _from_processes(windows: Windows, numbers: range, processes: int) -> Generator[Mixed | DataError, None, None]:
    # a generator of its own: a DataLoader draws from torch's global one each time it is iterated, and a resumed run
    # would then go on with other random numbers than an uninterrupted one
    generator = torch.Generator()
    in_turn: DataLoader[Any] = DataLoader(
        windows,  # type: ignore[arg-type]  # a map-style dataset needs __getitem__ and __len__ only
        batch_size=None,
        sampler=numbers,
        num_workers=processes,
        generator=generator,
        worker_init_fn=workers.start_worker,
    )
    turn = iter(in_turn)
    try:
        with workers.named():
            for found in turn:
                yield found if isinstance(found, DataError) else found._replace(rows=_as_arrays(found.rows))
    finally:
        del turn  # it ends the workers, and an error's traceback would keep it


def _as_arrays(rows: Packed) -> Packed:
    return Packed(*(column.numpy() for column in rows))
