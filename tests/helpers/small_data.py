"""Small real datasets, and slow readers of them that share no code with hexshards."""

from __future__ import annotations

import io
import tarfile
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import zstandard

from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import examples_of, write, write_processed
from hexshards.dataset.index import read_index
from hexshards.game.random_games import play

SIDE = 5
CUT = {"val_fraction": 0.2, "shard_positions": 96, "block_positions": 16}
"""A thousand positions become a dozen shards of six blocks."""


def processed(folder, *, games=60, side=SIDE, seed=0, games_per_file=20):
    return write(folder, games=games, side=side, seed=seed, games_per_file=games_per_file)


_DATASETS = dict[tuple[tuple[str, str], ...], dict[Path, bytes]]()
"""Files of the datasets that were made, by their options: conversion is a function of its inputs."""


def dataset(folder, **options):
    """A dataset of side 5: 1,117 training positions, a prime number, in 70 blocks of 12 shards; and 192 of val."""
    options = {**CUT, **options}
    kind = tuple(sorted((name, repr(value)) for name, value in options.items()))
    if kind not in _DATASETS:
        made = {name: options.pop(name) for name in ("games", "side", "seed") if name in options}
        convert(processed(folder / "processed", **made), out=folder / "data", **options)
        _DATASETS[kind] = {
            path.relative_to(folder): path.read_bytes()
            for name in ("processed", "data")
            for path in (folder / name).iterdir()
        }
    for name, data in _DATASETS[kind].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / "data"


def number_last(folder, number, *, split="train"):
    """Give the last shard of a split another number."""
    index = read_index(folder)
    *others, last = index.splits[split].shards
    name = f"{split}-{number:06d}.tar"
    (folder / last.name).rename(folder / name)
    kept = replace(index.splits[split], shards=(*others, replace(last, name=name)))
    replace(index, splits={**index.splits, split: kept}).write(folder)


def examples(count, *, seed=0, source="synth", side=SIDE):
    """The positions of some games, as a list that a test may spoil."""
    games = play(count, side=side, seed=seed)
    return list(
        chain.from_iterable(
            examples_of(game, game_id=(0, line), source_file=f"{source}.trmph")
            for line, game in enumerate(games, start=1)
        )
    )


def write_examples(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    games = max(1, sum(example["metadata"]["position_in_game"] == 0 for example in entries))
    write_processed(path, entries, source_file=f"{path.name.split('_')[0]}.trmph", games=games)
    return path


_KINDS = dict[bytes, tuple[np.dtype, tuple[int, ...]]]()


def _array(data):
    """What np.load makes of an .npy file; it reads a header as Python, which takes longer than small blocks do."""
    header = data[: 10 + int.from_bytes(data[8:10], "little")]
    if header not in _KINDS:
        array = np.load(io.BytesIO(data))
        _KINDS[header] = array.dtype, array.shape
        return array
    dtype, shape = _KINDS[header]
    return np.frombuffer(data, dtype, offset=len(header)).reshape(shape)


def columns_of(folder, split, shard="*"):
    """Every column of a split in the order of the dataset, or of a shard, read with tarfile and numpy alone."""
    parts_by_name = defaultdict(list)
    for path in sorted(folder.glob(f"{split}-{shard}.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".zst"):
                    data = zstandard.ZstdDecompressor().decompress(data)
                parts_by_name[member.name.split(".")[1]].append(_array(data))
    return {name: np.concatenate(parts) for name, parts in parts_by_name.items()}


def columns_of_shard(folder, name):
    split, _, number = name.removesuffix(".tar").partition("-")
    return columns_of(folder, split, number)


def files_of(folder):
    """Every file of a dataset and its bytes."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


BITS = [[byte >> place & 1 for place in range(7, -1, -1)] for byte in range(256)]


def planes_of(column, side=SIDE):
    """One packed position as (2, S, S) stones, bit by bit."""
    bits = [bit for byte in column.tolist() for bit in BITS[byte]]
    return np.array(bits[: 2 * side * side], dtype=np.float32).reshape(2, side, side)


def samples_of(folder, split, side=SIDE):
    """Every position of a split as float32 (board, policy, value), unaugmented, in the order of the dataset."""
    columns = columns_of(folder, split)
    for row in range(len(columns["value"])):
        board = np.concatenate(
            [
                planes_of(columns["stones"][row], side),
                np.full((1, side, side), columns["player"][row], dtype=np.float32),
            ]
        )
        policy = np.zeros((side, side), dtype=np.float32)
        if columns["policy"].ndim == 2:
            policy[...] = columns["policy"][row].reshape(side, side)
        elif columns["policy"][row] >= 0:
            policy[divmod(int(columns["policy"][row]), side)] = 1
        yield board, policy, np.float32(columns["value"][row])


def games_of(folder, split):
    """File and line of every game of a split."""
    columns, names = columns_of(folder, split), read_index(folder).sources
    return {(names[source], game) for source, game in zip(columns["source"], columns["game"], strict=True)}


def positions_of(folder, split):
    """Every position of a split, and how often it is there."""
    return Counter(
        (board.tobytes(), policy.tobytes(), float(value)) for board, policy, value in samples_of(folder, split)
    )


def images(board, policy, value):
    """A sample in each of the four symmetries, as bytes."""
    swapped = np.stack([board[1], board[0], 1 - board[2]])
    return [
        _bytes(board, policy, value),
        _bytes(board[:, ::-1, ::-1], policy[::-1, ::-1], value),
        _bytes(swapped.swapaxes(1, 2), policy.T, 1 - value),
        _bytes(swapped[:, ::-1, ::-1].swapaxes(1, 2), policy[::-1, ::-1].T, 1 - value),
    ]


def rows_of(batch):
    """The samples of a batch as bytes."""
    return [_bytes(*sample) for sample in zip(*(part.numpy() for part in batch), strict=True)]


def _bytes(board, policy, value):
    return np.concatenate([np.ravel(part) for part in (board, policy, value)]).astype(np.float32).tobytes()
