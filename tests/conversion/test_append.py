from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.processes import wait_for
from helpers.small_data import CUT, examples, files_of, games_of, number_last, positions_of, processed, write_examples

import hexshards
from hexshards.conversion.convert import convert
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.errors import DataError, InputRejected


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return processed(tmp_path_factory.mktemp("sources"), games=80)


@pytest.fixture(scope="module")
def first(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("first") / "data"
    convert(sources[:2], out=out, **CUT)
    return out


@pytest.fixture
def data(first, tmp_path):
    return shutil.copytree(first, tmp_path / "data")


def shards_of(index):
    return {shard.name: shard for split in index.splits.values() for shard in split.shards}


def test_new_files_become_new_shards_and_the_old_ones_are_untouched(sources, data, first):
    report = convert(sources[2:], out=data, append=True)
    before, after = files_of(first), files_of(data)
    assert before.keys() < after.keys()
    assert all(after[name] == before[name] for name in before if name != "index.json")
    old, new = read_index(first), read_index(data)
    assert shards_of(old).items() <= shards_of(new).items()
    for split, each in new.splits.items():
        assert [shard.name for shard in each.shards] == [
            f"{split}-{number:06d}.tar" for number in range(len(each.shards))
        ]
    assert report.positions == sum(s.positions for s in new.splits.values()) - sum(
        s.positions for s in old.splits.values()
    )
    assert verify(data).problems == ()


def test_files_added_are_counted_as_if_all_had_come_together(sources, data, tmp_path):
    convert(sources[2:], out=data, append=True)
    together = convert(sources, out=tmp_path / "together", **CUT).index
    added = read_index(data)
    for split, each in together.splits.items():
        for name in ("positions", "games", "blue_wins", "red_wins", "without_policy", "plies"):
            assert getattr(added.splits[split], name) == getattr(each, name), name
        assert positions_of(data, split) == positions_of(tmp_path / "together", split)
        assert games_of(data, split) == games_of(tmp_path / "together", split)
    assert added.sources == together.sources
    assert added.inputs == together.inputs
    assert added.options == together.options


def test_games_that_come_again_in_another_file_stay_in_their_split_and_are_counted_once(sources, data, tmp_path):
    again = examples(20, source="synth5_00")[::-1]  # some games of the first file, in another order
    write_examples(tmp_path / "again_processed.pkl.gz", again)
    before = {split: games_of(data, split) for split in ("train", "val")}
    convert(tmp_path / "again_processed.pkl.gz", out=data, append=True)
    for split, games in before.items():
        assert games_of(data, split) == games
        assert read_index(data).splits[split].games == len(games)
    assert verify(data).problems == ()


def test_source_numbers_of_old_shards_keep_their_meaning(data, tmp_path):
    # a name that sorts before all others must not move them
    write_examples(tmp_path / "aardvark_processed.pkl.gz", examples(5, seed=3, source="aardvark"))
    before = read_index(data).sources
    convert(tmp_path / "aardvark_processed.pkl.gz", out=data, append=True)
    assert read_index(data).sources == (*before, "aardvark")
    assert {("aardvark", line) for line in range(1, 6)} <= games_of(data, "train") | games_of(data, "val")


def test_what_the_dataset_was_made_from_is_passed_over_and_told(sources, data, first, tmp_path):
    renamed = shutil.copy(sources[0], tmp_path / "renamed.pkl.gz")
    report = convert([renamed, sources[1]], out=data, append=True)
    assert set(report.already) == {str(renamed), str(sources[1])}
    assert (report.positions, report.repeated) == (0, ())
    assert files_of(data) == files_of(first)
    report = convert([renamed, *sources], out=data, append=True)
    assert set(report.already) == {str(renamed), *map(str, sources[:2])}
    assert len(report.index.inputs) == len(sources)


def test_workers_never_change_what_is_added(sources, data, first, tmp_path):
    other = shutil.copytree(first, tmp_path / "other")
    convert(sources[:1:-1], out=data, append=True)
    convert(sources[2:], out=other, append=True, workers=2)
    assert files_of(data) == files_of(other)


def test_files_are_added_any_number_of_times(sources, data):
    for source in sources[2:]:
        convert(source, out=data, append=True)
    assert [file.name for file in read_index(data).inputs] == [path.name for path in sources]
    assert verify(data).problems == ()


# cut off ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grown(first, tmp_path_factory):
    """Files of many games, and the dataset to which they were added without a crash."""
    folder = tmp_path_factory.mktemp("grown")
    more = processed(folder / "more", games=200, seed=5, games_per_file=10)
    undisturbed = shutil.copytree(first, folder / "undisturbed")
    convert(more, out=undisturbed, append=True)
    return more, files_of(undisturbed)


@pytest.mark.parametrize("moment", [".partial/*.spill.json", "train-*.tar"], ids=["reading", "writing"])
def test_a_crash_leaves_the_old_dataset_valid_and_the_same_command_goes_on(moment, data, first, grown):
    more, undisturbed = grown
    known = len(list(data.glob(moment)))
    command = [sys.executable, "-m", "hexshards", "convert", *map(str, more), "--out", str(data), "--append"]
    process = subprocess.Popen([*command, "--workers", "2"], start_new_session=True)
    try:
        wait_for(lambda: len(list(data.glob(moment))) > known)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_index(data).fingerprint == read_index(first).fingerprint, "killed too late to prove anything"
    assert verify(data).problems == ()
    assert len(list(hexshards.loader(data, batch_size=64))) == -(-read_index(first).splits["train"].positions // 64)
    with pytest.raises(FileExistsError, match="finished dataset"):
        convert(more, out=data, **CUT)
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["positions"] > 0
    assert files_of(data) == undisturbed


# readers ------------------------------------------------------------------------------------------------------------


def test_a_loader_made_anew_sees_the_new_shards_and_one_made_before_does_not_stumble(sources, data):
    old = hexshards.loader(data, batch_size=50, augment="none")
    batches = iter(old)
    seen = [next(batches)]
    convert(sources[2:], out=data, append=True)
    seen += batches
    assert sum(len(batch.value) for batch in seen) == old.positions
    new = hexshards.loader(data, batch_size=50, augment="none")
    assert new.positions == read_index(data).splits["train"].positions > old.positions
    assert sum(len(batch.value) for batch in new) == new.positions
    # it is another dataset: a place in the old stream means nothing in the new one
    with pytest.raises(ValueError, match="another stream"):
        new.load_state_dict(old.state_dict())


# what does not fit --------------------------------------------------------------------------------------------------


def test_without_a_dataset_there_is_nothing_to_add_to(sources, tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset here"):
        convert(sources, out=tmp_path / "none", append=True)
    assert not (tmp_path / "none").exists()


def test_a_dataset_of_options_that_nobody_knows_is_not_added_to(sources, data):
    index = read_index(data)
    replace(index, options={**index.options, "self": 1, "\x1b": 2}).write(data)
    with pytest.raises(DataError, match=r"options that this release does not know \(\\x1b, self\)"):
        convert(sources[2], out=data, append=True)


@pytest.mark.parametrize(
    ("option", "value"), [("shard_positions", "abc"), ("shard_positions", 10**400), ("dedupe", "\x1b"), ("seed", -1)]
)
def test_a_dataset_whose_options_make_no_sense_is_named(option, value, sources, data):
    index = read_index(data)
    replace(index, options={**index.options, option: value}).write(data)
    with pytest.raises(DataError, match=rf"index.json: says that it was made with options .*{option} must be") as told:
        convert(sources[2], out=data, append=True)
    assert str(told.value).isprintable()


def test_options_of_the_dataset_hold_and_others_are_refused(sources, data, first):
    convert(sources[2], out=data, append=True, val_fraction=CUT["val_fraction"])
    assert read_index(data).options == read_index(first).options
    with pytest.raises(
        ValueError, match=r"was made with val_fraction 0.2, so files can't be added with val_fraction 0.5"
    ):
        convert(sources[3], out=data, append=True, val_fraction=0.5)


def test_other_boards_and_distributions_do_not_fit_and_leave_the_dataset_valid(data, first, tmp_path):
    (odd,) = processed(tmp_path / "odd", games=2, side=7)
    with pytest.raises(InputRejected, match="holds boards of side 7, others of 5"):
        convert(odd, out=data, append=True)
    soft = examples(2, seed=8, source="soft")
    soft[0]["policy"] = np.full(25, 1 / 25, dtype=np.float32)
    write_examples(tmp_path / "soft_processed.pkl.gz", soft)
    with pytest.raises(InputRejected, match="has distributions as policies, while the dataset holds single moves"):
        convert(tmp_path / "soft_processed.pkl.gz", out=data, append=True)
    assert read_index(data).fingerprint == read_index(first).fingerprint
    assert verify(data).problems == ()


def test_single_moves_are_added_to_distributions(tmp_path):
    soft = examples(4, seed=8, source="soft")
    soft[0]["policy"] = np.full(25, 1 / 25, dtype=np.float32)
    write_examples(tmp_path / "soft_processed.pkl.gz", soft)
    write_examples(tmp_path / "hard_processed.pkl.gz", examples(4, source="hard"))
    convert(tmp_path / "soft_processed.pkl.gz", out=tmp_path / "data", **{**CUT, "val_fraction": 0})
    convert(tmp_path / "hard_processed.pkl.gz", out=tmp_path / "data", append=True)
    convert([*tmp_path.glob("*.pkl.gz")], out=tmp_path / "together", **{**CUT, "val_fraction": 0})
    assert verify(tmp_path / "data").problems == ()
    assert positions_of(tmp_path / "data", "train") == positions_of(tmp_path / "together", "train")


def test_shards_whose_numbers_come_to_their_end_are_neither_written_nor_added(sources, data):
    number_last(data, 999_999)
    before = files_of(data)
    with pytest.raises(ValueError, match=r"numbers up to 999,999, and this one would be 1,000,000. Merge"):
        convert(sources[2], out=data, append=True)
    assert before.items() <= files_of(data).items()
    assert verify(data).problems == ()


def test_rejects_of_what_is_added_do_not_replace_those_of_before(tmp_path):
    for name in ("one", "two"):
        bad = examples(3, seed=len(name), source=name)
        bad[6]["value"] = 2.0
        write_examples(tmp_path / f"{name}_processed.pkl.gz", bad)
    out = tmp_path / "data"
    convert(tmp_path / "one_processed.pkl.gz", out=out, max_rejects=1, **CUT)
    with pytest.raises(InputRejected, match="1 example was rejected"):
        convert(tmp_path / "two_processed.pkl.gz", out=out, append=True)
    convert(tmp_path / "two_processed.pkl.gz", out=out, append=True, max_rejects=1)
    rejects = {name: data for name, data in files_of(out).items() if name.startswith("rejects")}
    assert {name: json.loads(data)["file"] for name, data in rejects.items()} == {
        "rejects.jsonl": "one_processed.pkl.gz",
        "rejects-1.jsonl": "two_processed.pkl.gz",
    }
