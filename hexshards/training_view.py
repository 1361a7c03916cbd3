"""What a person sees of training: a moving view on a terminal, a line per mini-epoch, warnings. A hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from hexshards import display
from hexshards.hooks import Event, Noticed, Progressed, RunStarted, Saved
from hexshards.reports import Progress


class TrainingView:
    """Shows a run while entered: on stderr what moves and what is unusual, on stdout a line per mini-epoch."""

    def __init__(self) -> None:
        self._bars = display.bar("")

    def __enter__(self) -> Self:
        self._shown = self._bars.__enter__()
        self._mini = self._shown.add_task("mini-epoch", total=None, note="")
        self._run = self._shown.add_task("run", total=None, note="samples")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def __call__(self, event: Event, /) -> None:
        """Show what happened."""
        match event:
            case RunStarted(run=run):
                # other loaders than ours need not have one
                describe: Callable[[], list[str]] | None = getattr(run.train_loader, "describe", None)
                for line in describe() if describe else []:
                    display.warn(line)
            case Progressed(progress=now):
                self._move(now)
            case Saved(record=record) if record:
                display.say(mini_epoch_line(record))
                if warning := record.get("diagnosis", {}).get("warning"):
                    display.warn(f"warning: {warning}")
            case Noticed(text=text):
                display.warn(text)

    def _move(self, now: Progress) -> None:
        self._shown.update(
            self._mini,
            description=f"epoch {now.epoch} mini-epoch {now.mini_epoch}",
            completed=now.mini_epoch_done,
            total=now.mini_epoch_samples,
            note=f"{now.samples_per_s:,.0f} samples/s" + _losses(now.train),
        )
        self._shown.update(self._run, completed=now.samples_seen, total=now.total_samples)


def _losses(train: Mapping[str, Any]) -> str:
    named = {"policy": "policy_loss", "value": "value_loss"}
    return "".join(f" · {name} {train[key]:.3f}" for name, key in named.items() if key in train)


def mini_epoch_line(record: Mapping[str, Any]) -> str:
    """One line for a finished mini-epoch, from its record."""
    parts = [f"epoch {record['epoch']} mini-epoch {record['mini_epoch']}", f"{record['samples_seen']:,} samples"]
    for name in ("train", "val"):
        if "policy_loss" in record[name]:
            parts.append(f"{name} policy {record[name]['policy_loss']:.3f} value {record[name]['value_loss']:.3f}")
    val = record["val"]
    if "policy_top1" in val:
        parts.append(f"top-1 {val['policy_top1']:.1%} top-5 {val['policy_top5']:.1%} value {val['value_accuracy']:.1%}")
    parts.append(f"{record['samples_per_s']:,.0f} samples/s")
    return " · ".join(parts)
