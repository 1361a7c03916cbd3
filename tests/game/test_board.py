import numpy as np
import pytest

from hexshards.game.board import (
    BLUE,
    MAX_SIDE,
    MIN_SIDE,
    NEIGHBOURS,
    RED,
    SWAPS_COLOURS,
    SYMMETRIES,
    check_side,
    connects,
    move_name,
    symmetry_cells,
)

SIDES = (3, 4, 7, 13, 19)


def random_stones(side, boards, seed):
    """Boards filled from a tenth to nine tenths: chains of every length, torn and whole."""
    raw = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(side,))).random_raw(boards * side * side)
    share = np.linspace(0.1, 0.9, boards)[:, None, None]
    return (raw / 2.0**64).reshape(boards, side, side) < share


def connects_slowly(stones, player):
    """Depth-first from every stone on the player's first edge, one board at a time."""
    side = len(stones)
    first = [(0, i) if player == BLUE else (i, 0) for i in range(side)]
    stack = [cell for cell in first if stones[cell]]
    seen = set(stack)
    while stack:
        row, col = stack.pop()
        if (row if player == BLUE else col) == side - 1:
            return True
        for down, right in NEIGHBOURS:
            cell = (row + down, col + right)
            if min(cell) >= 0 and max(cell) < side and stones[cell] and cell not in seen:
                seen.add(cell)
                stack.append(cell)
    return False


@pytest.mark.parametrize("player", [BLUE, RED])
@pytest.mark.parametrize("side", SIDES)
def test_connects_is_a_search_from_edge_to_edge(side, player):
    stones = random_stones(side, 200, seed=player)
    expected = [connects_slowly(board, player) for board in stones]
    assert {True, False} == set(expected)
    assert connects(stones, player=player).tolist() == expected


@pytest.mark.parametrize("side", SIDES)
def test_a_full_board_has_exactly_one_winner(side):
    blue = random_stones(side, 100, seed=7)
    assert (connects(blue, player=BLUE) ^ connects(~blue, player=RED)).all()


@pytest.mark.parametrize("player", [BLUE, RED])
def test_nobody_connects_on_an_empty_board_or_on_none(player):
    assert connects(np.zeros((1, 13, 13), dtype=bool), player=player).tolist() == [False]
    assert connects(np.zeros((0, 13, 13), dtype=bool), player=player).shape == (0,)


def test_blue_owns_a_column_and_red_a_row():
    column = np.zeros((1, 5, 5), dtype=bool)
    column[0, :, 2] = True
    row = column.swapaxes(1, 2)
    assert connects(column, player=BLUE).all() and not connects(column, player=RED).any()
    assert connects(row, player=RED).all() and not connects(row, player=BLUE).any()


def test_cells_touch_along_one_diagonal_and_not_along_the_other():
    diagonal = np.eye(5, dtype=bool)[None]
    assert connects(diagonal[:, :, ::-1], player=BLUE).all()
    assert not connects(diagonal, player=BLUE).any()


def test_connects_leaves_its_argument_alone():
    stones = random_stones(13, 20, seed=1)
    before = stones.copy()
    connects(stones, player=BLUE), connects(stones, player=RED)
    assert np.array_equal(stones, before)


def slow_symmetries(row, col, side):
    last = side - 1
    return [(row, col), (last - row, last - col), (col, row), (last - col, last - row)]


@pytest.mark.parametrize("side", SIDES)
def test_symmetries_are_their_coordinate_formulas(side):
    table = symmetry_cells(side)
    assert table.shape == (len(SYMMETRIES), side * side) and table.dtype == np.int64
    for row in range(side):
        for col in range(side):
            slow = [to_row * side + to_col for to_row, to_col in slow_symmetries(row, col, side)]
            assert table[:, row * side + col].tolist() == slow


@pytest.mark.parametrize("side", SIDES)
def test_each_symmetry_undoes_itself(side):
    for cells in symmetry_cells(side):
        assert cells[cells].tolist() == list(range(side * side))


@pytest.mark.parametrize("side", SIDES)
def test_two_symmetries_in_a_row_are_a_symmetry(side):
    # numbered so that their composition is the exclusive or of their numbers
    table = symmetry_cells(side)
    for s in range(4):
        for t in range(4):
            assert np.array_equal(table[s][table[t]], table[s ^ t])


def test_the_symmetry_table_is_shared_and_cannot_be_written():
    assert symmetry_cells(13) is symmetry_cells(13)
    with pytest.raises(ValueError, match="read-only"):
        symmetry_cells(13)[0, 0] = 1


@pytest.mark.parametrize("player", [BLUE, RED])
@pytest.mark.parametrize("symmetry", range(4))
def test_a_symmetry_keeps_the_winner_or_swaps_it_with_the_colours(symmetry, player):
    side = 7
    stones = random_stones(side, 200, seed=3)
    moved = stones.reshape(-1, side * side)[:, symmetry_cells(side)[symmetry]].reshape(stones.shape)
    then = player ^ int(SWAPS_COLOURS[symmetry])
    assert np.array_equal(connects(moved, player=then), connects(stones, player=player))


def test_only_the_transpositions_swap_the_colours():
    assert [name for name, swaps in zip(SYMMETRIES, SWAPS_COLOURS, strict=True) if swaps] == [
        "transpose + colour swap",
        "anti-transpose + colour swap",
    ]


def test_a_move_is_the_columns_letter_and_the_rows_number():
    assert [move_name(cell, side=13) for cell in (0, 1, 12, 13, 168)] == ["a1", "b1", "m1", "a2", "m13"]
    assert move_name(360, side=19) == "s19"


def test_move_names_are_all_different():
    assert len({move_name(cell, side=19) for cell in range(361)}) == 361


def test_sides_from_3_to_19_are_boards_and_no_others():
    assert [check_side(side) for side in (MIN_SIDE, 13, MAX_SIDE)] == [3, 13, 19]
    for side in (2, 20, 0, -13):
        with pytest.raises(ValueError, match=f"side must be 3 to 19, got {side}"):
            check_side(side)
