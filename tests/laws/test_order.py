from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hexshards import rng
from hexshards.dataset.split import game_keys, in_val
from hexshards.loading import order
from hexshards.loading.options import LoaderSpec

SHARD_BLOCKS = [4, 4, 4, 4, 4, 4, 2]
BLOCK_ROWS = np.array([10] * 25 + [7])


def plan(*, epoch=0, **options):
    spec = LoaderSpec(**{"window_blocks": 3, "group_shards": 2, "seed": 7, "augment": "none", **options})
    return order.plan_epoch(SHARD_BLOCKS, BLOCK_ROWS, epoch=epoch, spec=spec)


def blocks_of(plan):
    return np.concatenate([window.blocks for window in plan.windows]).tolist()


def window(*, epoch=0, pass_=0, number=0):
    return order.Window(epoch, pass_, number, np.arange(1))


# version 1 of the format fixes these numbers: if one changes, checkpoints stop fitting and datasets change their splits


def test_the_random_words_are_those_of_version_1():
    assert rng.raw(3, 7).tolist() == [8648156199155761070, 7861003179181181637, 6695830538717239923]
    assert rng.raw(2, 7, rng.ROWS, 1, 2).tolist() == [16331471807744859014, 7178809171955590009]


def test_the_permutation_is_that_of_version_1():
    assert rng.permutation(8, 7, rng.BLOCKS, 0).tolist() == [7, 3, 2, 0, 4, 5, 1, 6]


def test_the_plan_of_an_epoch_is_that_of_version_1():
    assert [window.blocks.tolist() for window in plan().windows] == [
        [3, 0, 16],
        [18, 2, 19],
        [17, 1],
        [24, 25, 13],
        [12, 15, 14],
        [10, 8, 6],
        [11, 4, 7],
        [5, 9],
        [22, 21, 20],
        [23],
    ]
    assert plan().starts.tolist() == [0, 30, 60, 80, 107, 137, 167, 197, 217, 247, 257]


def test_the_rows_of_a_window_are_those_of_version_1():
    rows = order.window_rows(window(epoch=1, number=2), 8, spec=LoaderSpec(seed=7))
    assert rows.tolist() == [2, 5, 0, 4, 1, 6, 7, 3]


@pytest.mark.parametrize(
    ("augment", "shown"),
    [
        ("none", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("random", [3, 0, 3, 1, 1, 1, 1, 1, 3, 0, 2, 3]),
        ("cycle", [1, 3, 2, 0, 1, 1, 3, 0, 1, 3, 1, 3]),
        ("all", [2, 0, 3, 1, 2, 2, 0, 1, 2, 0, 2, 0]),
    ],
)
def test_the_symmetries_are_those_of_version_1(augment, shown):
    symmetries = order.symmetries(np.arange(12), window(epoch=1, pass_=2), augment=augment, seed=7)
    assert symmetries.tolist() == shown


def test_the_split_is_that_of_version_1():
    keys = game_keys(["a", "b"], np.array([0, 0, 1], dtype=np.uint32), np.array([1, -1, 1], dtype=np.int32))
    assert keys.tolist() == [4917199001715927179, 6870848048248914838, 13408170079062400793]
    assert np.flatnonzero(in_val(np.arange(40, dtype=np.uint64), val_fraction=0.2)).tolist() == [
        3,
        10,
        18,
        21,
        33,
    ]


# the order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 5, 1000, 131_072])
def test_a_permutation_holds_every_number_once(count):
    assert np.array_equal(np.sort(rng.permutation(count, 3, 1, 2)), np.arange(count))


def test_a_permutation_too_long_for_its_words_is_refused():
    with pytest.raises(ValueError, match="at most 16,777,215"):
        rng.permutation(1 << 24, 0)


def test_another_seed_or_path_gives_another_permutation():
    paths = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    permutations = [tuple(rng.permutation(50, seed, *path)) for seed in (0, 1, 2) for path in paths]
    assert len(set(permutations)) == len(permutations)


def test_every_place_is_equally_likely_for_every_number():
    # 4,000 permutations of 6: each of 36 pairs (number, place) is expected 667 times. Chi-square with 25 degrees of
    # freedom exceeds 52.6 once in a thousand; the seeds are fixed, so the figure is too
    seen = np.zeros((6, 6))
    for seed in range(4000):
        seen[np.arange(6), rng.permutation(6, seed, 5)] += 1
    assert ((seen - 4000 / 6) ** 2 / (4000 / 6)).sum() < 52.6


def test_every_order_is_equally_likely():
    # 24 orders of 4, 250 times each expected; 23 degrees of freedom exceed 49.7 once in a thousand
    seen = Counter(tuple(rng.permutation(4, seed, 6)) for seed in range(6000))
    assert len(seen) == 24
    assert sum((count - 250) ** 2 / 250 for count in seen.values()) < 49.7


def test_an_epoch_holds_every_block_once():
    assert sorted(blocks_of(plan())) == list(range(26))
    assert plan().starts[-1] == BLOCK_ROWS.sum()


def test_each_pass_of_augment_all_holds_every_block_once_in_an_order_of_its_own():
    epoch = plan(augment="all")
    passes = [tuple(b for w in epoch.windows if w.pass_ == pass_ for b in w.blocks.tolist()) for pass_ in range(4)]
    assert all(sorted(blocks) == list(range(26)) for blocks in passes)
    assert len(set(passes)) == 4
    assert epoch.starts[-1] == 4 * BLOCK_ROWS.sum()


def test_the_plan_says_where_each_window_begins():
    epoch = plan()
    sizes = [BLOCK_ROWS[window.blocks].sum() for window in epoch.windows]
    assert epoch.starts.tolist() == [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    for sample in range(int(epoch.starts[-1])):
        number = epoch.window_at(sample)
        assert epoch.starts[number] <= sample < epoch.starts[number + 1]


def test_a_window_never_mixes_two_groups_of_shards():
    home = np.repeat(np.arange(len(SHARD_BLOCKS)), SHARD_BLOCKS)
    groups = []
    for each in plan().windows:
        assert len(each.blocks) <= 3
        shards = set(home[each.blocks].tolist())
        if groups and groups[-1] & shards:
            groups[-1] |= shards
        else:
            groups.append(shards)
    # one group after another, and once a group is left none of its shards comes back
    assert [len(group) for group in groups] == [2, 2, 2, 1]
    assert set.union(*groups) == set(range(7))


def test_shuffled_epochs_differ_and_equal_ones_are_equal():
    orders = [tuple(blocks_of(plan(seed=seed, epoch=epoch))) for seed in (1, 2, 3) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)
    assert blocks_of(plan(seed=2, epoch=1)) == blocks_of(plan(seed=2, epoch=1))


def test_seed_1_epoch_1_is_not_seed_2_epoch_0():
    assert blocks_of(plan(seed=1, epoch=1)) != blocks_of(plan(seed=2, epoch=0))
    rows = [order.window_rows(window(epoch=e), 64, spec=LoaderSpec(seed=s)).tolist() for s, e in ((1, 1), (2, 0))]
    assert rows[0] != rows[1]


def test_without_shuffle_the_order_is_that_of_the_dataset():
    unshuffled = plan(shuffle=False, epoch=5)
    assert blocks_of(unshuffled) == list(range(26))
    rows = order.window_rows(unshuffled.windows[1], 30, spec=LoaderSpec(shuffle=False))
    assert rows.tolist() == list(range(30))


def test_the_rows_of_every_window_have_an_order_of_their_own():
    windows = [window(epoch=e, pass_=p, number=n) for e in range(3) for p in range(2) for n in range(3)]
    orders = [tuple(order.window_rows(each, 64, spec=LoaderSpec(seed=1))) for each in windows]
    assert len(set(orders)) == len(orders)


# symmetries ---------------------------------------------------------------------------------------------------------


def test_random_symmetries_are_a_quarter_each_and_new_in_every_epoch():
    positions = np.arange(40_000)
    first, second = (order.symmetries(positions, window(epoch=epoch), augment="random", seed=3) for epoch in (0, 1))
    # a joint table of 16 cells, 2,500 each expected: independent epochs; 15 degrees of freedom exceed 37.7 once in 1000
    joint = np.bincount(4 * first + second, minlength=16)
    assert ((joint - 2500) ** 2 / 2500).sum() < 37.7


def test_four_epochs_of_cycle_show_each_position_in_each_symmetry_once():
    shown = [order.symmetries(np.arange(999), window(epoch=epoch), augment="cycle", seed=3) for epoch in range(6, 10)]
    assert np.array_equal(np.sort(shown, axis=0), np.repeat(np.arange(4)[:, None], 999, axis=1))
    assert (np.bincount(shown[0], minlength=4) > 200).all()


def test_four_passes_of_all_show_each_position_in_each_symmetry_once():
    shown = [order.symmetries(np.arange(999), window(epoch=5, pass_=p), augment="all", seed=3) for p in range(4)]
    assert np.array_equal(np.sort(shown, axis=0), np.repeat(np.arange(4)[:, None], 999, axis=1))
    assert (np.bincount(shown[0], minlength=4) > 200).all()


def test_a_symmetry_belongs_to_the_position_and_not_to_its_window():
    positions = np.array([5, 17, 5_000_000_000])
    symmetries = [order.symmetries(positions, window(number=n), augment="random", seed=3).tolist() for n in range(3)]
    turned = order.symmetries(positions[::-1], window(), augment="random", seed=3).tolist()
    assert symmetries[0] == symmetries[1] == symmetries[2] == turned[::-1]


# the split ----------------------------------------------------------------------------------------------------------


def test_a_larger_fraction_only_adds_games_to_val():
    games = np.arange(20_000, dtype=np.uint64)
    fractions = [0.0, 0.01, 0.02, 0.1, 0.5, 0.99, 1.0]
    members = [in_val(games, val_fraction=fraction) for fraction in fractions]
    assert not members[0].any()
    assert members[-1].all()
    for (smaller, larger), fraction in zip(pairwise(members), fractions[1:], strict=True):
        assert not (smaller & ~larger).any()
        assert abs(larger.mean() - fraction) < 0.01


def test_the_words_of_the_smallest_and_the_largest_hash_belong_to_a_split_too():
    # the first is the word that mix sends to 0
    words = np.array([2**64 - 0x9E3779B97F4A7C15, 0, 2**64 - 1], dtype=np.uint64)
    assert rng.mix(words)[0] == 0
    assert not in_val(words, val_fraction=0.0).any()
    assert in_val(words, val_fraction=1.0).all()


def test_a_key_names_a_game_by_file_and_line_and_nothing_else():
    source, game = np.array([0, 0, 1, 1, 0], dtype=np.uint32), np.array([1, 2, 1, 2, 1], dtype=np.int32)
    keys = game_keys(["a", "b"], source, game)
    assert len(set(keys.tolist())) == 4
    assert keys[0] == keys[4]
    assert game_keys(["x", "b", "a"], np.uint32(2) - 2 * source, game).tolist()[:2] == keys.tolist()[:2]


def test_mix_gives_different_words_different_hashes():
    words = np.concatenate([np.arange(100_000, dtype=np.uint64), np.arange(1000, dtype=np.uint64) << np.uint64(54)])
    assert len(np.unique(rng.mix(words))) == len(np.unique(words))
