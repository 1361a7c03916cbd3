from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.plain_run import PlainLoader, PlainTrainer, checkpoints_of, stream_of

from hexshards.errors import DataError
from hexshards.options import as_recorded
from hexshards.training.checkpointing.checkpoint_file import FORMAT, check_fits
from hexshards.training.checkpointing.checkpoints import RunState
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import Standing
from hexshards.training.mini_epochs import Cursor
from hexshards.training.options import TrainSpec

AFTER_ONE = Cursor(epoch_batches=2, epoch_samples=8, mini_batches=2, mini_samples=8, samples_seen=8)


def fail(text):
    pytest.fail(text)


def record_of(checkpoints, cursor):
    return {
        "epoch": cursor.epoch,
        "mini_epoch": cursor.mini_epoch,
        "samples_seen": cursor.samples_seen,
        "checkpoint": checkpoints.path_of(cursor).name,
        "train": {"loss": 1.0},
        "val": {"loss": 2.0},
    }


def saved(run, *, finished=True, cursor=AFTER_ONE, seen=2, **more):
    """A run that saved after its first mini-epoch, or in it."""
    checkpoints, trainer, loader = checkpoints_of(run, **more), PlainTrainer(seen), PlainLoader(10)
    loader.done = cursor.epoch_batches
    record = record_of(checkpoints, cursor) if finished else {}
    state = RunState(cursor=cursor, record=record)
    if finished:
        state = replace(state, standing=Standing(2.0, checkpoints.path_of(cursor).name))
    path = checkpoints.save(state, trainer, stream_of(loader), finished=finished)
    if finished:
        checkpoints.retain(state)
    return path, state


def restored(run, *, trainer=None, loader=None, notice=fail, **more):
    checkpoints, trainer = checkpoints_of(run, **more), trainer or PlainTrainer()
    stream = stream_of(loader or PlainLoader(10))
    return checkpoints.restore(trainer, stream, notice=notice), trainer, stream, checkpoints


def test_a_run_begins_where_there_is_no_checkpoint(tmp_path):
    state, trainer, stream, checkpoints = restored(tmp_path)
    assert (state, trainer.seen, stream.cursor, checkpoints.resumed_from) == (RunState(), 0, Cursor(), None)


def test_a_finished_mini_epoch_is_gone_on_from_at_the_beginning_of_the_next(tmp_path):
    path, before = saved(tmp_path)
    state, trainer, stream, checkpoints = restored(tmp_path)
    assert state == replace(before, cursor=stream.plan.after_mini_epoch(AFTER_ONE, stream.loader))
    assert (trainer.seen, stream.loader.done, checkpoints.resumed_from) == (2, 2, path)
    assert stream.cursor == state.cursor


def test_an_unfinished_one_is_gone_on_from_where_it_was_left(tmp_path):
    cursor = Cursor().after_batch(4)
    path, before = saved(tmp_path, finished=False, cursor=cursor, seen=1)
    assert path.name == "checkpoint_epoch0001_mini0001_partial.pt"
    state, trainer, stream, _ = restored(tmp_path)
    assert (state, trainer.seen, stream.cursor) == (before, 1, cursor)


def test_a_mini_epoch_that_lacks_only_its_validation_keeps_its_training_metrics(tmp_path):
    checkpoints, loader = checkpoints_of(tmp_path), PlainLoader(10)
    before = RunState(cursor=AFTER_ONE, train={"loss": 0.5})
    checkpoints.save(before, PlainTrainer(2), stream_of(loader), finished=False)
    assert restored(tmp_path)[0] == before


def test_a_damaged_checkpoint_is_skipped_for_the_one_before_and_told(tmp_path):
    saved(tmp_path)
    second = replace(AFTER_ONE, mini_epoch=2, epoch_batches=3, epoch_samples=10, samples_seen=10)
    path, _ = saved(tmp_path, cursor=second, seen=3)
    path.write_bytes(path.read_bytes()[:-1])
    told = []
    _, trainer, _, checkpoints = restored(tmp_path, notice=told.append)
    assert trainer.seen == 2
    assert checkpoints.newest.name == "checkpoint_epoch0001_mini0001.pt"
    assert "skipped a damaged checkpoint" in told[0]


def test_log_and_best_stand_where_the_checkpoint_does(tmp_path):
    path, state = saved(tmp_path)
    assert (tmp_path / "best.pt").samefile(path)
    log = tmp_path / "metrics.jsonl"
    assert [json.loads(line) for line in log.read_text().splitlines()] == [state.record]
    # a kill between the checkpoint and the log
    log.unlink()
    restored(tmp_path)
    assert [json.loads(line) for line in log.read_text().splitlines()] == [state.record]


def test_only_so_many_are_kept(tmp_path):
    checkpoints = checkpoints_of(tmp_path, last=1)
    for mini in (1, 2, 3):
        cursor = replace(AFTER_ONE, mini_epoch=mini)
        state = RunState(cursor=cursor, record=record_of(checkpoints, cursor))
        checkpoints.save(state, PlainTrainer(mini), stream_of(PlainLoader(10)), finished=True)
        checkpoints.retain(state)
    assert [path.name for path in checkpoints.folder.checkpoints.iterdir()] == ["checkpoint_epoch0001_mini0003.pt"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loader": PlainLoader(10, fingerprint="other")}, "was made on dataset abc, not on other"),
        ({"seed": 2}, "was made with other options: seed was 1, is 2"),
        ({"seed": 1, "resume": "never"}, "already holds 1 checkpoint"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(tmp_path, changes, told):
    saved(tmp_path, seed=1)
    with pytest.raises(DataError, match=told):
        restored(tmp_path, **{"seed": 1, **changes})


def test_a_state_that_is_not_the_trainers_own_is_refused_with_its_file(tmp_path):
    path, _ = saved(tmp_path)

    class Other(PlainTrainer):
        def load_state_dict(self, state):
            raise KeyError("weights")

    with pytest.raises(DataError, match=r"does not fit this run \('weights'\)") as caught:
        restored(tmp_path, trainer=Other())
    assert str(path) in str(caught.value)


def test_the_best_weights_are_given_back(tmp_path):
    saved(tmp_path, seen=2)
    trainer = PlainTrainer(9)
    checkpoints_of(tmp_path).restore_best(trainer)
    assert trainer.seen == 2


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
    checkpoints = checkpoints_of(tmp_path)
    checkpoints._process_group = ProcessGroup(rank=1)
    state = RunState(cursor=AFTER_ONE, record=record_of(checkpoints, AFTER_ONE))
    path = checkpoints.save(state, PlainTrainer(2), stream_of(PlainLoader(10)), finished=True)
    checkpoints.retain(state)
    assert (path.name, list(tmp_path.iterdir())) == ("checkpoint_epoch0001_mini0001.pt", [])


def test_an_option_that_is_recorded_only_where_it_is_given_is_told_with_its_default():
    usual, given = (as_recorded(TrainSpec(data="d", run="r", streams=count)) for count in (1, 8))
    for saved_with, now, told in ((given, usual, "streams was 8, is 1"), (usual, given, "streams was 1, is 8")):
        state = {"format": FORMAT, "dataset": "abc", "options": saved_with}
        with pytest.raises(DataError, match=f"was made with other options: {told}"):
            check_fits(state, dataset="abc", options=now, where=Path("a.pt"))
        check_fits(state, dataset="abc", options=saved_with, where=Path("a.pt"))


def test_an_option_that_is_written_in_another_way_is_the_same_option():
    def check(saved, given):
        state = {"format": FORMAT, "dataset": "abc", "options": saved}
        check_fits(state, dataset="abc", options=given, where=Path("a.pt"))

    check({"window": "8k", "where": "ply=3..,tier=1"}, {"window": "8000", "where": "tier=1, ply=3.."})
    check({"window": "of another release"}, {"window": "of another release"})
    for other in ("9k", "8k by=generation", "of another release"):
        with pytest.raises(DataError, match=f"was made with other options: window was 8k, is {other}"):
            check({"window": "8k"}, {"window": other})
