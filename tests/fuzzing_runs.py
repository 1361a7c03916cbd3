"""Run folders and checkpoints that anybody could have written: each is gone on with, or refused in a sentence.

    python tests/fuzzing_runs.py [--minutes M | --cases N] [--seed S]

Each case takes a sound run, puts one hostile value in the place of one that it holds (in a checkpoint whose checksum
then fits, in metrics.jsonl), and starts it again, shows its curves and begins another run with its weights.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_runs import Drawing, SmallLoader, Validation, orchestrator, seeded
from torch import nn

from hexshards import checkpoint
from hexshards.curves import curves_text
from hexshards.errors import DataError
from hexshards.history import read_history
from hexshards.trainer import Trainer

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, 1e308, float("inf"), float("nan")),
    *("", "a", "../../x", "/etc/passwd", "checkpoint_epoch0009_mini0009.pt", "\x1b[2J", "x" * 10_000, "a\nb"),
    *([], [1], [[]], {}, {"a": 1}, {1: 2}, torch.zeros(0), torch.zeros(3), torch.tensor(1), torch.zeros(2, 2).bool()),
    *(torch.full((5000,), 255, dtype=torch.uint8), torch.zeros(1).expand(10**12), torch.tensor(float("nan"))),
]
LINES = ['{"epoch": 1e999}', "[" * 100_000, "{}", "null", "[]", '{"epoch": 1, "mini_epoch": 1}', "\x00", "\x1b[2J", ""]


class Draw:
    """Choices that a seed fixes."""

    def __init__(self, seed: int) -> None:
        self._numbers = np.random.default_rng(seed)

    def choice(self, among: list[Any]) -> Any:
        """One of them."""
        return among[self.below(len(among))]

    def below(self, count: int) -> int:
        """A number."""
        return int(self._numbers.integers(count))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a state."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A state with another part at a path."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {each: put(part, rest, new) if each == key else part for each, part in value.items()}
    return [put(part, rest, new) if each == key else part for each, part in enumerate(value)]


def seal(path: Path, state: Any) -> None:
    """A checkpoint whose checksum fits, whatever it holds."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(checkpoint._sealed(buffer.getvalue()))


def started(run: Path, **changes: Any) -> None:
    """Go on with a run; a DataError of one line is a good answer, anything else is not."""
    try:
        orchestrator(run, trainer=seeded(Trainer), train_loader=SmallLoader(), val_loader=Validation(), **changes).run()
    except DataError as error:
        assert len(str(error)) < 2_000, len(str(error))
        assert str(error).isprintable(), repr(str(error))[:300]


def shown(run: Path) -> None:
    """Its curves, as ``plot`` prints them."""
    try:
        assert "\x1b" not in curves_text([read_history(run)])
    except (DataError, FileNotFoundError) as error:
        assert len(str(error)) < 2_000


def case(draw: Draw, sound: Path, work: Path) -> str:
    """One hostile run folder; what was changed in it."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(sound, run)
    newest = checkpoint.newest_first(run / "checkpoints")[0]
    if draw.below(4) == 0:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        at, record = draw.below(len(lines)), json.loads(lines[0])
        path = draw.choice([each for each in places(record) if each])
        plain = [value for value in VALUES if not isinstance(value, torch.Tensor)]
        lines[at] = draw.choice([*LINES, json.dumps(put(record, path, draw.choice(plain)))])
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        what = f"metrics.jsonl line {at}: {lines[at][:100]!r}"
    else:
        state = torch.load(newest, weights_only=True)
        # what the small loader's state may hold is that loader's own affair
        found = [each for each in places(state) if each[:1] != ("loader_state",)]
        path, new = draw.choice(found), draw.choice(VALUES)
        seal(newest, put(state, path, new))
        what = f"{'.'.join(map(str, path))} = {str(new)[:60]!r}"
    try:
        started(run)
        shown(run)
        if draw.below(5) == 0:
            model_from(newest)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:500]}") from error
    return what


def model_from(path: Path) -> nn.Module:
    """A network with the weights of a file, as ``--init-from`` has it."""
    from hexshards.networks import _load_weights

    model = Drawing()
    try:
        _load_weights(model, path)
    except DataError as error:
        assert len(str(error)) < 2_000
    return model


def main() -> None:
    """Try so many cases, or for so long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    draw, done, start = Draw(given.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work, sound = Path(folder), Path(folder) / "sound"
        orchestrator(sound, num_epochs=1).run()
        while time.monotonic() - start < 60 * given.minutes if given.minutes else done < given.cases:
            case(draw, sound, work)
            done += 1
    print(f"{done:,} cases")


if __name__ == "__main__":
    main()
