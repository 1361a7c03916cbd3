"""Diagnostics of a network: at which ply it errs, how sure it is (calibration), what it knows by heart.

The same validation positions are looked at after every mini-epoch, in the dataset's order. A hook: it draws nothing at
random, changes nothing that training depends on, and only rank 0 does it, without a word to the others.

Legend of shapes: P positions, C cells (side * side).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hexshards.dataset.filters import Filter, Selection
from hexshards.errors import DataError, printable
from hexshards.game.board import SWAPS_COLOURS, move_name, symmetry_cells
from hexshards.game.columns import declared
from hexshards.loading.expansion.expand import Rows, expand, like, rows_of
from hexshards.loading.expansion.extra_columns import ExtraColumns, extra_columns, with_columns
from hexshards.loading.loader import Loader
from hexshards.loading.window import COLUMNS
from hexshards.training.steps.heads import POLICY, Head, Target, red_probability
from hexshards.training.steps.losses import RowLosses, losses, targets_of
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.hooks import Event, Validated

HARDEST = 8
"""Positions with the largest losses that are listed."""

CALIBRATION_BINS = 10

TURNED_POSITIONS = 1024
"""Positions, evenly taken from those looked at, that are also shown in the three other symmetries."""

MEMORY_RATIO, MEMORY_GAP = 2.0, 0.05
"""Games look memorised where validation's value loss is twice training's and 0.05 above it.

All positions of a game share one value, so a network that tells games apart can learn their winners by heart: 0.03 in
training against 0.24 in validation was seen. Without that, training's loss is rather the higher one, as its weights
were still learning while it was measured. The second number keeps losses near 0, whose ratio says little, from warning.
"""

_ROWS_AT_ONCE = 1024
_COLUMNS = (*COLUMNS, "source", "game", "ply", "plies")


class Diagnosis:
    """Diagnostics hook: after each validation adds ``diagnosis`` to the mini-epoch's record (docs/diagnostics.md).

    positions: at most so many are looked at, spread evenly over the shards of the split, and no more than validation
    looks at. They are read once, and held packed: about 70 bytes each at side 13.
    """

    def __init__(self, trainer: Trainer, val_loader: Loader, *, positions: int) -> None:
        self._trainer, self._skip = trainer, val_loader.spec.on_error == "skip"
        self._index, self._limit = val_loader.index, min(positions, val_loader.samples)
        self._home = val_loader.home
        learned = [name for head in trainer.judges for name in head.columns]
        layout = self._index.layout
        self._extra = extra_columns(learned, layout.optional, declared(soft=False), side=layout.side)
        self._names = tuple(dict.fromkeys((*_COLUMNS, *(self._extra.reads if self._extra else ()))))
        self._held: dict[str, NDArray[Any]] = {}

    def __call__(self, event: Event, /) -> Mapping[str, Any] | None:
        """Look at a network that was validated."""
        if not isinstance(event, Validated) or event.run.rank:
            return None
        return {"diagnosis": {**self.look(), **memory(event.train, event.val)}}

    def look(self) -> dict[str, Any]:
        """Diagnose the network as it is."""
        self._held = self._held or self._read()
        return self._answers()

    def _read(self) -> dict[str, NDArray[Any]]:
        """Columns of the positions. Raises DataError where they are damaged and nothing may be skipped."""
        selection = Selection(self._home, self._index, "val", where=Filter(), limit=self._limit)
        parts = []
        for block in np.flatnonzero(selection.block_rows):
            (columns,) = selection.read(np.array([block]), self._names)
            if not isinstance(columns, DataError):
                # a copy: a slice would keep the whole block
                parts.append({name: columns[name].copy() for name in self._names})
            elif not self._skip:
                raise columns
        if not parts:
            raise DataError("no validation position can be read", where=str(self._home), fix="Run `hexshards verify`")
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def _answers(self) -> dict[str, Any]:
        held, side = self._held, self._index.side
        untouched = np.zeros(len(held["ply"]), dtype=np.uint8)
        extra = {"columns": self._extra.packed(held)} if self._extra else {}
        packed = rows_of({**{name: held[name] for name in COLUMNS}, "symmetry": untouched, **extra})
        scores = scored(self._trainer, packed, side=side, extra=self._extra)
        width = max(1, side**2 // 16)  # ten plies at side 13
        return {
            "positions": len(held["ply"]),
            "by_ply": grouped(held["ply"] // width * width, scores.by_head),
            "by_length": grouped(np.where(held["plies"] < 0, -1, held["plies"] // width * width), scores.by_head),
            "by_player": grouped(held["player"], scores.by_head),
            "calibration": calibration(scores.red_P, held["value"]),
            "equivariance": equivariance(self._trainer, _spread(packed, TURNED_POSITIONS), side=side),
            "hardest": self._hardest(scores),
        }

    def _hardest(self, scores: Scores) -> list[dict[str, Any]]:
        loss_P = np.sum([head.weight * scores.by_head[head.name].loss_P for head in self._trainer.judges], axis=0)
        rows = np.argsort(-loss_P, kind="stable")[:HARDEST].tolist()
        return [{"loss": _short(loss_P[row]), **self._described(row, scores)} for row in rows]

    def _described(self, row: int, scores: Scores) -> dict[str, Any]:
        held, side, sources = self._held, self._index.side, self._index.sources
        source, known_P = int(held["source"][row]), scores.by_head[POLICY.name].known_P
        return {
            "source": printable(sources[source]) if source < len(sources) else f"file {source}",
            "line": int(held["game"][row]),
            "ply": int(held["ply"][row]),
            "player": ("BLUE", "RED")[int(held["player"][row])],
            "value": _short(held["value"][row]),
            "red_wins": _short(scores.red_P[row]),
            "move": move_name(int(scores.target_P[row]), side=side) if known_P[row] else None,
            "move_probability": _short(scores.target_probability_P[row]) if known_P[row] else None,
            "preferred": move_name(int(scores.move_P[row]), side=side),
        }


def boards_of(positions: int) -> int:
    """Boards that a network answers in a diagnosis of positions, one at least: each, and some in all symmetries."""
    step = -(-positions // TURNED_POSITIONS)
    return positions + 4 * len(range(0, positions, step))


class HeadScores(NamedTuple):
    """What a head's answers cost on each position, and its metrics."""

    loss_P: NDArray[Any]
    """0 where there is no target."""
    known_P: NDArray[Any]
    """Whether there is a target."""
    metrics: dict[str, NDArray[Any]]
    """The head's first metric, by its name."""


class Scores(NamedTuple):
    """What a network answers on each position, and what that costs."""

    by_head: dict[str, HeadScores]
    target_P: NDArray[Any]
    """The cell of the policy target's largest entry."""
    target_probability_P: NDArray[Any]
    move_P: NDArray[Any]
    """The cell that the network would play."""
    red_P: NDArray[Any]
    """The probability that RED wins."""


@torch.no_grad()
def scored(trainer: Trainer, rows: Rows, *, side: int, extra: ExtraColumns | None = None) -> Scores:
    """A network's answers on packed rows, each in the symmetry it says."""
    parts = [_scored(trainer, part, side, extra) for part in _parts(rows)]
    by_head = {head.name: _joined(head, [part.by_head[head.name] for part in parts]) for head in trainer.judges}
    return Scores(by_head, *map(np.concatenate, zip(*(part[1:] for part in parts), strict=True)))


def _joined(head: Head, parts: list[HeadScores]) -> HeadScores:
    loss, known, metrics = zip(*parts, strict=True)
    names = [metric.name for metric in head.metrics[:1]]
    return HeadScores(
        np.concatenate(loss),
        np.concatenate(known),
        {name: np.concatenate([each[name] for each in metrics]) for name in names},
    )


def _scored(trainer: Trainer, rows: Rows, side: int, extra: ExtraColumns | None) -> Scores:
    batch = with_columns(expand(rows, side=side), rows, extra)
    answers = {name: part.cpu() for name, part in trainer.answer(batch.board).items()}
    targets = targets_of(trainer.judges, batch)
    row_losses = losses(trainer.judges, answers, targets)
    logits_BC, target_B = answers[POLICY.name], batch.policy.argmax(dim=1)
    likely_B = logits_BC.softmax(dim=1).gather(1, target_B[:, None])[:, 0]
    facts = (target_B, likely_B, logits_BC.argmax(dim=1), red_probability(trainer.heads, answers))
    by_head = {
        head.name: _head_scores(head, answers[head.name], targets[head.name], row_losses[head.name])
        for head in trainer.judges
    }
    return Scores(by_head, *(part.numpy() for part in facts))


def _head_scores(head: Head, answer: Tensor, target: Target, row_losses: RowLosses) -> HeadScores:
    known_B = torch.ones(len(answer), dtype=torch.bool) if target.known_B is None else target.known_B
    measured = zip(head.metrics[:1], head.measured(answer, target.wanted), strict=False)
    return HeadScores(
        row_losses.loss_B.numpy(), known_B.numpy(), {metric.name: each.numpy() for metric, each in measured}
    )


def grouped(group_P: NDArray[Any], by_head: Mapping[str, HeadScores]) -> dict[str, list[float | None]]:
    """Means over the positions of each group, a column of numbers for each of them; ``from`` is the group's number.

    Each head's loss and first metric, over the positions that have its target; None where a group has none.
    """
    columns = {
        column: (part_P, scores.known_P)
        for name, scores in by_head.items()
        for column, part_P in {f"{name}_loss": scores.loss_P, **scores.metrics}.items()
    }
    table: dict[str, list[float | None]] = {name: [] for name in ("from", "positions", *columns)}
    for group in np.unique(group_P).tolist():
        rows = group_P == group
        means = [_mean(part_P[rows & known_P]) for part_P, known_P in columns.values()]
        for name, value in zip(table, (group, int(rows.sum()), *means), strict=True):
            table[name].append(value)
    return table


def calibration(red_P: NDArray[Any], value_P: NDArray[Any]) -> dict[str, Any]:
    """Calibration (reliability diagram): positions by the probability that RED wins, as said and as it comes true.

    expected_error: the difference of both, a mean over the positions; 0 for a network whose probabilities are honest.
    """
    bin_P = np.minimum((red_P * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    bins = np.unique(bin_P).tolist()
    said, won = ([float(np.mean(part[bin_P == each], dtype=np.float64)) for each in bins] for part in (red_P, value_P))
    counts = [int((bin_P == each).sum()) for each in bins]
    apart = sum(n * abs(s - f) for n, s, f in zip(counts, said, won, strict=True)) / len(red_P)
    table = {"positions": counts, "said": [*map(_short, said)], "found": [*map(_short, won)]}
    return {"expected_error": _short(apart), **table}


@torch.no_grad()
def equivariance(trainer: Trainer, rows: Rows, *, side: int) -> dict[str, float | None]:
    """Equivariance error: how far answers move when a position is shown in another symmetry, a mean over the three.

    policy: the share of probability that goes to other cells, over the positions that have a policy target. value: the
    difference in the probability that RED wins.
    """
    apart = [_turned(trainer, part, side) for part in _parts(rows)]
    policy, value = (np.concatenate(answers) for answers in zip(*apart, strict=True))
    return {"positions": len(rows.value), "policy": _mean(policy), "value": _mean(value)}


def _turned(trainer: Trainer, rows: Rows, side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Symmetry error of the policy and of the value, of each row that counts, in each symmetry but the first."""
    shown = [expand(rows._replace(symmetry=np.full_like(rows.symmetry, s)), side=side) for s in range(4)]
    said = [_back(trainer, batch.board, s, side) for s, batch in enumerate(shown)]
    has_policy = (shown[0].policy > 0).any(dim=1)
    policy = [(likely - said[0][0]).abs().sum(dim=1)[has_policy] / 2 for likely, _ in said[1:]]
    value = [(red - said[0][1]).abs() for _, red in said[1:]]
    return torch.cat(policy).numpy(), torch.cat(value).numpy()


def _back(trainer: Trainer, board: Tensor, symmetry: int, side: int) -> tuple[Tensor, Tensor]:
    """Undo the symmetry: probabilities of cells and of RED's winning, as of the position that was not turned."""
    answers = {name: part.cpu() for name, part in trainer.answer(board).items()}
    cells = torch.from_numpy(symmetry_cells(side)[symmetry].copy())
    likely_BC, red_B = answers[POLICY.name].softmax(dim=1)[:, cells], red_probability(trainer.heads, answers)
    return likely_BC, 1 - red_B if SWAPS_COLOURS[symmetry] else red_B


def memory(train: Mapping[str, Any], val: Mapping[str, Any]) -> dict[str, Any]:
    """Overfitting: how much lower the value loss is in training, and a warning where games look learned by heart."""
    known, unseen = train.get("value_loss", math.nan), val.get("value_loss", math.nan)
    record = {"value_gap": _short(unseen - known)}
    if not (unseen > MEMORY_RATIO * known and unseen - known > MEMORY_GAP):
        return record
    says = f"value loss {known:.3f} in training, {unseen:.3f} in validation: this looks like games learned by heart"
    return {**record, "warning": f"{says}. Train on more games, fewer epochs, or fewer positions of each game"}


def _parts(rows: Rows) -> Iterator[Rows]:
    for first in range(0, len(rows.value), _ROWS_AT_ONCE):
        yield like(rows, (column[first : first + _ROWS_AT_ONCE] for column in rows))


def _spread(rows: Rows, most: int) -> Rows:
    step = -(-len(rows.value) // most)
    return like(rows, (column[::step] for column in rows))


def _mean(numbers: NDArray[Any]) -> float | None:
    return _short(np.mean(numbers, dtype=np.float64)) if len(numbers) else None


def _short(number: float) -> float | None:
    """Round to five digits, for a line of metrics.jsonl holds hundreds of these; None for what is no number."""
    return float(f"{number:.5g}") if math.isfinite(number) else None
