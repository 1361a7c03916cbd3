"""Recent batches can be read again: a loader's state is kept now and then, and the batches since are counted."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

from hexshards.training.protocols import TrainLoader

EVERY_BATCHES, PLACES = 32, 32
"""A state costs as much as a tenth of a small batch. About a thousand batches can be found again."""


class RecentBatches:
    """Where the newest batches came from."""

    def __init__(self) -> None:
        self._given = 0
        self._places: deque[tuple[int, TrainLoader, dict[str, Any]]] = deque(maxlen=PLACES)

    def before_batch(self, loader: TrainLoader, *, anew: bool) -> None:
        """To be called before each batch is taken; ``anew`` where the loader is iterated anew."""
        if anew or self._given - self._places[-1][0] >= EVERY_BATCHES:
            self._places.append((self._given, loader, loader.state_dict()))

    def after_batch(self) -> None:
        """The batch was there."""
        self._given += 1

    def batch(self, ago: int) -> Any | None:
        """A batch by how many came after it, read again; None where no kept state reaches. The loader is moved."""
        number = self._given - 1 - ago
        for begun, loader, state in reversed(self._places):
            if begun <= number:
                loader.load_state_dict(state)
                return next(islice(loader, number - begun, None), None)
        return None
