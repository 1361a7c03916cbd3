from __future__ import annotations

import pickle
import sys
from contextlib import suppress

import numpy as np
import pytest

from hexshards.conversion.pickles import lookahead, scanner
from hexshards.conversion.pickles.frames import Unframed
from hexshards.conversion.pickles.lookahead import NumPyLookahead
from hexshards.conversion.random_files import examples_of
from hexshards.errors import DataError
from hexshards.game.random_games import play

compiled = pytest.importorskip("hexshards.conversion.pickles.lookahead_compiled")
CompiledLookahead, RUN_DICTS = compiled.CompiledLookahead, compiled.RUN_DICTS


class Both:
    """Both ways, asked alike; the NumPy way's answers are kept to the length of the other's."""

    def __init__(self, data):
        self.numpy, self.compiled = NumPyLookahead(data), CompiledLookahead(data)
        self.dicts = 0

    def add(self, template, at):
        self.numpy.add(template, at)
        self.compiled.add(template, at)

    def run(self, at):
        starts, kinds = self.compiled.run(at)
        assert (starts.tolist(), kinds.tolist()) == runs(self.numpy, at, RUN_DICTS)
        self.dicts += len(starts)
        return starts, kinds


def runs(way, at, count):
    """So many dicts one after another from a place on, or as many as there are."""
    starts, kinds = [], []
    while len(starts) < count:
        more, which = way.run(at)
        if not len(more):
            break
        starts += more.tolist()
        kinds += which.tolist()
        at = starts[-1] + len(way.templates[kinds[-1]].data)
    return starts[:count], kinds[:count]


@pytest.fixture
def both(monkeypatch):
    made = []
    monkeypatch.setattr(scanner, "LESSON_DICTS", 0)
    monkeypatch.setattr(scanner, "lookahead_for", lambda data: made.append(Both(data)) or made[-1])
    return made


def pickled(*, side, games, source=0):
    """Examples with players as numbers and winners as text: no enum of hex_ai is needed to pickle them."""
    every = [
        {**e, "player_to_move": e["player_to_move"].value, "metadata": {**e["metadata"], "winner": "RED"}}
        for line, game in enumerate(play(games, side=side, seed=5), start=200)
        for e in examples_of(game, game_id=(source, line))
    ]
    return pickle.dumps({"examples": every}, 4)


def load(data):
    return scanner.load_records(Unframed([data], expected_bytes=len(data)), where="a", key="board")


@pytest.mark.parametrize(("side", "games"), [(3, 200), (9, 120), (13, 12)])
def test_compiled_code_finds_the_dicts_that_numpy_finds(both, side, games):
    data = pickled(side=side, games=games)
    similar = [e for e in load(data)["examples"] if isinstance(e, scanner.SimilarDicts)]
    assert both[0].dicts == sum(map(len, similar)) > 0.7 * data.count(b"\x8c\x05board")


def test_they_find_the_same_in_what_was_damaged_anywhere(both):
    data = np.frombuffer(pickled(side=4, games=40), dtype=np.uint8)
    random = np.random.Generator(np.random.Philox(3))
    for _ in range(40):
        damaged = data.copy()
        places = random.integers(len(data) // 3, len(data), random.integers(1, 30))
        damaged[places] = random.integers(0, 256, len(places))
        with suppress(DataError):
            load(damaged.tobytes())
    assert sum(each.dicts for each in both) > 10_000


def test_a_dict_that_reaches_beyond_the_end_is_not_found(both):
    load(data := pickled(side=4, games=40))
    template = both[0].numpy.templates[-1]
    dicts = np.frombuffer(template.data * 3, dtype=np.uint8)
    for missing in (0, 1, 7, len(template.data) - 1):
        way = CompiledLookahead(dicts[: len(dicts) - missing])
        way.add(template, 0)
        assert len(way.run(0)[0]) == 3 - bool(missing)
        assert not len(way.run(len(dicts) - missing)[0])
    assert data


def test_compiled_code_is_loaded_once_there_was_much_to_look_through(monkeypatch):
    data = np.zeros(1000, dtype=np.uint8)
    monkeypatch.setattr(lookahead, "_looked_through", 0)
    monkeypatch.setattr(lookahead, "COMPILED_FROM_BYTES", 2500)
    ways = [type(lookahead.lookahead_for(data)) for _ in range(4)]
    assert ways == [NumPyLookahead, NumPyLookahead, CompiledLookahead, CompiledLookahead]


@pytest.mark.parametrize("error", [ImportError("no numba"), RuntimeError("no locator available")])
def test_without_compiled_code_numpy_does_it_and_that_is_told_once(monkeypatch, caplog, error):
    monkeypatch.setattr(lookahead, "COMPILED_FROM_BYTES", 0)
    monkeypatch.setitem(sys.modules, "hexshards.conversion.pickles.lookahead_compiled", Raising(error))
    lookahead._compiled.cache_clear()
    try:
        ways = [type(lookahead.lookahead_for(np.zeros(9, dtype=np.uint8))) for _ in range(3)]
    finally:
        lookahead._compiled.cache_clear()
    assert ways == [NumPyLookahead] * 3
    assert len(caplog.records) == isinstance(error, RuntimeError)


class Raising:
    """A module that cannot be imported from."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        raise self.error
