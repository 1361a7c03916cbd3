"""Sorted runs of an external sort: a spill keeps what was read of some files, its rows sorted by place in the shuffle.

Every position draws a 64-bit key from a stream that the seed and the contents of its file name. The dataset's order is
the order of the keys, so each position is equally likely anywhere, whatever else is converted, and a shard is the rows
of all spills between two keys. Where equal positions are to be merged the key is a hash of the stones instead, so that
they lie side by side. A spill counts once its note is there, which is written last.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hexshards import rng
from hexshards.conversion.duplicates.overlaps import sketch
from hexshards.conversion.duplicates.same_games import MARK, NO_GAME, marks, position_keys, whole_games
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.sources import Twin
from hexshards.dataset.index import SPLITS, InputFile
from hexshards.dataset.split import game_keys, in_test, in_val
from hexshards.game.board import SYMMETRIES
from hexshards.game.columns import UNKNOWN, Column, column_of, declared, entry_of, fields_of, in_order
from hexshards.game.positions import Positions, concat
from hexshards.game.symmetry import canonical, image, stone_keys
from hexshards.game.validation import Reject
from hexshards.rng import Words
from hexshards.storage.files import publishing, write_whole

_MAX_BIN_BITS = 20
"""Keys are counted by at most so many of their first bits: 8 MB of counts."""


class ReadFile(NamedTuple):
    """One source file in memory."""

    file: InputFile
    positions: Positions
    sources: Sequence[str]
    """Names that decide the split: equal for the same games, by whatever way they come."""
    names: Sequence[str]
    """The same in the dataset, where files of equal names are told apart."""
    rejects: Sequence[Reject]
    twins: Sequence[Twin] = ()
    without_policy: int = 0
    """Positions that have none although their game goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spill:
    """Some source files, read: where their rows are and what was found."""

    stem: str
    """Path of its files without their endings ``.train.rows.npy``, ``.train.keys.npy``, ..., ``.rejects.jsonl``."""
    side: int
    soft: bool
    inputs: tuple[InputFile, ...]
    sources: tuple[str, ...]
    rows: dict[str, int]
    """Rows in each split: positions, times 4 with baked symmetries."""
    rejects: dict[str, int]
    """How many examples or lines were rejected, by reason."""
    first_reject: str
    """File and place of the first of them, and what was found there."""
    reject_places: tuple[str, ...] = ()
    """What was rejected: ``line``, ``example``, or ``statement`` of a whole file."""
    without_policy: int = 0
    """Positions that have none although their game goes on."""
    optional: tuple[Column, ...] = ()
    """Columns that its rows have besides."""
    thinned: bool = False
    """Whether only some of its rows count: those whose numbers are at ``kept_path``."""

    def kept_path(self, split: str) -> Path:
        """Where the numbers of the rows that stay are, int64, where games are kept once."""
        return Path(f"{self.stem}.{split}.kept")

    def whole_games(self) -> Words:
        """Words of the whole games in it, (G, 3) by the first of them (hexshards.conversion.duplicates.same_games)."""
        words: Words = np.load(_whole(Path(self.stem)), mmap_mode="r", allow_pickle=False)
        return words

    def sketch(self) -> Words | None:
        """A sample of what is in it (conversion.duplicates.overlaps); None where an older version wrote it."""
        path = _sketch(Path(self.stem))
        return np.load(path, allow_pickle=False) if path.exists() else None

    def array(self, split: str, what: str) -> NDArray[Any]:
        """``rows``, ``keys`` or ``marks`` of one split, read from disk as it is used."""
        if self.rows[split] == 0:
            return np.zeros(0, dtype=MARK if what == "marks" else np.uint64)
        array: NDArray[Any] = np.load(f"{self.stem}.{split}.{what}.npy", mmap_mode="r", allow_pickle=False)
        return array[self._kept(split)] if self.thinned and what == "keys" else array

    def records(self, split: str, rows: slice) -> NDArray[Any]:
        """Some of the rows of one split that count."""
        return np.array(self.array(split, "rows")[self._kept(split)[rows] if self.thinned else rows])

    def _kept(self, split: str) -> NDArray[np.int64]:
        return np.memmap(self.kept_path(split), dtype=np.int64, mode="r")


def row_dtype(side: int, *, soft: bool, optional: Sequence[Column] = ()) -> np.dtype[Any]:
    """One position as one record."""
    held = fields_of((*declared(soft=soft), *optional), side)
    return np.dtype([(name, dtype, shape) for name, (dtype, shape) in held.items()])


# a spill is written -------------------------------------------------------------------------------------------------


def write_spill(stem: Path, reads: Sequence[ReadFile], *, spec: ConvertSpec) -> Spill:
    """Sort, split and store the positions of some files of one side."""
    sources = {name: number for number, name in enumerate(sorted({name for read in reads for name in read.names}))}
    filled = [read for read in reads if len(read.positions)] or reads[:1]
    placed = [_placed(read, sources, spec) for read in filled]
    positions, keys = concat([rows for rows, _ in placed]), np.concatenate([words for _, words in placed])
    games = np.concatenate([np.tile(_game_keys(read), len(images_of(spec))) for read in filled])
    val = in_val(games, val_fraction=spec.val_fraction)
    test = in_test(games, test_fraction=spec.test_fraction) & ~val
    members = {"train": ~(val | test), "val": val, "test": test}
    marked = _marked(stem, filled, spec) if spec.dedupe == "games" else None
    for split in SPLITS:
        rows = np.flatnonzero(members[split])
        _store(stem, split, positions, keys, rows[np.argsort(keys[rows], kind="stable")], marked)
    save_arrays(_sketch(stem), sketch(*_known_games(filled)))
    rejects = [reject_entry(read.file.name, reject) for read in reads for reject in read.rejects]
    if rejects:
        write_whole(_rejects(stem), "".join(json.dumps(line) + "\n" for line in rejects).encode())
    spill = Spill(
        stem=str(stem),
        side=positions.side,
        soft=positions.soft,
        inputs=tuple(read.file for read in reads),
        sources=tuple(sources),
        rows={split: int(member.sum()) for split, member in members.items()},
        rejects=dict(Counter(line["reason"] for line in rejects)),
        first_reject="{file}, {place}: {found}".format(**rejects[0]) if rejects else "",
        reject_places=tuple(sorted({_place_word(line["place"]) for line in rejects})),
        without_policy=sum(read.without_policy for read in reads),
        optional=in_order(positions.optional),
    )
    noted = {**asdict(spill), "optional": [entry_of(each) for each in spill.optional]}
    write_whole(_note(stem), json.dumps(noted).encode())
    return spill


def _whole(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.whole.npy")


def _sketch(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.sketch.npy")


def _place_word(place: str) -> str:
    """``line`` of ``line 3``; a place without a number is something that a file states as a whole."""
    word, _, number = place.partition(" ")
    return word if number else "statement"


def _placed(read: ReadFile, sources: Mapping[str, int], spec: ConvertSpec) -> tuple[Positions, Words]:
    """A file's rows with their sources renumbered, and the place of each in the shuffle."""
    numbers = np.array([sources[name] for name in read.names], dtype=np.uint32)
    positions = read.positions.changed(source=numbers[read.positions.source])
    if spec.dedupe == "symmetric":
        positions = canonical(positions)
    images = images_of(spec)
    drawn = rng.raw(len(images) * len(positions), spec.seed, rng.CONVERT, *rng.sha256_words(read.file.sha256))
    keys = drawn if spec.dedupe == "none" else _shared_keys(read, positions, spec)
    if spec.dedupe == "games":
        keys = np.where(np.tile(positions.game == UNKNOWN, len(images)), drawn, keys)
    return concat([image(positions, number) for number in images]), keys


def _shared_keys(read: ReadFile, positions: Positions, spec: ConvertSpec) -> Words:
    """A word for each row that equal positions share, all or those of a game; each image has one of its own."""
    if spec.dedupe == "games":
        own = position_keys(positions, _name_keys(read), seed=spec.seed)
    else:
        own = stone_keys(positions.stones, seed=spec.seed)
    return np.concatenate([rng.mix(own + np.uint64(number)) for number in images_of(spec)])


def _name_keys(read: ReadFile) -> Words:
    """A word for each position that names its game as the dataset does."""
    return game_keys(read.names, read.positions.source, read.positions.game)


def _marked(stem: Path, reads: Sequence[ReadFile], spec: ConvertSpec) -> NDArray[Any]:
    """What tells copies of a row from others, for each row; the whole games are noted."""
    parts, games = list[NDArray[Any]](), list[Words]()
    for read in reads:
        number, whole = whole_games(read.positions, _name_keys(read))
        number[number > 0] += sum(map(len, games))
        games.append(whole)
        parts.append(np.tile(marks(read.positions, number), len(images_of(spec))))
    marked, words = np.concatenate(parts), np.concatenate(games)
    by_first = np.argsort(words[:, 0], kind="stable")
    place = np.zeros(len(words), dtype=np.uint32)
    place[by_first] = np.arange(1, len(words) + 1)
    inside = (marked["whole"] > 0) & (marked["whole"] != NO_GAME)
    marked["whole"][inside] = place[marked["whole"][inside] - 1]
    save_arrays(_whole(stem), words[by_first])
    return marked


def images_of(spec: ConvertSpec) -> range:
    """The symmetries that each position is written in."""
    return range(len(SYMMETRIES) if spec.bake_symmetries else 1)


def _game_keys(read: ReadFile) -> Words:
    """A word for each position that names its game; a game that repeats another one has that one's."""
    positions = read.positions
    keys = game_keys(read.sources, positions.source, positions.game)
    if read.twins:
        twins = sorted(read.twins)
        mine = np.array([twin.game for twin in twins])
        names = sorted({twin.source for twin in twins})
        source = np.array([names.index(twin.source) for twin in twins], dtype=np.uint32)
        theirs = game_keys(names, source, np.array([twin.other for twin in twins], dtype=np.int32))
        place = np.minimum(np.searchsorted(mine, positions.game), len(mine) - 1)
        repeats = mine[place] == positions.game
        keys[repeats] = theirs[place[repeats]]
    return keys


def _known_games(reads: Sequence[ReadFile]) -> tuple[Words, NDArray[np.uint8]]:
    """Game and stones of all positions that say which game they are from."""
    keys, stones = list[Words](), list[NDArray[np.uint8]]()
    for read in reads:
        known = np.flatnonzero(read.positions.game != UNKNOWN)
        keys.append(_name_keys(read)[known])
        stones.append(read.positions.stones[known])
    return np.concatenate(keys), np.concatenate(stones)


def _store(
    stem: Path,
    split: str,
    positions: Positions,
    keys: Words,
    rows: NDArray[np.int64],
    marked: NDArray[Any] | None,
) -> None:
    if not len(rows):
        return
    records = np.zeros(
        len(rows), dtype=row_dtype(positions.side, soft=positions.soft, optional=in_order(positions.optional))
    )
    for name, column in positions.columns().items():
        records[name] = column[rows]
    arrays = {"rows": records, "keys": keys[rows], **({"marks": marked[rows]} if marked is not None else {})}
    for what, array in arrays.items():
        save_arrays(Path(f"{stem}.{split}.{what}.npy"), array)


def save_arrays(path: Path, *arrays: NDArray[Any]) -> None:
    """Publish arrays as a .npy file, one behind the other. Unlike np.save, a failed write keeps its reason."""
    with publishing(path, durable=False) as file:
        for array in arrays:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.view(np.uint8).data)


def _note(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.spill.json")


def _rejects(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.rejects.jsonl")


# and read again -----------------------------------------------------------------------------------------------------


def find_spill(stem: Path) -> Spill | None:
    """The finished spill at ``stem``, if there is one."""
    if not _note(stem).exists():
        return None
    entry: dict[str, Any] = json.loads(_note(stem).read_bytes())
    entry["stem"] = str(stem)
    entry["inputs"] = tuple(InputFile(**file) for file in entry["inputs"])
    entry |= {name: tuple(entry[name]) for name in ("sources", "reject_places")}
    entry["rows"] = dict.fromkeys(SPLITS, 0) | entry["rows"]
    entry["optional"] = tuple(column_of(each) for each in entry.get("optional", ()))
    return Spill(**entry)


def reject_entry(file: str, reject: Reject) -> dict[str, str]:
    """A line of rejects.jsonl."""
    return {"file": file, "place": reject.place, "reason": reject.reason, "found": reject.finding}


def reject_lines(spill: Spill) -> bytes:
    """A JSON line for each thing that was not kept of the spill's files."""
    return _rejects(Path(spill.stem)).read_bytes() if spill.rejects else b""


def cuts(spills: Sequence[Spill], split: str, shard_positions: int) -> NDArray[np.int64]:
    """Where each shard begins in each spill: (spills, shards + 1), so that shards hold exactly so many rows, in order.

    The key at which a shard begins is an order statistic of all keys. Counting keys by their first bits finds the bin
    that holds it; only that bin's keys are then looked at. Rows of equal keys are never parted. One spill is open at a
    time.
    """
    total = sum(spill.rows[split] for spill in spills)
    ranks = np.arange(shard_positions, total, shard_positions)
    # about 256 keys to a bin: what is looked at stays far below what is counted
    shift = np.uint64(64 - min(_MAX_BIN_BITS, max(1, (total >> 8).bit_length())))
    below = _counted_below(spills, split, shift)
    bins = np.searchsorted(below, ranks, side="right") - 1
    inside = _keys_inside(spills, split, np.unique(bins), shift)
    firsts = np.array(
        [inside[bin_][rank - below[bin_]] for bin_, rank in zip(bins.tolist(), ranks.tolist(), strict=True)],
        dtype=np.uint64,
    )
    inner = [np.searchsorted(spill.array(split, "keys"), firsts) for spill in spills]
    places = [[0, *place.tolist(), spill.rows[split]] for place, spill in zip(inner, spills, strict=True)]
    return np.array(places, dtype=np.int64)


def _counted_below(spills: Sequence[Spill], split: str, shift: np.uint64) -> NDArray[np.int64]:
    """How many keys lie in the bins before each bin."""
    counts = np.zeros(1 << (64 - int(shift)), dtype=np.int64)
    for spill in spills:
        counts += np.bincount((spill.array(split, "keys") >> shift).astype(np.int64), minlength=len(counts))
    return np.cumsum(counts) - counts


def _keys_inside(
    spills: Sequence[Spill], split: str, bins: NDArray[np.int64], shift: np.uint64
) -> dict[int, NDArray[np.uint64]]:
    """All keys of some bins, sorted."""
    inside: dict[int, list[NDArray[np.uint64]]] = {int(bin_): [] for bin_ in bins}
    for spill in spills:
        keys = spill.array(split, "keys")
        edges = bins.astype(np.uint64) << shift
        lows, highs = (np.searchsorted(keys, edge, side=side) for edge, side in _ends(edges, shift))
        for bin_, low, high in zip(bins.tolist(), lows.tolist(), highs.tolist(), strict=True):
            inside[bin_].append(np.array(keys[low:high]))
    return {bin_: np.sort(np.concatenate(parts)) for bin_, parts in inside.items()}


def _ends(edges: Words, shift: np.uint64) -> Any:
    """First and last key of each bin, and the side of equal keys on which it ends."""
    return (edges, "left"), (edges | ((np.uint64(1) << shift) - np.uint64(1)), "right")


def read_rows(spill: Spill, split: str, rows: slice, *, numbers: NDArray[np.uint32]) -> tuple[Positions, Words]:
    """A run of a spill's rows and their keys; ``numbers`` gives each of its sources its number in the dataset."""
    records = spill.records(split, rows)
    columns = {name: np.ascontiguousarray(records[name]) for name in records.dtype.names or ()}
    columns["source"] = numbers[columns["source"]]
    return Positions.of(spill.side, columns, spill.optional), np.array(spill.array(split, "keys")[rows])
