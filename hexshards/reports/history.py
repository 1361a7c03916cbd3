"""Metrics history of a run, read back from ``metrics.jsonl``; a number that is not there is NaN.

A table of runs needs no array, so NumPy is loaded where one is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hexshards.errors import DataError, escaped, printable
from hexshards.storage.files import nearest_path, open_regular
from hexshards.training.tracking.records import entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 1 << 62
"""No number of a run is larger."""

_NAME = 40
"""Letters of a run's path that stand beside its curves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The records of a run's mini-epochs (M), in their order; there is one at least."""

    name: str
    records: tuple[Mapping[str, Any], ...]

    def column(self, path: str) -> NDArray[np.float64]:
        """A number of each record, by its path, such as ``val.policy_loss``: (M,) float64."""
        import numpy as np

        return np.array([number(record, path) for record in self.records])

    def newest(self, path: str) -> Any:
        """What stands at a path in the newest record that has it; None where none does."""
        values = (entry(record, path) for record in reversed(self.records))
        return next((each for each in values if each is not None), None)

    def table(self, path: str) -> dict[str, NDArray[np.float64]]:
        """The newest table of equally long columns of numbers at a path; empty where there is none."""
        newest = self.newest(path)
        columns = {name: _numbers(part) for name, part in _mapping(newest).items() if isinstance(part, list)}
        return columns if len({len(part) for part in columns.values()}) == 1 else {}


def read_history(run: str | Path) -> History:
    """The history of the run in a folder.

    Raises FileNotFoundError where no mini-epoch ended, DataError for a line that is not one of ours.
    """
    path = Path(run) / "metrics.jsonl"
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        lines = []
    except OSError as error:
        raise _damaged(f"cannot be read ({error.strerror})", path) from None
    except UnicodeDecodeError:
        raise _damaged("holds bytes that are no text", path) from None
    if not lines:
        hint = "" if path.exists() else nearest_path(Path(run), lambda beside: (beside / path.name).exists())
        none = "no run here with a finished mini-epoch (no metrics.jsonl, or an empty one)"
        raise FileNotFoundError(f"{escaped(run)}: {none}{hint}")
    records = tuple(_record(line, f"{path}, line {place}") for place, line in enumerate(lines, start=1))
    return History(name=_name(run), records=records)


def number(record: Mapping[str, Any], path: str) -> float:
    """The number at a path; NaN where there is none."""
    return _number(entry(record, path))


def _name(run: str | Path) -> str:
    # runs differ at the end of their paths
    path = str(run)
    return printable(path if len(path) <= _NAME else "…" + path[1 - _NAME :])


def _record(line: str, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not 0 <= number(record, "samples_seen") < MOST:
        raise _damaged(f"is not the record of a mini-epoch: {printable(line, width=40)}", where)
    return record


def _damaged(problem: str, where: object) -> DataError:
    return DataError(
        problem, where=str(where), fix="Start the run again, which writes the log anew, or remove the line"
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(values: list[Any]) -> NDArray[np.float64]:
    import numpy as np

    return np.array([_number(value) for value in values])


def _number(value: object) -> float:
    # beyond MOST a number means nothing, and a plot of it cannot be drawn
    there = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MOST
    return float(value) if there else math.nan  # type: ignore[arg-type]  # a number, then
