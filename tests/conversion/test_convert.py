from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from helpers.processes import wait_for
from helpers.small_data import CUT, columns_of, examples, files_of, processed, write_examples

import hexshards
from hexshards import rng
from hexshards.cli.conversion_view import conversion_summary
from hexshards.cli.dataset_view import info_text
from hexshards.conversion import spill_sources
from hexshards.conversion.convert import convert
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.random_files import examples_of, trmph_line, write, write_processed
from hexshards.dataset.index import read_index
from hexshards.dataset.split import game_keys, in_val
from hexshards.dataset.verify import verify
from hexshards.errors import InputRejected
from hexshards.game.random_games import play
from hexshards.options import as_recorded


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return processed(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def data(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "data"
    convert(sources, out=out, **CUT)
    return out


def games_of(folder, split):
    """File and line of every game of a split."""
    columns, names = columns_of(folder, split), read_index(folder).sources
    return (
        {(names[source], game) for source, game in zip(columns["source"], columns["game"], strict=True)}
        if columns
        else set()
    )


def rows_slowly(number, games=20):
    """What a source file holds, in its order: file, line, ply, player, plies, value, policy, stones."""
    return [
        (
            f"synth5_{number:02d}",
            line,
            ply,
            ply % 2,
            len(game.moves),
            game.winner,
            game.moves[ply] if ply < len(game.moves) else -1,
            np.packbits(example["board"].astype(bool)).tobytes(),
        )
        for line, game in enumerate(play(games, side=5, first=games * number), start=1)
        for ply, example in enumerate(examples_of(game))
    ]


def rows_in(folder, split):
    """The same of a dataset."""
    stored, names = columns_of(folder, split), read_index(folder).sources
    columns = [stored[name].tolist() for name in ("game", "ply", "player", "plies", "value", "policy")]
    return list(zip([names[n] for n in stored["source"]], *columns, map(bytes, stored["stones"]), strict=True))


def keys_slowly(path, count):
    """The place of each position of a file in the shuffle of seed 0."""
    words = np.frombuffer(hashlib.sha256(path.read_bytes()).digest(), dtype=">u4").tolist()
    return np.random.Philox(np.random.SeedSequence(0, spawn_key=(0, *words))).random_raw(count).tolist()


# the same bytes -----------------------------------------------------------------------------------------------------


def test_workers_and_the_order_of_sources_never_change_a_byte(sources, data, tmp_path):
    expected = files_of(data)
    assert len(expected) > 10
    for number, (named, workers) in enumerate([(sources[::-1], 1), ([sources[1], sources[0].parent], 2)]):
        convert(named, out=tmp_path / str(number), workers=workers, **CUT)
        assert files_of(tmp_path / str(number)) == expected


@pytest.mark.parametrize(("games_per_file", "shard_positions"), [(1, 96), (20, 16), (20, 96), (60, 2048)])
def test_the_dataset_is_all_positions_sorted_by_key_and_cut(tmp_path, games_per_file, shard_positions):
    sources = processed(tmp_path / "in", games_per_file=games_per_file)
    data = tmp_path / "data"
    convert(sources, out=data, **{**CUT, "shard_positions": shard_positions})
    keyed = []
    for number, path in enumerate(sources):
        rows = rows_slowly(number, games_per_file)
        keyed += zip(keys_slowly(path, len(rows)), rows, strict=True)
    val = games_of(data, "val")
    for split, shards in ((split, each.shards) for split, each in read_index(data).splits.items()):
        expected = [row for _, row in sorted(keyed) if (row[:2] in val) == (split == "val")]
        assert rows_in(data, split) == expected
        starts = range(0, len(expected), shard_positions)
        assert [shard.positions for shard in shards] == [min(shard_positions, len(expected) - at) for at in starts]


def test_a_game_goes_where_its_name_sends_it(data):
    train, val = games_of(data, "train"), games_of(data, "val")
    for name, line in train | val:
        key = game_keys([name], np.zeros(1, dtype=np.uint32), np.array([line], dtype=np.int32))
        assert in_val(key, val_fraction=0.2)[0] == ((name, line) in val)


def test_shards_hold_exactly_so_many_positions_the_last_of_a_split_excepted(data):
    for split, each in read_index(data).splits.items():
        counts = [shard.positions for shard in each.shards]
        assert counts[:-1] == [96] * (len(counts) - 1)
        assert 1 <= counts[-1] <= 96
        assert sum(counts) == each.positions == len(columns_of(data, split)["ply"])
        assert [shard.name for shard in each.shards] == [f"{split}-{number:06d}.tar" for number in range(len(counts))]
    assert (read_index(data).splits["train"].positions, read_index(data).splits["val"].positions) == (1117, 192)


@pytest.mark.parametrize("bits", [0, (1 << 24) - 1], ids=["first", "last"])
def test_keys_that_crowd_together_are_cut_like_any_others(spoiled, tmp_path, bits):
    # the keys of spills that a first try left are changed to some whose first 24 bits are all the same
    for number in range(9):
        write_examples(spoiled / f"more{number}_processed.pkl.gz", examples(9, seed=number, source=f"more{number}"))
    with pytest.raises(InputRejected):
        convert(spoiled, out=tmp_path / "out", **CUT)
    keyed = []
    for number, path in enumerate(sorted((tmp_path / "out" / ".partial").glob("*.train.keys.npy"))):
        rows = np.load(path.with_name(path.name.replace("keys", "rows")))
        keys = np.sort(rng.raw(len(rows), 9, number) >> np.uint64(24) | np.uint64(bits << 40))
        keyed += zip(keys.tolist(), rows["stones"].tolist(), rows["game"].tolist(), strict=True)
        np.save(path, keys)
    convert(spoiled, out=tmp_path / "out", **CUT, max_rejects=1)
    columns = columns_of(tmp_path / "out", "train")
    keyed.sort()
    assert columns["stones"].tolist() == [stones for _, stones, _ in keyed]
    assert columns["game"].tolist() == [game for _, _, game in keyed]
    counts = [shard.positions for shard in read_index(tmp_path / "out").splits["train"].shards]
    assert counts[:-1] == [96] * (len(keyed) // 96)


# the split and the seed ---------------------------------------------------------------------------------------------


def test_a_seed_changes_the_order_and_not_the_split(sources, data, tmp_path):
    convert(sources, out=tmp_path / "data", **CUT, seed=1)
    for split in ("train", "val"):
        first, second = columns_of(data, split), columns_of(tmp_path / "data", split)
        assert not np.array_equal(first["stones"], second["stones"])
        assert Counter(map(bytes, first["stones"])) == Counter(map(bytes, second["stones"]))
        assert games_of(data, split) == games_of(tmp_path / "data", split)


def test_the_options_are_in_the_index_and_the_fingerprint(sources, data, tmp_path):
    convert(sources, out=tmp_path / "data", **CUT, seed=1)
    first, second = read_index(data), read_index(tmp_path / "data")
    assert first.options == as_recorded(ConvertSpec(**CUT))
    assert second.options == as_recorded(ConvertSpec(**CUT, seed=1))
    assert first.fingerprint != second.fingerprint


def test_no_game_is_in_two_splits_and_none_is_lost(data):
    train, val = games_of(data, "train"), games_of(data, "val")
    assert not train & val
    assert train | val == {(f"synth5_{file:02d}", line) for file in range(3) for line in range(1, 21)}
    splits = read_index(data).splits
    assert (splits["train"].games, splits["val"].games) == (len(train), len(val))


def test_every_position_of_the_input_is_there_once(data):
    expected = sorted(row for number in range(3) for row in rows_slowly(number))
    assert sorted(rows_in(data, "train") + rows_in(data, "val")) == expected


def test_more_files_never_move_a_game_to_the_other_split(sources, data, tmp_path):
    convert(sources[:2], out=tmp_path / "fewer", **CUT)
    for split in ("train", "val"):
        fewer = games_of(tmp_path / "fewer", split)
        assert fewer
        assert fewer < games_of(data, split)


@pytest.mark.parametrize(("val_fraction", "only"), [(0, "train"), (1, "val")])
def test_an_empty_split_has_no_shard(sources, tmp_path, val_fraction, only):
    report = convert(sources, out=tmp_path / "data", **{**CUT, "val_fraction": val_fraction})
    assert list(report.index.splits) == list(read_index(tmp_path / "data").splits) == [only]
    assert {name.split("-")[0] for name in files_of(tmp_path / "data")} == {only, "index.json"}
    assert verify(tmp_path / "data").problems == ()


def test_the_report_says_what_was_kept(sources, tmp_path):
    seen = []
    report = convert(sources, out=tmp_path / "data", **CUT, progress=seen.append)
    assert report.positions == 1117 + 192
    assert report.input_bytes == sum(path.stat().st_size for path in sources)
    assert report.shard_bytes == sum(path.stat().st_size for path in (tmp_path / "data").glob("*.tar"))
    assert (report.rejects, report.repeated) == ({}, ())
    last = seen[-1]
    assert (last.files, last.files_done, last.positions) == (3, 3, report.positions)
    assert (last.bytes_done, last.shards_done) == (last.bytes, last.shards) == (report.input_bytes, 14)
    assert all(before.shards_done <= after.shards_done for before, after in pairwise(seen))


# rejects and refusals -----------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(tmp_path):
    """A folder of two files; example 6 of the second has two stones in a cell."""
    write_examples(tmp_path / "in" / "good_processed.pkl.gz", examples(5, source="good"))
    bad = examples(5, seed=1, source="bad")
    bad[6]["board"][:, 0, 0] = 1.0
    write_examples(tmp_path / "in" / "bad_processed.pkl.gz", bad)
    return tmp_path / "in"


def rejects_in(out):
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]


def spills_watched(out):
    """A progress callback, and what it sees of the spills when all files are read: name and time of change."""
    seen = {}

    def watch(now):
        if now.files_done == now.files and not seen:
            seen.update({path.name: path.stat().st_mtime_ns for path in (out / ".partial").glob("*.npy")})

    return watch, seen


def test_a_rejected_position_stops_the_conversion_and_is_written_down(spoiled, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        InputRejected, match=r"1 example was rejected \(cell with two stones: 1\).*example 6.*--max-rejects 1"
    ):
        convert(spoiled, out=out)
    assert not (out / "index.json").exists()
    assert not list(out.glob("*.tar"))
    (line,) = rejects_in(out)
    assert (line["file"], line["place"], line["reason"]) == (
        "bad_processed.pkl.gz",
        "example 6",
        "cell with two stones",
    )


def test_rejects_that_are_allowed_are_left_out_and_no_file_is_read_again(spoiled, tmp_path):
    out = tmp_path / "out"
    watch, first = spills_watched(out)
    with pytest.raises(InputRejected):
        convert(spoiled, out=out, progress=watch)
    watch, second = spills_watched(out)
    report = convert(spoiled, out=out, max_rejects=1, progress=watch)
    assert first == second != {}
    assert report.rejects == {"cell with two stones": 1}
    assert report.positions == len(examples(5)) + len(examples(5, seed=1)) - 1
    assert [file.rejected for file in read_index(out).inputs] == [1, 0]
    assert set(files_of(out)) == {"index.json", "rejects.jsonl", "train-000000.tar"}
    assert verify(out).problems == ()


def test_one_reject_more_than_allowed_is_too_many(spoiled, tmp_path):
    bad = examples(5, seed=2, source="worse")
    for number in (0, 3):
        bad[number]["value"] = 2.0
    write_examples(spoiled / "worse_processed.pkl.gz", bad)
    with pytest.raises(InputRejected, match="3 examples were rejected"):
        convert(spoiled, out=tmp_path / "out", max_rejects=2)
    report = convert(spoiled, out=tmp_path / "out", max_rejects=3)
    assert report.rejects == {"value outside 0 to 1": 2, "cell with two stones": 1}
    assert len(rejects_in(tmp_path / "out")) == 3


def test_a_refused_file_is_named_and_the_others_are_not_lost(spoiled, tmp_path):
    out, garbage = tmp_path / "out", spoiled / "a_processed.pkl.gz"
    garbage.write_bytes(b"no gzip at all")
    watch, first = spills_watched(out)
    with pytest.raises(InputRejected, match=r"a_processed\.pkl\.gz: is not gzip"):
        convert(spoiled, out=out, max_rejects=9, progress=watch)
    assert not (out / "index.json").exists()
    assert [line["reason"] for line in rejects_in(out)] == ["refused", "cell with two stones"]
    garbage.unlink()
    watch, second = spills_watched(out)
    assert convert(spoiled, out=out, max_rejects=9, progress=watch).index.inputs
    assert first == second != {}


def test_two_refused_files_are_both_written_down(spoiled, tmp_path):
    (spoiled / "a_processed.pkl.gz").write_bytes(b"")
    (spoiled / "z_processed.pkl.gz").write_bytes(b"PK")
    with pytest.raises(InputRejected, match=r"a_processed\.pkl\.gz: is empty, and 1 other file is refused"):
        convert(spoiled, out=tmp_path / "out")
    refused = [line["file"] for line in rejects_in(tmp_path / "out") if line["reason"] == "refused"]
    assert refused == [str(spoiled / "a_processed.pkl.gz"), str(spoiled / "z_processed.pkl.gz")]


def test_the_same_contents_under_two_names_are_taken_once_and_told(sources, data, tmp_path):
    again = tmp_path / "renamed.pkl.gz"
    shutil.copy(sources[0], again)
    report = convert([*sources, again], out=tmp_path / "out", **CUT)
    assert report.positions == 1117 + 192
    (repeated,) = report.repeated
    assert repeated in (str(again), str(sources[0]))
    assert f"passed over {repeated}: same contents as another file" in conversion_summary(report)
    for split in ("train", "val"):
        assert np.array_equal(columns_of(tmp_path / "out", split)["stones"], columns_of(data, split)["stones"])


def test_boards_of_two_sides_are_refused(sources, tmp_path):
    (odd,) = processed(tmp_path / "odd", games=2, side=7)
    with pytest.raises(InputRejected, match=r"synth7_00_processed\.pkl\.gz: holds boards of side 7, others of 5"):
        convert([*sources, odd], out=tmp_path / "out")


def test_a_finished_dataset_is_never_written_over(sources, data):
    before = files_of(data)
    with pytest.raises(FileExistsError, match="finished dataset"):
        convert(sources, out=data, **CUT)
    assert files_of(data) == before


def test_a_folder_of_other_files_is_refused_and_left_alone(sources, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match="not empty"):
        convert(sources, out=tmp_path)
    assert files_of(tmp_path) == {"thesis.tex": b"years"}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"val_fraction": 1.5}, "val_fraction must be 0 to 1, got 1.5"),
        ({"shard_positions": 100, "block_positions": 16}, r"multiple of block_positions \(16\), got 100"),
        ({"codec": "lzma"}, "codec must be one of"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"max_rejects": -1}, "max_rejects must be at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_made(sources, tmp_path, options, fault):
    with pytest.raises(ValueError, match=fault):
        convert(sources, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_sources_that_stand_for_nothing_are_refused_before_anything_is_made(tmp_path):
    (tmp_path / "notes.md").write_text("hello")
    for source, error, fault in (
        (tmp_path / "none.pkl.gz", FileNotFoundError, "no such file"),
        (tmp_path / "*.pkl.gz", FileNotFoundError, "matches none"),
        (tmp_path, FileNotFoundError, "no file in this folder"),
        (tmp_path / "notes.md", ValueError, "known format"),
    ):
        with pytest.raises(error, match=fault):
            convert(source, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# cut off and begun again --------------------------------------------------------------------------------------------


CONVERT_SLOWLY = """
import sys
from hexshards.conversion.convert import convert
if __name__ == "__main__":
    convert(sys.argv[1], out=sys.argv[2], workers=2, val_fraction=0.2, shard_positions=256, block_positions=16)
"""


def members_of_group(group):
    """Processes of a group that still run."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    return [stat for pgid, stat in pairs if int(pgid) == group and not stat.startswith("Z")]


@pytest.mark.parametrize("moment", [".partial/*.keys.npy", "train-*.tar"], ids=["reading", "writing"])
def test_a_killed_conversion_goes_on_and_ends_with_the_same_bytes(tmp_path, moment):
    processed(tmp_path / "in", games=240, games_per_file=10)
    cut = {**CUT, "shard_positions": 256}
    convert(tmp_path / "in", out=tmp_path / "whole", **cut)
    out = tmp_path / "out"
    command = [sys.executable, "-c", CONVERT_SLOWLY, tmp_path / "in", out]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wait_for(lambda: list(out.glob(moment)))
    finally:
        process.kill()
        process.wait()
    assert not (out / "index.json").exists(), "killed too late to prove anything"
    wait_for(lambda: not members_of_group(process.pid))
    convert(tmp_path / "in", out=out, **cut)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_what_a_killed_conversion_was_writing_is_removed(spoiled, tmp_path):
    with pytest.raises(InputRejected):
        convert(spoiled, out=tmp_path / "out")
    for name in ("train-000000.tar.4711.partial", "train-000007.tar", "index.json.4711.partial"):
        (tmp_path / "out" / name).write_bytes(b"half")
    convert(spoiled, out=tmp_path / "out", max_rejects=1)
    assert set(files_of(tmp_path / "out")) == {"index.json", "rejects.jsonl", "train-000000.tar"}


def test_other_options_after_a_try_that_failed_give_the_bytes_of_a_fresh_start(spoiled, tmp_path):
    with pytest.raises(InputRejected):
        convert(spoiled, out=tmp_path / "out", **CUT)
    options = {"val_fraction": 0.5, "shard_positions": 64, "block_positions": 8, "seed": 3, "max_rejects": 1}
    convert(spoiled, out=tmp_path / "out", **options)
    convert(spoiled, out=tmp_path / "fresh", **options)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_a_file_that_changed_after_a_try_that_failed_is_read_anew(spoiled, tmp_path):
    with pytest.raises(InputRejected):
        convert(spoiled, out=tmp_path / "out")
    write_examples(spoiled / "bad_processed.pkl.gz", examples(5, seed=1, source="bad"))
    report = convert(spoiled, out=tmp_path / "out")
    assert report.rejects == {}
    assert report.positions == len(examples(5)) + len(examples(5, seed=1))
    assert "rejects.jsonl" not in files_of(tmp_path / "out")


def test_a_second_conversion_into_the_same_folder_is_refused_while_one_runs(sources, data, tmp_path):
    caught = []

    def intrude(now):
        if now.files_done == 1 and not caught:
            with pytest.raises(FileExistsError, match="another conversion into this folder is running") as error:
                convert(sources, out=tmp_path / "out", **CUT)
            caught.append(error)

    convert(sources, out=tmp_path / "out", **CUT, progress=intrude)
    assert caught
    assert files_of(tmp_path / "out") == files_of(data)


# other kinds of input -----------------------------------------------------------------------------------------------


def test_soft_policies_travel_from_file_to_batch(tmp_path):
    hard, soft = examples(4, source="hard"), examples(4, seed=1, source="soft")
    for example in soft:
        free = np.flatnonzero(example["board"].sum(axis=0).ravel() == 0)
        if example["policy"] is not None and len(free) > 1:
            example["policy"] = np.zeros(25, dtype=np.float32)
            example["policy"][free[[0, -1]]] = 0.25, 0.75
    write_examples(tmp_path / "in" / "hard_processed.pkl.gz", hard)
    write_examples(tmp_path / "in" / "soft_processed.pkl.gz", soft)
    out = tmp_path / "out"
    index = convert(tmp_path / "in", out=out, **{**CUT, "val_fraction": 0}).index
    assert index.layout.soft
    assert verify(out).problems == ()
    expected = Counter(
        (example["board"].tobytes(), (np.zeros(25, "f4") if example["policy"] is None else example["policy"]).tobytes())
        for example in hard + soft
    )
    for num_workers in (0, 1):
        given = Counter(
            (board[:2].numpy().tobytes(), policy.numpy().tobytes())
            for batch in hexshards.loader(out, batch_size=10, augment="none", num_workers=num_workers)
            for board, policy, _ in zip(*batch, strict=True)
        )
        assert given == expected
    assert index.splits["train"].without_policy == sum(example["policy"] is None for example in hard + soft)


def test_positions_without_a_game_are_split_by_file_and_said_to_be(tmp_path):
    nameless = examples(5, source="nameless")
    for example in nameless:
        example["metadata"]["game_id"] = None
    write_examples(tmp_path / "in" / "nameless_processed.pkl.gz", nameless)
    write_examples(tmp_path / "in" / "named_processed.pkl.gz", examples(20, seed=1, source="named"))
    report = convert(tmp_path / "in", out=tmp_path / "out", **{**CUT, "val_fraction": 0.3})
    warning = f"warning: {len(nameless)} positions do not say which game they are from"
    assert warning in conversion_summary(report)
    assert warning in info_text(read_index(tmp_path / "out"), folder="out")
    held = [split for split in ("train", "val") if ("nameless", -1) in games_of(tmp_path / "out", split)]
    assert len(held) == 1
    assert verify(tmp_path / "out").problems == ()


def test_files_without_examples_are_lines_in_the_report_and_change_no_shard(tmp_path, sources, data):
    holder = tmp_path / "in"
    shutil.copytree(sources[0].parent, holder)
    write_processed(holder / "a_processed.pkl.gz", [], source_file="a.trmph", games=0)
    (holder / "z.trmph").write_bytes(b"# no games this month\n")
    report = convert(holder, out=tmp_path / "out", **CUT)
    empty = {file.name: (file.positions, file.rejected, file.notes) for file in report.added if not file.positions}
    assert empty == {"a_processed.pkl.gz": (0, 0, "holds no examples"), "z.trmph": (0, 0, "holds no games")}
    assert "a_processed.pkl.gz · 0 positions kept, 0 rejected · holds no examples" in conversion_summary(report)
    assert verify(tmp_path / "out").problems == ()
    for split in ("train", "val"):
        ours, theirs = columns_of(tmp_path / "out", split), columns_of(data, split)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs if name != "source")
    assert games_of(tmp_path / "out", "val") == games_of(data, "val")
    added = convert(tmp_path / "in" / "z.trmph", out=tmp_path / "out", append=True)
    assert (added.positions, len(added.already)) == (0, 1)


def test_nothing_but_files_without_examples_is_no_dataset(tmp_path):
    (tmp_path / "z.trmph").write_bytes(b"# no games this month\n")
    with pytest.raises(InputRejected, match="no position was kept"):
        convert(tmp_path / "z.trmph", out=tmp_path / "out")


def test_among_many_small_files_one_of_a_single_faulty_line_is_a_reject_that_says_how_to_mend_it(tmp_path, monkeypatch):
    monkeypatch.setattr(spill_sources, "MAX_SPILLS", 3)  # files are read in groups
    for number, game in enumerate(play(12, side=5)):
        (tmp_path / f"{number:02}.trmph").write_text(trmph_line(game) + "\n")
    line = (tmp_path / "00.trmph").read_text()
    (tmp_path / "00.trmph").write_text(line.split()[0] + "\n")
    at = r"the first at 00\.trmph, line 1: nothing after the moves: append b or r, who won\. Look"
    with pytest.raises(InputRejected, match=rf"1 line was rejected \(no winner: 1\), {at}"):
        convert(tmp_path, out=tmp_path / "out")
    assert "append b or r" in rejects_in(tmp_path / "out")[0]["found"]
    report = convert(tmp_path, out=tmp_path / "out", max_rejects=1)
    assert report.rejects == {"no winner": 1} and len(report.added) == 12
    assert verify(tmp_path / "out").problems == ()


def test_many_small_files_are_spilled_together_and_make_the_shards_that_they_make_alone(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number, game in enumerate(play(12, side=5)):
        (tmp_path / "in" / f"{number:02}.trmph").write_text(trmph_line(game) + "\n")
    spilled = {}
    for out, few in ((tmp_path / "alone", spill_sources.FEW_FILES), (tmp_path / "together", 3)):
        monkeypatch.setattr(spill_sources, "FEW_FILES", few)
        watch, seen = spills_watched(out)
        convert(tmp_path / "in", out=out, progress=watch, **CUT)
        spilled[out.name] = len({name.split(".")[0] for name in seen})
    assert spilled == {"alone": 12, "together": 1}
    assert files_of(tmp_path / "alone") == files_of(tmp_path / "together")


@pytest.mark.parametrize("stated", [True, False], ids=["length of the game stated", "not stated"])
def test_positions_without_policy_in_the_middle_of_a_game_are_counted_by_file_and_in_all(tmp_path, stated):
    entries = examples(4)
    first = next(number for number, example in enumerate(entries) if example["metadata"]["position_in_game"] == 3)
    for number in (first, first + 1, len(entries) - 2):
        entries[number]["policy"] = None
    for example in () if stated else entries:
        del example["metadata"]["total_positions"]
    write_examples(tmp_path / "in" / "a_processed.pkl.gz", entries)
    write_examples(tmp_path / "in" / "b_processed.pkl.gz", examples(4, seed=1))
    report = convert(tmp_path / "in", out=tmp_path / "out", **{**CUT, "val_fraction": 0})
    assert "3 positions have no policy although the game goes on: kept, for the value alone" in report.notes
    assert [file.notes.partition("; ")[2] for file in report.added] == [
        "3 without policy before the end of their game",
        "",
    ]
    assert report.index.splits["train"].without_policy == 3 + 8


def test_codecs_hold_the_same_columns(sources, data, tmp_path):
    convert(sources, out=tmp_path / "plain", **CUT, codec="none")
    for split in ("train", "val"):
        as_recorded, packed = columns_of(tmp_path / "plain", split), columns_of(data, split)
        assert all(np.array_equal(as_recorded[name], packed[name]) for name in packed)


@pytest.mark.parametrize("form", ["processed", "trmph"])
def test_a_file_of_another_side_than_is_asked_for_is_refused(form, tmp_path):
    write(tmp_path / "files", games=3, side=5, games_per_file=3, format=form)
    with pytest.raises(InputRejected, match="holds boards of side 5, others of 6"):
        convert(tmp_path / "files", out=tmp_path / "data", side=6)
