"""verify re-reads every byte, checks every checksum, count and column, and that no game is in two splits.

Games are compared by their names, and by what is on their boards (hexshards.dataset.torn_games).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from hexshards.arguments import checked
from hexshards.dataset.index import SPLITS, Counts, Index, Split, read_index
from hexshards.dataset.layout import Shard
from hexshards.dataset.shard import REPAIR, OpenShard, open_shard
from hexshards.dataset.split import game_keys
from hexshards.dataset.torn_games import TornGames
from hexshards.errors import DataError, escaped
from hexshards.game.positions import Positions
from hexshards.game.symmetry import upright
from hexshards.game.validation import Draft, admit
from hexshards.rng import Words
from hexshards.storage.files import Home
from hexshards.storage.remote import home_of
from hexshards.units import counted

_LEAKS = "Convert again: validation on these shards measures memory, not skill"
_COUNTED = ("positions", "blue_wins", "red_wins", "without_policy", "games", "plies")
_EDITED = "The index does not describe these shards: fetch the dataset again, or convert again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Result of verify: what was checked, and each problem; sound when there are none."""

    positions: int
    blocks: int
    shards: int
    games: int
    problems: tuple[DataError, ...]


@checked
def verify(dataset: str | Path | Home, *, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Verify a dataset: re-read every byte and report each problem, one for each block, shard or count.

    ``progress`` is told positions done and positions in all. Raises FileNotFoundError where there is no dataset, and
    DataError when the index itself can't be used.
    """
    home, index = home_of(dataset), read_index(dataset)
    total = sum(split.positions for split in index.splits.values())
    problems_of: dict[str, list[DataError]] = {name: [] for name in index.splits}
    games: dict[str, Words] = {}
    torn = [TornGames(val, train) for train, val in _pairs(index)]
    done = 0
    # val is remembered, train compared with it
    for name in filter(index.splits.__contains__, reversed(SPLITS)):
        split, problems, tally = index.splits[name], problems_of[name], _Tally(index)
        for shard in split.shards:
            read = 0
            for block in _look_into(home, shard, index):
                if isinstance(block, DataError):
                    problems.append(block)
                else:
                    tally.add(block)
                    for each in torn:
                        each.add(name, block)
                    read += len(block)
                    if progress:
                        progress(min(done + read, total), total)
            done += shard.positions
            if progress:
                progress(done, total)
        games[name] = tally.games
        if not problems:
            problems += tally.differences(split, where=f"{home}, split {name}")
    problems = [problem for each in problems_of.values() for problem in each]
    straddling = [problem for pair in _pairs(index) for problem in _straddling(games, pair, home)]
    problems += straddling or ([] if problems else [problem for each in torn for problem in _torn(each, home)])
    splits = index.splits.values()
    return Verification(
        positions=total,
        blocks=sum(len(shard.block_bytes) for split in splits for shard in split.shards),
        shards=sum(len(split.shards) for split in splits),
        games=len(np.unique(np.concatenate(list(games.values())))),
        problems=tuple(problems),
    )


def _look_into(home: Home, shard: Shard, index: Index) -> Iterator[Positions | DataError]:
    """Verify a shard: its sound blocks, and a problem for each other one; the shard's own where no block tells it."""
    try:
        with open_shard(home, shard) as file:
            yield from _look_at(file, index)
    except DataError as error:
        yield error


def _look_at(file: OpenShard, index: Index) -> Iterator[Positions | DataError]:
    shard, where = file.shard, file.where
    digest = hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]  # it asks for readinto too
    others = {other.sha256: other.name for split in index.splits.values() for other in split.shards}
    if digest != shard.sha256 and digest in others:
        yield DataError(f"holds the contents of {others[digest]}", where=where, fix="Give the files back their names")
        return
    damaged = (size := file.size_from(0)) != shard.size_bytes
    if damaged:
        yield DataError(f"holds {counted(size, 'byte')}, the index says {shard.size_bytes:,}", where=where, fix=REPAIR)
    for block in _blocks(file, index):
        damaged |= isinstance(block, DataError)
        yield block
    if digest != shard.sha256 and not damaged:
        yield DataError("differs from the index after its last block", where=where, fix=REPAIR)


def _blocks(file: OpenShard, index: Index) -> Iterator[Positions | DataError]:
    """The blocks that the file reaches; of those behind its end the first tells it."""
    layout, beyond = index.layout, False
    names = list(layout.columns())
    for number in range(len(file.shard.block_bytes)):
        if beyond:
            return
        beyond = file.size_from(number) == 0
        try:
            columns = file.read_block(number, layout=layout, sources=len(index.sources), names=names)
            positions = Positions.of(layout.side, columns, layout.optional)
            _check_columns(positions, index, where=f"{file.where}, block {number:06d}")
            yield positions
        except DataError as error:
            yield error


def _check_columns(positions: Positions, index: Index, *, where: str) -> None:
    """Let the border look at packed positions again. Raises DataError at the first bad one."""
    if index.baked:
        positions = upright(positions)
    policy = positions.softened().policy.astype(np.float32)
    draft = Draft(
        side=positions.side,
        boards=positions.planes(),
        policy=policy,
        has_policy=np.any(policy, axis=1),
        value=positions.value.astype(np.float64),
        player=positions.player.astype(np.int8),
        ply=positions.ply,
        source=positions.source,
        game=positions.game,
        plies=positions.plies,
        tier=positions.tier,
        places=[f"row {row}" for row in range(len(positions))],
        optional=positions.optional,
    )
    _, rejects = admit(draft)
    if rejects:
        place, reason, finding = rejects[0]
        raise DataError(f"{place}: {reason} ({finding})", where=where, fix=REPAIR)


class _Tally:
    """Running counts of one split, as its blocks are read."""

    def __init__(self, index: Index) -> None:
        self.sources = index.sources
        self.games: Words = np.zeros(0, dtype=np.uint64)
        self.positions, self.counts = 0, Counts.none(index.side)

    def add(self, positions: Positions) -> None:
        keys = game_keys(self.sources, positions.source, positions.game)
        self.games = np.union1d(self.games, keys)
        self.positions += len(positions)
        self.counts = Counts.sum([self.counts, Counts.of(positions)])

    def differences(self, split: Split, *, where: str) -> list[DataError]:
        """What the index counts otherwise."""
        counts = {**asdict(self.counts), "positions": self.positions, "games": len(self.games)}
        return [
            DataError(f"{name} counted {counts[name]}, the index says {getattr(split, name)}", where=where, fix=_EDITED)
            for name in _COUNTED
            if getattr(split, name) != counts[name]
        ]


def _pairs(index: Index) -> list[tuple[str, str]]:
    return list(combinations([name for name in SPLITS if name in index.splits], 2))


def _straddling(games: dict[str, Words], pair: tuple[str, str], home: Home) -> list[DataError]:
    one, other = pair
    both = np.intersect1d(games[one], games[other])
    if not len(both):
        return []
    problem = f"{counted(len(both), 'game', verb='is/are')} in both {escaped(' and '.join(pair))}"
    return [DataError(problem, where=str(home), fix=_LEAKS)]


def _torn(torn: TornGames, home: Home) -> list[DataError]:
    if not torn.count:
        return []
    number = counted(torn.count, "position", verb="is/are")
    problem = f"{number} in one split and the rest of the same game, by the boards and under another name, in the other"
    if (torn.train, torn.val) != SPLITS[:2]:
        problem += f" ({escaped(torn.train)} and {escaped(torn.val)})"
    return [DataError(problem, where=str(home), fix=_LEAKS)]
