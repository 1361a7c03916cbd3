"""Commands that train: one command builds one spec, calls one function, prints one result.

Heavy modules are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from hexshards.console import INTERRUPTED, Dataset, options_of, told
from hexshards.specs import TrainSpec


@options_of(TrainSpec)
def train(
    dataset: Dataset,
    run: Annotated[Path, Option(help="Folder of checkpoints and metrics; a run found there goes on.")],
    **options: Any,
) -> None:
    """Train a policy and value network on a dataset, in mini-epochs that each end with validation and a checkpoint.

    Given again, the same command goes on from the newest good checkpoint, bit for bit as if it had not stopped. Ctrl-C
    or SIGTERM finishes the batch, saves, and exits with 130. For several processes: `torchrun --nproc-per-node N -m --
    hexshards train ...`.
    """
    from hexshards import display

    with told():
        spec = TrainSpec(data=dataset, run=run, **options)
        from hexshards.runs import train as start
        from hexshards.team import joined
        from hexshards.training_view import TrainingView

        with joined() as team:
            speaks = team.rank == 0
            with TrainingView() if speaks else nullcontext() as view:
                outcome = start(spec, hooks=[view] if view else [])
            if speaks:
                display.say(outcome.summary())
            team.any(False)  # torchrun ends all when one has ended with 130: not before everything is said
        if outcome.interrupted:
            raise typer.Exit(INTERRUPTED)


def demo(out: Annotated[Path, Option(help="Folder for everything the demo makes.")] = Path("demo")) -> None:
    """Do the whole job in two minutes on random games: synth, convert, verify, train, stop, resume."""
    with told():
        from hexshards.demo import run

        run(out)
