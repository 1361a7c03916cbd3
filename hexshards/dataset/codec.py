"""Codec of a column: a ``.npy`` file, compressed with zstd or not, that must be exactly the one expected.

The reader knows dtype and shape of every column from the index, so it compares the ``.npy`` header with the one it
would write instead of parsing it, and knows the decompressed size before it decompresses.
"""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import zstandard
from numpy.lib import format as npy
from numpy.typing import NDArray

from hexshards.dataset.options import Codec
from hexshards.errors import DataError
from hexshards.units import counted

ZSTD_LEVEL = 9
"""At 8,192 positions a block: level 3 packs into 24.1 bytes a position, 9 into 23.0, 12 into 22.7 at half 9's speed."""

_REMEDY = "The shard was damaged after it was written: fetch it again, or convert again"
_local = threading.local()  # a zstd context serves one thread at a time


def encode(column: NDArray[Any], *, codec: Codec) -> bytes:
    """Encode a column as the bytes of its file; the same bytes for the same column, on every machine."""
    column = np.ascontiguousarray(column)
    data = header(column.dtype, column.shape) + column.tobytes()
    return data if codec == "none" else zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)


def decode(
    data: bytes | memoryview, *, dtype: np.dtype[Any], shape: tuple[int, ...], codec: Codec, where: str
) -> NDArray[Any]:
    """Decode ``data`` as a column of this dtype and shape, read-only. Raises DataError when it holds another one."""
    head = header(dtype, shape)
    size = len(head) + dtype.itemsize * prod(shape)
    if codec == "zstd":
        data = _decompress(data, size, where)
    if len(data) != size or data[: len(head)] != head:
        raise DataError(f"is not a {dtype} array of shape {shape}", where=where, fix=_REMEDY)
    return np.frombuffer(data, dtype=dtype, offset=len(head)).reshape(shape)


def claimed_size(data: bytes, *, codec: Codec) -> int:
    """Size of a column's file once decompressed, as it states it; -1 when it states none."""
    try:
        return len(data) if codec == "none" else int(zstandard.get_frame_parameters(data).content_size)
    except zstandard.ZstdError:
        return -1


@lru_cache(maxsize=256)
def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The ``.npy`` header, format 1.0, of a C-ordered array."""
    out = io.BytesIO()
    npy.write_array_header_1_0(out, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return out.getvalue()


def _decompress(data: bytes | memoryview, size: int, where: str) -> bytes:
    if not hasattr(_local, "zstd"):
        _local.zstd = zstandard.ZstdDecompressor()
    try:
        # zstd allocates what the frame claims, so the claim is compared first
        claimed = zstandard.get_frame_parameters(data).content_size
        if claimed != size:
            raise DataError(f"decompresses to {counted(claimed, 'byte')}, not {size:,}", where=where, fix=_REMEDY)
        return bytes(_local.zstd.decompress(data, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise DataError(f"zstd finds damage ({error})", where=where, fix=_REMEDY) from None
