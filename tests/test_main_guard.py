import multiprocessing
import subprocess
import sys
from multiprocessing.process import current_process

import pytest
from helpers.small_data import dataset

import hexshards
from hexshards.conversion.executors.processes import _Spawning
from hexshards.errors import WorkerDied
from hexshards.loading import workers
from hexshards.main_guard import EXIT_CODE, lacks_main_guard

LOAD = """
import multiprocessing, sys, hexshards
multiprocessing.set_start_method("spawn", force=True)
for batch in hexshards.loader(sys.argv[1] + "/data", num_workers=1):
    pass
"""

CONVERT = """
import sys, hexshards
hexshards.convert(sys.argv[1] + "/processed", out=sys.argv[1] + "/out", workers=2)
"""


@pytest.mark.parametrize("script", [CONVERT, LOAD], ids=["convert", "loader"])
def test_a_script_without_the_main_guard_is_told_of_it_and_its_workers_say_nothing(script, tmp_path):
    dataset(tmp_path)
    path = tmp_path / "script.py"
    path.write_text(script)
    ended = subprocess.run([sys.executable, path, tmp_path], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 1
    assert 'ran the script again. Put what the script does under `if __name__ == "__main__":`' in ended.stderr
    assert "memory" not in ended.stderr and "another conversion" not in ended.stderr


@pytest.mark.parametrize(
    "call",
    [
        lambda path: hexshards.convert(path, out=path / "out"),
        lambda path: hexshards.sweep(path, {}, out=path / "out"),
        lambda path: hexshards.train(hexshards.TrainSpec(data=path, run=path / "out")),
    ],
    ids=["convert", "sweep", "train"],
)
def test_a_process_that_still_starts_ends_before_it_does_the_script_again(call, tmp_path, monkeypatch):
    monkeypatch.setattr(current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as ended:
        call(tmp_path)
    assert ended.value.code == EXIT_CODE and not (tmp_path / "out").exists()


def test_a_worker_that_ended_before_anyone_looked_is_told_of_the_guard_too():
    how = f"exited unexpectedly with exit code {EXIT_CODE}. Details are lost due to multiprocessing. "
    with pytest.raises(WorkerDied, match="ran the script again"), workers.named():
        raise RuntimeError(f"DataLoader worker (pid 1) {how}")


def test_a_process_that_ended_before_the_next_was_started_is_remembered():
    context = _Spawning()
    for code in (EXIT_CODE, 0):
        process = context.Process(target=sys.exit, args=(code,))
        process.start()
        process.join()
    assert multiprocessing.active_children() == []
    assert lacks_main_guard(context.started)
