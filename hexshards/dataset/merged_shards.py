"""Merged shards: which of the shards that one was made of each of its rows came from, told by the index alone.

The rows of a merged shard stand in the order of keys, uniform 64-bit numbers that the checksum of the shard they were
first written to names; of equal keys the older stands first. So it is the same shard in however many steps it was
merged, and whoever asks for the newest rows of it needs no column for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hexshards import rng
from hexshards.dataset.layout import Part


def ages(parts: Sequence[Part]) -> NDArray[np.int64]:
    """Of each row of a merged shard the number that it has among all rows of its parts, the oldest being 0."""
    if len(parts) == 1:
        return np.arange(parts[0].positions)
    keys = [rng.raw(part.positions, 0, rng.MERGED, *rng.sha256_words(part.sha256)) for part in parts]
    return np.argsort(np.concatenate(keys), kind="stable")
