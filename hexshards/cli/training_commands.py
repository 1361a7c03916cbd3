"""Commands that train: one command builds one spec, calls one function, prints one result.

Heavy modules are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from hexshards.cli.command import from_file
from hexshards.cli.console import FAILED, INTERRUPTED, AsJson, CacheFolder, Dataset, options_of, shown, told
from hexshards.errors import escaped
from hexshards.interop.options import AlsoSaved, Format
from hexshards.loading.options import LoaderSpec
from hexshards.sweeps.options import SweepSpec
from hexshards.training.options import TRAIN, TrainSpec

if TYPE_CHECKING:
    from hexshards.training.tracking.hooks import Hook


@options_of(TrainSpec)
def train(
    dataset: Dataset,
    run: Annotated[Path, shown(TrainSpec, "run")],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print counts, steps, disk and time, from a few seconds of training, and stop.")
    ] = False,
    overfit_batch: Annotated[
        bool, Option("--overfit-batch", help="See whether the network learns one batch by heart, and stop.")
    ] = False,
    tensorboard: Annotated[bool, Option("--tensorboard", help="Write RUN/tensorboard as well.")] = False,
    also_save: Annotated[
        AlsoSaved | None,
        Option(help="Write RUN/epoch3_mini4.pt.gz and bookkeeping/*.csv beside RUN too, for hex_ai's own programs."),
    ] = None,
    config: Annotated[
        Path | None,
        Option(
            is_eager=True,
            callback=from_file,
            help="TOML file of options, as each run writes in RUN/config.toml; the command line wins.",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Train a policy and value network on a dataset, in mini-epochs that each end with validation and a checkpoint.

    Given again, the same command goes on from the newest good checkpoint, bit for bit as if it had not stopped. Ctrl-C,
    SIGTERM or SIGHUP finishes the batch, saves, and exits with 130; SIGUSR1 saves and goes on. For several processes:
    `torchrun --nproc-per-node N -m -- hexshards train ...`.
    """
    from hexshards.cli import display

    with told():
        spec = TrainSpec(data=dataset, run=run, **options)
        if os.environ.get("RANK", "0") == "0":
            # torch takes seconds to load
            display.notice(f"dataset: {escaped(dataset)} · run: {escaped(run)}")
        if dry_run:
            _rehearse(spec)
        elif overfit_batch:
            _overfit(spec)
        else:
            _train(spec, tensorboard=tensorboard, also_save=also_save)


def _train(spec: TrainSpec, *, tensorboard: bool, also_save: AlsoSaved | None) -> None:
    from hexshards.cli import display
    from hexshards.cli.run_log import RunLog
    from hexshards.cli.training_view import TrainingView
    from hexshards.interop.hex_ai_checkpoint import HexAiCheckpoints
    from hexshards.interop.hex_ai_metrics import HexAiMetrics
    from hexshards.training import run as runs
    from hexshards.training.distributed import joined
    from hexshards.training.tracking.tensorboard_log import TensorBoardLog

    with joined() as process_group:
        speaks = process_group.rank == 0
        logs: list[Hook] = [TensorBoardLog()] if tensorboard and speaks else []
        logs += [HexAiCheckpoints(), HexAiMetrics()] if also_save else []
        with RunLog() if speaks else nullcontext() as log:
            with TrainingView() if speaks else nullcontext() as view:
                hooks = [hook for hook in (log, view, *logs) if hook is not None]
                outcome = runs.train(spec, hooks=hooks)
            if speaks:
                display.say(outcome.summary())
        process_group.any(False)  # torchrun ends all when one has ended with 130: not before everything is said
    code = INTERRUPTED if outcome.interrupted else 0
    if process_group.size > 1:
        _leave(code)
    raise typer.Exit(code)


def _leave(code: int) -> None:
    """End here and now, with everything said and saved.

    Gloo's threads outlive their group: 3 of 18 processes that took Python down around them ended by SIGABRT.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _rehearse(spec: TrainSpec) -> None:
    from hexshards.cli import display
    from hexshards.cli.training_view import rehearsal_text
    from hexshards.training.dry_run import rehearse

    rehearsal = rehearse(spec)
    display.say(rehearsal_text(rehearsal, run=spec.run))
    if not rehearsal.fits:
        raise typer.Exit(FAILED)


def _overfit(spec: TrainSpec) -> None:
    from hexshards.cli import display
    from hexshards.cli.training_view import overfit_line
    from hexshards.training.overfit import overfit

    reached = overfit(spec, tell=lambda reached: display.say(overfit_line(reached)))
    if not reached.learned:
        display.warn("error: the batch was not learned by heart. Look at the network, the learning rate and the data")
        raise typer.Exit(FAILED)
    display.say("the batch was learned by heart")


def evaluate(
    checkpoint: Annotated[
        Path,
        Argument(
            metavar="RUN_OR_CHECKPOINT",
            help="Folder of a run, of which it is best.pt; or a checkpoint, or a file of weights.",
        ),
    ],
    dataset: Annotated[
        str | None,
        Option(help="A dataset: a folder, or a URL. All of its split is measured.", show_default="the run's own"),
    ] = None,
    split: Annotated[str, shown(LoaderSpec, "split")] = "test",
    model: Annotated[str | None, shown(TrainSpec, "model", unset="hexshards' own network")] = None,
    model_args: Annotated[str, shown(TrainSpec, "model_args")] = "",
    device: Annotated[str, shown(TrainSpec, "device")] = TRAIN.device,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained network on the test, or another split, as `train` does on validation.

    With --split val the numbers are those that the run wrote of the checkpoint. A network of your own is built by the
    factory that --model names here; one that only the file names is not imported.
    """
    from hexshards.cli import display

    with told():
        from hexshards.cli.evaluation_view import cautions, evaluation_json, evaluation_text
        from hexshards.reports.evaluation import evaluate as run

        with display.counting("evaluating", "positions") as progress:
            made = run(
                checkpoint,
                dataset=dataset,
                split=split,
                model=model,
                model_args=model_args,
                device=device,
                cache=cache,
                progress=progress,
            )
        for caution in cautions(made):
            display.warn(f"warning: {caution}")
        display.say(display.json_line(evaluation_json(made)) if as_json else evaluation_text(made))


def export(
    checkpoint: Annotated[
        Path, Argument(metavar="CHECKPOINT", help="A checkpoint of a run, such as RUN/best.pt, or a file of weights.")
    ],
    format: Annotated[
        Format,
        Option(help="hex_ai: its checkpoint, epoch3_mini4.pt.gz; state-dict: weights alone; torchscript, onnx: all."),
    ],
    out: Annotated[Path, Option(help="Folder that the file is written into.")],
    model: Annotated[str | None, shown(TrainSpec, "model", unset="hexshards' own network")] = None,
    model_args: Annotated[str, shown(TrainSpec, "model_args")] = "",
    side: Annotated[int | None, Option(help="Side of the board, where the file does not say.")] = None,
    ema: Annotated[bool, Option("--ema", help="The moving average of the weights.")] = False,
) -> None:
    """Write a trained network for other programs, compared with its own answers before the file appears.

    A network of your own is built by the factory that --model names here; one that only the file names is not imported.
    """
    from hexshards.cli import display

    with told():
        from hexshards.interop.export import export_network

        path = export_network(
            checkpoint, format=format, out=out, model=model, model_args=model_args, side=side, ema=ema
        )
        display.say(f"network {escaped(path)}")


def demo(out: Annotated[Path, Option(help="Folder for everything the demo makes.")] = Path("demo")) -> None:
    """Do the whole job in two minutes on random games: synth, convert, verify, train, stop, resume."""
    with told():
        from hexshards.cli.demo import run

        run(out)


def plot(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Folders of runs, begun by `hexshards train`.")],
    out: Annotated[
        Path | None,
        Option(help="The picture: png, pdf or svg.", show_default="plot.png in the run; of several, here"),
    ] = None,
) -> None:
    """Draw losses, accuracies, throughput and diagnostics of runs: here in the terminal, and as a picture."""
    from hexshards.cli import display

    with told():
        from hexshards.reports.history import read_history
        from hexshards.reports.plots import NoMatplotlib, runs_figure, save_figure
        from hexshards.reports.terminal_curves import curves_text
        from hexshards.reports.validations import MEASURE, apart, validation_of

        histories = [read_history(run) for run in runs]
        display.say(curves_text(histories, width=display.width()))
        if differ := apart([validation_of(run) for run in runs]):
            display.notice(f"{differ}. {MEASURE}")
        try:
            figure = runs_figure(histories)
        except NoMatplotlib as error:
            if out:
                raise
            # the curves are there: they are what was asked for
            display.warn(f"no picture: {error}")
            return
        out = out or (runs[0] / "plot.png" if len(runs) == 1 else Path("plot.png"))
        save_figure(figure, out)
        display.say(f"picture {escaped(out)}")


def runs(
    folders: Annotated[
        list[Path], Argument(metavar="FOLDER...", help="Folders of runs, or with runs in them or in folders of them.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show a table of runs, the best first: best and last, samples, time, and the options in which they differ."""
    from hexshards.cli import display

    with told():
        from hexshards.cli.runs_view import runs_json, runs_text
        from hexshards.reports.runs import runs_in

        summaries = runs_in(*folders)
        if as_json:
            display.say(display.json_line(runs_json(summaries)))
        else:
            display.say(runs_text(summaries, width=display.width()))


def sweep(
    dataset: Dataset,
    config: Annotated[Path, Option(help="TOML file of what to search and what is fixed: see docs/sweep.md.")],
    out: Annotated[Path, Option(help="Folder of the trials, and of their database.")],
    trials: Annotated[int | None, shown(SweepSpec, "trials", unset="what the file says")] = None,
    as_json: AsJson = False,
) -> None:
    """Search for the best train options over many runs, which are pruned between mini-epochs.

    The same command goes on with a sweep that was cut off; given in several terminals, or on several machines that
    share a database, it works in all of them. A trial whose process was killed goes on from its checkpoint.
    """
    from hexshards.cli import display

    with told():
        from hexshards.cli.sweep_view import sweep_json, sweep_text, trial_line
        from hexshards.cli.training_view import TrainingView, trial_lines
        from hexshards.sweeps.search_space import read_sweep
        from hexshards.sweeps.sweep import sweep as run

        tell = display.warn if as_json else display.say
        names = [*read_sweep(config).search]
        with TrainingView(begins=lambda event: trial_lines(event, names), mini_epochs=False) as view:
            result = run(
                dataset, config, out=out, trials=trials, hooks=[view], on_trial=lambda trial: tell(trial_line(trial))
            )
        display.say(display.json_line(sweep_json(result)) if as_json else sweep_text(result))
        if result.interrupted:
            raise typer.Exit(INTERRUPTED)
        if not result.best:
            raise typer.Exit(FAILED)
        _draw_sweep(result, tell)


def _draw_sweep(result: Any, tell: Callable[[str], None]) -> None:
    from hexshards.cli.sweep_view import sweep_figure
    from hexshards.reports.plots import save_figure

    try:
        save_figure(sweep_figure(result), result.out / "sweep.png")
    except ValueError as error:
        # the search is what took the time
        return tell(f"no picture: {error}")
    tell(f"picture {escaped(result.out / 'sweep.png')}")
