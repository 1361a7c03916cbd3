"""What tests rely on."""

from __future__ import annotations

import os
import signal
import sys
from _multiprocessing import SemLock

import pytest
from helpers import quick, warm
from helpers.processes import SHARED_MEMORY, left_in_shared_memory, wait_for


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
