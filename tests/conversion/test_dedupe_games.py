import shutil
from collections import Counter

import numpy as np
import pytest
from helpers.small_data import columns_of, files_of

from hexshards.conversion.convert import convert
from hexshards.conversion.duplicates import dedupe_games
from hexshards.conversion.random_files import examples_of, trmph_line, write_processed
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.game.random_games import Game, play

CUT = {"val_fraction": 0.3, "shard_positions": 96, "block_positions": 16}


def write_games(path, games):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(trmph_line(game) + "\n" for game in games))
    return path


def write_examples(path, entries, *, source="games.trmph"):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_processed(path, entries, source_file=source, games=40)
    return path


def examples(games, *, source="games.trmph"):
    return [
        example | {"metadata": example["metadata"] | {"value_sample_tier": line % 4}}
        for line, game in enumerate(games, 1)
        for example in examples_of(game, game_id=(0, line), source_file=source)
    ]


def turned(game):
    return Game(game.side, tuple(game.side**2 - 1 - move for move in game.moves), game.winner)


def rows_of(folder):
    """Every position, with the name of its game, as often as the dataset has it."""
    rows, names = Counter(), read_index(folder).sources
    for split in read_index(folder).splits:
        columns = columns_of(folder, split)
        del columns["plies"]
        names_P = [names[source] for source in columns.pop("source")]
        rows.update(zip(names_P, *([row.tobytes() for row in columns[name]] for name in sorted(columns)), strict=True))
    return rows


def shards_of(folder):
    return {name: data for name, data in files_of(folder).items() if name.endswith(".tar")}


@pytest.fixture(scope="module")
def games():
    return play(24, side=5, seed=3)


@pytest.fixture(scope="module")
def ways(games, tmp_path_factory):
    """The same games three times: as records, processed, and those shuffled inside the folder of the processed ones."""
    folder = tmp_path_factory.mktemp("ways")
    write_games(folder / "trmph" / "games.trmph", games)
    entries = examples(games)
    write_examples(folder / "processed" / "games_processed.pkl.gz", entries)
    mixed = [entries[row] for row in np.random.default_rng(0).permutation(len(entries))]
    for part in range(2):
        write_examples(folder / "processed" / "shuffled" / f"shuffled_{part:04}.pkl.gz", mixed[part::2], source="")
    return folder


@pytest.fixture(scope="module")
def once(ways, tmp_path_factory):
    out = tmp_path_factory.mktemp("once") / "data"
    report = convert([ways / "trmph", ways / "processed"], out=out, dedupe="games", **CUT)
    return out, report


@pytest.fixture(scope="module")
def plain(ways, tmp_path_factory):
    """What processed files hold, which say most."""
    out = tmp_path_factory.mktemp("plain") / "data"
    convert(ways / "processed" / "games_processed.pkl.gz", out=out, **CUT)
    return out


def test_games_that_come_by_records_processed_and_shuffled_files_are_kept_once_with_all_that_is_known(once, plain):
    out, report = once
    assert rows_of(out) == rows_of(plain) and set(rows_of(out).values()) == {1}
    assert verify(out).problems == ()
    splits = read_index(out).splits
    assert splits.keys() == {"train", "val"} and sum(split.games for split in splits.values()) == 24
    (note,) = [note for note in report.notes if "left out" in note]
    assert note.startswith(f"left out {2 * sum(rows_of(plain).values()):,} positions")
    assert not any("more than once" in note for note in report.notes)


@pytest.mark.parametrize("parts", [("trmph", "processed/shuffled"), ("processed",), ("processed/shuffled",)])
def test_any_of_these_ways_together_give_each_position_once(ways, plain, parts, tmp_path):
    convert([ways / part for part in parts], out=tmp_path / "out", dedupe="games", **CUT)
    assert rows_of(tmp_path / "out") == rows_of(plain)


def test_neither_order_nor_workers_nor_folders_nor_ranges_change_a_byte(ways, once, tmp_path, monkeypatch):
    shutil.copytree(ways / "processed" / "shuffled", tmp_path / "0")
    shutil.copy(ways / "processed" / "games_processed.pkl.gz", tmp_path / "z_processed.pkl.gz")
    sources = [tmp_path / "z_processed.pkl.gz", ways / "trmph", tmp_path / "0"]
    monkeypatch.setattr(dedupe_games, "TOGETHER", 100)
    convert(sources, out=tmp_path / "out", dedupe="games", workers=2, **CUT)
    assert shards_of(tmp_path / "out") == shards_of(once[0])


@pytest.mark.parametrize("moment", ["files_done", "shards_done"])
def test_a_conversion_that_was_cut_off_ends_with_the_same_bytes(ways, once, moment, tmp_path):
    def cut(now):
        if getattr(now, moment) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        convert(ways, out=tmp_path / "out", dedupe="games", progress=cut, **CUT)
    convert(ways, out=tmp_path / "out", dedupe="games", **CUT)
    assert shards_of(tmp_path / "out") == shards_of(once[0])


def test_games_of_the_same_moves_and_result_under_other_names_are_kept_once(games, tmp_path):
    known = write_games(tmp_path / "in" / "a.trmph", [*games[:10], games[3], turned(games[4])])
    processed = write_examples(
        tmp_path / "in" / "b_processed.pkl.gz",
        examples([*map(turned, games[5:15]), games[12]], source="b.trmph"),
        source="b.trmph",
    )
    fragments = [each for each in examples(games[:12], source="a.trmph") if each["metadata"]["position_in_game"] % 2]
    write_examples(tmp_path / "in" / "shuffled.pkl.gz", fragments, source="")
    report = convert([known, processed], out=tmp_path / "out", dedupe="games", **CUT)
    splits = read_index(tmp_path / "out").splits
    distinct = {frozenset((game.moves, turned(game).moves)) for game in games[:15]}
    assert sum(split.games for split in splits.values()) == len(distinct) == 15
    assert report.positions == sum(len(game.moves) + 1 for game in games[:15])
    assert any("8 whole games among them under other names" in note for note in report.notes)


def test_positions_of_a_game_that_is_another_one_are_left_out_where_they_come_one_by_one(games, tmp_path):
    twice = [*games, *games]
    write_games(tmp_path / "in" / "games.trmph", twice)
    mixed = examples(twice)[::-1]
    write_examples(tmp_path / "in" / "shuffled.pkl.gz", mixed[::2], source="")
    report = convert(tmp_path / "in", out=tmp_path / "out", dedupe="games", **CUT)
    assert report.positions == sum(len(game.moves) + 1 for game in games)


def test_games_that_share_a_name_or_their_beginning_are_all_kept(games, tmp_path):
    write_games(tmp_path / "1" / "games.trmph", games[:8])
    write_games(tmp_path / "2" / "games.trmph", games[8:])
    write_examples(tmp_path / "3" / "games_processed.pkl.gz", examples(games[4:12]))
    report = convert([tmp_path / name for name in "123"], out=tmp_path / "out", dedupe="games", **CUT)
    assert report.positions == sum(len(game.moves) + 1 for game in games)
    assert verify(tmp_path / "out").problems == ()


def test_a_position_whose_move_is_missing_gives_way_and_one_of_another_move_or_result_stays(games, tmp_path):
    entries = examples(games[:1])
    write_examples(tmp_path / "in" / "games_processed.pkl.gz", entries)
    missing = [each | {"policy": None} for each in entries[2:4]]
    other = [each | {"policy": np.roll(each["policy"], 1)} for each in entries[:1]]
    write_examples(tmp_path / "in" / "more.pkl.gz", [*missing, *other], source="")
    report = convert(tmp_path / "in", out=tmp_path / "out", dedupe="games", **CUT)
    assert report.positions == len(entries) + 1


def test_positions_that_name_no_game_all_stay(games, tmp_path):
    nameless = [each | {"metadata": each["metadata"] | {"game_id": None}} for each in examples(games[:3])]
    for name in ("a", "b"):
        write_examples(tmp_path / "in" / f"{name}.pkl.gz", nameless, source=name)
    report = convert(tmp_path / "in", out=tmp_path / "out", dedupe="games", **CUT)
    assert report.positions == 2 * len(nameless)


@pytest.mark.parametrize("baked", [False, True])
def test_added_files_bring_only_what_the_dataset_does_not_hold(ways, plain, games, baked, tmp_path):
    options = {"dedupe": "games", "bake_symmetries": baked, **CUT}
    convert(ways / "processed" / "shuffled" / "shuffled_0000.pkl.gz", out=tmp_path / "out", **options)
    first = shards_of(tmp_path / "out")
    convert(ways, out=tmp_path / "out", append=True)
    after = shards_of(tmp_path / "out")
    assert first.items() < after.items() and verify(tmp_path / "out").problems == ()
    assert sum(rows_of(tmp_path / "out").values()) == sum(rows_of(plain).values()) * (4 if baked else 1)
    report = convert(write_examples(tmp_path / "again.pkl.gz", examples(games)[1:]), out=tmp_path / "out", append=True)
    assert report.positions == 0 and any("left out" in note for note in report.notes)
    assert shards_of(tmp_path / "out") == after


@pytest.mark.parametrize("baked", [False, True])
def test_a_game_that_the_dataset_holds_under_another_name_is_not_added_again(games, baked, tmp_path, monkeypatch):
    monkeypatch.setattr(dedupe_games, "TOGETHER", 20)
    options = {"dedupe": "games", "bake_symmetries": baked, **CUT}
    write_games(tmp_path / "in" / "a.trmph", games[:12])
    write_examples(tmp_path / "in" / "b_processed.pkl.gz", examples(games[12:14], source="b.trmph"), source="b.trmph")
    convert(tmp_path / "in", out=tmp_path / "out", **options)
    first = shards_of(tmp_path / "out")
    more = write_games(tmp_path / "c.trmph", [*games[6:9], *map(turned, games[9:13]), *games[13:18], games[17]])
    report = convert(more, out=tmp_path / "out", append=True)
    new = sum(len(game.moves) + 1 for game in games[14:18])
    assert report.positions == new * (4 if baked else 1) and first.items() < shards_of(tmp_path / "out").items()
    assert any("9 whole games among them under other names" in note for note in report.notes)
    assert not any("in part" in note or "whole:" in note for note in report.notes)
    assert sum(split.games for split in read_index(tmp_path / "out").splits.values()) == 18
    assert verify(tmp_path / "out").problems == ()


def test_what_cannot_be_known_under_another_name_is_counted(games, tmp_path):
    parts = examples(games[:6], source="a.trmph")[::2]
    write_examples(tmp_path / "in" / "shuffled.pkl.gz", parts, source="")
    write_games(tmp_path / "in" / "whole.trmph", games[6:8])
    first = convert(tmp_path / "in", out=tmp_path / "out", dedupe="games", **CUT)
    assert not any("another name" in note for note in first.notes)
    again = examples([games[0], games[6]], source="c.trmph")[1::2]
    report = convert(
        write_examples(tmp_path / "d.pkl.gz", again, source=""), out=tmp_path / "out", append=True, max_rejects=0
    )
    assert report.positions == len(again)
    assert any(f"{len(again)} positions are of games that did not come whole: added" in each for each in report.notes)
    assert any("6 games are in the dataset in part" in note for note in report.notes)


def test_what_is_to_be_kept_and_left_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_duplicates"):
        convert(tmp_path, out=tmp_path / "out", dedupe="games", keep_duplicates=True)


def test_real_games_by_all_three_ways_are_kept_once(real, tmp_path):
    trmph = [real / "trmph" / f"wolve13_{number:02}.trmph" for number in (0, 5)]
    others = [real / "processed" / "wolve13_05_processed.pkl.gz", real / "shuffled" / "shuffled_0000.pkl.gz"]
    convert(trmph, out=tmp_path / "trmph")
    convert([*trmph, *others], out=tmp_path / "once", dedupe="games")
    rows = rows_without_tier(tmp_path / "once")
    mine = {row: count for row, count in rows.items() if row[0] in ("wolve13_00", "wolve13_05")}
    assert mine == rows_without_tier(tmp_path / "trmph") and set(rows.values()) == {1}


def rows_without_tier(folder):
    rows, names = Counter(), read_index(folder).sources
    for split in read_index(folder).splits:
        columns = columns_of(folder, split)
        names_P = [names[source] for source in columns["source"]]
        kept = [columns[name] for name in ("game", "ply", "policy", "stones", "value")]
        rows.update(zip(names_P, *([row.tobytes() for row in column] for column in kept), strict=True))
    return rows
