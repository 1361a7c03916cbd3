"""Positions count by their weights, and validation says what they cost with and without."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from helpers.small_data import columns_of, dataset, examples, write_examples
from helpers.small_runs import small_spec
from helpers.steps import Bare, assert_equal, batch, weights
from torch import Tensor

from hexshards.cli.training_view import mini_epoch_line
from hexshards.conversion.convert import convert
from hexshards.dataset.earlier import extends
from hexshards.dataset.index import read_index
from hexshards.errors import Misused
from hexshards.training.options import StepSpec
from hexshards.training.run import parts_of, train
from hexshards.training.steps.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "warmup_samples": 0,
    "learning_rate": 0.5,
}


class Weighted(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor
    columns: dict[str, Tensor]


def weighted(seed=0, rows=6, **columns):
    return Weighted(*batch(seed, rows=rows), {name: torch.tensor(numbers) for name, numbers in columns.items()})


def made(**options):
    torch.manual_seed(3)
    return Trainer(Bare(), StepSpec(**{**SGD, **options}))


def test_a_position_of_weight_three_counts_as_if_it_were_there_three_times():
    repeated = [0, 0, 0, 1, 3, 3, 4, 5]
    ours, theirs = made(), made()
    means = ours.train_on_batches([weighted(weight=[3.0, 1.0, 0.0, 2.0, 1.0, 1.0])])
    plain = batch(0)
    expected = theirs.train_on_batches([type(plain)(*(part[repeated] for part in plain))])
    for name in ("loss", "policy_loss", "value_loss"):
        assert means[f"weighted_{name}"] == pytest.approx(expected[name])
    assert torch.allclose(weights(ours.model), weights(theirs.model), atol=1e-6)
    assert means["value_loss"] == made().train_on_batches([plain])["value_loss"]


def test_a_policys_weight_is_for_the_policy_alone_and_multiplies_the_other():
    both = weighted(weight=[1.0, 1.0, 2.0, 2.0, 0.5, 1.0], policy_weight=[1.0, 1.0, 0.5, 3.0, 2.0, 0.0])
    means, model = made().validate([both]), made().model
    logits, values = model(both.board)
    policy = torch.nn.functional.cross_entropy(logits[2:], both.policy[2:], reduction="none")
    value = torch.nn.functional.binary_cross_entropy_with_logits(values, both.value, reduction="none")[:, 0]
    by_hand = {"policy": (policy * torch.tensor([1.0, 6.0, 1.0, 0.0])).sum() / 8}
    by_hand["value"] = (value * both.columns["weight"]).sum() / 7.5
    for name, mean in by_hand.items():
        assert means[f"weighted_{name}_loss"] == pytest.approx(mean.item(), rel=1e-6)
    assert means["weighted_loss"] == pytest.approx(0.15 * by_hand["policy"].item() + 0.85 * by_hand["value"].item())
    assert means["policy_loss"] == pytest.approx(policy.mean().item())
    assert means["value_loss"] == pytest.approx(value.mean().item())


def test_without_weights_nothing_weighted_is_reported():
    assert not [name for name in made().validate([batch(0)]) if "weight" in name]


def test_where_all_weights_are_0_no_weight_moves():
    trainer = made()
    before = weights(trainer.model)
    trainer.train_on_batches([weighted(weight=[0.0] * 6)])
    assert torch.equal(weights(trainer.model), before)


def test_weights_are_shared_out_over_the_parts_of_a_batch():
    numbers = [0.25, 0.0, 3.0, 0.5, 1.0, 0.125]
    whole, parts = made(), made(accumulate=4)
    for trainer in (whole, parts):
        trainer.train_on_batches([weighted(seed, weight=numbers, policy_weight=numbers[::-1]) for seed in range(3)])
    assert torch.allclose(weights(whole.model), weights(parts.model), atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"weight": [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]}, "a batch has weight below 0 or not finite"),
        ({"policy_weight": [1.0, float("nan")] * 3}, "a batch has policy_weight below 0 or not finite"),
        ({"weight": [float("inf")] * 6}, "a batch has weight below 0 or not finite"),
        ({"weight": [1.0, 2.0]}, "a batch of 6 rows has a column weight of 2"),
    ],
)
def test_weights_that_can_be_none_are_refused_before_a_step(columns, message):
    trainer = made()
    before = copy.deepcopy(trainer.state_dict())
    with pytest.raises(ValueError, match=message):
        trainer.train_on_batches([weighted(**columns)])
    assert_equal(trainer.state_dict(), before)


# a run --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("plain"), games=30)


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A dataset that says how much a position counts."""
    folder, entries = tmp_path_factory.mktemp("rich"), examples(20)
    for number, example in enumerate(entries):
        example |= {"weight": float(number % 4), "policy_weight": 0.5}
    path = write_examples(folder / "a_processed.pkl.gz", entries)
    convert(path, out=folder / "data", shard_positions=96, block_positions=16, val_fraction=0.3)
    return folder / "data"


def spec(data, run, **options):
    return small_spec(data, run, **{"diagnose": 32, **options})


def test_weights_are_read_where_a_dataset_or_a_rule_gives_them_and_nowhere_else(plain, rich, tmp_path):
    asked = {}
    for name, data, rules in (("plain", plain, ""), ("ruled", plain, "ply=10..:2"), ("rich", rich, "")):
        loaders = parts_of(spec(data, tmp_path, weights=rules))[1:3]
        asked[name] = [[each.name for each in loader.extra.columns] if loader.extra else [] for loader in loaders]
    assert asked == {"plain": [[], []], "ruled": [["weight"]] * 2, "rich": [["weight", "policy_weight"]] * 2}


def test_a_run_by_rules_says_what_counts_goes_on_and_is_not_gone_on_with_under_others(plain, tmp_path):
    rules = {"weights": "ply=10..:4, tier=0:0.5"}
    whole = train(spec(plain, tmp_path / "whole", **rules))
    train(spec(plain, tmp_path / "parts", **{**rules, "max_samples": 64}))
    again = train(spec(plain, tmp_path / "parts", **rules))
    states = [torch.load(each.checkpoint, weights_only=True) for each in (whole, again)]
    assert_equal(*(state["model_state_dict"] for state in states))
    assert again.metrics["val"] == whole.metrics["val"]
    val = whole.metrics["val"]
    assert f"weighted {val['weighted_loss']:.3f}" in mini_epoch_line(whole.metrics)
    assert f", weighted {val['weighted_loss']:.4f}" in whole.summary()
    assert val["weighted_value_loss"] != val["value_loss"]
    with pytest.raises(Misused, match=r"weights was ply=10\.\.:4, tier=0:0\.5, is ply=10\.\.:2"):
        train(spec(plain, tmp_path / "parts", weights="ply=10..:2", max_samples=256))


def test_files_that_bring_weights_are_an_addition_to_a_dataset_without(rich, tmp_path):
    data = dataset(tmp_path, games=12)
    before = read_index(data)
    convert(rich.parent / "a_processed.pkl.gz", out=data, append=True)
    assert read_index(data).layout.optional and extends(read_index(data), before)
    assert not extends(before, read_index(data))


def test_a_datasets_own_weights_are_in_the_losses(rich, tmp_path):
    val = train(spec(rich, tmp_path / "run", max_samples=64)).metrics["val"]
    held = columns_of(rich, "val")["weight"]
    assert held.sum() > 0 and val["weighted_value_loss"] != val["value_loss"]
