"""A loop of self-play in compressed time: additions, windows, orders, resume and disk against a slow twin."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from helpers.small_data import columns_of, planes_of

import hexshards
from hexshards.conversion.compact import compact
from hexshards.conversion.watch import watch
from hexshards.dataset.earlier import kept_shards, listed
from hexshards.dataset.index import read_index
from hexshards.dataset.verify import verify
from hexshards.game.random_games import play

GENERATIONS, GAMES, SIDE, WINDOW = 32, 2, 4, 150
CUT = {"val_fraction": 0.2, "shard_positions": 128, "block_positions": 16}


def positions_by_hand(generation):
    """Every position of a generation's games: its generation and its stones."""
    for game in play(GAMES, side=SIDE, seed=generation):
        planes = np.zeros((2, SIDE, SIDE), dtype=np.float32)
        yield generation, planes.tobytes()
        for ply, cell in enumerate(game.moves):
            planes[ply % 2].ravel()[cell] = 1
            yield generation, planes.tobytes()


def rows_of_split(data, split):
    """The same of every shard of a split, in the order of the index."""
    shards = []
    for shard in read_index(data).splits[split].shards:
        columns = columns_of(data, split, shard.name[len(split) + 1 :].removesuffix(".tar"))
        boards = [planes_of(stones, SIDE).tobytes() for stones in columns["stones"]]
        shards.append([*zip(columns["generation"].tolist(), boards, strict=True)])
    return shards


def seen(batches):
    rows = []
    for batch in batches:
        boards = [np.ascontiguousarray(board[:2]).tobytes() for board in batch.board.numpy()]
        rows.append([*zip(batch[3]["generation"].tolist(), boards, strict=True)])
    return rows


def opened(data, **options):
    return hexshards.loader(data, batch_size=32, augment="none", columns=("generation",), **options)


def test_thirty_generations_of_additions_windows_orders_resume_and_disk(tmp_path):
    inbox, data = tmp_path / "inbox", tmp_path / "data"
    inbox.mkdir()
    expected, split_of, at_work = Counter(), {}, None
    for generation in range(GENERATIONS):
        games = [hexshards.SearchedGame(game.moves, game.winner) for game in play(GAMES, side=SIDE, seed=generation)]
        headers = {"generation": generation}
        hexshards.write_trmph(inbox / f"games-{generation:04d}.trmph", games, side=SIDE, headers=headers)
        watch(inbox, dataset=data, every_s=0, once=True, tell=lambda event: None, **CUT)
        expected.update(positions_by_hand(generation))
        if generation % 8 == 5:  # an epoch begins, and ends when shards have been merged
            at_work = opened(data, seed=generation)
            epoch = seen(at_work)
            batches = iter(opened(data, seed=generation))
            begun = seen([next(batches)])
        if generation % 8 == 7:
            compact(data)
            assert begun + seen(batches) == epoch
        if generation % 4 != 3:
            continue
        shards = rows_of_split(data, "train")
        there = [row for shard in shards for row in shard]
        held_out = [row for shard in rows_of_split(data, "val") for row in shard]
        assert Counter(there) + Counter(held_out) == expected
        # shards stand in the order of time, also those that were merged
        assert all(max(one)[0] <= min(other)[0] for one, other in pairwise(shards))
        # no game changes its split
        for split in ("train", "val"):
            columns = columns_of(data, split)
            for game in zip(columns["source"].tolist(), columns["game"].tolist(), strict=True):
                assert split_of.setdefault(game, split) == split
        # the newest positions, merged or not, each once, in an order that is the same again and from any batch on
        loader = opened(data, window=str(WINDOW), seed=generation)
        whole, states = [], []
        for batch in loader:
            whole += seen([batch])
            states.append(loader.state_dict())
        given = [row for batch in whole for row in batch]
        assert not Counter(given) - Counter(there)
        assert sorted(row[0] for row in given) == sorted(row[0] for row in there)[-WINDOW:]
        assert seen(opened(data, window=str(WINDOW), seed=generation)) == whole
        for done in range(1, len(whole)):
            again = opened(data, window=str(WINDOW), seed=generation)
            again.load_state_dict(states[done - 1])
            assert seen(again) == whole[done:]
        # what lies there is what the index and the state before it list; few shards once they are merged
        index = read_index(data)
        assert {path.name for path in data.glob("*.tar")} == listed(index) | kept_shards(data)
        if generation % 8 == 7:
            assert len(shards) <= 1 + 2 * len(there) // CUT["shard_positions"]
    assert verify(data).problems == ()
    assert len(read_index(data).inputs) == GENERATIONS
