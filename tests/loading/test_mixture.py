from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch
from helpers.small_data import CUT, dataset, examples, images, rows_of, samples_of, write_examples

from hexshards.cli.training_view import TrainingView
from hexshards.conversion.convert import convert
from hexshards.errors import DataError
from hexshards.loading.loader import Loader, loader
from hexshards.loading.mixture import given, mixed_in, whole_parts
from hexshards.loading.options import LoaderSpec
from hexshards.training.options import TrainSpec
from hexshards.training.run import train


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two datasets that a board tells apart: A holds positions of an even number of stones, B of an odd one."""
    made = []
    for name, games, rest in (("A", 60, 0), ("B", 25, 1)):
        folder = tmp_path_factory.mktemp(name)
        entries = examples(games, seed=games, source=name)
        kept = [example for example in entries if example["metadata"]["position_in_game"] % 2 == rest]
        write_examples(folder / "processed" / f"{name}_processed.pkl.gz", kept)
        # the file says how many games it holds, and no longer holds their empty boards
        convert(folder / "processed", out=folder / name, max_rejects=1, **{**CUT, "val_fraction": 0})
        made.append(folder / name)
    return made


@pytest.fixture(scope="module")
def sizes(folders):
    return [sum(1 for _ in samples_of(folder, "train")) for folder in folders]


def mix(folders, *, weights=(0.7, 0.3), rank=0, world_size=1, **options):
    small = {"batch_size": 64, "window_blocks": 5, "group_shards": 2, "seed": 7, "augment": "none"}
    spec = LoaderSpec(**{**small, **options})
    return Loader(dict(zip(map(str, folders), weights, strict=True)), spec, rank=rank, world_size=world_size)


def odd(batch):
    """Which samples of a batch are of B, whatever symmetry they are shown in."""
    return (batch.board[:, :2].sum(dim=(1, 2, 3)).int() % 2).numpy()


def epochs(loader, count):
    """Samples as bytes, and which are of B, of some epochs one after another."""
    batches = [batch for _ in range(count) for batch in loader]
    return [row for batch in batches for row in rows_of(batch)], np.concatenate([odd(batch) for batch in batches])


# the shares ---------------------------------------------------------------------------------------------------------

WEIGHTS = [(1, 1), (0.7, 0.3), (1, 1000), (0.5, 0.25, 0.25), (3, 1, 4, 1, 5), (0.001, 0.999), (1 / 8, 7)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_shares_add_up_never_fall_and_are_exact_to_a_sample(weights):
    parts = whole_parts(weights)
    counts = given(parts, np.arange(5000))
    assert (counts.sum(axis=1) == np.arange(5000)).all()
    steps = np.diff(counts, axis=0)
    assert (steps >= 0).all()
    assert (steps.sum(axis=1) == 1).all()
    exact = np.arange(5000)[:, None] * np.array(parts) / sum(parts)
    assert np.abs(counts - exact).max() <= 1


def test_shares_stay_exact_far_beyond_any_epoch():
    parts = whole_parts((0.123457, 0.876543))
    at = 10**12
    counts = [int(count) for count in given(parts, at)]
    assert sum(counts) == at
    assert abs(counts[0] - Fraction(123457, 10**6) * at) <= 1


@pytest.mark.parametrize(("weights", "parts"), [((0.7, 0.3), (7, 3)), ((2, 4, 6), (1, 2, 3)), ((1.0,), (1,))])
def test_weights_become_the_smallest_whole_numbers(weights, parts):
    assert whole_parts(weights) == parts


@pytest.mark.parametrize("weights", [(0, 1), (-1, 2), (0.5, float("nan")), (float("inf"), 1), (1 / 3, 0.1), (1, 10**6)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be"):
        whole_parts(weights)


# the stream ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 1), (1, 30)])
def test_each_dataset_gives_every_position_once_before_it_begins_anew(folders, sizes, weights):
    rows, of_b = epochs(mix(folders, weights=weights), 4)
    for which, (folder, size) in enumerate(zip(folders, sizes, strict=True)):
        stream = [row for row, b in zip(rows, of_b, strict=True) if b == which]
        expected = Counter(images(*sample)[0] for sample in samples_of(folder, "train"))
        assert len(stream) > 0
        for begin in range(0, len(stream), size):
            part = Counter(stream[begin : begin + size])
            assert part == expected if begin + size <= len(stream) else part <= expected
    # both went through a pass and into the next
    assert max(of_b.sum() / sizes[1], (1 - of_b).sum() / sizes[0]) > 1


def test_an_epoch_ends_before_a_dataset_would_repeat_itself(folders, sizes):
    loader = mix(folders)
    _, of_b = epochs(loader, 1)
    used = [len(of_b) - of_b.sum(), of_b.sum()]
    assert all(count <= size for count, size in zip(used, sizes, strict=True))
    # one sample more and one of them would be used up beyond its end
    parts = whole_parts((0.7, 0.3))
    assert (given(parts, loader.samples + 1) > np.array(sizes)).any()


def test_in_any_stretch_the_proportions_are_exact_to_a_few_samples(folders):
    _, of_b = epochs(mix(folders), 3)
    total = np.concatenate([[0], np.cumsum(of_b)])
    off = total - 0.3 * np.arange(len(total))
    # 64 samples have an order of their own, so a stretch that cuts two such runs may be off by half of one
    assert off.max() - off.min() < 32
    for first in range(0, len(of_b) - 640, 7):
        assert abs(of_b[first : first + 640].sum() - 192) < 32


def test_no_dataset_has_fixed_places_in_a_batch(folders):
    loader = mix(folders, drop_last=True)
    batches = np.stack([odd(batch) for _ in range(8) for batch in loader])
    assert (batches.any(axis=0) & ~batches.all(axis=0)).all()
    assert len({tuple(batch) for batch in batches.tolist()}) == len(batches)


def test_every_batch_of_a_window_holds_its_share_to_a_sample(folders):
    # windows of 80 samples begin anew, so a batch of 16 that lies at a multiple of 64 in one holds 64 shuffled samples
    loader = mix(folders, batch_size=80, drop_last=True)
    counts = [int(odd(batch).sum()) for batch in loader]
    assert set(counts) <= {23, 24, 25}


@pytest.mark.parametrize("augment", ["random", "all"])
def test_a_mix_resumes_anywhere_with_other_workers_and_ranks(folders, augment):
    options = {"augment": augment, "batch_size": 64 if augment == "random" else 256}
    loader = mix(folders, **options)
    list(islice(loader, 2))
    loader.set_epoch(2)
    whole = [(rows_of(batch), loader.state_dict()) for batch in loader]
    for at in range(len(whole)):
        again = mix(folders, **options, num_workers=2 if at == 1 else 0)
        again.load_state_dict(whole[at][1])
        assert [rows_of(batch) for batch in again] == [rows for rows, _ in whole[at + 1 :]]
    pair = [mix(folders, **{**options, "batch_size": options["batch_size"] // 2}, rank=r, world_size=2) for r in (0, 1)]
    for rank in pair:
        rank.load_state_dict(whole[0][1])
    slices = [[row for batch in each for row in rows_of(batch)] for each in zip(*pair, strict=True)]
    assert slices == [rows for rows, _ in whole[1:]]


def test_epochs_differ_and_equal_ones_are_equal(folders):
    first = mix(folders)
    orders = [epochs(first, 1)[0] for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    again = mix(folders)
    again.set_epoch(1)
    assert epochs(again, 1)[0] == orders[1]
    prints = {mix(folders, seed=seed).fingerprint(epoch) for seed in (7, 8) for epoch in (0, 1)}
    assert len(prints) == 4
    assert mix(folders, num_workers=2, batch_size=5).fingerprint(1) in prints
    assert mix(folders, weights=(0.6, 0.4)).fingerprint(1) not in prints


def test_the_mix_of_version_1_stays(folders):
    first = next(iter(mix(folders)))
    assert "".join(map(str, odd(first))) == "1001000010001110001000000101000000010000010010110010010100000101"
    assert mix(folders).fingerprint(1) == "5c73d5f5fcd0"


def test_without_shuffle_every_epoch_is_the_first(folders):
    loader = mix(folders, shuffle=False)
    first, second = epochs(loader, 1), epochs(loader, 1)
    assert first[0] == second[0]
    stream = [row for row, b in zip(*first, strict=True) if b]
    assert stream == [images(*sample)[0] for sample in samples_of(folders[1], "train")][: len(stream)]


def test_augment_all_shows_every_position_of_a_dataset_in_four_symmetries_before_it_begins_anew(folders, sizes):
    rows, of_b = epochs(mix(folders, augment="all", weights=(1, 30)), 2)
    stream = [row for row, b in zip(rows, of_b, strict=True) if b]
    expected = Counter(image for sample in samples_of(folders[1], "train") for image in images(*sample))
    assert Counter(stream[: 4 * sizes[1]]) == expected


def test_a_filter_and_a_number_of_positions_hold_for_a_mix(folders, sizes):
    loader = mix(folders, where="ply=6..9", positions=100)
    rows, of_b = epochs(loader, 1)
    assert len(rows) == loader.samples == 100
    assert of_b.sum() == 30
    counts = torch.cat([batch.board[:, :2].sum(dim=(1, 2, 3)) for batch in loader]).int().tolist()
    assert set(counts) == {6, 7, 8, 9}


def test_what_a_mix_uses_is_told_before_it_is_used(folders, sizes):
    loader = mix(folders)
    lines = loader.describe()
    _, of_b = epochs(loader, 1)
    used = [len(of_b) - int(of_b.sum()), int(of_b.sum())]
    for line, folder, share, count, size in zip(lines, folders, ("70.0%", "30.0%"), used, sizes, strict=True):
        assert line.startswith(
            f"{folder}: {share} of the samples, {count:,} an epoch, which are {count / size:.2f} pass"
        )


def test_moves_and_distributions_mix_into_distributions(folders, tmp_path):
    entries = examples(20, seed=3, source="soft")
    for example in entries:
        if example["policy"] is not None:
            free = np.flatnonzero(example["board"].sum(axis=0).ravel() == 0)
            policy = np.zeros(25, dtype=np.float32)
            policy[free] = 1 / len(free)
            example["policy"] = policy
    write_examples(tmp_path / "processed" / "soft_processed.pkl.gz", entries)
    convert(tmp_path / "processed", out=tmp_path / "soft", **{**CUT, "val_fraction": 0})
    loader = mix([folders[0], tmp_path / "soft"], weights=(1, 1), augment="random")
    policies = torch.cat([batch.policy for batch in loader])
    single = (policies == 1).any(dim=1)
    assert single.any()
    assert not single.all()
    sums = policies.sum(dim=1)
    assert (((sums - 1).abs() < 1e-2) | (sums == 0)).all()
    windows = loader.epochs.windows(0)
    read = [windows.read(number, ("policy",)).columns["policy"] for number in range(len(windows))]
    loader.set_epoch(0)
    assert (np.concatenate([rows.policy for rows in loader.packed()]) == np.concatenate(read)).all()


# training ------------------------------------------------------------------------------------------------------------


def test_training_on_a_mix_tells_what_it_uses_and_ends_as_if_it_had_never_stopped(tmp_path, capsys):
    for name, games in (("A", 30), ("B", 12)):
        dataset(tmp_path / name, games=games, seed=games)
    a, b = tmp_path / "A" / "data", tmp_path / "B" / "data"
    options = {"data": a, "mix": f"{b}=0.25", "where": "ply=2..", "positions": 400, "batch_size": 50}
    options |= {"mini_epoch_samples": 150, "channels": 4, "blocks": 1, "warmup_samples": 0}
    ends = []
    for run, epochs in (("straight", (2,)), ("stopped", (1, 2))):
        for until in epochs:
            spec = TrainSpec(run=tmp_path / run, epochs=until, **options)
            with TrainingView() as view:
                outcome = train(spec, hooks=[view])
        ends.append(torch.load(outcome.checkpoint, weights_only=True)["model_state_dict"])
        assert outcome.samples_seen == 2 * loader({a: 0.75, b: 0.25}, where="ply=2..", positions=400).samples
    assert all(torch.equal(one, other) for one, other in zip(*(end.values() for end in ends), strict=True))
    told = capsys.readouterr().err
    assert f"{a}: 75.0% of the samples, 300 an epoch" in told
    assert f"{b}: 25.0% of the samples, 100 an epoch" in told
    assert "meet 'ply=2..'" in told


def test_a_run_on_a_mix_by_schedule_ends_as_if_it_had_never_stopped(folders, tmp_path):
    a, b = folders
    options = {"data": a, "mix": f"{b}=0.1", "mix_schedule": f"{b}=linear 0:0.1 300:0.5", "batch_size": 50}
    options |= {"mini_epoch_samples": 150, "channels": 2, "blocks": 1, "warmup_samples": 0, "epochs": 9}
    ends = []
    for run, stops in (("straight", (450,)), ("stopped", (200, 450))):
        for until in stops:
            outcome = train(TrainSpec(run=tmp_path / run, max_samples=until, **options))
        ends.append(torch.load(outcome.checkpoint, weights_only=True)["model_state_dict"])
    assert all(torch.equal(one, other) for one, other in zip(*(end.values() for end in ends), strict=True))
    with pytest.raises(DataError, match="mix_schedule was "):
        train(TrainSpec(run=tmp_path / "straight", max_samples=500, **{**options, "mix_schedule": ""}))
    with pytest.raises(ValueError, match="mix_schedule: C is none of the datasets of mix"):
        train(TrainSpec(run=tmp_path / "other", **{**options, "mix_schedule": "C=constant 0:0.2"}))


def test_a_share_that_is_none_is_refused():
    assert mixed_in("A", "B=0.2, C=.1") == {"A": 0.7, "B": 0.2, "C": 0.1}
    assert mixed_in("A", "") == {"A": 1.0}
    for mix in ("B", "B=", "=0.2", "B=2", "B=-0.1", "B=0.1,B=0.2", "A=0.5", "B=0.5.1", "B=1e-3"):
        with pytest.raises(ValueError, match="is no other dataset and its share"):
            mixed_in("A", mix)
    for mix in ("B=0.5,C=0.5", "B=0.9,C=0.9", "B=0.0"):
        with pytest.raises(ValueError, match="must be more than 0 and leave some for A"):
            mixed_in("A", mix)


# refusals -----------------------------------------------------------------------------------------------------------


def test_datasets_that_can_not_be_mixed_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="at least one dataset"):
        Loader({}, LoaderSpec())
    with pytest.raises(ValueError, match="are the same dataset: name it once"):
        mix([folders[0], f"{folders[0]}/"])
    with pytest.raises(ValueError, match=r"has boards of side 4, .* of 5: they can't be mixed"):
        mix([folders[0], dataset(tmp_path, games=9, side=4, val_fraction=0)])


def test_a_state_of_other_weights_or_datasets_is_refused(folders):
    state = mix(folders).state_dict()
    with pytest.raises(ValueError, match="mix is 3:2, the state's 7:3"):
        mix(folders, weights=(0.6, 0.4)).load_state_dict(state)
    with pytest.raises(ValueError, match="dataset is"):
        mix(folders[::-1]).load_state_dict(state)
    with pytest.raises(ValueError, match="mix is not given, the state's 7:3"):
        Loader(folders[0], LoaderSpec()).load_state_dict(state)


def test_a_mix_of_one_is_that_dataset(folders):
    alone = Loader(folders[0], LoaderSpec(augment="none"))
    assert epochs(mix(folders[:1], weights=(3,), window_blocks=16, group_shards=8, seed=0), 1)[0] == epochs(alone, 1)[0]


# shares by schedule -------------------------------------------------------------------------------------------------


def scheduled(folders, schedule="linear 0:0.1 900:0.6", **options):
    return mix(folders, mix_schedule=f"{folders[1]}={schedule}", **options)


def test_a_share_follows_its_schedule_over_the_samples_of_all_epochs(folders, sizes):
    loader = scheduled(folders)
    rows, of_b = epochs(loader, 4)
    of = len(of_b) // 4
    assert of * 4 == len(of_b) > 900
    for first in range(0, len(of_b) - 80, 80):
        wanted = sum(min(0.6, 0.1 + 0.5 * at / 900) for at in range(first, first + 80))
        # a window keeps the share of its first sample, and epochs need not be whole windows
        assert abs(of_b[first : first + 80].sum() - wanted) < 16
    for epoch in range(4):
        used = of_b[epoch * of : (epoch + 1) * of].sum()
        assert used <= sizes[1] and of - used <= sizes[0]
    for which, (folder, size) in enumerate(zip(folders, sizes, strict=True)):
        stream = [row for row, b in zip(rows, of_b, strict=True) if b == which]
        expected = Counter(images(*sample)[0] for sample in samples_of(folder, "train"))
        assert Counter(stream[:size]) == expected


def test_a_constant_schedule_mixes_as_the_weights_do_to_a_sample_a_window(folders):
    by_schedule, by_weights = scheduled(folders, "constant 0:0.3"), mix(folders, weights=(0.7, 0.3))
    ours, theirs = (epochs(each, 2)[1].cumsum() for each in (by_schedule, by_weights))
    count = min(len(ours), len(theirs))
    assert abs(ours[:count] - theirs[:count]).max() <= 20 + count // 80


def test_a_scheduled_mix_resumes_anywhere_and_only_under_its_schedule(folders):
    loader = scheduled(folders)
    loader.set_epoch(2)
    whole = [(rows_of(batch), loader.state_dict()) for batch in loader]
    for at in range(0, len(whole), 3):
        again = scheduled(folders, num_workers=1 if at == 3 else 0)
        again.load_state_dict(whole[at][1])
        assert [rows_of(batch) for batch in again] == [rows for rows, _ in whole[at + 1 :]]
    for other in (mix(folders), scheduled(folders, "linear 0:0.1 900:0.5")):
        with pytest.raises(ValueError, match="mix"):
            other.load_state_dict(whole[0][1])
    assert "its share follows linear 0:0.1 900:0.6" in " ".join(loader.describe())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("C=linear 0:0.1 9:0.2", "C is none of the datasets"),
        ("{b}=linear 0:0.1 9:1.0", "must stay below 1 together"),
        ("{b}=constant 0:0", "must be above 0 at some time"),
        ("{a}=constant 0:0.2, {b}=constant 0:0.2", "leave the rest to a dataset"),
    ],
)
def test_a_schedule_that_leaves_no_mix_is_refused(folders, schedule, message):
    with pytest.raises(ValueError, match=f"mix_schedule: .*{message}"):
        mix(folders, mix_schedule=schedule.format(a=folders[0], b=folders[1]))
