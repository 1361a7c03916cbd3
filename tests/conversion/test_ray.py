from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers import processes
from helpers.small_data import CUT, files_of, processed

from hexshards.conversion.convert import convert
from hexshards.conversion.executors import ray_cluster
from hexshards.errors import DataError, InputRejected

ray = pytest.importorskip(
    "ray", reason="Ray is not installed (pip install 'hexshards[ray]'), so NOTHING OF --engine ray IS CHECKED"
)

PATIENCE_S = 120

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="Ray's workers are found in /proc"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return processed(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def expected(sources, tmp_path_factory):
    """The dataset that the local engine makes."""
    out = tmp_path_factory.mktemp("local") / "data"
    convert(sources, out=out, **CUT)
    return files_of(out)


LARGE_CUT = {"shard_positions": 4096, "block_positions": 512}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Files that each take some tenths of a second to read, and the dataset that the local engine makes of them."""
    folder = tmp_path_factory.mktemp("large")
    processed(folder / "in", games=180, side=13, games_per_file=30)
    convert(folder / "in", out=folder / "data", **LARGE_CUT)
    return folder / "in", files_of(folder / "data")


@pytest.fixture(scope="module")
def two_workers():
    """A real Ray with two workers, which conversions find running."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def runner(two_workers, tmp_path):
    with ray_cluster.cluster(2, folder=tmp_path, ray=ray) as runner:
        yield runner


def working():
    """Processes that run a task at this moment, by Ray's name for them."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_work"):
                pids.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def wait_for(happened):
    return processes.wait_for(happened, wait_s=PATIENCE_S)


def in_background(task):
    thread = threading.Thread(target=task)
    thread.start()
    return thread


# the same bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_ray_makes_the_bytes_that_the_local_engine_makes(sources, expected, tmp_path, workers):
    convert(sources, out=tmp_path / "data", engine="ray", workers=workers, **CUT)
    assert files_of(tmp_path / "data") == expected
    assert ray.is_initialized(), "a Ray that was found running was shut down"


@pytest.mark.usefixtures("two_workers")
def test_relative_paths_mean_what_they_mean_to_the_caller(sources, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(os.path.relpath(sources[0].parent), out="data", engine="ray", workers=2, **CUT)
    assert files_of(tmp_path / "data") == expected


@pytest.mark.usefixtures("two_workers")
def test_a_refused_file_is_refused_in_the_same_words(tmp_path):
    (tmp_path / "a_processed.pkl.gz").write_bytes(b"no gzip at all")
    said = []
    for number, engine in enumerate(["local", "ray"]):
        with pytest.raises(InputRejected) as caught:
            convert(tmp_path / "a_processed.pkl.gz", out=tmp_path / str(number), engine=engine)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize("moment", ["files_done", "shards_done"], ids=["reading", "writing"])
def test_a_worker_killed_in_the_middle_changes_no_byte(large, tmp_path, moment):
    now, killers, killed = {}, [], []

    def kill_one():
        (pid, *_) = wait_for(working)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    def strike(progress):
        now.update(files_done=progress.files_done, shards_done=progress.shards_done)
        if now[moment] == 1 and not killers:
            killers.append(in_background(kill_one))

    convert(large[0], out=tmp_path / "data", engine="ray", workers=2, progress=strike, **LARGE_CUT)
    killers[0].join()
    assert len(killed) == 1
    assert files_of(tmp_path / "data") == large[1]


# tasks --------------------------------------------------------------------------------------------------------------
# Tasks are made inside the tests, because Ray sends such functions whole; its workers could not import this module.


def test_a_task_whose_process_is_killed_is_run_again(runner, tmp_path):
    def sleep_once(name):
        mark = tmp_path / name
        if name == "0" and not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(PATIENCE_S)
        return name, os.getpid()

    def kill_sleeper():
        os.kill(int(wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "0").read_text())), signal.SIGKILL)

    killer = in_background(kill_sleeper)
    results = dict(runner.each(sleep_once, [(str(number),) for number in range(8)], at_once=2))
    killer.join()
    assert sorted(results) == [str(number) for number in range(8)]
    assert results["0"] != int((tmp_path / "0").read_text())


def test_a_task_that_kills_every_process_ends_in_an_error_that_says_what_to_do(runner):
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match=r"Ray: could not finish a task: The worker died.*docs/ray\.md"):
        list(runner.each(die, [()], at_once=2))


@pytest.mark.parametrize(
    "error",
    [InputRejected("is empty", where="a.pkl.gz", fix="Leave it out"), OSError(28, "No space left"), KeyError("stones")],
    ids=lambda error: type(error).__name__,
)
def test_what_a_task_raises_arrives_as_itself(runner, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        list(runner.each(fail, [()], at_once=2))
    assert type(caught.value) is type(error)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


def test_no_more_jobs_are_taken_than_there_are_workers(runner):
    taken = []

    def jobs():
        for number in range(9):
            taken.append(number)
            yield (number,)

    for done, _ in enumerate(runner.each(lambda number: number, jobs(), at_once=2), start=1):
        assert len(taken) <= done + 1
    assert len(taken) == 9


def test_tasks_left_behind_by_an_error_are_stopped(runner):
    def fail_or_sleep(number):
        if number == 0:
            raise KeyError(number)
        time.sleep(PATIENCE_S)

    with pytest.raises(KeyError):
        list(runner.each(fail_or_sleep, [(0,), (1,)], at_once=2))
    wait_for(lambda: not working())


# machines -----------------------------------------------------------------------------------------------------------


def test_a_machine_that_does_not_share_the_folder_is_named(runner, tmp_path):
    (proof,) = tmp_path.iterdir()
    proof.unlink()  # as on a machine that mounts something else there
    with pytest.raises(DataError, match=r"Ray worker on .*: does not see .*every machine mounts at the same path"):
        list(runner.each(lambda: 1, [()], at_once=2))
    proof.touch()


def test_a_machine_with_other_versions_is_named(tmp_path):
    versions = {**ray_cluster._versions(), "zstandard": "0.1"}
    site = ray_cluster._Site(tmp_path, tmp_path, versions)
    with pytest.raises(
        DataError, match=r"Ray worker on .*: has .*zstandard .*, not .*zstandard 0\.1\. Install the same"
    ):
        site.check()


# whole commands -----------------------------------------------------------------------------------------------------


def in_session(session):
    """Processes of a session that still run, and their names; a session is what stands for a machine here."""
    listed = subprocess.run(["ps", "-eo", "sess=,pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return {int(pid): name for sess, pid, stat, name in rows if int(sess) == session and not stat.startswith("Z")}


def kill_session(session):
    while left := in_session(session):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start():
    """Start a command in a session of its own; what is left of it in the end is killed."""
    started = []

    def start(*command, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        kill_session(process.pid)
        process.communicate()


def conversion(sources, out, cut):
    options = [part for name, value in cut.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["hexshards", "convert", sources, "--out", out, "--engine", "ray", "--workers", 2, *options]


def test_the_command_starts_a_ray_of_its_own_says_nothing_of_it_and_leaves_none(start, sources, expected, tmp_path):
    process = start(*conversion(sources[0].parent, tmp_path / "out", CUT))
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert errors.startswith("found 3 processed files:"), "as without Ray"
    assert "ray" not in (said + errors).lower().replace(str(tmp_path), "")
    assert files_of(tmp_path / "out") == expected
    wait_for(lambda: not in_session(process.pid))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_a_command_that_is_stopped_leaves_no_worker_and_goes_on_when_given_again(start, large, tmp_path, sign):
    process = start(*conversion(large[0], tmp_path / "out", LARGE_CUT))
    wait_for(lambda: list(tmp_path.glob("out/.partial/*.npy")))
    process.send_signal(sign)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert not (tmp_path / "out" / "index.json").exists(), "stopped too late to prove anything"
    # after SIGKILL some servants of Ray, which do no work, stay for a minute
    wait_for(lambda: not any("ray::_work" in name or "raylet" in name for name in in_session(process.pid).values()))
    convert(large[0], out=tmp_path / "out", **LARGE_CUT)
    assert files_of(tmp_path / "out") == large[1]


def nodes(start, known):
    """How many machines a cluster has."""
    return start("ray.scripts.scripts", "status", **known).communicate()[0].count(" node_")


@pytest.fixture
def cluster(start):
    """A real cluster: a head that does no work, and two machines of one worker each."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    node = ["ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    with TemporaryDirectory(prefix="ray") as folder:  # tmp_path is too long for the names of Ray's sockets
        head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}"]
        start(*node, *head, "--node-ip-address=127.0.0.1", **known)
        machines = []
        for count in (1, 2):
            wait_for(lambda count=count: nodes(start, known) == count)
            machines.append(start(*node, f"--address=127.0.0.1:{port}", "--num-cpus=1", **known))
        wait_for(lambda: nodes(start, known) == 3)
        yield known, machines


def test_a_killed_worker_is_told_on_stderr_and_leaves_stdout_to_the_result(start, large, tmp_path):
    process = start(*conversion(large[0], tmp_path / "out", LARGE_CUT), "--json")
    os.kill(wait_for(lambda: set(working()) & set(in_session(process.pid))).pop(), signal.SIGKILL)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert "A worker died" in errors
    assert json.loads(said)["out"] == str(tmp_path / "out")
    assert files_of(tmp_path / "out") == large[1]


def test_a_machine_of_a_cluster_that_dies_in_the_middle_changes_no_byte(cluster, start, large, tmp_path):
    known, machines = cluster
    process = start(*conversion(large[0], tmp_path / "out", LARGE_CUT), **known)
    for machine in machines:
        wait_for(lambda machine=machine: set(working()) & set(in_session(machine.pid)))
    kill_session(machines[0].pid)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said + errors
    assert "will be retried" in errors
    assert files_of(tmp_path / "out") == large[1]
