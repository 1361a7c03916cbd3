"""Hyperparameter sweep: each trial is an ordinary run in the sweep's folder, and the best is known at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hexshards.arguments import LocalPath, checked
from hexshards.dataset.index import read_index
from hexshards.main_guard import check_main_guard
from hexshards.storage.files import real_path
from hexshards.storage.remote import is_url
from hexshards.sweeps.options import Range, SweepSpec
from hexshards.sweeps.search_space import Trial, read_sweep
from hexshards.training.tracking.hooks import Hook


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Result of a sweep so far: its trials, the best first."""

    out: Path
    metric: str
    trials: tuple[Trial, ...]
    """The best first; those without a metric last."""
    interrupted: bool
    """A signal ended it here; the same call goes on."""

    @property
    def best(self) -> Trial | None:
        """The best trial that ran to its end."""
        return next((trial for trial in self.trials if trial.state == "complete"), None)

    def folder(self, trial: Trial) -> Path:
        """The folder of a trial's run: ``hexshards plot`` draws it, and best.pt in it holds the weights."""
        return self.out / "trials" / f"{trial.number:04d}"


@checked
def sweep(
    dataset: str | Path,
    config: str | Path | Mapping[str, Any],
    *,
    out: LocalPath,
    trials: int | None = None,
    hooks: Sequence[Hook] = (),
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Sweep:
    """Hyperparameter search over train options, as a TOML file or what it would hold says: see docs/sweep.md.

    The same call goes on with a sweep that was cut off, and may run in several processes at once, on one machine or
    on several that share a database; each returns when all trials have ended. trials: more or fewer than the file
    says. hooks: of every run. on_trial: is told each trial that ends here. Raises ValueError where Optuna is missing,
    the file makes no sense, or ``out`` holds another sweep; FileNotFoundError where there is no dataset.
    """
    from hexshards.training.checkpointing.run_folder import RunFolder  # and torch with it

    check_main_guard()
    spec, folder = read_sweep(config), Path(out).absolute()
    dataset = dataset if is_url(dataset) else Path(dataset).absolute()
    spec = replace(spec, trials=spec.trials if trials is None else trials)
    RunFolder(folder).check_place("out")
    index = read_index(dataset)
    begun = _opened(spec, dataset, folder)
    try:
        begun.agree(_identity(spec, index.fingerprint))
        for trial in begun.work(hooks):
            on_trial(trial)
        return Sweep(out=folder, metric=spec.metric, trials=_ranked(spec, begun.all()), interrupted=begun.interrupted)
    finally:
        begun.close()


def _opened(spec: SweepSpec, dataset: str | Path, out: Path) -> Any:
    try:
        from hexshards.sweeps.trials import Trials
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "sqlalchemy"):
            raise
        raise ValueError("optuna is not installed. Run: pip install 'hexshards[sweep]'") from None
    out.mkdir(parents=True, exist_ok=True)
    most = min(spec.trials, spec.combinations or spec.trials) if spec.sampler == "grid" else spec.trials
    return Trials(spec, dataset=dataset, out=out, name=spec.name or real_path(out).name, trials=most)


def _identity(spec: SweepSpec, fingerprint: str) -> str:
    """What makes trials comparable: all of the file but for how many, where and in which order."""
    entry = {"search": dict(spec.search), "fixed": dict(spec.fixed), "dataset": fingerprint}
    return json.dumps(
        entry, sort_keys=True, default=lambda part: asdict(part) if isinstance(part, Range) else str(part)
    )


def _ranked(spec: SweepSpec, trials: Sequence[Trial]) -> tuple[Trial, ...]:
    sign = -1 if spec.maximize else 1
    return tuple(sorted(trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0), trial.number)))
