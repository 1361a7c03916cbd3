"""hex_ai's trainer, or one like it, under MiniEpochOrchestrator: its three methods become the four of a Trainable.

Rows without a policy teach no move, metrics have hexshards' names, validation is of the loader that is asked for, and
all that its next step depends on is in the checkpoint, so that a run which goes on is, bit for bit, that which never
stopped. Its loader reads ``epoch`` and ``best_val_loss`` of a run's own checkpoint too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

from torch import Tensor

from hexshards.arguments import checked
from hexshards.errors import escaped
from hexshards.interop.hex_ai_checkpoint import RENAMED, HexAiCheckpoints, name_of, renamed
from hexshards.training.checkpointing.plain_values import plain_names
from hexshards.training.checkpointing.state_fit import MOMENTS, check_like, check_optimizer
from hexshards.training.tracking.hooks import Event, MiniEpochBegun, Saved, Validating

OWN_NAMES = {theirs: ours for ours, theirs in RENAMED.items()}
"""Metrics by hex_ai's names, and hexshards'."""


class TheirTrainer(Protocol):
    """What is driven; beside, it has ``model`` and ``optimizer``.

    And it may have ``scheduler``, ``mixed_precision.scaler``, ``criterion``, ``best_val_loss``, ``current_epoch`` and
    ``device``.
    """

    def train_on_batches(
        self, batch_iterable: Any, *, epoch: int, mini_epoch: int, val_metrics: Mapping[str, float] | None
    ) -> Mapping[str, Any]:
        """Train on batches ``(boards, policies, values)``; epoch and mini-epoch count from 0. Metrics."""

    def validate(self) -> Mapping[str, Any]:
        """Metrics over the batches of ``self.val_loader``."""

    def save_checkpoint(self, path: Path, train_metrics: Any, val_metrics: Any, *, compress: bool) -> None:
        """Write a checkpoint."""


class HexAiTrainer:
    """hex_ai's ``Trainer`` for MiniEpochOrchestrator: ``MiniEpochOrchestrator(HexAiTrainer(trainer), ...)``.

    Each finished mini-epoch is also saved by the trainer itself, as ``epoch3_mini4.pt.gz`` in the run's folder; with a
    limit on the checkpoints that are kept, those go whose own are gone. Its ``criterion`` is given rows with a policy
    and rows without apart; a trainer without one must pass over rows whose policy is all zeros by itself.
    """

    @checked
    def __init__(self, trainer: TheirTrainer) -> None:
        self.trainer = cast(Any, trainer)
        criterion = getattr(self.trainer, "criterion", None)
        if criterion is not None and not isinstance(criterion, _OfKnownPolicies):
            self.trainer.criterion = _OfKnownPolicies(criterion)
        self._checkpoints = HexAiCheckpoints(write=self._save)
        self._epoch = self._mini_epoch = self._batches = 0
        self._val_batches: int | None = None
        self._val_metrics: dict[str, Any] | None = None

    @property
    def model(self) -> Any:
        """The network that is trained."""
        return self.trainer.model

    @property
    def device(self) -> object:
        """Where."""
        return getattr(self.trainer, "device", "cpu")

    def on_event(self, event: Event, /) -> None:
        """Know where the run stands, and save what was saved."""
        match event:
            case MiniEpochBegun():
                # their books number from 1 what they are given from 0
                self._mini_epoch, self._batches = event.mini_epoch - 1, event.batches
                self._begin(event.epoch)
            case Validating():
                self._val_batches = event.batches
        self._checkpoints(event)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch - 1
        if hasattr(self.trainer, "current_epoch"):
            self.trainer.current_epoch = epoch

    def train_on_batches(self, batches: Iterable[Any]) -> dict[str, Any]:
        """Train on all of them; the metrics of the validation before are the trainer's to use."""
        metrics = self.trainer.train_on_batches(
            _Counted(batches, self._batches),
            epoch=self._epoch,
            mini_epoch=self._mini_epoch,
            val_metrics=self._val_metrics,
        )
        self._val_metrics = None
        return _named(metrics, "train_on_batches")

    def validate(self, batches: Iterable[Any]) -> dict[str, Any]:
        """Metrics over all batches."""
        with _lent(self.trainer, val_loader=_Counted(batches, self._val_batches)):
            metrics = _named(self.trainer.validate(), "validate")
        self._val_metrics = renamed(metrics)
        if "loss" in metrics and hasattr(self.trainer, "best_val_loss"):
            self.trainer.best_val_loss = min(float(self.trainer.best_val_loss), metrics["loss"])
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """All that the trainer's next step depends on, but for torch's random state."""
        states = {f"{name}_state_dict": part.state_dict() for name, part in self._parts().items()}
        theirs = {"epoch": self._epoch + 1, "best_val_loss": getattr(self.trainer, "best_val_loss", None)}
        return {**states, **theirs, "val_metrics": self._val_metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError for that of another trainer, before anything is changed."""
        parts = self._parts()
        check_like({"model": state.get("model_state_dict")}, {"model": parts["model"].state_dict()}, "the state")
        optimizer = parts["optimizer"]
        if type(optimizer) in MOMENTS and not any(group.get("amsgrad") for group in optimizer.param_groups):
            check_optimizer(state.get("optimizer_state_dict"), optimizer, "optimizer_state_dict")
        wanted = {*(f"{name}_state_dict" for name in parts), "epoch", "best_val_loss", "val_metrics"}
        if lacking := sorted(wanted - state.keys()):
            raise ValueError(f"the state lacks {escaped(', '.join(lacking))}")
        for name, part in parts.items():
            part.load_state_dict(state[f"{name}_state_dict"])
        # where only the validation is left to do, no mini-epoch begins
        self._begin(state["epoch"])
        if state["best_val_loss"] is not None:
            self.trainer.best_val_loss = state["best_val_loss"]
        self._val_metrics = state["val_metrics"]

    def _parts(self) -> dict[str, Any]:
        """What keeps state, by name."""
        scaler = getattr(getattr(self.trainer, "mixed_precision", None), "scaler", None)
        optional = {"scheduler": getattr(self.trainer, "scheduler", None), "scaler": scaler}
        present = {name: part for name, part in optional.items() if part is not None}
        return {"model": self.trainer.model, "optimizer": self.trainer.optimizer, **present}

    def _save(self, event: Saved, folder: Path) -> str:
        """Let the trainer write its checkpoint, which takes its name when it is whole."""
        record = event.record
        name = name_of(record["epoch"], record["mini_epoch"])
        train, val = (renamed(record[part]) for part in ("train", "val"))
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".hex_ai-") as partial:
            self.trainer.save_checkpoint(Path(partial) / name, train, val, compress=True)
            os.replace(Path(partial) / name, folder / name)
        return name


def _named(metrics: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Metrics as plain numbers by hexshards' names."""
    plain = plain_names(metrics, what=f"what {method}() returned")
    return {OWN_NAMES.get(name, name): value for name, value in plain.items()}


@contextmanager
def _lent(trainer: Any, *, val_loader: object) -> Iterator[None]:
    before = getattr(trainer, "val_loader", None)
    trainer.val_loader = val_loader
    try:
        yield
    finally:
        trainer.val_loader = before


class _Counted:
    """Batches that say how many they are planned to be: hex_ai asks for the last one by number."""

    def __init__(self, batches: Iterable[Any], count: int | None) -> None:
        self._batches, self._count = batches, count

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError("the loader does not know how many batches it has")
        return self._count

    def __bool__(self) -> bool:
        return True


class _OfKnownPolicies:
    """A loss whose policy part is of the rows that have a policy, and whose rest is of all.

    The loss itself takes rows whose policy is all zeros for ones whose move is a1. It knows what a batch without any
    policy is, and so is asked three times: ``loss(known, policies) - loss(known, none) + loss(all, none)``.
    """

    def __init__(self, criterion: Any) -> None:
        self._criterion = criterion

    def __getattr__(self, name: str) -> Any:
        if name == "_criterion":  # not made yet, as when it is copied
            raise AttributeError(escaped(name))
        return getattr(self._criterion, name)

    def __call__(self, policy: Tensor, value: Tensor, policies: Tensor, values: Tensor, *more: Any) -> tuple[Any, Any]:
        """The weighted sum of the losses, and each by its name."""
        known_B = policies.sum(dim=1) > 0
        if bool(known_B.all()):
            return self._of(policy, value, policies, values, *more)
        whole, losses = self._of(policy, value, None, values, *more)
        if not bool(known_B.any()):
            return whole, losses
        known = [part[known_B] if isinstance(part, Tensor) else part for part in (policy, value, values, *more)]
        with_policy, of_known = self._of(known[0], known[1], policies[known_B], *known[2:])
        without, _ = self._of(known[0], known[1], None, *known[2:])
        total = with_policy - without + whole
        return total, {**losses, "policy_loss": of_known["policy_loss"], "total_loss": float(total.detach())}

    def _of(self, *given: Any) -> tuple[Any, Any]:
        losses: tuple[Any, Any] = self._criterion(*given)
        return losses
