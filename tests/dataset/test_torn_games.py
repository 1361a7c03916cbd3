import numpy as np
import pytest
from helpers.small_data import columns_of, examples, planes_of, write_examples

from hexshards.conversion.convert import convert
from hexshards.dataset.split import game_keys, in_val
from hexshards.dataset.verify import verify

VAL = 0.3


def named(split, game):
    """A file's name under which game number ``game`` is in a split."""
    names = [f"other_{number}" for number in range(40)]
    numbers = np.arange(40, dtype=np.uint32)
    val = in_val(game_keys(names, numbers, np.full(40, game, dtype=np.int32)), val_fraction=VAL)
    return names[int(np.flatnonzero(val == (split == "val"))[0])]


def is_in(split, example):
    game = np.array([example["metadata"]["game_id"][1]], dtype=np.int32)
    val = in_val(game_keys(["synth"], np.zeros(1, dtype=np.uint32), game), val_fraction=VAL)[0]
    return val == (split == "val")


def rename(example, split):
    name = named(split, example["metadata"]["game_id"][1])
    example["metadata"] = {**example["metadata"], "source_file": f"{name}.trmph"}


def converted(folder, entries, **options):
    # many files' games in a file, as a shuffled one has: none of its names contradicts the others
    write_examples(folder / "shuffled_0000.pkl.gz", entries)
    convert(folder / "shuffled_0000.pkl.gz", out=folder / "out", val_fraction=VAL, block_positions=64, **options)
    return folder / "out"


def slow_torn(out, pair=("train", "val")):
    """Positions of side 5 that are torn off their games, by walking sets of boards."""
    boards, moves, late = {}, {}, {}
    for split in pair:
        columns = columns_of(out, split)
        planes = [planes_of(stones) for stones in columns["stones"]]
        keep = [row for row in range(len(planes)) if planes[row].sum() >= 5]
        late[split] = [(key(planes[row]), after(planes[row], columns, row)) for row in keep]
        boards[split] = {board for board, _ in late[split]}
        moves[split] = {board for _, board in late[split]}
    count = 0
    for split, other in (pair, pair[::-1]):
        for board, following in late[split]:
            torn = board not in boards[other] and board in moves[other]
            count += torn and (following is None or following in boards[other])
    return count


def key(planes):
    return min(planes.tobytes(), np.ascontiguousarray(planes[:, ::-1, ::-1]).tobytes())


def after(planes, columns, row):
    move = int(columns["policy"][row])
    if move < 0:
        return None
    planes = planes.copy()
    planes[int(columns["player"][row]), move // 5, move % 5] = 1
    return key(planes)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
def test_one_position_that_another_name_puts_into_the_other_split_is_found(tmp_path, split, last):
    entries = examples(40)
    mine = [example for example in entries if is_in(split, example)]
    torn = next(e for e in mine if (e["policy"] is None) == last and e["metadata"]["position_in_game"] >= 8)
    rename(torn, "val" if split == "train" else "train")
    out = converted(tmp_path, entries)
    assert slow_torn(out) == 1
    (problem,) = verify(out).problems
    assert "1 position is in one split and the rest of the same game" in str(problem)


def test_as_many_are_found_as_a_slow_walk_over_all_boards_finds(tmp_path):
    entries = examples(60)
    for example in entries[::11]:
        rename(example, "train" if is_in("val", example) else "val")
    out = converted(tmp_path, entries)
    (problem,) = verify(out).problems
    assert f"{slow_torn(out)} positions are in one split" in str(problem) and slow_torn(out) > 20


@pytest.mark.parametrize("options", [{}, {"bake_symmetries": True}, {"dedupe": "positions"}, {"dedupe": "symmetric"}])
def test_whole_repeats_of_games_in_both_splits_are_not_torn(tmp_path, options):
    entries = examples(40)
    again = [example | {"metadata": dict(example["metadata"])} for example in entries]
    for example in again:
        rename(example, "train" if is_in("val", example) else "val")
    out = converted(tmp_path, entries + again, **options)
    assert verify(out).problems == ()
