"""Configuration of a run: ``config.toml`` in its folder holds every option, so that ``train --config`` repeats it.

A hook.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from hexshards.config_files import toml_text
from hexshards.errors import without_secrets
from hexshards.options import as_recorded
from hexshards.storage.files import write_whole
from hexshards.storage.remote import is_url
from hexshards.training.options import CONFIG, TrainSpec
from hexshards.training.tracking.hooks import Event, RunStarted

HEAD = "# Every option of this run. To repeat it: hexshards train --config config.toml --run ANOTHER_FOLDER\n"

ONCE = ("run", "resume")
"""What is of one run, and not of those that repeat it."""


def repeated_by(run: Path, *options: object) -> str:
    """The command that repeats the run of a folder in another one that is not there yet, with more options."""
    other = next(path for number in count(2) if not (path := run.with_name(f"{run.name}-{number}")).exists())
    return shlex.join(["hexshards", "train", "--config", str(run / CONFIG), "--run", str(other), *map(str, options)])


class RunConfig:
    """Writes the options as they are in the run that starts: rank 0 alone.

    Paths are written absolute, so that the file repeats the run from anywhere. ``mix``: datasets and their weights.
    """

    def __init__(self, spec: TrainSpec, mix: Mapping[str, float]) -> None:
        self._spec, self._mix = spec, mix

    def __call__(self, event: Event, /) -> None:
        """Write where a run starts."""
        if isinstance(event, RunStarted) and not event.run.rank:
            write_whole(event.run.folder / CONFIG, (HEAD + self.text()).encode())

    def text(self) -> str:
        """The file's lines."""
        values = {name: value for name, value in as_recorded(self._spec).items() if name not in ONCE}
        for name in ("data", "init_from", "cache"):
            if values.get(name) is not None:
                values[name] = self._absolute(str(values[name]))
        if self._spec.mix:
            others = list(self._mix.items())[1:]
            values["mix"] = ",".join(f"{self._absolute(path)}={weight:g}" for path, weight in others)
        return toml_text(values)

    def _absolute(self, path: str) -> str:
        return without_secrets(path) if is_url(path) else str(self._spec.absolute(path))
