"""What a diagnosis says is what a slow reader counts, position by position, with the network's own answers."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from helpers.small_data import SIDE, columns_of, dataset, samples_of
from torch import nn

from hexshards.errors import DataError
from hexshards.loading.loader import loader
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.diagnostics import Diagnosis, boards_of, memory
from hexshards.training.options import TrainSpec
from hexshards.training.run import train
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.hooks import Run, Validated

TINY = {"channels": 4, "blocks": 1, "batch_size": 64, "mini_epoch_samples": 600, "warmup_samples": 0}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("diagnosis"))


@pytest.fixture(scope="module")
def trainer():
    torch.manual_seed(3)
    return Trainer(TwoHeadedResNet(channels=4, blocks=1))


def validated(trainer, val_loader, tmp_path, *, rank=0, train=None, val=None):
    run = Run(
        folder=tmp_path,
        trainer=trainer,
        train_loader=val_loader,
        val_loader=val_loader,
        options={},
        stop=print,
        rank=rank,
    )
    return Validated(run=run, epoch=1, mini_epoch=1, samples_seen=1, train=train or {}, val=val or {})


def diagnosed(trainer, data, tmp_path, *, positions=10_000, **options):
    val_loader = loader(data, split="val", shuffle=False, augment="none", **options)
    return Diagnosis(trainer, val_loader, positions=positions)(validated(trainer, val_loader, tmp_path))["diagnosis"]


def answers(model, board):
    """One position's probabilities of cells and of RED's winning, in Python's floats."""
    with torch.no_grad():
        logits, value = model.eval()(torch.from_numpy(np.ascontiguousarray(board))[None])
    powers = [math.exp(logit) for logit in logits[0].tolist()]
    return [power / sum(powers) for power in powers], 1 / (1 + math.exp(-float(value)))


def counted(trainer, data):
    """What is to be known of each validation position, one after another."""
    columns = columns_of(data, "val")
    for row, (board, policy, value) in enumerate(samples_of(data, "val")):
        likely, red = answers(trainer.model, board)
        target = int(policy.argmax()) if policy.any() else None
        yield {
            **{name: int(columns[name][row]) for name in ("ply", "plies", "player", "source", "game")},
            "target": target,
            "move": max(range(SIDE**2), key=likely.__getitem__),
            "policy_loss": 0.0 if target is None else -math.log(likely[target]),
            "value_loss": -math.log(red if value else 1 - red),
            "right": (red > 0.5) == (value > 0.5),
            "red": red,
            "value": float(value),
            "likely": likely,
            "board": board,
        }


@pytest.fixture(scope="module")
def slow(trainer, data):
    return list(counted(trainer, data))


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else None


@pytest.mark.parametrize(("table", "column"), [("by_ply", "ply"), ("by_length", "plies"), ("by_player", "player")])
def test_losses_and_accuracies_by_group_are_those_of_a_slow_count(trainer, data, tmp_path, slow, table, column):
    diagnosis = diagnosed(trainer, data, tmp_path)[table]
    groups = sorted({position[column] for position in slow})  # at side 5 a group is one ply
    assert diagnosis["from"] == groups
    assert len(groups) > 1
    for at, group in enumerate(groups):
        rows = [position for position in slow if position[column] == group]
        target = [position for position in rows if position["target"] is not None]
        expected = {
            "positions": len(rows),
            "policy_loss": mean(position["policy_loss"] for position in target),
            "policy_top1": mean(position["move"] == position["target"] for position in target),
            "value_loss": mean(position["value_loss"] for position in rows),
            "value_accuracy": mean(position["right"] for position in rows),
        }
        for name, value in expected.items():
            assert diagnosis[name][at] == (None if value is None else pytest.approx(value, rel=1e-4)), (name, group)


def test_groups_of_plies_are_wider_on_larger_boards(tmp_path):
    folder = dataset(tmp_path, side=9, games=12)
    torch.manual_seed(0)
    by_ply = diagnosed(Trainer(TwoHeadedResNet(channels=2, blocks=1)), folder, tmp_path)["by_ply"]
    plies = columns_of(folder, "val")["ply"]
    assert by_ply["from"] == sorted({int(ply) // 5 * 5 for ply in plies})
    assert by_ply["positions"] == [int((plies // 5 * 5 == group).sum()) for group in by_ply["from"]]


def test_calibration_compares_what_is_said_with_what_comes_true(trainer, data, tmp_path, slow):
    diagnosis = diagnosed(trainer, data, tmp_path)["calibration"]
    bins = {}
    for position in slow:
        bins.setdefault(min(int(position["red"] * 10), 9), []).append((position["red"], position["value"]))
    rows = [bins[number] for number in sorted(bins)]
    assert diagnosis["positions"] == [len(row) for row in rows]
    assert diagnosis["said"] == pytest.approx([mean(red for red, _ in row) for row in rows], rel=1e-4)
    assert diagnosis["found"] == pytest.approx([mean(value for _, value in row) for row in rows], rel=1e-4)
    apart = [abs(mean(red for red, _ in row) - mean(value for _, value in row)) * len(row) for row in rows]
    assert diagnosis["expected_error"] == pytest.approx(sum(apart) / len(slow), rel=1e-3)


def turned(board):
    """A board in the three other symmetries, and how a cell's number changes."""
    swapped = np.stack([board[1], board[0], 1 - board[2]])
    last = SIDE - 1
    yield board[:, ::-1, ::-1], lambda r, c: (last - r, last - c), False
    yield swapped.swapaxes(1, 2), lambda r, c: (c, r), True
    yield swapped[:, ::-1, ::-1].swapaxes(1, 2), lambda r, c: (last - c, last - r), True


def test_equivariance_is_how_far_answers_move_in_the_other_symmetries(trainer, data, tmp_path, slow):
    policy, value = [], []
    for position in slow:
        for board, moved, swaps in turned(position["board"]):
            likely, red = answers(trainer.model, board)
            back = [likely[moved(*divmod(cell, SIDE))[0] * SIDE + moved(*divmod(cell, SIDE))[1]] for cell in range(25)]
            value.append(abs((1 - red if swaps else red) - position["red"]))
            if position["target"] is not None:
                policy.append(sum(abs(a - b) for a, b in zip(back, position["likely"], strict=True)) / 2)
    diagnosis = diagnosed(trainer, data, tmp_path)["equivariance"]
    assert diagnosis == pytest.approx({"positions": 192, "policy": mean(policy), "value": mean(value)}, rel=1e-3)
    assert diagnosis["value"] > 0


class Fair(nn.Module):
    """Sees nothing but the number of stones: equal in all symmetries."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, board):
        flat = self.weight * board[:, 0].flatten(1).sum(dim=1, keepdim=True)
        return (0 * flat).expand(-1, SIDE**2), 0 * flat


def test_a_network_that_treats_all_symmetries_alike_has_no_equivariance_error(data, tmp_path):
    diagnosis = diagnosed(Trainer(Fair()), data, tmp_path)["equivariance"]
    assert (diagnosis["policy"], diagnosis["value"]) == (pytest.approx(0, abs=1e-6), 0)


def test_the_hardest_positions_are_named_by_file_and_line(trainer, data, tmp_path, slow):
    diagnosis = diagnosed(trainer, data, tmp_path)["hardest"]
    loss = [0.15 * position["policy_loss"] + 0.85 * position["value_loss"] for position in slow]
    rows = sorted(range(len(slow)), key=lambda row: -loss[row])[:8]
    for entry, row in zip(diagnosis, rows, strict=True):
        position = slow[row]
        assert entry["loss"] == pytest.approx(loss[row], rel=1e-4)
        assert (entry["ply"], entry["line"]) == (position["ply"], position["game"])
        assert entry["source"] == loader(data).index.sources[position["source"]]
        assert entry["red_wins"] == pytest.approx(position["red"], rel=1e-4)
        assert entry["player"] == ("BLUE", "RED")[position["player"]]
        if position["target"] is None:
            assert entry["move"] is None
        else:
            row, col = divmod(position["target"], SIDE)
            assert entry["move"] == f"{'abcde'[col]}{row + 1}"
            assert entry["move_probability"] == pytest.approx(position["likely"][position["target"]], rel=1e-4)


def test_control_characters_in_the_name_of_a_source_do_not_reach_the_record(trainer, data, tmp_path, monkeypatch):
    val_loader = loader(data, split="val", shuffle=False, augment="none")
    hostile = tuple(f"\x1b[2J{name}" for name in val_loader.index.sources)
    object.__setattr__(val_loader.index, "sources", hostile)
    event = validated(trainer, val_loader, tmp_path)
    hardest = Diagnosis(trainer, val_loader, positions=50)(event)["diagnosis"]["hardest"]
    assert all("\x1b" not in entry["source"] and "[2J" in entry["source"] for entry in hardest)


def test_fewer_positions_are_the_same_each_time_and_of_every_shard(trainer, data, tmp_path):
    diagnosis = diagnosed(trainer, data, tmp_path, positions=40)
    assert diagnosis == diagnosed(trainer, data, tmp_path, positions=40)
    assert diagnosis["positions"] == sum(diagnosis["by_player"]["positions"]) == 40


def test_no_more_is_looked_at_than_validation_sees(trainer, data, tmp_path):
    val_loader = loader(data, split="val", shuffle=False, augment="none", positions=30)
    event = validated(trainer, val_loader, tmp_path)
    assert Diagnosis(trainer, val_loader, positions=40)(event)["diagnosis"]["positions"] == 30


@pytest.mark.parametrize("positions", [1, 30, 31, 100])
def test_the_boards_of_a_diagnosis_are_those_that_the_network_answers(trainer, data, monkeypatch, positions):
    monkeypatch.setattr("hexshards.training.diagnostics.TURNED_POSITIONS", 30)
    answered, answer = [], trainer.answer
    monkeypatch.setattr(trainer, "answer", lambda board: answered.append(len(board)) or answer(board))
    val_loader = loader(data, split="val", shuffle=False, augment="none")
    Diagnosis(trainer, val_loader, positions=positions).look()
    assert sum(answered) == boards_of(positions)


def test_damage_is_an_error_unless_it_may_be_skipped(trainer, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    path = folder / "val-000000.tar"
    path.write_bytes(path.read_bytes()[:700] + b"?" + path.read_bytes()[701:])
    with pytest.raises(DataError, match="block 000000: checksum is"):
        diagnosed(trainer, folder, tmp_path)
    assert diagnosed(trainer, folder, tmp_path, on_error="skip")["positions"] == 192 - 16


@pytest.mark.parametrize(
    ("known", "unseen", "warned"),
    [(0.03, 0.24, True), (0.30, 0.36, False), (0.60, 0.69, False), (0.01, 0.05, False), (0.24, 0.03, False)],
)
def test_a_gap_in_value_loss_that_only_memory_explains_is_warned_of(known, unseen, warned):
    diagnosis = memory({"value_loss": known}, {"value_loss": unseen})
    assert diagnosis["value_gap"] == pytest.approx(unseen - known)
    assert ("warning" in diagnosis) == warned


def test_other_ranks_and_other_events_are_passed_over(trainer, data, tmp_path):
    val_loader = loader(data, split="val", shuffle=False, augment="none")
    diagnosis = Diagnosis(trainer, val_loader, positions=10)
    assert diagnosis(validated(trainer, val_loader, tmp_path, rank=1)) is None
    assert diagnosis(object()) is None


def test_a_run_records_its_diagnosis_and_trains_as_one_without(data, tmp_path):
    with_it = train(TrainSpec(data=data, run=tmp_path / "with", **TINY))
    without = train(TrainSpec(data=data, run=tmp_path / "without", diagnose=0, **TINY))
    lines = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        means = line["diagnosis"]["by_ply"]
        weighted = sum(n * loss for n, loss in zip(means["positions"], means["value_loss"], strict=True))
        assert weighted / sum(means["positions"]) == pytest.approx(line["val"]["value_loss"], rel=1e-3)
        assert line["diagnosis"]["value_gap"] == pytest.approx(
            line["val"]["value_loss"] - line["train"]["value_loss"], rel=1e-3, abs=1e-5
        )
    assert "diagnosis" not in without.metrics
    ours, theirs = (checkpoint_file.read(outcome.checkpoint) for outcome in (with_it, without))
    for name, weight in ours["model_state_dict"].items():
        assert torch.equal(weight, theirs["model_state_dict"][name])
    (ours_cpu,), (theirs_cpu,) = ([rank["cpu"] for rank in each["random_state"]["ranks"]] for each in (ours, theirs))
    assert torch.equal(ours_cpu, theirs_cpu)
