"""Check WebDataset samples: a block is one once its place, checksum, columns and values hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hexshards.dataset import codec
from hexshards.dataset.blocks import Columns
from hexshards.dataset.index import Index
from hexshards.dataset.index_schema import SHARD_NAME
from hexshards.dataset.layout import Layout, Shard
from hexshards.dataset.options import MAX_BLOCK_POSITIONS, SUFFIXES, Codec
from hexshards.dataset.shard import REPAIR, block_crc32
from hexshards.dataset.validation import check_numbers, check_stones
from hexshards.errors import DataError, printable
from hexshards.game.board import MAX_SIDE, MIN_SIDE
from hexshards.game.columns import stone_bytes
from hexshards.loading.window import COLUMNS
from hexshards.units import counted

_SHARD_NAME = re.compile(SHARD_NAME)
_WIDTHS = {stone_bytes(side): side for side in range(MIN_SIDE, MAX_SIDE + 1)}


def side_of(width: int) -> int:
    """Side of the boards whose stones are packed into so many bytes."""
    return _WIDTHS[width]


class CheckedBlocks:
    """Samples of webdataset as the columns of blocks, each compared with all that is known of it.

    ``names``: those that are read beside what a batch is made of.
    """

    def __init__(self, index: Index | None, names: Sequence[str] = ()) -> None:
        self.names = tuple(dict.fromkeys((*COLUMNS, *names)))
        self.layout = index.layout if index else None
        splits = index.splits.values() if index else ()
        self.shards = {shard.name: shard for split in splits for shard in split.shards}

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[Columns]:
        """Columns of each block. Raises DataError at a block that is damaged, out of its place, or not there."""
        url, count = "", 0
        for sample in samples:
            if count and (sample["__url__"] != url or sample["__key__"] == f"{0:06d}"):
                self._check_end(url, count)
                count = 0
            url = sample["__url__"]
            yield self._block(sample, f"{printable(url, width=300)}, block {count:06d}", count)
            count += 1
        if count:
            self._check_end(url, count)

    def _shard(self, url: str) -> Shard | None:
        """What the index says of a shard, found by its name."""
        names = _SHARD_NAME.findall(url)
        if self.shards and (not names or names[-1] not in self.shards):
            raise DataError("is no shard of the index", where=printable(url, width=300), fix="Name the index it is of")
        return self.shards[names[-1]] if self.shards else None

    def _check_end(self, url: str, count: int) -> None:
        shard = self._shard(url)
        if shard and count != len(shard.block_bytes):
            problem = f"ends after {count} of {counted(len(shard.block_bytes), 'block')}"
            raise DataError(problem, where=printable(url, width=300), fix=REPAIR)

    def _block(self, sample: dict[str, Any], where: str, number: int) -> Columns:
        key, shard = sample["__key__"], self._shard(sample["__url__"])
        members = {f"{key}.{name}": data for name, data in sample.items() if not name.startswith("__")}
        if key != f"{number:06d}":
            raise DataError(f"is missing, {printable(key)} comes next", where=where, fix=REPAIR)
        if shard is None or self.layout is None:
            layout = _layout_of(members, key, where)
            rows = layout.block_positions
        else:
            layout = self.layout
            if number >= len(shard.block_crc32) or block_crc32(members) != shard.block_crc32[number]:
                raise DataError("differs from what the index says", where=where, fix=REPAIR)
            rows = min(layout.block_positions, shard.positions - number * layout.block_positions)
        columns = _columns(members, self.names, layout, number, rows, where)
        check_numbers(columns, layout.kinds, side=layout.side, sources=0, where=where)
        check_stones(columns["stones"], side=layout.side, where=where)
        return columns


def _layout_of(members: Mapping[str, bytes], key: str, where: str) -> Layout:
    """Layout of a dataset without an index, by the sizes of the columns of a block."""
    kind: Codec = "zstd" if f"{key}.player.npy.zst" in members else "none"
    sizes = {name: _payload(members.get(f"{key}.{name}{SUFFIXES[kind]}", b""), kind) for name in COLUMNS}
    rows = sizes["player"]
    width = sizes["stones"] // max(rows, 1)
    if not 1 <= rows <= MAX_BLOCK_POSITIONS or width not in _WIDTHS:
        raise DataError(f"has columns of {sizes} bytes, which are no positions", where=where, fix=REPAIR)
    return Layout(side=side_of(width), soft=sizes["policy"] != 2 * rows, codec=kind, block_positions=rows)


def _payload(data: bytes, kind: Codec) -> int:
    """Bytes of the array in a member, as it claims; nothing is decompressed."""
    return codec.claimed_size(data, codec=kind) - len(codec.header(np.dtype(np.uint8), (1,)))


def _columns(
    members: Mapping[str, bytes], names: Sequence[str], layout: Layout, number: int, rows: int, where: str
) -> Columns:
    columns, kinds = {}, layout.kinds
    for name in names:
        kind, data = kinds[name], members.get(layout.member(number, name), b"")
        if kind.optional and not data:
            columns[name] = kind.unknowns(rows, side=layout.side)
            continue
        shape, there = (rows, *kind.shape(layout.side)), f"{where}, {name}"
        columns[name] = codec.decode(data, dtype=kind.dtype, shape=shape, codec=layout.codec, where=there)
    return columns
