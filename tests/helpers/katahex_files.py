"""Training rows as KataHex writes them, one cell after another."""

from __future__ import annotations

import io

import numpy as np

from hexshards.game.board import RED

WIDTH = 7
"""Side of the arrays; boards are smaller or as large."""


def rows_of(games, *, width=WIDTH):
    """Every position of some games but the last, as the program writes them, one cell after another."""
    rows = []
    for number, game in enumerate(games):
        for ply, move in enumerate(game.moves):
            second = ply % 2 == 1
            planes = np.zeros((22, width, width), dtype=np.uint8)
            planes[0, : game.side, : game.side] = 1
            for earlier, cell in enumerate(game.moves[:ply]):
                planes[1 if earlier % 2 == ply % 2 else 2][divmod(cell, game.side)] = 1
            visits = np.zeros((width, width), dtype=np.int16)
            visits[divmod(move, game.side)] = 30
            free = [cell for cell in range(game.side**2) if cell not in game.moves[: ply + 1]]
            for cell in free[:1]:
                visits[divmod(cell, game.side)] = 10
            if second:
                planes, visits = planes.swapaxes(1, 2), visits.T
            won = game.winner == (RED if second else 0)
            targets = np.zeros(64, dtype=np.float32)
            targets[:2] = (1, 0) if won else (0, 1)
            targets[16:19] = (0.75, 0.25, 0) if won else (0.25, 0.75, 0)
            targets[25:27] = (2, 1)
            targets[41:47] = (1000 + number, 77 << 9, 1, 2, 3, 4)
            rows.append((planes, second, np.append(visits, 5), targets))
    return rows


def arrays_of(rows):
    planes, second, visits, targets = zip(*rows, strict=True)
    return {
        "binaryInputNCHWPacked": np.packbits(np.stack(planes).reshape(len(rows), 22, -1), axis=2),
        "globalInputNC": np.array([[each] + [0] * 18 for each in second], dtype=np.float32),
        "policyTargetsNCMove": np.stack([np.stack([each, each]) for each in visits]).astype(np.int16),
        "globalTargetsNC": np.stack(targets),
    }


def npz(arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
