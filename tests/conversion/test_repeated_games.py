import numpy as np
import pytest

import hexshards
from hexshards.conversion.convert import convert
from hexshards.conversion.discovery import discover
from hexshards.conversion.duplicates.repeated_games import without_repeats
from hexshards.conversion.executors.processes import local
from hexshards.conversion.options import ConvertSpec
from hexshards.conversion.random_files import trmph_line
from hexshards.dataset.verify import verify
from hexshards.game.random_games import Game, play


def turned(game):
    cells = game.side * game.side
    return Game(game.side, tuple(cells - 1 - move for move in game.moves), game.winner)


def write_games(path, games):
    path.write_text("".join(trmph_line(game) + "\n" for game in games))


def slow_repeats(files):
    """(file name, line) of every game whose moves, or moves turned by 180 degrees, an earlier one has."""
    seen, repeats = set(), set()
    for name, games in sorted(files.items()):
        for line, game in enumerate(games, start=1):
            same = frozenset((game.moves, turned(game).moves))
            if same in seen:
                repeats.add((name, line))
            seen.add(same)
    return repeats


@pytest.fixture
def files(tmp_path):
    games = play(40, side=5, seed=3)
    files = {
        "a.trmph": [*games[:15], games[2], turned(games[3])],
        "b.trmph": [*games[10:30], *map(turned, games[20:25])],
        "c.trmph": [*games[30:], games[0], turned(games[39])],
    }
    (tmp_path / "in").mkdir()
    for name, each in files.items():
        write_games(tmp_path / "in" / name, each)
    return files


def repeats_in(folder, spec):
    inputs = discover([folder]).inputs
    (folder.parent / "scratch").mkdir()
    jobs = [((file,), folder.parent / "scratch" / file.path.name) for file in inputs]
    with local(1) as runner:
        told, count = without_repeats(jobs, spec=spec, runner=runner, at_once=1)
    return list(told.values()), count


def test_the_games_left_out_are_those_a_slow_walk_over_all_files_finds(files, tmp_path):
    told, count = repeats_in(tmp_path / "in", ConvertSpec())
    skipped = {(file.path.name, line) for file in told for line in file.skip}
    assert skipped == slow_repeats(files) and count == len(skipped) > 10


def test_each_kept_repeat_names_the_first_game_like_it(files, tmp_path):
    told, _ = repeats_in(tmp_path / "in", ConvertSpec(keep_duplicates=True))
    repeats = {(file.path.name, twin.game): twin for file in told for twin in file.twins}
    assert set(repeats) == slow_repeats(files)
    for (name, line), twin in repeats.items():
        mine, other = files[name][line - 1], files[f"{twin.source}.trmph"][twin.other - 1]
        assert mine.moves in (other.moves, turned(other).moves)
        assert (f"{twin.source}.trmph", twin.other) not in repeats


def test_repeats_are_dropped_and_counted_by_default(files, tmp_path):
    report = convert(tmp_path / "in", out=tmp_path / "out", val_fraction=0.3)
    kept = {game.moves for games in files.values() for game in games}
    distinct = {min(moves, tuple(24 - move for move in moves)) for moves in kept}
    assert sum(split.games for split in report.index.splits.values()) == len(distinct) == 40
    assert any(f"{len(slow_repeats(files))} games are exact repeats" in note for note in report.notes)


@pytest.mark.parametrize("workers", [1, 2])
def test_kept_repeats_share_a_split(files, tmp_path, workers):
    out = tmp_path / "out"
    report = convert(tmp_path / "in", out=out, val_fraction=0.5, keep_duplicates=True, workers=workers)
    assert report.positions == sum(len(game.moves) + 1 for games in files.values() for game in games)
    homes = {}
    for name in report.index.splits:
        for board, _, _ in hexshards.loader(out, split=name, augment="none", batch_size=64):
            final = (board[:, :2].sum(dim=(1, 2, 3)) > 12).numpy()
            for planes in board[:, :2][final].numpy():
                key = min(planes.tobytes(), np.ascontiguousarray(planes[:, ::-1, ::-1]).tobytes())
                homes.setdefault(key, set()).add(name)
    assert len(homes) > 40 and all(len(splits) == 1 for splits in homes.values())
    assert verify(out).problems == ()


def test_a_conversion_that_is_given_again_does_not_list_games_again(files, tmp_path):
    (tmp_path / "in" / "bad.trmph").write_text("#5,a1b1 b\n")
    with pytest.raises(hexshards.InputRejected):
        convert(tmp_path / "in", out=tmp_path / "out")
    lists = sorted((tmp_path / "out" / ".partial").glob("*.games"))
    before = [path.stat().st_mtime_ns for path in lists]
    assert len(lists) == 4
    with pytest.raises(hexshards.InputRejected):
        convert(tmp_path / "in", out=tmp_path / "out")
    assert [path.stat().st_mtime_ns for path in lists] == before
