"""What a person sees of training: a moving view on a terminal, plain lines elsewhere. A hook, and texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import TaskID

from hexshards import display
from hexshards.budget import show_bytes
from hexshards.errors import escaped
from hexshards.hooks import Event, Noticed, Progressed, RunStarted, Saved
from hexshards.reports import Progress

if TYPE_CHECKING:
    from hexshards.overfitting import Overfit
    from hexshards.rehearsal import Rehearsal

PLAIN_INTERVAL_S = 60.0
"""Where nothing moves, a line of progress comes so often, beside those of the mini-epochs."""


class TrainingView:
    """Shows a run while entered: on stderr what moves and what is unusual, on stdout a line per mini-epoch."""

    def __init__(self) -> None:
        self._bars, self._tasks = display.bar(""), dict[str, TaskID]()
        self._told_s = time.monotonic()

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
            case RunStarted(run=run):
                # other loaders than ours need not have one
                describe: Callable[[], list[str]] | None = getattr(run.train_loader, "describe", None)
                for line in describe() if describe else []:
                    display.warn(line)
            case Progressed(progress=now) if not self._shown.disable:
                self._move(now)
            case Progressed(progress=now) if time.monotonic() - self._told_s > PLAIN_INTERVAL_S:
                self._told_s = time.monotonic()
                display.warn(progress_line(now))
            case Saved(record=record) if record:
                self._told_s = time.monotonic()
                display.say(mini_epoch_line(record))
                if warning := record.get("diagnosis", {}).get("warning"):
                    display.warn(f"warning: {escaped(warning)}")
            case Noticed(text=text):
                display.warn(escaped(text))

    def _move(self, now: Progress) -> None:
        self._show(
            "mini",
            f"mini-epoch {now.mini_epoch}",
            now.mini_epoch_done,
            now.mini_epoch_samples,
            f"{now.samples_per_s:,.0f} samples/s · waiting {now.waiting:.0%} · {memory()}",
        )
        epoch = f"epoch {now.epoch} of {now.epochs}"
        self._show("epoch", epoch, now.epoch_done, now.epoch_samples, losses(now.train))
        best = f"best {now.best:.4f}" if now.best is not None else ""
        self._show("run", "run", now.samples_seen, now.total_samples, best)

    def _show(self, name: str, description: str, done: int, total: int, note: str) -> None:
        if name not in self._tasks:
            # what earlier starts did tells nothing of the speed of this one
            self._tasks[name] = self._shown.add_task(description, total=total, completed=done, note=note)
        self._shown.update(self._tasks[name], description=description, completed=done, total=total, note=note)


def progress_line(now: Progress) -> str:
    """How far a run is, in one line."""
    parts = [
        f"epoch {now.epoch} mini-epoch {now.mini_epoch}",
        f"{now.samples_seen:,} of {now.total_samples:,} samples",
        f"{now.samples_per_s:,.0f} samples/s",
        f"waiting {now.waiting:.0%}",
        losses(now.train),
    ]
    return " · ".join(part for part in parts if part)


def losses(train: Mapping[str, Any]) -> str:
    """Both losses, as far as they are known."""
    named = {"policy": "policy_loss", "value": "value_loss"}
    return " · ".join(f"{name} {train[key]:.3f}" for name, key in named.items() if key in train)


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
    parts = [f"epoch {record['epoch']} mini-epoch {record['mini_epoch']}", f"{record['samples_seen']:,} samples"]
    for name in ("train", "val"):
        if "policy_loss" in record[name]:
            parts.append(f"{name} policy {record[name]['policy_loss']:.3f} value {record[name]['value_loss']:.3f}")
    val = record["val"]
    if "policy_top1" in val:
        parts.append(f"top-1 {val['policy_top1']:.1%} top-5 {val['policy_top5']:.1%} value {val['value_accuracy']:.1%}")
    parts.append(f"{record['samples_per_s']:,.0f} samples/s, {record['waiting']:.0%} waiting")
    return " · ".join(parts)


def rehearsal_text(found: Rehearsal, *, run: Path) -> str:
    """What a run would take."""
    minis = f"{found.mini_epochs:,} mini-epoch{'s' * (found.mini_epochs != 1)}"
    room = f"{show_bytes(found.free_bytes)} are free" + ("" if found.fits else ": NOT ENOUGH")
    return "\n".join(
        [
            f"would train {found.parameters:,} parameters on {found.positions:,} positions, {found.epoch_samples:,} "
            "samples an epoch",
            f"{found.samples:,} samples in {found.steps:,} steps and {minis}, {found.validations:,} of them validated "
            f"on {found.val_samples:,} positions",
            f"checkpoints in {escaped(run)}: {found.checkpoints:,} of {show_bytes(found.checkpoint_bytes)}; {room}",
            f"measured {found.samples_per_s:,.0f} samples/s, {found.val_samples_per_s:,.0f} in validation; time: about "
            + display.duration(found.seconds),
        ]
    )


def overfit_line(found: Overfit) -> str:
    """How well a batch is known after some steps."""
    val = found.val
    return (
        f"step {found.steps:>4} · loss {val['loss']:.4f} · policy {val['policy_loss']:.4f}, "
        f"top-1 {val['policy_top1']:.1%} · value {val['value_loss']:.4f}, right {val['value_accuracy']:.1%}"
    )
