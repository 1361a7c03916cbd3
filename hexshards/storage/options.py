"""How the files of a dataset come down from a URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hexshards.arguments import fit_fields
from hexshards.options import require


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSpec:
    """How the files of a dataset come down from a URL."""

    cache: Path | None = None
    """Folder they come down to; None: ``hexshards`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    cache_bytes: int = 50 << 30
    """What the cache may hold: 2 billion positions at 23 bytes each."""
    chunk_bytes: int = 4 << 20
    """What one request asks for, and what a kill loses at most."""
    stall_s: float = 60
    """A request that takes longer has failed: 70 kB/s."""
    give_up_s: float = 300
    """Time after which a file that can't be fetched is an error; a request that is under way is waited for."""
    first_wait_s: float = 0.5
    """Wait after the first failure; each further one doubles it, up to 30 s."""
    threads: int = 4
    """Files fetched at once, ahead of their use."""

    def __post_init__(self) -> None:
        fit_fields(self)
        for name in ("cache_bytes", "chunk_bytes", "threads"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        for name in ("stall_s", "give_up_s", "first_wait_s"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))


REMOTE = RemoteSpec()
