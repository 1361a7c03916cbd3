"""Deduplicate games: one is kept once, by however many files it comes; which follows from the files alone.

Of equal positions of a game one stays, which says most. Of games whose whole moves and result are equal one name stays:
the positions of the others are left out, also those that came one by one. A position without a move to learn gives way
to the same one with a move. What names no game stays. Positions are compared a range of their keys at a time, on disk.

Of a dataset that is added to, the positions of a game lie in many shards: what tells a whole game, a sum over its
positions, is summed for each shard and then over the shards. Noted on disk, 48 bytes for each game of each shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards.conversion.duplicates.count_games import key_ranges, within
from hexshards.conversion.duplicates.same_games import (
    KNOWN_BITS,
    NO_GAME,
    NO_MOVE,
    changes,
    contents,
    moves,
    position_keys,
)
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.sorted_runs import Spill, images_of, save_arrays
from hexshards.dataset.index import SPLITS, Index
from hexshards.dataset.layout import Shard
from hexshards.dataset.shard import open_shard
from hexshards.dataset.split import game_keys
from hexshards.game.board import MAX_SIDE
from hexshards.game.columns import UNKNOWN
from hexshards.game.positions import Positions
from hexshards.game.symmetry import TURN, image, of_blues_start
from hexshards.rng import Words, mix
from hexshards.storage.files import Folder

TOGETHER = 1 << 20
"""Positions, whole games, or games of shards, looked at together: about 100 MB."""


_HELD = np.dtype([("key", "<u8"), ("move", "<u8")])
_SUMS = np.dtype(
    [("game", "<u8"), ("contents", "<u8"), ("plies", "<u8"), ("rows", "<i8"), ("least", "<i8"), ("most", "<i8")]
)
"""Of the positions of a game: their contents, as they are and turned; their numbers of stones; how many they are; the
least and the most that one says of the length of the game."""


class HeldGames(NamedTuple):
    """The games of a dataset."""

    whole: Words
    """(G, 2) by the first: what positions of a whole game add up to, and the word of its name."""
    in_part: int
    """Games of which it has some positions, or does not know their lengths."""


class LeftOut(NamedTuple):
    """What came more than once."""

    rows: int
    games: int
    """Whole games that are another one under another name."""
    in_part: int
    """Positions that were kept of games that did not come whole: these are known by file and line alone."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Some positions of all spills and of what a dataset holds, side by side."""

    key: Words
    move: Words
    known: Words
    stays: NDArray[np.bool_]
    """Of a whole game whose name stays."""
    goes: NDArray[np.bool_]
    """Of a whole game that is another one."""
    held: NDArray[np.bool_]
    """In the dataset already."""
    in_part: NDArray[np.bool_]
    """Of a game that did not come whole."""


def without_copies(
    spills: Sequence[Spill], *, held: Sequence[Path], games: HeldGames | None = None
) -> tuple[list[Spill], LeftOut]:
    """The spills without what came more than once, or is in the dataset; and how much that was.

    held: notes of its positions. games: its games.
    """
    staying = _names_that_stay(spills)
    if games:
        for stays, spill in zip(staying, spills, strict=True):
            stays &= ~under_other_names(spill.whole_games(), games)
    thinned = {split: _thinned(spills, split, staying, held) for split in SPLITS}
    rows = {split: counts for split, (counts, _) in thinned.items()}
    kept = [
        replace(spill, rows={split: rows[split][place] for split in SPLITS}, thinned=True)
        for place, spill in enumerate(spills)
    ]
    left = sum(sum(spill.rows.values()) for spill in spills) - sum(map(sum, rows.values()))
    in_part = sum(count for _, count in thinned.values())
    return kept, LeftOut(left, sum(int((~each).sum()) for each in staying), in_part)


# whole games --------------------------------------------------------------------------------------------------------


def _names_that_stay(spills: Sequence[Spill]) -> list[NDArray[np.bool_]]:
    """Of each spill's whole games, whether its name is the smallest of those of all equal games."""
    stays = [np.zeros(len(spill.whole_games()), dtype=bool) for spill in spills]
    for low, high in key_ranges(sum(map(len, stays)), TOGETHER):
        parts = [within(spill.whole_games()[:, 0], low, high) for spill in spills]
        words = np.concatenate([spill.whole_games()[part] for spill, part in zip(spills, parts, strict=True)])
        order = np.lexsort((words[:, 2], words[:, 1], words[:, 0]))
        new = changes(words[order, 0], words[order, 1])
        names = words[order, 2]
        staying = np.zeros(len(words), dtype=bool)
        staying[order] = names == names[np.flatnonzero(new)][np.cumsum(new) - 1] if len(words) else False
        for mine, part, own in zip(stays, parts, _split(staying, parts), strict=True):
            mine[part] = own
    return stays


# positions ----------------------------------------------------------------------------------------------------------


def _thinned(
    spills: Sequence[Spill], split: str, staying: Sequence[NDArray[np.bool_]], held: Sequence[Path]
) -> tuple[list[int], int]:
    """Note which rows of each spill stay, and say how many, and how many of all are of games that came in part.

    No file stays open: a process may not have so many.
    """
    for spill in spills:
        spill.kept_path(split).write_bytes(b"")
    counts, in_part = [0 for _ in spills], 0
    total = sum(spill.rows[split] for spill in spills) + sum(len(_there(path)) for path in held)
    for low, high in key_ranges(total, TOGETHER):
        parts = [within(spill.array(split, "keys"), low, high) for spill in spills]
        rows = [_rows(spill, split, part, stays) for spill, part, stays in zip(spills, parts, staying, strict=True)]
        rows += [_held_rows(_there(path), low, high) for path in held]
        all_rows = _side_by_side(rows)
        kept = _first_of_each(all_rows)
        in_part += int((kept & all_rows.in_part).sum())
        for place, own in enumerate(_split(kept, parts)):
            numbers = parts[place].start + np.flatnonzero(own)
            counts[place] += len(numbers)
            with open(spills[place].kept_path(split), "ab") as file:
                file.write(numbers.astype(np.int64).tobytes())
    return counts, in_part


def _there(path: Path) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return rows


def _rows(spill: Spill, split: str, part: slice, staying: NDArray[np.bool_]) -> _Rows:
    key, mark = np.array(spill.array(split, "keys")[part]), np.array(spill.array(split, "marks")[part])
    named = mark["whole"] != NO_GAME
    whole = (mark["whole"] > 0) & named
    stays = ~named
    stays[whole] = staying[mark["whole"][whole] - 1]
    word = mark["word"]
    known = np.where(named, word & ((np.uint64(1) << KNOWN_BITS) - np.uint64(1)), 0)
    held = np.zeros(len(key), dtype=bool)
    return _Rows(key, word >> KNOWN_BITS, known, stays, whole & ~stays, held, named & ~whole)


def _held_rows(there: NDArray[Any], low: int, high: int | None) -> _Rows:
    rows = np.array(there[within(there["key"], low, high)])
    none = np.zeros(len(rows), dtype=bool)
    return _Rows(rows["key"], rows["move"], np.zeros(len(rows), dtype=np.uint64), none, ~none, ~none, none)


def _side_by_side(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Rows.__slots__))


def _first_of_each(rows: _Rows) -> NDArray[np.bool_]:
    """Which rows stay: one of those with equal key and move, unless these are all of games that go."""
    kept = np.zeros(len(rows.key), dtype=bool)
    if not len(kept):
        return kept
    order = np.lexsort((rows.known, rows.goes, rows.move, rows.key))
    board = changes(rows.key[order])
    new = board | changes(rows.move[order])
    first = np.flatnonzero(new)
    stays, goes, held = (np.logical_or.reduceat(each[order], first) for each in (rows.stays, rows.goes, rows.held))
    first_row = order[first]
    without_move = rows.move[first_row] == NO_MOVE
    kept[first_row] = ~rows.goes[first_row] & ~held & (stays | ~goes) & (board[first] | ~without_move)
    return kept


def _split(flags: NDArray[np.bool_], parts: Sequence[slice]) -> Iterator[NDArray[np.bool_]]:
    at = 0
    for part in parts:
        yield flags[at : (at := at + part.stop - part.start)]


# a dataset that is added to -----------------------------------------------------------------------------------------


def note_held(shard: Shard, *, folder: Path, scratch: Path, index: Index, spec: ConvertSpec) -> None:
    """Note the positions of a shard that is there already, as they would be keyed if they came again, and its games."""
    parts, sums = list[NDArray[Any]](), list[NDArray[Any]]()
    names = tuple(index.layout.columns())
    with open_shard(Folder(folder), shard) as file:
        for number in range(len(shard.block_bytes)):
            columns = file.read_block(number, layout=index.layout, sources=len(index.sources), names=names)
            positions = Positions.of(index.side, columns, index.layout.optional)
            positions = positions.take(np.flatnonzero(positions.game != UNKNOWN))
            games = game_keys(index.sources, positions.source, positions.game)
            parts += [_noted(image(positions, turn), turn, games, spec) for turn in images_of(spec)]
            sums.append(_sums(positions, games, baked=index.baked))
    rows = np.concatenate(parts)
    save_arrays(held_path(scratch, shard), rows[np.argsort(rows["key"])])
    save_arrays(_sums_path(scratch, shard), _added(np.concatenate(sums)))


def _noted(positions: Positions, turn: int, games: Words, spec: ConvertSpec) -> NDArray[Any]:
    """A symmetry undoes itself: one of the images of a row is the position that it was made of."""
    rows = np.zeros(len(positions), dtype=_HELD)
    rows["key"] = mix(position_keys(positions, games, seed=spec.seed) + np.uint64(turn))
    rows["move"] = moves(positions)
    return rows


def held_path(scratch: Path, shard: Shard) -> Path:
    """Where the positions of a shard are noted."""
    return scratch / f"{shard.name}.held.npy"


# games of a dataset  ----------------------------------------------------------------------------------------------


def held_games(scratch: Path, shards: Sequence[Shard], *, baked: bool) -> HeldGames:
    """The games of all shards, as they were noted."""
    noted = [np.load(_sums_path(scratch, shard), mmap_mode="r", allow_pickle=False) for shard in shards]
    games, in_part, copies = list[Words](), 0, 2 if baked else 1
    for low, high in key_ranges(sum(map(len, noted)), TOGETHER):
        sums = _added(np.concatenate([each[within(each["game"], low, high)] for each in noted]))
        plies = np.clip(sums["most"], 0, len(_UP_TO) - 1)
        whole = (sums["least"] == sums["most"]) & (sums["rows"] == copies * (sums["most"] + 1))
        whole &= sums["plies"] == np.uint64(copies) * _UP_TO[plies]
        games.append(np.stack([sums["contents"][whole], sums["game"][whole]], axis=1))
        in_part += int((~whole).sum())
    words = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *games])
    return HeldGames(words[np.argsort(words[:, 0], kind="stable")], in_part)


def under_other_names(words: Words, held: HeldGames) -> NDArray[np.bool_]:
    """Which of some whole games (G, 3) the dataset holds under another name."""
    if not len(held.whole):
        return np.zeros(len(words), dtype=bool)
    sums = words[:, 0] + words[:, 1]
    place = np.minimum(np.searchsorted(held.whole[:, 0], sums), len(held.whole) - 1)
    return np.asarray((held.whole[place, 0] == sums) & (held.whole[place, 1] != words[:, 2]))


def _sums(positions: Positions, games: Words, *, baked: bool) -> NDArray[Any]:
    if baked:  # of the four images of a position two are it, and it turned
        rows = np.flatnonzero(of_blues_start(positions))
        positions, games = positions.take(rows), games[rows]
    sums = np.zeros(len(positions), dtype=_SUMS)
    sums["game"], sums["rows"] = games, 1
    sums["contents"] = contents(positions)
    if not baked:
        sums["contents"] += contents(image(positions, TURN))
    sums["plies"] = _ply_words(positions.ply)
    sums["least"] = sums["most"] = positions.plies
    return _added(sums)


def _added(sums: NDArray[Any]) -> NDArray[Any]:
    """One row for each game, by its word."""
    if not len(sums):
        return sums
    sums = sums[np.argsort(sums["game"], kind="stable")]
    first = np.flatnonzero(np.diff(sums["game"], prepend=~sums["game"][:1]))
    added = sums[first]
    for name in ("contents", "plies", "rows"):
        added[name] = np.add.reduceat(sums[name], first)
    added["least"] = np.minimum.reduceat(sums["least"], first)
    added["most"] = np.maximum.reduceat(sums["most"], first)
    return added


def _ply_words(ply: NDArray[Any]) -> Words:
    return mix(ply.astype(np.uint64) + np.uint64(1))


_UP_TO = np.cumsum(_ply_words(np.arange(MAX_SIDE**2 + 1)), dtype=np.uint64)
"""What the plies of a whole game add up to, by its last one."""


def _sums_path(scratch: Path, shard: Shard) -> Path:
    return scratch / f"{shard.name}.sums.npy"
