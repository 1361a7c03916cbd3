"""The rule of Windows on this machine: a file that this process has open can be neither removed nor renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hexshards.storage import locks


def open_files_stay(monkeypatch) -> None:
    """From now on ``os.unlink``, ``os.replace`` and ``os.rename`` refuse what is open, as they do there."""
    monkeypatch.setattr(locks, "OPEN_FILES_CAN_GO", False)
    for name in ("unlink", "remove", "replace", "rename"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    def checked(path: Any, *others: Any, **options: Any) -> Any:
        for each in [(path, options.get("dir_fd", options.get("src_dir_fd"))), *((other, None) for other in others)]:
            if is_open(*each):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(each[0]))
        return call(path, *others, **options)

    return checked


def is_open(path: Any, folder: int | None) -> bool:
    with suppress(OSError):
        wanted = os.stat(path, dir_fd=folder, follow_symlinks=False)
        for handle in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.path.samestat(os.fstat(int(handle)), wanted):
                    return True
    return False
