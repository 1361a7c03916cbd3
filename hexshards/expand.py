"""Packed rows become float planes at the last moment, each shown in its symmetry; rows keep their order.

Two ways to the same bits: NumPy on the CPU, and plain torch operations on whatever device the rows are on.
Legend of shapes: B rows, S side, C = S * S cells, W bytes of packed stones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hexshards.board import SWAPS_COLOURS, symmetry_cells


class Packed(NamedTuple):
    """Rows of samples as they travel: NumPy arrays or tensors, one entry per row.

    stones (B, W) uint8, player (B,) uint8, policy (B,) int16 or (B, C) float16, value (B,) float32: see Positions.
    symmetry (B,) uint8: which symmetry the row is to be shown in.
    """

    stones: Any
    player: Any
    policy: Any
    value: Any
    symmetry: Any


class Batch(NamedTuple):
    """Samples as a network takes them, in hex_ai's layout.

    board float32 (B, 3, S, S): BLUE stones, RED stones, player to move (0.0 BLUE, 1.0 RED) in every cell.
    policy float32 (B, C): target distribution over cells; all zero where a position has no target.
    value float32 (B, 1): 0.0 BLUE wins, 1.0 RED wins.
    """

    board: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor


def expand(rows: Packed, *, side: int) -> Batch:
    """Rows of NumPy arrays as a batch in fresh CPU memory."""
    swapped = SWAPS_COLOURS[rows.symmetry]
    board = np.empty((len(rows.stones), 3, side, side), dtype=np.float32)
    board[:, :2] = _shown(rows.stones, rows.symmetry, side)
    board[:, 2] = (rows.player ^ swapped)[:, None, None]
    policy = _policy(rows.policy, rows.symmetry, side)
    value = np.where(swapped, np.float32(1) - rows.value, rows.value)[:, None]
    return Batch(torch.from_numpy(board), torch.from_numpy(policy), torch.from_numpy(value))


def _shown(stones_BW: NDArray[np.uint8], symmetry: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Stone planes under each row's symmetry, (B, 2, S, S) of 0 and 1.

    Rows are grouped by symmetry while they are still packed, so that each symmetry is one strided copy, and put back
    in order as bytes: 1.8 M rows/s on one core at side 13, where a gather of every cell reaches 0.5 M.
    """
    grouped = np.argsort(symmetry, kind="stable")
    bits = np.unpackbits(stones_BW[grouped], axis=1, count=2 * side * side).reshape(-1, 2, side, side)
    ends = np.cumsum(np.bincount(symmetry, minlength=4))
    same, turned, transposed, anti = np.split(bits, ends[:3])
    planes = np.empty_like(bits)
    for part, shown in zip(
        np.split(planes, ends[:3]),
        (
            same,
            turned[:, :, ::-1, ::-1],
            transposed[:, ::-1].swapaxes(2, 3),
            anti[:, ::-1, ::-1, ::-1].swapaxes(2, 3),
        ),
        strict=True,
    ):
        part[...] = shown
    place = np.empty_like(grouped)
    place[grouped] = np.arange(len(grouped))
    return planes[place]


def _policy(policy: NDArray[Any], symmetry: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    cells = symmetry_cells(side)
    shown = np.zeros((len(symmetry), side * side), dtype=np.float32)
    if policy.ndim == 2:
        np.put_along_axis(shown, cells[symmetry], policy.astype(np.float32), axis=1)
    else:
        rows = np.flatnonzero(policy >= 0)
        shown[rows, cells[symmetry[rows], policy[rows]]] = 1
    return shown


def expand_on_device(rows: Packed, *, side: int) -> Batch:
    """Rows of tensors as a batch on the device where the rows are; equal to ``expand`` bit for bit."""
    count, cells = len(rows.stones), side * side
    device = rows.stones.device
    symmetry = rows.symmetry.long()
    table = torch.as_tensor(np.array(symmetry_cells(side)), device=device)[symmetry]
    swapped = symmetry >= 2
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    bits = ((rows.stones[:, :, None] >> shifts) & 1).flatten(1)[:, : 2 * cells].reshape(count, 2, cells)
    bits = torch.where(swapped[:, None, None], bits.flip(1), bits).gather(2, table[:, None].expand(-1, 2, -1))
    player = (rows.player.bool() ^ swapped).to(torch.uint8)[:, None, None].expand(-1, 1, cells)
    board = torch.cat([bits, player], dim=1).to(torch.float32).view(count, 3, side, side)
    if rows.policy.ndim == 2:
        policy = rows.policy.to(torch.float32).gather(1, table)
    else:
        target = table.gather(1, rows.policy.long().clamp(min=0)[:, None])
        policy = torch.zeros(count, cells, device=device).scatter_(1, target, (rows.policy >= 0).float()[:, None])
    value = torch.where(swapped, 1 - rows.value, rows.value)[:, None]
    return Batch(board, policy, value)
