"""What a person is told of training, before it, during it and in TensorBoard."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pyte
import pytest
from helpers.small_data import dataset, processed
from helpers.small_runs import Drawing, SmallLoader, Validation, train
from rich.console import Console
from typer.testing import CliRunner

from hexshards.cli import display
from hexshards.cli.app import app
from hexshards.cli.training_view import TrainingView, mini_epoch_line
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.training.dry_run import rehearse
from hexshards.training.options import TrainSpec
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.hooks import Event, MiniEpochBegun, Saved, Waiting
from hexshards.training.tracking.tensorboard_log import numbers
from hexshards.training.train_bucket import Level

TINY = {"channels": 2, "blocks": 1, "batch_size": 50, "device": "cpu"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return dataset(tmp_path_factory.mktemp("view"))


def call(*arguments: object, code: int = 0) -> str:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    result = CliRunner().invoke(app, ["train", *map(str, arguments), *options])
    assert result.exit_code == code, result.output
    return result.output


# --- the view ---


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a terminal of 160 columns is sent."""
    screen = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=screen, force_terminal=True, width=160, highlight=False))
    return screen


def test_a_terminal_shows_mini_epoch_epoch_and_run_and_what_they_bring(tmp_path, terminal):
    with TrainingView() as view:
        train(tmp_path, hooks=[view], options={"best_by": "val.loss"})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    for text in ("mini-epoch 3", "epoch 2 of 2", "52/52", "samples/s · waiting ", "policy "):
        assert text in shown
    assert re.search(r"(memory|GPU) [\d.]+ [MG]iB", shown)
    assert re.search(r"best val\.loss \d\.\d{4}", shown)


class Terminal(io.StringIO):
    """A terminal that shows what is written to it, by whichever thread: bars are drawn anew by one of their own."""

    def __init__(self, columns):
        super().__init__()
        self._screen, self._lock = pyte.Screen(columns, 100), threading.Lock()
        self._stream = pyte.Stream(self._screen)

    def write(self, text):
        with self._lock:
            self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def lines(self):
        with self._lock:
            return [line.rstrip() for line in self._screen.display]


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_number_is_cut_and_no_time_left_is_nothing_while_work_is_left(tmp_path, monkeypatch, columns):
    terminal, seen = Terminal(columns), set[str]()
    monkeypatch.setattr(display, "err", Console(file=terminal, force_terminal=True, width=columns, highlight=False))
    with TrainingView() as view:

        def look(event: Event, /) -> None:
            view._shown.refresh()
            seen.update(terminal.lines())

        train(tmp_path, val_loader=Validation().batches, hooks=[view, look])
    bars = [line for line in seen if "\u2501" in line]
    matches = [
        re.search(r" ([\d,]+)/([\d,]+) +(\d+:\d\d:\d\d|-:--:--)$", line) for line in bars if "saving" not in line
    ]
    assert None not in matches
    assert {each[3] for each in matches if each[1] != each[2]} & {"0:00:00"} == set()
    for name in ("mini-epoch 2", "epoch 2 of 2", "run", "validating batches", "looking closer, saving"):
        assert any(line.startswith(name) for line in bars), name
    assert any(re.search(r"best \d\.\d{4}$", line) for line in seen)


def test_what_a_run_goes_on_from_is_said_before_its_first_step(tmp_path, capsys):
    train(tmp_path, num_epochs=1)
    told: list[str] = []
    with TrainingView() as view:
        look = lambda event: told.append(capsys.readouterr().err) if isinstance(event, MiniEpochBegun) else None  # noqa: E731
        train(tmp_path, hooks=[view, look])
    path = tmp_path / "checkpoints" / "checkpoint_epoch0001_mini0003.pt"
    assert told[0].splitlines()[-1] == f"resumed from {path} at sample 26"


def test_of_a_run_that_had_ended_it_is_said_that_nothing_is_left_and_what_goes_on(tmp_path, capsys):
    train(tmp_path, num_epochs=1)
    with TrainingView() as view:
        train(tmp_path, hooks=[view], num_epochs=1)
    assert capsys.readouterr().err.splitlines() == [
        "device cpu · 1 thread · 858 parameters",
        f"nothing left to train: the run ended with {tmp_path}/checkpoints/checkpoint_epoch0001_mini0003.pt "
        "at sample 26, as 1 epoch was the limit; a higher limit goes on",
    ]


def test_elsewhere_a_line_per_mini_epoch_is_all(tmp_path, capsys):
    with TrainingView() as view:
        train(tmp_path, hooks=[view], num_epochs=1)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "device cpu · 1 thread · 858 parameters",
        "1 epoch of 26 samples: 26 samples in 7 steps and 3 mini-epochs",
    ]
    lines = shown.out.splitlines()
    assert [line.split(" · ")[:2] for line in lines] == [
        [f"epoch 1 mini-epoch {number}", f"{samples} samples"] for number, samples in ((1, 12), (2, 24), (3, 26))
    ]
    assert all(re.search(r"samples/s, \d+% waiting$", line) for line in lines)


def test_a_mini_epoch_of_which_only_the_validation_was_left_has_no_speed():
    record = {"epoch": 1, "mini_epoch": 4, "samples_seen": 20_480, "train": {}, "val": {}, "waiting": None}
    assert mini_epoch_line({**record, "samples_per_s": None}) == "epoch 1 mini-epoch 4 · 20,480 samples"


def test_planned_epochs_are_those_that_a_limit_of_samples_lets_begin(tmp_path, capsys):
    with TrainingView() as view:
        train(tmp_path, hooks=[view], num_epochs=100, max_samples=40)
    planned = capsys.readouterr().err.splitlines()[1]
    assert planned == "within 2 epochs of 26 samples: 40 samples in 11 steps and 5 mini-epochs"


def test_a_run_that_goes_on_is_planned_by_what_is_left_of_it(tmp_path, capsys):
    train(tmp_path, num_epochs=1)
    with TrainingView() as view:
        train(tmp_path, hooks=[view], num_epochs=3, max_samples=76)
    planned = capsys.readouterr().err.splitlines()[1]
    assert planned == "left: 50 samples in 13 steps and 5 mini-epochs, 26 samples an epoch"


def waits_in(view):
    run = SimpleNamespace(rank=0)
    for positions in (26, 31):
        view(Waiting(run=run, level=Level(26, 12, positions, 1)))


def test_a_run_that_waits_for_positions_says_so_once(capsys):
    with TrainingView() as view:
        waits_in(view)
    assert capsys.readouterr().err.splitlines() == [
        "waits: 26 samples of 26 positions are taken; 12 more positions let the next mini-epoch begin"
    ]


def test_a_terminal_shows_how_many_of_the_positions_came_that_a_run_waits_for(terminal):
    with TrainingView() as view:
        waits_in(view)
        time.sleep(0.5)  # what moves is drawn ten times a second
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"waiting for positions .* 5/12", shown)


def warned_of(gaps, capsys, view):
    """What is warned of after each mini-epoch; a gap of None: its record has no warning."""
    told = []
    for gap in gaps:
        diagnosis = {} if gap is None else {"value_gap": gap, "warning": f"a gap of {gap}"}
        record = {"epoch": 1, "mini_epoch": 1, "samples_seen": 9, "train": {}, "val": {}}
        record |= {"samples_per_s": 1.0, "waiting": 0.0, "diagnosis": diagnosis}
        view(Saved(run=SimpleNamespace(rank=0), checkpoint=Path("c.pt"), record=record))
        told += re.findall(r"warning: a gap of ([\d.]+)", capsys.readouterr().err)
    return [float(gap) for gap in told]


def test_that_games_look_learned_by_heart_is_said_once_and_again_where_the_gap_has_doubled(tmp_path, capsys):
    with TrainingView() as view:
        assert warned_of([None, 0.2, 0.3, None, 0.2, 0.4, 0.41, 0.7, 0.9], capsys, view) == [0.2, 0.41, 0.9]
        train(tmp_path, hooks=[view])  # each start says it once
        capsys.readouterr()
        assert warned_of([0.2, 0.2], capsys, view) == [0.2]


def test_a_slow_run_without_a_terminal_says_now_and_then_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hexshards.cli.training_view.PLAIN_INTERVAL_S", 0.0)
    with TrainingView() as view:
        train(tmp_path, hooks=[view], num_epochs=1)
    assert "epoch 1 mini-epoch 1 · 4 of 26 samples · " in capsys.readouterr().err


def test_time_spent_waiting_for_data_is_recorded_as_a_share(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("hexshards.training.tracking.stopwatch.time", SimpleNamespace(monotonic=lambda: now))

    class Slow(SmallLoader):
        def __iter__(self):
            nonlocal now
            for batch in super().__iter__():
                now += 3
                yield batch

    class Learning(Drawing):
        def forward(self, board):
            nonlocal now
            now += self.training
            return super().forward(board)

    train(tmp_path, trainer=Trainer(Learning()), train_loader=Slow(), num_epochs=1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["waiting"] for line in lines] == [0.75] * 3


# --- before a run ---


def slow_counts(samples: int, batch: int, mini: int, epochs: int, val_every: int) -> tuple[int, int, int]:
    steps = minis = validations = 0
    for _ in range(epochs):
        left, number = samples, 0
        while left:
            number, done = number + 1, 0
            while left and done < mini:
                taken = min(batch, left)
                left, done, steps = left - taken, done + taken, steps + 1
            minis += 1
            validations += number % val_every == 0 or not left
    return steps, minis, validations


@pytest.mark.parametrize(("mini", "epochs", "val_every"), [(500, 1, 1), (120, 2, 2), (10_000, 3, 1), (1, 1, 5)])
def test_a_rehearsal_counts_what_the_run_then_does(data, tmp_path, monkeypatch, mini, epochs, val_every):
    monkeypatch.setattr("hexshards.training.dry_run.MEASURED_S", 0.1)
    counts = {"mini_epoch_samples": mini, "epochs": epochs, "val_every": val_every, "keep_last": 2}
    spec = TrainSpec(data=data, run=tmp_path / "run", **counts, **TINY)
    rehearsal = rehearse(spec)
    assert not spec.run.exists()
    expected = slow_counts(1117, 50, mini, epochs, val_every)
    assert (rehearsal.steps, rehearsal.mini_epochs, rehearsal.validations) == expected
    assert (rehearsal.samples, rehearsal.epoch_samples, rehearsal.val_samples) == (epochs * 1117, 1117, 192)
    assert rehearsal.checkpoints == min(rehearsal.mini_epochs, 2)
    assert rehearsal.fits
    assert 0 < rehearsal.seconds < 1e6
    training_s = rehearsal.samples / rehearsal.samples_per_s
    after_each_s = rehearsal.val_samples / rehearsal.val_samples_per_s + rehearsal.diagnosis_s
    assert rehearsal.diagnosis_s > 0
    assert rehearsal.seconds == pytest.approx(training_s + rehearsal.validations * after_each_s)


def test_a_rehearsal_knows_the_size_of_a_checkpoint(data, tmp_path):
    call(data, "--run", tmp_path / "run", "--max-samples", 100)
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    told = call(data, "--run", tmp_path / "other", "--dry-run")
    assert not (tmp_path / "other").exists()
    assert "would train " in told and "in 23 steps and 1 mini-epoch," in told
    assert re.search(r" in validation, [\d.e-]+ s for a diagnosis; time: about ", told)
    assert "diagnosis" not in call(data, "--run", tmp_path / "other", "--dry-run", "--diagnose", 0)
    rehearsal = rehearse(TrainSpec(data=data, run=tmp_path, **TINY))
    # a run's place, its record and random state, 11 KB, come on top
    assert 0 < path.stat().st_size - rehearsal.checkpoint_bytes < 15_000


def test_a_rehearsal_of_a_run_that_is_there_tells_what_is_left_of_it_or_why_it_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr("hexshards.training.dry_run.MEASURED_S", 0.1)
    run = ["--run", tmp_path / "run"]
    begun = call(data, *run, "--max-samples", 100, "--weights", "ply=10..:2")
    assert "positions count by ply=10..:2; the losses of heads are those in which all count alike\n" in begun
    few = "validation has 9 games, and says little of the value with fewer than 200: "
    assert f"{few}convert with a larger --val-fraction, or, while games are still added, wait until there are" in begun
    weighted = [data, *run, "--dry-run", "--weights", "ply=10..:2"]
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    over = f"nothing left to train: the run ended with {path} at sample 100, as 100 samples were the limit; a higher"
    assert call(*weighted, "--max-samples", 100).splitlines()[1:] == [f"{over} limit goes on"]
    on = call(*weighted, "--max-samples", 400).splitlines()[1]
    assert on == f"goes on from {path} at sample 100, with 75% of its samples left"
    assert "\nleft: 300 samples in 6 steps and 1 mini-epoch, 1 of them validated on 192 positions\n" in call(
        *weighted, "--max-samples", 400
    )
    assert f"{few}the run keeps to those of its start; begin another to validate on more\n" in call(
        *weighted, "--max-samples", 400
    )
    assert "learning_rate was 0.001, is 0.01" in call(*weighted, "--learning-rate", 0.01, code=2)
    assert "already holds 1 checkpoint" in call(*weighted, "--resume", "never", code=2)
    tuned = call(data, "--run", tmp_path / "tuned", "--init-from", path, "--max-samples", 50)
    assert f"weights from {path}, and nothing else: the optimizer begins anew\n" in tuned


def test_a_run_on_data_that_grew_validates_on_the_games_of_its_start_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("hexshards.training.dry_run.MEASURED_S", 0.1)
    data, run = dataset(tmp_path / "data"), tmp_path / "run"
    command = [data, "--run", run, "--epochs", 9, "--max-samples"]
    call(*command, 50)
    convert(processed(tmp_path / "more", games=30, seed=9), out=data, append=True)
    games = read_index(data).splits["val"].games
    few = "validation has 9 games, and says little of the value with fewer than 200"
    kept = f"{few}: the run keeps to those of its start, of which there are {games} now; begin another to validate"
    assert games > 9 and kept in call(*command, 60)
    told = call(*command, 300, "--dry-run")
    assert kept in told and "validated on 192 positions\n" in told
    told = call(data, "--run", tmp_path / "another", "--dry-run")
    assert f"validation has {games} games" in told and not (tmp_path / "another").exists()
    assert "was made on dataset" in call(dataset(tmp_path / "other", seed=3), *command[1:], 60, "--dry-run", code=2)


def test_a_rehearsal_says_how_many_samples_there_are_until_the_run_waits(data, tmp_path, monkeypatch):
    monkeypatch.setattr("hexshards.training.dry_run.MEASURED_S", 0.1)
    options = [data, "--run", tmp_path / "run", "--samples-per-position", 2.5, "--epochs", 9]
    told = "at most 2,792 samples of 1,117 positions"
    assert f"{told}; then it waits until positions are added\n" in call(*options, "--dry-run")
    call(*options, "--max-samples", 100)
    assert f"{told}, 100 of which are taken; then it waits" in call(*options, "--dry-run")


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_run_can_be_neither_in_a_datasets_folder_nor_in_a_file(data, tmp_path, more):
    before = {path.name for path in data.iterdir()}
    told = call(data, "--run", data, *more, code=2)
    assert told.endswith(f"error: run: {data} holds a dataset; name another folder, such as {data}-run\n")
    assert {path.name for path in data.iterdir()} == before
    (tmp_path / "file").touch()
    told = call(data, "--run", tmp_path / "file", *more, code=2)
    assert told.endswith(f"error: run: {tmp_path / 'file'} is a file; name a folder\n")


def test_a_batch_is_learned_by_heart_or_the_command_fails(data, tmp_path, monkeypatch):
    options = [data, "--run", tmp_path / "run", "--overfit-batch", "--learning-rate"]
    assert call(*options, 1e-2).splitlines()[-1] == "the batch was learned by heart"
    monkeypatch.setattr("hexshards.training.overfit.STEPS", 50)
    assert "error: the batch was not learned by heart" in call(*options, 1e-9, code=1)
    assert not (tmp_path / "run").exists()


# --- tensorboard ---


def test_the_numbers_of_a_record_have_the_names_of_its_parts():
    record = {"epoch": 1, "samples_seen": 5, "train": {"loss": 0.5}, "mine": 2, "samples_per_s": None, "time": "now"}
    assert dict(numbers(record)) == {"train/loss": 0.5, "mine": 2}


def test_tensorboard_has_each_mini_epoch_once_after_a_restart_too(data, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="no TensorBoard here, so this is NOT CHECKED: that it reads what is written for it",
    )
    options = [data, "--run", tmp_path, "--mini-epoch-samples", 300, "--tensorboard"]
    for epochs in (1, 2):
        call(*options, "--epochs", epochs)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    curve = [(event.step, event.value) for event in events.Scalars("val/loss")]
    assert curve == [(each["samples_seen"], pytest.approx(each["val"]["loss"])) for each in records]
    assert "samples_per_s" in events.Tags()["scalars"]
