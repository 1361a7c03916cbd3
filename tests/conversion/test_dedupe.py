from __future__ import annotations

from collections import Counter, defaultdict
from math import ceil

import numpy as np
import pytest
from helpers.small_data import CUT, SIDE, columns_of, files_of, images, processed, rows_of, samples_of

import hexshards
from hexshards.cli.conversion_view import conversion_summary
from hexshards.conversion.convert import convert
from hexshards.conversion.duplicates.dedupe_positions import merged
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.game.board import symmetry_cells
from hexshards.game.positions import Positions, concat
from hexshards.game.symmetry import canonical, image, stone_keys, upright

CELLS = SIDE * SIDE


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return processed(tmp_path_factory.mktemp("sources"), games=80)


@pytest.fixture(scope="module")
def plain(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "data"
    convert(sources, out=out, **CUT)
    return out


@pytest.fixture(scope="module", params=["positions", "symmetric"])
def dedupe(request):
    return request.param


@pytest.fixture(scope="module")
def data(sources, dedupe, tmp_path_factory):
    out = tmp_path_factory.mktemp(dedupe) / "data"
    report = convert(sources, out=out, dedupe=dedupe, **CUT)
    return out, report


def turned(board, policy):
    return board[:, ::-1, ::-1], policy[::-1, ::-1]


def merged_slowly(folder, split, dedupe):
    """Every different board of a split, as bytes: mean value, mean policy, count."""
    by_board = defaultdict(list)
    for board, policy, value in samples_of(folder, split):
        if dedupe == "symmetric":
            ways = [(board, policy), turned(board, policy)]
            # the dataset keeps the way whose packed stones come first
            board, policy = min(ways, key=lambda way: np.packbits(way[0][:2].ravel().astype(bool)).tobytes())
        by_board[board.astype(np.float32).tobytes()].append((policy, value))
    means = {}
    for board, samples in by_board.items():
        policies = [policy for policy, _ in samples if policy.any()]
        policy = np.mean(policies, axis=0) if policies else np.zeros((SIDE, SIDE))
        means[board] = (np.mean([value for _, value in samples]), policy, len(samples))
    return means


def test_equal_positions_become_one_with_the_mean_of_all(plain, data, dedupe):
    folder, _ = data
    for split in ("train", "val"):
        expected, counts = merged_slowly(plain, split, dedupe), columns_of(folder, split)["count"]
        seen = set()
        for (board, policy, value), count in zip(samples_of(folder, split), counts.tolist(), strict=True):
            mean, mean_policy, number = expected[board.tobytes()]
            assert board.tobytes() not in seen
            assert count == number
            assert value == np.float32(mean)
            assert np.allclose(policy, mean_policy, atol=2**-11)
            seen.add(board.tobytes())
        assert seen == expected.keys()


def test_there_are_repeats_and_they_are_told(plain, data):
    folder, report = data
    before = sum(split.positions for split in read_index(plain).splits.values())
    assert report.merged == before - report.positions > 50
    assert f"merged {report.merged:,} positions into equal ones" in conversion_summary(report)
    together = sum(columns_of(folder, split)["count"].sum() for split in ("train", "val"))
    assert together == before


def test_merged_datasets_verify_and_load(data):
    folder, report = data
    assert verify(folder).problems == ()
    loader = hexshards.loader(folder, batch_size=64)
    assert sum(len(batch.value) for batch in loader) == report.index.splits["train"].positions


def test_merged_positions_still_come_from_games_and_belong_to_their_split(plain, data):
    folder, _ = data
    for split in ("train", "val"):
        both = [columns_of(out, split) for out in (plain, folder)]
        before, after = (set(zip(c["source"].tolist(), c["game"].tolist(), strict=True)) for c in both)
        assert after <= before
        assert read_index(folder).splits[split].games == len(after)


def test_workers_and_the_order_of_sources_never_change_a_byte(sources, data, dedupe, tmp_path):
    convert(sources[::-1], out=tmp_path / "data", dedupe=dedupe, workers=2, **CUT)
    assert files_of(tmp_path / "data") == files_of(data[0])


def test_shards_hold_at_most_so_many_positions_and_all_but_few_of_them(data):
    for split in read_index(data[0]).splits.values():
        assert all(1 <= shard.positions <= CUT["shard_positions"] for shard in split.shards)
        assert all(len(shard.block_bytes) == ceil(shard.positions / 16) for shard in split.shards)


def test_one_position_many_times_is_one_shard_of_one_position(tmp_path):
    many = processed(tmp_path / "in")
    report = convert(
        many, out=tmp_path / "out", dedupe="positions", val_fraction=0, shard_positions=16, block_positions=8
    )
    columns = columns_of(tmp_path / "out", "train")
    assert columns["count"].max() == columns["count"][columns["ply"] == 0][0] == 60
    assert verify(tmp_path / "out").problems == ()
    assert all(shard.positions for shard in report.index.splits["train"].shards)


@pytest.mark.parametrize("held", [1, 7, 100, 10**6])
@pytest.mark.parametrize("pieces", [1, 5])
def test_merging_is_the_same_however_much_is_held_at_once(plain, held, pieces):
    columns = {name: column for name, column in columns_of(plain, "train").items()}
    positions = Positions(side=SIDE, **columns)
    keys = stone_keys(positions.stones, seed=0)
    parts = [(positions.take(slice(piece, None, pieces)), keys[piece::pieces]) for piece in range(pieces)]
    first = merged([(positions, keys)], side=SIDE, held=10**9)
    again = merged(parts, side=SIDE, held=held)
    whole = slice(0, len(first))
    one, other = first.positions(whole).columns(), again.positions(whole).columns()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_positions_of_equal_keys_and_other_stones_stay_apart(plain):
    positions = Positions(side=SIDE, **columns_of(plain, "val"))
    same = merged([(positions, np.zeros(len(positions), dtype=np.uint64))], side=SIDE, held=50)
    assert len(same) == len({row.tobytes() for row in positions.stones})


# images -------------------------------------------------------------------------------------------------------------


def test_images_are_those_of_the_four_symmetries(plain):
    positions = Positions(side=SIDE, **columns_of(plain, "train"))
    soft = positions.softened()
    for row, sample in enumerate(samples_of(plain, "train")):
        for symmetry, expected in enumerate(images(*sample)):
            for packed in (positions, soft):
                shown = image(packed.take(slice(row, row + 1)), symmetry)
                planes = shown.planes()[0].astype(np.float32)
                board = np.concatenate([planes, np.full((1, SIDE, SIDE), shown.player[0], dtype=np.float32)])
                parts = (board, shown.softened().policy[0], shown.value[:1])
                assert np.concatenate([np.ravel(p).astype(np.float32) for p in parts]).tobytes() == expected
        if row == 40:
            break


def test_upright_undoes_swapped_colours_and_canonical_takes_one_of_two(plain):
    positions = Positions(side=SIDE, **columns_of(plain, "train"))
    for symmetry in range(4):
        shown = image(positions, symmetry)
        back = {2: 0, 3: 1}.get(symmetry, symmetry)
        assert np.array_equal(upright(shown).stones, image(positions, back).stones)
        assert np.array_equal(upright(shown).player, positions.player)
        if symmetry < 2:
            assert np.array_equal(canonical(shown).stones, canonical(positions).stones)
    assert np.array_equal(symmetry_cells(SIDE)[1], np.arange(CELLS)[::-1])


# baked symmetries ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baked(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("baked") / "data"
    convert(sources, out=out, bake_symmetries=True, **CUT)
    return out


def test_baked_shards_hold_every_position_in_all_four_symmetries(plain, baked):
    for split in ("train", "val"):
        expected = Counter(shown for sample in samples_of(plain, split) for shown in images(*sample))
        stored = Counter(images(*sample)[0] for sample in samples_of(baked, split))
        assert stored == expected
    assert verify(baked).problems == ()


def test_the_four_images_of_a_position_lie_anywhere(baked):
    columns = columns_of(baked, "train")
    places = defaultdict(list)
    for place, key in enumerate(zip(*(columns[name].tolist() for name in ("source", "game", "ply")), strict=True)):
        places[key].append(place)
    gaps = np.concatenate([np.diff(each) for each in places.values()])
    total = len(columns["ply"])
    assert all(len(each) == 4 for each in places.values())
    # four places drawn at random among n lie n / 5 apart in the mean
    assert 0.9 * total / 5 < gaps.mean() < 1.1 * total / 5


@pytest.mark.parametrize("augment", ["random", "cycle", "all"])
def test_a_loader_refuses_to_augment_what_is_baked(baked, augment):
    with pytest.raises(ValueError, match='Pass augment="none"'):
        hexshards.loader(baked, augment=augment)


def test_a_loader_delivers_what_is_baked_as_it_is(plain, baked):
    given = Counter(row for batch in hexshards.loader(baked, augment="none", batch_size=100) for row in rows_of(batch))
    assert given == Counter(shown for sample in samples_of(plain, "train") for shown in images(*sample))


def rounded(sample):
    """A sample as bytes but for its value, and the value: 1 - mean and the mean of 1 - value differ in the last bit."""
    return sample[:-4], round(float(np.frombuffer(sample[-4:], dtype=np.float32)[0]), 5)


def test_merged_positions_are_baked_too(sources, data, dedupe, tmp_path):
    convert(sources, out=tmp_path / "data", bake_symmetries=True, dedupe=dedupe, **CUT)
    assert verify(tmp_path / "data").problems == ()
    for split in ("train", "val"):
        expected = Counter(rounded(shown) for sample in samples_of(data[0], split) for shown in images(*sample))
        assert Counter(rounded(images(*sample)[0]) for sample in samples_of(tmp_path / "data", split)) == expected


def test_concat_of_counted_positions_keeps_the_counts(data):
    positions = Positions(side=SIDE, **columns_of(data[0], "val"))
    both = concat([positions, positions])
    assert both.count.tolist() == positions.count.tolist() * 2
