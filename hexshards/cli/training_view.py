"""What a person sees of training: a moving view on a terminal, plain lines elsewhere. A hook, and texts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import TaskID

from hexshards.cli import display
from hexshards.dataset.index import FEW_GAMES
from hexshards.errors import escaped, printable
from hexshards.loading.loader import Loader
from hexshards.loading.options import LOADER
from hexshards.training.growing_data import Few, few_games
from hexshards.training.protocols import Describes, HasModel, OnDevice
from hexshards.training.steps.heads import HEADS, ROW_WEIGHTS, WEIGHTED, Head, recorded
from hexshards.training.tracking.hooks import (
    Event,
    MiniEpochBegun,
    Progressed,
    Run,
    RunEnded,
    RunStarted,
    Saved,
    Validating,
    Waiting,
)
from hexshards.training.tracking.records import TrainingProgress
from hexshards.training.train_bucket import Level
from hexshards.units import counted, show_bytes, show_duration

if TYPE_CHECKING:
    from hexshards.training.dry_run import Rehearsal
    from hexshards.training.overfit import Overfit

PLAIN_INTERVAL_S = 60.0
"""Where nothing moves, a line of progress comes so often, beside those of the mini-epochs."""

WORSE = 2.0
"""By how much the value loss of validation must have gone away further from training's to be warned of again."""


class TrainingView:
    """Shows a run while entered: on stderr what begins, moves and is unusual, on stdout a line per mini-epoch.

    begins: what is said of a run that starts. mini_epochs: whether each has its line.
    """

    def __init__(self, *, begins: Callable[[RunStarted], list[str]] | None = None, mini_epochs: bool = True) -> None:
        self._begins, self._mini_epochs = begins or start_lines, mini_epochs
        self._bars, self._tasks = display.bar(), dict[str, TaskID]()
        self._told_s, self._warned_gap = time.monotonic(), 0.0

    def __enter__(self) -> Self:
        self._shown = self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def __call__(self, event: Event, /) -> None:
        """Show what happened; rank 0 alone."""
        if event.run.rank:
            return
        match event:
            case RunStarted():
                for line in self._begins(event):
                    display.notice(line)
                self._warned_gap = 0.0
                self._begun_s, self._begun_samples = time.monotonic(), event.samples_seen
            case Progressed(progress=now) if not self._shown.disable:
                self._move(now, best_by=event.run.options.get("best_by"))
            case Progressed(progress=now) if time.monotonic() - self._told_s > PLAIN_INTERVAL_S:
                self._told_s = time.monotonic()
                display.notice(progress_line(now))
            case Waiting(level=level):
                self._waiting(level)
            case MiniEpochBegun():
                self._forget("waiting")
            case Validating(batches_done=done, batches=count):
                self._validating(done, count)
            case Saved(record=record):
                self._saved(record)
            case RunEnded():
                self._forget(*self._tasks)

    def _waiting(self, level: Level) -> None:
        wanted = level.positions + level.lacking
        if "waiting" not in self._tasks:
            self._came = level.positions
            display.notice(str(level))
        self._show("waiting", "waiting for positions", level.positions - self._came, wanted - self._came)

    def _validating(self, done: int, count: int | None) -> None:
        if done == count:
            # looking closer and saving are not counted
            self._forget("validating")
            self._show("saving", "looking closer, saving", 0, None)
        else:
            self._show("validating", "validating batches", done, count)

    def _saved(self, record: Mapping[str, Any]) -> None:
        self._forget("validating", "saving")
        if not record:
            return
        self._told_s = time.monotonic()
        if self._mini_epochs:
            display.progress(mini_epoch_line(record))
        self._warn(record.get("diagnosis", {}))

    def _warn(self, diagnosis: Mapping[str, Any]) -> None:
        """Say a warning that each record has from now on: once, and again where it has become clearly worse."""
        warning, gap = diagnosis.get("warning"), diagnosis.get("value_gap")
        gap = math.inf if gap is None else gap
        if warning and gap > WORSE * self._warned_gap:
            self._warned_gap = gap
            display.warn(f"warning: {escaped(warning)}; said again where the difference is {WORSE:.0f} times as large")

    def _move(self, now: TrainingProgress, *, best_by: object) -> None:
        per_s = (now.samples_seen - self._begun_samples) / max(time.monotonic() - self._begun_s, 1e-9)
        mini, epoch = f"mini-epoch {now.mini_epoch:,}", f"epoch {now.epoch:,} of {now.epochs:,}"
        self._samples("mini", mini, now.mini_epoch_done, now.mini_epoch_samples, now.samples_per_s)
        # validations and checkpoints take their share of what is left
        self._samples("epoch", epoch, now.epoch_done, now.epoch_samples, per_s)
        self._samples("run", "run", now.samples_seen, now.total_samples, per_s)
        # a trainer of one's own may be judged by what only it knows
        best = f"best {escaped(best_by) + ' ' if best_by else ''}{now.best:.4f}" if now.best is not None else ""
        parts = [f"{now.samples_per_s:,.0f} samples/s", f"waiting {now.waiting:.0%}", memory(), losses(now.train), best]
        self._shown.note = " · ".join(part for part in parts if part)

    def _samples(self, name: str, description: str, done: int, total: int, per_s: float) -> None:
        # the last batch of a mini-epoch may be more than it needs
        total = max(done, total)
        self._show(name, description, done, total, left_s=(total - done) / per_s if per_s else None)

    def _show(self, name: str, description: str, done: int, total: int | None, **fields: Any) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._shown.add_task(description, total=total, completed=done, **fields)
        self._shown.update(self._tasks[name], description=description, completed=done, total=total, **fields)

    def _forget(self, *names: str) -> None:
        for name in names:
            if name in self._tasks:
                self._shown.remove_task(self._tasks.pop(name))


def start_lines(event: RunStarted) -> list[str]:
    """What is about to be trained, on what, with what, and from where."""
    run = event.run
    return [
        " · ".join(_machine(run)),
        *([f"computes with {escaped(run.computes)}"] if run.computes else []),
        *_data(run),
        *few_lines(few_games(run.train_loader, run.val_loader), begun=event.resumed_from is not None),
        *([] if event.over else [_planned(event)]),
        *_origin(event),
    ]


def _planned(event: RunStarted) -> str:
    """What is to be trained; of a run that goes on, what is left: epochs of data that grew were of other sizes."""
    left, epoch = event.left, event.run.train_loader.samples
    counts = f"{counted(left.samples, 'sample')} in {counted(left.steps, 'step')} and "
    counts += counted(left.mini_epochs, "mini-epoch")
    if event.resumed_from is not None:
        return f"left: {counts}, {counted(epoch, 'sample')} an epoch"
    begun = -(-left.samples // max(1, epoch))  # a limit of samples may end it within one
    epochs = f"{counted(begun, 'epoch')} of {counted(epoch, 'sample')}"
    return f"{epochs if left.samples == begun * epoch else f'within {epochs}'}: {counts}"


def _machine(run: Run) -> list[str]:
    """Device, threads and processes, and the size of the network, as far as the trainer tells."""
    import torch

    device = run.trainer.device if isinstance(run.trainer, OnDevice) else None
    model = run.trainer.model if isinstance(run.trainer, HasModel) else None
    threads, size = torch.get_num_threads(), run.train_loader.world_size
    parts = [f"device {device}"] if device else []
    parts += [] if run.computes else [counted(threads, "thread")]  # which says how many, and why
    parts += [f"{size:,} processes"] if size > 1 else []
    if isinstance(model, torch.nn.Module):
        parts.append(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    return parts


def _data(run: Run) -> list[str]:
    """What is used of each dataset, as far as the loaders tell: others than ours may not."""
    counts = [
        f"{what} {counted(loader.positions, 'position')} in {counted(loader.shards, 'shard')}"
        for what, loader in (("training on", run.train_loader), ("validating on", run.val_loader))
        if isinstance(loader, Loader)
    ]
    described = run.train_loader.describe() if isinstance(run.train_loader, Describes) else []
    return [*([" · ".join(counts)] if counts else []), *described, *_weights(run.train_loader)]


def _weights(loader: object) -> list[str]:
    """By what positions count, where they do not all count alike."""
    spec = loader.spec if isinstance(loader, Loader) else LOADER
    by = [f"the column {name}" for name in ROW_WEIGHTS if name in spec.columns]
    by += [printable(spec.weights, width=300)] if spec.weights else []
    return (
        [f"positions count by {' and '.join(by)}; the losses of heads are those in which all count alike"] if by else []
    )


def few_lines(few: Few | None, *, begun: bool) -> list[str]:
    """That what validation says is off by chance, and what to do: a run keeps to the games of its start."""
    if few is None:
        return []
    says = f"validation has {counted(few.games, 'game')}, and says little of the value with fewer than {FEW_GAMES}"
    if not begun:
        wait = "or, while games are still added, wait until there are more: a run keeps to those of its start"
        return [f"{says}: convert with a larger --val-fraction, {wait}"]
    more = f", of which there are {few.now:,} now" if few.now > few.games else ""
    return [f"{says}: the run keeps to those of its start{more}; begin another to validate on more"]


def _origin(event: RunStarted) -> list[str]:
    weights = event.run.options.get("init_from")
    if event.resumed_from is None:
        return [f"weights from {escaped(weights)}, and nothing else: the optimizer begins anew"] if weights else []
    if event.over:
        return [over_line(event.over, event.resumed_from, event.samples_seen)]
    return [f"resumed from {escaped(event.resumed_from)} at sample {event.samples_seen:,}"]


def over_line(why: str, checkpoint: object, samples_seen: int) -> str:
    """A run that has ended and was given again, without more to do."""
    ended = f"the run ended with {escaped(checkpoint)} at sample {samples_seen:,}"
    return f"nothing left to train: {ended}, as {escaped(why)}; a higher limit goes on"


def trial_lines(event: RunStarted, names: Sequence[str]) -> list[str]:
    """A trial of a sweep, and what it tries of the options of these names."""
    from hexshards.cli.sweep_view import shown_option

    given = {"batch_size": event.run.options.get("global_batch_size"), **event.run.options}
    options = [f"{name} {shown_option(given.get(name))}" for name in names]
    return [" · ".join([f"trial {int(event.run.folder.name)} begins", *options]), *_origin(event)]


def progress_line(now: TrainingProgress) -> str:
    """How far a run is, in one line."""
    parts = [
        f"epoch {now.epoch} mini-epoch {now.mini_epoch}",
        f"{now.samples_seen:,} of {counted(now.total_samples, 'sample')}",
        f"{now.samples_per_s:,.0f} samples/s",
        f"waiting {now.waiting:.0%}",
        losses(now.train),
    ]
    return " · ".join(part for part in parts if part)


def losses(train: Mapping[str, Any]) -> str:
    """The loss of each head, as far as they are known, and what training minimizes where positions have weights."""
    parts = [f"{head.name} {train[head.loss_name]:.3f}" for head in recorded(train)]
    return " · ".join([*parts, *([f"weighted {train[WEIGHTED]:.3f}"] if WEIGHTED in train else [])])


def memory() -> str:
    """What the GPU holds for this process, where one is in use; else the process itself, on Linux."""
    import torch

    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        return f"GPU {show_bytes(torch.cuda.memory_reserved())}"
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return ""
    return f"memory {show_bytes(pages << 12)}"


def mini_epoch_line(record: Mapping[str, Any]) -> str:
    """One line for a finished mini-epoch, from its record."""
    parts = [f"epoch {record['epoch']} mini-epoch {record['mini_epoch']}", counted(record["samples_seen"], "sample")]
    for name in ("train", "val"):
        if text := losses(record[name]):
            parts.append(f"{name} {text.replace(' · ', ' ')}")
    val = record["val"]
    metrics = [metric for head in HEADS for metric in head.metrics if metric.name in val]
    if metrics:
        parts.append(" ".join(f"{metric.short} {metric.shown(val[metric.name])}" for metric in metrics))
    if record["samples_per_s"] is not None:  # where a start found only the validation left to do
        parts.append(f"{record['samples_per_s']:,.0f} samples/s, {record['waiting']:.0%} waiting")
    return " · ".join(parts)


def rehearsal_text(rehearsal: Rehearsal, *, run: Path) -> str:
    """What a run would take; of one that goes on, what is left of it would."""
    if rehearsal.over:
        return over_line(rehearsal.over, rehearsal.resumed_from, rehearsal.samples_seen)
    minis = counted(rehearsal.mini_epochs, "mini-epoch")
    left = "left: " if rehearsal.resumed_from else ""
    room = f"{show_bytes(rehearsal.free_bytes)} are free" + ("" if rehearsal.fits else ": NOT ENOUGH")
    at = f"at sample {rehearsal.samples_seen:,}, with {rehearsal.left:.0%} of its samples left"
    return "\n".join(
        [
            *([f"goes on from {escaped(rehearsal.resumed_from)} {at}"] if rehearsal.resumed_from else []),
            f"would train {counted(rehearsal.parameters, 'parameter')} on {counted(rehearsal.positions, 'position')}, "
            f"{counted(rehearsal.epoch_samples, 'sample')} an epoch",
            *rehearsal.chosen,
            f"{left}{counted(rehearsal.samples, 'sample')} in {counted(rehearsal.steps, 'step')} and {minis}, "
            f"{rehearsal.validations:,} of them validated on {counted(rehearsal.val_samples, 'position')}",
            *few_lines(rehearsal.few_games, begun=rehearsal.resumed_from is not None),
            *([rehearsal.budget] if rehearsal.budget else []),
            f"checkpoints in {escaped(run)}: {rehearsal.checkpoints:,} of "
            f"{show_bytes(rehearsal.checkpoint_bytes)}; {room}",
            f"computes with {rehearsal.computes}",
            f"measured {rehearsal.samples_per_s:,.0f} samples/s, {rehearsal.val_samples_per_s:,.0f} in validation"
            + (f", {rehearsal.diagnosis_s:.2g} s for a diagnosis" if rehearsal.diagnosis_s else "")
            + f"; time: about {show_duration(rehearsal.seconds)}",
        ]
    )


def overfit_line(reached: Overfit) -> str:
    """How well a batch is known after some steps."""
    parts = [f"step {reached.steps:>4}", f"loss {reached.val['loss']:.4f}"]
    return " · ".join([*parts, *(_known(head, reached.val) for head in recorded(reached.val))])


def _known(head: Head, val: Mapping[str, Any]) -> str:
    metric = head.metrics[0]
    return f"{head.name} {val[head.loss_name]:.4f}, {metric.short} {metric.shown(val[metric.name])}"
