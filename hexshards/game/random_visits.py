"""Visit counts by a stated rule, for tests and measurements: a bandit's PUCT over random priors and random values.

Each free cell has a prior, the softmax of normal numbers of spread 2 mixed with a quarter of Dirichlet noise of 10 / C,
and a mean value of spread 0.15; each simulation visits the move with the largest Q + 1.5 * prior * sqrt(N) / (1 + n),
and returns its value with noise of spread 0.3. What comes out is as uneven as a search of so many simulations is.
Legend of shapes: P positions, C cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def search(free_PC: NDArray[np.bool_], *, simulations: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each move is visited, (P, C), so many simulations for each position; none on a full board."""
    visits = np.zeros(free_PC.shape, dtype=np.int64)
    open_P = np.flatnonzero(free_PC.any(axis=1))
    visits[open_P] = _searched(free_PC[open_P], simulations, seed)
    return visits


def _searched(free_PC: NDArray[np.bool_], simulations: int, seed: int) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    shape = free_PC.shape
    logits = np.where(free_PC, random.normal(size=shape) * 2, -np.inf)
    prior = np.exp(logits - logits.max(axis=1, keepdims=True))
    prior /= prior.sum(axis=1, keepdims=True)
    noise = random.gamma(10 / shape[1], size=shape) * free_PC + 1e-12
    prior = np.where(free_PC, 0.75 * prior + 0.25 * noise / noise.sum(axis=1, keepdims=True), 0)
    value, rows = random.normal(size=shape) * 0.15, np.arange(len(free_PC))
    visits, sums = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    for done in range(1, simulations + 1):
        mean = np.where(visits > 0, sums / np.maximum(visits, 1), -0.1)
        score = np.where(free_PC, mean + 1.5 * prior * np.sqrt(done) / (1 + visits), -np.inf)
        move = score.argmax(axis=1)
        visits[rows, move] += 1
        sums[rows, move] += value[rows, move] + random.normal(size=len(rows)) * 0.3
    return visits
