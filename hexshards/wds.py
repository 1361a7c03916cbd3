"""The shards are WebDataset shards: with one handler for zstd, stock ``webdataset`` reads them, a block a sample."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

MAX_COLUMN_BYTES = 1 << 30
"""Decompressed size above which a member is refused: a million soft policies at side 19 are 722 MB."""


def decode_column(key: str, data: bytes) -> NDArray[Any] | None:
    """Decode members ``*.npy.zst``; pass it to ``webdataset.WebDataset(...).decode(hexshards.decode_column)``.

    Raises ValueError for a member that would decompress to more than MAX_COLUMN_BYTES.
    """
    if not key.endswith(".npy.zst"):
        return None
    size = zstandard.get_frame_parameters(data).content_size
    if size > MAX_COLUMN_BYTES:
        raise ValueError(f"{key} claims {size:,} bytes, more than {MAX_COLUMN_BYTES:,}")
    array: NDArray[Any] = np.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(data)), allow_pickle=False)
    return array
