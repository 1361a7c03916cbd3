"""The processes of this machine, and waiting for something to happen in them."""

from __future__ import annotations

import subprocess
import time

from helpers.small_data import CUT

OPTIONS = [part for name, value in CUT.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def processes():
    """Process, parent, group and command line of all that run."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 4) for line in listed.stdout.splitlines()]
    return [(int(row[0]), int(row[1]), int(row[2]), row[4]) for row in rows if not row[3].startswith("Z")]


def wait_for(happened, *, wait_s=60.0):
    end = time.monotonic() + wait_s
    while not (answer := happened()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)
    return answer
