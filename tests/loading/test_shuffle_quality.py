from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from helpers.small_data import columns_of, dataset, processed
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.cli.dataset_view import mixing_text
from hexshards.conversion.compact import compact, has_grown, has_small_shards
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.dataset.shard import write_shard
from hexshards.game.positions import Positions
from hexshards.loading.loader import Loader
from hexshards.loading.options import LOADER, LoaderSpec
from hexshards.loading.shuffle_quality import (
    HARM,
    SUSPECT,
    Measure,
    _absent,
    _deviations,
    _lost_by_pairs,
    _pairs_by_chance,
    mixing,
    stream,
)

CUT = {"shard_positions": 960, "block_positions": 48, "val_fraction": 0.05}
"""8,545 training positions in 9 shards of 20 blocks: windows of the default 16 blocks are a twelfth of them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("mixing"), games=400, **CUT)


@pytest.fixture(scope="module")
def unshuffled(data, tmp_path_factory):
    """The same positions game by game, as if conversion had not shuffled them."""
    folder = shutil.copytree(data, tmp_path_factory.mktemp("unshuffled") / "data")
    index, columns = read_index(folder), columns_of(folder, "train")
    by_game = np.lexsort((columns["ply"], columns["game"], columns["source"]))
    positions = Positions(side=5, **columns).take(by_game)
    shards = []
    for shard in index.splits["train"].shards:
        blocks = [positions.take(slice(at, min(at + 48, shard.positions))) for at in range(0, shard.positions, 48)]
        positions = positions.take(slice(shard.positions, None))
        shards.append(write_shard(folder / shard.name, blocks, layout=index.layout))
    splits = {**index.splits, "train": replace(index.splits["train"], shards=tuple(shards))}
    replace(index, splits=splits).write(folder)
    return folder


def measured(folder, **options):
    quality = mixing(folder, LoaderSpec(**{"batch_size": 128, **options}))
    return quality, {measure.name.split(",")[0]: measure for measure in quality.measures}


def test_the_default_window_is_not_told_from_a_uniform_shuffle(data):
    assert (LOADER.window_blocks, LOADER.shuffle) == (16, True)
    deviations = []
    for seed in (0, 1, 2):
        quality, measures = measured(data, seed=seed)
        assert quality.sound
        judged = [each.deviations for name, each in measures.items() if "copies" not in name]
        deviations += [each for each in judged if each is not None]
        assert measures["games per batch"].measured == pytest.approx(measures["games per batch"].uniform, rel=0.01)
    # twelve figures of uniform shuffles: all within three deviations, and not all on one side
    assert len(deviations) == 12
    assert max(map(abs, deviations)) < 3
    assert min(deviations) < 0 < max(deviations)


@pytest.mark.parametrize("options", [{"shuffle": False}, {"window_blocks": 1}, {"window_blocks": 4}])
def test_a_bad_shuffle_is_caught(unshuffled, options):
    quality, measures = measured(unshuffled, **options)
    assert not quality.sound
    pairs = measures["pairs of the same game per batch"]
    assert pairs.bad
    assert pairs.measured > 2 * pairs.uniform
    assert measures["games per batch"].measured < measures["games per batch"].uniform
    assert measures["mean value of a batch"].bad
    assert measures["serial correlation of the value"].bad


def test_a_window_over_everything_mends_what_conversion_did_not_do(unshuffled):
    quality, _ = measured(unshuffled, window_blocks=1000, group_shards=1000)
    assert quality.sound


def test_a_position_is_in_a_batch_with_a_copy_of_itself_less_often_than_by_chance(data):
    _, measures = measured(data)
    copies = measures["copies of a position per batch"]
    # only a batch that holds the end of one pass and the beginning of the next can hold two images of a position
    assert copies.measured < copies.uniform / 10


@pytest.mark.parametrize(
    "options", [{}, {"augment": "all"}, {"where": "ply=3..", "drop_last": True}, {"streams": 4, "augment": "all"}]
)
def test_the_meter_looks_at_the_batches_that_the_loader_delivers(data, options):
    loader = Loader(data, LoaderSpec(**{"batch_size": 100, "window_blocks": 3, "seed": 3, **options}))
    seen = list(stream(loader, ("value", "symmetry", "ply", "place"), epoch=0))
    batches = list(loader)
    assert len(seen) == len(batches)
    for batch, columns in zip(batches, seen, strict=True):
        shown = np.where(columns["symmetry"] >= 2, 1 - columns["value"], columns["value"])
        assert np.array_equal(batch.value[:, 0].numpy(), shown)
        assert torch.equal(batch.board[:, :2].sum(dim=(1, 2, 3)).int(), torch.from_numpy(columns["ply"]).int())


def test_the_figures_are_those_that_one_counts_by_hand(data):
    quality, measures = measured(data)
    loader = Loader(data, LoaderSpec(batch_size=128, augment="none", drop_last=True))
    pairs, games, files, values = 0, 0, 0, []
    for batch in stream(loader, ("source", "game", "value"), epoch=0):
        counts = Counter(zip(batch["source"].tolist(), batch["game"].tolist(), strict=True))
        pairs += sum(count * (count - 1) // 2 for count in counts.values())
        games += len(counts)
        files += len(set(batch["source"].tolist()))
        values.append(batch["value"].astype(float))
    assert quality.batches == len(values) == len(loader)
    assert measures["pairs of the same game per batch"].measured == pairs / len(values)
    assert measures["games per batch"].measured == games / len(values)
    assert measures["source files per batch"].measured == files / len(values)
    spread = np.std([value.mean() for value in values])
    assert measures["mean value of a batch"].measured == pytest.approx(spread)
    one = np.concatenate(values)
    centred = one - one.mean()
    serial = (centred[1:] * centred[:-1]).mean() / centred.var()
    assert measures["serial correlation of the value"].measured == pytest.approx(serial, abs=1e-3)


# what chance gives, against all shuffles of a few positions ---------------------------------------------------------


@pytest.mark.parametrize(("classes", "size"), [("aabbcd", 2), ("aaabbc", 3), ("aaaabc", 2), ("aabbcc", 3)])
def test_mean_and_spread_of_pairs_are_those_of_all_shuffles(classes, size):
    counts, lost = [], []
    for shuffled in permutations(classes):
        batches = [Counter(shuffled[at : at + size]) for at in range(0, len(classes), size)]
        counts.append(sum(n * (n - 1) // 2 for batch in batches for n in batch.values()))
        lost.append("a" not in batches[0])
    of = Counter(Counter(classes).values())
    mean, variance = _pairs_by_chance(list(of), list(of.values()), size, len(classes))
    assert mean == pytest.approx(np.mean(counts))
    assert variance == pytest.approx(np.var(counts), abs=1e-12)
    assert _absent(classes.count("a"), size, len(classes)) == pytest.approx(np.mean(lost), abs=1e-12)


def test_deviations_are_small_at_the_mean_and_near_those_of_a_normal_variable():
    assert abs(_deviations(1e6, 1e6, 1e6)) < 1e-2
    assert _deviations(1e6 + 4e3, 1e6, 1e6) == pytest.approx(4, abs=0.01)
    # a Poisson variable of mean 0.5 reaches 5 once in 5,800 times: 3.6 deviations, where a plain quotient says 6.4
    assert 2.5 < _deviations(5, 0.5, 0.5) < 4.5
    assert _deviations(0, 0, 0) is None


@pytest.mark.parametrize("counts", [(3, 3, 2), (1, 1, 1), (5, 2, 1, 1, 1)])
def test_what_pairs_cost_is_that_of_a_mean_whose_classes_say_the_same(counts):
    size = sum(counts)
    values = np.random.default_rng(0).standard_normal((200_000, len(counts)))
    strays = np.repeat(values, counts, axis=1).mean(axis=1).var()
    pairs = sum(count * (count - 1) // 2 for count in counts)
    # alone, each of n independent positions strays by 1 / n
    assert 1 - _lost_by_pairs(pairs, 0, size) == pytest.approx(1 / size / strays, rel=0.02)
    assert _lost_by_pairs(0, pairs, size) == 0


def test_more_than_chance_gives_is_bad_where_it_may_cost_something(data):
    def measure(deviations, lost):
        return Measure(name="pairs", measured=63_530, uniform=62_790, deviations=deviations, lost=lost)

    harmless, chance, bad = measure(170, HARM), measure(SUSPECT, 0.9), measure(SUSPECT + 0.1, HARM + 0.01)
    assert (harmless.bad, chance.bad, bad.bad) == (False, False, True)
    quality, _ = measured(data)
    assert quality.worst is None
    assert "mixed: as a uniform" in mixing_text(quality)
    told = replace(quality, measures=(chance, harmless))
    assert told.sound and told.worst is harmless
    assert "less" not in mixing_text(told)
    assert "mixed well enough; beyond chance: pairs, at worst as if batches were 5.0% smaller" in mixing_text(told)
    told = replace(quality, measures=(harmless, bad), remedy="Mix.")
    assert not told.sound and mixing_text(told).endswith("pairs, at worst as if batches were 6% smaller. Mix.")


def test_what_was_measured_is_said_with_what_chose_it_and_fits_a_terminal(data):
    quality, _ = measured(data, window="2k", per_game=8, batch_size=32)
    text = mixing_text(quality)
    first, window, *table = text.splitlines()
    held = sum(shard.positions for shard in read_index(data).splits["train"].shards)
    count = Loader(data, LoaderSpec(window="2k", per_game=8)).positions
    assert first == f"{count // 32} batches of 32, of {count:,} positions of the split's {held:,}"
    assert window.startswith("window 2k: the newest 2,000 of ") and "at most 8 of each of" in window
    assert max(map(len, table[: len(quality.measures) + 2])) <= 80
    assert mixing_text(measured(data)[0]).splitlines()[0] == f"{held // 128} batches of 128, of {held:,} positions"
    large = replace(quality.measures[0], measured=523_776.25, uniform=523_776.0, deviations=1234.5)
    assert re.search(r" 523,776  523,776  \+1234\.5$", mixing_text(replace(quality, measures=(large,))), re.MULTILINE)


# use ----------------------------------------------------------------------------------------------------------------


def test_a_dataset_with_all_symmetries_stored_is_measured_without_showing_them_again(tmp_path):
    baked = dataset(tmp_path, games=24, bake_symmetries=True)
    names = [measure.name for measure in mixing(baked, replace(LOADER, augment="none", batch_size=64)).measures]
    assert "pairs of the same game per batch" in names
    assert not [name for name in names if "copies" in name]


def test_the_command_tells_figures_and_a_verdict_and_fails_for_a_bad_shuffle(data, unshuffled):
    good = CliRunner().invoke(app, ["mixing", str(data), "--batch-size", "128"])
    assert good.exit_code == 0, good.output
    better = "mixed: as a uniform shuffle would, and better: less than chance gives of copies of a position per batch"
    assert better in good.stdout and "\nless: than chance gives, which is good" in good.stdout
    assert re.search(r"copies of a position .*  less$", good.stdout, re.MULTILINE)
    bad = CliRunner().invoke(app, ["mixing", str(unshuffled), "--batch-size", "128", "--no-shuffle", "--json"])
    assert bad.exit_code == 1
    told = json.loads(bad.stdout)
    assert not told["sound"]
    assert told["measures"][0]["name"] == "pairs of the same game per batch"
    few = CliRunner().invoke(app, ["mixing", str(data), "--batch-size", "5000"])
    assert few.exit_code == 2
    assert "fewer than two batches" in few.stderr


def test_what_to_do_is_to_compact_where_files_were_added_to_convert_again_elsewhere_or_to_shuffle(unshuffled, tmp_path):
    files = processed(tmp_path / "files", games=120, games_per_file=10)
    for number, file in enumerate(files):
        convert(file, out=tmp_path / "data", append=number > 0, **({} if number else {"block_positions": 64}))
    before, _ = measured(tmp_path / "data")
    assert not before.sound and "`hexshards compact`" in before.remedy
    said = CliRunner().invoke(app, ["mixing", str(tmp_path / "data"), "--batch-size", "128"])
    assert said.stdout.rstrip().endswith(before.remedy)
    compact(tmp_path / "data")
    after, pairs = measured(tmp_path / "data")
    assert after.sound and abs(pairs["pairs of the same source file per batch"].deviations) < SUSPECT
    assert measured(unshuffled, window_blocks=1)[0].remedy.startswith("Convert again")
    assert measured(unshuffled, shuffle=False)[0].remedy == "Leave shuffling on"


def test_a_dataset_that_grew_and_has_nothing_to_merge_is_not_told_that_it_only_needs_converting(tmp_path):
    files = processed(tmp_path / "files", games=40, games_per_file=10)
    data, options = tmp_path / "data", {"shard_positions": 192, "block_positions": 64}
    assert not has_grown(convert(files[:2], out=data, **options).index, "train")
    grown = convert(files[2:], out=data, append=True).index
    # full shards are not merged, so the small ones have no room
    assert has_grown(grown, "train") and not has_small_shards(grown, "train")
    assert "It grew, and `hexshards compact` has nothing more to merge" in measured(data, batch_size=32)[0].remedy
    small = tmp_path / "small"
    for number, file in enumerate(files):
        convert(file, out=small, append=number > 0)
    compact(small)
    assert len(read_index(small).splits["train"].shards) == 1 and has_grown(read_index(small), "train")
