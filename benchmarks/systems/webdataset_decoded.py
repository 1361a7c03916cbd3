"""webdataset as its documentation has it: arrays that are members, decoded, augmented and batched one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import webdataset
from harness.rows import Dense, Source, plain, show_one

from systems.webdataset_samples import BUFFER, SHARDS, members

CHUNK = 4096


def prepare(source: Source, folder: Path) -> int:
    """Three members per position, as webdataset encodes arrays: planes, moves and value."""
    rows = source.rows
    pattern, size = str(folder / "train-%06d.tar"), -(-len(rows) // SHARDS)
    with webdataset.ShardWriter(pattern, maxcount=size, mtime=0, verbose=0) as shards:
        for first in range(0, len(rows), CHUNK):
            for number, (board, policy, value) in enumerate(
                zip(*plain(rows[first : first + CHUNK]), strict=True), first
            ):
                arrays = {
                    "board.npy": board.astype(np.uint8),
                    "policy.npy": policy.astype(np.uint8),
                    "value.npy": value,
                }
                shards.write({"__key__": f"{number:08d}", **arrays})
    return len(rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> webdataset.WebLoader:
    """Samples that webdataset collates."""
    samples = members(folder, epochs).shuffle(BUFFER, initial=BUFFER).decode()
    samples = samples.to_tuple("board.npy", "policy.npy", "value.npy").map(_shown).batched(batch)
    return webdataset.WebLoader(samples, batch_size=None, num_workers=workers)


def _shown(sample: Dense) -> Dense:
    """A sample in one random symmetry."""
    board, policy, value = sample
    moves = policy.reshape(board.shape[1:])
    stones, moves, player, value = show_one(board[:2], moves, board[2:], value, np.random.randint(4))
    return np.concatenate([stones, player]).astype(np.float32), moves.astype(np.float32).reshape(-1), value
