"""All positions as float32 tensors in memory, gathered and augmented a batch at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from harness.rows import Shuffled, Source, plain
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def prepare(source: Source, folder: Path) -> int:
    """Board, policy and value as files of float32."""
    for name, part in zip(("board", "policy", "value"), plain(source.rows), strict=True):
        np.save(folder / f"{name}.npy", part)
    return len(source.rows)


class Batches(Dataset):
    """Batches by the numbers of their samples."""

    def __init__(self, folder: Path) -> None:
        self.board, self.policy, self.value = (
            torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("board", "policy", "value")
        )

    def __len__(self) -> int:
        return len(self.board)

    def __getitems__(self, numbers: NDArray[np.int64]) -> Tensors:
        """Gather, then show each in a symmetry of its own."""
        chosen, side = torch.from_numpy(numbers), self.board.shape[-1]
        board, policy, value = (part.index_select(0, chosen) for part in (self.board, self.policy, self.value))
        policy = policy.view(-1, side, side)
        symmetry = torch.randint(4, (len(numbers),))
        for number, dims in ((1, (-2, -1)), (3, (-2, -1))):
            rows = torch.nonzero(symmetry == number)[:, 0]
            board[rows], policy[rows] = board[rows].flip(dims), policy[rows].flip(dims)
        rows = torch.nonzero(symmetry >= 2)[:, 0]
        shown = board[rows][:, [1, 0, 2]].transpose(2, 3)
        shown[:, 2] = 1 - shown[:, 2]
        board[rows], policy[rows], value[rows] = shown, policy[rows].transpose(1, 2), 1 - value[rows]
        return board, policy.view(-1, side * side), value


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> DataLoader:
    """Batches that need no collating."""
    dataset = Batches(folder)
    sampler = Shuffled(len(dataset), batch, epochs)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(batch: Tensors) -> Tensors:
    return batch
