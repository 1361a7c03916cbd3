"""Commands that train: one command builds one spec, calls one function, prints one result.

Heavy modules are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from hexshards.console import FAILED, INTERRUPTED, Dataset, options_of, told
from hexshards.specs import TrainSpec


@options_of(TrainSpec)
def train(
    dataset: Dataset,
    run: Annotated[Path, Option(help="Folder of checkpoints and metrics; a run found there goes on.")],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print counts, steps, disk and time, from a few seconds of training, and stop.")
    ] = False,
    overfit_batch: Annotated[
        bool, Option("--overfit-batch", help="See whether the network learns one batch by heart, and stop.")
    ] = False,
    tensorboard: Annotated[bool, Option("--tensorboard", help="Write RUN/tensorboard as well.")] = False,
    **options: Any,
) -> None:
    """Train a policy and value network on a dataset, in mini-epochs that each end with validation and a checkpoint.

    Given again, the same command goes on from the newest good checkpoint, bit for bit as if it had not stopped. Ctrl-C
    or SIGTERM finishes the batch, saves, and exits with 130; SIGUSR1 saves and goes on. For several processes:
    `torchrun --nproc-per-node N -m hexshards train ...`.
    """
    with told():
        spec = TrainSpec(data=dataset, run=run, **options)
        if dry_run:
            _rehearse(spec)
        elif overfit_batch:
            _overfit(spec)
        else:
            _train(spec, tensorboard=tensorboard)


def _train(spec: TrainSpec, *, tensorboard: bool) -> None:
    from hexshards import display, runs
    from hexshards.team import joined
    from hexshards.tensorboard_log import TensorBoardLog
    from hexshards.training_view import TrainingView

    with joined() as team:
        speaks = team.rank == 0
        logs = [TensorBoardLog()] if tensorboard and speaks else []
        with TrainingView() if speaks else nullcontext() as view:
            outcome = runs.train(spec, hooks=[*([view] if view else []), *logs])
        if speaks:
            display.say(outcome.summary())
        team.any(False)  # torchrun ends all when one has ended with 130: not before everything is said
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


def _rehearse(spec: TrainSpec) -> None:
    from hexshards import display
    from hexshards.rehearsal import rehearse
    from hexshards.training_view import rehearsal_text

    found = rehearse(spec)
    display.say(rehearsal_text(found, run=spec.run))
    if not found.fits:
        raise typer.Exit(FAILED)


def _overfit(spec: TrainSpec) -> None:
    from hexshards import display
    from hexshards.overfitting import overfit
    from hexshards.training_view import overfit_line

    found = overfit(spec, tell=lambda found: display.say(overfit_line(found)))
    if not found.learned:
        display.warn("error: the batch was not learned by heart. Look at the network, the learning rate and the data")
        raise typer.Exit(FAILED)
    display.say("the batch was learned by heart")


def demo(out: Annotated[Path, Option(help="Folder for everything the demo makes.")] = Path("demo")) -> None:
    """Do the whole job in two minutes on random games: synth, convert, verify, train, stop, resume."""
    with told():
        from hexshards.demo import run

        run(out)
