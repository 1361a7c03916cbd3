"""TensorBoard log of a run's records: each number by its name, over the samples seen. A hook."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hexshards.errors import escaped
from hexshards.training.tracking.hooks import Event, RunEnded, RunStarted, Saved

FOLDER = "tensorboard"
"""In the run's folder."""

NOT_METRICS = {"epoch", "mini_epoch", "samples_seen", "seconds", "checkpoint", "time"}
"""What tells mini-epochs apart, and is no curve."""


class TensorBoardLog:
    """Writes after each mini-epoch; what a run wrote past the checkpoint it goes on from is no longer shown.

    Raises ValueError, saying what to install, when it is made without TensorBoard.
    """

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of its own imports
                from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"TensorBoard is not installed ({escaped(error)}): pip install 'hexshards[tensorboard]'"
            ) from None
        self._open, self._links = SummaryWriter, ExitStack()

    def __call__(self, event: Event, /) -> None:
        """Write what happened; rank 0 alone."""
        if event.run.rank:
            return
        match event:
            case RunStarted(run=run, samples_seen=seen):
                self._writer = self._open(self._spoken(run.folder / FOLDER), purge_step=seen + 1)
            case Saved(record=record) if record:
                for name, value in numbers(record):
                    self._writer.add_scalar(name, value, record["samples_seen"])
                self._writer.flush()
            case RunEnded():
                self._writer.close()
                self._links.close()

    def _spoken(self, folder: Path) -> str:
        """A path of the folder that is UTF-8, which TensorBoard takes no other than: a link, where it has none."""
        if not _is_utf8(folder):
            folder.mkdir(parents=True, exist_ok=True)
            link = Path(self._links.enter_context(TemporaryDirectory(prefix="hexshards-"))) / FOLDER
            link.symlink_to(folder.absolute())
            folder = link
        return str(folder)


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record, those of its parts under ``part/name``."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and prefix + name not in NOT_METRICS:
            yield prefix + name, value
