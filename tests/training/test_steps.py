"""What each way to take a step computes, against slow twins; and that each goes on bit for bit from a state."""

from __future__ import annotations

import copy
import functools
import io
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.steps import Bare, Batch, Drawing, Spoiled, assert_equal, batch, weights
from torch import Tensor, nn

from hexshards.errors import NonFiniteLoss
from hexshards.training.options import StepSpec
from hexshards.training.steps import model
from hexshards.training.steps.losses import answers_by_head, losses, targets_of
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.schedules import share
from hexshards.training.steps.trainer import RELEASED_SUMS, Trainer

PLAIN: dict[str, Any] = {"warmup_samples": 0, "learning_rate": 1e-2}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def compiled_without_a_compiler(monkeypatch) -> None:
    """torch.compile captures the network as ever, and runs what it captured without compiling it, which takes long."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


BATCHES = [batch(seed, rows=5 if seed == 7 else 6) for seed in range(8)]


def seeded(kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(**options)


def made(kind: Callable[[], nn.Module] = Drawing, *, seed: int = 0, **options: Any) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(kind(), StepSpec(**{**PLAIN, **options}))


# --- going on ---


def saved(trainer: Trainer) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state": trainer.state_dict(), "random": torch.get_rng_state()}, buffer)
    return buffer.getvalue()


def gone_on(trainer: Trainer, data: bytes) -> Trainer:
    saved = torch.load(io.BytesIO(data), weights_only=True)
    trainer.load_state_dict(saved["state"])
    torch.set_rng_state(saved["random"])
    return trainer


WAYS: list[dict[str, Any]] = [
    {},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.0},
    {"warmup_samples": 20},
    {"schedule": "cosine", "schedule_samples": 40, "warmup_samples": 10},
    {"schedule": "step", "schedule_samples": 15},
    {"schedule": "one-cycle", "schedule_samples": 40},
    {"clip_norm": 0.1},
    {"accumulate": 2},
    {"precision": "bfloat16"},
    {"precision": "float16"},
    {"ema": 0.9},
    {"channels_last": True},
    {"precision": "float16", "clip_norm": 0.1, "accumulate": 4, "ema": 0.9, "optimizer": "sgd"},
    {
        "precision": "bfloat16",
        "schedule": "one-cycle",
        "schedule_samples": 40,
        "ema": 0.99,
        "accumulate": 2,
        "channels_last": True,
        "clip_norm": 1.0,
    },
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(f"{name}={value}" for name, value in way.items()))
def test_a_trainer_stopped_and_gone_on_from_its_state_is_one_that_never_stopped(way):
    whole = made(**way)
    metrics = whole.train_on_batches(BATCHES)
    expected, drawn = whole.state_dict(), torch.get_rng_state()
    first = made(**way)
    half: list[bytes] = []

    def until_stop() -> Iterator[Batch]:
        yield from BATCHES[:4]
        half.append(saved(first))

    first.train_on_batches(until_stop())
    second = gone_on(made(seed=9, **way), half[0])
    assert second.train_on_batches(BATCHES[4:]) == metrics
    assert_equal(second.state_dict(), expected)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert_equal(second.validate(BATCHES), whole.validate(BATCHES))


def test_a_compiled_network_goes_on_bit_for_bit_and_its_weights_have_their_own_names(compiled_without_a_compiler):
    whole = made(compile=True)
    whole.train_on_batches(BATCHES[:4])
    half = saved(whole)
    whole.train_on_batches(BATCHES[4:])
    for compiled in (True, False):
        second = gone_on(made(seed=9, compile=compiled), half)
        second.train_on_batches(BATCHES[4:])
        assert_equal(second.state_dict(), whole.state_dict())
    assert whole.state_dict()["model_state_dict"].keys() == Drawing().state_dict().keys()
    gone_on(made(compile=True), saved(made()))


def test_sums_of_a_version_that_knew_fewer_begin_at_nothing_and_its_list_is_read_by_name():
    state = made().state_dict()
    counted = {name: float(number) for number, name in enumerate(state["running_sums"], start=1)}
    released = {name: counted[name] for name in RELEASED_SUMS}
    for saved, known in ((list(released.values()), released), (counted, counted)):
        trainer = made()
        trainer.load_state_dict({**state, "running_sums": saved})
        assert trainer.state_dict()["running_sums"] == {**dict.fromkeys(counted, 0.0), **known}
    del counted["value_accuracy"]
    trainer = made()
    trainer.load_state_dict({**state, "running_sums": counted})
    assert trainer.state_dict()["running_sums"] == {**counted, "value_accuracy": 0.0}


@pytest.mark.parametrize("saved", [None, [1.0], {"samples": "many"}, {"samples": float("nan")}, {"horses": 1.0}])
def test_sums_that_are_none_are_refused(saved):
    with pytest.raises(ValueError, match=r"running.sums"):
        made().load_state_dict({**made().state_dict(), "running_sums": saved})


@pytest.mark.parametrize("state", [None, [], "state", 7])
def test_a_state_that_is_no_dict_is_refused_in_a_sentence(state):
    with pytest.raises(ValueError, match="the trainer's state is no dict, it is of type"):
        made().load_state_dict(state)


def test_a_state_without_what_a_trainer_keeps_is_refused():
    for way in ({"ema": 0.9}, {"precision": "float16"}):
        with pytest.raises(ValueError, match="lacks"):
            made(**way).load_state_dict(made().state_dict())


# --- parts of a batch ---


@pytest.mark.parametrize("parts", [2, 3, 4, 6, 50])
def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(parts):
    # the first rows have no policy target, so parts have different numbers of them, and one has none
    whole, cut = made(Bare, optimizer="sgd"), made(Bare, optimizer="sgd", accumulate=parts)
    means, expected = cut.train_on_batches(BATCHES), whole.train_on_batches(BATCHES)
    assert means == pytest.approx(expected, rel=1e-6)
    assert (means["batches"], means["policy_samples"]) == (8, 31)
    assert torch.allclose(weights(cut.model), weights(whole.model), rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_batch_in_parts_is_that_of_the_slow_twin():
    trainer, sample = made(Bare, optimizer="sgd", momentum=0.0, weight_decay=0.0, accumulate=3), BATCHES[0]
    twin = copy.deepcopy(trainer.model)
    heads = trainer.heads
    row_losses = losses(heads, answers_by_head(heads, twin(sample.board)), targets_of(heads, sample))
    (0.15 * row_losses["policy"].mean() + 0.85 * row_losses["value"].mean()).backward()
    expected = weights(twin) - 1e-2 * torch.cat([weight.grad.flatten() for weight in twin.parameters()])
    trainer.train_on_batches([sample])
    assert torch.allclose(weights(trainer.model), expected, rtol=1e-6, atol=1e-8)


# --- clipping, averages, precision ---


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_is_never_longer_than_the_clipped_gradient(precision):
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "precision": precision}
    for norm, length in ((1e-3, 1e-3), (1e3, None)):
        trainer = made(Bare, clip_norm=norm, **options)
        free = made(Bare, **options)
        before = weights(trainer.model).clone()
        for each in (trainer, free):
            each.train_on_batches(BATCHES[:1])
        step = (weights(trainer.model) - before).norm().item() / PLAIN["learning_rate"]
        unclipped = (weights(free.model) - before).norm().item() / PLAIN["learning_rate"]
        assert step == pytest.approx(unclipped if length is None else length, rel=1e-3)
        assert unclipped > 1e-2


def test_the_average_is_that_of_the_slow_twin_and_is_validated_too():
    trainer, plain = made(ema=0.9), made()
    average: dict[str, Tensor] = {}
    for each in BATCHES:
        trainer.train_on_batches([each])
        now = trainer.model.state_dict()
        for name, value in now.items():
            if not average or name not in average:
                average[name] = value.clone().double()
            else:
                average[name] = 0.9 * average[name] + 0.1 * value.double()
    kept = trainer.state_dict()["ema_state_dict"]
    for name, value in average.items():
        if value.is_floating_point() and "num_batches" not in name:
            assert torch.allclose(kept[name].double(), value, rtol=1e-5, atol=1e-6), name
    twin = made()
    twin.model.load_state_dict(kept)
    means, alone = trainer.validate(BATCHES), twin.validate(BATCHES)
    assert {name.removeprefix("ema_"): means[name] for name in means if name.startswith("ema_")} == alone
    plain.model.load_state_dict(trainer.model.state_dict())
    assert {name: value for name, value in means.items() if not name.startswith("ema_")} == plain.validate(BATCHES)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_computes_in_it_and_keeps_weights_and_losses_in_float32(precision):
    trainer, exact, seen = made(Bare, precision=precision), made(Bare), list[torch.dtype]()
    # the look at what kind of value a network answers takes no gradients, and is in float32
    trainer.model.see[0].register_forward_hook(
        lambda module, given, out: seen.append(out.dtype) if torch.is_grad_enabled() else None
    )
    low, full = trainer.train_on_batches(BATCHES), exact.train_on_batches(BATCHES)
    assert set(seen) == {getattr(torch, precision)}
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert low["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert not torch.equal(weights(trainer.model), weights(exact.model))


def test_float16_passes_over_a_step_that_overflows_and_lowers_its_scale():
    trainer = made(Bare, precision="float16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = weights(trainer.model).clone()
    metrics = trainer.train_on_batches(BATCHES[:1])
    assert math.isfinite(metrics["loss"])
    assert torch.equal(weights(trainer.model), before)
    assert trainer.scaler.get_scale() == 2.0**39


def test_the_network_that_works_in_place_has_the_gradients_of_its_plain_twin_bit_for_bit(monkeypatch):
    def gradients() -> list[Tensor]:
        network, board = seeded(TwoHeadedResNet, channels=4, blocks=2), batch(0).board
        policy, value = network(board)
        (policy.logsumexp(dim=1).sum() + value.square().sum()).backward()
        return [weight.grad for weight in network.parameters()] + [policy.detach(), value.detach()]

    in_place = gradients()
    monkeypatch.setattr(model, "_relu", nn.ReLU)
    monkeypatch.setattr(model._Residual, "forward", lambda block, x: torch.relu(x + block.change(x)))
    assert all(torch.equal(mine, its) for mine, its in zip(in_place, gradients(), strict=True))


def test_channels_last_changes_where_numbers_lie_and_not_what_they_are():
    ordinary, other = made(Bare), made(Bare, channels_last=True)
    assert other.model.see[0].weight.is_contiguous(memory_format=torch.channels_last)
    means, expected = (trainer.train_on_batches(BATCHES[:1]) for trainer in (other, ordinary))
    assert means == pytest.approx(expected, rel=1e-5)


# --- losses that are no numbers ---


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_told_before_the_weights_are_spoiled(bad):
    trainer = made(Spoiled)
    spoiled = Batch(BATCHES[2].board.clone(), *BATCHES[2][1:])
    spoiled.board[:, 0, 0, 0] = bad
    with pytest.raises(NonFiniteLoss) as raised:
        trainer.train_on_batches([*BATCHES[:2], spoiled, *BATCHES[3:]])
    assert raised.value.batches_ago == 0
    assert weights(trainer.model).isfinite().all()


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_where_losses_are_looked_at_now_and_then_the_first_bad_one_is_still_known(bad):
    from hexshards.training.steps.trainer import _NewestLosses

    newest = _NewestLosses(5)
    with pytest.raises(NonFiniteLoss) as raised:
        for number in range(5):
            newest.add(torch.tensor(math.nan if number >= bad else 1.0))
    assert raised.value.batches_ago == 4 - bad
    newest.add(torch.tensor(1.0))
    newest.look()


def test_weights_that_are_no_numbers_are_not_handed_out():
    trainer = made()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.inf)
    with pytest.raises(NonFiniteLoss):
        trainer.state_dict()


# --- the learning rate ---


def rates(samples: list[int], **options: Any) -> list[float]:
    spec = StepSpec(**options)
    return [share(each, spec, length=spec.schedule_samples) for each in samples]


def test_a_constant_rate_follows_warm_up():
    assert rates([5, 10, 1000], warmup_samples=10) == [0.5, 1.0, 1.0]


def test_a_cosine_falls_from_the_end_of_warm_up_to_its_share_and_stays():
    options = {"schedule": "cosine", "schedule_samples": 110, "warmup_samples": 10, "schedule_factor": 0.2}
    assert rates([5, 10, 60, 110, 500], **options) == pytest.approx([0.5, 1.0, 0.6, 0.2, 0.2])
    assert rates([35], **options) == pytest.approx([0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2])


def test_steps_fall_after_every_so_many_samples():
    options = {"schedule": "step", "schedule_samples": 100, "warmup_samples": 0, "schedule_factor": 0.5}
    assert rates([1, 100, 101, 200, 201], **options) == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_one_cycle_rises_and_falls():
    options = {"schedule": "one-cycle", "schedule_samples": 100, "schedule_factor": 0.01}
    assert rates([30, 65, 100, 101], **options) == pytest.approx([1.0, 0.505, 0.01, 0.01])
    assert rates([15], **options) == pytest.approx([(1 + 1 / 25) / 2])
    rising = rates(list(range(1, 31)), **options)
    assert rising == sorted(rising) and rising[0] == pytest.approx(1 / 25, rel=0.1)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "step"])
def test_a_shape_that_needs_a_length_and_has_none_is_refused(schedule):
    with pytest.raises(ValueError, match="needs schedule_samples"):
        made(schedule=schedule)


def test_a_run_that_is_extended_keeps_the_shape_it_began_with_and_says_so(caplog):
    first = made(schedule="cosine", schedule_samples=24)
    first.train_on_batches(BATCHES[:2])
    second = made(schedule="cosine", schedule_samples=48)
    with caplog.at_level(logging.WARNING):
        second.load_state_dict(first.state_dict())
    assert "stays at the 24 samples this run was first planned for, not 48" in caplog.text
    assert second.train_on_batches(BATCHES[2:4])["learning_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "wrong", [{"ema": 1.0}, {"momentum": -0.1}, {"accumulate": 0}, {"precision": "float8"}, {"schedule": "linear"}]
)
def test_senseless_steps_are_the_callers_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StepSpec(**wrong)


def test_the_reference_network_trains_in_every_way():
    for way in WAYS:
        metrics = made(lambda: TwoHeadedResNet(channels=2, blocks=1), **way).train_on_batches(BATCHES[:1])
        assert math.isfinite(metrics["loss"])


# the value head's own rate and decay, and dropout --------------------------------------------------------------------


def test_a_factor_of_the_value_heads_rate_is_that_of_its_weights_alone():
    model = TwoHeadedResNet(channels=2, blocks=1)
    factors = {"value_learning_rate_factor": 0.5, "value_weight_decay_factor": 3.0}
    falling = {"schedule": "cosine", "schedule_samples": 12, "warmup_samples": 0}
    trainer = Trainer(model, StepSpec(learning_rate=0.1, weight_decay=0.2, **factors, **falling))
    trainer.train_on_batches([batch(1)])
    head = {id(part) for part in model.value.parameters()}
    rate = trainer.optimizer.param_groups[0]["lr"]
    assert 0 < rate < 0.1
    for group in trainer.optimizer.param_groups:
        mine = {id(part) in head for part in group["params"]}
        assert len(mine) == 1
        of_value = mine.pop()
        decays = {part.ndim > 1 for part in group["params"]} == {True}
        assert group["lr"] == pytest.approx(rate * (0.5 if of_value else 1))
        assert group["weight_decay"] == pytest.approx((0.6 if of_value else 0.2) if decays else 0)


def test_factors_of_one_change_no_bit_and_no_group_of_a_checkpoint():
    states = []
    for factors in ({}, {"value_learning_rate_factor": 1.0, "value_weight_decay_factor": 1.0}):
        torch.manual_seed(0)
        trainer = Trainer(TwoHeadedResNet(channels=2, blocks=1), StepSpec(**factors))
        trainer.train_on_batches([batch(1), batch(2)])
        states.append(trainer.state_dict())
    assert_equal(*states)
    assert len(states[0]["optimizer_state_dict"]["param_groups"]) == 2


def test_a_network_without_a_part_of_that_name_has_no_value_head_to_slow_down():
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 26))
    with pytest.raises(ValueError, match="need a part of the network: value, value_head"):
        Trainer(model, StepSpec(value_learning_rate_factor=0.1))


def test_dropout_draws_in_training_alone_and_none_of_it_draws_nothing():
    board = batch(1).board
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        model = TwoHeadedResNet(channels=4, blocks=1, dropout=dropout)
        for training in (True, False):
            model.train(training)
            before = torch.get_rng_state()
            model(board)
            assert torch.equal(torch.get_rng_state(), before) == (not (dropout and training))
    with pytest.raises(ValueError, match="dropout must be at least 0 and less than 1, got 1"):
        TwoHeadedResNet(dropout=1)
