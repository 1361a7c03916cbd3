"""How a run ends, what it keeps, and that none of it changes what is trained."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.small_data import CUT, dataset, processed, rows_of
from helpers.small_runs import (
    WHOLE,
    SmallLoader,
    assert_same_run,
    log_lines,
    names,
    plain,
    seeded,
    train,
)
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.conversion.compact import compact
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.errors import DataError, Misused, NonFiniteLoss
from hexshards.loading.loader import loader
from hexshards.training import run as runs
from hexshards.training import train_bucket
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.checkpointing.run_folder import RunFolder
from hexshards.training.dry_run import rehearse
from hexshards.training.early_stopping import EarlyStopping, Standing
from hexshards.training.growing_data import ShardsGone
from hexshards.training.options import TrainSpec
from hexshards.training.orchestrator import MiniEpochOrchestrator
from hexshards.training.recent_batches import RecentBatches
from hexshards.training.steps.model import TwoHeadedResNet
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.hooks import Event, MiniEpochTrained, Progressed, Saved, Waiting
from hexshards.training.tracking.records import Outcome
from hexshards.units import duration_s

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    train(run)
    return run


def weights(run: Path, name: str) -> Any:
    return plain(checkpoint_file.read(run / "checkpoints" / name)["model_state_dict"])


def stopped_at(at: int, run: Path, **changes: Any) -> Outcome:
    """Train until a real signal arrives after batch ``at`` of the run."""
    small = SmallLoader()
    small.on_batch = lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == at else None
    return train(run, train_loader=small, **changes)


# --- limits ---


def test_a_limit_of_samples_cuts_a_mini_epoch_short_and_may_be_raised(tmp_path, whole):
    outcome = train(tmp_path, max_samples=16)
    assert (outcome.samples_seen, outcome.mini_epochs, outcome.stopped) == (16, 2, "16 samples were the limit")
    lines = log_lines(tmp_path)
    assert [line["train"]["samples"] for line in lines] == [12, 4]
    assert all(line["val"] for line in lines)
    assert train(tmp_path, max_samples=16).summary().startswith("ended after 16 samples")
    train(tmp_path)
    last = names(tmp_path)[-1]
    assert weights(tmp_path, last) == weights(whole, WHOLE[-1])


def test_epochs_end_a_run_that_may_have_more_samples(tmp_path):
    outcome = train(tmp_path, max_samples=1000)
    assert (outcome.samples_seen, outcome.stopped) == (52, None)


def test_a_limit_of_time_ends_the_run_saved_and_validated_and_counts_all_starts(tmp_path, whole, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("hexshards.training.tracking.stopwatch.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    slow = SmallLoader()
    slow.on_batch = lambda number: now_s.append(now_s.pop() + 100)
    outcome = train(tmp_path, train_loader=slow, max_time_s=350)
    assert outcome.stopped == "the time is used up"
    assert 0 < outcome.samples_seen < 52
    assert outcome.metrics["samples_seen"] == outcome.samples_seen
    assert outcome.metrics["val"]
    assert outcome.checkpoint
    used_s = checkpoint_file.read(outcome.checkpoint)["standing"]["used_s"]
    assert used_s == 400
    assert train(tmp_path, max_time_s=used_s / 2).mini_epochs == 0
    train(tmp_path)
    assert weights(tmp_path, names(tmp_path)[-1]) == weights(whole, WHOLE[-1])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("11h30m", 41_400), ("2d", 172_800)])
def test_times_are_written_as_people_do(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "h", "1h 2m", "-1h", "1h2"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="a time is written like"):
        duration_s(text)


# --- early stopping ---


class Scripted:
    """Learns nothing; its validation losses follow a script."""

    def __init__(self, *losses: float) -> None:
        self.losses = iter(losses)

    def train_on_batches(self, batches: Any) -> dict[str, Any]:
        list(batches)
        return {}

    def validate(self, batches: Any) -> dict[str, float]:
        loss = next(self.losses)
        return {"loss": loss, "value_accuracy": -loss}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


def minis(run: Path) -> int:
    return len(log_lines(run))


@pytest.mark.parametrize("patience", [None, 1])
def test_a_metric_that_no_record_has_is_an_error_whether_anything_waits_for_it_or_not(patience, tmp_path):
    with pytest.raises(ValueError, match=r"the metric val\.los is not in a mini-epoch's record"):
        train(tmp_path, early=EarlyStopping(patience=patience, metric="val.los"))


@pytest.mark.parametrize(
    ("early", "expected", "best"),
    [
        (EarlyStopping(patience=2), 5, 3),
        (EarlyStopping(patience=1), 2, 1),
        (EarlyStopping(patience=2, min_improvement=1.5), 3, 1),
        (EarlyStopping(patience=2, metric="val.value_accuracy"), 5, 3),
        (EarlyStopping(), 6, 6),
    ],
)
def test_a_run_ends_when_it_no_longer_gets_better(tmp_path, early, expected, best):
    outcome = train(tmp_path, trainer=Scripted(5.0, 6.0, 4.0, 9.0, 9.0, 1.0), early=early)
    assert minis(tmp_path) == expected
    assert checkpoint_file.read(tmp_path / "best.pt")["metrics"]["checkpoint"] == WHOLE[best - 1]
    assert (outcome.stopped is None) is (early.patience is None)


def test_early_stopping_is_restored_wherever_the_run_is_stopped(tmp_path):
    early = EarlyStopping(patience=1, metric="train.samples")
    # 12, 12, 2 samples: the second is no better
    assert train(tmp_path / "whole", early=early).stopped
    for at in range(1, 7):
        run = tmp_path / str(at)
        stopped_at(at, run, early=early)
        train(run, early=early)
        assert_same_run(run, tmp_path / "whole")
    assert minis(tmp_path / "whole") == 2


def test_more_patience_lets_an_ended_run_go_on(tmp_path):
    early = {"metric": "train.samples"}
    train(tmp_path, early=EarlyStopping(**early, patience=1))
    again = train(tmp_path, early=EarlyStopping(**early, patience=1))
    assert again.mini_epochs == 0
    assert again.stopped == f"train.samples has not improved for 1 mini-epoch; the best: 12.0000 in {WHOLE[0]}"
    assert train(tmp_path, early=EarlyStopping(**early, patience=9)).epochs == 2


def test_a_metric_that_is_never_there_is_the_callers_error_and_says_which_are(tmp_path):
    with pytest.raises(ValueError, match=r"the metric val\.elo is not in .* Did you mean val\.loss"):
        train(tmp_path, early=EarlyStopping(metric="val.elo", patience=1))


def test_a_value_that_is_not_finite_is_never_the_best():
    early, standing = EarlyStopping(), Standing()
    for loss in (float("nan"), 2.0, float("nan"), float("-inf"), 1.0):
        standing = standing.after({"val": {"loss": loss}, "checkpoint": str(loss)}, early, before={})
    assert standing == Standing(1.0, "1.0", 0)


def test_the_best_weights_are_restored_when_asked(tmp_path):
    trainer = seeded(Trainer)
    early = EarlyStopping(metric="train.samples", patience=1, restore_best=True)
    train(tmp_path, trainer=trainer, early=early)
    assert plain(trainer.model.state_dict()) == weights(tmp_path, WHOLE[0]) != weights(tmp_path, WHOLE[1])


def test_best_pt_is_made_again_when_a_kill_came_before_it(tmp_path):
    train(tmp_path, num_epochs=1)
    before = (tmp_path / "best.pt").read_bytes()
    (tmp_path / "best.pt").unlink()
    train(tmp_path, num_epochs=1)
    assert (tmp_path / "best.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (EarlyStopping, {"patience": 0}),
        (EarlyStopping, {"min_improvement": -1.0}),
        (EarlyStopping, {"min_improvement": float("nan")}),
        (Retention, {"last": 0}),
        (Retention, {"last": 1, "every": 0}),
    ],
)
def test_what_makes_no_sense_is_the_callers_error(kind, wrong):
    with pytest.raises(ValueError, match="must"):
        kind(**wrong)


# --- what is kept ---


def test_a_runs_folder_holds_what_the_docs_say_and_nothing_else(tmp_path):
    # 12, 12, 2 samples an epoch: those after the third mini-epoch are no better
    train(tmp_path, early=EarlyStopping(metric="train.samples"))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "best.pt", "checkpoints", "metrics.jsonl"}
    assert (tmp_path / "best.pt").samefile(tmp_path / "checkpoints" / WHOLE[2])


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), WHOLE),
        (Retention(last=1), WHOLE[-1:]),
        (Retention(last=2), WHOLE[-2:]),
        (Retention(last=1, every=2), [WHOLE[1], WHOLE[3], WHOLE[5]]),
    ],
)
def test_old_checkpoints_go_and_the_log_and_the_best_stay(tmp_path, whole, retention, kept):
    train(tmp_path, retention=retention)
    assert names(tmp_path) == kept
    assert log_lines(tmp_path) == log_lines(whole)
    best = checkpoint_file.read(tmp_path / "best.pt")
    assert plain(best) == plain(checkpoint_file.read(whole / "best.pt"))


def test_a_run_that_keeps_one_checkpoint_goes_on_from_any_batch(tmp_path):
    train(tmp_path / "whole", retention=Retention(last=1))
    for at in range(1, 15):
        stopped_at(at, tmp_path / "run", retention=Retention(last=1))
    train(tmp_path / "run", retention=Retention(last=1))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_checkpoint_that_does_not_fit_on_the_disk_harms_none_before_it(tmp_path, whole):
    train(tmp_path, num_epochs=1)
    size = (tmp_path / "checkpoints" / WHOLE[0]).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == WHOLE[:3]
    train(tmp_path)
    assert_same_run(tmp_path, whole)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here, so this is NOT CHECKED: a disk that is full")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_run_before_it_writes_and_room_lets_it_go_on(small_disk, whole):
    run = small_disk / "run"
    train(run, num_epochs=1)
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    ballast.write_bytes(bytes(free - 8_192))
    with pytest.raises(OSError, match=r"a checkpoint needs .* are free; those before it are whole"):
        train(run)
    assert names(run) == WHOLE[:3]
    ballast.unlink()
    train(run)
    assert_same_run(run, whole)


def test_a_folder_is_used_by_one_run_at_a_time(tmp_path):
    with RunFolder(tmp_path).held(), pytest.raises(FileExistsError, match="another process trains in this folder"):
        train(tmp_path)
    train(tmp_path, num_epochs=1)


# --- when to save and validate ---


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 here")
@pytest.mark.parametrize("at", [1, 4, 14])
def test_sigusr1_saves_at_the_next_batch_and_the_run_goes_on(tmp_path, whole, at):
    small, saved = SmallLoader(), list[Saved]()
    small.on_batch = lambda number: os.kill(os.getpid(), signal.SIGUSR1) if number == at else None

    def keep(event: Event) -> None:
        if isinstance(event, Saved) and not event.record:
            saved.append(event)
            shutil.copytree(tmp_path / "run", tmp_path / "copy")

    assert not train(tmp_path / "run", train_loader=small, hooks=[keep]).interrupted
    assert_same_run(tmp_path / "run", whole)
    assert len(saved) == (at < 14)  # after the last batch there is nothing to add to its mini-epoch's checkpoint
    if saved:
        assert saved[0].checkpoint.stem.endswith("_partial")
        train(tmp_path / "copy")
        assert_same_run(tmp_path / "copy", whole)


def test_every_second_mini_epoch_is_validated_and_an_epochs_last(tmp_path, whole):
    train(tmp_path, val_every=2)
    lines = log_lines(tmp_path)
    assert [bool(line["val"]) for line in lines] == [False, True, True] * 2
    assert lines[1] == log_lines(whole)[1]
    assert weights(tmp_path, WHOLE[-1]) == weights(whole, WHOLE[-1])


@pytest.mark.parametrize("sizes", [{"mini_epoch_samples": 18}, {"mini_epoch_batches": 5}])
def test_a_mini_epoch_may_cross_the_end_of_an_epoch_and_be_stopped_anywhere(tmp_path, whole, sizes):
    options = {"cross_epochs": True, **sizes}
    train(tmp_path / "whole", **options)
    lines = log_lines(tmp_path / "whole")
    assert [line["train"]["batches"] for line in lines] == [5, 5, 4]
    assert [(line["epoch"], line["mini_epoch"]) for line in lines] == [(1, 1), (2, 2), (2, 3)]
    assert weights(tmp_path / "whole", names(tmp_path / "whole")[-1]) == weights(whole, WHOLE[-1])
    for at in range(1, 15):
        stopped_at(at, tmp_path / "run", **options)
    train(tmp_path / "run", **options)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


# --- a loss that is no number ---


class Breaking(Trainer):
    """Says that a loss is not finite as the third batch is asked for: that of the first."""

    def train_on_batches(self, batches):
        for number, batch in enumerate(batches):
            if number == 2:
                raise NonFiniteLoss(float("nan"), batches_ago=2)
            self._step(batch)
        return {}


def test_the_batch_of_a_loss_that_is_not_finite_is_written_down_and_shown(tmp_path):
    data = dataset(tmp_path)
    train_loader = loader(data, batch_size=50, seed=3)
    expected = next(iter(loader(data, batch_size=50, seed=3)))
    trainer = Breaking(TwoHeadedResNet(channels=2, blocks=1))
    with pytest.raises(DataError, match=r"the training loss is nan in epoch 1, mini-epoch 1; .*hexshards show") as told:
        MiniEpochOrchestrator(trainer, train_loader, None, run=tmp_path / "run").run()
    suspect = tmp_path / "run" / "suspect"
    assert f"hexshards show {suspect} -n 50" in str(told.value)
    shown = CliRunner().invoke(app, ["show", str(suspect), "-n", "50"])
    assert shown.exit_code == 0
    assert shown.stdout.count("to move, value") == 50
    written = next(iter(loader(suspect, batch_size=50, shuffle=False, augment="none")))
    ours, theirs = rows_of(written), rows_of(expected)
    # those that were shown with their colours swapped are turned back
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert same == [bool(board[2, 0, 0] == board[0].sum() - board[1].sum()) for board in expected.board]
    lines = (suspect / "positions.txt").read_text().splitlines()
    assert len(lines) == 50
    for line, board in zip(lines, written.board, strict=True):
        text = line.removeprefix("#5,").split(" ")[0]
        cells = [(int(text[i + 1]) - 1, ord(text[i]) - ord("a")) for i in range(0, len(text), 2)]
        assert sorted(cells[::2]) == [tuple(cell) for cell in board[0].nonzero().tolist()]
        assert sorted(cells[1::2]) == [tuple(cell) for cell in board[1].nonzero().tolist()]


def test_the_trail_leads_back_to_any_of_the_newest_batches():
    small, recent, seen = SmallLoader(samples=300), RecentBatches(), []
    for epoch in range(2):
        stream, anew = iter(small), True
        while epoch == 0 or len(seen) < 110:
            recent.before_batch(small, anew=anew)
            batch, anew = next(stream, None), False
            if batch is None:
                break
            recent.after_batch()
            seen.append(rows_of(batch))
    for ago in range(110):
        assert rows_of(recent.batch(ago)) == seen[-1 - ago]
    assert recent.batch(110) is None


def test_a_trainer_that_does_not_look_is_stopped_before_it_is_saved(tmp_path):
    class Blind(Trainer):
        def train_on_batches(self, batches):
            return {**super().train_on_batches(batches), "loss": float("inf")}

    with pytest.raises(DataError, match="the training loss is inf in epoch 1, mini-epoch 1; its batch is not known"):
        train(tmp_path, trainer=seeded(Blind))
    assert not (tmp_path / "checkpoints").exists()


# --- a dataset that grows ---


def spec(data: Path, run: Path, **changes: Any) -> TrainSpec:
    small = {"mini_epoch_samples": 400, "epochs": 3, "batch_size": 64, "channels": 2, "blocks": 1}
    return TrainSpec(data=data, run=run, device="cpu", **{**small, **changes})


@pytest.fixture(scope="module")
def growing(tmp_path_factory) -> tuple[Path, Path, list[Path]]:
    """A dataset, and the same one when files were added."""
    folder = tmp_path_factory.mktemp("growing")
    before = dataset(folder)
    after = shutil.copytree(before, folder / "after")
    more = processed(folder / "more", games=20, seed=9)
    convert(more, out=after, append=True)
    return before, after, more


def put(data: Path, state: Path) -> None:
    """Make a dataset what another one is, its index last."""
    for path in sorted(state.iterdir(), key=lambda path: path.name == "index.json"):
        shutil.copy(path, data)


def goes(
    tmp_path: Path, state: Path, *, at: tuple[int, int], change: Callable[[Path], object], **options: Any
) -> Callable[..., Outcome]:
    """Train by name, on a copy of a dataset that ``change`` changes after an epoch's mini-epoch; again, where it was.

    What is returned takes after how many mini-epochs of its own to stop.
    """

    def go(name: str, *, stop_at: int = 0) -> Outcome:
        data = tmp_path / f"data-{name}"
        if not data.exists():
            shutil.copytree(state, data)
        trained = 0

        def changing(event: Event) -> None:
            nonlocal trained
            if isinstance(event, MiniEpochTrained):
                trained += 1
                if (event.epoch, event.mini_epoch) == at:
                    change(data)
                if trained == stop_at:
                    event.stop("here")

        return runs.train(spec(data, tmp_path / name, **options), hooks=[changing])

    return go


def test_what_is_added_during_a_run_is_seen_from_the_next_epoch_on_wherever_the_run_is_stopped(growing, tmp_path):
    before, after, _ = growing
    sizes = [read_index(data).splits["train"].positions for data in (before, after)]

    go = goes(tmp_path, before, at=(1, 2), change=lambda data: put(data, after))

    outcome = go("whole")
    assert outcome.samples_seen == sizes[0] + 2 * sizes[1]
    assert outcome.notices == (f"the dataset has grown: epoch 2 has {sizes[1] - sizes[0]:,} samples more",)
    assert len({line["val"]["samples"] for line in log_lines(tmp_path / "whole")}) == 1
    # in the middle of the epoch in which the dataset grows, at its end, and in the next
    for at in (2, 3, 4):
        assert go(f"run{at}", stop_at=at).stopped == "here"
        told = [f"epoch 1 goes on with the {sizes[0]:,} samples" in each for each in go(f"run{at}").notices]
        assert sum(told) == (at == 2)
        assert log_lines(tmp_path / f"run{at}") == log_lines(tmp_path / "whole")
        last = names(tmp_path / "whole")[-1]
        assert weights(tmp_path / f"run{at}", last) == weights(tmp_path / "whole", last)


def test_a_run_that_grows_at_mini_epochs_ends_an_epoch_where_files_were_added_wherever_it_is_stopped(growing, tmp_path):
    before, after, _ = growing
    larger = read_index(after).splits["train"].positions

    go = goes(
        tmp_path, before, at=(1, 1), change=lambda data: put(data, after), epochs=2, grow="mini-epoch", diagnose=0
    )

    outcome = go("whole")
    lines = log_lines(tmp_path / "whole")
    assert outcome.samples_seen == lines[0]["samples_seen"] + larger
    assert [line["epoch"] for line in lines[:3]] == [1, 2, 2]
    assert [line["dataset"] for line in lines[:2]] == [read_index(data).fingerprint for data in (before, after)]
    assert go("run", stop_at=1).stopped == "here"
    go("run")
    assert log_lines(tmp_path / "run") == lines
    last = names(tmp_path / "whole")[-1]
    assert weights(tmp_path / "run", last) == weights(tmp_path / "whole", last)


def test_a_run_of_streams_goes_on_whatever_size_a_dataset_grows_to_where_it_drops_the_last_batch(growing, tmp_path):
    before, after, _ = growing
    sizes = [read_index(data).splits["train"].positions for data in (before, after)]
    # an epoch's last batch has samples for all streams at first, and then for some
    fits = lambda size: sizes[0] % size >= 16 and 0 < sizes[1] % size < 16  # noqa: E731
    batch = next(filter(fits, range(16, 400, 16)))
    options = {"epochs": 2, "diagnose": 0, "streams": 16, "batch_size": batch}
    with pytest.raises(ValueError, match=r"last batch of an epoch would hold .* for 16 streams. Turn drop_last on"):
        goes(tmp_path, before, at=(1, 2), change=lambda data: put(data, after), **options)("refused")
    go = goes(tmp_path, before, at=(1, 2), change=lambda data: put(data, after), drop_last=True, **options)
    assert go("run").samples_seen == sum(size - size % batch for size in sizes)


def test_an_epoch_in_which_shards_are_merged_ends_on_the_old_ones_wherever_the_run_is_stopped(additions, tmp_path):
    go = goes(tmp_path, additions, at=(1, 2), change=lambda data: compact(data), epochs=2)

    merged, now = (
        "the dataset has other shards: epoch 2 has as many samples, in another order",
        "what the dataset is now is taken up after it",
    )
    positions = read_index(additions).splits["train"].positions
    assert go("whole").notices == (merged,)
    assert go("run", stop_at=2).stopped == "here"
    assert go("run").notices == (f"epoch 1 goes on with the {positions:,} samples that it began with; {now}", merged)
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "whole")
    last = names(tmp_path / "whole")[-1]
    assert weights(tmp_path / "run", last) == weights(tmp_path / "whole", last)


@pytest.fixture(scope="module")
def additions(growing, tmp_path_factory):
    """A dataset of which some small shards can be merged."""
    folder = tmp_path_factory.mktemp("additions")
    small = shutil.copytree(growing[0], folder / "small")
    for source in processed(folder / "more", games=12, seed=9, games_per_file=2):
        convert(source, out=small, append=True)
    return small


def goes_on_as_told(go: Callable[..., Outcome], name: str, told: str) -> Path:
    """Start a run that cannot go on; do what it says; the folder that the command names."""
    with pytest.raises(ShardsGone, match=told) as gone:
        go(name)
    command = re.search(r"hexshards (train [^;]*); `compact --keep 2` keeps", str(gone.value))
    arguments = shlex.split(command[1])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return Path(arguments[arguments.index("--run") + 1])


def test_a_run_whose_shards_are_gone_names_the_command_that_goes_on_from_the_end_of_an_epoch(additions, tmp_path):
    options = {"epochs": 2, "diagnose": 0}
    go = goes(tmp_path, additions, at=(2, 1), change=lambda data: compact(data, keep=0), **options)
    go("gone", stop_at=4)
    resumed = goes_on_as_told(
        go, "gone", r"this epoch began needs it: .* Go on from checkpoint_epoch0001_mini0003\.pt:"
    )
    # as if the shards had been merged where the epoch ended
    data = shutil.copytree(additions, tmp_path / "data")
    runs.train(spec(data, tmp_path / "whole", **{**options, "epochs": 1}))
    compact(data, keep=0)
    runs.train(spec(data, tmp_path / "whole", **options))
    whole = log_lines(tmp_path / "whole")
    assert log_lines(resumed) == whole[-len(log_lines(resumed)) :] and whole[-1]["epoch"] == 2
    assert weights(resumed, names(resumed)[-1]) == weights(tmp_path / "whole", names(tmp_path / "whole")[-1])


def test_in_the_middle_of_the_first_epoch_the_command_named_begins_with_the_weights(additions, tmp_path):
    go = goes(tmp_path, additions, at=(1, 2), change=lambda data: compact(data, keep=0), epochs=2, diagnose=0)
    go("gone", stop_at=2)
    begun = goes_on_as_told(go, "gone", r"this epoch began .* with the weights of checkpoint_epoch0001_mini0002\.pt: ")
    assert log_lines(begun)[-1]["epoch"] == 2


def test_a_run_that_grows_at_mini_epochs_goes_on_from_the_last_whole_one_where_the_dataset_is_larger(
    additions, growing, tmp_path, monkeypatch
):
    monkeypatch.setattr("hexshards.training.tracking.events.PROGRESS_INTERVAL_S", 0.0)  # after each batch
    data, options = shutil.copytree(additions, tmp_path / "data"), {"epochs": 2, "grow": "mini-epoch", "diagnose": 0}

    def leave(event: Event) -> None:
        if isinstance(event, Progressed) and event.progress.mini_epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert runs.train(spec(data, tmp_path / "run", **options), hooks=[leave]).interrupted
    convert(growing[2], out=data, append=True)
    compact(data, keep=0)
    go = lambda name: runs.train(spec(data, tmp_path / name, **options))  # noqa: E731
    resumed = goes_on_as_told(go, "run", r"this epoch began .* Go on from checkpoint_epoch0001_mini0002\.pt: ")
    assert {line["epoch"] for line in log_lines(resumed)[1:]} == {2}


def test_where_validation_is_gone_the_command_named_begins_another_run_whatever_epoch_ended(additions, tmp_path):
    merge = lambda data: compact(data, keep=0, held_out=True)  # noqa: E731
    go = goes(tmp_path, additions, at=(2, 1), change=merge, epochs=2, diagnose=0)
    told = r"the validation that the run began with .* with the weights of checkpoint_epoch0001_mini0003\.pt: "
    begun = goes_on_as_told(go, "gone", told)
    assert [line["epoch"] for line in log_lines(begun)[::3]] == [1, 2]


def test_a_checkpoint_of_a_dataset_that_grew_is_gone_on_with_in_another_folder_and_validated_as_before(
    growing, tmp_path
):
    before, after, more = growing
    data = shutil.copytree(before, tmp_path / "data")
    runs.train(spec(data, tmp_path / "run", epochs=1))
    put(data, after)
    runs.train(spec(data, tmp_path / "run", epochs=2))
    path = tmp_path / "run" / "checkpoints" / "checkpoint_epoch0001_mini0003.pt"
    other = spec(data, tmp_path / "other", epochs=2, resume=str(path))
    assert rehearse(other).over is None and not (tmp_path / "other").exists()
    runs.train(other)
    whole = log_lines(tmp_path / "run")
    assert log_lines(tmp_path / "other") == whole[-len(log_lines(tmp_path / "other")) :]
    strange = tmp_path / "strange"
    convert(more, out=strange, val_fraction=0.2, shard_positions=96, block_positions=16)
    with pytest.raises(Misused, match=r"was made on dataset [0-9a-f]{16}, not on [0-9a-f]{16}\. .* --init-from"):
        runs.train(spec(strange, tmp_path / "third", epochs=2, resume=str(path)))


def test_a_window_moves_to_what_was_added_at_the_next_epoch_and_a_stopped_run_goes_on_in_the_old_one(growing, tmp_path):
    before, after, _ = growing
    options = {"window": "300", "per_game": 9, "epochs": 2, "mini_epoch_samples": 64, "diagnose": 0}

    go = goes(tmp_path, before, at=(1, 1), change=lambda data: put(data, after), **options)

    sizes = [loader(data, window="300", per_game=9).samples for data in (before, after)]
    whole = go("whole")
    assert whole.samples_seen == sum(sizes)
    assert whole.notices[0].startswith("the window has moved: epoch 2 draws from 300 positions, ")
    go("stopped", stop_at=2)
    go("stopped")
    assert log_lines(tmp_path / "stopped") == log_lines(tmp_path / "whole")
    last = names(tmp_path / "whole")[-1]
    assert weights(tmp_path / "stopped", last) == weights(tmp_path / "whole", last)
    with pytest.raises(DataError, match="window was 300"):
        runs.train(spec(tmp_path / "data-whole", tmp_path / "whole", **{**options, "window": "200"}))


@pytest.mark.parametrize("grow", ["epoch", "mini-epoch"])
def test_a_run_waits_until_there_are_positions_for_its_samples_and_takes_them_up(grow, growing, tmp_path, monkeypatch):
    monkeypatch.setattr(train_bucket, "LOOKS_S", 0.02)
    monkeypatch.setattr(train_bucket, "HEARS_S", 0.01)
    before, after, _ = growing
    data = shutil.copytree(before, tmp_path / "data")
    sizes = [read_index(each).splits["train"].positions for each in (before, after)]
    seen = []

    def adding(event: Event) -> None:
        if isinstance(event, Waiting):
            seen.append((event.level.taken, event.level.positions))
            put(data, after)
            if event.level.positions == sizes[1]:
                compact(data, keep=2)  # which adds nothing
                if len(seen) > 6:
                    event.stop("no more is coming")

    options = {"grow": grow, "samples_per_position": 1.25, "mini_epoch_samples": 128, "diagnose": 0}
    outcome = runs.train(spec(data, tmp_path / "run", **options), hooks=[adding])
    most = [int(1.25 * size) for size in sizes]
    assert seen[0][1] == sizes[0] and most[0] - 128 < seen[0][0] <= most[0]
    assert {at for at in seen[1:] if at != seen[0]} == {(outcome.samples_seen, sizes[1])}
    assert most[1] - 128 < outcome.samples_seen <= most[1]
    lines = log_lines(tmp_path / "run")
    datasets = {line["epoch"]: line["dataset"] for line in lines}
    assert (datasets[1], datasets[2 if grow == "epoch" else 3]) == (
        read_index(before).fingerprint,
        read_index(before).fingerprint if grow == "epoch" else read_index(after).fingerprint,
    )
    # it goes on waiting where it is started again, for the same positions
    again = runs.train(
        spec(data, tmp_path / "run", **options),
        hooks=[lambda event: event.stop("enough") if isinstance(event, Waiting) else None],
    )
    assert (again.samples_seen, again.stopped) == (outcome.samples_seen, "enough")


def test_patience_that_ended_a_run_begins_anew_once_the_dataset_has_grown(growing, tmp_path):
    before, after, _ = growing
    data = shutil.copytree(before, tmp_path / "data")
    patient = spec(data, tmp_path / "run", epochs=50, patience=2, min_improvement=1e9, diagnose=0)
    assert "has not improved for 2 mini-epochs" in runs.train(patient).stopped
    ended = log_lines(tmp_path / "run")
    assert [line["epoch"] for line in ended] == [1, 1, 1], "in the middle of an epoch"
    assert runs.train(patient).samples_seen == ended[-1]["samples_seen"]
    assert log_lines(tmp_path / "run") == ended
    assert "has not improved" in rehearse(patient).over
    put(data, after)
    assert rehearse(patient).over is None
    assert "has not improved for 2 mini-epochs" in runs.train(patient).stopped
    lines = log_lines(tmp_path / "run")[len(ended) :]
    known, larger = (read_index(each).fingerprint for each in (before, after))
    # the epoch at work is gone on with, and two mini-epochs of the next one are waited for
    at = [line["dataset"] for line in lines].index(larger)
    assert {line["dataset"] for line in lines[:at]} <= {known}
    assert [line["dataset"] for line in lines[at:]] == [larger] * 2


def test_a_run_that_began_before_there_was_a_game_to_validate_on_validates_when_it_is_started_again(tmp_path):
    few, more = processed(tmp_path / "few", games=2), processed(tmp_path / "more", games=20, seed=9)
    data = tmp_path / "data"
    convert(few, out=data, **CUT)
    assert "val" not in read_index(data).splits
    says = "there is no validation split: training without validation until started again with one"
    assert runs.train(spec(data, tmp_path / "run", epochs=1)).notices == (says,)
    convert(more, out=data, append=True)
    assert says not in runs.train(spec(data, tmp_path / "run", epochs=2)).notices
    lines = log_lines(tmp_path / "run")
    assert (lines[0]["val"], lines[-1]["val"]["samples"]) == ({}, read_index(data).splits["val"].positions)


def test_a_dataset_that_was_replaced_by_another_is_refused(growing, tmp_path):
    before, _, more = growing
    data = shutil.copytree(before, tmp_path / "data")
    runs.train(spec(data, tmp_path / "run", epochs=1))
    shutil.rmtree(data)
    convert(more, out=data, val_fraction=0.2, shard_positions=96, block_positions=16)
    with pytest.raises(DataError, match="was made on dataset"):
        runs.train(spec(data, tmp_path / "run", epochs=2))


def test_a_dataset_made_anew_from_the_same_files_and_more_is_not_the_one_that_grew(growing, tmp_path):
    before, _, (more, *_) = growing
    data = shutil.copytree(before, tmp_path / "data")
    runs.train(spec(data, tmp_path / "run", epochs=1))
    shutil.rmtree(data)
    more = shutil.copy(more, tmp_path / f"z{more.name}")
    convert([before.parent / "processed", more], out=data, **CUT)
    assert read_index(data).inputs[: len(read_index(before).inputs)] == read_index(before).inputs
    with pytest.raises(DataError, match="was made on dataset"):
        runs.train(spec(data, tmp_path / "run", epochs=2))
