"""The whole job on games it makes: synth, convert, verify, train, stop in the middle, resume."""

from __future__ import annotations

import signal
from pathlib import Path

from hexshards.arguments import LocalPath, checked
from hexshards.cli import conversion_view, display
from hexshards.cli.training_view import TrainingView
from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import write
from hexshards.dataset.index import NAME
from hexshards.dataset.verify import verify
from hexshards.errors import escaped
from hexshards.training.options import TrainSpec
from hexshards.training.run import train
from hexshards.training.tracking.hooks import Event, Saved
from hexshards.units import counted

GAMES, SIDE, MINI_EPOCH_SAMPLES = 1_000, 9, 20_000
"""64,000 positions: a minute and a half on two cores."""


@checked
def run(out: LocalPath) -> None:
    """Run every step in the folder ``out``. Raises FileExistsError when it holds anything."""
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{escaped(out)} is not empty. Choose another --out, or delete that folder first")
    processed, data = out / "processed", out / "data"

    _step(
        f"synth: {GAMES:,} random games of side {SIDE}, as hex_ai's processed files",
        f"synth --out {processed} --side {SIDE} --games {GAMES}",
    )
    write(processed, games=GAMES, side=SIDE, games_per_file=250)

    _step(
        "convert: check, split by game, shuffle, compress",
        f"convert {processed} --out {data} --val-fraction 0.1",
    )
    with conversion_view.conversion_progress() as progress:
        report = convert(processed, out=data, val_fraction=0.1, progress=progress)
    display.say(conversion_view.conversion_summary(report))

    _step("verify: read everything again", f"verify {data}")
    with display.counting("checking", "positions") as tell:
        verification = verify(data, progress=tell)
    for problem in verification.problems:
        raise problem
    display.say(f"sound: {counted(verification.positions, 'position')}, {counted(verification.games, 'game')}")

    samples = MINI_EPOCH_SAMPLES
    spec = TrainSpec(data=data, run=out / "run", mini_epoch_samples=samples, epochs=2, channels=16, blocks=3)
    command = f"train {data} --run {spec.run} --mini-epoch-samples {samples} --epochs 2 --channels 16 --blocks 3"
    _step("train in mini-epochs; SIGTERM after the second", command)
    _train(spec, stop_after=2)
    _step("the same command again: it goes on where it stopped", command)
    _train(spec)

    display.say(
        f"\nNow your own files:\n"
        f"  hexshards convert YOUR_FILES --out DIR\n"
        f"  hexshards info DIR\n"
        f"  hexshards train DIR --run RUN --mini-epoch-samples 200000\n"
        f"Look at one position:  hexshards show {escaped(data)} -n 1\n"
        f"Every number of the run above:  {escaped(spec.run / 'metrics.jsonl')}   Dataset:  {escaped(data / NAME)}"
    )


def _step(text: str, command: str) -> None:
    display.say(f"\n— {text}\n$ hexshards {escaped(command)}")


def _train(spec: TrainSpec, *, stop_after: int = 0) -> None:
    lines = 0

    def stop(event: Event, /) -> None:
        nonlocal lines
        if isinstance(event, Saved):
            lines += 1
            if lines == stop_after:  # once: a second signal ends the process at once
                signal.raise_signal(signal.SIGTERM)

    with TrainingView() as view:
        outcome = train(spec, hooks=[view, stop] if stop_after else [view])
    display.say(outcome.summary())
