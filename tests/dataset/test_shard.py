from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pytest

from hexshards.dataset.layout import Layout
from hexshards.dataset.shard import OpenShard, write_shard
from hexshards.errors import DataError
from hexshards.game.columns import columns
from hexshards.game.positions import Positions

SIDE = 3
COLUMNS = ("stones", "policy", "player", "value", "source", "game", "ply", "plies", "tier")


def counted(rows, *, soft=False, first=0):
    """Positions whose columns count: sound or not is no matter to those who write."""
    made = {
        name: (np.arange(first, first + rows * max(1, int(np.prod(shape)))) % 100).astype(dtype).reshape(rows, *shape)
        for name, (dtype, shape) in columns(SIDE, soft=soft).items()
    }
    return Positions(side=SIDE, **made)


def readable(rows, *, soft=False, first=0):
    """The same as far as columns may count; together they need not be sound."""
    made = counted(rows, soft=soft, first=first).columns()
    for name, most in {"policy": 1 if soft else SIDE * SIDE - 1, "player": 1, "value": 1, "ply": SIDE * SIDE}.items():
        made[name] = made[name] % made[name].dtype.type(most + 1)
    made["stones"][:, 1:] = 0  # BLUE's alone
    return Positions(side=SIDE, **made)


def layout_of(codec="none", *, soft=False, block_positions=4):
    return Layout(side=SIDE, soft=soft, codec=codec, block_positions=block_positions)


def written(folder, *, codec="none", soft=False, rows=(4, 4, 3), made=readable):
    """The path of a small shard, what the index would say of it, its layout and its blocks."""
    layout = layout_of(codec, soft=soft)
    blocks = [made(count, soft=soft, first=10 * number) for number, count in enumerate(rows)]
    path = folder / "train-000000.tar"
    return path, write_shard(path, iter(blocks), layout=layout), layout, blocks


def read(data, shard, number, layout, names=COLUMNS):
    file = OpenShard(io.BytesIO(data), shard, where="train-000000.tar")
    return file.read_block(number, layout=layout, sources=100, names=names)


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("soft", [False, True])
def test_blocks_come_back_bit_for_bit_in_any_order(tmp_path, soft, codec):
    path, shard, layout, blocks = written(tmp_path, codec=codec, soft=soft)
    for number in (2, 0, 1, 1):
        columns = read(path.read_bytes(), shard, number, layout)
        assert list(columns) == list(COLUMNS)
        for name, column in blocks[number].columns().items():
            np.testing.assert_array_equal(columns[name], column, strict=True)


def test_merged_positions_keep_their_counts(tmp_path):
    layout = replace(layout_of("zstd"), counted=True)
    plain = readable(4)
    block = Positions(side=SIDE, **plain.columns(), count=np.array([1, 7, 2**32 - 1, 3], dtype=np.uint32))
    path = tmp_path / "train-000000.tar"
    shard = write_shard(path, [block], layout=layout)
    columns = read(path.read_bytes(), shard, 0, layout, names=(*COLUMNS, "count"))
    expected = {name: column.tolist() for name, column in block.columns().items()}
    assert {name: column.tolist() for name, column in columns.items()} == expected


def test_only_the_columns_asked_for_are_read(tmp_path):
    path, shard, layout, blocks = written(tmp_path, codec="zstd")
    columns = read(path.read_bytes(), shard, 1, layout, names=("value", "stones"))
    assert list(columns) == ["value", "stones"]
    np.testing.assert_array_equal(columns["value"], blocks[1].value)


@pytest.mark.parametrize(("codec", "suffix"), [("none", ".npy"), ("zstd", ".npy.zst")])
def test_a_shard_is_a_tar_of_one_member_per_block_and_column(tmp_path, codec, suffix):
    path, _, _, _ = written(tmp_path, codec=codec)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        f"{number:06d}.{name}{suffix}" for number in range(3) for name in COLUMNS
    ]
    for member in members:
        assert member.isreg()
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


def test_stock_tar_and_numpy_read_an_uncompressed_shard(tmp_path):
    path, _, _, blocks = written(tmp_path)
    with tarfile.open(path) as tar:
        for number, block in enumerate(blocks):
            for name, column in block.columns().items():
                member = tar.extractfile(f"{number:06d}.{name}.npy")
                loaded = np.load(io.BytesIO(member.read()), allow_pickle=False)
                np.testing.assert_array_equal(loaded, column, strict=True)


def test_what_the_index_says_of_a_shard_is_so(tmp_path):
    path, shard, _, _ = written(tmp_path)
    data = path.read_bytes()
    assert (shard.name, shard.positions, shard.size_bytes) == ("train-000000.tar", 11, len(data))
    assert shard.sha256 == hashlib.sha256(data).hexdigest()
    ends = np.cumsum(shard.block_bytes).tolist()
    blocks = [data[end - size : end] for end, size in zip(ends, shard.block_bytes, strict=True)]
    assert tuple(zlib.crc32(block) for block in blocks) == shard.block_crc32
    assert data[ends[-1] :] == bytes(1024)


@pytest.mark.parametrize(
    ("soft", "sha256"),
    [
        (False, "f11378501f67246f6ecaa8c0212db14b7fff14ff1120dfc516f7bfbce73b324d"),
        (True, "80a3bde0c39fd71aee64c265c21e6670c28ee26c11ea1327558a990986fdebcc"),
    ],
)
def test_the_bytes_of_a_shard_are_those_of_format_version_1(tmp_path, soft, sha256):
    # a change here is a change of the format: every dataset in use would need a new version number
    path, _, _, _ = written(tmp_path, soft=soft, made=counted)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_same_blocks_are_the_same_bytes_whatever_the_file_is_called_and_whoever_packs_them(
    tmp_path, codec, threads
):
    first, shard, layout, blocks = written(tmp_path, codec=codec, rows=(9, 9, 9, 9, 3))
    again = write_shard(tmp_path / "val-000009.tar", blocks, layout=layout, threads=threads)
    assert (tmp_path / "val-000009.tar").read_bytes() == first.read_bytes()
    assert again == replace(shard, name="val-000009.tar")


def test_every_single_flipped_bit_of_a_block_is_found(tmp_path):
    path, shard, layout, _ = written(tmp_path, codec="zstd", rows=(2, 1))
    layout, shard = replace(layout, block_positions=2), replace(shard)
    data = bytearray(path.read_bytes())
    start, size = shard.block_bytes[0], shard.block_bytes[1]
    for bit in range(8 * start, 8 * (start + size)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError, match="checksum is") as damage:
            read(data, shard, 1, layout, names=("value",))
        assert damage.value.where == "train-000000.tar, block 000001"
        data[bit // 8] ^= 1 << bit % 8
    assert len(read(data, shard, 1, layout)["value"]) == 1


def test_damage_in_one_block_leaves_the_others_readable(tmp_path):
    path, shard, layout, blocks = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[shard.block_bytes[0] + 600] ^= 1
    for number in (0, 2):
        np.testing.assert_array_equal(read(data, shard, number, layout)["stones"], blocks[number].stones)
    with pytest.raises(DataError, match="block 000001: checksum is"):
        read(data, shard, 1, layout)


def test_a_file_cut_anywhere_is_found_by_the_first_block_that_is_not_whole(tmp_path):
    path, shard, layout, _ = written(tmp_path)
    data = path.read_bytes()
    ends = np.cumsum(shard.block_bytes).tolist()
    for end in (0, 1, 511, 512, ends[0] - 1, ends[0], ends[0] + 1, ends[1], ends[2] - 512, ends[2] - 1):
        missing = next(number for number, stop in enumerate(ends) if stop > end)
        for number in range(missing):
            read(data[:end], shard, number, layout)
        with pytest.raises(DataError, match=f"block {missing:06d}: the file ends after") as damage:
            read(data[:end], shard, missing, layout)
        assert damage.value.where.startswith("train-000000.tar")


def spoiled(data, shard, number, change):
    """The file with a block changed, and a checksum that agrees with it: only what lies within can tell."""
    start = sum(shard.block_bytes[:number])
    block = change(data[start : start + shard.block_bytes[number]])
    sizes, sums = list(shard.block_bytes), list(shard.block_crc32)
    sizes[number], sums[number] = len(block), zlib.crc32(block)
    whole = data[:start] + block + data[start + shard.block_bytes[number] :]
    return whole, replace(shard, block_bytes=tuple(sizes), block_crc32=tuple(sums))


def renamed(block):
    head = tarfile.TarInfo.frombuf(block[:512], "ascii", "strict")
    head.name = "000001.stars.npy"
    return head.tobuf(tarfile.USTAR_FORMAT) + block[512:]


def resized(size):
    def change(block):
        head = tarfile.TarInfo.frombuf(block[:512], "ascii", "strict")
        head.size = size
        return head.tobuf(tarfile.GNU_FORMAT) + block[512:]

    return change


def headed(place, letters):
    """These bytes at a place of the first member's header, whose own checksum agrees."""

    def change(block):
        head = bytearray(block[:512])
        head[place : place + len(letters)], head[148:156] = letters, b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        return bytes(head) + block[512:]

    return change


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (renamed, "has no member 000001.stones.npy"),
        (lambda block: block[1024:], "has no member 000001.stones.npy"),
        (lambda block: b"x" + block[1:], "damaged tar header"),
        (lambda block: bytes(512) + block, "damaged tar header"),
        (lambda block: block + b"tail", "damaged tar header"),
        (lambda block: block + b"\xff" * 512, "damaged tar header"),
        (resized(1 << 40), "reaches beyond it"),
        (resized(-512), "reaches beyond it|damaged tar header"),
        (headed(124, b"00000000009\0"), "damaged tar header"),
        (headed(124, b"0000000000-\0"), "damaged tar header"),
        (headed(3, b"\xe9"), "damaged tar header"),
        (headed(265, b"Zo\xeb"), "damaged tar header"),
        (resized(3), "is not a uint8 array of shape"),
        (lambda block: b"", "has no member"),
    ],
)
def test_a_block_that_is_not_what_it_should_be_is_found_even_with_a_right_checksum(tmp_path, change, finding):
    path, shard, layout, _ = written(tmp_path)
    data, shard = spoiled(path.read_bytes(), shard, 1, change)
    with pytest.raises(DataError, match=finding) as damage:
        read(data, shard, 1, layout)
    assert damage.value.where.startswith("train-000000.tar, block 000001")


def test_a_shard_of_another_layout_is_found(tmp_path):
    path, shard, layout, _ = written(tmp_path)
    data = path.read_bytes()
    for other in (
        replace(layout, side=5),
        replace(layout, soft=True),
        replace(layout, codec="zstd"),
        replace(layout, block_positions=3),
    ):
        with pytest.raises(DataError, match="block 000000"):
            read(data, shard, 0, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_shard_appears_whole_or_not_at_all(tmp_path, threads):
    path, _, layout, _ = written(tmp_path)
    old = path.read_bytes()

    def blocks():
        yield counted(4)
        assert path.read_bytes() == old
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_shard(path, blocks(), layout=layout, threads=threads)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]
