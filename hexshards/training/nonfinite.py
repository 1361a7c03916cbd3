"""Non-finite loss: a batch that broke the training is written down, as text and as a dataset, for a person."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.index import NAME, Counts, Index, InputFile, Split
from hexshards.dataset.index_schema import shard_name
from hexshards.dataset.layout import Layout
from hexshards.dataset.shard import write_shard
from hexshards.errors import DataError, NonFiniteLoss
from hexshards.game.board import move_name
from hexshards.game.columns import UNKNOWN
from hexshards.game.positions import Positions
from hexshards.game.validation import Draft, admit
from hexshards.storage.files import write_whole
from hexshards.training.checkpointing.run_folder import RunFolder
from hexshards.training.distributed import ProcessGroup
from hexshards.training.mini_epochs import Cursor
from hexshards.training.protocols import BoardBatch

TEXT = "positions.txt"
"""A position a line, like a game of a ``.trmph`` file; the order of its moves is not known."""


def nonfinite_loss(
    error: NonFiniteLoss, batch: Any | None, cursor: Cursor, folder: RunFolder, process_group: ProcessGroup
) -> DataError:
    """What a person is told of a training loss that is not finite; its batch is written into the run's folder."""
    seen = "its batch is not known"
    if batch is not None:
        seen = write_suspect(batch, folder.suspect(process_group.rank, process_group.size))
    problem = f"{error} in epoch {cursor.epoch}, mini-epoch {cursor.mini_epoch}; {seen}"
    fix = "Lower the learning rate, and start again to go on from the newest checkpoint"
    return DataError(problem, where=str(folder.path), fix=fix)


def write_suspect(batch: Any, folder: Path) -> str:
    """Write down the batch (board, policy, value) of a non-finite loss, and say where it is or why it is not.

    Positions shown in a symmetry that swaps the colours are turned back, so that BLUE has moved first.
    """
    if not isinstance(batch, BoardBatch):
        return "its batch holds no boards that could be written down"
    draft = _draft(*(np.asarray(part.cpu(), dtype=np.float32) for part in (batch.board, batch.policy, batch.value)))
    positions, rejects = admit(draft)
    if rejects:
        first = rejects[0]
        return f"its batch holds what is no position: {first.place}, {first.reason} ({first.finding})"
    _write(positions, folder)
    return f"its batch: `hexshards show {folder} -n {len(positions)}`, or {folder / TEXT}"


def _draft(board: NDArray[Any], policy: NDArray[Any], value: NDArray[Any]) -> Draft:
    stones, player, rows, side = board[:, :2].copy(), board[:, 2, 0, 0], len(board), board.shape[-1]
    value, policy = value.reshape(-1).copy(), policy.reshape(-1, side, side).copy()
    swapped = stones[:, 0].sum(axis=(1, 2)) - stones[:, 1].sum(axis=(1, 2)) != player
    stones[swapped] = stones[swapped][:, ::-1].swapaxes(2, 3)
    policy[swapped] = policy[swapped].swapaxes(1, 2)
    value[swapped] = 1 - value[swapped]
    return Draft(
        side=side,
        boards=stones,
        policy=policy.reshape(rows, -1),
        has_policy=np.asarray(policy.any(axis=(1, 2))),
        value=value.astype(np.float64),
        player=np.where(swapped, 1 - player, player).astype(np.int8),
        ply=np.full(rows, UNKNOWN),
        source=np.zeros(rows, dtype=np.int64),
        game=np.full(rows, UNKNOWN),
        plies=np.full(rows, UNKNOWN),
        tier=np.full(rows, UNKNOWN),
        places=[f"row {row}" for row in range(rows)],
    )


def _write(positions: Positions, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in _lines(positions)).encode()
    (folder / NAME).unlink(missing_ok=True)  # of an earlier batch, until this one is whole
    write_whole(folder / TEXT, text)
    layout = Layout(side=positions.side, soft=positions.soft, codec="zstd", block_positions=max(len(positions), 1))
    shard = write_shard(folder / shard_name("train", 0), [positions], layout=layout)
    file = InputFile(
        name="batch",
        format="batch",
        size_bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        positions=len(positions),
        rejected=0,
        without_game=len(positions),
        notes="a batch whose loss was not finite",
    )
    counts = Counts.of(positions)
    split = Split(
        shards=(shard,),
        games=0,
        blue_wins=counts.blue_wins,
        red_wins=counts.red_wins,
        without_policy=counts.without_policy,
        plies=counts.plies,
    )
    Index(layout=layout, splits={"train": split}, sources=("batch",), inputs=(file,), options={}).write(folder)


def _lines(positions: Positions) -> Iterator[str]:
    """Text of each position, ``#13,a1b2... b``: BLUE's and RED's stones in turn, who wins, and the move to learn."""
    side, planes = positions.side, positions.planes().reshape(len(positions), 2, -1)
    policy = positions.policy if not positions.soft else positions.policy.argmax(axis=1)
    for row in range(len(positions)):
        blue, red = (np.flatnonzero(planes[row, plane]).tolist() for plane in (0, 1))
        cells = [cell for turn in range(len(blue)) for cell in (*blue[turn : turn + 1], *red[turn : turn + 1])]
        moves = "".join(move_name(cell, side=side) for cell in cells)
        mover = "RED" if positions.player[row] else "BLUE"
        learn = f"move {move_name(int(policy[row]), side=side)}" if policy[row] >= 0 else "no move"
        yield f"#{side},{moves} {'b' if positions.value[row] < 0.5 else 'r'} # {mover} to move, {learn} to learn"
