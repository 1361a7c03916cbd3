"""Train/val/test split by a stable hash of the game, so that two positions of one game never straddle it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hexshards.rng import Words, mix


def game_keys(sources: Sequence[str], source: NDArray[np.uint32], game: NDArray[np.int32]) -> Words:
    """One word per position that names its game: a hash of the file and the line that the game came from."""
    digests = [hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest() for name in sources]
    names = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
    return mix(names[source] ^ mix(game.astype(np.int64).view(np.uint64)))


def in_val(games: Words, *, val_fraction: float) -> NDArray[np.bool_]:
    """Which games belong to ``val``. A larger fraction only adds games, and neither seed nor other games matter."""
    return _drawn(games) < val_fraction


def in_test(games: Words, *, test_fraction: float) -> NDArray[np.bool_]:
    """Which games belong to ``test``: the other end of the same hash, so that no game leaves ``val`` for it."""
    return _drawn(games) >= 1 - test_fraction


def _drawn(games: Words) -> NDArray[np.float64]:
    """A number from 0 to below 1 for each game."""
    return (mix(games) >> np.uint64(11)).astype(np.float64) * 2.0**-53
