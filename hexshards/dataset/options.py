"""How a dataset is written."""

from __future__ import annotations

from typing import Literal

Codec = Literal["zstd", "none"]
"""How a column is stored in a shard: ``.npy.zst`` or plain ``.npy``."""
