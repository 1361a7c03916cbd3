"""What a step and a validation compute, against slow twins that say it in plain arithmetic."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from hexshards.training.options import StepSpec
from hexshards.training.steps.heads import USUAL
from hexshards.training.steps.losses import answers_by_head, losses, targets_of
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.schedules import Schedule
from hexshards.training.steps.trainer import Trainer


class Batch(NamedTuple):
    board: Tensor
    policy: Tensor
    value: Tensor


pytestmark = pytest.mark.usefixtures("one_thread")


def some_batch(rows: int, *, side: int = 5, seed: int = 0, without_policy: int = 0, soft: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    board = torch.randint(0, 2, (rows, 3, side, side), generator=draw).float()
    policy = torch.zeros(rows, side * side)
    policy[torch.arange(rows), torch.randint(0, side * side, (rows,), generator=draw)] = 1.0
    if soft:
        policy = torch.rand(rows, side * side, generator=draw).softmax(dim=1)
    policy[:without_policy] = 0.0
    return Batch(board, policy, torch.randint(0, 2, (rows, 1), generator=draw).float())


def trainer(*, seed: int = 0, **options: float) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(TwoHeadedResNet(channels=4, blocks=1), StepSpec(**options))  # type: ignore[arg-type]


def slow_losses(logits: Tensor, value_logit: Tensor, batch: Batch) -> tuple[float, float]:
    policies, values = [], []
    for row in range(len(logits)):
        scale = math.log(sum(math.exp(x) for x in logits[row].tolist()))
        targets = batch.policy[row].tolist()
        if any(targets):
            pairs = zip(targets, logits[row].tolist(), strict=True)
            policies.append(-sum(t * (x - scale) for t, x in pairs))
        red = 1 / (1 + math.exp(-value_logit[row].item()))
        values.append(-math.log(red if batch.value[row].item() == 1.0 else 1 - red))
    return sum(policies) / max(len(policies), 1), sum(values) / len(values)


def means(logits: Tensor, value_logit: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    row_losses = losses(USUAL, answers_by_head(USUAL, (logits, value_logit)), targets_of(USUAL, batch))
    return row_losses["policy"].mean(), row_losses["value"].mean()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("without_policy", [0, 3, 8])
def test_the_losses_are_those_of_the_slow_twin(soft, without_policy):
    batch = some_batch(8, soft=soft, without_policy=without_policy)
    logits, value_logit = 3 * torch.randn(8, 25), 3 * torch.randn(8, 1)
    computed = [mean.item() for mean in means(logits, value_logit, batch)]
    assert computed == pytest.approx(slow_losses(logits, value_logit, batch))


def test_a_position_without_a_policy_target_does_not_touch_the_policy_loss():
    batch = some_batch(6, without_policy=2)
    logits = torch.randn(6, 25)
    other = logits.clone()
    other[:2] = 50 * torch.randn(2, 25)
    value = torch.zeros(6, 1)
    assert means(logits, value, batch)[0] == means(other, value, batch)[0]
    having = Batch(*(part[2:] for part in batch))
    alone = means(logits[2:], value[2:], having)[0].item()
    assert means(logits, value, batch)[0].item() == pytest.approx(alone)


def test_a_batch_without_any_policy_target_has_policy_loss_zero_and_passes_no_gradient():
    logits = torch.randn(4, 25, requires_grad=True)
    loss = means(logits, torch.zeros(4, 1), some_batch(4, without_policy=4))[0]
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_training_on_a_batch_without_any_policy_target_leaves_finite_weights():
    trained = trainer()
    metrics = trained.train_on_batches([some_batch(4, without_policy=4)])
    assert (metrics["policy_loss"], metrics["policy_samples"]) == (0.0, 0)
    assert all(weight.isfinite().all() for weight in trained.model.parameters())


def test_the_loss_weighs_policy_and_value_by_0_15_and_0_85():
    metrics = trainer().train_on_batches([some_batch(8)])
    assert metrics["loss"] == pytest.approx(0.15 * metrics["policy_loss"] + 0.85 * metrics["value_loss"])


@pytest.mark.parametrize("side", [3, 5, 13, 19])
def test_one_model_takes_every_side(side):
    policy, value = TwoHeadedResNet(channels=4, blocks=2)(some_batch(2, side=side).board)
    assert (policy.shape, value.shape) == ((2, side * side), (2, 1))


def test_a_policy_logit_answers_to_its_own_cell():
    model = TwoHeadedResNet(channels=4, blocks=0)
    model.eval()
    board = torch.zeros(1, 3, 13, 13)
    with torch.no_grad():
        before = model(board)[0].reshape(13, 13)
        board[0, 0, 2, 9] = 1.0
        changed = (model(board)[0].reshape(13, 13) != before).nonzero()
    assert changed.float().mean(dim=0).round().tolist() == [2, 9]


def test_a_step_lowers_the_loss_of_a_batch_seen_again_and_again():
    trained, batch = trainer(warmup_samples=0, learning_rate=1e-2), some_batch(16)
    first = trained.train_on_batches([batch])["loss"]
    trained.train_on_batches([batch] * 40)
    assert trained.train_on_batches([batch])["loss"] < first / 2


def test_the_rate_rises_with_the_samples_seen_however_they_are_batched():
    def rates(sizes: list[int]) -> dict[int, float]:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        warm, seen = Schedule(optimizer, StepSpec(learning_rate=0.5, warmup_samples=10)), {}
        for size in sizes:
            warm.advance(size)
            seen[warm.samples] = optimizer.param_groups[0]["lr"]
        return seen

    assert rates([4, 4, 4]) == {4: 0.2, 8: 0.4, 12: 0.5}
    assert rates([1] * 12).items() >= rates([4, 4, 4]).items()


def test_biases_and_norms_do_not_decay():
    groups = trainer(weight_decay=0.1).optimizer.param_groups
    assert {(p.ndim > 1, group["weight_decay"]) for group in groups for p in group["params"]} == {
        (True, 0.1),
        (False, 0.0),
    }


def slow_validation(model: nn.Module, batch: Batch) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        logits, value_logit = model(batch.board)
    rows = [row for row in range(len(logits)) if batch.policy[row].any()]
    ranks = [
        sorted(range(25), key=lambda c: -logits[row, c].item()).index(int(batch.policy[row].argmax())) for row in rows
    ]
    right = [(value_logit[row].item() > 0) == (batch.value[row].item() > 0.5) for row in range(len(logits))]
    policy, value = slow_losses(logits, value_logit, batch)
    return {
        "samples": len(logits),
        "policy_samples": len(rows),
        "policy_loss": policy,
        "value_loss": value,
        "loss": 0.15 * policy + 0.85 * value,
        "policy_top1": sum(rank == 0 for rank in ranks) / len(ranks),
        "policy_top5": sum(rank < 5 for rank in ranks) / len(ranks),
        "value_accuracy": sum(right) / len(right),
    }


@pytest.mark.parametrize("sizes", [[60], [7, 1, 52], [30, 30], [1] * 60])
def test_validation_is_an_average_over_samples_whatever_the_batches(sizes):
    validated, whole = trainer(), some_batch(60, without_policy=13)
    parts = [Batch(*part) for part in zip(*(part.split(sizes) for part in whole), strict=True)]
    metrics = validated.validate(parts)
    assert metrics.pop("batches") == len(sizes)
    assert metrics == pytest.approx(slow_validation(validated.model, whole), rel=1e-5)


def test_validation_changes_nothing_and_puts_the_model_back_to_what_it_was_doing():
    validated = trainer()
    validated.train_on_batches([some_batch(8)])
    before = {name: tensor.clone() for name, tensor in validated.model.state_dict().items()}
    for mode in (True, False):
        validated.model.train(mode)
        validated.validate([some_batch(8, seed=1)])
        assert validated.model.training is mode
    assert all(torch.equal(before[name], tensor) for name, tensor in validated.model.state_dict().items())


def test_validation_of_nothing_reports_no_accuracy():
    metrics = trainer().validate([])
    assert metrics["samples"] == 0 and math.isnan(metrics["value_accuracy"])


def test_training_metrics_are_means_over_samples_of_this_call_alone():
    frozen = {"learning_rate": 1e-30, "weight_decay": 0.0, "warmup_samples": 0}
    trained, parts = trainer(**frozen), [some_batch(5, seed=1, without_policy=4), some_batch(3, seed=2)]
    one_by_one = [trained.train_on_batches([part]) for part in parts]
    both = trained.train_on_batches(parts)
    value = sum(m["value_loss"] * m["samples"] for m in one_by_one) / 8
    policy = sum(m["policy_loss"] * m["policy_samples"] for m in one_by_one) / 4
    assert (both["samples"], both["batches"], both["policy_samples"]) == (8, 2, 4)
    assert (both["value_loss"], both["policy_loss"]) == pytest.approx((value, policy))


def test_a_trainer_that_loads_a_state_taken_between_two_batches_goes_on_bit_for_bit(tmp_path):
    batches = [some_batch(6, seed=seed, without_policy=1) for seed in range(6)]
    whole = trainer(warmup_samples=20)
    expected = whole.train_on_batches(batches)
    for stop in range(len(batches)):
        first, second = trainer(warmup_samples=20), trainer(seed=9, warmup_samples=20)

        def until_stop(first: Trainer = first, stop: int = stop):
            yield from batches[:stop]
            torch.save(first.state_dict(), tmp_path / "state.pt")

        first.train_on_batches(until_stop())
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert second.train_on_batches(batches[stop:]) == expected
        for name, tensor in whole.model.state_dict().items():
            assert torch.equal(second.model.state_dict()[name], tensor), f"{name} diverged after batch {stop}"
