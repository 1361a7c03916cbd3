"""Checkpoints of a run: find the one to go on from, check it, restore it, save the next, remove what may go.

Rank 0 alone writes; all ranks read the file that rank 0 found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hexshards.errors import DataError, printable
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.checkpointing.run_folder import RESUMES, RunFolder
from hexshards.training.distributed import ProcessGroup
from hexshards.training.early_stopping import Standing
from hexshards.training.mini_epochs import Cursor
from hexshards.training.protocols import Trainable
from hexshards.training.stream import BatchStream
from hexshards.training.tracking.stopwatch import Stopwatch
from hexshards.training.train_bucket import Bucket


@dataclass(frozen=True, slots=True)
class RunState:
    """State of a run between two batches: what a checkpoint keeps beside weights and random state."""

    cursor: Cursor = field(default_factory=Cursor)
    standing: Standing = field(default_factory=Standing)
    record: Mapping[str, Any] = field(default_factory=dict)
    """Of the last finished mini-epoch; empty before the first."""
    train: Mapping[str, Any] | None = None
    """Training metrics of a mini-epoch that only lacks its validation."""


class Checkpoints:
    """Checkpoints in the folder of a run: restore, save, retain."""

    def __init__(
        self,
        run: str | Path,
        retention: Retention,
        *,
        options: Mapping[str, Any],
        resume: str | Path,
        reader: checkpoint_file.Reader,
        watch: Stopwatch,
        process_group: ProcessGroup,
    ) -> None:
        self.folder, self.options = RunFolder(run, retention), options
        self.resume = resume if resume in RESUMES else Path(resume).absolute()
        self._reader, self._watch, self._process_group = reader, watch, process_group
        self.newest: Path | None = None
        self.resumed_from: Path | None = None

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self._process_group.rank == 0

    def locked(self) -> AbstractContextManager[None]:
        """The folder, for this process alone. Raises FileExistsError when it is in use."""
        return self.folder.held() if self.writes else nullcontext()

    def restore(self, trainer: Trainable, stream: BatchStream, *, notice: Callable[[str], None]) -> RunState:
        """Resume: put trainer, stream and random state where the run stands; without a checkpoint it begins."""
        self.newest = self.resumed_from = stream.bucket.counts_from = None
        if self.writes:
            self.folder.remove_leftovers()
        newest = self.folder.find(self.resume, self._reader, on_damage=notice) if self.writes else None
        state = RunState()
        if path := self._process_group.same(str(newest[0]) if newest else None):
            state = self._restored(
                Path(path), newest[1] if newest else checkpoint_file.read(Path(path)), trainer, stream
            )
        if self.writes:
            until = (state.cursor.epoch, state.cursor.mini_epoch)
            self.folder.go_on(until=until, last=state.record, best=state.standing.checkpoint)
        if state.record:  # the mini-epoch is whole
            state = replace(state, cursor=stream.plan.after_mini_epoch(state.cursor, stream.loader))
        stream.begin(state.cursor, resumed_from=self.resumed_from)
        return state

    def save(self, state: RunState, trainer: Trainable, stream: BatchStream, *, finished: bool) -> Path:
        """Save a checkpoint: of a finished mini-epoch, whose record the state has, or a partial one."""
        cursor = state.cursor
        path = self.path_of(cursor, partial=not finished)
        partial = {} if state.train is None else {"train": dict(state.train)}
        bucket = {"bucket": asdict(stream.bucket.counts_from)} if stream.bucket.counts_from else {}
        trainer_state = trainer.state_dict()  # in every process: it may have to ask the others
        parts = {
            "dataset": stream.loader.index.fingerprint,
            "options": self.options,
            "counters": asdict(cursor) | {"finished": finished} | bucket,
            "standing": asdict(state.standing) | {"used_s": self._watch.used_s()},
            "loader_state": stream.loader.state_dict(),
            "random_state": checkpoint_file.random_states(self._process_group),
            "metrics": dict(state.record) if finished else partial,
        }
        if self.writes:
            checkpoint_file.write(path, parts, trainer_state=trainer_state)
            checkpoint_file.read(path)  # older ones are given up for it
        self._process_group.any(False)  # nobody leaves while rank 0 writes: torchrun would end it with them
        self.newest = path
        return path

    def retain(self, state: RunState) -> None:
        """Log a mini-epoch's record, keep its checkpoint if it is the best, and remove those that may go."""
        if self.writes:
            self.folder.tidy(state.record, best=state.standing.checkpoint)

    def path_of(self, cursor: Cursor, *, partial: bool = False) -> Path:
        """Where the checkpoint of a mini-epoch is."""
        return self.folder.checkpoints / checkpoint_file.file_name(cursor.epoch, cursor.mini_epoch, partial=partial)

    def restore_best(self, trainer: Trainable) -> None:
        """Give the trainer the best weights."""
        trainer.load_state_dict(checkpoint_file.trainer_state(checkpoint_file.read(self.folder.best)))

    def _restored(self, path: Path, saved: dict[str, Any], trainer: Trainable, stream: BatchStream) -> RunState:
        stream.back_to(saved["dataset"], where=path)
        checkpoint_file.check_fits(saved, dataset=stream.loader.index.fingerprint, options=self.options, where=path)
        if self.resume != "auto" and self.writes:
            self.folder.check_newest(path, saved["counters"])
        counters, standing, metrics = saved["counters"], saved["standing"], saved["metrics"]
        try:
            trainer.load_state_dict(checkpoint_file.trainer_state(saved))
            stream.loader.load_state_dict(saved["loader_state"])
            checkpoint_file.set_random_states(saved["random_state"], self._process_group)
        except Exception as error:  # a trainer of anybody's own may raise anything for a state that is not its own
            problem = f"does not fit this run ({printable(error, width=300)})"
            fix = "Use the model and trainer that wrote it, or another run folder"
            raise DataError(problem, where=str(path), fix=fix) from error
        if stream.bucket.per_position is not None and counters.get("bucket"):
            stream.bucket.counts_from = Bucket(**counters["bucket"])
        self._watch.restart(before_s=standing["used_s"])
        self.resumed_from = self.newest = path
        return RunState(
            cursor=Cursor(**{name: counters[name] for name in Cursor.__slots__}),
            standing=Standing(**{name: standing[name] for name in Standing.__slots__}),
            record=metrics if counters["finished"] else {},
            train=None if counters["finished"] else metrics.get("train"),
        )
