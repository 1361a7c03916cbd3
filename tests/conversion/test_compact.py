from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from helpers.cli import call
from helpers.small_data import (
    CUT,
    columns_of_shard,
    files_of,
    games_of,
    number_last,
    positions_of,
    processed,
    rows_of,
)

import hexshards
from hexshards.conversion.compact import compact, groups_of
from hexshards.conversion.convert import convert
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.workdir import held
from hexshards.dataset.index import read_index
from hexshards.dataset.layout import Part
from hexshards.dataset.verify import verify
from hexshards.errors import DataError

ADDITIONS = 9


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return processed(tmp_path_factory.mktemp("sources"), games=2 * ADDITIONS, games_per_file=2)


@pytest.fixture(scope="module")
def grown(sources, tmp_path_factory):
    """Many small shards, some of which are full."""
    out = tmp_path_factory.mktemp("grown") / "data"
    convert(sources[:4], out=out, **CUT)
    for source in sources[4:]:
        convert(source, out=out, append=True)
    return out


@pytest.fixture
def data(grown, tmp_path):
    return shutil.copytree(grown, tmp_path / "data")


def shards(folder, split="train"):
    return read_index(folder).splits[split].shards


def rows_of_shards(folder, names):
    """Every column of some shards as bytes a row, by a slow reader that shares no code with hexshards."""
    rows = []
    for name in names:
        columns = columns_of_shard(folder, name)
        for row in range(len(columns["ply"])):
            rows.append(b"".join(columns[each][row].tobytes() for each in sorted(columns)))
    return rows


def slow_groups(counts, most):
    """Neighbours as long as they fit, from the oldest on."""
    groups, room = [], 0
    for number, count in enumerate(counts):
        if count <= room:
            groups[-1].append(number)
        else:
            groups.append([number])
            room = most
        room -= count
    return groups


def test_neighbours_in_time_become_one_shard_and_no_position_is_changed(data, grown):
    before, old = read_index(data), shards(data)
    done = compact(data)
    after, new = read_index(data), shards(data)
    groups = slow_groups([shard.positions for shard in old], CUT["shard_positions"])
    assert (done.shards_before, done.shards_after) == ({"train": len(old)}, {"train": len(groups)})
    assert 1 < len(groups) < len(old)
    for group, shard in zip(groups, new, strict=True):
        # the order of shards is that of additions; within one rows are mixed
        was = rows_of_shards(grown, [old[number].name for number in group])
        now = rows_of_shards(data, [shard.name])
        assert sorted(was) == sorted(now)
        assert len(group) == 1 or was != now
    assert all(one.positions + other.positions > CUT["shard_positions"] for one, other in pairwise(new))
    assert [shard.name for shard in new] == sorted(shard.name for shard in new)
    assert {shard.name for shard in new if shard not in old}.isdisjoint({shard.name for shard in old})
    for split in before.splits:
        assert games_of_index(data, split) == games_of(grown, split)
    for name in ("sources", "inputs", "options", "layout"):
        assert getattr(after, name) == getattr(before, name)
    # each says what it was made of, in a format that 0.1 refuses: it would remove what stays for runs
    for group, shard in zip(groups, new, strict=True):
        assert after.parts_of(shard) == tuple(Part(old[number].sha256, old[number].positions) for number in group)
    assert (before.version, after.version) == (1, 2)
    assert after.splits["val"] == before.splits["val"]
    assert verify(data).problems == ()
    assert sum(len(batch.value) for batch in hexshards.loader(data, batch_size=64)) == before.splits["train"].positions


def games_of_index(folder, split):
    """As games_of, of the shards that the index lists."""
    names, games = read_index(folder).sources, set()
    for shard in shards(folder, split):
        columns = columns_of_shard(folder, shard.name)
        games |= {(names[source], game) for source, game in zip(columns["source"], columns["game"], strict=True)}
    return games


def test_it_is_a_function_of_the_dataset_and_there_is_nothing_left_to_merge(data, grown, tmp_path):
    other = shutil.copytree(grown, tmp_path / "other")
    compact(data)
    compact(other)
    assert files_of(data) == files_of(other)
    again = compact(data)
    assert again.positions == 0
    assert files_of(data) == files_of(other)
    assert "nothing to merge" in call("compact", data).stdout


def test_in_however_many_steps_shards_are_merged_they_are_the_same(sources, data, tmp_path):
    other = tmp_path / "other"
    convert(sources[:4], out=other, **CUT)
    for number, source in enumerate(sources[4:]):
        convert(source, out=other, append=True)
        compact(other, held_out=bool(number % 2))
    compact(data, held_out=True)
    compact(other, held_out=True)
    for split in ("train", "val"):
        assert [shard.sha256 for shard in shards(other, split)] == [shard.sha256 for shard in shards(data, split)]
        assert read_index(other).written(split) == read_index(data).written(split)


@pytest.mark.parametrize("options", [{}, {"where": "ply=3.."}])
def test_a_window_of_the_newest_holds_the_same_positions_as_before(grown, data, options):
    compact(data)
    windows = [{"window": str(count), "augment": "none", **options} for count in (1, 5, 60, 100, 150, 200)]
    held = [
        [Counter(row for batch in hexshards.loader(each, **window) for row in rows_of(batch)) for window in windows]
        for each in (grown, data)
    ]
    assert held[0] == held[1]
    assert [sum(counts.values()) for counts in held[1]] == [int(window["window"]) for window in windows]
    assert hexshards.loader(data, window="60").describe()[0].endswith(f"in {shards(data)[-1].name} (60 of its 82)")


def test_a_dry_run_tells_the_figures_and_writes_nothing(data, grown):
    told = json.loads(call("compact", data, "--dry-run", "--json").stdout)
    assert files_of(data) == files_of(grown)
    done = json.loads(call("compact", data, "--json").stdout)
    assert {**told, "fingerprint": 0, "kept_bytes": 0} == {**done, "fingerprint": 0, "kept_bytes": 0}
    assert told["fingerprint"] == read_index(grown).fingerprint
    assert done["kept_bytes"] > 0


def test_old_shards_stay_for_as_many_compactions_as_asked(data, grown, sources, tmp_path):
    old = {shard.name for shard in shards(data)}
    compact(data)
    assert old <= {path.name for path in data.iterdir()}
    # what is added later takes none of their names, and leaves them alone
    more = processed(tmp_path / "more", games=6, seed=9, games_per_file=2)
    for source in more:
        convert(source, out=data, append=True)
    assert old <= {path.name for path in data.iterdir()}
    assert verify(data).problems == ()
    replaced, written = {shard.name for shard in shards(data)}, read_index(data).written("train")
    compact(data)
    assert read_index(data).written("train") == written  # also of what was merged twice
    there = {path.name for path in data.glob("train-*.tar")}
    now = {shard.name for shard in shards(data)}
    assert there == now | replaced
    compact(data, keep=0)
    assert {path.name for path in data.glob("train-*.tar")} == now
    assert not (data / "earlier").exists()
    convert([*sources, *more], out=tmp_path / "together", **CUT)
    assert positions_of(data, "train") == positions_of(tmp_path / "together", "train")
    assert verify(data).problems == ()


def test_where_numbers_of_shards_come_to_their_end_all_are_numbered_anew(data, sources, tmp_path):
    number_last(data, 999_999)
    old, positions = [shard.name for shard in shards(data)], positions_of(data, "train")
    compact(data)
    new = [shard.name for shard in shards(data)]
    assert new == sorted(new)
    assert not set(new) & set(old)
    assert new[-1] < "train-000100"
    assert all((data / name).exists() for name in old)
    convert(processed(tmp_path / "more", games=2, seed=9), out=data, append=True)
    compact(data)
    assert positions < positions_of(data, "train")
    assert verify(data).problems == ()
    # also where nothing is left to merge
    full = convert(sources[:2], out=tmp_path / "full", **CUT | {"shard_positions": 32}).index.splits["train"].shards
    number_last(tmp_path / "full", 999_999)
    compact(tmp_path / "full")
    assert [shard.sha256 for shard in shards(tmp_path / "full")] == [shard.sha256 for shard in full]
    assert shards(tmp_path / "full")[-1].name < "train-000100"


def test_full_shards_between_small_ones_keep_their_bytes(sources, tmp_path):
    data = tmp_path / "data"
    convert(sources[0], out=data, **{**CUT, "val_fraction": 0})
    convert(sources[1], out=data, append=True)
    convert(sources[2:8], out=data, append=True)
    convert(sources[8], out=data, append=True)
    old = shards(data)
    compact(data)
    new = shards(data)
    kept = [shard.sha256 for shard in new if shard.positions == CUT["shard_positions"]]
    assert kept == [shard.sha256 for shard in old if shard.positions == CUT["shard_positions"]] != []
    assert [shard.name for shard in new] == [f"train-{len(old) + number:06d}.tar" for number in range(len(new))]
    assert verify(data).problems == ()


def test_held_out_splits_are_merged_when_asked(data):
    before = len(shards(data, "val"))
    positions = positions_of(data, "val")
    compact(data, keep=0, held_out=True)
    assert len(shards(data, "val")) < before
    assert positions_of(data, "val") == positions
    assert verify(data).problems == ()


def test_what_it_says_is_done_or_would_be_and_names_the_splits_that_it_left(data):
    shards = {name: len(split.shards) for name, split in read_index(data).splits.items()}
    assert shards["val"] > 1
    after = compact(data, held_out=True, dry_run=True).shards_after
    dry, done, again, held_out = (
        call("compact", data, *given).stdout.splitlines() for given in (["--dry-run"], [], [], ["--held-out"])
    )
    left = f"val    {shards['val']} shards stay as they are; --held-out would make them {after['val']}"
    assert dry[:2] == [f"train  {shards['train']} shards would become {after['train']}", left]
    assert done[:2] == [f"train  {shards['train']} shards became {after['train']}", left]
    assert dry[2].replace("would merge", "merged") == done[2]
    assert again[:2] == [f"train  {after['train']} shards: nothing to merge, for no two neighbours fit one", left]
    assert held_out[1] == f"val    {shards['val']} shards became {after['val']}"


def test_merged_and_soft_positions_and_optional_columns_come_through(tmp_path):
    for number, source in enumerate(processed(tmp_path / "made", games=6, games_per_file=2)):
        options = {**CUT, "val_fraction": 0, "shard_positions": 960, "dedupe": "symmetric"}
        convert(source, out=tmp_path / "data", append=number > 0, **(options if not number else {}))
    rows = rows_of_shards(tmp_path / "data", [shard.name for shard in shards(tmp_path / "data")])
    compact(tmp_path / "data", keep=0)
    (shard,) = shards(tmp_path / "data")
    assert sorted(rows_of_shards(tmp_path / "data", [shard.name])) == sorted(rows)
    assert verify(tmp_path / "data").problems == ()


# what goes wrong ----------------------------------------------------------------------------------------------------

KILLED = """
import os, shutil, signal, sys
from hexshards.conversion import compact as job
grown, folder = sys.argv[1:]
steps = ["write_shard", "keep_state", "forget", "clear"]
for number in range(40):
    data = f"{folder}/{number}"
    shutil.copytree(grown, data)
    child = os.fork()
    if not child:
        left = number
        def counted(step):
            def call(*args, **kwargs):
                global left
                for _ in range(2):
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1
                    if _ == 0:
                        made = step(*args, **kwargs)
                return made
            return call
        for name in steps:
            setattr(job, name, counted(getattr(job, name)))
        job.Index.write = counted(job.Index.write)
        job.compact(data)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
print(number)
"""


@pytest.mark.parametrize("again", ["compact", "append"])
def test_files_that_somebody_put_beside_the_shards_stay(again, data, tmp_path):
    names = {"train-7.tar", "train-mine.tar", "test-2024-11-28.tar", "video.mkv.partial", "a.b.partial", "train.tar"}
    for name in names:
        (data / name).write_text("mine")
    (more,) = processed(tmp_path / "more", games=2, seed=5)
    compact(data) if again == "compact" else convert(more, out=data, append=True)
    assert names <= {path.name for path in data.iterdir()}


def test_what_links_in_the_place_of_earlier_states_lead_to_is_not_removed(data, tmp_path):
    compact(data)
    mine = tmp_path / "mine" / "000001"
    (data / "earlier").rename(tmp_path / "mine")
    (mine / "letter").write_text("dear")
    (data / "earlier").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="earlier is a link, where earlier states are kept in a folder"):
        compact(data, held_out=True)
    compact(data, keep=0)
    (data / "earlier").unlink()
    (data / "earlier").mkdir()
    (data / "earlier" / "000001").symlink_to(mine)
    compact(data, keep=0)
    assert {path.name for path in mine.iterdir()} == {"index.json", "letter"}
    assert verify(data).problems == ()


def test_folders_among_the_earlier_states_that_are_none_are_left_alone(data):
    compact(data)
    state = data / "earlier" / "000001"
    for name in ("9x", "mine", "1"):
        shutil.copytree(state, data / "earlier" / name)
    (state / "letter").write_text("dear")
    compact(data, keep=0, held_out=True)
    assert {path.name for path in (data / "earlier").iterdir()} == {"9x", "mine", "1", "000001"}
    assert [path.name for path in state.iterdir()] == ["letter"]
    assert {path.name for path in data.glob("train-*.tar")} == {shard.name for shard in shards(data)}


@pytest.mark.parametrize("again", ["compact", "append"])
def test_shards_that_no_state_lists_and_half_written_files_go_and_those_kept_for_a_run_stay(again, data):
    compact(data)
    stays = {path.name for path in data.glob("*.tar")}
    assert stays > {shard.name for shard in shards(data)}
    for name in ("train-000777.tar", "val-000777.tar", "index.json.abc.1.partial"):
        (data / name).write_bytes(b"of one that was killed")
    if again == "compact":
        compact(data)
    else:
        convert(processed(data.parent / "more", games=2, seed=5), out=data, append=True)
    left = {path.name for path in data.glob("*.tar")}
    assert left >= stays and not [name for name in left if "777" in name]
    assert not list(data.glob("*.partial"))


def test_killed_at_any_step_the_dataset_is_what_it_was_or_is_to_be_and_the_next_one_ends_it(data, grown, tmp_path):
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", KILLED, str(grown), str(tmp_path / "killed")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    kills = int(told.stdout)
    assert kills > 8
    compact(data)
    whole, states = files_of(data), {read_index(grown).fingerprint, read_index(data).fingerprint}
    for number in range(kills):
        cut_off = tmp_path / "killed" / str(number)
        assert read_index(cut_off).fingerprint in states
        compact(cut_off)
        assert files_of(cut_off) == whole


def test_a_full_disk_a_damaged_shard_and_an_addition_at_work_leave_the_dataset_as_it_was(data, grown):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(OSError, match="the disk is full"):
            compact(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_index(data) == read_index(grown)
    with (
        held(data, ConvertSpec(**CUT), base=read_index(data)),
        pytest.raises(FileExistsError, match="another conversion into this folder is running"),
    ):
        compact(data)
    last = data / shards(data)[-1].name
    last.write_bytes(bytes(last.stat().st_size))
    with pytest.raises(DataError, match="checksum"):
        compact(data)
    assert read_index(data) == read_index(grown)
    with pytest.raises(ValueError, match="shards are merged in a folder"):
        compact("s3://bucket/data")
    assert "no dataset here" in call("compact", data / "none", code=2).stderr


def test_groups_are_a_law_of_neighbours_for_any_sizes(data):
    index = read_index(data)
    sizes = [shard.positions for shard in shards(data)]
    for most in (1, *sorted(sizes)[:2], sum(sizes) // 2, sum(sizes)):
        groups = groups_of(index, most, ("train",))["train"]
        numbers = np.cumsum([0, *(len(group.shards) for group in groups)])
        assert [[*range(*ends)] for ends in pairwise(numbers.tolist())] == slow_groups(sizes, most)
        assert [shard for group in groups for shard in group.shards] == [*shards(data)]
