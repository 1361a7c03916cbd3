"""Visit counts are packed sparsely and come out as they went in."""

from __future__ import annotations

import numpy as np
import pytest

from hexshards.dataset import codec
from hexshards.game.board import symmetry_cells
from hexshards.game.columns import MAX_VISITED
from hexshards.game.random_visits import search
from hexshards.game.visits import Entries, moved_visits, visit_entries, visit_rules, visits_of

FEW = np.array([[0, 3, 0, 7, 3], [0, 0, 0, 0, 0], [1, 0, 0, 0, 65535]])
FREE = np.zeros((3, 25), dtype=bool)


def packed(counts):
    rows, cells = np.nonzero(counts)
    return visits_of(Entries(rows, cells, counts[rows, cells].astype(float)), rows=len(counts))


def unpacked(visits, cells):
    """Slow and obvious: one move at a time."""
    counts = np.zeros((len(visits), cells), dtype=np.int64)
    for row, (moves, times) in enumerate(visits.tolist()):
        for cell, count in zip(moves, times, strict=True):
            counts[row, cell] += count
    return counts


def test_counts_come_out_as_they_went_in():
    free = np.random.default_rng(1).random((200, 169)) < 0.7
    counts = search(free, simulations=60)
    rank = np.argsort(np.argsort(-counts, axis=1, kind="stable"), axis=1)
    counts[rank >= MAX_VISITED] = 0
    assert counts.sum() > 0.9 * 200 * 60
    visits = packed(counts)
    assert (unpacked(visits, 169) == counts).all()
    rows, cells, weights = visit_entries(visits)
    assert (counts[rows, cells] == weights).all()
    assert len(rows) == np.count_nonzero(counts)


def test_the_most_visited_move_comes_first_and_the_smaller_cell_of_two():
    visits = packed(FEW)
    assert visits[0, :, :4].tolist() == [[3, 1, 4, 0], [7, 3, 3, 0]]
    assert not visits[1].any()
    assert visits[2, :, :3].tolist() == [[4, 0, 0], [65535, 1, 0]]


def test_of_more_moves_than_there_is_room_for_the_most_visited_stay():
    counts = np.arange(1, 170)[None]
    assert unpacked(packed(counts), 169).nonzero()[1].tolist() == list(range(169 - MAX_VISITED, 169))


def test_sums_beyond_what_a_count_can_be_are_scaled_down_together():
    assert packed(np.array([[131070, 2, 65536, 1]]))[0, :, :4].tolist() == [[0, 2, 1, 3], [65535, 32768, 1, 1]]


@pytest.mark.parametrize("symmetry", range(4))
def test_a_symmetry_moves_the_cells_and_undoes_itself(symmetry):
    counts = search(np.ones((20, 25), dtype=bool), simulations=10)
    visits, cells = packed(counts), symmetry_cells(5)[symmetry]
    moved = moved_visits(visits, cells)
    expected = np.zeros_like(counts)
    expected[:, cells] = counts
    assert (unpacked(moved, 25) == expected).all()
    assert (moved_visits(moved, cells) == visits).all()


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ((0, 0, 0), 25, "visits of a cell beyond the board"),
        ((0, 0, 1), 3, "visits of a move twice"),
        ((0, 1, 1), 9, "visits not from the most to the least"),
        ((0, 1, 3), 4, "visits not from the most to the least"),
        ((1, 0, 31), 4, "visits not from the most to the least"),
        ((2, 0, 1), 7, "visits on an occupied cell"),
    ],
)
def test_what_no_search_can_have_visited_is_named(place, value, reason):
    taken, visits = FREE.copy(), packed(FEW)
    taken[2, 7] = True
    assert not any(bad.any() for _, bad, _ in visit_rules(visits, taken))
    visits[place] = value
    named = [(name, bad.tolist(), finding(place[0])) for name, bad, finding in visit_rules(visits, taken) if bad.any()]
    assert named[0][:2] == (reason, [row == place[0] for row in range(3)])
    assert named[0][2]


@pytest.mark.parametrize("simulations", [100, 400])
def test_a_position_costs_at_most_70_bytes_at_side_13(simulations):
    random = np.random.default_rng(simulations)
    free = np.argsort(random.random((1000, 169)), axis=1) >= random.integers(0, 80, 1000)[:, None]
    counts = search(free, simulations=simulations)
    assert len(codec.encode(packed(counts), codec="zstd")) <= 70 * len(counts)


def test_even_where_all_32_moves_are_visited_at_random():
    random = np.random.default_rng(3)
    counts = (np.argsort(random.random((1000, 169)), axis=1) < MAX_VISITED) * random.geometric(0.08, (1000, 169))
    assert len(codec.encode(packed(counts), codec="zstd")) <= 70 * len(counts)
