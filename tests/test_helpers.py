"""What tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from _multiprocessing import SemLock

import pytest
from helpers import quick, warm, warm_worker
from helpers.processes import SHARED_MEMORY, hear_signals, left_in_shared_memory, processes, wait_for


@pytest.mark.parametrize(
    ("name", "usual"), [("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)], ids=["SIGINT", "SIGHUP"]
)
def test_what_is_run_in_the_background_hears_signals_and_a_handler_stays(name, usual):
    if (number := getattr(signal, name, None)) is None:
        pytest.skip("no such signal on this system")
    before = signal.signal(number, signal.SIG_IGN)
    try:
        hear_signals()
        assert signal.getsignal(number) is usual
        signal.signal(number, mine := lambda *_: None)
        hear_signals()
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_a_quick_test_starts_no_process(pytestconfig):
    for event in quick.STARTS:
        with pytest.raises(RuntimeError, match="a quick test starts no process"):
            quick._refuse(event, ())
    quick._refuse("open", ("file",))
    if pytestconfig.getoption("quick"):
        with pytest.raises(RuntimeError, match="a quick test starts no process"):
            os.system("true")


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        ("import sys; print(sys.argv[1]); sys.exit(3)", (3, "word\n", "")),
        ("import sys; sys.exit('why')", (1, "", "why\n")),
        ("import os; os.kill(os.getpid(), 9)", (-9, "", "")),
        ("import sys; print('hexshards' in sys.modules, __name__)", (0, "False __main__\n", "")),
        ("import os; print(os.getcwd(), os.environ['WHAT'])", (0, "/ word\n", "")),
    ],
)
def test_a_warm_program_ends_as_a_cold_one(source, ended):
    program = warm.run([sys.executable, "-c", source, "word"], cwd="/", env={**os.environ, "WHAT": "word"})
    assert (program.returncode, program.stdout, program.stderr) == ended


def test_a_warm_program_hears_signals_and_one_that_is_left_is_killed():
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with warm.Program(command) as program:
        program.terminate()
        assert program.wait(60) == -signal.SIGTERM
    with warm.Program(command) as program:
        assert program.poll() is None
    wait_for(lambda: not os.path.exists(f"/proc/{program.pid}"))


def test_a_warm_program_ends_with_whoever_asked_for_it_in_whatever_way():
    with warm.Program([sys.executable, "-c", "import signal; signal.pause()"]) as program:
        (watcher,) = (parent for pid, parent, _, _ in processes() if pid == program.pid)
        os.kill(watcher, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{program.pid}"))


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        ("import os, sys; print(sys.argv[1], os.environ['WHAT']); sys.exit(130)", (130, "word here\n")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", (-signal.SIGKILL, "")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", (-signal.SIGTERM, "")),
    ],
)
def test_a_warm_worker_ends_as_its_program(source, ended):
    command = [sys.executable, warm_worker.__file__, warm.address(), sys.executable, "-c", source, "word"]
    worker = subprocess.run(command, env={**os.environ, "WHAT": "here"}, capture_output=True, text=True, timeout=60)
    assert (worker.returncode, worker.stdout) == ended


def test_a_warm_worker_passes_on_what_stops_it():
    source = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True); signal.pause()"
    command = [sys.executable, warm_worker.__file__, warm.address(), sys.executable, "-c", source]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "ready\n"
        worker.terminate()
        assert worker.wait(60) == 7


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="shared memory is looked at on Linux")
def test_what_is_left_in_shared_memory_is_what_no_process_uses():
    name = f"test-{os.getpid()}"
    mapped, path = SemLock(1, 1, 1, f"/{name}", False), SHARED_MEMORY / f"sem.{name}"
    opened = SHARED_MEMORY / name
    try:
        with opened.open("w"):
            assert not {str(opened), str(path)} & left_in_shared_memory()
        assert str(opened) in left_in_shared_memory() and str(path) not in left_in_shared_memory()
        del mapped
        assert str(path) in left_in_shared_memory()
    finally:
        opened.unlink()
        path.unlink()
