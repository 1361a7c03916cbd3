"""Heads beside policy and value: plies to the end, what a search said, and a value that learns from both."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from helpers.small_data import dataset, examples, write_examples
from helpers.small_runs import small_spec
from helpers.steps import Bare, assert_equal, batch
from torch import Tensor, nn

from hexshards import TwoHeadedResNet
from hexshards.conversion.convert import convert
from hexshards.errors import DataError
from hexshards.reports.history import read_history
from hexshards.reports.terminal_curves import curves_text
from hexshards.training.options import StepSpec, search_share
from hexshards.training.run import train
from hexshards.training.steps.heads import heads_of
from hexshards.training.steps.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = "policy,value,moves_left,search_value"


class WithColumns(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor
    columns: dict[str, Tensor]


def with_columns(**columns):
    return WithColumns(*batch(0), {name: torch.tensor(numbers) for name, numbers in columns.items()})


class OneOfYours(nn.Module):
    """Answers what it is told to, as a tuple or as a dict."""

    def __init__(self, answer: str = "tuple", rows: int = 6) -> None:
        super().__init__()
        self.answer, self.policy, self.value = answer, nn.Linear(75, 25), nn.Linear(75, 1)
        self.plies, self.search = nn.Parameter(torch.tensor(30.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, board: Tensor) -> object:
        flat = board.flatten(1)
        others = [each.expand(len(board), 1) for each in (self.plies, self.search)]
        answers = (self.policy(flat), self.value(flat), *others)
        if self.answer == "tuple":
            return answers
        return dict(sorted(zip(ALL.split(","), answers, strict=True)))


@pytest.mark.parametrize("answer", ["tuple", "dict"])
def test_what_is_not_known_of_plies_and_search_never_counts(answer):
    known = with_columns(plies_left=[10, 30, 31, 70, -1, -1], search_value=[0.5, 1.0] + [math.nan] * 4)
    means = Trainer(OneOfYours(answer), StepSpec(heads=ALL)).validate([known])
    assert (means["samples"], means["moves_left_samples"], means["search_value_samples"]) == (6, 4, 2)
    assert means["moves_left_error"] == pytest.approx((20 + 0 + 1 + 40) / 4)
    # quadratic within ten plies, linear beyond, in units of twenty
    huber = [0.5 * (1.0 - 0.25), 0.0, 0.05**2 / 2, 0.5 * (2.0 - 0.25)]
    assert means["moves_left_loss"] == pytest.approx(sum(huber) / 4)
    assert means["search_value_loss"] == pytest.approx(math.log(2))
    assert means["search_value_error"] == pytest.approx(0.25)
    weighted = 0.15 * means["policy_loss"] + 0.85 * means["value_loss"]
    weighted += 0.1 * means["moves_left_loss"] + 0.3 * means["search_value_loss"]
    assert means["loss"] == pytest.approx(weighted)


def test_what_is_not_known_passes_no_gradient():
    trainer = Trainer(OneOfYours(), StepSpec(heads=ALL, optimizer="sgd", warmup_samples=0, momentum=0.0))
    trainer.train_on_batches([with_columns(plies_left=[-1] * 6, search_value=[math.nan] * 6)])
    assert (trainer.model.plies.item(), trainer.model.search.item()) == (30.0, 0.0)
    means = trainer.train_on_batches([with_columns(plies_left=[60] + [-1] * 5, search_value=[1.0] + [math.nan] * 5)])
    assert trainer.model.plies.item() > 30 and trainer.model.search.item() > 0
    assert (means["moves_left_samples"], means["search_value_samples"]) == (1, 1)


def test_our_network_with_more_heads_begins_with_the_weights_of_one_without():
    torch.manual_seed(5)
    plain = TwoHeadedResNet(channels=4, blocks=1)
    torch.manual_seed(5)
    more = TwoHeadedResNet(channels=4, blocks=1, heads=ALL)
    weights = more.state_dict()
    assert_equal({name: weights[name] for name in plain.state_dict()}, plain.state_dict())
    assert [tuple(part.shape) for part in more(torch.zeros(2, 3, 6, 6))] == [(2, 36), (2, 1), (2, 1), (2, 1)]


@pytest.mark.parametrize(
    ("text", "share"),
    [("result", 0), ("search", 1), ("0.7*result+0.3*search", 0.3), (" .25 * search + 0.75*result ", 0.25)],
)
def test_a_value_learns_the_blend_that_is_named_and_the_result_where_no_search_spoke(text, share):
    assert search_share(text) == share
    (_, value) = heads_of(StepSpec(value_target=text))
    said = torch.tensor([0.5, math.nan, 0.25, 1.0, 0.0, math.nan])
    mixed = WithColumns(*batch(1), {"search_value": said})
    wanted = value.target_of(mixed).wanted[:, 0].tolist()
    by_hand = [
        won if math.isnan(search) else (1 - share) * won + share * search
        for won, search in zip(mixed.value[:, 0].tolist(), said.tolist(), strict=True)
    ]
    assert wanted == pytest.approx(by_hand)


def test_validation_measures_by_who_won_whatever_the_value_learns():
    spoken = with_columns(search_value=[0.5] * 6)
    torch.manual_seed(0)
    model = OneOfYours()
    plain = Trainer(model, StepSpec(heads=ALL.replace(",moves_left", ""))).heads
    assert [head.name for head in plain] == ["policy", "value", "search_value"]
    net = TwoHeadedResNet(channels=2, blocks=1)
    by_result, blended = (Trainer(net, StepSpec(value_target=text)) for text in ("result", "search"))
    assert blended.validate([spoken]) == by_result.validate([spoken])
    assert blended.train_on_batches([spoken])["value_loss"] >= math.log(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "value,policy"}, "heads must be policy,value and any of moves_left, search_value behind them"),
        ({"heads": "policy,vlaue"}, r"got policy,vlaue\. Did you mean value\?"),
        ({"heads": "policy,value,ownership"}, "heads must be policy,value and any of"),
        ({"heads": "policy,value,moves_left,moves_left"}, "heads must be policy,value and any of"),
        ({"value_target": "0.7*result+0.4*search"}, "value_target must be shares that make 1"),
        ({"value_target": "2*result+-1*search"}, "value_target must be shares that make 1"),
        ({"value_target": "result+0*search+0*search"}, "value_target must be shares that make 1"),
        ({"value_target": "visits"}, "value_target must be shares that make 1"),
        ({"loss_schedule": "moves_left=linear 0:0 9:1"}, "loss_schedule names what is none of the heads policy, value"),
        ({"loss_schedule": "vlaue=linear 0:0 9:1"}, r"got vlaue\. Did you mean value\?"),
        ({"loss_schedule": "policy=linear"}, "loss_schedule: 'linear' is no schedule"),
        ({"value_target_schedule": "linear 0:0 9:1.5"}, "value_target_schedule must be shares, 0 to 1"),
        ({"value_target_schedule": "step 0:0 9:1", "value_target": "search"}, "not both"),
    ],
)
def test_heads_and_targets_that_can_be_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StepSpec(**options)


def test_a_batch_without_what_a_head_learns_is_refused_in_a_sentence():
    trainer = Trainer(OneOfYours(), StepSpec(heads=ALL))
    with pytest.raises(ValueError, match=r"a head learns the column plies_left, .* columns=\['plies_left'\]"):
        trainer.train_on_batches([batch(0)])


def test_weights_of_losses_and_what_a_value_learns_follow_the_samples_seen_before_a_step():
    schedules = {"loss_schedule": "value=linear 0:0 12:1.2, policy=step 0:0 7:1"}
    schedules |= {"value_target_schedule": "linear 0:0 12:1"}
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_samples": 0}
    batches = [WithColumns(*batch(seed), {"search_value": torch.full((6,), 0.25)}) for seed in range(4)]
    torch.manual_seed(2)
    ours, theirs = Trainer(Bare(), StepSpec(**options, **schedules)), Bare()
    theirs.load_state_dict(ours.model.state_dict())
    for number, each in enumerate(batches):
        fixed = {"value_weight": [0, 0.6, 1.2, 1.2][number], "policy_weight": [0, 0, 1, 1][number]}
        share = [0, 0.5, 1, 1][number]
        # a trainer a step: SGD without momentum keeps nothing between two
        step = Trainer(theirs, StepSpec(**options, **fixed, value_target=f"{1 - share}*result+{share}*search"))
        step.train_on_batches([each])
        ours.train_on_batches([each])
        for (name, weight), other in zip(ours.model.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.allclose(weight, other, atol=1e-6), (number, name)
    means = ours.validate(batches)
    assert means["loss"] == pytest.approx(1 * means["policy_loss"] + 1.2 * means["value_loss"])


# a run --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder, entries = tmp_path_factory.mktemp("searched"), examples(24)
    for number, example in enumerate(entries):
        example |= {"weight": 0.5 + number % 3} | ({"search_value": (number % 11) / 10} if number % 4 else {})
    path = write_examples(folder / "a_processed.pkl.gz", entries)
    convert(path, out=folder / "data", shard_positions=96, block_positions=16, val_fraction=0.3)
    return folder / "data"


def spec(data, run, **options):
    return small_spec(data, run, **{"diagnose": 64, **options})


EVERYTHING = {
    "heads": ALL,
    "value_target_schedule": "linear 0:0.1 128:0.5",
    "loss_schedule": "moves_left=cosine 0:0.5 100:0.1, policy=step 0:0.15 64:0.3",
    "weights": "ply=8..:2",
    "ema": 0.9,
    "accumulate": 2,
}


def test_a_run_with_every_head_records_draws_and_goes_on_bit_for_bit(searched, tmp_path):
    whole = train(spec(searched, tmp_path / "whole", **EVERYTHING))
    train(spec(searched, tmp_path / "parts", **{**EVERYTHING, "max_samples": 64}))
    again = train(spec(searched, tmp_path / "parts", **EVERYTHING))
    states = [torch.load(each.checkpoint, weights_only=True) for each in (whole, again)]
    for part in ("model_state_dict", "ema_state_dict", "optimizer_state_dict"):
        assert_equal(states[0][part], states[1][part], part)
    assert again.metrics["val"] == whole.metrics["val"] and again.metrics["diagnosis"] == whole.metrics["diagnosis"]
    names = {"moves_left_loss", "moves_left_error", "search_value_loss", "weighted_moves_left_loss"}
    assert names <= whole.metrics["val"].keys()
    assert {"moves_left_loss", "search_value_error"} <= whole.metrics["diagnosis"]["by_ply"].keys()
    said = curves_text([read_history(tmp_path / "whole")])
    assert "moves left loss" in said and "search value error" in said
    assert "moves_left" in whole.summary()
    with pytest.raises(DataError, match="heads was policy,value,moves_left,search_value, is policy,value,moves_left"):
        train(spec(searched, tmp_path / "parts", **{**EVERYTHING, "heads": ALL.removesuffix(",search_value")}))


def test_a_target_that_no_column_gives_is_refused_before_the_run(tmp_path):
    data = dataset(tmp_path, games=30)
    for options in ({"heads": "policy,value,search_value"}, {"value_target": "search"}):
        with pytest.raises(ValueError, match=r"learns the column search_value, which .*data lacks: convert files"):
            train(spec(data, tmp_path / "run", **options))
    assert train(spec(data, tmp_path / "run", heads="policy,value,moves_left")).metrics["val"]["moves_left_error"] > 0
