"""WebDataset pipeline: stock ``webdataset`` reads the shards, a block a sample, and does with them what it can.

``pipeline`` gives up what hexshards.loader promises (an order that is a pure function, exact resume, ranks in step) for
what webdataset is good at: stages that users compose themselves, and any URL that it can open.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import webdataset
import zstandard
from numpy.typing import NDArray
from webdataset import tariterators
from webdataset.compat import FluidWrapper
from webdataset.utils import pytorch_worker_info

from hexshards import rng
from hexshards.arguments import checked
from hexshards.dataset.blocks import Columns
from hexshards.dataset.index import NAME, Index, read_index
from hexshards.dataset.shard import REPAIR, stream_members
from hexshards.errors import DataError, escaped, printable
from hexshards.game.board import MAX_SIDE
from hexshards.game.columns import declared
from hexshards.loading.expansion.expand import Rows, each_alone, expand, like, rows_of
from hexshards.loading.expansion.extra_columns import ExtraColumns, extra_columns, with_columns
from hexshards.loading.options import LOADER
from hexshards.loading.webdataset_blocks import CheckedBlocks, side_of
from hexshards.loading.window import COLUMNS
from hexshards.units import counted

MAX_COLUMN_BYTES = 1 << 30
"""Decompressed size above which a member is refused: a million soft policies at side 19 are 722 MB."""

BUFFER_POSITIONS = 131_072
"""Positions held to be shuffled, 51 bytes each at side 13; 16 blocks, as many as a window of the loader."""

_MAX_WORKERS = 1024


def decode_column(key: str, data: bytes) -> NDArray[Any] | None:
    """Decoder of members ``*.npy.zst`` for ``webdataset.WebDataset(...).decode(hexshards.decode_column)``.

    Raises ValueError for a member that would decompress to more than MAX_COLUMN_BYTES.
    """
    if not key.endswith(".npy.zst"):
        return None
    size = zstandard.get_frame_parameters(data).content_size
    if size > MAX_COLUMN_BYTES:
        raise ValueError(f"{escaped(key)} claims {counted(size, 'byte')}, more than {MAX_COLUMN_BYTES:,}")
    array: NDArray[Any] = np.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(data)), allow_pickle=False)
    return array


@checked
def pipeline(
    urls: str | Path | Sequence[str | Path],
    *,
    batch_size: int | None = LOADER.batch_size,
    shuffle: bool = LOADER.shuffle,
    augment: Literal["none", "random"] = "random",
    seed: int = LOADER.seed,
    epoch: int = 0,
    buffer_positions: int = BUFFER_POSITIONS,
    index: str | Path | None = None,
    columns: Sequence[str] = (),
) -> webdataset.DataPipeline:
    """WebDataset pipeline: a stock ``webdataset.DataPipeline`` over shards, of the loader's ``(board, policy, value)``.

    ``urls`` are what webdataset opens: paths, braces, http, ``pipe:``, which runs a shell: at your own risk. Shards are
    split by node and by worker, and shuffled anew in each epoch, the first of which is number ``epoch``; positions are
    shuffled over ``buffer_positions``. With ``batch_size`` None single positions come out, to be batched later. Blocks
    are compared with ``index``, the folder or URL of the dataset; None: the one beside local shards, if there is one.
    Without an index only shapes, types and values are checked. Shards are plain tars: ``pipe:zcat a.tar.gz`` unpacks.
    ``columns`` come as a fourth part, as the loader gives them; a third party's needs an index, which describes it.

    Raises ValueError for arguments that make no sense, DataError while iterating where a shard or a block is damaged or
    missing.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, or None, got {batch_size}")
    least = {"seed": (seed, 0), "epoch": (epoch, 0), "buffer_positions": (buffer_positions, 1)}
    if beyond := [f"{name} must be at least {low}, got {given}" for name, (given, low) in least.items() if given < low]:
        raise ValueError(escaped(beyond[0]))
    named = str(urls) if isinstance(urls, (str, Path)) else [str(each) for each in urls]
    if not named:
        raise ValueError("urls names no shard")
    shards = webdataset.SimpleShardList([_absolute(each) for each in webdataset.SimpleShardList(named).urls])
    known = read_index(index) if index is not None else _index_beside(shards.urls)
    if known and known.baked and augment != "none":
        raise ValueError('every position is there in all four symmetries already. Pass augment="none"')
    optional = known.layout.optional if known else ()
    extra = extra_columns(columns, optional, declared(soft=False), side=known.side if known else MAX_SIDE)
    drawn = _Epochs(shards, seed=seed, first=epoch, shuffle=shuffle)
    pipe = FluidWrapper(drawn)
    for stage in (
        webdataset.split_by_node,
        webdataset.split_by_worker,
        _samples,
        CheckedBlocks(known, extra.reads if extra else ()),
        *([_Beside(extra)] if extra else []),
        _Shuffle(drawn, seed=seed, positions=buffer_positions if shuffle else 1, augment=augment),
        _Batches(batch_size, extra),
    ):
        pipe.append(stage)
    return pipe


def _samples(shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What webdataset opens, a sample for each block. Raises DataError naming the shard that cannot be read."""
    url = ""

    def noted() -> Iterator[dict[str, Any]]:
        nonlocal url
        for shard in shards:
            url = shard["url"]
            yield shard

    try:
        yield from tariterators.group_by_keys(_files(tariterators.url_opener(noted())))
    except FileNotFoundError:
        raise DataError("the shard is missing", where=printable(url, width=300), fix=REPAIR) from None
    except (OSError, ValueError) as error:
        # webdataset adds arguments of its own to errors
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error.args[0]
        where = printable(url, width=300)
        raise DataError(f"cannot be read ({printable(reason, width=200)})", where=where, fix=REPAIR) from None


def _files(opened: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The regular members of tars; an empty dict ends each tar, as group_by_keys wants it."""
    for shard in opened:
        url, stream = shard["url"], shard["stream"]
        try:
            for name, data in stream_members(stream, where=printable(url, width=300)):
                yield {"fname": name, "data": data, "__url__": url}
        finally:
            # what a program gives is closed by webdataset, which waits for the program
            if isinstance(stream, io.IOBase) and url != "-":
                stream.close()
        yield {}


def _absolute(url: str) -> str:
    """A shard's path, wherever this process goes later; what names a protocol is left alone."""
    return url if ":" in url or url == "-" else str(Path(url).absolute())


def _index_beside(urls: Sequence[str]) -> Index | None:
    """The index in the folder of local shards."""
    folders = {Path(url).parent for url in urls if ":" not in url}
    if len(folders) != 1 or any(":" in url for url in urls):
        return None
    (folder,) = folders
    return read_index(folder) if (folder / NAME).is_file() else None


class _Epochs:
    """The shards of one epoch after another, all workers of all nodes counting alike.

    A worker process lives as long as an epoch, so what it counts is in memory that it shares with those after it.
    """

    def __init__(self, shards: Iterable[dict[str, str]], *, seed: int, first: int, shuffle: bool) -> None:
        self.shards, self.seed, self.first, self.shuffle = shards, seed, first, shuffle
        self.begun = multiprocessing.RawArray("q", _MAX_WORKERS)

    @property
    def epoch(self) -> int:
        """Number of the epoch that this worker is in."""
        return self.first + int(self.begun[_worker()]) - 1

    def __call__(self) -> Iterator[dict[str, str]]:
        self.begun[_worker()] += 1
        shards = list(self.shards)
        numbers = (
            rng.permutation(len(shards), self.seed, rng.SHARDS, self.epoch) if self.shuffle else range(len(shards))
        )
        return (shards[number] for number in numbers)


def _worker() -> int:
    return int(pytorch_worker_info()[2])


class _Beside:
    """Blocks with the columns that were asked for as records."""

    def __init__(self, extra: ExtraColumns) -> None:
        self.extra = extra

    def __call__(self, blocks: Iterable[Columns]) -> Iterator[Columns]:
        for block in blocks:
            records = _of_side(self.extra, block["stones"]).packed(block)
            yield {**{name: block[name] for name in COLUMNS}, "columns": records}


def _of_side(extra: ExtraColumns, stones: NDArray[Any]) -> ExtraColumns:
    """Fill in the side of the boards, which without an index is known once a block is there."""
    return replace(extra, side=side_of(stones.shape[1]))


class _Shuffle:
    """Shuffle buffer: rows of many blocks are mixed, half of them let go, over and over; each is given its symmetry."""

    def __init__(self, epochs: _Epochs, *, seed: int, positions: int, augment: str) -> None:
        self.epochs, self.seed, self.positions, self.augment = epochs, seed, positions, augment

    def __call__(self, blocks: Iterable[Columns]) -> Iterator[Rows]:
        held, count, step = list[Columns](), 0, 0
        for block in blocks:
            held.append(block)
            count += len(block["value"])
            if count >= self.positions:
                mixed = self._mixed(held, count, step)
                # a row stays for two rounds on average, so neighbours part
                cut = count - (self.positions // 2)
                yield like(mixed, (column[:cut] for column in mixed))
                held = [{name: column[cut:] for name, column in mixed._asdict().items()}]
                count, step = count - cut, step + 1
        if count:
            yield self._mixed(held, count, step)

    def _mixed(self, held: Sequence[Columns], count: int, step: int) -> Rows:
        path = (self.epochs.epoch, *map(int, pytorch_worker_info()[:3:2]), step)
        rows = np.arange(count)
        if self.epochs.shuffle:
            rows = rng.permutation(count, self.seed, rng.ROWS, *path)
        there = [name for name in (*COLUMNS, "columns") if name in held[0]]
        columns = {name: np.take(np.concatenate([block[name] for block in held]), rows, axis=0) for name in there}
        symmetry = np.zeros(count, dtype=np.uint8)
        if self.augment == "random":
            symmetry = (rng.raw(count, self.seed, rng.SYMMETRY, *path) >> np.uint64(62)).astype(np.uint8)
        return rows_of({**columns, "symmetry": symmetry})


class _Batches:
    """Packed rows as batches, or as single positions."""

    def __init__(self, batch_size: int | None, extra: ExtraColumns | None) -> None:
        self.batch_size, self.extra = batch_size, extra

    def __call__(self, parts: Iterable[Rows]) -> Iterator[Any]:
        for rows in _recut(parts, self.batch_size or LOADER.batch_size):
            plain = expand(rows, side=side_of(rows.stones.shape[1]))
            batch = with_columns(plain, rows, self.extra and _of_side(self.extra, rows.stones))
            if self.batch_size:
                yield batch
            else:
                yield from each_alone(batch)


def _recut(parts: Iterable[Rows], size: int) -> Iterator[Rows]:
    held, count = list[Rows](), 0
    for part in parts:
        held.append(part)
        count += len(part.value)
        if count >= size:
            joined = like(held[0], map(np.concatenate, zip(*held, strict=True)))
            whole = count - count % size
            yield from (like(joined, (column[at : at + size] for column in joined)) for at in range(0, whole, size))
            held, count = [like(joined, (column[whole:] for column in joined))], count - whole
    if count:
        yield like(held[0], map(np.concatenate, zip(*held, strict=True)))
