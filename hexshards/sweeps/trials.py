"""Trials (Optuna): each is a run, may be pruned between mini-epochs, and goes on elsewhere if its process dies.

The only door to Optuna. Any number of processes work on one database; which trial is whose is decided there.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError

from hexshards.errors import escaped, printable, without_secrets
from hexshards.sweeps.options import Range, SweepSpec
from hexshards.sweeps.search_space import Trial
from hexshards.training.early_stopping import EarlyStopping
from hexshards.training.options import TrainSpec
from hexshards.training.run import train
from hexshards.training.tracking.hooks import Event, Hook, Progressed, RunStarted, Saved

HEARTBEAT_S, GRACE_S = 10, 60
"""How often a process says that it lives, and after which silence another takes its trial."""

MAX_KILLED = 3
"""How often a trial goes on after its process was killed; a network too large for memory kills the next one too."""

STARTUP_TRIALS, STARTUP_MINI_EPOCHS = 5, 1
"""No trial is pruned before so many have ended, and none in its first mini-epoch."""

_RUN, _KILLED, _SURPLUS, _ERROR, _SAMPLES, _MINIS = "run", "killed", "surplus", "error", "samples", "mini_epochs"
_TRIES, _WAIT_S = 20, 0.25


class Trials:
    """The trials of a sweep, in a database that other processes work on too."""

    def __init__(self, spec: SweepSpec, *, dataset: str | Path, out: Path, name: str, trials: int) -> None:
        self._spec, self._dataset, self._out, self._most = spec, dataset, out, trials
        self._begun_in = Path.cwd()
        self._storage = _storage(spec.storage or _local(out))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=STARTUP_MINI_EPOCHS + 1)
        with _quiet():
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize" if spec.maximize else "minimize",
                sampler=_sampler(spec),
                pruner=pruner if spec.pruner == "median" else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        self.interrupted = False

    def agree(self, what: str) -> None:
        """Raise ValueError when the database has a sweep by this name that is about something else."""
        known = self._study.user_attrs.get("sweep")
        if known is None:
            self._study.set_user_attr("sweep", what)
        elif known != what:
            raise ValueError(
                f"a sweep {self._study.study_name!r} was begun with another dataset, search or fixed options. "
                "Give those again, or use another --out"
            )

    def work(self, hooks: Sequence[Hook]) -> Iterator[Trial]:
        """Run trials until all that are wanted have ended, in whatever process; those that end here are told."""
        while not self.interrupted:
            with _quiet():
                fail_stale_trials(self._study)
            trials = self._study.get_trials(deepcopy=False)
            if len(_first(trials)) < self._most or any(each.state is TrialState.WAITING for each in trials):
                if (ended := self._one(hooks)) is not None:
                    yield ended
            elif any(each.state is TrialState.RUNNING for each in trials):
                time.sleep(_WAIT_S)
            else:
                return

    def all(self) -> list[Trial]:
        """All trials, in the order in which they began."""
        newest = {_slot(each): each for each in self._study.get_trials(deepcopy=False) if not _surplus(each)}
        return [self._told(each) for _, each in sorted(newest.items())]

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _one(self, hooks: Sequence[Hook]) -> Trial | None:
        ran: list[int] = []

        def objective(trial: optuna.Trial) -> float:
            ran.append(trial.number)
            return self._run(trial, hooks)

        with _quiet():
            self._study.optimize(objective, n_trials=1, catch=(Exception,))
        (ended,) = (each for each in self._study.get_trials(deepcopy=False) if each.number in ran)
        if self.interrupted:
            _again(self._study, ended)
        return None if self.interrupted or _surplus(ended) else self._told(ended)

    def _run(self, trial: optuna.Trial, hooks: Sequence[Hook]) -> float:
        known = self._study.get_trials(deepcopy=False)
        if _RUN not in trial.user_attrs and trial.number not in _first(known)[: self._most]:
            # another process was faster
            trial.set_user_attr(_SURPLUS, True)
            raise _Surplus
        try:
            return self._train(trial, hooks)
        except KeyboardInterrupt:
            self.interrupted = True
            raise _Interrupted from None
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr(_ERROR, f"{type(error).__name__}: {error}"[:500])
            raise

    def _train(self, trial: optuna.Trial, hooks: Sequence[Hook]) -> float:
        options = {name: _suggested(trial, name, part) for name, part in self._spec.search.items()}
        folder = self._out / "trials" / f"{trial.user_attrs.get(_RUN, trial.number):04d}"
        pruning = _Pruning(trial, self._spec)
        outcome = train(
            TrainSpec(data=self._dataset, run=folder, relative_to=self._begun_in, **{**self._spec.fixed, **options}),
            hooks=[pruning, *hooks],
        )
        trial.set_user_attr(_SAMPLES, outcome.samples_seen)
        trial.set_user_attr(_MINIS, pruning.mini_epochs)
        if outcome.interrupted:
            raise KeyboardInterrupt  # which a signal would have been, had the run not seen to it
        if pruning.pruned:
            raise optuna.TrialPruned
        if pruning.best is None:
            raise ValueError(f"no mini-epoch's record has the number {escaped(self._spec.metric)}")
        return pruning.best

    def _told(self, trial: FrozenTrial) -> Trial:
        names = {TrialState.FAIL: "failed", TrialState.PRUNED: "pruned", TrialState.COMPLETE: "complete"}
        best = max if self._spec.maximize else min
        reported = trial.intermediate_values.values()
        return Trial(
            number=_slot(trial),
            state=names.get(trial.state, trial.state.name.lower()),
            value=best(reported) if reported else None,
            mini_epochs=trial.user_attrs.get(_MINIS, len(reported)),
            samples=trial.user_attrs.get(_SAMPLES, 0),
            options=trial.params,
            error=trial.user_attrs.get(_ERROR),
        )


class _Interrupted(Exception):
    """A signal ended the trial's run, which is saved."""


class _Surplus(Exception):
    """There are as many trials as are wanted without this one."""


class _Pruning:
    """A hook that reports each mini-epoch, those before a restart too, and stops a run that is not worth its time."""

    def __init__(self, trial: optuna.Trial, spec: SweepSpec) -> None:
        self._trial, self._metric = trial, EarlyStopping(metric=spec.metric)
        self._over = False
        self.best: float | None = None
        self.mini_epochs = 0
        self.pruned = False

    def __call__(self, event: Event, /) -> None:
        """Look at what a mini-epoch brought."""
        match event:
            case RunStarted(history=history):
                for record in history:
                    self._report(record)
            case Progressed(progress=now):
                self._over = now.samples_seen >= now.total_samples
            case Saved(record=record) if record:
                self._report(record)
                if not self._over and self._trial.should_prune():
                    self.pruned = True
                    event.stop("pruned")

    def _report(self, record: Mapping[str, Any]) -> None:
        self.mini_epochs += 1
        value = self._metric.value(record)
        if value is not None and math.isfinite(value):
            self._trial.report(value, self.mini_epochs)
            self.best = value if self._metric.better(value, self.best) else self.best


class _InTurn(optuna.samplers.BaseSampler):  # type: ignore[misc]  # it is Any where optuna is not looked into
    """A grid is arithmetic: the n-th trial tries the n-th combination, whichever process it runs in."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        first = _first(study.get_trials(deepcopy=False))
        return self._spec.combination(first.index(_slot(trial)))[param_name]


def _sampler(spec: SweepSpec) -> optuna.samplers.BaseSampler:
    # no seeds: processes with the same seed would try the same
    if spec.sampler == "grid":
        return _InTurn(spec)
    if spec.sampler == "random":
        return optuna.samplers.RandomSampler()
    with _quiet():
        # what runs elsewhere is taken for bad, so that processes keep away from each other
        return optuna.samplers.TPESampler(constant_liar=True)


def _suggested(trial: optuna.Trial, name: str, part: Range | tuple[Any, ...]) -> Any:
    if isinstance(part, tuple):
        # paths are kept as text
        return trial.suggest_categorical(name, [str(each) if isinstance(each, Path) else each for each in part])
    if part.whole:
        return trial.suggest_int(name, int(part.low), int(part.high), step=int(part.step or 1), log=part.log)
    return trial.suggest_float(name, part.low, part.high, step=part.step, log=part.log)


def _storage(url: str) -> RDBStorage:
    """The database, whose tables are made by the first process; one that starts with it tries again."""
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for left in reversed(range(_TRIES)):
        try:
            with _quiet():
                return RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_S,
                    grace_period=GRACE_S,
                    heartbeat_stale_trial_callback=_after_kill,
                )
        except (OperationalError, IntegrityError) as error:
            if not left:
                says = printable(_without_password(str(error.orig), url), width=300)
                raise ConnectionError(f"storage: the sweep's database cannot be opened: {says}") from None
            time.sleep(_WAIT_S)
        except (ArgumentError, ImportError) as error:
            # a URL may hold a password: it is not shown
            raise ValueError(f"storage: {type(error).__name__}: not a URL of a database that can be opened") from None
    raise AssertionError


def _without_password(text: str, url: str) -> str:
    """What a driver says, which may quote the URL that it was given."""
    password = make_url(url).password
    for secret in {str(password), quote(str(password))} if password else ():
        text = text.replace(secret, "...")
    return without_secrets(text)


def _local(out: Path) -> str:
    # a URI holds any name: one that is not UTF-8, one with a question mark
    return str(URL.create("sqlite", database=(out / "sweep.db").absolute().as_uri(), query={"uri": "true"}))


def _after_kill(study: Study, trial: FrozenTrial) -> None:
    killed = trial.user_attrs.get(_KILLED, 0) + 1
    if killed <= MAX_KILLED and not _surplus(trial):
        _again(study, trial, killed=killed)


def _again(study: Study, trial: FrozenTrial, *, killed: int = 0) -> None:
    """Let the next process that is free go on with a trial's run."""
    attributes = {_RUN: _slot(trial), _KILLED: killed}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attributes,
        )
    )


def _slot(trial: FrozenTrial) -> int:
    """The number of the trial that this one goes on with, or its own."""
    return int(trial.user_attrs.get(_RUN, trial.number))


def _surplus(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get(_SURPLUS))


def _first(trials: Sequence[FrozenTrial]) -> list[int]:
    """Numbers of the trials that go on with no other, in their order."""
    return sorted(each.number for each in trials if _RUN not in each.user_attrs and not _surplus(each))


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna calls heartbeats experimental, and tells of each failure with a traceback."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
