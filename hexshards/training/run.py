"""Training run: a folder of ``checkpoints/`` and ``metrics.jsonl``. Starting it again resumes where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hexshards.arguments import checked
from hexshards.dataset.index import Index, read_index
from hexshards.errors import escaped, printable, without_secrets
from hexshards.game.columns import VISITS, known_optional
from hexshards.loading import workers
from hexshards.loading.batching import chosen_device
from hexshards.loading.expansion.policy_targets import search_shares
from hexshards.loading.loader import Loader, loader
from hexshards.loading.mixture import mixed_in
from hexshards.loading.options import LOADER
from hexshards.main_guard import check_main_guard
from hexshards.options import as_recorded
from hexshards.piecewise import named
from hexshards.rng import TRAINING, raw
from hexshards.storage.files import Home
from hexshards.storage.options import REMOTE
from hexshards.storage.remote import home_of, is_url
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.checkpoint_file import newest_first
from hexshards.training.checkpointing.retention import Retention
from hexshards.training.checkpointing.run_folder import RESUMES, RunFolder
from hexshards.training.computing import Computing, computing, settle
from hexshards.training.diagnostics import Diagnosis
from hexshards.training.distributed import ProcessGroup, joined
from hexshards.training.early_stopping import EarlyStopping
from hexshards.training.growing_data import (
    GrowingData,
    GrowingDataset,
    ShardsGone,
    has_grown,
    validated_on,
)
from hexshards.training.options import VALIDATION, TrainSpec
from hexshards.training.orchestrator import MiniEpochOrchestrator
from hexshards.training.run_config import RunConfig, repeated_by
from hexshards.training.settings import RunSettings
from hexshards.training.steps.heads import ROW_WEIGHTS, heads_of
from hexshards.training.steps.model_factory import network
from hexshards.training.steps.trainer import Trainer
from hexshards.training.tracking.hooks import Hook
from hexshards.training.tracking.records import Outcome
from hexshards.units import duration_s


@checked
def train(spec: TrainSpec, *, hooks: Sequence[Hook] = ()) -> Outcome:
    """Train as the spec says, resuming from the newest good checkpoint, with the processes that torchrun started.

    Raises DataError when the dataset has no training split or cannot be read, or when the folder holds the
    run of another dataset or of other options; WorkerDied when a process that reads was killed; ConnectionError
    when one that trains with this one was.
    """
    check_main_guard()
    RunFolder(spec.absolute(spec.run)).check_place()
    device = chosen_device(spec.device)
    with joined() as process_group, workers.named(), same_kernels():
        if process_group.size > 1 and device == "cuda":
            device = f"cuda:{process_group.local_rank}"
            torch.cuda.set_device(device)
        # what a network draws while it trains, such as dropout, is another thing in each process
        torch.manual_seed(int(raw(1, spec.seed, TRAINING, process_group.rank)[0]) >> 1)
        reader = checkpoint_file.Reader()
        how = settle(spec, process_group, reader, device=device)
        with computing(how.threads):
            orchestrator = _orchestrator(how, how.settled(spec), hooks, device, process_group, reader)
            try:
                return orchestrator.run()
            except ShardsGone as error:
                raise _with_a_way_on(error, spec, orchestrator.settings.growing_data) from error


def _with_a_way_on(error: ShardsGone, spec: TrainSpec, data: GrowingData | None) -> ShardsGone:
    """The error with a command that goes on: from the end of an epoch, or else with the newest weights alone."""
    folder, path = RunFolder(spec.absolute(spec.run)), None

    def goes_on(state: Mapping[str, Any]) -> bool:
        grows = spec.grow == "mini-epoch" and data is not None and has_grown(data, state["dataset"])
        return checkpoint_file.goes_on_without_shards(state) or grows

    if not error.held_out and (path := folder.newest_that(goes_on)):
        what, options = f"Go on from {path.name}", ["--resume", path]
    elif path := next(iter(newest_first(folder.checkpoints)), None):
        what, options = f"Begin another run with the weights of {path.name}", ["--init-from", path]
    else:
        what, options = "Begin another run", []
    fix = f"{what}: {repeated_by(folder.path, *options)}; `compact --keep 2` keeps such shards longer"
    return ShardsGone(error.problem, where=error.where, fix=fix)


@contextmanager
def same_kernels() -> Iterator[None]:
    """A GPU's convolutions add up in the same order every time; else a run that goes on ends with other bits.

    Without, two equal runs in float32 ended with other weights on an H200.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def _orchestrator(
    how: Computing,
    spec: TrainSpec,
    hooks: Sequence[Hook],
    device: str,
    process_group: ProcessGroup,
    reader: checkpoint_file.Reader,
) -> MiniEpochOrchestrator:
    run, data = spec.absolute(spec.run), _located(spec, spec.data)
    came_down = home_of(data, spec=replace(REMOTE, cache=_cache(spec)))
    growth = GrowingDataset(
        came_down, run, lambda home: _loader(spec, home, device=device, process_group=process_group)
    )
    train_loader = _loader(spec, data, device=device, process_group=process_group)
    trainer = _trainer(spec, train_loader, device, process_group)  # what is refused leaves no folder behind
    growth.put_aside(train_loader.index)
    val_loader = _val_loader(spec, growth, train_loader.index, device=device)
    diagnoses = [Diagnosis(trainer, val_loader, positions=spec.diagnose)] if val_loader and spec.diagnose else []
    return MiniEpochOrchestrator(
        trainer,
        train_loader,
        val_loader,
        run=run,
        mini_epoch_samples=None if spec.mini_epoch_batches else spec.mini_epoch_samples,
        num_epochs=spec.epochs,
        hooks=[RunConfig(spec, _mix(spec) if spec.mix else {}), *diagnoses, *hooks],
        settings=RunSettings(
            mini_epoch_batches=spec.mini_epoch_batches,
            cross_epochs=spec.cross_epochs,
            max_samples=spec.max_samples,
            max_time_s=duration_s(spec.max_time) if spec.max_time else None,
            samples_per_position=spec.samples_per_position,
            val_every=spec.val_every,
            early=early_stopping(spec),
            retention=Retention(last=spec.keep_last, every=spec.keep_every),
            computes=str(how),
            options={**_options(spec, process_group), "side": train_loader.index.side},
            resume=spec.resume if spec.resume in RESUMES else spec.absolute(spec.resume),
            process_group=process_group,
            growing_data=None if spec.mix else growth,
            grow=spec.grow,
            reader=reader,
        ),
    )


def early_stopping(spec: TrainSpec) -> EarlyStopping:
    """What a spec says of the best mini-epoch, and of waiting for a better one."""
    return EarlyStopping(metric=spec.best_by, patience=spec.patience, min_improvement=spec.min_improvement)


def _options(spec: TrainSpec, process_group: ProcessGroup) -> dict[str, int | float | str | bool]:
    """Recorded options of a checkpoint: the batch of all processes, so that their number may change."""
    recorded = {name: value for name, value in as_recorded(spec).items() if name != "batch_size"}
    return {**recorded, "global_batch_size": spec.batch_size * process_group.size}


class Parts(NamedTuple):
    """What a run is made of."""

    trainer: Trainer
    train_loader: Loader
    val_loader: Loader | None
    computing: Computing


def parts_of(spec: TrainSpec) -> Parts:
    """What a run is made of, as at its beginning, in this one process, which computes with its threads from then on."""
    RunFolder(spec.absolute(spec.run)).check_place()
    device, process_group = chosen_device(spec.device), ProcessGroup()
    how = settle(spec, process_group, checkpoint_file.Reader(), device=device)
    torch.set_num_threads(how.threads)
    spec = how.settled(spec)
    data = _located(spec, spec.data)
    train_loader = _loader(spec, data, device=device, process_group=process_group)
    has_val, home = "val" in train_loader.index.splits, train_loader.home
    held = validated_on(home, spec.absolute(spec.run)) if _begun(spec) else home
    val_loader = validating_loader(spec, held, train_loader.index, device=device) if has_val else None
    return Parts(_trainer(spec, train_loader, device, process_group), train_loader, val_loader, how)


def validating_loader(
    spec: TrainSpec, data: str | Path | Home, index: Index, *, device: str, split: str = "val"
) -> Loader:
    """A loader of what a spec validates on; or, in the same way, of another split. index: that of the dataset."""
    return _loader(_validating(spec, index), data, device=device, process_group=ProcessGroup(), validates=split)


def _loader(
    spec: TrainSpec, data: str | Path | Home, *, device: str, process_group: ProcessGroup, validates: str = ""
) -> Loader:
    """A loader of what a spec trains on; or of a split to validate on."""
    training = not validates
    return loader(
        _mix(spec) if training and spec.mix else data,
        split=validates or "train",
        # a validation batch needs no gradients, so it may be larger
        batch_size=spec.batch_size if training else max(spec.batch_size, LOADER.batch_size),
        shuffle=training,
        augment=spec.augment if training else "none",
        policy=spec.policy_target,
        seed=spec.seed,
        num_workers=spec.num_workers,
        on_error=spec.on_error,
        streams=spec.streams if training else LOADER.streams,
        drop_last=spec.drop_last if training else LOADER.drop_last,
        mix_schedule=_mix_schedule(spec) if training else "",
        columns=_columns(spec, data, training=training),
        weights=spec.weights,
        # what one validates on stays the same, so that runs can be compared
        where=spec.where if training else "",
        positions=spec.positions if training else spec.val_samples,
        window=spec.window if training else "",
        per_game=spec.per_game if training else None,
        sources=spec.sources if training else "",
        shards=spec.shards if training else "",
        device=device,
        cache=_cache(spec),
        # all processes see all of a validation, and deal its batches out among them
        rank=process_group.rank if training else 0,
        world_size=process_group.size if training else 1,
    )


def _validating(spec: TrainSpec, index: Index) -> TrainSpec:
    """The spec as validation takes it: the policy's target is the same, unless only what is mixed in has visits.

    One by a schedule is as at its end throughout, so that mini-epochs can be compared.
    """
    if VISITS not in index.layout.optional:
        return replace(spec, policy_target=str(LOADER.policy))
    shares = search_shares(spec.policy_target)
    return spec if len(shares.points) == 1 else replace(spec, policy_target=str(shares.last))


def _columns(spec: TrainSpec, data: str | Path | Home, *, training: bool) -> tuple[str, ...]:
    """Columns beside boards, policies and values: weights, where a dataset has them, and what heads learn.

    Raises ValueError for what a head is to learn and no dataset has.
    """
    homes = _mix(spec) if training and spec.mix else [data]
    remote = replace(REMOTE, cache=_cache(spec))
    optional = {column.name for home in homes for column in read_index(home_of(home, spec=remote)).layout.optional}
    needed = {name: head.name for head in heads_of(spec) for name in head.columns}
    for name, head in needed.items():
        if training and known_optional(name) and name not in optional:
            raise ValueError(
                f"the head {escaped(head)} learns the column {escaped(name)}, which "
                f"{escaped(without_secrets(str(spec.data)))} lacks: convert "
                f"files that carry it, or leave it out of heads and value_target (docs/targets.md)"
            )
    return tuple(dict.fromkeys((*(name for name in ROW_WEIGHTS if name in optional), *needed)))


def _mix(spec: TrainSpec) -> dict[str, float]:
    """Datasets of a mix and their weights. Raises ValueError for one that is named twice."""
    weights = mixed_in(str(spec.data), spec.mix)
    located = {str(_located(spec, each)): weight for each, weight in weights.items()}
    if len(located) < len(weights):
        raise ValueError(f"mix: {printable(spec.mix)!r} names a dataset twice, or {printable(spec.data)}")
    return located


def _mix_schedule(spec: TrainSpec) -> str:
    """Shares of a mix's datasets, where these are. Raises ValueError for one that is not in the mix."""
    schedules = named(spec.mix_schedule, name="mix_schedule")
    mixed = mixed_in(str(spec.data), spec.mix).keys() - {str(spec.data)}
    if unknown := sorted(schedules.keys() - mixed):
        raise ValueError(f"mix_schedule: {without_secrets(printable(unknown[0]))} is none of the datasets of mix")
    return ", ".join(f"{_located(spec, name)}={schedule}" for name, schedule in schedules.items())


def _cache(spec: TrainSpec) -> Path | None:
    return spec.absolute(spec.cache) if spec.cache else None


def _located(spec: TrainSpec, dataset: str | Path) -> str | Path:
    return dataset if is_url(dataset) else spec.absolute(dataset)


def _val_loader(spec: TrainSpec, growth: GrowingDataset, index: Index, *, device: str) -> Loader | None:
    if "val" not in index.splits:
        return None
    # what one validates on stays the same as the dataset grows, so that mini-epochs can be compared
    of = None if spec.resume in RESUMES else spec.absolute(spec.resume)
    held = growth.first(VALIDATION, anew=not _begun(spec), of=of)
    return validating_loader(spec, held, index, device=device)


def _begun(spec: TrainSpec) -> bool:
    return bool(newest_first(RunFolder(spec.absolute(spec.run)).checkpoints))


def _trainer(spec: TrainSpec, train_loader: Loader, device: str, process_group: ProcessGroup) -> Trainer:
    if not spec.schedule_samples:
        planned = spec.epochs * train_loader.samples
        spec = replace(spec, schedule_samples=min(planned, spec.max_samples or planned))
    return Trainer(network(spec, side=train_loader.index.side), spec, device=device, process_group=process_group)
