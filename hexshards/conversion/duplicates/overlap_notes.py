"""Notes on what is there more than once, or in the dataset already: estimated by sketches, and counted where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hexshards.conversion.duplicates.count_games import shard_sketches
from hexshards.conversion.duplicates.exact_overlap import (
    MAX_POSITIONS,
    MAX_READ,
    boards_of,
    boards_of_shards,
    held_already,
    joined,
    several_times,
)
from hexshards.conversion.duplicates.overlaps import Overlap, overlap, overlap_with
from hexshards.dataset.index import Index
from hexshards.dataset.layout import Shard
from hexshards.game.positions import Positions
from hexshards.rng import Words
from hexshards.units import counted


def overlap_notes(
    sketches: Sequence[Words], *, folder: Path, scratch: Path, base: Index | None, index: Index
) -> list[str]:
    """Sentences on files of these sketches, whose shards are written and in ``index``, and those of ``base`` before."""
    held = _shards(base)
    twice, again = overlap(sketches), overlap_with(shard_sketches(scratch, held), sketches)
    if (twice.positions or again.positions) and not (twice.exact and again.exact):
        twice, again = _counted(twice, again, folder=folder, held=held, index=index)
    notes = []
    if twice.positions:
        notes.append(
            f"{_about(twice, 'is/are')} there more than once, by several files: kept. --dedupe games keeps each once; "
            "or name one of the folders or formats"
        )
    if again.positions:
        notes.append(f"{held_already_text(again)}: added once more. {REMEDY}")
    return notes


REMEDY = "A dataset made with --dedupe games takes each once: convert everything so into another folder"
"""What to do where a dataset holds what was added."""


def held_already_text(again: Overlap, verb: str = "was/were") -> str:
    """How much of an addition the dataset holds."""
    return f"{_about(again, verb)} in the dataset already, from other files"


def held_of_file(names: Sequence[str], positions: Positions, *, folder: Path, base: Index) -> Overlap:
    """How much of a file, whose sources have these names in the dataset, is in the dataset by other files.

    Of a dataset without a source of such a name nothing is read, and of one that is too large nothing is told.
    """
    held = _shards(base)
    read = len(positions) + sum(shard.positions for shard in held)
    if not {*names} & {*base.sources} or len(positions) > MAX_POSITIONS or read > MAX_READ:
        return Overlap(0, 0)
    ours = boards_of(names, positions.columns())
    return held_already(ours, boards_of_shards(held, folder=folder, index=base))


def _counted(
    twice: Overlap, again: Overlap, *, folder: Path, held: Sequence[Shard], index: Index
) -> tuple[Overlap, Overlap]:
    """The same to the position, where it is not too much to read, and no position is stored in several symmetries."""
    added = [shard for shard in _shards(index) if shard not in held]
    held = held if again.positions else ()
    positions, read = (sum(shard.positions for shard in each) for each in (added, [*added, *held]))
    if index.baked or positions > MAX_POSITIONS or read > MAX_READ:
        return twice, again
    ours = joined(boards_of_shards(added, folder=folder, index=index))
    return several_times(ours), held_already(ours, boards_of_shards(held, folder=folder, index=index))


def _shards(index: Index | None) -> list[Shard]:
    return [shard for split in index.splits.values() for shard in split.shards] if index else []


def _about(overlap: Overlap, verb: str) -> str:
    about = "" if overlap.exact else "about "
    one, _, many = verb.partition("/")
    games = f"{about}{counted(overlap.games, 'game')}"
    of = "" if overlap.exact else f" (one game in {overlap.one_in:.3g} was compared)"
    return f"{about}{counted(overlap.positions, 'position')} of {games}{of} {one if overlap.positions == 1 else many}"
