"""Checkpoint retention follows from a run's records alone, so a kill in the middle of removing changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hexshards.arguments import fit_fields
from hexshards.errors import escaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which checkpoints stay. The best one stays as ``best.pt``, whatever is removed."""

    last: int | None = None
    """The newest so many; None: all. With 2 or more there is another when the newest is damaged."""
    every: int | None = None
    """Beside them every so many-th of the run."""

    def __post_init__(self) -> None:
        fit_fields(self)
        for name, count in (("last", self.last), ("every", self.every)):
            if count is not None and count < 1:
                raise ValueError(f"keep_{escaped(name)} must be at least 1, got {count!r}")

    def superseded(self, names: Sequence[str]) -> list[str]:
        """Those of a run's checkpoints, oldest first, that may go."""
        if self.last is None:
            return []
        older = names[: -self.last]
        return [name for number, name in enumerate(older, start=1) if not self.every or number % self.every]
