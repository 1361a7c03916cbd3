from __future__ import annotations

import hashlib
import io
import struct

import numpy as np
import pytest
import zstandard

from hexshards.dataset.codec import decode, encode
from hexshards.dataset.options import SUFFIXES
from hexshards.errors import DataError
from hexshards.game.columns import columns

CODECS = ("none", "zstd")


def random_column(dtype, shape, seed=0):
    raw = np.random.Generator(np.random.Philox(seed)).bytes(dtype.itemsize * int(np.prod(shape)))
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def decoded(data, column, codec):
    return decode(data, dtype=column.dtype, shape=column.shape, codec=codec, where="train-000000.tar, block 000003")


SMALL = np.array([[1, 2], [3, 4], [5, 6]], dtype="<i2")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
@pytest.mark.parametrize("soft", [False, True])
def test_every_column_comes_back_bit_for_bit(soft, rows, codec):
    for dtype, shape in columns(13, soft=soft).values():
        column = random_column(dtype, (rows, *shape))
        back = decoded(encode(column, codec=codec), column, codec)
        assert (back.dtype, back.shape, back.tobytes()) == (column.dtype, column.shape, column.tobytes())
        assert not back.flags.writeable


@pytest.mark.parametrize("codec", CODECS)
def test_a_column_is_stored_row_by_row_however_it_lies_in_memory(codec):
    expected = encode(SMALL, codec=codec)
    assert encode(np.asfortranarray(SMALL), codec=codec) == expected
    assert encode(np.repeat(SMALL, 2, axis=1)[:, ::2], codec=codec) == expected


def test_without_compression_a_column_is_the_npy_file_of_format_version_1():
    data = encode(SMALL, codec="none")
    assert hashlib.sha256(data).hexdigest() == "2c240c760c2a8b74bf3644bbf976be959ae26e9351ae067ae4e810c9f22c96a9"
    assert data[:8] == b"\x93NUMPY\x01\x00"
    assert data[-12:] == struct.pack("<6h", 1, 2, 3, 4, 5, 6)
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), SMALL, strict=True)


def test_compressed_a_column_is_that_file_in_one_zstd_frame_that_states_its_size():
    data = encode(SMALL, codec="zstd")
    plain = encode(SMALL, codec="none")
    assert zstandard.get_frame_parameters(data).content_size == len(plain)
    assert zstandard.ZstdDecompressor().decompress(data) == plain


def test_the_suffixes_are_those_of_format_version_1():
    assert SUFFIXES == {"zstd": ".npy.zst", "none": ".npy"}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "other", [SMALL.astype("<i4"), SMALL.astype(">i2"), SMALL.view("<u2"), SMALL.T, SMALL[:2], SMALL.ravel()], ids=str
)
def test_another_column_than_the_one_expected_is_a_data_error(other, codec):
    with pytest.raises(DataError) as damage:
        decoded(encode(other, codec=codec), SMALL, codec)
    assert damage.value.where == "train-000000.tar, block 000003"


def frame_that_claims(size):
    """A zstd frame header of one segment and eight bytes of content size, and one empty last block."""
    return struct.pack("<IBQ", zstandard.MAGIC_NUMBER, 0xE0, size) + b"\x01\x00\x00"


@pytest.mark.parametrize("size", [0, 1, 139, 141, 1 << 40, (1 << 64) - 2])
def test_a_frame_that_claims_another_size_is_refused_before_it_is_decompressed(size):
    with pytest.raises(DataError, match=f"decompresses to {size:,} bytes?, not 140"):
        decoded(frame_that_claims(size), SMALL, "zstd")


def test_a_frame_that_does_not_state_its_size_is_refused():
    plain = encode(SMALL, codec="none")
    data = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    with pytest.raises(DataError):
        decoded(data, SMALL, "zstd")


def test_a_frame_that_holds_less_than_it_claims_is_a_data_error():
    with pytest.raises(DataError):
        decoded(frame_that_claims(140), SMALL, "zstd")


@pytest.mark.parametrize("codec", CODECS)
def test_a_column_cut_at_any_byte_is_a_data_error(codec):
    data = encode(SMALL, codec=codec)
    for end in range(len(data)):
        with pytest.raises(DataError):
            decoded(data[:end], SMALL, codec)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "trailing", [b"\0", b"garbage", encode(SMALL, codec="zstd")], ids=["zero", "garbage", "a frame"]
)
def test_anything_after_a_column_is_a_data_error(trailing, codec):
    with pytest.raises(DataError):
        decoded(encode(SMALL, codec=codec) + trailing, SMALL, codec)


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_gives_a_column_of_the_same_kind_or_a_data_error(codec):
    # what it holds is for the checksum of the block to find
    data = encode(SMALL, codec=codec)
    refused = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            back = decoded(bytes(damaged), SMALL, codec)
        except DataError:
            refused += 1
        else:
            assert (back.dtype, back.shape) == (SMALL.dtype, SMALL.shape)
    assert refused >= 8 * 128 if codec == "none" else refused > 0
