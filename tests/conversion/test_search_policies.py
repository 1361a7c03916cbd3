"""Visit counts of a search go through conversion and come out of every door."""

from __future__ import annotations

import hashlib
import io
import json
import zlib

import numpy as np
import pytest
from helpers.small_data import CUT, SIDE, columns_of, examples, write_examples
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.conversion.estimate import estimate
from hexshards.dataset import codec
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.errors import InputRejected
from hexshards.game.board import symmetry_cells
from hexshards.game.columns import MAX_VISITED
from hexshards.game.random_visits import search

CELLS = SIDE * SIDE
WHOLE = {**CUT, "val_fraction": 0.0}


def searched(count=6, *, dtype=np.float32, seed=0):
    """Examples, all but the last of each game with counts of a search; and these by game and ply."""
    entries = examples(count)
    free = np.array([example["board"].sum(axis=0).reshape(-1) == 0 for example in entries])
    counts = search(free, simulations=40, seed=seed)
    said = {}
    for example, mine in zip(entries, counts, strict=True):
        meta = example["metadata"]
        ends = example["policy"] is None
        if not ends:
            example["visits"] = mine.astype(dtype)
        said[meta["game_id"][1], meta["position_in_game"]] = mine * (not ends)
    return entries, said


def counts_of(visits):
    """Slow and obvious: counts by cell, one move at a time."""
    counts = np.zeros((len(visits), CELLS), dtype=np.int64)
    for row, (cells, times) in enumerate(visits.tolist()):
        for cell, count in zip(cells, times, strict=True):
            counts[row, cell] += count
    return counts


def converted(folder, entries, **options):
    path = write_examples(folder / "a_processed.pkl.gz", entries)
    convert(path, out=folder / "data", **{**WHOLE, **options})
    return folder / "data"


def assert_kept(folder, said):
    columns = columns_of(folder, "train")
    assert len(columns["ply"]) == len(said)
    for game, ply, counts in zip(columns["game"], columns["ply"], counts_of(columns["visits"]), strict=True):
        assert counts.tolist() == said[int(game), int(ply)].tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_counts_of_a_processed_file_are_kept_as_they_are(tmp_path, dtype):
    entries, said = searched(dtype=dtype)
    folder = converted(tmp_path, entries)
    assert_kept(folder, said)
    assert verify(folder).problems == ()
    assert [each.name for each in read_index(folder).layout.optional] == ["visits"]


def test_examples_that_are_read_one_by_one_give_the_same(tmp_path):
    entries, said = searched()
    for example in entries:
        example["weight"] = 1  # a whole number is looked at by itself
    assert_kept(converted(tmp_path, entries), said)


def test_show_names_the_moves_and_their_counts(tmp_path):
    folder = converted(tmp_path, searched(2)[0])
    visits = columns_of(folder, "train")["visits"][: CUT["block_positions"]]
    said = CliRunner().invoke(app, ["show", str(folder), "-n", str(len(visits))]).output
    for cells, times in visits.tolist():
        moves = [f"{'abcde'[cell % SIDE]}{cell // SIDE + 1}:{count}" for cell, count in zip(cells, times) if count]  # noqa: B905
        assert f"visits {' '.join(moves) or 'none'}\n" in said


@pytest.mark.parametrize("dedupe", ["positions", "symmetric"])
def test_counts_of_equal_positions_are_added_up(tmp_path, dedupe):
    entries, _ = searched(12)
    folder = converted(tmp_path, entries, dedupe=dedupe)
    expected = {}
    for example in entries:
        counts = example.get("visits", np.zeros(CELLS)).astype(int)
        stones = example["board"].astype(np.uint8).reshape(2, CELLS)
        turned = stones[:, ::-1]
        if dedupe == "symmetric" and np.packbits(turned).tobytes() < np.packbits(stones).tobytes():
            stones, counts = turned, counts[::-1]
        key = np.packbits(stones).tobytes()
        expected[key] = expected.get(key, 0) + counts
    columns = columns_of(folder, "train")
    assert len(columns["stones"]) == len(expected) < len(entries)
    for stones, counts in zip(columns["stones"], counts_of(columns["visits"]), strict=True):
        assert counts.tolist() == expected[stones.tobytes()].tolist()
    assert verify(folder).problems == ()


def test_baked_symmetries_move_the_cells(tmp_path):
    entries, said = searched(2)
    folder = converted(tmp_path, entries, bake_symmetries=True)
    columns = columns_of(folder, "train")
    shown = {}
    for game, ply, counts in zip(columns["game"], columns["ply"], counts_of(columns["visits"]), strict=True):
        shown.setdefault((int(game), int(ply)), []).append(counts.tolist())
    for place, counts in said.items():
        expected = []
        for cells in symmetry_cells(SIDE):
            moved = np.zeros_like(counts)
            moved[cells] = counts
            expected.append(moved.tolist())
        assert sorted(shown[place]) == sorted(expected)
    assert verify(folder).problems == ()


def _occupied(example):
    cell = int(example["board"].sum(axis=0).reshape(-1).argmax())
    return np.eye(CELLS, dtype=np.float32)[cell]


@pytest.mark.parametrize(
    ("visits", "reason"),
    [
        (lambda example: -np.ones(CELLS), r"visits are not whole numbers from 0 to 65535"),
        (lambda example: np.full(CELLS, 0.5), r"visits are not whole numbers from 0 to 65535"),
        (lambda example: np.full(CELLS, np.nan), r"visits are not whole numbers from 0 to 65535"),
        (lambda example: np.full(CELLS, 70000), r"visits are not whole numbers from 0 to 65535"),
        (lambda example: np.ones((SIDE, SIDE)), "visits of a wrong shape"),
        (lambda example: "many", "visits is not an array"),
        (_occupied, "visits on an occupied cell"),
    ],
)
@pytest.mark.parametrize("others", [True, False])
def test_what_are_no_counts_is_rejected_in_words(tmp_path, visits, reason, others):
    entries = searched(2)[0] if others else examples(2)
    entries[3]["visits"] = visits(entries[3])
    with pytest.raises(InputRejected, match=rf"1 example was rejected \({reason}: 1\)"):
        converted(tmp_path, entries)


def test_more_moves_than_there_is_room_for_are_rejected(tmp_path):
    entries = examples(1, side=7)
    entries[0]["visits"] = np.arange(49, dtype=np.float32)
    with pytest.raises(InputRejected, match=rf"visits of more than {MAX_VISITED} moves: keep the most visited: 1"):
        converted(tmp_path, entries)


def _beyond(column):
    column[0, 0, 0] = CELLS


def _rising(column):
    column[0, 1, :2] = 1, 2


def _twice(column):
    column[0, 0, 1] = column[0, 0, 0]
    column[0, 1, :2] = 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_beyond, "visits: row 0 holds 25, where it must be 0 to 24"),
        (_rising, "row 0: visits not from the most to the least"),
        (_twice, "row 0: visits of a move twice"),
    ],
)
def test_verify_names_counts_that_nobody_wrote(tmp_path, spoil, message):
    folder = converted(tmp_path, [each for each in searched(3)[0] if each["policy"] is not None], codec="none")
    respoil(folder, spoil)
    (problem, *_) = verify(folder).problems
    assert message in str(problem)


def respoil(folder, spoil):
    """Write other visits into the first block, and let every checksum fit."""
    entry = json.loads((folder / "index.json").read_text())
    shard = entry["splits"]["train"]["shards"][0]
    path = folder / shard["name"]
    data = bytearray(path.read_bytes())
    at = data.index(b"000000.visits.npy") + 512
    column = np.load(io.BytesIO(bytes(data[at:])))
    spoil(column)
    again = codec.encode(column, codec="none")
    data[at : at + len(again)] = again
    path.write_bytes(data)
    shard["block_crc32"][0] = zlib.crc32(data[: shard["block_bytes"][0]])
    shard["sha256"] = hashlib.sha256(data).hexdigest()
    entry.pop("fingerprint")
    plain = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    (folder / "index.json").write_text(json.dumps({**entry, "fingerprint": hashlib.sha256(plain).hexdigest()}))


def test_an_estimate_counts_what_optional_columns_take(tmp_path):
    plain = write_examples(tmp_path / "plain" / "a_processed.pkl.gz", examples(6))
    rich = write_examples(tmp_path / "rich" / "a_processed.pkl.gz", searched()[0])
    one, other = (estimate(path, out=tmp_path / "data") for path in (plain, rich))
    assert one.positions == other.positions
    assert other.scratch_bytes - one.scratch_bytes == one.positions * 4 * MAX_VISITED
    assert other.dataset_bytes > one.dataset_bytes


def test_of_copies_of_a_game_the_one_with_visits_stays(tmp_path):
    entries, said = searched(6)
    bare = [{name: part for name, part in example.items() if name != "visits"} for example in entries]
    for example in entries:  # it says less besides
        del example["metadata"]["value_sample_tier"]
    for names in ("ab", "ba"):
        folder = tmp_path / names
        one = write_examples(folder / f"{names[0]}_processed.pkl.gz", entries)
        other = write_examples(folder / f"{names[1]}_processed.pkl.gz", bare)
        convert([one, other], out=folder / "data", dedupe="games", **WHOLE)
        assert_kept(folder / "data", said)
