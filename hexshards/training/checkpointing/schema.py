"""Schema of a checkpoint's plain parts and of a record: types, bounds, and names that cannot lead out of the folder.

Whatever a file claims is compared with it before anything is indexed, counted or opened by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from hexshards.errors import printable
from hexshards.training.checkpointing.plain_values import MAX_DEPTH, NotPlain

CHECKPOINT_NAME = r"^checkpoint_epoch(\d{1,10})_mini(\d{1,10})(_partial)?\.pt\Z"
"""Of the file of a checkpoint. A name in a record is opened, linked and removed, so it must be one."""

Number = Annotated[int, Meta(ge=1, le=1 << 31)]
"""An epoch or a mini-epoch, counted from 1."""
Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Name = Annotated[str, Meta(pattern=CHECKPOINT_NAME, max_length=80)]


class SavedBucket(msgspec.Struct, kw_only=True, frozen=True):
    """What a train bucket counts from."""

    samples: Count
    chosen: Count
    split: Count


class Counters(msgspec.Struct, kw_only=True, frozen=True):
    """Where a checkpoint stands in its run, and whether its mini-epoch is whole."""

    epoch: Number
    mini_epoch: Number
    epoch_batches: Count
    epoch_samples: Count
    mini_batches: Count
    mini_samples: Count
    samples_seen: Count
    finished: bool
    bucket: SavedBucket | None = None
    """Of a run with --samples-per-position."""

    def __post_init__(self) -> None:
        if self.bucket is not None and self.bucket.samples > self.samples_seen:
            raise ValueError("more samples before the train bucket than in all")
        if max(self.epoch_samples, self.mini_samples) > self.samples_seen:
            raise ValueError("more samples in an epoch or mini-epoch than in all")


class SavedStanding(msgspec.Struct, kw_only=True, frozen=True):
    """The best mini-epoch so far, and how long the run took."""

    best: float | None
    checkpoint: Name | None
    waited: Count
    used_s: Annotated[float, Meta(ge=0, le=1e12)]


class RandomStates(msgspec.Struct, kw_only=True, frozen=True):
    """The random state of each rank: a tensor for the CPU and one for each GPU."""

    ranks: Annotated[list[Any], Meta(min_length=1, max_length=1 << 20)]

    def __post_init__(self) -> None:
        if not all(isinstance(rank, dict) and rank.keys() - {"mps"} == {"cpu", "cuda"} for rank in self.ranks):
            raise ValueError("a rank without cpu and cuda")
        for rank in self.ranks:
            apples = [rank["mps"]] if "mps" in rank else []
            states = [rank["cpu"], *rank["cuda"], *apples] if isinstance(rank["cuda"], list) else []
            if not states or not all(isinstance(each, Tensor) and each.dtype == torch.uint8 for each in states):
                raise ValueError("a random state that is no bytes")


class Record(msgspec.Struct, kw_only=True, frozen=True):
    """What every record of a mini-epoch has; there is more, as trainers and hooks choose."""

    epoch: Number
    mini_epoch: Number
    samples_seen: Count
    checkpoint: Name


SCHEMA: dict[str, Any] = {
    "dataset": Annotated[str, Meta(max_length=1_000)],
    "options": dict[str, Any],
    "counters": Counters,
    "standing": SavedStanding,
    "loader_state": dict[str, Any],
    "random_state": RandomStates,
    "metrics": dict[str, Any],
}
"""What the top level of a checkpoint holds beside its format and the trainer's own state."""

PLAIN = ("options", "counters", "standing", "metrics", "loader_state")
"""Parts without tensors."""


def problem_of(state: Mapping[str, Any]) -> str | None:
    """What is wrong with a checkpoint's plain parts, as one phrase; None where all is as it should be."""
    for name, kind in SCHEMA.items():
        if name not in state:
            return f"holds no {name}"
        try:
            if name in PLAIN:
                _check_plain(state[name], depth=0)
            # msgspec would ask a tensor for attributes that it has not
            msgspec.convert(None if isinstance(state[name], Tensor) else state[name], kind)
        except (msgspec.ValidationError, NotPlain) as error:
            return f"holds {name} that cannot be: {printable(error, width=300)}"
    if state["counters"]["finished"]:
        return problem_of_record(state["metrics"])
    return None


def problem_of_record(record: object) -> str | None:
    """What is wrong with the record of a mini-epoch, as one phrase."""
    try:
        msgspec.convert(record, Record)
    except msgspec.ValidationError as error:
        return f"holds a record that cannot be: {printable(error, width=300)}"
    return None


def _check_plain(value: object, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotPlain("lists or dicts within each other without end")
    match value:
        case None | bool() | int() | float() | str():
            return
        case list() | tuple():
            parts: Iterable[object] = value
        case dict():
            parts = [*value, *value.values()]
        case _:
            raise NotPlain(f"an object of {type(value).__name__}")
    for part in parts:
        _check_plain(part, depth=depth + 1)
