from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
from helpers.cli import call
from helpers.processes import OPTIONS, wait_for
from helpers.small_data import CUT, files_of, positions_of, processed

from hexshards.conversion.convert import convert
from hexshards.conversion.inbox import Inbox
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.random_files import trmph_line
from hexshards.conversion.watch import (
    Added,
    Held,
    PassedOver,
    SetAside,
    WatchEnded,
    watch,
)
from hexshards.conversion.workdir import held
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.game.random_games import play


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def games(path, count=6, *, seed=0, side=5):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(trmph_line(game) + "\n" for game in play(count, side=side, seed=seed)))
    return path


def watched(inbox, data, **options):
    """What a watch of two looks says, by kinds."""
    said = []
    watch(inbox, dataset=data, every_s=0, once=True, tell=said.append, **{**CUT, **options})
    return {
        kind: [event for event in said if type(event) is kind] for kind in (Added, SetAside, PassedOver, WatchEnded)
    }


def test_what_comes_is_appended_as_append_does_it_byte_for_byte(inbox, tmp_path):
    first, second = games(inbox / "a.trmph"), games(inbox / "sub" / "b.trmph", seed=1)
    second = second.rename(tmp_path / "b.trmph")
    made = watched(inbox, tmp_path / "data")
    convert(first, out=tmp_path / "by_hand", **CUT)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "by_hand")
    assert made[Added][0].dataset == {
        name: split.positions for name, split in read_index(tmp_path / "data").splits.items()
    }
    second.rename(inbox / "sub" / "b.trmph")
    again = watched(inbox, tmp_path / "data")
    convert(inbox / "sub", out=tmp_path / "by_hand", append=True)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "by_hand")
    # the first file is known by its contents, and stays where it is
    (added,) = again[Added]
    assert (added.files, added.already, first.exists()) == (1, 1, True)
    assert again[WatchEnded][0].files == 1


def test_a_file_is_ready_when_two_looks_find_it_the_same(inbox):
    box, path = Inbox(inbox), games(inbox / "a.trmph", 1)
    for seed in range(1, 4):
        assert box.look().ready == ()
        with path.open("a") as file:
            file.write(path.read_text()[:seed])
    look = box.look()
    assert (look.ready, look.changing) == ((), (path,))
    assert box.look().ready == (path,)
    box.take([path])
    assert box.look().ready == box.left() == ()
    os.utime(path, ns=(1, 1))
    assert [box.look().ready, box.look().ready] == [(), (path,)]


def test_a_broken_file_is_set_aside_with_its_report_and_stops_no_other(inbox, tmp_path):
    games(inbox / "good.trmph")
    spoiled = games(inbox / "spoiled.trmph", seed=1)
    spoiled.write_text(spoiled.read_text() + "#5,a1a1 b\n")
    games(inbox / "other_side.trmph", seed=2, side=4)
    (inbox / "noise.pkl.gz").write_bytes(b"noise")
    events = watched(inbox, tmp_path / "data")
    assert {os.path.basename(event.file) for event in events[SetAside]} == {
        "spoiled.trmph",
        "other_side.trmph",
        "noise.pkl.gz",
    }
    assert [file.name for file in read_index(tmp_path / "data").inputs] == ["good.trmph"]
    reports = {path.name: path.read_text() for path in (inbox / "refused").glob("*.report.txt")}
    assert "is not gzip" in reports["noise.pkl.gz.report.txt"]
    assert "holds boards of side 4, others of 5" in reports["other_side.trmph.report.txt"]
    told, line = reports["spoiled.trmph.report.txt"].splitlines()
    assert "1 line was rejected" in told
    assert json.loads(line)["place"] == "line 7"
    assert sorted(path.name for path in inbox.iterdir()) == ["good.trmph", "refused"]
    # the same name is refused again: neither takes the other's place
    (inbox / "noise.pkl.gz").write_bytes(b"more noise")
    assert watched(inbox, tmp_path / "data")[SetAside][0].moved_to.endswith("2-noise.pkl.gz")
    assert (inbox / "refused" / "noise.pkl.gz").read_bytes() == b"noise"
    assert verify(tmp_path / "data").problems == ()


def test_a_name_as_long_as_a_disk_takes_is_set_aside_with_its_report(inbox, tmp_path):
    for seed, letter in enumerate("xy"):
        games(inbox / f"{letter * 249}.trmph", 2, seed=seed)
    for name in (f"{'z' * 249}.trmph", f"{'é' * 124}a.trmph"):
        for _ in range(2):
            (inbox / name).write_text("#5,a1a1 b\n")
            (aside,) = watched(inbox, tmp_path / "data")[SetAside]
            assert "1 line was rejected" in aside.problem
    refused = sorted((inbox / "refused").iterdir())
    assert len(refused) == 8
    assert sum(path.name.endswith(".report.txt") for path in refused) == 4
    assert len(read_index(tmp_path / "data").inputs) == 2


def test_a_refused_file_that_cannot_be_moved_stays_and_is_told_with_all_that_is_known(inbox, tmp_path):
    (inbox / "refused").write_text("a file, where a folder is needed")
    (inbox / "spoiled.trmph").write_text("#5,a1a1 b\n")
    told = call("watch", inbox, "--dataset", tmp_path / "data", "--every", "0s", "--once", *WORKERS, code=3)
    assert f"passed over {inbox / 'spoiled.trmph'}: 1 line was rejected" in told.stderr
    assert f"It could not be moved to {inbox / 'refused'} (File exists)" in told.stderr
    assert "1 file could not be added and stays" in told.stdout
    # the sentence says to look at that file
    assert json.loads((tmp_path / "data" / "rejects.jsonl").read_text())["place"] == "line 1"


def test_a_file_that_there_is_no_memory_for_stops_no_other(inbox, tmp_path):
    for seed, name in enumerate("abc"):
        games(inbox / f"{name}.trmph", 2, seed=seed)
    short = iter([True, False, True, True, False])  # a b c; a; b c; b; c

    def convert_with(fails):
        def tell(_):
            if fails:
                raise MemoryError

        return nullcontext(tell)

    events = watched(inbox, tmp_path / "data", bars=lambda: convert_with(next(short)))
    assert [os.path.basename(event.file) for event in events[PassedOver]] == ["b.trmph"]
    assert "takes more memory than there is" in events[PassedOver][0].reason
    assert [file.name for file in read_index(tmp_path / "data").inputs] == ["a.trmph", "c.trmph"]
    assert events[WatchEnded][0].not_added == 1
    assert [event.files for event in watched(inbox, tmp_path / "data")[Added]] == [1]


def test_a_link_to_a_file_of_the_inbox_is_no_file_more(inbox, tmp_path):
    (inbox / "link.trmph").symlink_to(games(inbox / "a.trmph"))
    (added,) = watched(inbox, tmp_path / "data")[Added]
    assert (added.files, added.already) == (1, 1)
    games(inbox / "b.trmph", seed=1)
    (added,) = watched(inbox, tmp_path / "data")[Added]
    assert (added.files, added.already) == (1, 2)


def test_whatever_lies_in_an_inbox_is_neither_waited_for_nor_followed_for_ever(inbox, tmp_path):
    games(inbox / "good.trmph")
    os.mkfifo(inbox / "pipe.trmph")
    (inbox / "to_nothing.trmph").symlink_to("nothing")
    (inbox / "round.trmph").symlink_to("round.trmph")
    (inbox / "self").symlink_to(inbox)
    (inbox / "refused").symlink_to("refused")
    (inbox / "line\nbreak.pdf").write_text("?")
    games(inbox / ".on_its_way.trmph", seed=1)
    games(inbox / "c.trmph.host.1.partial", seed=1)
    hidden = os.fsencode(inbox) + b"/\xff\x1b.trmph"
    os.rename(games(inbox / "odd.trmph", seed=2), hidden)
    events = watched(inbox, tmp_path / "data")
    assert [event.files for event in events[Added]] == [2]
    assert sorted(os.path.basename(event.file) for event in events[PassedOver]) == [
        "line\nbreak.pdf",
        "pipe.trmph",
        "refused",
        "round.trmph",
        "to_nothing.trmph",
    ]
    assert all("\n" not in event.reason for event in events[PassedOver])
    assert events[WatchEnded][0].waiting == ()


def test_what_becomes_a_pipe_or_a_folder_while_it_is_read_is_not_waited_for(inbox, tmp_path):
    first, second = games(inbox / "a.trmph"), games(inbox / "b.trmph", seed=1)
    games(inbox / "c.trmph", seed=2)

    def replace(_):
        for path, make in ((first, os.mkfifo), (second, os.mkdir)):
            if path.is_file():
                path.unlink()
                make(path)

    said = run_until(inbox, tmp_path / "data", (Added, lambda: None), bars=lambda: nullcontext(replace))
    assert [event.file for event in said if isinstance(event, PassedOver)] == [str(first)]
    assert [file.name for file in read_index(tmp_path / "data").inputs] == ["c.trmph"]


def test_a_file_that_went_on_after_it_was_taken_is_not_added_twice(inbox, tmp_path):
    path = games(inbox / "a.trmph", 4)
    watched(inbox, tmp_path / "data")
    before = files_of(tmp_path / "data")
    games(path, 8)
    (passed,) = watched(inbox, tmp_path / "data")[PassedOver]
    assert "its games would be there twice" in passed.reason
    assert files_of(tmp_path / "data") == before
    # another file of the same name is another file
    games(path, 8, seed=3)
    assert watched(inbox, tmp_path / "data")[Added][0].positions > 0
    # and where games are kept once, the file that went on brings those that are new
    games(path, 4)
    watched(inbox, tmp_path / "once", dedupe="games")
    games(path, 8)
    assert watched(inbox, tmp_path / "once")[Added][0].positions > 0
    games(tmp_path / "all.trmph", 8)
    convert(tmp_path / "all.trmph", out=tmp_path / "all", **CUT)
    assert sum(split.positions for split in read_index(tmp_path / "once").splits.values()) == sum(
        split.positions for split in read_index(tmp_path / "all").splits.values()
    )


WORKERS = ("--workers", 1)


class Steps:
    """What is done when an event comes, one after another; after the last the watch is interrupted."""

    def __init__(self, *steps):
        self.steps, self.said = list(steps), []

    def __call__(self, event):
        self.said.append(event)
        kind, step = self.steps[0] if self.steps else (None, None)
        if type(event) is kind:
            self.steps.pop(0)
            step()
            if not self.steps:
                raise KeyboardInterrupt


def run_until(inbox, data, *steps, **options):
    tell = Steps(*steps)
    with pytest.raises(KeyboardInterrupt):
        watch(inbox, dataset=data, every_s=0.01, tell=tell, **{**CUT, **options})
    assert isinstance(tell.said[-1], WatchEnded)
    return tell.said


def test_a_second_watcher_says_so_and_ends(inbox, tmp_path):
    games(inbox / "a.trmph")

    def second():
        with pytest.raises(FileExistsError, match="another `hexshards watch` adds to this dataset"):
            watched(inbox, tmp_path / "data")

    run_until(inbox, tmp_path / "data", (Added, second))
    assert not (tmp_path / "data" / ".watch").exists()


def test_a_conversion_by_hand_is_waited_for(inbox, tmp_path):
    games(inbox / "a.trmph")
    data = tmp_path / "data"
    by_hand = held(data, ConvertSpec(**CUT), base=None)
    by_hand.__enter__()
    said = run_until(inbox, data, (Held, lambda: by_hand.__exit__(None, None, None)), (Added, lambda: None))
    assert sum(isinstance(event, Held) for event in said) == 1
    assert verify(data).problems == ()


def test_a_full_disk_and_an_inbox_that_is_gone_are_waited_out(inbox, tmp_path):
    games(inbox / "a.trmph", 40)
    data, before = tmp_path / "data", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        said = run_until(
            inbox,
            data,
            (Held, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)),
            (Added, lambda: inbox.rename(tmp_path / "gone")),
            (Held, lambda: (tmp_path / "gone").rename(inbox) and games(inbox / "b.trmph", seed=1)),
            (Added, lambda: None),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert next(event.problem for event in said if isinstance(event, Held)).startswith("[Errno 27] the disk is full")
    assert {file.name for file in read_index(data).inputs} == {"a.trmph", "b.trmph"}
    assert verify(data).problems == ()


def test_what_cannot_be_watched_is_told_in_one_sentence(inbox, tmp_path):
    assert (
        "no such folder to watch. Did you mean inbox?"
        in call("watch", tmp_path / "inbux", "--dataset", "d", code=2).stderr
    )
    assert "lie in each other" in call("watch", inbox, "--dataset", inbox / "data", code=2).stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    assert "is not empty" in call("watch", inbox, "--dataset", tmp_path / "mine", code=2).stderr
    assert "a dataset in a folder" in call("watch", inbox, "--dataset", "s3://b/d", code=2).stderr
    (tmp_path / "round").symlink_to("round")
    call("watch", inbox, "--dataset", tmp_path / "round", code=2)
    said = call("watch", inbox, "--dataset", "d", "--every", "99999999999999d", code=2).stderr
    assert "a time is at most 100000d, got 99999999999999d" in said


def test_programs_are_told_a_line_an_event(inbox, tmp_path):
    games(inbox / "a.trmph")
    (inbox / "noise.pkl.gz").write_bytes(b"noise")
    told = call(
        "watch", inbox, "--dataset", tmp_path / "data", "--every", "0.01s", "--once", "--json", *WORKERS, code=3
    ).stdout
    assert [json.loads(line)["event"] for line in told.splitlines()] == ["begun", "added", "set_aside", "ended"]


def test_killed_at_any_moment_it_goes_on_and_loses_nothing(inbox, tmp_path):
    sources = processed(tmp_path / "made", games=120, games_per_file=20)
    data = tmp_path / "data"
    command = [sys.executable, "-m", "hexshards", "watch", str(inbox), "--dataset", str(data), "--every", "0.01s"]
    for number, moment in enumerate([".partial/*.spill.json", "train-*.tar"]):
        for path in sources[number * 3 : number * 3 + 3]:
            path.rename(inbox / path.name)
        known = len(list(data.glob(moment)))
        process = subprocess.Popen([*command, "--workers", "1", *OPTIONS], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda m=moment, k=known: len(list(data.glob(m))) > k)
        finally:
            process.kill()
            process.wait()
    watched(inbox, data)
    convert(inbox, out=tmp_path / "together", **CUT)
    assert verify(data).problems == ()
    for split in ("train", "val"):
        assert positions_of(data, split) == positions_of(tmp_path / "together", split)


def test_a_signal_ends_it_with_130_and_what_was_done(inbox, tmp_path):
    games(inbox / "a.trmph")
    command = [sys.executable, "-m", "hexshards", "watch", str(inbox), "--dataset", str(tmp_path / "data"), *OPTIONS]
    more = ["--every", "0.05s", "--workers", "1", "--json"]
    process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True)
    try:
        for event in ("begun", "added"):
            assert json.loads(process.stdout.readline())["event"] == event
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert json.loads(told)["files"] == 1
