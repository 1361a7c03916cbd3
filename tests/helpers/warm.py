"""Start programs by a fork of a process that has imported torch: real ones, for a fifth of the processor time (Linux).

``Program`` and ``run`` stand for ``subprocess.Popen`` and ``run``, for commands of Python: each gets a process with
arguments, folder, environment, output, signals and exit code of its own. Nothing of hexshards is imported before, so
that a program which forgets an import fails here too. What a start itself must show (what is imported, how much memory
it takes) is for ``subprocess``. This file run as a program is the process from which the others begin.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

PRELOADED = ("torch", "torch.utils.data", "numba", "numpy", "webdataset", "fsspec", "msgspec", "typer", "rich")
# what torch imports by itself in the first step of an optimizer takes as long as torch
PRELOADED += ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg")
CONSOLE_SCRIPT = "hexshards"
SERVER = "HEXSHARDS_TESTS_WARM"
"""Of the environment: where programs are asked for, when those who ask are several."""

# the side of the tests ------------------------------------------------------------------------------------------------


@cache
def address() -> str:
    """Where programs are asked for: what ``SERVER`` says, else what this process starts, which ends with it."""
    if SERVER in os.environ:
        return os.environ[SERVER]
    name = f"warm-{os.getpid()}"
    # who asks while it still imports, waits
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(f"\0{name}")
        door.listen()
        process = subprocess.Popen(
            [sys.executable, __file__, str(door.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[door.fileno()],
            # how many threads there are is fixed when torch is imported
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    atexit.register(process.communicate)
    return name


class Program:
    """What ``subprocess.Popen`` is, as far as tests ask. It leads a group of processes of its own.

    ``tty`` is a terminal to use for all; with ``pipe`` what it prints can be read while it runs.
    """

    def __init__(
        self, command: Sequence[Any], *, cwd: Any = None, env: Any = None, tty: int | None = None, pipe: bool = False
    ) -> None:
        self.args, self.returncode = [str(part) for part in command], None
        self.stderr: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        if pipe:
            reading, writing = os.pipe()
            self.stdout: IO[str] | None = os.fdopen(reading)
        else:
            self.stdout = tempfile.TemporaryFile("w+")  # noqa: SIM115
            writing = os.dup(self.stdout.fileno())
        self._piped = pipe
        asked = {"command": self.args, "cwd": str(cwd or os.getcwd()), "env": dict(env or os.environ)}
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(f"\0{address()}")
        with open(os.devnull, "rb") as nothing:
            own = [nothing.fileno(), writing, self.stderr.fileno()]
            socket.send_fds(self._line, [json.dumps(asked).encode()], own if tty is None else [tty] * 3)
        os.close(writing)
        self.pid = int(self._line.recv(100))

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        out: list[str] = []
        if self._piped and self.stdout is not None:
            reader = threading.Thread(target=lambda: out.append(self.stdout.read()), daemon=True)
            reader.start()
            reader.join(timeout)
        self.wait(timeout)
        said = "".join(out) if self._piped else self._text(self.stdout), self._text(self.stderr)
        self.close()
        return said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """A program that still runs is killed when its line is closed: no test leaves one behind."""
        for each in (self._line, self.stdout, self.stderr):
            if each is not None:
                each.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._line.recv(100)))
        return self.returncode

    @staticmethod
    def _text(file: Any) -> str:
        file.seek(0)
        return str(file.read())


def run(command: Sequence[Any], *, timeout: float = 300, check: bool = False, **options: Any) -> Any:
    """A program from its begin to its end; ``stdout`` and ``stderr`` as text."""
    with Program(command, **options) as program:
        out, err = program.communicate(timeout)
        ended = subprocess.CompletedProcess(program.args, program.returncode or 0, out, err)
    if check:
        ended.check_returncode()
    return ended


# the side of the programs ---------------------------------------------------------------------------------------------


def _serve(handle: int) -> dict[str, Any]:
    """Fork at each request; what comes back is, in the process of a program, what was asked for."""
    with socket.socket(fileno=handle) as door:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            if sys.stdin in select.select([door, sys.stdin], [], [])[0]:
                os._exit(0)  # whoever asks has ended
            line, _ = door.accept()
            if os.fork() == 0:
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, handles, _, _ = socket.recv_fds(line, 1 << 20, 3)
    watcher, program = os.getpid(), os.fork()
    if program:
        _watch(program, line)
    _end_with(watcher)
    line.close()
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    return dict(json.loads(data))


def _watch(program: int, line: socket.socket) -> None:
    """Tell the one who asked how it ended; when nobody listens any more, kill it."""
    for handle in (0, 1):
        os.close(handle)
    with suppress(BrokenPipeError):  # nobody listens already
        line.send(str(program).encode())
    ends = os.pidfd_open(program)
    if line in select.select([line, ends], [], [])[0]:
        os.kill(program, signal.SIGKILL)
    _, status = os.waitpid(program, 0)
    try:
        line.send(str(status).encode())
    finally:
        os._exit(0)


def _open_streams() -> None:
    """A terminal, a file and a pipe are read and written each in its own way, which is chosen when a stream opens."""
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    lines = 1 if os.isatty(1) else -1
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", lines, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)


PR_SET_PDEATHSIG = 1


def _end_with(watcher: int) -> None:
    """End with the one who watches, and when Python has: what libraries of torch and LLVM tidy up then takes long."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watcher:
        os._exit(1)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


def _become(asked: dict[str, Any]) -> None:
    """Do what ``python`` would with the command."""
    _open_streams()
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    program, *arguments = asked["command"]
    if Path(program).name == CONSOLE_SCRIPT:
        sys.argv = [program, *arguments]
        sys.path[0] = str(Path(program).parent)
        runpy.run_path(program, run_name="__main__")
    elif arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        main = sys.modules["__main__"].__dict__
        for name in [name for name in main if not name.startswith("__")] + ["__file__"]:
            main.pop(name, None)
        exec(compile(arguments[1], "<string>", "exec"), main)
    elif arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for module in PRELOADED:
        with suppress(ModuleNotFoundError):  # what is optional
            __import__(module)
    gc.freeze()  # what all share is neither looked through nor copied at their ends
    _become(_serve(int(sys.argv[1])))
