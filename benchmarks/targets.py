"""Search policies: what optional columns take on disk, and what single moves, visits and a mix take to load.

    python benchmarks/targets.py [--write]

Bytes: one block of 8,192 positions of side 13, compressed as in a shard, tar's headers not counted. Visits are those
of a bandit's PUCT (hexshards/game/random_visits.py); weights are three values, search values noise: the worst case.
Loading: CPU time of a whole epoch of random games whose moves have 24 visited cells each, in one process without
workers; the ways take turns, and the table shows medians, and the median of each turn's ratio to single moves.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.recording import machine, write_results
from numpy.typing import NDArray

import hexshards
from hexshards.dataset import codec
from hexshards.game.columns import OPTIONAL, VISITS
from hexshards.game.random_games import play
from hexshards.game.random_visits import search
from hexshards.game.visits import Entries, Visits, visits_of
from hexshards.loading.expansion import expand_compiled
from hexshards.loading.expansion.expand import Fill, expand

POSITIONS, CELLS, SIDE = 8_192, 169, 13
SIMULATIONS = (100, 200, 400, 800)
GAMES, VISITED, TURNS = 900, 24, 9
BATCH = 1024


def main() -> None:
    """Measure, print and, on request, write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/targets.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    text = "\n".join([*bytes_table(), "", *loading_table()])
    print(text)
    if write:
        write_results("Search policies", f"{machine(f'torch {torch.__version__}')}\n\n{text}\n")


# bytes ---------------------------------------------------------------------------------------------------------------


def bytes_table() -> list[str]:
    """Bytes of a position of each optional column."""
    random = np.random.default_rng(0)
    free = np.argsort(random.random((POSITIONS, CELLS)), axis=1) >= random.integers(0, 80, POSITIONS)[:, None]
    columns: dict[str, NDArray[Any]] = {
        "weight, three values": random.choice(np.array([0.5, 1, 2], np.float32), POSITIONS),
        "policy_weight, two values": random.choice(np.array([0, 1], np.float32), POSITIONS),
        "search_value, noise": random.random(POSITIONS).astype(np.float32),
        "generation, ten": random.integers(0, 10, POSITIONS).astype(np.int32),
    }
    assert {name.split(",")[0] for name in columns} | {VISITS.name} == {each.name for each in OPTIONAL}
    for simulations in SIMULATIONS:
        visits = visits_at(search(free, simulations=simulations))
        moves = np.count_nonzero(visits[:, 1], axis=1).mean()
        columns[f"visits, {simulations} simulations ({moves:.0f} moves)"] = visits
    worst = (np.argsort(random.random((POSITIONS, CELLS)), axis=1) < 32) * random.geometric(0.08, (POSITIONS, CELLS))
    columns["visits, 32 random moves, noise"] = visits_at(worst)
    sizes = {name: len(codec.encode(column, codec="zstd")) / POSITIONS for name, column in columns.items()}
    return [
        "| column | bytes a position |",
        "|---|---:|",
        *(f"| {name} | {size:.1f} |" for name, size in sizes.items()),
    ]


def visits_at(counts: NDArray[np.int64]) -> Visits:
    """The column of counts by cell."""
    rows, cells = np.nonzero(counts)
    return visits_of(Entries(rows, cells, counts[rows, cells].astype(float)), rows=len(counts))


# loading -------------------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "single moves": {},
    'policy="search"': {"policy": "search"},
    "policy=0.5": {"policy": 0.5},
    'columns=("visits",)': {"columns": ("visits",)},
}


def loading_table() -> list[str]:
    """CPU time of a sample, of a whole epoch and of expansion alone."""
    head = ["| | ns a sample | speed over single moves |", "|---|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        hexshards.write_trmph(made / "games.trmph", games(), side=SIDE)
        hexshards.convert(made / "games.trmph", out=made / "data", val_fraction=0.0)
        lines = ["An epoch:", "", *head, *compared({name: partial(epoch, made / "data", WAYS[name]) for name in WAYS})]
        rows = {name: packed(made / "data", options) for name, options in list(WAYS.items())[:3]}
    expansions = {
        f"{name}, {by}": partial(expansion, mine, fill)
        for by, fill in (("compiled", expand_compiled.fill), ("NumPy", None))
        for name, mine in rows.items()
    }
    return [*lines, "", "Expansion of packed rows alone:", "", *head, *compared(expansions)]


def compared(ways: Mapping[str, Callable[[], float]]) -> list[str]:
    """Medians of ways that take turns; each beside the last one of single moves."""
    for way in ways.values():
        way()
    turns = [{name: way() for name, way in ways.items()} for _ in range(TURNS)]
    lines, first = [], ""
    for name in ways:
        first = name if name.startswith("single moves") else first
        ratio = statistics.median(turn[first] / turn[name] for turn in turns)
        lines.append(f"| {name} | {statistics.median(turn[name] for turn in turns):.0f} | {ratio:.2f} |")
    return lines


def games() -> list[hexshards.SearchedGame]:
    """Random games, with counts of 300 simulations on some free cells before each move."""
    random, made = np.random.default_rng(0), []
    for game in play(GAMES, side=SIDE):
        left = np.array([*game.moves, *(cell for cell in range(CELLS) if cell not in set(game.moves))])
        visits = []
        for ply in range(len(game.moves)):
            cells = random.permutation(left[ply:])[:VISITED]
            counts = np.maximum(1, 300 * random.dirichlet(np.full(len(cells), 0.3))).astype(int)
            visits.append(dict(zip(cells.tolist(), counts.tolist(), strict=True)))
        made.append(hexshards.SearchedGame(game.moves, game.winner, visits))
    return made


def epoch(data: Path, options: dict[str, Any]) -> float:
    """CPU nanoseconds of a sample."""
    begun, count = time.process_time(), 0
    for batch in hexshards.loader(data, batch_size=BATCH, **options):
        count += len(batch.value)
    return (time.process_time() - begun) / count * 1e9


def packed(data: Path, options: dict[str, Any]) -> list[Any]:
    """Some full batches of rows, in memory of their own."""
    rows = [type(each)(*map(np.copy, each)) for each in hexshards.loader(data, batch_size=BATCH, **options).packed()]
    return rows[:60]


def expansion(rows: list[Any], fill: Fill | None) -> float:
    """CPU nanoseconds of a row."""
    out = np.empty(BATCH * (4 * CELLS + 1), dtype=np.float32)
    begun = time.process_time()
    for each in rows:
        expand(each, side=SIDE, out=out, by=fill)
    return (time.process_time() - begun) / len(rows) / BATCH * 1e9


if __name__ == "__main__":
    main()
