"""hex_ai's trainer, driven as it is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_hex_ai
from helpers.small_runs import MINI, Batch, SmallLoader, Validation, log_lines, names, plain
from torch import nn

from hexshards import HexAiTrainer, MiniEpochOrchestrator, RunSettings
from hexshards.errors import DataError
from hexshards.interop.hex_ai_trainer import _OfKnownPolicies
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.tracking.records import Outcome


class FinalPositions(SmallLoader):
    """The first row of each batch has no policy."""

    def _batch(self, number: int) -> Batch:
        board, policy, value = super()._batch(number)
        policy[0] = 0
        return Batch(board, policy, value)


def trainer() -> Any:
    torch.manual_seed(0)
    return small_hex_ai.Trainer(small_hex_ai.TwoHeadedResNet(dropout_prob=0.3, cells=25), None)


def run(folder: Path, *, theirs: Any = None, stop_at: int = 0, epochs: int = 2, last: int | None = None) -> Outcome:
    loader = FinalPositions()
    if stop_at:
        loader.on_batch = lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == stop_at else None
    return MiniEpochOrchestrator(
        HexAiTrainer(theirs or trainer()),
        loader,
        Validation(),
        run=folder,
        mini_epoch_samples=MINI,
        num_epochs=epochs,
        settings=RunSettings(retention=Retention(last=last)),
    ).run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder)
    return folder


def test_its_metrics_have_hexshards_names_and_its_books_number_mini_epochs_from_1(tmp_path):
    theirs = trainer()
    outcome = run(tmp_path, theirs=theirs, epochs=1)
    assert [book["epoch"] for book in theirs.books] == ["1_mini1", "1_mini2", "1_mini3"]
    records = log_lines(tmp_path)
    for record in records:
        for part in ("train", "val"):
            assert record[part].keys() == {"loss", "policy_loss", "value_loss"}
            assert {type(value) for value in record[part].values()} == {float}
    vals = [record["val"]["loss"] for record in records]
    # each is told the validation before it, as they validate before they train
    assert [book["val"] and book["val"]["total_loss"] for book in theirs.books] == [None, *vals[:-1]]
    assert theirs.best_val_loss == min(vals) and outcome.metrics["val"]["loss"] == vals[-1]
    assert theirs.val_loader is None


def test_each_mini_epoch_is_a_checkpoint_that_its_programs_find_and_its_loader_takes(whole):
    assert {*small_hex_ai.found_checkpoints(whole)} == {(e, m) for e in (1, 2) for m in (1, 2, 3)}
    record = log_lines(whole)[-1]
    own = checkpoint_file.read(whole / "checkpoints" / record["checkpoint"])
    for path in (small_hex_ai.found_checkpoints(whole)[2, 3], None):
        theirs = trainer()
        if path is None:  # a run's own checkpoint has all that their loader reads
            theirs.model.load_state_dict(own["model_state_dict"])
            theirs.optimizer.load_state_dict(own["optimizer_state_dict"])
            theirs.current_epoch, theirs.best_val_loss = own["epoch"], own["best_val_loss"]
        else:
            theirs.load_checkpoint(path)
            assert small_hex_ai.load_checkpoint(path)["val_metrics"]["total_loss"] == record["val"]["loss"]
        assert plain(dict(theirs.model.state_dict())) == plain(dict(own["model_state_dict"]))
        assert theirs.current_epoch == 2
        assert theirs.best_val_loss == min(each["val"]["loss"] for each in log_lines(whole))


def test_no_more_of_its_checkpoints_are_kept_than_of_the_runs_own(tmp_path):
    run(tmp_path, last=1)
    assert {*small_hex_ai.found_checkpoints(tmp_path)} == {(2, 3)}
    assert not [*tmp_path.glob(".hex_ai-*")]


@pytest.mark.parametrize("stop_at", [1, 3, 4, 9])
def test_a_run_that_was_stopped_goes_on_as_if_it_never_had(whole, tmp_path, stop_at):
    assert run(tmp_path, stop_at=stop_at).interrupted
    run(tmp_path)
    assert names(tmp_path) == names(whole)
    for name in names(whole):
        ours, theirs = (plain(checkpoint_file.read(folder / "checkpoints" / name)) for folder in (tmp_path, whole))
        for state in (ours, theirs):
            # of the mini-epoch that was stopped they are those since the restart
            del state["metrics"]["train"]
        assert ours == theirs, name


def test_the_state_of_another_network_or_optimizer_is_refused_before_anything_is_changed(whole):
    state = checkpoint_file.trainer_state(checkpoint_file.read(whole / "best.pt"))
    wide = small_hex_ai.Trainer(small_hex_ai.TwoHeadedResNet(cells=169), None)
    other = trainer()
    other.optimizer = torch.optim.SGD(other.model.parameters())
    for theirs, finding in ((wide, "policy_head.weight has shape"), (other, "optimizer_state_dict has other groups")):
        before = plain(dict(theirs.model.state_dict()))
        with pytest.raises(ValueError, match=finding):
            HexAiTrainer(theirs).load_state_dict(state)
        assert plain(dict(theirs.model.state_dict())) == before
    with pytest.raises(ValueError, match="the state lacks scheduler_state_dict"):
        HexAiTrainer(trainer()).load_state_dict({name: part for name, part in state.items() if "sched" not in name})


def test_rows_without_a_policy_teach_no_move_and_all_rows_teach_who_wins():
    draw = torch.Generator().manual_seed(1)
    policies = torch.eye(25)[torch.randint(0, 25, (8,), generator=draw)]
    values = torch.randint(0, 2, (8, 1), generator=draw).float()
    for unknown in ([], [0, 5], [0, 1, 2, 3, 4, 5, 6], [*range(8)]):
        policies[unknown] = 0
        known = [row for row in range(8) if row not in unknown]
        logits, value = (torch.randn(8, n, generator=draw).requires_grad_() for n in (25, 1))
        total, losses = _OfKnownPolicies(small_hex_ai.PolicyValueLoss())(logits, value, policies, values)
        gradients = torch.autograd.grad(total, (logits, value), allow_unused=True)
        moves = nn.functional.cross_entropy(logits[known], policies[known]) if known else torch.tensor(0.0)
        winners = (((value + 1) / 2 - values) ** 2).mean()
        wanted = 0.15 * moves + 0.85 * winners
        assert [losses[name] for name in ("total_loss", "policy_loss", "value_loss")] == pytest.approx(
            [part.item() for part in (wanted, moves, winners)], rel=1e-5
        )
        slow = torch.autograd.grad(wanted, (logits, value), allow_unused=True)
        for ours, theirs in zip(gradients, slow, strict=True):
            assert ours is theirs is None or torch.allclose(ours, theirs, atol=1e-6)


def test_its_loss_still_says_what_its_books_ask_of_it():
    theirs = trainer()
    once = HexAiTrainer(theirs).trainer.criterion
    assert HexAiTrainer(theirs).trainer.criterion is once
    assert (once.policy_weight, once.value_weight) == (0.15, 0.85)


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tmp_path):
    theirs = trainer()
    theirs.train_on_batches = lambda batches, **at: {"total_loss": float("nan"), "seen": len([*batches])}
    with pytest.raises(DataError, match="the training loss is nan in epoch 1, mini-epoch 1"):
        run(tmp_path, theirs=theirs)
    assert not small_hex_ai.found_checkpoints(tmp_path)
