"""The processes of this machine, what they leave in shared memory, and waiting for something to happen in them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from helpers.small_data import CUT

OPTIONS = [part for name, value in CUT.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def hear_signals():
    """Hear signals that a shell, or nohup, ignores for what runs in the background: what tests start inherits that."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def processes():
    """Process, parent, group and command line of all that run."""
    return [row for folder in Path("/proc").glob("[0-9]*") if (row := _row(folder))]


def _row(folder):
    """None for one that has ended."""
    with suppress(OSError):
        state, parent, group = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return None if state in "ZX" else (int(folder.name), int(parent), int(group), command)


SHARED_MEMORY = Path("/dev/shm")


def left_in_shared_memory():
    """Files there that no process uses: left behind, where those that other tests and programs are at are in use."""
    files = {path.inode(): path.path for path in os.scandir(SHARED_MEMORY) if path.is_file()}
    used = {inode for process in Path("/proc").glob("[0-9]*") for inode in _used_by(process)}
    return {path for inode, path in files.items() if inode not in used and os.path.exists(path)}


def _used_by(process):
    """Inodes of what it has mapped or open there, as far as it has not ended meanwhile."""
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if f" {SHARED_MEMORY}/" in line:
                yield int(line.split()[4])
        for each in (process / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(each).startswith(f"{SHARED_MEMORY}/"):
                    yield each.stat().st_ino


def wait_for(happened, *, wait_s=60.0):
    end = time.monotonic() + wait_s
    while not (answer := happened()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)
    return answer
