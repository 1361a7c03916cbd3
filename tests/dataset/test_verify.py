from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.small_data import CUT, dataset

from hexshards.dataset.index import Index, Split, read_index
from hexshards.dataset.layout import Layout
from hexshards.dataset.shard import REPAIR, open_shard, write_shard
from hexshards.dataset.verify import verify
from hexshards.errors import DataError
from hexshards.game.columns import columns
from hexshards.game.positions import Positions
from hexshards.storage.files import Folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def data(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "data")


def problems_of(folder):
    return [str(problem) for problem in verify(folder).problems]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def with_train(index, **changes):
    return replace(index, splits={**index.splits, "train": replace(index.splits["train"], **changes)})


def fewer(split, count):
    """Counts that could be those of a split with so many positions less."""
    plies, left = list(split.plies), count
    for ply, number in enumerate(plies):
        plies[ply] -= min(left, number)
        left -= min(left, number)
    blue = min(split.blue_wins, count)
    wins = {"blue_wins": split.blue_wins - blue, "red_wins": split.red_wins - (count - blue)}
    return {"plies": tuple(plies), **wins, "without_policy": min(split.without_policy, split.positions - count)}


def positions_of(folder, index):
    """All positions of the first shard, a list with an entry per block."""
    shard, names = index.splits["train"].shards[0], tuple(columns(index.side, soft=False))
    with open_shard(Folder(folder), shard) as file:
        return [
            Positions(
                side=index.side,
                **file.read_block(number, layout=index.layout, sources=len(index.sources), names=names),
            )
            for number in range(len(shard.block_bytes))
        ]


def rewrite_first_shard(folder, blocks):
    """Put other positions into the first shard, with all checksums as they must be."""
    index = read_index(folder)
    shard = write_shard(folder / "train-000000.tar", blocks, layout=index.layout)
    with_train(index, shards=(shard, *index.splits["train"].shards[1:])).write(folder)


def test_a_sound_dataset_has_no_problems_and_is_counted(sound):
    verification = verify(sound)
    assert verification.problems == ()
    assert (verification.positions, verification.games) == (1117 + 192, 60)
    assert (verification.shards, verification.blocks) == (12 + 2, 70 + 12)


def test_progress_is_told_with_each_block_and_ends_with_all_positions(sound):
    seen = []
    verify(sound, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1309, 1309) and seen == sorted(seen)
    assert len(set(seen)) == 70 + 12


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_uncompressed_and_compressed_shards_verify(tmp_path, codec):
    assert problems_of(dataset(tmp_path, games=20, codec=codec)) == []


# damaged shards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 130, 530, -1], ids=["name", "size", "payload", "padding"])
@pytest.mark.parametrize("block", [0, 5])
def test_a_flipped_bit_is_found_and_named_by_file_and_block(data, place, block):
    sizes = read_index(data).splits["train"].shards[2].block_bytes
    flip(data / "train-000002.tar", sum(sizes[:block]) + place % sizes[block])
    (problem,) = problems_of(data)
    assert problem.startswith(f"{data / 'train-000002.tar'}, block {block:06d}: checksum is ")
    assert "Fetch this shard again" in problem


@pytest.mark.parametrize("back", [1, 512, 1024])
def test_a_flipped_bit_behind_the_last_block_is_found(data, back):
    path = data / "val-000000.tar"
    flip(path, path.stat().st_size - back)
    (problem,) = problems_of(data)
    assert problem.startswith(f"{path}: differs from the index after its last block")


def test_damage_in_several_places_is_reported_for_each(data):
    flip(data / "train-000001.tar", 600)
    flip(data / "train-000004.tar", 600)
    flip(data / "val-000000.tar", 600)
    problems = problems_of(data)
    assert [problem.split(":")[0].rsplit("/", 1)[-1] for problem in problems] == [
        "train-000001.tar, block 000000",
        "train-000004.tar, block 000000",
        "val-000000.tar, block 000000",
    ]


def test_a_shard_cut_short_is_found_and_its_lost_blocks_named(data):
    path = data / "train-000003.tar"
    shard = read_index(data).splits["train"].shards[3]
    path.write_bytes(path.read_bytes()[: sum(shard.block_bytes[:4]) + 100])
    size, *blocks = problems_of(data)
    assert size.startswith(f"{path}: holds ")
    assert [problem.split(":")[0] for problem in blocks] == [f"{path}, block 00000{n}" for n in (4, 5)]
    assert "the file ends after 100 of the block's" in blocks[0]


def test_a_shard_cut_between_two_blocks_is_found(data):
    # here tar itself notices nothing
    path = data / "train-000003.tar"
    shard = read_index(data).splits["train"].shards[3]
    path.write_bytes(path.read_bytes()[: sum(shard.block_bytes[:5])] + bytes(1024))
    size, block = problems_of(data)
    assert size.startswith(f"{path}: holds ")
    assert block.startswith(f"{path}, block 000005: ")


def test_blocks_that_are_only_claimed_are_one_problem_and_not_one_each(data):
    index, count = read_index(data), 20_000
    split, rows = index.splits["train"], index.layout.block_positions
    first = replace(
        split.shards[0],
        positions=count * rows,
        size_bytes=count * 512 + 1024,
        block_bytes=(512,) * count,
        block_crc32=(0,) * count,
    )
    claimed = count * rows - split.shards[0].positions
    plies = (split.plies[0] + claimed, *split.plies[1:])
    with_train(index, shards=(first, *split.shards[1:]), plies=plies).write(data)
    blocks = [problem for problem in problems_of(data) if ", block " in problem]
    there = -(-(data / first.name).stat().st_size // 512)
    assert len(blocks) == there + 1
    assert blocks[-1].startswith(f"{data / first.name}, block {there:06d}: the file ends after 0 of the block's 512 ")


def test_a_shard_with_something_appended_is_found(data):
    path = data / "train-000003.tar"
    path.write_bytes(path.read_bytes() + b"more")
    (problem,) = problems_of(data)
    assert problem.startswith(f"{path}: holds ")


def test_a_missing_shard_is_named(data):
    (data / "train-000011.tar").unlink()
    assert problems_of(data) == [f"{data / 'train-000011.tar'}: the shard is missing. {REPAIR}"]


def test_two_shards_that_changed_names_are_both_told(data):
    first, second = data / "train-000000.tar", data / "train-000007.tar"
    first.rename(data / "kept")
    second.rename(first)
    (data / "kept").rename(second)
    assert problems_of(data) == [
        f"{first}: holds the contents of {second.name}. Give the files back their names",
        f"{second}: holds the contents of {first.name}. Give the files back their names",
    ]


# an index that lies -------------------------------------------------------------------------------------------------


def test_an_edited_index_is_refused(data):
    path = data / "index.json"
    entry = json.loads(path.read_text())
    entry["splits"]["train"]["games"] += 1
    path.write_text(json.dumps(entry))
    with pytest.raises(DataError, match=r"index\.json: was edited"):
        verify(data)


@pytest.mark.parametrize("name", ["games", "blue_wins", "red_wins", "without_policy"])
def test_a_count_that_is_not_that_of_the_shards_is_named(data, name):
    index = read_index(data)
    real = getattr(index.splits["train"], name)
    wrong = abs(real - 1)  # more could not be those of so many positions, and are refused where the index is read
    with_train(index, **{name: wrong}).write(data)
    assert [problem.split(". ")[0] for problem in problems_of(data)] == [
        f"{data}, split train: {name} counted {real}, the index says {wrong}"
    ]


def test_plies_that_are_not_those_of_the_shards_are_named(data):
    index = read_index(data)
    plies = index.splits["train"].plies
    with_train(index, plies=(plies[0] - 1, plies[1] + 1, *plies[2:])).write(data)
    (problem,) = problems_of(data)
    assert problem.startswith(f"{data}, split train: plies counted ")


def test_an_index_without_one_of_the_shards_is_found(data):
    index = read_index(data)
    *others, last = index.splits["train"].shards
    with_train(index, shards=tuple(others), **fewer(index.splits["train"], last.positions)).write(data)
    problems = problems_of(data)
    assert problems
    assert all(problem.startswith(f"{data}, split train: ") for problem in problems)


def test_a_shard_of_more_positions_than_the_index_says_is_found(data):
    index = read_index(data)
    first, *others = index.splits["train"].shards
    shards = (replace(first, positions=first.positions - 1), *others)
    with_train(index, shards=shards, **fewer(index.splits["train"], 1)).write(data)
    problem, *_ = problems_of(data)
    assert problem.startswith(f"{data / 'train-000000.tar'}, block 000005, stones: ")


def test_a_game_in_both_splits_is_found(data):
    # a shard of training positions, published once more as validation: all checksums and counts are right
    index = read_index(data)
    shard = index.splits["train"].shards[0]
    shutil.copy(data / shard.name, data / "val-000000.tar")
    blocks = positions_of(data, index)
    games = {(s, g) for block in blocks for s, g in zip(block.source.tolist(), block.game.tolist(), strict=True)}
    value, policy = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("value", "policy"))
    ply = np.concatenate([block.ply for block in blocks])
    val = Split(
        shards=(replace(shard, name="val-000000.tar"),),
        games=len(games),
        blue_wins=int((value == 0).sum()),
        red_wins=int((value == 1).sum()),
        without_policy=int((policy < 0).sum()),
        plies=tuple(np.bincount(ply, minlength=26).tolist()),
    )
    Index(
        layout=index.layout,
        splits={"train": index.splits["train"], "val": val},
        sources=index.sources,
        inputs=index.inputs,
        options=index.options,
    ).write(data)
    (problem,) = problems_of(data)
    assert problem.startswith(f"{data}: {len(games)} games are in both train and val. Convert again")


# positions that no source file could have given, under checksums that are right --------------------------------------


def _two_stones(column):
    column["stones"][3] |= 0b1000_0000
    column["stones"][3, 3] |= 0b0100_0000


def _stray_bits(column):
    column["stones"][3, -1] |= 1


def _wrong_player(column):
    column["player"][3] ^= 1


def _policy_beyond(column):
    column["policy"][3] = 25


def _policy_below(column):
    column["policy"][3] = -2


def _unknown_source(column):
    column["source"][3] = 3


def _value_beyond(column):
    column["value"][3] = 1.5


def _wrong_ply(column):
    column["ply"][3] += 1


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (_two_stones, ", stones: row 3 has two stones on cell 0"),
        (_stray_bits, ", stones: row 3 has bits behind its last cell that should be 0"),
        (_wrong_player, "row 3: player to move contradicts the stones"),
        (_policy_beyond, ", policy: row 3 holds 25, where it must be -1 to 24"),
        (_policy_below, ", policy: row 3 holds -2, where it must be -1 to 24"),
        (_unknown_source, ", source: row 3 holds 3, where it must be 0 to 2"),
        (_value_beyond, ", value: row 3 holds 1.5, where it must be 0 to 1"),
        (_wrong_ply, "row 3: stated number of stones contradicts the board"),
    ],
    ids=lambda value: value.__name__[1:] if callable(value) else "",
)
def test_a_column_that_cannot_be_is_found_and_named_by_file_and_block(data, spoil, finding):
    blocks = positions_of(data, read_index(data))
    spoiled = {name: column.copy() for name, column in blocks[2].columns().items()}
    spoil(spoiled)
    blocks[2] = Positions(side=5, **spoiled)
    rewrite_first_shard(data, blocks)
    (problem,) = problems_of(data)
    assert problem.startswith(f"{data / 'train-000000.tar'}, block 000002")
    assert finding in problem


def test_a_member_that_is_another_column_is_found(data):
    index = read_index(data)
    blocks = positions_of(data, index)
    layout = Layout(side=5, soft=False, codec="none", block_positions=CUT["block_positions"])
    shard = write_shard(data / "train-000000.tar", blocks, layout=layout)
    with_train(index, shards=(shard, *index.splits["train"].shards[1:])).write(data)
    problems = problems_of(data)
    assert len(problems) == 6
    assert problems[0].startswith(f"{data / 'train-000000.tar'}, block 000000: has no member 000000.stones.npy.zst")


def test_names_of_source_files_that_are_no_unicode_are_verified_as_others_are(data):
    index = read_index(data)
    replace(index, sources=("\udc80", "\ud800.trmph", *index.sources[2:])).write(data)
    assert problems_of(data) == []


def test_where_there_is_no_dataset_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset here.*hexshards convert"):
        verify(tmp_path)
