"""What ``--per-game`` costs: to read the columns, to count the ranks, and to choose the rows of an epoch.

    python benchmarks/per_game.py DATASET [--rows 20M] [--games 1.2M]

On a dataset, and on as many made-up rows of as many games as asked. Processor time, for the clock lies on a machine
that does other things.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hexshards.loading.epoch_plan import Epochs
from hexshards.loading.options import LoaderSpec
from hexshards.loading.selection.game_ranks import GameRanks
from hexshards.units import parse_count

SHARD_ROWS = 262_144


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What came of it, and the processor's seconds."""
    start = time.process_time()
    return work(), time.process_time() - start


def made_up(rows: int, games: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of games in a random order, shard by shard, as conversion leaves them."""
    order = np.random.default_rng(0).permutation(rows)
    for first in range(0, rows, SHARD_ROWS):
        game = order[first : first + SHARD_ROWS] % games
        yield (game // 2500).astype(np.uint32), (game % 2500).astype(np.int32)


def main() -> None:
    """Print a table of two lines for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rows", type=parse_count, default=20_000_000)
    parser.add_argument("--games", type=parse_count, default=1_200_000)
    parser.add_argument("--most", type=int, default=8)
    given = parser.parse_args()
    (plain, opened_s), (epochs, counted_s) = (
        timed(lambda options=options: Epochs(given.dataset, LoaderSpec(**options)))
        for options in ({}, {"per_game": given.most})
    )
    used = plain.positions
    print(f"{given.dataset}: {used:,} positions, opened in {opened_s:.2f} s, with ranks in {counted_s:.2f} s")
    print(f"  {(counted_s - opened_s) / used * 1e9:,.0f} ns a position to read and count")
    _, plan_s = timed(lambda: epochs.plan(1))
    print(f"  {plan_s:.3f} s to plan an epoch, {plan_s / used * 1e9:,.0f} ns a position")
    shards = list(made_up(given.rows, given.games))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ranks, seconds = timed(lambda: GameRanks(shards, seed=0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    each = seconds / given.rows * 1e9
    print(f"{given.rows:,} rows of {ranks.games:,} games counted in {seconds:.1f} s, {each:,.0f} ns each")
    kept, more = (ranks.ranks.nbytes + ranks.of.nbytes) / given.rows, (peak - held) * 1024 / given.rows
    print(f"  {kept:.0f} bytes a row kept, {more:.1f} more than the rows themselves at the peak")
    blocks = np.full(-(-given.rows // 8192), 8192)
    _, seconds = timed(lambda: ranks.rows(blocks, epoch=3, most=given.most))
    print(f"  {seconds:.2f} s to choose an epoch's rows, {seconds / given.rows * 1e9:,.1f} ns each")


if __name__ == "__main__":
    main()
