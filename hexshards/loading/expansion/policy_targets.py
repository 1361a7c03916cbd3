"""Policy targets: the move that was played, the shares of a search's visits, or a mix of both by a number.

They travel sparse, as the visits do, with one place more for the played move, and become a row of cells where they are
used. A position that was not searched has the played move, whatever is asked for; one without a move has its visits.
Legend of shapes: B rows, C cells, K = MAX_VISITED, T = K + 1 places.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hexshards.dataset.layout import Layout
from hexshards.errors import printable
from hexshards.game.board import symmetry_cells
from hexshards.game.columns import MAX_VISITED, VISITS, Array
from hexshards.game.positions import as_distributions
from hexshards.game.visits import Visits
from hexshards.piecewise import Piecewise, fixed, parsed

NAMED = {"played": 0.0, "search": 1.0}
"""The shares of the search that have names."""

WHOLE = np.float32((1 << 16) - 1)
"""What stands at the played move's place where it is all of the target: its share is a part of so many."""

PLACES = MAX_VISITED + 1

Targets = NDArray[np.int16]
"""(B, 2, T): cells, and below them the bits of uint16: counts, and last the share of the played move."""


def search_shares(policy: float | str) -> Piecewise:
    """How much of the target the search is, 0 to 1, by the samples of all epochs.

    Raises ValueError for what is no name, no such number and no schedule of such numbers.
    """
    try:
        shares = fixed(NAMED[str(policy)] if policy in NAMED else float(policy))
    except ValueError:
        shares = _schedule(str(policy))
    if not (shares.least >= 0 and shares.most <= 1):
        raise ValueError(f"{_MEANT}, got {printable(policy)}")
    return shares


_MEANT = "policy is played, search or a number from 0 (played) to 1 (search), fixed or such as linear 0:0 5M:1"


def _schedule(text: str) -> Piecewise:
    try:
        return parsed(text, name="policy")
    except ValueError:
        raise ValueError(f"{_MEANT}, got {printable(text)}") from None


def check_searched(layouts: Iterable[Layout]) -> None:
    """Raises ValueError where no dataset has visits."""
    if not any(VISITS in layout.optional for layout in layouts):
        raise ValueError(
            "policy: no position here has visits of a search. Leave it played, or convert files that have them "
            "(docs/targets.md)"
        )


def sparse(moves: NDArray[np.int16], visits: Visits, share: float, *, out: Targets | None = None) -> Targets:
    """Targets of the played moves (B,), -1 for none, and visits (B, 2, K)."""
    if out is None:
        out = np.empty((len(moves), 2, PLACES), dtype=np.int16)
    out[:, :, :MAX_VISITED] = visits.view(np.int16)
    out[:, 0, MAX_VISITED] = np.maximum(moves, 0)
    searched = visits[:, 1, 0] > 0
    played = np.where(searched, np.rint((1 - share) * WHOLE), WHOLE) * (moves >= 0)
    out[:, 1, MAX_VISITED] = played.astype(np.uint16).view(np.int16)
    return out


def dense(policy: NDArray[np.float16], visits: Visits, share: float) -> NDArray[np.float16]:
    """Targets of distributions (B, C), all zero for none: rounded to float16 as they are themselves."""
    none = np.full(len(policy), -1, dtype=np.int16)
    searched = visits[:, 1, 0] > 0
    shares = np.zeros(policy.shape, dtype=np.float32)
    show(sparse(none, visits, 1.0), np.zeros(len(policy), dtype=np.uint8), int(np.sqrt(policy.shape[1])), shares)
    part = np.where(searched, np.where(policy.any(axis=1), np.float32(share), np.float32(1)), np.float32(0))[:, None]
    return np.asarray(part * shares + (1 - part) * policy.astype(np.float32), dtype=np.float16)


def show(targets: Targets, symmetry: NDArray[np.uint8], side: int, shown_BC: NDArray[np.float32]) -> None:
    """Targets under each row's symmetry, written to ``shown_BC`` in full."""
    cells_BT = symmetry_cells(side)[symmetry[:, None], targets[:, 0]]
    numbers = targets[:, 1].view(np.uint16)
    played = numbers[:, MAX_VISITED].astype(np.float32) / WHOLE
    total = numbers[:, :MAX_VISITED].sum(axis=1, dtype=np.int64)
    scale = (1 - played) / np.maximum(total, 1).astype(np.float32)
    shares_BT = numbers.astype(np.float32) * scale[:, None]
    shares_BT[:, MAX_VISITED] = played
    shown_BC.fill(0)
    rows = np.arange(len(targets))
    for place in range(PLACES):  # in this order, place by place, whoever adds them up
        shown_BC[rows, cells_BT[:, place]] += shares_BT[:, place]


def shown_on_device(targets: torch.Tensor, table_BC: torch.Tensor, cells: int) -> torch.Tensor:
    """The same for tensors: (B, C) float32. ``table_BC``: where each row's symmetry sends a cell."""
    numbers = targets[:, 1].to(torch.int64) & 0xFFFF
    played = numbers[:, MAX_VISITED:].to(torch.float32) / float(WHOLE)
    total = numbers[:, :MAX_VISITED].sum(dim=1, keepdim=True).clamp(min=1).to(torch.float32)
    shares = torch.cat([numbers[:, :MAX_VISITED].to(torch.float32) * ((1 - played) / total), played], dim=1)
    shown = torch.zeros(len(targets), cells, dtype=torch.float32, device=targets.device)
    return shown.scatter_add_(1, table_BC.gather(1, targets[:, 0].to(torch.int64)), shares)


class PolicyTarget:
    """What the policy's target is made of, for rows of some datasets."""

    def __init__(self, shares: Piecewise, *, soft: bool, cells: int) -> None:
        self.shares, self.soft, self.cells = shares, soft, cells
        self.share = shares.at(0)
        self._memory: Array = np.empty(0)

    def stand_at(self, sample: int) -> None:
        """From now on the search has the share that it has at a sample, numbered through all epochs."""
        self.share = self.shares.at(sample)

    @property
    def field(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Dtype and shape of a row."""
        return (np.dtype("<f2"), (self.cells,)) if self.soft else (np.dtype("<i2"), (2, PLACES))

    def packed(self, blocks: Iterable[tuple[Array, Visits]]) -> Array:
        """Targets of the rows of some blocks, whose policies are moves, or where ``soft`` also distributions.

        In memory that is written again with the next blocks: a page fault for every 4 KiB of fresh memory costs more.
        """
        blocks = list(blocks)
        count = sum(len(policy) for policy, _ in blocks)
        dtype, shape = self.field
        if len(self._memory) < count:
            self._memory = np.empty((count, *shape), dtype)
        at = 0
        for policy, visits in blocks:
            out = self._memory[at : (at := at + len(policy))]
            if self.soft:
                dense_PC = policy if policy.ndim == 2 else as_distributions(policy, cells=self.cells)
                out[...] = dense(dense_PC, visits, self.share)
            else:
                sparse(policy, visits, self.share, out=out)
        return self._memory[:count]
