from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from helpers.processes import OPTIONS, SHARED_MEMORY, left_in_shared_memory, processes, wait_for
from helpers.small_data import CUT, files_of, processed

from hexshards.conversion.convert import convert
from hexshards.dataset.verify import verify

KILLS, KILLS_IN_A_ROW = 20, 10


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    processed(folder, games=120, games_per_file=5)
    return folder


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "data"
    convert(sources, out=out, **CUT)
    return out


STARTED = list[subprocess.Popen]()


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A test that fails leaves no conversion behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def started(sources, out):
    command = [sys.executable, "-m", "hexshards", "convert", str(sources), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(
        [*command, *OPTIONS], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    return process


def workers_of(process):
    return [pid for pid, parent, _, command in processes() if parent == process.pid and "spawn_main" in command]


def made(out):
    """How many files there are so far: a clock of the conversion's progress."""
    return sum(1 for folder in (out, out / ".partial") if folder.is_dir() for _ in os.scandir(folder))


def spills_of(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / ".partial").glob("*.spill.json")}


def killed(sources, out, *, files, wait_s, whom):
    """Whether a conversion was killed when it had made so many files, and a moment later; else it was done before."""
    process = started(sources, out)
    try:
        wait_for(lambda: made(out) >= files or process.poll() is not None)
        time.sleep(wait_s)
        workers = workers_of(process) if whom else []
        if workers:
            os.kill(workers[whom % len(workers)], signal.SIGKILL)
            _, told = process.communicate(timeout=60)
            killed = process.returncode != 0
            assert not killed or "a worker process was killed" in told
        else:
            process.kill()
            killed = process.wait() != 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    # nothing is left running, whoever was killed
    wait_for(lambda: not [pid for pid, _, group, _ in processes() if group == process.pid])
    return killed


def left_behind():
    return {path for path in left_in_shared_memory() if path.startswith(f"{SHARED_MEMORY}/psm_")}


def test_killed_at_twenty_random_points_it_goes_on_and_ends_with_the_same_bytes(sources, whole, tmp_path):
    expected, total = files_of(whole), 24 * 5 + 3 * len(files_of(whole))
    words = np.random.Philox(20).random_raw(1000).tolist()
    others = left_behind()
    kills = victims = episodes = 0
    while kills < KILLS:
        out = tmp_path / f"out{episodes}"
        episodes += 1
        assert episodes <= KILLS, "conversions end before they can be killed"
        for moment in sorted(words.pop() % total for _ in range(KILLS_IN_A_ROW)):
            before, whom = spills_of(out), words.pop() % 3
            if not killed(sources, out, files=moment, wait_s=(words.pop() % 50) / 1000, whom=whom):
                break
            kills, victims = kills + 1, victims + bool(whom)
            # what was read before is still there, untouched
            assert before.items() <= spills_of(out).items()
        if not (out / "index.json").exists() or (out / ".partial").exists():
            final = started(sources, out)
            _, told = final.communicate(timeout=60)
            assert final.returncode == 0, told
        assert files_of(out) == expected
    assert 0 < victims < kills
    wait_for(lambda: not left_behind() - others)


def assert_interrupted(process):
    _, told = process.communicate(timeout=60)
    # before it, what was found is told
    assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted; give the same command again to go on")
    assert told.count("interrupted") == 1 and "Traceback" not in told and "error" not in told
    wait_for(lambda: process.pid not in {group for _, _, group, _ in processes()})


@pytest.mark.parametrize("gap_s", [0.001, 0.3])
@pytest.mark.parametrize("begun", [".partial", ".partial/*.npy"])
def test_ctrl_c_twice_leaves_at_once_with_one_line_and_no_process(sources, tmp_path, begun, gap_s):
    out = tmp_path / "out"
    process = started(sources, out)
    wait_for(lambda: list(out.glob(begun)))
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(gap_s)
    assert_interrupted(process)


@pytest.mark.parametrize("whom", ["process", "group"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP], ids=lambda sign: sign.name)
def test_a_scheduler_or_a_closed_terminal_ends_it_as_ctrl_c_does(sources, whole, tmp_path, sign, whom):
    out = tmp_path / "out"
    process = started(sources, out)
    wait_for(lambda: list(out.glob(".partial/*.npy")))
    (os.killpg if whom == "group" else os.kill)(process.pid, sign)
    assert_interrupted(process)
    assert not (out / "index.json").exists()
    convert(sources, out=out, **CUT)
    assert files_of(out) == files_of(whole)


def test_sigterm_ends_it_also_where_ctrl_c_is_ignored_as_in_a_job_of_a_shell(sources, tmp_path):
    out = tmp_path / "out"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started(sources, out)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: list(out.glob(".partial/*.npy")))
    process.send_signal(signal.SIGTERM)
    assert_interrupted(process)


def test_a_second_start_is_refused_while_the_first_still_runs(sources, whole, tmp_path):
    out = tmp_path / "out"
    first = started(sources, out)
    wait_for(lambda: list(out.glob(".partial/*.npy")))
    second = started(sources, out)
    _, told = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another conversion into this folder is running" in told
    assert first.wait(60) == 0
    first.stderr.close()
    assert files_of(out) == files_of(whole)


def test_a_lock_file_that_nobody_holds_is_no_lock(sources, whole, tmp_path):
    (tmp_path / "out" / ".partial").mkdir(parents=True)
    (tmp_path / "out" / ".partial" / "lock").touch()
    convert(sources, out=tmp_path / "out", **CUT)
    assert files_of(tmp_path / "out") == files_of(whole)


def test_killed_while_it_tidied_up_the_same_command_only_tidies_up(sources, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        convert(sources, out=tmp_path / "cut", **CUT, progress=interrupt)
    shutil.copytree(tmp_path / "cut" / ".partial", out / ".partial")
    report = convert(sources, out=out, **CUT)
    assert report.positions == sum(split.positions for split in report.index.splits.values())
    assert files_of(out) == files_of(whole)
    with pytest.raises(FileExistsError, match="finished dataset"):
        convert(sources, out=out, **CUT)


def interrupt(now):
    if now.files_done == 3:
        raise KeyboardInterrupt


def test_shards_that_were_written_are_not_written_again(sources, whole, tmp_path):
    out = tmp_path / "out"

    def stop(now):
        if now.shards_done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(sources, out=out, **CUT, progress=stop)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(before) == 9
    convert(sources, out=out, **CUT)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert before.items() <= after.items()
    assert files_of(out) == files_of(whole)


TELL_WHAT_IS_OPENED = """
import sys
from pathlib import Path
from hexshards.conversion.convert import convert
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".pkl.gz") and print(Path(args[0]).name))
convert(sys.argv[1], out=sys.argv[2], val_fraction=0.2, shard_positions=96, block_positions=16)
"""


def test_a_file_that_was_read_is_not_even_opened_again(sources, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        convert(sources, out=tmp_path / "out", **CUT, progress=interrupt)
    notes = [json.loads(path.read_text()) for path in (tmp_path / "out" / ".partial").glob("*.spill.json")]
    read = {note["inputs"][0]["name"] for note in notes}
    command = [sys.executable, "-c", TELL_WHAT_IS_OPENED, sources, tmp_path / "out"]
    opened = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert len(read) == 3
    assert set(opened) == {path.name for path in sources.iterdir()} - read
    assert files_of(tmp_path / "out") == files_of(whole)


def test_what_was_killed_half_way_leaves_no_half_written_file(sources, whole, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        convert(sources, out=out, **CUT, progress=interrupt)
    for name in ("feed.train.rows.npy.4711.partial", "feed.spill.json.4711.partial"):
        (out / ".partial" / name).write_bytes(b"half")
    seen = []
    convert(sources, out=out, **CUT, progress=lambda now: seen.append(set(os.listdir(out / ".partial"))))
    assert not [name for name in seen[0] if "4711" in name]
    assert verify(out).problems == ()
    assert files_of(out) == files_of(whole)
