"""File locks: one leaves with the process that holds it, however that ends, so none is ever stale."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hexshards.errors import escaped


@contextmanager
def locked(path: Path, *, taken: str) -> Iterator[None]:
    """Hold the file ``path`` alone. Raises FileExistsError, saying ``taken``, when another process holds it."""
    with open(path, "w") as file:
        try:
            import fcntl
        except ImportError:  # Windows has no flock; there two at once are the user's to avoid
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FileExistsError(escaped(taken)) from None
        # the one that held it may have ended, and removed it, between our opening and our locking
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise FileExistsError(escaped(taken))
        yield
