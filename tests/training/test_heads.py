"""What a head's answer means, and what it costs, against slow twins in Python's own floats."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from helpers import small_hex_ai
from helpers.small_data import dataset
from helpers.steps import BATCHES_OF_13, assert_equal

from hexshards import TrainSpec
from hexshards.errors import DataError
from hexshards.loading.loader import loader
from hexshards.training.options import StepSpec
from hexshards.training.run import train
from hexshards.training.steps.heads import heads_of
from hexshards.training.steps.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def value_head(**options):
    return heads_of(StepSpec(**options))[1]


ANSWER_OF = {"logit": lambda x: x, "tanh": lambda x: math.tanh(x / 2), "probability": lambda x: 1 / (1 + math.exp(-x))}


@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("output", ANSWER_OF)
def test_the_loss_of_a_value_is_one_number_however_the_network_says_it(output, loss):
    head = value_head(value_output=output, value_loss=loss)
    for logit in (-12.0, -3.0, -0.1, 0.0, 0.5, 4.0, 12.0):
        red = 1 / (1 + math.exp(-logit))
        for wanted in (0.0, 1.0, 0.3):
            expected = (red - wanted) ** 2
            if loss == "bce":
                expected = -wanted * math.log(red) - (1 - wanted) * math.log(1 - red)
            answer = torch.tensor([[ANSWER_OF[output](logit)]], dtype=torch.float64)
            target = torch.tensor([[wanted]], dtype=torch.float64)
            assert head.loss(answer, target).tolist() == pytest.approx([expected], rel=1e-6)
            assert head.red(answer).tolist() == pytest.approx([red])
            if logit:
                assert head.measured(answer, target)[0].tolist() == [(red > 0.5) == (wanted > 0.5)]


BOUNDS = {"logit": (-1e4, 1e4), "tanh": (-1.0, 1.0), "probability": (0.0, 1.0)}


@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("output", BOUNDS)
def test_a_saturated_value_costs_a_finite_number_and_passes_finite_gradients(output, loss):
    head = value_head(value_output=output, value_loss=loss)
    answer = torch.tensor(BOUNDS[output] * 2)[:, None].requires_grad_()
    target = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
    cost = head.loss(answer, target)
    cost.sum().backward()
    right, wrong, wrong_too, right_too = cost.tolist()
    assert right == pytest.approx(0.0, abs=1e-6) and right_too == pytest.approx(0.0, abs=1e-6)
    assert math.isfinite(wrong) and wrong == pytest.approx(wrong_too) and wrong > 0.99
    assert answer.grad.isfinite().all()


def test_the_network_of_hex_ai_is_trained_on_the_squared_error_of_its_probability_step_for_step():
    torch.manual_seed(1)
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_samples": 0, "learning_rate": 0.1}
    model = small_hex_ai.TwoHeadedResNet()
    theirs = copy.deepcopy(model)
    ours = Trainer(model, StepSpec(value_output="tanh", value_loss="mse", **options))
    by_hand = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for batch in BATCHES_OF_13:
        policy, value = theirs(batch.board)
        mean = torch.nn.functional.mse_loss((value + 1) / 2, batch.value)
        moves = torch.nn.functional.cross_entropy(policy[2:], batch.policy[2:])
        by_hand.zero_grad()
        (0.15 * moves + 0.85 * mean).backward()
        by_hand.step()
        means = ours.train_on_batches([batch])
        assert means["value_loss"] == pytest.approx(mean.item(), rel=1e-6)
        assert means["policy_loss"] == pytest.approx(moves.item(), rel=1e-6)
    for name, weight in theirs.state_dict().items():
        assert torch.allclose(model.state_dict()[name], weight, rtol=1e-4, atol=1e-6), name


@pytest.fixture(scope="module")
def data13(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("heads"), side=13, games=12)


def test_the_network_of_hex_ai_learns_past_what_a_logit_would_let_it(data13):
    torch.manual_seed(0)
    options = {"value_weight": 1.0, "policy_weight": 0.0, "warmup_samples": 0, "learning_rate": 3e-3}
    trainer = Trainer(small_hex_ai.TwoHeadedResNet(), StepSpec(value_output="tanh", **options))
    batch = next(iter(loader(data13, batch_size=32)))
    assert trainer.train_on_batches([batch] * 40)["samples"] == 1280
    assert trainer.train_on_batches([batch])["value_loss"] < 0.31


def test_a_run_goes_on_with_what_its_value_means_and_is_not_gone_on_with_as_another(data13, tmp_path):
    spec = {"data": data13, "model": "helpers.small_hex_ai:TwoHeadedResNet", "batch_size": 64, "warmup_samples": 0}
    spec |= {"value_output": "tanh", "value_loss": "mse", "val_samples": 32, "diagnose": 32, "mini_epoch_samples": 128}
    whole = train(TrainSpec(run=tmp_path / "whole", max_samples=256, **spec))
    train(TrainSpec(run=tmp_path / "parts", max_samples=128, **spec))
    again = train(TrainSpec(run=tmp_path / "parts", max_samples=256, **spec))
    states = [torch.load(each.checkpoint, weights_only=True)["model_state_dict"] for each in (whole, again)]
    assert_equal(*states)
    assert again.metrics["val"] == whole.metrics["val"] and again.metrics["diagnosis"] == whole.metrics["diagnosis"]
    with pytest.raises(DataError, match="value_loss was mse, is bce"):
        train(TrainSpec(run=tmp_path / "parts", max_samples=512, **{**spec, "value_loss": "bce"}))
