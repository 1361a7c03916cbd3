"""A run is a folder: ``checkpoints/`` and ``metrics.jsonl``. Starting it again goes on where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from hexshards import workers
from hexshards.batches import Loader, loader
from hexshards.blend import mixed_in
from hexshards.hooks import Hook
from hexshards.networks import network
from hexshards.orchestrator import MiniEpochOrchestrator
from hexshards.reports import Outcome
from hexshards.specs import LOADER, TrainSpec, plain
from hexshards.trainer import Trainer


def train(spec: TrainSpec, *, hooks: Sequence[Hook] = ()) -> Outcome:
    """Train a TwoHeadedResNet as the spec says, in one process, from the folder's newest good checkpoint on.

    Raises DataError when the dataset has no training split or cannot be read, or when the folder holds the
    run of another dataset or of other options; WorkerDied when a process that reads was killed.
    """
    device = _device(spec.device)
    train_loader = _loader(spec, split="train", device=device)
    val_loader = _val_loader(spec, train_loader, device=device)
    orchestrator = MiniEpochOrchestrator(
        _trainer(spec, train_loader, device),
        train_loader,
        val_loader,
        run=spec.run,
        mini_epoch_samples=spec.mini_epoch_samples,
        num_epochs=spec.epochs,
        options=plain(spec),
        resume=spec.resume,
        hooks=hooks,
    )
    with workers.named():
        return orchestrator.run()


def _loader(spec: TrainSpec, *, split: str, device: str) -> Loader:
    training = split == "train"
    mix = mixed_in(str(spec.data), spec.mix) if training else {}
    return loader(
        mix if len(mix) > 1 else spec.data,
        split=split,
        # a validation batch needs no gradients, so it may be larger
        batch_size=spec.batch_size if training else max(spec.batch_size, LOADER.batch_size),
        shuffle=training,
        augment=spec.augment if training else "none",
        seed=spec.seed,
        num_workers=spec.num_workers,
        on_error=spec.on_error,
        # what one validates on stays the same, so that runs can be compared
        where=spec.where if training else "",
        positions=spec.positions if training else None,
        device=device,
        rank=0,
        world_size=1,
    )


def _val_loader(spec: TrainSpec, train_loader: Loader, *, device: str) -> Loader | None:
    return _loader(spec, split="val", device=device) if "val" in train_loader.index.splits else None


def _trainer(spec: TrainSpec, train_loader: Loader, device: str) -> Trainer:
    if not spec.schedule_samples:
        spec = replace(spec, schedule_samples=spec.epochs * train_loader.samples)
    return Trainer(network(spec, side=train_loader.index.side), spec, device=device)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
