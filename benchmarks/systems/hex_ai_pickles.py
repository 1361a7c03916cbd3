"""Processed files read as hex_ai reads them: a file at a time, a sample at a time, through a DataLoader."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.recording import Trusting
from harness.rows import Source, show_one
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def prepare(source: Source, folder: Path) -> int:
    """Point to the files as they are."""
    for file in source.pickles:
        os.symlink(file.resolve(), folder / file.name)
    return len(source.rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> DataLoader:
    """Samples that the DataLoader collates."""
    return DataLoader(Samples(folder, epochs), batch_size=batch, num_workers=workers)


def examples(folder: Path, epochs: int) -> Iterator[list[dict[str, Any]]]:
    """This worker's files in random order, each as its examples."""
    worker = get_worker_info()
    mine = sorted(folder.glob("*.pkl.gz"))[worker.id if worker else 0 :: worker.num_workers if worker else 1]
    draw = np.random.default_rng()
    for _ in range(epochs):
        for number in draw.permutation(len(mine)):
            with gzip.open(mine[number]) as opened:
                yield Trusting(opened).load()["examples"]


class Samples(IterableDataset):
    """One sample after another."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs

    def __iter__(self) -> Iterator[Sample]:
        draw = np.random.default_rng()
        for loaded in examples(self.folder, self.epochs):
            for number in draw.permutation(len(loaded)):
                yield sample(loaded[number], int(draw.integers(4)))


def sample(example: dict[str, Any], symmetry: int) -> Sample:
    """One example as tensors, shown in a symmetry."""
    board, side = example["board"], example["board"].shape[1]
    policy = np.zeros(side * side, np.float32) if example["policy"] is None else example["policy"]
    player, value = example["player_to_move"].value, example["value"]
    board, policy, player, value = show_one(board, policy.reshape(side, side), player, value, symmetry)
    planes = np.concatenate([board, np.full((1, side, side), player, np.float32)])
    moves = np.ascontiguousarray(policy).reshape(-1)
    return torch.from_numpy(planes), torch.from_numpy(moves), torch.tensor([value], dtype=torch.float32)
