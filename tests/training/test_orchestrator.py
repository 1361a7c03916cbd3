"""A run that is stopped anywhere, in any way, and started again ends as one that never stopped, bit for bit.

Run as a program, this file trains in the folder it is given, for the tests that send real signals.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import processes, warm
from helpers.small_runs import (
    EPOCHS,
    MINI,
    WHOLE,
    Batch,
    Drawing,
    SmallLoader,
    Validation,
    assert_same_run,
    log_lines,
    names,
    orchestrator,
    plain,
    seeded,
    train,
)
from torch import nn

from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import write
from hexshards.errors import DataError
from hexshards.signals import StopSignals
from hexshards.training import run as runs
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.options import TrainSpec
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.hooks import (
    Event,
    MiniEpochBegun,
    MiniEpochTrained,
    Noticed,
    Progressed,
    RunEnded,
    RunStarted,
    Saved,
    Validated,
    Validating,
)
from hexshards.training.tracking.records import Outcome

DEADLINE_S = 120.0
"""What has not happened by then does not happen."""
FOR_EVER = math.inf
"""The pause of a program that ends by a signal alone."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    assert not train(run).interrupted
    return run


# --- mini-epochs ---


def test_every_mini_epoch_is_checkpointed_and_logged_the_short_last_one_too(whole):
    assert names(whole) == WHOLE
    lines = log_lines(whole)
    assert [line["train"]["samples"] for line in lines] == [12, 12, 2] * EPOCHS
    assert [line["samples_seen"] for line in lines] == [12, 24, 26, 38, 50, 52]
    assert [line["checkpoint"] for line in lines] == WHOLE


@pytest.mark.parametrize(("samples", "minis"), [(24, 2), (26, 3), (12, 1), (2, 1)])
def test_there_is_no_empty_mini_epoch_when_the_epoch_divides_evenly(tmp_path, samples, minis):
    outcome = train(tmp_path, train_loader=SmallLoader(samples=samples))
    assert (outcome.mini_epochs, outcome.epochs, outcome.samples_seen) == (minis * 2, 2, samples * 2)


def test_a_mini_epoch_may_be_counted_in_batches(tmp_path):
    train(tmp_path, mini_epoch_batches=5)
    assert [line["train"]["batches"] for line in log_lines(tmp_path)] == [5, 2, 5, 2]


def test_samples_are_those_of_all_ranks(tmp_path):
    train(tmp_path, train_loader=SmallLoader(samples=48, world_size=3), mini_epoch_samples=24, num_epochs=1)
    lines = log_lines(tmp_path)
    assert [line["samples_seen"] for line in lines] == [24, 48]
    assert [line["train"]["batches"] for line in lines] == [2, 2]


def test_the_weights_validated_are_the_weights_saved(whole):
    for line in log_lines(whole):
        saved = checkpoint_file.read(whole / "checkpoints" / line["checkpoint"])
        again = Trainer(Drawing())
        again.load_state_dict(checkpoint_file.trainer_state(saved))
        assert again.validate(Validation()) == line["val"]


def test_batches_are_streamed_one_at_a_time(tmp_path):
    loader, seen = SmallLoader(), []
    loader.on_batch = seen.append

    class Lazy(Trainer):
        def train_on_batches(self, batches):
            assert not isinstance(batches, list)
            return super().train_on_batches(self._checked(batches))

        def _checked(self, batches):
            for batch in batches:
                assert len(seen) == loader.epoch * len(loader) + loader.done - 1
                yield batch

    train(tmp_path, trainer=seeded(Lazy), train_loader=loader)
    assert seen == list(range(1, 15))


def test_anything_with_the_four_methods_can_be_driven(tmp_path):
    class Counter:
        rows = 0

        def train_on_batches(self, batches):
            self.rows += sum(len(batch.value) for batch in batches)
            return {}

        def validate(self, loader):
            return {"batches": sum(1 for _ in loader)}

        def state_dict(self):
            return {"rows": self.rows}

        def load_state_dict(self, state):
            self.rows = state["rows"]

    train(tmp_path, trainer=Counter(), num_epochs=1)
    second = Counter()
    outcome = train(tmp_path, trainer=second)
    assert (second.rows, outcome.mini_epochs) == (52, 3)
    assert outcome.summary().startswith("trained 3 mini-epochs: 52 samples, 2 epochs done\n")


def test_a_run_without_validation_trains_the_same_weights(tmp_path, whole):
    train(tmp_path, val_loader=None)
    ours, theirs = (checkpoint_file.read(run / "checkpoints" / WHOLE[-1]) for run in (tmp_path, whole))
    assert plain(ours["model_state_dict"]) == plain(theirs["model_state_dict"])
    assert log_lines(tmp_path)[0]["val"] == {}


def test_a_checkpoint_holds_what_others_look_for(whole):
    state = torch.load(whole / "checkpoints" / WHOLE[0], weights_only=True)
    assert state.keys() >= {
        "model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "random_state", "loader_state",
        "counters", "metrics", "options", "dataset", "format",
    }  # fmt: skip
    assert (state["dataset"], state["options"]["mini_epoch_samples"]) == ("abc", MINI)
    assert (
        state["counters"]["epoch"],
        state["counters"]["mini_epoch"],
        state["counters"]["samples_seen"],
    ) == (1, 1, 12)


def test_a_loss_that_is_no_number_is_null_in_the_log(tmp_path):
    train(tmp_path, val_loader=[], num_epochs=1)
    assert log_lines(tmp_path)[0]["val"]["value_accuracy"] is None


def test_progress_ends_each_mini_epoch_and_reports_come_once_each(tmp_path):
    events: list[Event] = []
    train(tmp_path, hooks=[events.append])
    progress = [event.progress for event in events if isinstance(event, Progressed)]
    saved = [event for event in events if isinstance(event, Saved)]
    ends = [p for p in progress if p.mini_epoch_done >= p.mini_epoch_samples]
    assert [p.samples_seen for p in ends] == [12, 24, 26, 38, 50, 52]
    assert [p.mini_epoch_samples for p in ends] == [9, 9, 2] * 2
    assert {p.total_samples for p in progress} == {52}
    assert [event.checkpoint.name for event in saved] == WHOLE
    assert saved[-1].record["learning_rate"] == 1e-3


# --- hooks ---


def test_hooks_see_the_events_of_a_run_in_order_and_what_they_return_is_recorded(tmp_path):
    seen: list[type[Event]] = []

    def measure(event: Event) -> dict[str, Any] | None:
        if not isinstance(event, (Progressed, Validating)):
            seen.append(type(event))
        torch.rand(1)
        if isinstance(event, MiniEpochTrained):
            return {"rows": event.train["samples"]}
        return {"double": 2 * event.val["loss"]} if isinstance(event, Validated) else None

    train(tmp_path, hooks=[measure], num_epochs=1)
    assert seen == [RunStarted, *[MiniEpochBegun, MiniEpochTrained, Validated, Saved] * 3, RunEnded]
    for line in log_lines(tmp_path):
        assert (line["rows"], line["double"]) == (line["train"]["samples"], 2 * line["val"]["loss"])
        assert checkpoint_file.read(tmp_path / "checkpoints" / line["checkpoint"])["metrics"]["rows"] == line["rows"]


def test_a_trainer_that_is_a_hook_too_knows_the_number_of_each_mini_epoch_also_of_one_that_goes_on(tmp_path):
    begun: list[tuple[int, int, int]] = []

    def note(event: Event) -> None:
        if isinstance(event, MiniEpochBegun):
            begun.append((event.epoch, event.mini_epoch, event.samples_seen))
        if isinstance(event, Progressed) and event.progress.samples_seen == 16:
            signal.raise_signal(signal.SIGTERM)

    assert train(tmp_path, hooks=[note]).interrupted
    train(tmp_path, hooks=[note], num_epochs=2)
    assert begun == [(1, 1, 0), (1, 2, 12), (1, 2, begun[2][2]), (1, 3, 24), (2, 1, 26), (2, 2, 38), (2, 3, 50)]
    assert 12 < begun[2][2] < 24


def test_what_a_hook_draws_is_not_missed_in_training(tmp_path, whole):
    def draw(event: Event) -> None:
        torch.rand(3)

    train(tmp_path, hooks=[draw])
    assert_same_run(tmp_path, whole)


def test_a_hook_ends_the_run_after_saving_and_the_run_goes_on_when_started_again(tmp_path, whole):
    def stop(event: Event) -> None:
        if isinstance(event, MiniEpochTrained) and event.samples_seen == 24:
            event.stop("seen enough")
            event.stop("a later reason")

    outcome = train(tmp_path, hooks=[stop])
    assert (outcome.stopped, outcome.interrupted, outcome.samples_seen) == ("seen enough", False, 24)
    assert "ended after 24 samples, 0 epochs done: seen enough" in outcome.summary()
    started: list[RunStarted] = []
    train(tmp_path, hooks=[lambda event: started.append(event) if isinstance(event, RunStarted) else None])
    assert [record["samples_seen"] for record in started[0].history] == [12, 24]
    assert_same_run(tmp_path, whole)


def test_a_hook_may_not_take_a_name_of_the_record(tmp_path):
    with pytest.raises(ValueError, match="a hook adds names that the record has already: epoch"):
        train(tmp_path, hooks=[lambda event: {"epoch": 1} if isinstance(event, Validated) else None])


def test_a_log_that_anybody_wrote_leads_out_of_the_folder_nowhere(tmp_path, whole):
    train(tmp_path / "run", num_epochs=1)
    other = tmp_path / "other" / WHOLE[0]
    other.parent.mkdir()
    other.write_bytes(b"somebody's")
    log = tmp_path / "run" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "checkpoint": f"../../other/{WHOLE[0]}"})
    log.write_text("\n".join([*lines, "[" * 100_000, '{"epoch": 1e999, "mini_epoch": 1}']) + "\n")
    train(tmp_path / "run", retention=Retention(last=1))
    assert other.read_bytes() == b"somebody's"
    assert names(tmp_path / "run") == [WHOLE[0], WHOLE[-1]]  # the first has no line any more


@pytest.mark.parametrize("place", [{"epoch": 0, "done": 7}, {"epoch": 1, "done": 0}], ids=["too few", "too many"])
def test_counters_that_are_not_of_the_loaders_state_are_the_checkpoints_fault(tmp_path, place):
    train(tmp_path, num_epochs=1)
    newest = tmp_path / "checkpoints" / WHOLE[2]
    state = checkpoint_file.read(newest)
    own = {name: state.pop(name) for name in checkpoint_file.PARTS}
    del state["format"]
    checkpoint_file.write(
        newest,
        {**own, "counters": {**own["counters"], "epoch_batches": 1}, "loader_state": place},
        trainer_state=state,
    )
    with pytest.raises(DataError, match=rf"{WHOLE[2]}: counts other batches than its loader's state"):
        train(tmp_path)


def test_a_log_that_is_a_pipe_is_not_waited_for(tmp_path):
    train(tmp_path, num_epochs=1)
    (tmp_path / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(DataError, match=r"metrics.jsonl: cannot be read \(it is no regular file\). Move it away"):
        train(tmp_path)


def test_an_optimizers_state_of_another_network_is_refused_before_a_weight_changes(tmp_path):
    train(tmp_path, num_epochs=1)
    newest = tmp_path / "checkpoints" / WHOLE[2]
    state = checkpoint_file.read(newest)
    state["optimizer_state_dict"]["state"][0]["exp_avg"] = torch.zeros(3)
    own = {name: state.pop(name) for name in checkpoint_file.PARTS}
    del state["format"]
    checkpoint_file.write(newest, own, trainer_state=state)
    trainer = seeded(Trainer)
    before = plain(trainer.model.state_dict())
    with pytest.raises(DataError, match=r"optimizer_state_dict.state.0.exp_avg has shape \(3,\), not \(8, 75\)"):
        train(tmp_path, trainer=trainer)
    assert plain(trainer.model.state_dict()) == before


# --- values that are not plain ---


class NumPyTrainer(Trainer):
    """Tells and keeps what people's own trainers do."""

    kept: ClassVar[dict[str, Any]] = {}

    def train_on_batches(self, batches):
        return {name: np.float64(value) for name, value in super().train_on_batches(batches).items()}

    def validate(self, loader):
        means = {name: np.mean([value]) for name, value in super().validate(loader).items()}
        return {**means, "each": [np.float32(1), float("nan")], "tensor": torch.tensor(3.0), "count": np.int64(4)}

    def state_dict(self):
        draws = np.random.Generator(np.random.MT19937(5))
        return {
            **super().state_dict(),
            "number": np.float32(0.5),
            "array": np.arange(6, dtype=np.int16).reshape(2, 3),
            "other order": np.frombuffer(b"\x01\x02\x03\x04", dtype=">u2"),
            "random": draws.bit_generator.state,
            "counts": defaultdict(int, a=np.int64(1)),
            "file": Path("weights") / "a.pt",
            "when": datetime(2026, 1, 2, tzinfo=UTC),
            "pair": (np.array([1.0]), {"deep": [np.array(2)]}),
        }

    def load_state_dict(self, state):
        type(self).kept = dict(state)
        super().load_state_dict(state)


def test_numbers_of_numpy_and_torch_are_saved_as_plain_ones_and_the_run_goes_on(tmp_path, whole):
    options = {"learning_rate": np.float64(1e-3), "seed": np.int64(3), "path": Path("here")}
    first = train(tmp_path, trainer=seeded(NumPyTrainer), options=options, num_epochs=1)
    assert first.notices == ()
    again = train(tmp_path, trainer=seeded(NumPyTrainer), options={**options, "seed": 3}, num_epochs=2)
    assert again.resumed_from and again.resumed_from.name == WHOLE[2] and again.notices == ()
    kept = NumPyTrainer.kept
    assert type(kept["number"]) is float and kept["number"] == 0.5
    assert kept["array"].dtype == np.int16 and kept["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert kept["other order"].tolist() == [0x0102, 0x0304]
    assert kept["counts"] == {"a": 1} and kept["file"] == "weights/a.pt" and kept["when"].startswith("2026-01-02T")
    assert isinstance(kept["pair"], tuple) and kept["pair"][0].tolist() == [1.0]
    assert kept["pair"][1]["deep"][0].shape == ()
    np.random.Generator(np.random.MT19937()).bit_generator.state = kept["random"]
    line = log_lines(tmp_path)[-1]
    assert line["val"]["each"] == [1.0, None] and line["val"]["tensor"] == 3.0 and line["val"]["count"] == 4
    plain_line = {**line, "val": {k: v for k, v in line["val"].items() if k not in ("each", "tensor", "count")}}
    assert plain_line == log_lines(whole)[-1]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"lock": object()}, "object of builtins.object at lock"),
        ({"deep": [{"draws": np.random.default_rng()}]}, r"numpy.random._generator.Generator at deep.0.draws"),
        ({"names": np.array(["a", None], dtype=object)}, "NumPy array of object at names"),
        ({"hook": print}, "at hook"),
        ({"marks": np.ma.array([1, 2], mask=[0, 1])}, "a masked array at marks"),
    ],
)
def test_a_state_that_could_not_be_read_back_is_refused_by_name_before_anything_is_written(tmp_path, state, says):
    class Keeping(Trainer):
        def state_dict(self):
            return {**super().state_dict(), **state}

    with pytest.raises(TypeError, match=rf"the trainer's state_dict\(\) holds .*{says}, which could not be read back"):
        train(tmp_path, trainer=seeded(Keeping))
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not any((tmp_path / "checkpoints").glob("*"))


def test_a_value_that_holds_itself_is_refused(tmp_path):
    class Endless(Trainer):
        def validate(self, loader):
            endless: list[Any] = []
            endless.append(endless)
            return {"loss": endless}

    with pytest.raises(TypeError, match=r"what Endless.validate\(\) returned holds lists or dicts .* without end"):
        train(tmp_path, trainer=seeded(Endless))


@pytest.mark.parametrize("value", [np.float32(2), np.int64(2), torch.tensor(2), np.array([2]), torch.tensor([[2.0]])])
def test_a_hook_may_return_a_number_of_numpy_or_torch(tmp_path, value):
    train(tmp_path, num_epochs=1, hooks=[lambda event: {"own": value} if isinstance(event, Validated) else None])
    assert [line["own"] for line in log_lines(tmp_path)] == [2, 2, 2]


def test_what_a_hook_returns_that_is_not_plain_is_refused_by_the_hooks_name(tmp_path):
    def odd_hook(event: Event) -> Any:
        return {"own": {"sheet": object()}} if isinstance(event, Validated) else None

    with pytest.raises(TypeError, match=r"what the hook .*odd_hook returned holds an object .* at own.sheet"):
        train(tmp_path, hooks=[odd_hook])


@pytest.mark.parametrize("value", [np.float32(2), np.int64(0), torch.ones(3), np.ones(2), [1], "words", True])
def test_what_a_hook_or_a_trainer_returns_that_is_no_names_with_values_is_refused_by_who_returned_it(tmp_path, value):
    class Bare(Trainer):
        def validate(self, loader):
            super().validate(loader)
            return value

    with pytest.raises(TypeError, match=r"what the hook .*<lambda> returned is an object of .*Give a dict of names"):
        train(tmp_path / "hook", hooks=[lambda event: value if isinstance(event, Validated) else None])
    with pytest.raises(TypeError, match=r"what Bare.validate\(\) returned is an object of .*Give a dict of names"):
        train(tmp_path / "trainer", trainer=seeded(Bare))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mini_epoch_samples": 0},
        {"mini_epoch_batches": 0},
        {"num_epochs": 0},
        {"mini_epoch_samples": 5, "mini_epoch_batches": 5},
    ],
)
def test_senseless_counts_are_the_callers_error(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"mini_epoch|num_epochs"):
        train(tmp_path, **wrong)


def test_a_loader_that_ends_early_is_an_error_and_not_a_short_epoch(tmp_path):
    class Short(SmallLoader):
        def __iter__(self) -> Iterator[Batch]:
            return iter(list(super().__iter__())[:5])

    with pytest.raises(RuntimeError, match="ended after 5 of 7 batches"):
        train(tmp_path, train_loader=Short())


def test_a_trainer_that_leaves_batches_over_is_an_error(tmp_path):
    class Idle(Trainer):
        def train_on_batches(self, batches):
            return {}

    with pytest.raises(RuntimeError, match="before its batches were used up"):
        train(tmp_path, trainer=seeded(Idle))


# --- stopping and going on ---


def signalled(run: Path, *, at: int, number: int = signal.SIGTERM, **changes: Any) -> Outcome:
    """Train until a real signal arrives while batch ``at`` of the run is at work."""
    loader = SmallLoader()
    train_step = Trainer._step

    class Signalled(Trainer):
        def _step(self, batch):
            if loader.epoch * len(loader) + loader.done == at:
                os.kill(os.getpid(), number)
            train_step(self, batch)

    return train(run, trainer=seeded(Signalled), train_loader=loader, **changes)


@pytest.mark.parametrize("at", range(1, 15))
def test_a_run_interrupted_in_any_batch_and_started_again_ends_as_one_that_was_not(tmp_path, whole, at):
    outcome = signalled(tmp_path, at=at)
    assert outcome.interrupted and outcome.checkpoint and outcome.checkpoint.stem.endswith("_partial")
    again = train(tmp_path)
    assert not again.interrupted and again.resumed_from == outcome.checkpoint
    assert_same_run(tmp_path, whole)


def test_a_run_interrupted_in_every_batch_ends_as_one_that_was_not(tmp_path, whole):
    for at in range(1, 15):
        assert signalled(tmp_path, at=at, number=signal.SIGINT).interrupted
    train(tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("at", range(1, 15))
def test_a_run_that_died_in_any_batch_and_started_again_ends_as_one_that_did_not(tmp_path, whole, at):
    loader = SmallLoader()

    def die(number: int) -> None:
        if number == at:
            raise MemoryError

    loader.on_batch = die
    with pytest.raises(MemoryError):
        train(tmp_path, train_loader=loader)
    train(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_signal_during_validation_saves_at_once_and_only_the_validation_is_done_again(tmp_path, whole):
    for samples_seen in (12, 26, 52):
        validation = Validation()
        trainer = seeded(Trainer)

        def stop(trainer: Trainer = trainer, samples_seen: int = samples_seen) -> None:
            if trainer.scheduler.samples == samples_seen:
                os.kill(os.getpid(), signal.SIGTERM)

        validation.on_batch = stop
        outcome = train(tmp_path, trainer=trainer, val_loader=validation)
        assert outcome.interrupted and outcome.samples_seen == samples_seen
        after = {26: "\nlosses at sample 24 train ", 52: "\nlosses at sample 50 train "}
        assert after.get(samples_seen, "interrupted after 12 samples") in outcome.summary()
    ended = train(tmp_path)
    assert ended.mini_epochs == 1 and "\nlosses train " in ended.summary()
    assert_same_run(tmp_path, whole)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["samples_seen"] for line in lines if line["samples_per_s"] is None] == [12, 26, 52]
    assert all((line["samples_per_s"] is None) == (line["waiting"] is None) for line in lines)


def test_a_kill_between_checkpoint_and_log_leaves_no_gap_and_no_double_line(tmp_path, whole):
    train(tmp_path, num_epochs=1)
    log = tmp_path / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for damaged in ("".join(lines[:-1]), "".join(lines + lines[-1:]), "".join(lines) + lines[0][:20]):
        log.write_text(damaged)
        train(tmp_path, num_epochs=1)
        assert log_lines(tmp_path) == log_lines(whole)[:3]


def test_lines_past_the_checkpoint_gone_on_from_are_cut(tmp_path, whole):
    train(tmp_path)
    (tmp_path / "checkpoints" / WHOLE[-1]).unlink()
    (tmp_path / "checkpoints" / WHOLE[-2]).unlink()
    outcome = train(tmp_path)
    assert outcome.resumed_from and outcome.resumed_from.name == WHOLE[-3]
    assert_same_run(tmp_path, whole)


def test_what_a_killed_write_left_is_removed_and_nothing_that_is_called_alike(tmp_path):
    train(tmp_path, num_epochs=1)
    left = [
        tmp_path / "checkpoints" / "checkpoint_epoch0002_mini0001.pt.123.partial",
        *(tmp_path / f"{name}.host.9.partial" for name in ("metrics.jsonl", "best.pt", "config.toml")),
        tmp_path / "datasets" / "0123" / "index.json.host.9.partial",
    ]
    others = [tmp_path / name for name in ("film.mkv.partial", "notes.host.9.partial", "best.pt.mine.partial")]
    left[-1].parent.mkdir(parents=True)
    for path in left + others:
        path.write_bytes(b"half")
    train(tmp_path, num_epochs=1)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_epochs_may_be_raised_and_the_run_is_that_of_all_of_them(tmp_path, whole):
    assert train(tmp_path, num_epochs=1).epochs == 1
    assert train(tmp_path, num_epochs=2).mini_epochs == 3
    for name in WHOLE:
        ours, theirs = (checkpoint_file.read(run / "checkpoints" / name) for run in (tmp_path, whole))
        assert plain(ours) == plain(theirs)


def test_a_finished_run_started_again_trains_nothing_and_says_so(tmp_path):
    first = train(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    again = train(tmp_path)
    assert (again.mini_epochs, again.samples_seen, again.epochs) == (0, 52, 2)
    assert again.metrics == first.metrics
    assert again.summary().startswith("nothing left to train")
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:-1000]),
        lambda p: p.write_text("hello"),
    ],
)
def test_a_damaged_newest_checkpoint_is_skipped_and_told(tmp_path, whole, damage):
    train(tmp_path)
    damage(tmp_path / "checkpoints" / WHOLE[-1])
    told: list[str] = []
    outcome = train(tmp_path, hooks=[lambda event: told.append(event.text) if isinstance(event, Noticed) else None])
    assert outcome.resumed_from and outcome.resumed_from.name == WHOLE[-2]
    assert len(told) == 1 and WHOLE[-1] in told[0] and tuple(told) == outcome.notices
    assert_same_run(tmp_path, whole)


def test_a_run_whose_checkpoints_cannot_be_read_is_never_begun_anew(tmp_path):
    train(tmp_path, num_epochs=1)
    for path in (tmp_path / "checkpoints").iterdir():
        flip(path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"holds 3 checkpoints, and none can be read; .*nothing here was changed"):
        train(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("left", ["metrics.jsonl", "best.pt"])
def test_what_is_left_of_a_run_without_its_checkpoints_is_never_begun_over(tmp_path, left):
    train(tmp_path, num_epochs=1)
    for path in [*(tmp_path / "checkpoints").iterdir(), tmp_path / "metrics.jsonl", tmp_path / "best.pt"]:
        if path.name != left:
            path.unlink()
    kept = (tmp_path / left).read_bytes()
    for resume in ("auto", "never"):
        with pytest.raises(DataError, match=r"there are no checkpoints in checkpoints/\. .*nothing here was changed"):
            train(tmp_path, resume=resume)
    assert (tmp_path / left).read_bytes() == kept


def test_a_run_whose_checkpoints_were_removed_goes_on_from_its_best(tmp_path):
    train(tmp_path, num_epochs=1)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=f"go on from the best with --resume {tmp_path / 'best.pt'}"):
        train(tmp_path)
    outcome = train(tmp_path, resume=tmp_path / "best.pt")
    assert outcome.resumed_from == tmp_path / "best.pt" and len(log_lines(tmp_path)) == len(WHOLE)


def test_a_checkpoint_that_could_not_be_read_is_no_damaged_one(tmp_path):
    train(tmp_path, num_epochs=1)
    newest = tmp_path / "checkpoints" / WHOLE[2]
    newest.unlink()
    newest.mkdir()
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\). Make it readable"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"train_loader": SmallLoader(fingerprint="def")}, "dataset abc, not on def"),
        ({"mini_epoch_samples": 10}, "mini_epoch_samples was 9, is 10"),
        ({"options": {"seed": 4}}, "seed was None, is 4"),
    ],
)
def test_another_dataset_or_other_options_are_refused_and_nothing_is_touched(tmp_path, changes, finding):
    train(tmp_path, num_epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(DataError, match=finding):
        train(tmp_path, **changes)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def test_another_model_is_refused(tmp_path):
    train(tmp_path, num_epochs=1)
    with pytest.raises(DataError, match="does not fit this run"):
        train(tmp_path, trainer=Trainer(nn.Linear(2, 2)))


def test_never_refuses_a_folder_that_holds_checkpoints(tmp_path):
    assert train(tmp_path, resume="never", num_epochs=1).mini_epochs == 3
    with pytest.raises(DataError, match="already holds 3 checkpoints"):
        train(tmp_path, resume="never")


def test_a_path_goes_on_from_that_checkpoint_in_a_new_folder(tmp_path, whole):
    outcome = train(tmp_path, resume=whole / "checkpoints" / WHOLE[2])
    assert (outcome.mini_epochs, outcome.samples_seen) == (3, 52)
    assert names(tmp_path) == WHOLE[3:]
    assert log_lines(tmp_path) == log_lines(whole)[2:]


def test_a_path_behind_newer_checkpoints_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(DataError, match="4 checkpoints are newer than"):
        train(tmp_path, resume=str(tmp_path / "checkpoints" / WHOLE[1]))
    with pytest.raises(FileNotFoundError, match="no such file"):
        train(tmp_path, resume=tmp_path / "nothing.pt")


def test_signal_handlers_are_put_back_and_left_alone_outside_the_main_thread(tmp_path):
    before = [signal.getsignal(number) for number in StopSignals.SIGNALS]
    train(tmp_path / "a")
    signalled(tmp_path / "b", at=2)
    thread = threading.Thread(target=train, args=(tmp_path / "c",))
    thread.start()
    thread.join(DEADLINE_S)
    assert [signal.getsignal(number) for number in StopSignals.SIGNALS] == before
    assert names(tmp_path / "c") == WHOLE


# --- the whole way, on a dataset ---


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    files = write(folder / "processed", games=60, side=5)
    convert(files, out=folder / "data", val_fraction=0.2, block_positions=64, shard_positions=256)
    return folder / "data"


def spec(dataset: Path, run: Path, **changes: Any) -> TrainSpec:
    small: dict[str, Any] = {
        "mini_epoch_samples": 300,
        "epochs": 2,
        "batch_size": 64,
        "channels": 4,
        "blocks": 1,
    }
    return TrainSpec(data=dataset, run=run, warmup_samples=500, device="cpu", **{**small, **changes})


def test_a_run_on_a_dataset_goes_on_bit_for_bit_with_other_workers_too(dataset, tmp_path):
    assert not runs.train(spec(dataset, tmp_path / "whole")).interrupted

    def stop(event: Event) -> None:
        if isinstance(event, Progressed) and event.progress.mini_epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    for number in range(2):
        outcome = runs.train(spec(dataset, tmp_path / "run", num_workers=number), hooks=[stop])
        assert outcome.interrupted and outcome.epochs == 0
    outcome = runs.train(spec(dataset, tmp_path / "run"))
    assert not outcome.interrupted and outcome.epochs == 2
    assert names(tmp_path / "run") == names(tmp_path / "whole")
    for name in names(tmp_path / "run"):
        ours, theirs = (checkpoint_file.read(tmp_path / run / "checkpoints" / name) for run in ("run", "whole"))
        ours["options"] = theirs["options"]
        assert plain(ours) == plain(theirs), f"{name} differs"
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "whole")


def test_options_that_shape_the_weights_are_refused_by_name(dataset, tmp_path):
    runs.train(spec(dataset, tmp_path, epochs=1))
    with pytest.raises(DataError, match="batch_size was 64, is 32; seed was 0, is 1"):
        runs.train(spec(dataset, tmp_path, batch_size=32, seed=1))


def test_the_first_weights_follow_from_the_seed_and_from_nothing_drawn_before(dataset, tmp_path):
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        torch.rand(number)
        outcome = runs.train(spec(dataset, tmp_path / str(number), seed=seed, epochs=1))
        assert outcome.checkpoint
        weights.append(plain(checkpoint_file.read(outcome.checkpoint)["model_state_dict"]))
    assert weights[0] == weights[1] != weights[2]


def test_a_dataset_without_validation_trains_and_says_so_and_one_without_training_is_refused(tmp_path):
    files = write(tmp_path / "processed", games=10, side=5)
    convert(files, out=tmp_path / "no-val", val_fraction=0.0)
    outcome = runs.train(spec(tmp_path / "no-val", tmp_path / "run"))
    assert outcome.metrics["val"] == {}
    assert outcome.notices == (
        "there is no validation split: training without validation until started again with one",
    )
    convert(files, out=tmp_path / "no-train", val_fraction=1.0)
    with pytest.raises(DataError, match="no split 'train'"):
        runs.train(spec(tmp_path / "no-train", tmp_path / "other"))


# --- real processes ---


def started(run: Path, *, pause_s: float) -> warm.Program:
    return warm.Program([sys.executable, __file__, run, pause_s])


def wait_for(process: warm.Program, path: Path) -> None:
    processes.wait_for(lambda: path.exists() or process.poll() is not None, wait_s=DEADLINE_S)
    assert path.exists(), f"ended before {path.name} appeared: {process.communicate()}"


def test_a_process_killed_again_and_again_ends_as_one_that_was_not(tmp_path, whole):
    for name in WHOLE[0], WHOLE[2], WHOLE[4]:
        with started(tmp_path, pause_s=0.05) as process:
            wait_for(process, tmp_path / "checkpoints" / name)
            process.kill()
            assert process.wait(DEADLINE_S) == -signal.SIGKILL
    train(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_terminated_process_saves_says_so_and_goes_on_where_it_was(tmp_path, whole):
    with started(tmp_path, pause_s=0.2) as process:
        wait_for(process, tmp_path / "checkpoints" / WHOLE[1])
        process.terminate()
        output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130 and output.startswith("interrupted after ")
    train(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_second_signal_leaves_at_once(tmp_path, whole):
    with started(tmp_path, pause_s=FOR_EVER) as process:
        wait_for(process, tmp_path / "started")
        process.terminate()
        wait_for(process, tmp_path / "heard")
        process.terminate()
        assert process.wait(DEADLINE_S) == -signal.SIGTERM
    (tmp_path / "started").unlink()
    (tmp_path / "heard").unlink()
    train(tmp_path)
    assert_same_run(tmp_path, whole)


def main(run: Path, pause_s: float) -> int:
    torch.set_num_threads(1)
    loader = SmallLoader()
    built = orchestrator(run, train_loader=loader)

    def pause(number: int) -> None:
        (run / "started").touch()
        until = time.monotonic() + pause_s
        while time.monotonic() < until:
            if pause_s == FOR_EVER and built.stop.signals.asked:
                (run / "heard").touch()
            time.sleep(0.005)

    loader.on_batch = pause
    outcome = built.run()
    (run / "started").unlink()
    sys.stdout.write(outcome.summary())
    return 130 if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
