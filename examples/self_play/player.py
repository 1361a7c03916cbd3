"""A player for the loop of self-play: samples moves from the newest network's policy, and writes annotated games.

It plays at random until there is a network. Killed at any moment, it goes on with the next file.

    python player.py INBOX RUN --side 5
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import hexshards

NEIGHBOURS = ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0))
VISITS = 100
"""What a policy is written as, for want of a search: so many visits, shared out by probability."""


def newest_network(run: Path) -> hexshards.Network | None:
    """The network of the run's newest checkpoint; None before the first."""
    try:
        return hexshards.load_network(run)
    except FileNotFoundError:
        return None


def connects(stones: np.ndarray, cell: int, player: int) -> bool:
    """Whether the chain of the stone just played joins its player's edges: BLUE top to bottom, RED left to right."""
    side = len(stones)
    chain = {divmod(cell, side)}
    waiting = [*chain]
    while waiting:
        row, col = waiting.pop()
        for down, right in NEIGHBOURS:
            near = row + down, col + right
            if 0 <= near[0] < side > near[1] >= 0 and near not in chain and stones[near]:
                chain.add(near)
                waiting.append(near)
    reached = {place[player] for place in chain}
    return {0, side - 1} <= reached


def game(network: hexshards.Network | None, side: int, rng: np.random.Generator) -> hexshards.SearchedGame:
    """Play one game."""
    board = np.zeros((1, 3, side, side), dtype=np.float32)
    moves, visits, values = list[int](), list[dict[int, int]](), list[float | None]()
    while True:
        player = len(moves) % 2
        board[0, 2] = player
        free = (board[0, :2].sum(axis=0) == 0).ravel()
        policy, red = free / free.sum(), None
        if network:
            answer = network.predict(board)
            policy, red = answer.policy[0].numpy().astype(np.float64), float(answer.red[0])
            policy = np.where(free, 0.9 * policy + 0.1 / free.sum(), 0)
            policy /= policy.sum()
        cell = int(rng.choice(side * side, p=policy))
        counts = np.rint(VISITS * policy).astype(int)
        counts[cell] = max(1, counts[cell])
        moves.append(cell)
        visits.append({int(each): int(counts[each]) for each in np.flatnonzero(counts)})
        values.append(red)
        board[0, player].ravel()[cell] = 1
        if connects(board[0, player], cell, player):
            return hexshards.SearchedGame(moves, player, visits, values)


def main() -> None:
    """Write files of games for ever, or so many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inbox", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--side", type=int, default=5)
    parser.add_argument("--games", type=int, default=50, help="games in a file")
    parser.add_argument("--files", type=int, default=0, help="end after so many; 0: never")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two files")
    given = parser.parse_args()
    for half_written in given.inbox.glob("games-*.partial"):  # by a player that was killed
        half_written.unlink()
    written = [int(path.stem.partition("-")[2]) for path in given.inbox.glob("games-*.trmph")]
    number = max(written, default=0)
    for _ in iter(int, 1) if not given.files else range(given.files):
        number += 1
        network, rng = newest_network(given.run), np.random.default_rng([7, number])
        games = [game(network, given.side, rng) for _ in range(given.games)]
        headers = {"generation": number, "model": network.path.stem if network else "random"}
        hexshards.write_trmph(given.inbox / f"games-{number:06d}.trmph", games, side=given.side, headers=headers)
        print(f"games-{number:06d}.trmph: {given.games} games by {headers['model']}", flush=True)
        time.sleep(given.pause)


if __name__ == "__main__":
    main()
