from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from helpers.small_data import CUT, columns_of, dataset, examples, images, rows_of, samples_of, write_examples
from typer.testing import CliRunner

from hexshards.cli.app import app
from hexshards.conversion.convert import convert
from hexshards.conversion.random_files import trmph_line
from hexshards.dataset.index import read_index
from hexshards.errors import DataError
from hexshards.game.random_games import play
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import _groups
from hexshards.loading.selection.game_ranks import GameRanks

GENERATIONS = 30


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A dataset that grew by 30 generations of three games, its index after each, and its columns."""
    folder, indexes = tmp_path_factory.mktemp("grown"), []
    for number in range(GENERATIONS):
        source = write_examples(
            folder / f"gen{number:02d}_processed.pkl.gz", examples(3, seed=number, source=f"gen{number:02d}")
        )
        options = {**CUT, "val_fraction": 0} if number == 0 else {}
        convert(source, out=folder / "data", append=number > 0, generation=number, **options)
        indexes.append((folder / "data" / "index.json").read_bytes())
    return folder / "data", indexes, columns_of(folder / "data", "train")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("plain"), val_fraction=0)


def open_loader(data, *, rank=0, world_size=1, **options):
    small = {"batch_size": 32, "window_blocks": 3, "group_shards": 2, "seed": 7, "augment": "none"}
    return Loader(data, LoaderSpec(**{**small, **options}), rank=rank, world_size=world_size)


def places(loader, epoch=0):
    """Which rows of the split an epoch shows, in the order in which it does, counted without what blocks lack."""
    windows, blocks = loader.epochs.windows(epoch), loader.epochs.selections[0].blocks
    shown = np.concatenate([windows.read(number, ("place",)).columns["place"] for number in range(len(windows))])
    size = loader.index.layout.block_positions
    starts = np.cumsum(blocks.rows) - blocks.rows
    return (starts[shown // size] + shown % size).tolist()


def limited(rows, columns, most, *, epoch, loader):
    """Exactly so many rows of each game: the slow twin of GameRanks, a game at a time."""
    games, shown = defaultdict(list), []
    for row in rows:
        games[int(columns["source"][row]), int(columns["game"][row])].append(row)
    ranks = loader.epochs.selections[0]._ranks
    numbers = {row: place for place, row in enumerate(rows)}
    for members in games.values():
        first = int(ranks.ranks[numbers[members[0]]])
        for rank, row in enumerate(members):
            turn = (first + rank + epoch) * most % len(members)
            shown += [row] if turn < most else []
    return shown


# the window ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["40", "333", "min=50 exponent=.5 expand=1", "1e6"])
def test_a_window_over_growing_data_holds_the_newest_rows_after_each_generation(grown, window, tmp_path):
    data, indexes, _ = grown
    for shard in data.glob("*.tar"):
        (tmp_path / shard.name).symlink_to(shard)
    for index in indexes:
        (tmp_path / "index.json").write_bytes(index)
        loader = open_loader(tmp_path, window=window)
        total = loader.index.splits["train"].positions
        size = {"40": min(40, total), "333": min(333, total), "1e6": total}.get(window)
        if size is None:
            grows = 50 + (max(total, 50) ** 0.5 - 50**0.5) / (0.5 * 50**-0.5)
            size = total if total <= 50 else int(grows)
        # order of time is that of the rows: shards are only ever added behind
        assert sorted(places(loader)) == list(range(total - size, total))
        assert loader.positions == loader.samples == size


@pytest.mark.parametrize("count", [1, 77, 500])
def test_by_generation_a_window_is_cut_in_its_oldest_generation(grown, tmp_path, count):
    data, _, columns = grown
    total = len(columns["value"])
    # another order of the same shards than that of time: a dataset that was converted from all files at once
    whole = tmp_path / "whole"
    convert(sorted(data.parent.glob("gen*.pkl.gz")), out=whole, **{**CUT, "val_fraction": 0}, generation=None)
    assert "generation" not in read_index(whole).layout.columns()
    with pytest.raises(ValueError, match="by=generation needs the column generation, which this dataset lacks"):
        open_loader(whole, window=f"{count} by=generation")
    order = sorted(range(total), key=lambda row: (columns["generation"][row], row))
    loader = open_loader(data, window=f"{count} by=generation")
    assert sorted(places(loader)) == sorted(order[-count:])
    oldest = columns["generation"][order[-count]]
    assert f"the oldest of them of generation {oldest}" in loader.describe()[0]


def test_generations_that_lie_in_every_block_are_told_apart_row_by_row(tmp_path):
    for number in (3, 1, 2):
        lines = [f"# generation: {number}", *map(trmph_line, play(8, side=5, seed=number))]
        (tmp_path / "games").mkdir(exist_ok=True)
        (tmp_path / "games" / f"g{number}.trmph").write_text("\n".join(lines) + "\n")
    convert(tmp_path / "games", out=tmp_path / "data", **{**CUT, "val_fraction": 0})
    columns = columns_of(tmp_path / "data", "train")
    assert {*columns["generation"].tolist()} == {1, 2, 3}
    order = sorted(range(len(columns["value"])), key=lambda row: (columns["generation"][row], row))
    for options in ({}, {"where": "ply=3.."}):
        left = [row for row in order if not options or columns["ply"][row] >= 3]
        for count in (1, 50, 160, len(left)):
            loader = open_loader(tmp_path / "data", window=f"{count} by=generation", **options)
            assert sorted(places(loader)) == sorted(left[-count:])


def test_a_window_delivers_its_positions_once_in_batches_and_says_which_they_are(grown):
    data, _, _ = grown
    samples = [images(*sample)[0] for sample in samples_of(data, "train")]
    loader = open_loader(data, window="200")
    given = [row for batch in loader for row in rows_of(batch)]
    assert Counter(given) == Counter(samples[-200:])
    assert loader.shards < 10 < open_loader(data).shards == 30
    (line,) = loader.describe()
    oldest = "the oldest of them in train-"
    assert line.startswith(f"window 200: the newest 200 of {len(samples):,} positions, {oldest}")
    assert re.search(r"train-\d{6}.tar \([\d,]+ of its [\d,]+\)$", line)
    assert open_loader(data, window="1M").describe() == []


def test_to_choose_by_time_and_by_shards_reads_the_index_alone(grown, tmp_path):
    (tmp_path / "index.json").write_bytes(grown[1][-1])
    for options in ({"window": "min=50 keep=40"}, {"shards": "50%..100%"}, {"window": "200", "positions": 30}):
        assert open_loader(tmp_path, **options).fingerprint(2) == open_loader(grown[0], **options).fingerprint(2)
    with pytest.raises(DataError):
        open_loader(tmp_path, per_game=5)


def test_info_says_which_positions_an_epoch_would_draw(grown):
    total = len(grown[2]["value"])
    shown = CliRunner().invoke(app, ["info", str(grown[0]), "--window", "200", "--per-game", "3"])
    assert shown.exit_code == 0
    *_, count, line = shown.stdout.splitlines()
    drawn = open_loader(grown[0], window="200", per_game=3).positions
    assert count == f"an epoch draws {drawn:,} positions of train"
    assert line.startswith(f"window 200: the newest 200 of {total:,} positions, the oldest of them in train-")
    assert f"{drawn:,} of 200 positions an epoch, at most 3 of each of " in line
    entry = json.loads(CliRunner().invoke(app, ["info", str(grown[0]), "--window", "200", "--json"]).stdout)
    assert entry["epoch"]["positions"] == 200


def test_a_window_mixes_small_additions_until_they_fill_a_window_of_blocks(grown):
    data, _, _ = grown
    loader = open_loader(data, window="1000", group_shards=1, window_blocks=12)
    plan, blocks = loader.epochs.plan(0), loader.epochs.selections[0].blocks
    rows = np.diff(plan.starts).tolist()
    assert len(rows) > 3
    assert all(192 <= count < 192 + 16 for count in rows[:-1]), "twelve blocks of 16 rows, the small ones made up for"
    homes = [{*np.searchsorted(blocks.first, window.blocks, side="right").tolist()} for window in plan.windows[:-1]]
    assert min(map(len, homes)) >= 5, "an addition is five blocks or so, and a window holds rows of many"


def test_a_window_of_few_rows_a_block_is_filled_from_more_blocks_up_to_a_bound(data):
    for most, blocks in ((8, 3), (1, 8 * 3)):
        plan = open_loader(data, per_game=most).epochs.plan(0)
        sizes = [len(window.blocks) for window in plan.windows[:-1]]
        assert blocks <= min(sizes)
        assert max(sizes) <= 8 * 3


@pytest.mark.parametrize(("shards", "blocks"), [(1, 0), (8, 0), (1, 16), (3, 16), (8, 1)])
def test_groups_hold_at_least_so_many_shards_and_blocks_and_all_shards_once(shards, blocks):
    filled = np.random.default_rng(shards + blocks).integers(0, 9, 100)
    groups = [*_groups(filled, shards=shards, blocks=blocks)]
    assert [row for first, end in groups for row in range(first, end)] == list(range(100))
    for first, end in groups[:-1]:
        assert end - first >= shards and filled[first:end].sum() >= blocks
        assert end - first == shards or filled[first : end - 1].sum() < blocks, "no more than are needed"


# the share of an epoch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 37, 100, 5000])
def test_an_epoch_keeps_so_many_of_the_window_and_the_next_takes_others(grown, keep):
    data, _, columns = grown
    total = len(columns["value"])
    loader = open_loader(data, window=f"400 keep={keep}")
    epochs = [places(loader, epoch) for epoch in range(12)]
    assert {len(shown) for shown in epochs} == {min(keep, 400)} == {loader.positions}
    assert all(len({*shown}) == len(shown) and min(shown) >= total - 400 for shown in epochs)
    if keep == 100:
        seen = Counter(row for shown in epochs for row in shown)
        assert len(seen) == 400
        assert max(seen.values()) - min(seen.values()) <= 2, "three times each, give or take the rounding of a shard"


# positions of a game ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 4, 8, 25])
@pytest.mark.parametrize("options", [{}, {"where": "ply=2..20"}, {"augment": "all"}])
def test_an_epoch_shows_exactly_so_many_positions_of_each_game(data, most, options):
    columns = columns_of(data, "train")
    rows = [row for row in range(len(columns["ply"])) if not options.get("where") or 2 <= columns["ply"][row] <= 20]
    loader = open_loader(data, per_game=most, **options)
    held = Counter((int(columns["source"][row]), int(columns["game"][row])) for row in rows)
    passes = 4 if options.get("augment") == "all" else 1
    for epoch in range(4):
        shown = places(loader, epoch)
        assert Counter(shown) == Counter(limited(rows, columns, most, epoch=epoch, loader=loader) * passes)
        counts = Counter((int(columns["source"][row]), int(columns["game"][row])) for row in shown)
        assert counts == {game: min(most, count) * passes for game, count in held.items()}
        assert len(shown) == loader.samples


def test_the_epochs_of_a_game_go_through_its_positions_without_repeating_one_too_soon(data):
    columns, most = columns_of(data, "train"), 4
    loader = open_loader(data, per_game=most)
    epochs = [{*places(loader, epoch)} for epoch in range(30)]
    games = defaultdict(list)
    for row, key in enumerate(zip(columns["source"].tolist(), columns["game"].tolist(), strict=True)):
        games[key].append(row)
    for rows in games.values():
        whole, least = -(-len(rows) // most), len(rows) // most
        for start in range(0, 8):
            shown = Counter(row for epoch in epochs[start : start + whole] for row in rows if row in epoch)
            assert {*shown} == {*rows}, "each was shown"
            soon = Counter(row for epoch in epochs[start : start + least] for row in rows if row in epoch)
            assert max(soon.values()) == 1, "none came twice"


def test_another_seed_shows_other_positions_of_a_game_and_other_positions_of_other_games_together(data):
    shown = [{*places(open_loader(data, per_game=4, seed=seed))} for seed in (1, 2)]
    assert 0.05 < len(shown[0] & shown[1]) / len(shown[0]) < 0.5
    assert {*places(open_loader(data, per_game=4, seed=1))} == shown[0]


def test_positions_that_say_no_game_are_all_shown():
    source, game = np.array([0, 0, 0, 1, 0], np.uint32), np.array([-1, 5, -1, 5, 5], np.int32)
    ranks = GameRanks([(source[:2], game[:2]), (source[2:], game[2:])], seed=3)
    assert ranks.without_game == 2
    assert ranks.games == 2
    for epoch in (0, 1, 2**31 - 1):
        chosen = ranks.chosen(0, 5, epoch=epoch, most=1)
        assert chosen[[0, 2, 3]].all()
        assert chosen[[1, 4]].sum() == 1


@pytest.mark.parametrize("size", [3, 255, 256, 300, 70_000])
def test_a_game_of_any_size_is_counted_exactly(size):
    rng = np.random.default_rng(size)
    game = rng.permutation(np.r_[np.full(size, 2**31 - 1), np.arange(50)]).astype(np.int32)
    source = np.full(len(game), 2**32 - 1, np.uint32)
    cuts = np.array_split(np.arange(len(game)), 7)
    ranks = GameRanks([(source[cut], game[cut]) for cut in cuts], seed=1)
    for most in (1, 2, size - 1, size + 5):
        for epoch in (0, 7, 2**31 - 1):
            chosen = ranks.chosen(0, len(game), epoch=epoch, most=most)
            assert (chosen & (game == 2**31 - 1)).sum() == min(most, size)
            blocks = np.array([len(cut) for cut in cuts])
            expected = [int(chosen[cut].sum()) for cut in cuts]
            assert ranks.rows(blocks, epoch=epoch, most=most).tolist() == expected


# all together -------------------------------------------------------------------------------------------------------

TOGETHER = [
    {"window": "400"},
    {"window": "min=50 keep=100", "where": "ply=1.."},
    {"per_game": 5},
    {"sources": "gen1*|gen2[0-4]", "window": "300 by=generation", "per_game": 6},
    {"shards": "20%..90%", "window": "350 keep=90", "per_game": 7, "sources": "gen*"},
    {"shards": "3..20", "per_game": 3, "positions": 60, "augment": "all"},
    {"window": "300", "per_game": 6, "streams": 2},
]


@pytest.mark.parametrize("options", TOGETHER)
def test_what_is_chosen_is_the_same_rows_for_all_ranks_and_resumes_in_any_epoch_and_batch(grown, options):
    data, _, _ = grown
    loader = open_loader(data, **{"augment": "random", **options})
    whole = [(rows_of(batch), loader.state_dict()) for _ in range(3) for batch in loader]
    ranks = [
        open_loader(data, rank=rank, world_size=2, **{"augment": "random", "batch_size": 16, **options})
        for rank in (0, 1)
    ]
    dealt = [[rows_of(batch) for _ in range(3) for batch in rank] for rank in ranks]
    assert len(dealt[0]) == len(dealt[1]) == len(whole)
    assert [one + other for one, other in zip(*dealt, strict=True)] == [rows for rows, _ in whole]
    for at in range(0, len(whole), 5):
        again = open_loader(data, **{"augment": "random", "num_workers": int(at == 5), **options})
        again.load_state_dict(whole[at][1])
        rest = [rows_of(batch) for _ in range(3) for batch in again]
        assert rest[: len(whole) - at - 1] == [rows for rows, _ in whole[at + 1 :]]


@pytest.mark.parametrize("options", TOGETHER)
def test_steps_are_taken_one_after_another_as_a_slow_twin_takes_them(grown, options):
    data, _, columns = grown
    loader, names = open_loader(data, **options), read_index(data).sources
    rows = list(range(len(columns["value"])))
    shards = loader.epochs.selections[0].blocks.shards
    homes = np.repeat(np.arange(len(shards)), [shard.positions for shard in shards])
    low, high = {"20%..90%": (0.2 * len(shards), 0.9 * len(shards)), "3..20": (3, 21)}.get(
        options.get("shards"), (0, 99)
    )
    rows = [row for row in rows if low <= homes[row] < high]
    if sources := options.get("sources"):
        wanted = ("gen1", "gen20", "gen21", "gen22", "gen23", "gen24") if "|" in sources else ("gen",)
        rows = [row for row in rows if names[columns["source"][row]].startswith(wanted)]
    if options.get("where"):
        rows = [row for row in rows if columns["ply"][row] >= 1]
    if window := options.get("window"):
        count = loader.epochs.selections[0].window.size(len(rows))
        by = columns["generation"] if "by=" in window else np.zeros(len(columns["value"]))
        rows = sorted(sorted(rows, key=lambda row: (by[row], row))[-count:])
    for epoch in (0, 1, 5):
        left = (
            limited(rows, columns, options["per_game"], epoch=epoch, loader=loader) if "per_game" in options else rows
        )
        shown = Counter(places(loader, epoch))
        assert shown.keys() <= {*left}
        size = (
            90 if "keep=90" in options.get("window", "") else 100 if "keep=100" in options.get("window", "") else None
        )
        size = options.get("positions", size)
        assert len(shown) == min(len(left), size or len(left))
        assert {*shown.values()} == {4 if options.get("augment") == "all" else 1}


def test_options_at_their_defaults_leave_states_and_fingerprints_as_they_were(data):
    plain = open_loader(data)
    state = plain.state_dict()
    assert not {"window", "per_game", "sources", "shards"} & state.keys()
    assert open_loader(data, window="", per_game=None, sources="", shards="").fingerprint(1) == plain.fingerprint(1)


def test_a_state_of_another_choice_is_refused_by_name(data):
    choice = {"per_game": 4, "sources": "*", "shards": "0%..50%"}
    chosen = open_loader(data, window="500", per_game=4, sources="*", shards=" 0% .. 50% ")
    for one, other in ((chosen, open_loader(data)), (open_loader(data), chosen)):
        with pytest.raises(ValueError, match=r"window is .*; per_game is .*; sources is .*; shards is "):
            one.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"window is 2k, the state's 500$"):
        open_loader(data, **choice, window="2000").load_state_dict(chosen.state_dict())
    open_loader(data, window="0.5k", per_game=4, sources=" * ", shards="0%..50%").load_state_dict(chosen.state_dict())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"sources": "gem11*"},
            r"no source file matches 'gem11\*' \(it has gen00, gen01, gen02, \.\.\.\)\. Did you mean gen11",
        ),
        ({"sources": "nowhere"}, r"no source file matches 'nowhere' \(it has gen00, gen01, gen02, \.\.\.\)$"),
        ({"sources": "gen01*", "where": "source=gen02*"}, r"has no position that meets 'source=gen02\*' and 'source="),
        ({"shards": "50%..40%"}, "shards: '50%..40%' does not go up"),
        ({"shards": "400..500"}, "shards: '400..500' begins behind the last shard"),
        ({"window": "0"}, "window: window '0' is no number of positions"),
        ({"window": "5 keep=3", "positions": 2}, "window has keep, and positions is another limit"),
        ({"per_game": 0}, "per_game must be at least 1, got 0"),
    ],
)
def test_what_chooses_nothing_or_makes_no_sense_is_refused_in_one_sentence(grown, options, fault):
    data, _, _ = grown
    with pytest.raises(ValueError, match=fault) as refused:
        open_loader(data, **options)
    assert "\n" not in str(refused.value)


def test_a_mix_takes_windows_and_games_of_each_dataset(grown, data):
    def mixed(**options):
        spec = LoaderSpec(batch_size=32, window_blocks=3, group_shards=2, augment="none", per_game=5, **options)
        return Loader({str(grown[0]): 0.5, str(data): 0.5}, spec)

    loader = mixed(window="400")
    batches = [rows_of(batch) for _ in range(3) for batch in loader]
    assert {len(batch) for batch in batches[:-1]} <= {32, loader.samples % 32 or 32}
    state = None
    for number, _ in enumerate(again := mixed(window="400")):
        if number == 2:
            state = again.state_dict()
            break
    resumed = mixed(window="400")
    resumed.load_state_dict(state)
    assert [rows_of(batch) for batch in resumed] == batches[3 : len(loader)]
    assert all("at most 5 of each of" in line for line in loader.describe())


def test_in_a_mix_keep_takes_so_many_of_each_dataset_a_pass_until_its_window_is_used_up(grown, data):
    spec = LoaderSpec(batch_size=32, window_blocks=3, group_shards=2, augment="none", window="400 keep=60")
    loader = Loader({str(grown[0]): 0.5, str(data): 0.5}, spec)
    selections = loader.epochs.selections
    assert [selection.positions for selection in selections] == [60, 60]
    passes = defaultdict(Counter)
    for epoch in range(14):
        windows = loader.epochs.windows(epoch)
        for window in windows.plan.windows:
            for run in window.runs:
                for part in selections[run.dataset].read(run.blocks, (), epoch=run.epoch):
                    passes[run.dataset, run.epoch].update(part["place"].tolist())
    for number, folder in enumerate((grown[0], data)):
        alone = Loader(folder, spec).epochs
        for turn in range(9):
            windows = alone.windows(turn)
            shown = np.concatenate([windows.read(each, ("place",)).columns["place"] for each in range(len(windows))])
            assert len(shown) == 60
            assert {*passes[number, turn]} == {*shown.tolist()}
        # shards are small and give whole positions, so a few come again before the last of the 400 comes
        assert len({place for turn in range(9) for place in passes[number, turn]}) == 400
