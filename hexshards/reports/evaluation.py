"""Evaluation: the losses and metrics of a trained network on a split, computed as a run computes its validation.

So those on ``val`` are, to the bit, what the run wrote of that checkpoint, and those on ``test`` compare with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hexshards.arguments import LocalPath, checked
from hexshards.config_files import read_toml
from hexshards.dataset.earlier import extends
from hexshards.dataset.index import NAME, Index, read_index
from hexshards.errors import DataError, Misused, printable
from hexshards.interop.saved_network import Network, Saved, network_of, newest_of, saved_in
from hexshards.loading.batching import chosen_device
from hexshards.loading.loader import Loader
from hexshards.options import options_in
from hexshards.storage.files import Home
from hexshards.storage.options import REMOTE, RemoteSpec
from hexshards.storage.remote import home_of
from hexshards.training.checkpointing.run_folder import RunFolder
from hexshards.training.computing import computing, usual_threads
from hexshards.training.distributed import ProcessGroup
from hexshards.training.growing_data import Earlier, validated_on
from hexshards.training.options import CONFIG, STATES, TRAIN, StepSpec, TrainSpec
from hexshards.training.run import same_kernels, validating_loader
from hexshards.training.steps.heads import heads_of
from hexshards.training.steps.model_factory import check_answers
from hexshards.training.steps.trainer import Trainer

VALIDATES_BY = (*options_in(StepSpec), "policy_target", "weights", "seed", "val_samples", "on_error")
"""Options of a run that its validation depends on, beside its batches. What makes the network is not taken from a file:
a factory that only a file names is never imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Evaluation: what a network's answers to a split cost, and how often they are right."""

    checkpoint: Path
    dataset: str
    split: str
    games: int
    """Of the split. All positions of a game have one winner, so value losses of few games are off by chance."""
    few_games: bool
    positions: int
    """Of the split. A run that was begun with val_samples is validated on fewer: metrics have those that counted."""
    metrics: Mapping[str, float]
    """Counts, losses and metrics by name, as in ``val`` of a line of metrics.jsonl (docs/training.md)."""
    validation: Mapping[str, Any]
    """What the run wrote of this checkpoint's validation; empty where there was none."""
    policy_target: str
    """What the policy is compared with: see TrainSpec."""
    apart: bool
    """Whether the dataset is the one that the run was trained on, or that one grown, so that no game of another split
    was trained on. Of a file that does not say, it is not known to be."""
    skipped: int
    """Positions of damaged blocks, in whose place others counted, as the run was told to."""


@checked
def evaluate(
    checkpoint: LocalPath,
    *,
    dataset: str | Path | None = None,
    split: str = "test",
    model: str | None = None,
    model_args: str = "",
    device: str = TRAIN.device,
    cache: LocalPath | None = REMOTE.cache,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Evaluate a trained network on a split, as ``train`` validates: by the same heads, targets, weights and batches.

    checkpoint: a run's folder, of which it is ``best.pt``, or the newest one where the run did not validate; a
    checkpoint; or a file of weights, as load_network takes it. dataset: by default the run's own, with ``val`` as the
    run validates on it; of one that is named all of the split counts, whatever the run's own val_samples are. model,
    model_args: as load_network takes them. progress: told of positions done and in all.

    Raises DataError for a file that holds no such network, and for damaged data; Misused where network, dataset and
    split do not go together, and for the folder of a run's checkpoints; FileNotFoundError where one of them is not
    there; ValueError for a factory that is none.
    """
    saved = _saved(Path(checkpoint))
    run = next((each for each in saved.path.absolute().parents[:2] if (each / CONFIG).is_file()), None)
    home = _home(dataset, cache, split=split, run=run, saved=saved)
    index = _index(home, saved, named=dataset is not None)
    _check_split(split, index, home)
    network = network_of(saved, model=model, model_args=model_args)
    own = dataset is None and split == "val"
    spec = _spec(network, saved, own=own, positions=index.splits[split].positions)
    _check_network(network, spec, index, home)
    with computing(_threads(saved)), same_kernels():
        trainer = Trainer(network.model, spec, device=chosen_device(device), process_group=ProcessGroup())
        if trainer.average is not None:
            average = network_of(saved, model=model, model_args=model_args, ema=True)
            trainer.average.module.load_state_dict(average.model.state_dict())
        loader = validating_loader(spec, home, index, split=split, device=str(trainer.device))
        metrics = trainer.validate(_told(loader, progress))
    return Evaluation(
        checkpoint=saved.path,
        dataset=str(home),
        split=split,
        games=index.splits[split].games,
        few_games=index.few_games(split) is not None,
        positions=index.splits[split].positions,
        metrics=metrics,
        validation=val if isinstance(val := saved.under("metrics").get("val"), Mapping) else {},
        policy_target=str(loader.spec.policy),
        apart=_apart(index, home, run=run, saved=saved),
        skipped=loader.skipped.positions,
    )


def _saved(path: Path) -> Saved:
    """The best checkpoint of a run, the newest where none is best; or the file that is named."""
    if not path.is_dir():
        return saved_in(path)
    best = RunFolder(path).best
    return saved_in(best) if best.exists() else newest_of(path)


def _home(dataset: str | Path | None, cache: LocalPath | None, *, split: str, run: Path | None, saved: Saved) -> Home:
    """Where the dataset is: the one that is named, or the run's own."""
    if dataset is not None:
        return home_of(dataset, spec=RemoteSpec(cache=Path(cache).absolute() if cache else None))
    config = read_toml(run / CONFIG) if run else {}
    if run is None or not isinstance(config.get("data"), str):
        problem = "does not lie in the folder of a run, whose config.toml says what it was trained on"
        raise Misused(problem, where=str(saved.path), fix=_NAME_IT)
    folder = cache or config.get("cache")
    home = home_of(config["data"], spec=RemoteSpec(cache=Path(str(folder)).absolute() if folder else None))
    return validated_on(home, run) if split == "val" else home


_NAME_IT = "Name the dataset: dataset='DIR' (--dataset DIR)"


def _index(home: Home, saved: Saved, *, named: bool) -> Index:
    try:
        return read_index(home)
    except FileNotFoundError:
        if named:
            raise
        problem = f"was trained on {home}, where no dataset is now"
        raise Misused(problem, where=str(saved.path), fix=_NAME_IT) from None


def _check_split(split: str, index: Index, home: Home) -> None:
    if split in index.splits:
        return
    there = [*index.splits]
    fix = f"Name another split, such as --split {there[-1]}"
    if split == "test":
        fix += (
            "; for a test, convert into another folder with --test-fraction 0.02 and train on that: this network may "
            "have been trained on any game that is not of validation"
        )
    raise Misused(f"has no split {printable(split)}, only {', '.join(there)}", where=str(home), fix=fix)


def _spec(network: Network, saved: Saved, *, own: bool, positions: int) -> TrainSpec:
    """The options that a run validates by, out of what it recorded; only its own validation is cut to val_samples."""
    recorded = {name: saved.options[name] for name in VALIDATES_BY if name in saved.options}
    here = {"value_output": network.value_output, "compile": False, "batch_size": _batch_size(saved, most=positions)}
    cut = {} if own else {"val_samples": None}
    try:
        return TrainSpec(data=saved.path, run=saved.path, **{**recorded, **here, **cut})
    except (ValueError, TypeError) as error:
        problem = f"has options that cannot be: {printable(error, width=300)}"
        raise DataError(problem, where=str(saved.path), fix="Name a checkpoint of a run") from None


def _batch_size(saved: Saved, *, most: int) -> int:
    """Samples in a batch of one process, of as many as wrote the checkpoint; no more than there are."""
    whole, ranks = saved.options.get("global_batch_size"), saved.under("random_state").get("ranks")
    if not isinstance(whole, int) or not isinstance(ranks, list) or not ranks:
        return TRAIN.batch_size
    return max(1, min(whole // len(ranks), most))


def _threads(saved: Saved) -> int:
    """As many as the run computed with, for sums have other bits with another number; but no more than there are."""
    threads = saved.options.get("threads")
    return min(usual_threads(), max(1, threads)) if isinstance(threads, int) else usual_threads()


def _check_network(network: Network, spec: TrainSpec, index: Index, home: Home) -> None:
    if network.side not in (None, index.side):
        problem = f"was trained on boards of side {network.side}, and those of {home} are of side {index.side}"
        raise Misused(problem, where=str(network.path), fix="Name a dataset of its side")
    check_answers(network.model, heads_of(spec), index.side)


def _apart(index: Index, home: Home, *, run: Path | None, saved: Saved) -> bool:
    fingerprint = saved.content.get("dataset") if isinstance(saved.content, Mapping) else None
    if fingerprint == index.fingerprint:
        return True
    known = run / STATES / str(fingerprint)[:16] / NAME if run else None
    return known is not None and known.exists() and extends(index, read_index(Earlier(home, known)))


def _told(loader: Loader, progress: Callable[[int, int], None]) -> Iterator[Any]:
    done = 0
    for batch in loader:
        yield batch
        done += len(batch.value)
        progress(done, loader.samples)
