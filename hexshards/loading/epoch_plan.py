"""Epoch plan: what is delivered, in which order, is settled before anything is read, the same for all ranks.

Selections of datasets and their weights make a plan; whatever the plan follows from is its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hexshards.dataset.index import read_index
from hexshards.errors import Misused, escaped, printable, without_secrets
from hexshards.loading.mixture import SHARE, Blend, sequence, whole_parts
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import PASSES, EpochPlan, Window, per_stream, plan_epoch, window_rows
from hexshards.loading.selection.epoch_selection import EpochSelection
from hexshards.loading.streams import plan_streams
from hexshards.loading.window import Windows
from hexshards.piecewise import Piecewise, named
from hexshards.storage.files import Home
from hexshards.storage.remote import home_of
from hexshards.units import counted

State = dict[str, int | str]

Datasets = str | Path | Home | Mapping[str, float] | Mapping[Path, float] | Mapping[Home, float]
"""Where a dataset is; or where several are, and the weights in which they are mixed."""

CHOICES = ("where", "positions", "mix", "mix_schedule", "window", "per_game", "sources", "shards", "streams")
"""What an identity names only where it was asked for, so that states fit releases that had no such choice."""

VERSION = 1
"""Version of the order."""

_LAST = (1 << 31) - 1
"""Of epochs, counted from 0: a checkpoint holds the number counted from 1."""

_SHOWN_ROWS = 64
"""Rows whose order tells in a fingerprint that random numbers are what they were."""


class Epochs:
    """Plans of a loader's epochs: what is used of each dataset, and the order in which it is delivered.

    positions: those that are used, over all datasets. samples: those of an epoch, before a last batch is dropped.
    """

    def __init__(self, datasets: Datasets, spec: LoaderSpec) -> None:
        homes, weights = (datasets, datasets.values()) if isinstance(datasets, Mapping) else ([datasets], [1])
        if not homes:
            raise ValueError("a mix needs at least one dataset")
        self.spec = spec
        self.selections = tuple(self._selection(home_of(home), mixed=len(homes) > 1) for home in homes)
        self.index, self.home = self.selections[0].index, self.selections[0].home
        self._check_can_mix()
        shares = self._shares([str(home) for home in homes])
        self._blend = self._mix(whole_parts(list(weights)), shares) if len(homes) > 1 else None
        self.positions = sum(selection.positions for selection in self.selections)
        passes = PASSES if spec.augment == "all" else 1
        self.samples = self._blend.samples if self._blend else self.positions * passes
        # a state is asked for after every batch, and to hash a large index takes a second
        self._fingerprints = " ".join(selection.index.fingerprint for selection in self.selections)

    @property
    def last(self) -> int:
        """The largest number that an epoch can have."""
        return min(_LAST, self._blend.last) if self._blend else _LAST

    def plan(self, epoch: int) -> EpochPlan:
        """The windows of an epoch, in their order."""
        if self._blend:
            return self._blend.plan(epoch)
        (selection,) = self.selections
        rows, walk = selection.rows_in(epoch), selection.walk
        plan = plan_epoch if self.spec.streams == 1 else plan_streams
        return plan(selection.blocks.per_shard, rows, epoch=epoch, spec=self.spec, walk=walk)

    def windows(self, epoch: int) -> Windows:
        """What an epoch reads, window by window."""
        return Windows(self.selections, self.plan(epoch), self.spec, first=epoch * self.samples)

    def fingerprint(self, epoch: int) -> str:
        """A short hash of an epoch's order: of what determines it, of the order of all blocks and of some rows.

        No data is read.
        """
        plan = self.plan(epoch)
        first = plan.windows[0]
        digest = hashlib.sha256(json.dumps({**self.identity(), "epoch": epoch}, sort_keys=True).encode())
        for window in plan.windows:
            for run in (window,) if isinstance(window, Window) else window.runs:
                digest.update(run.blocks.astype("<i8").tobytes())
        if isinstance(first, Window):
            rows = window_rows(first, _SHOWN_ROWS, spec=self.spec)
        else:
            rows = sequence(first, spec=self.spec)
        digest.update(rows.astype("<i8").tobytes())
        return digest.hexdigest()[:12]

    def identity(self) -> State:
        """What the order of the samples follows from."""
        spec = self.spec
        first = self.selections[0]
        chosen: State = {"where": str(first.where), "positions": spec.positions or 0, "window": str(first.window)}
        chosen |= {
            "per_game": spec.per_game or 0,
            "sources": str(first.sources),
            "shards": spec.shards.replace(" ", ""),
            "streams": spec.streams if spec.streams > 1 else 0,
        }
        if self._blend:
            chosen["mix"] = ":".join(map(str, self._blend.parts))
            chosen["mix_schedule"] = ":".join(str(each or "") for each in self._blend.shares)
        return {
            "version": VERSION,
            "dataset": self._fingerprints,
            "split": spec.split,
            "seed": spec.seed,
            "shuffle": int(spec.shuffle),
            "augment": spec.augment,
            "window_blocks": spec.window_blocks,
            "group_shards": spec.group_shards,
            **{name: value for name, value in chosen.items() if value},
        }

    def describe(self) -> list[str]:
        """What is used of each dataset, a line each; none where a whole dataset is used alone."""
        if self._blend:
            return self._blend_lines(self._blend)
        (selection,) = self.selections
        return [str(selection)] if selection.positions < selection.total else []

    def _blend_lines(self, blend: Blend) -> list[str]:
        total, epoch = sum(blend.parts_at(0)), blend.given_in(0).tolist()
        shares = blend.shares or [None] * len(blend.parts)
        return [
            f"{selection.home}: {part / total:.1%} of the samples, {count:,} an epoch, which are "
            f"{count / selection.positions / blend.passes:.2f} passes over {counted(selection.positions, 'position')}"
            + (f"; its share follows {share}" if share else "")
            + (f" ({selection})" if selection.chosen else "")
            for selection, part, count, share in zip(self.selections, blend.parts_at(0), epoch, shares, strict=True)
        ]

    def _selection(self, home: Home, *, mixed: bool) -> EpochSelection:
        """What is used of a dataset; a mix is limited as a whole."""
        index, spec = read_index(home), self.spec
        if spec.split not in index.splits:
            splits = ", ".join(index.splits)
            raise Misused(f"has no split {spec.split!r} (only {splits})", where=str(home), fix="Name one of these")
        if index.baked and spec.augment != "none":
            raise ValueError(
                f"{escaped(home)}: every position is there in all four symmetries already, so augment={spec.augment!r} "
                'would show them again. Pass augment="none"'
            )
        return EpochSelection(home, index, spec, limit=None if mixed else spec.positions)

    def _check_can_mix(self) -> None:
        first, *others = self.selections
        seen = {first.index.fingerprint: first.home}
        for other in others:
            if other.index.side != first.index.side:
                raise ValueError(
                    f"{escaped(other.home)} has boards of side {other.index.side}, {escaped(first.home)} of "
                    f"{first.index.side}: they "
                    "can't be mixed"
                )
            if same := seen.get(other.index.fingerprint):
                raise ValueError(
                    f"{escaped(other.home)} and {escaped(same)} are the same dataset: name it once, with both weights"
                )
            seen[other.index.fingerprint] = other.home

    def _shares(self, names: Sequence[str]) -> tuple[Piecewise | None, ...]:
        """The schedule of each dataset's share; nothing where there is none. Raises ValueError."""
        schedules = named(self.spec.mix_schedule, name="mix_schedule")
        if not schedules:
            return ()
        if unknown := sorted(schedules.keys() - {*names}):
            raise ValueError(f"mix_schedule: {without_secrets(printable(unknown[0]))} is none of the datasets of a mix")
        if len(schedules) == len(names) or sum(each.most for each in schedules.values()) >= 1:
            raise ValueError("mix_schedule: the shares must stay below 1 together and leave the rest to a dataset")
        if not all(each.most * SHARE >= 1 for each in schedules.values()) or not self.spec.shuffle:
            raise ValueError("mix_schedule: a share must be above 0 at some time, and the order shuffled")
        return tuple(schedules.get(name) for name in names)

    def _mix(self, parts: tuple[int, ...], shares: tuple[Piecewise | None, ...]) -> Blend:
        selections, spec = self.selections, self.spec
        block = max(selection.index.layout.block_positions for selection in selections)
        return Blend(
            parts=parts,
            shares=shares,
            shard_blocks=tuple(selection.blocks.per_shard for selection in selections),
            block_rows=tuple(selection.rows_in for selection in selections),
            walks=tuple(selection.walk for selection in selections),
            window_rows=block * per_stream(spec.window_blocks, spec),
            spec=spec,
        )
