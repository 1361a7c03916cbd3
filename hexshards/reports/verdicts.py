"""Verdicts on a dataset: each a sentence with its figure, how it stands, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from hexshards.dataset.index import FEW_GAMES, Index
from hexshards.dataset.split import game_keys
from hexshards.dataset.torn_games import TornGames
from hexshards.loading.shuffle_quality import Mixing
from hexshards.reports.copies import Shared, copies, copies_of_games
from hexshards.reports.sample import Sample
from hexshards.reports.source_files import FAR, SourceFiles
from hexshards.rng import Words
from hexshards.units import counted, show_number

Level = Literal["good", "look", "bad", "unknown"]
"""Nothing to do; worth a look; mend it before training; it could not be told."""

LEAK_LOOK, LEAK_BAD = 0.02, 0.1
"""Shares of val's late positions in train. Of real games under 1 in 100 is there twice; repeats of games bring more."""

COPIES_LOOK, COPIES_BAD = 1.1, 1.5
"""How often a game, or a late position, is there."""

BALANCE_LOOK, BALANCE_BAD = 0.65, 0.9
"""Shares of positions that one player won."""

SPLITS_APART = 0.05
"""How far the splits' shares of BLUE's wins may be from each other."""

REJECTED_LOOK = 0.01
"""Share of what the source files held."""

NAMED_FILES = 5
"""Odd files that a verdict names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was asked, what was found, and what to do about it."""

    name: str
    level: Level
    says: str
    do: str = ""


def verdicts_of(
    index: Index,
    samples: Sequence[Sample],
    *,
    files: SourceFiles,
    compared: Mapping[str, Shared],
    mixing: Mixing | None,
) -> list[Verdict]:
    """All verdicts, in the order in which a person asks. ``compared``: with training, by the other split's name."""
    return [
        _torn(samples),
        *_few_games(index),
        *([_leakage(split, each) for split, each in compared.items()] or [_leakage("val", None)]),
        _mixing(mixing),
        _balance(index),
        _repeated_games(samples[0]),
        _repeated_positions(samples[0]),
        _odd_files(files),
        _sides(index, files),
        _sources(index),
    ]


def _torn(samples: Sequence[Sample]) -> Verdict:
    name = "Games in both splits"
    if len(samples) < 2:
        return Verdict(
            name=name,
            level="unknown",
            says=f"There is one split, {samples[0].split}, and none to compare it with.",
            do="Convert with --val-fraction 0.02, so that a run can tell skill from memory.",
        )
    both = torn = 0
    for one, other in combinations(samples, 2):
        both += _games_in_both(one, other)
        torn += _torn_off(one, other)
    read = "" if all(each.whole for each in samples) else " among those that were read"
    if both or torn:
        says = f"{counted(both, 'game', verb='is/are')} in both splits by name, and "
        says += f"{counted(torn, 'position', verb='is/are')} torn off the rest of a game by the board{read}."
        return Verdict(
            name=name,
            level="bad",
            says=says,
            do="Convert the source files again into a new folder: validation here measures memory.",
        )
    where = "both splits" if len(samples) == 2 else "two splits"
    return Verdict(name=name, level="good", says=f"No game is in {where}{read}, by name or by board.")


def _torn_off(train: Sample, val: Sample) -> int:
    torn = TornGames(val.split, train.split)
    for sample in (val, train):
        torn.add(sample.split, sample.positions)
    return torn.count


def _few_games(index: Index) -> Iterator[Verdict]:
    val = index.splits.get("val")
    if not val:
        return
    name, games = "Games to validate on", index.few_val_games
    if games is None:
        yield Verdict(name=name, level="good", says=f"Validation has {counted(val.games, 'game')}.")
    else:
        yield Verdict(
            name=name,
            level="look",
            says=f"Validation has {counted(games, 'game')}, and all positions of a game have one winner: what it says "
            "of the value is off by chance, by several points in a hundred.",
            do=f"Convert with a larger --val-fraction, so that {counted(FEW_GAMES, 'game')} or more are held back; or, "
            "while games are still added, begin a run when there are: it validates to its end on those of its start.",
        )


def _games_in_both(train: Sample, val: Sample) -> int:
    words = list[Words]()
    for sample in (train, val):
        rows = sample.games
        words.append(game_keys(sample.index.sources, sample.positions.source[rows], sample.positions.game[rows]))
    return len(np.intersect1d(words[0], words[1]))


def _leakage(split: str, shared: Shared | None) -> Verdict:
    held = "validation positions" if split == "val" else "test positions"
    name = "Leakage" if split == "val" else f"Leakage of {split}"
    if shared is None or not shared.late:
        return Verdict(name=name, level="unknown", says=f"There are no late {held} to compare.")
    share = shared.late_share
    late = f"{shared.late_shared:,} of {shared.late:,} late {held}"
    if shared.exact:
        says = f"{late} ({share:.1%}) are in training too"
    else:
        read = counted(shared.read, "position")
        says = f"{late} were met among {read} of train that were read, so about {share:.1%} are "
        says += "in training too"
    says += ", in any symmetry. Late ones have as many stones as the board has rows, or more."
    level = _level(share, LEAK_LOOK, LEAK_BAD)
    do = "Convert with --dedupe games, or --dedupe symmetric; `hexshards verify --leakage` counts all."
    return Verdict(name=name, level=level, says=says, do="" if level == "good" else do)


def _mixing(mixing: Mixing | None) -> Verdict:
    name = "Mixing"
    if mixing is None:
        return Verdict(name=name, level="unknown", says="There are too few positions for two batches to compare.")
    over = f"{counted(mixing.batches, 'batch')} of {mixing.batch_size:,}"
    if (worst := mixing.worst) is None:
        says = f"{over} of the loader are mixed at least as well as by a uniform shuffle."
        return Verdict(name=name, level="good", says=says)
    measured, uniform = show_number(worst.measured), show_number(worst.uniform)
    says = f"In {over}, {worst.name} is {measured} where a uniform shuffle gives {uniform}: "
    if mixing.sound:
        says += f"at worst as if batches were {worst.lost:.1%} smaller, which is not seen in a loss."
        return Verdict(name=name, level="good", says=says)
    says += f"at worst as if batches were {worst.lost:.0%} smaller."
    return Verdict(name=name, level="bad", says=says, do=f"{mixing.remedy}.")


def _balance(index: Index) -> Verdict:
    shares = {name: split.blue_wins / max(split.positions, 1) for name, split in index.splits.items()}
    blue = shares.get("train", next(iter(shares.values())))
    most = max(blue, 1 - blue)
    winner = "BLUE" if blue >= 0.5 else "RED"
    says = (
        f"{winner} won {most:.1%} of the positions: a network that always says so is right that often. "
        "Hold the accuracy of the value against it."
    )
    for held in ("val", "test"):
        if {"train", held} <= shares.keys() and abs(blue - shares[held]) > _by_chance(index.splits[held].games):
            apart = f"BLUE won {blue:.1%} of train and {shares[held]:.1%} of {held}."
            do = f"Use a larger --{held}-fraction, or more games."
            return Verdict(name="Balance", level="look", says=apart, do=do)
    level = _level(most, BALANCE_LOOK, BALANCE_BAD)
    do = "Look at the winners by source file: one player may always be the stronger one, or values be inverted."
    return Verdict(name="Balance", level=level, says=says, do="" if level == "good" else do)


def _by_chance(games: int) -> float:
    """How far the share of a split's wins may be from that of the other: all positions of a game share its winner."""
    return max(SPLITS_APART, FAR * 0.5 / math.sqrt(max(games, 1)))


def _repeated_games(sample: Sample) -> Verdict:
    often = copies_of_games(sample)
    if math.isnan(often):
        return Verdict(name="Repeated games", level="unknown", says="There are no final positions to compare games by.")
    level = _level(often, COPIES_LOOK, COPIES_BAD)
    times = f"{_about(sample)}{often:.2f} times on average"
    says = f"A game of {sample.split} is there {times}, by the boards on which games ended."
    do = "Convert with --dedupe games, which keeps each game once." if level != "good" else ""
    return Verdict(name="Repeated games", level=level, says=says, do=do)


def _about(sample: Sample) -> str:
    return "" if sample.whole else "about "


def _repeated_positions(sample: Sample) -> Verdict:
    side, positions = sample.index.side, sample.positions
    late = positions.ply >= side
    often = copies(sample.keys[late], int(sample.total_by_ply[side:].sum()))
    if math.isnan(often):
        return Verdict(name="Repeated positions", level="unknown", says="There are no late positions to compare.")
    level = _level(often, COPIES_LOOK, COPIES_BAD)
    says = f"A position with {side} stones or more is there {_about(sample)}{often:.2f} times on average."
    do = "Convert with --dedupe positions, which merges equal ones and counts them." if level != "good" else ""
    return Verdict(name="Repeated positions", level=level, says=says, do=do)


def _odd_files(files: SourceFiles) -> Verdict:
    name, odd = "Outlier files", sorted({*files.odd_winners, *files.odd_lengths})
    if not odd:
        judged = counted(int((files.games > 0).sum()), "file")
        return Verdict(
            name=name, level="good", says=f"No file of {judged} has other winners or lengths of games than the rest."
        )
    told = [*_odd_winners(files), *_odd_lengths(files)]
    more = f", and {len(told) - NAMED_FILES} more" if len(told) > NAMED_FILES else ""
    return Verdict(
        name=name,
        level="look",
        says="; ".join(told[:NAMED_FILES]) + more + ".",
        do="Look at these files: inverted values, another player, or cut games. `--where source=...` leaves files out.",
    )


def _odd_winners(files: SourceFiles) -> Iterator[str]:
    for at in files.odd_winners:
        yield f"{files.name(at)}: BLUE won {files.blue[at]:.0%}, elsewhere {files.mean_blue:.0%}"


def _odd_lengths(files: SourceFiles) -> Iterator[str]:
    mean = float(np.nanmean(np.where(files.games > 0, files.length, np.nan)))
    for at in files.odd_lengths:
        yield f"{files.name(at)}: games of {files.length[at]:.0f} stones, elsewhere about {mean:.0f}"


def _sides(index: Index, files: SourceFiles) -> Verdict:
    side, small = index.side, files.small_boards
    if not small:
        return Verdict(
            name="Sides mixed", level="good", says=f"All boards are {side} by {side} and used to their edges."
        )
    named = ", ".join(f"{files.name(at)} (to {files.reach[at]})" for at in small[:NAMED_FILES])
    more = f", and {len(small) - NAMED_FILES} more" if len(small) > NAMED_FILES else ""
    return Verdict(
        name="Sides mixed",
        level="bad",
        says=f"On boards of side {side}, no stone comes to the last row or column in {named}{more}.",
        do="These look like games of a smaller board: convert each side into a dataset of its own.",
    )


def _sources(index: Index) -> Verdict:
    lost = sum(file.without_game for file in index.inputs)
    rejected, kept = (sum(getattr(file, name) for file in index.inputs) for name in ("rejected", "positions"))
    if lost:
        says = counted(lost, "position", verb="does not say which game it is from/do not say which game they are from")
        do = "They were split by file: convert from files that name their games, such as trmph records."
        return Verdict(name="Source files", level="look", says=f"{says}.", do=do)
    if rejected > REJECTED_LOOK * max(kept, 1):
        says = f"{counted(rejected, 'entry', verb='was/were')} rejected, and {counted(kept, 'position')} kept."
        return Verdict(name="Source files", level="look", says=says, do="`hexshards info` says in which files.")
    read = counted(len(index.inputs), "file")
    says = f"Of {read}, {counted(rejected, 'entry', verb='was/were')} rejected, and every position names its game."
    return Verdict(name="Source files", level="good", says=says)


def _level(number: float, look: float, bad: float) -> Level:
    return "bad" if number >= bad else "look" if number >= look else "good"
