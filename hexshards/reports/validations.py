"""What runs were validated on: their numbers can be compared where it was the same positions, and nowhere else.

A run's folder keeps the index of the dataset as it validates on it. Of a run without one, which an earlier release or a
loop of somebody's own made, it is not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hexshards.config_files import read_toml
from hexshards.dataset.index import Index, read_index
from hexshards.errors import DataError
from hexshards.training.options import CONFIG, STATES, VALIDATION
from hexshards.units import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """Positions that a run was validated on."""

    identity: str
    """Equal where they are the same positions, by the checksums of their shards."""
    positions: int
    side: int

    def __str__(self) -> str:
        return f"{counted(self.positions, 'position')} of side {self.side}"


def validation_index(run: Path) -> Index | None:
    """The dataset as a run validates on it; None where the run's folder does not say, or has no validation."""
    with suppress(DataError, FileNotFoundError, ValueError):
        index = read_index(run / STATES / VALIDATION)
        return index if "val" in index.splits else None
    return None


def validation_of(run: Path) -> Validated | None:
    """What a run was validated on, as its folder says; None where it does not."""
    with suppress(DataError, FileNotFoundError, ValueError):
        return validated(validation_index(run), most=read_toml(run / CONFIG).get("val_samples"))
    return None


def validated(index: Index | None, *, most: object) -> Validated | None:
    """What is validated on of a dataset. most: the option val_samples, as a run's config.toml has it."""
    if index is None:
        return None
    split, limit = index.splits["val"], most if isinstance(most, int) else None
    if limit is None or limit >= split.positions:
        marks, count = list(index.written("val")), split.positions
    else:
        # which these are depends on the shards that they are taken from evenly
        marks, count = [*(shard.sha256 for shard in split.shards), str(limit)], limit
    identity = hashlib.sha256(" ".join(marks).encode()).hexdigest()[:12]
    return Validated(identity=identity, positions=count, side=index.side)


def is_of(index: Index, held: Index) -> bool:
    """Whether what a run was validated on is val of a dataset, as it is or as it was before it grew."""
    written = held.written("val")
    return "val" in index.splits and index.written("val")[: len(written)] == written


UNKNOWN, MEASURE = "?", "`hexshards evaluate RUN --split val --dataset DIR` measures each on the same positions"


def named(validations: Sequence[Validated | None]) -> dict[str, str]:
    """A short name for each validation, by its identity, in their order; none where all that are known are the same."""
    known = dict.fromkeys(each.identity for each in validations if each)
    return {identity: f"v{number}" for number, identity in enumerate(known, start=1)} if len(known) > 1 else {}


def name_of(validation: Validated | None, names: Mapping[str, str]) -> str:
    """The short name of a validation; of one that is not known, a question mark."""
    return names[validation.identity] if validation else UNKNOWN


def apart(validations: Sequence[Validated | None]) -> str:
    """That some runs cannot be compared with others, and what each was validated on; empty where all can."""
    names = named(validations)
    if not names:
        return ""
    each = {name: str(one) for one in validations if one for name in [names[one.identity]]}
    told = "; ".join(f"{name} {text}" for name, text in each.items())
    return f"runs of different validations cannot be compared: {told}"
