"""How a dataset is written."""

from __future__ import annotations

from typing import Literal

Codec = Literal["zstd", "none"]
"""How a column is stored in a shard: ``.npy.zst`` or plain ``.npy``."""

SUFFIXES: dict[Codec, str] = {"zstd": ".npy.zst", "none": ".npy"}
"""What a column's name is followed by in a shard."""

MAX_BLOCK_POSITIONS = 1 << 19
"""A window of 16 full blocks stays below the 16.8 million rows that rng.permutation takes."""
