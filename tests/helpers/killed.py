"""Run a program that is killed as it brings a file into being: before it is renamed, or as it is opened to be written.

    python -m helpers.killed PATTERN TIMES PROGRAM ...

PROGRAM is a file or a module. The file is the one of the TIMES-th path that PATTERN matches. Whatever way a program
writes files, what is left is what a kill in that moment leaves: where it opened the file itself, an empty one.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys

WRITES = os.O_WRONLY | os.O_RDWR


def arm(pattern, times):
    """Kill this process at the file of that name."""
    wanted, left = re.compile(pattern), times

    def hook(event, args):
        nonlocal left
        if event == "os.rename":
            path = args[1]
        elif event == "open" and args[2] & WRITES:
            path = args[0]
        else:
            return
        if not isinstance(path, int) and wanted.search(os.fsdecode(path)):
            left -= 1
            if not left:
                if event == "open":
                    left = -1
                    open(path, "wb").close()
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    pattern, times, program, *sys.argv[1:] = sys.argv[1:]
    arm(pattern, int(times))
    run = runpy.run_path if program.endswith(".py") else runpy.run_module
    sys.argv[0] = program
    run(program, run_name="__main__")
