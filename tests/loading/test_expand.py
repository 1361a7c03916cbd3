from __future__ import annotations

import numpy as np
import pytest
import torch

from hexshards.conversion.random_files import examples_of
from hexshards.game.board import BLUE, RED, connects
from hexshards.game.columns import stone_bytes
from hexshards.game.positions import concat
from hexshards.game.random_games import play
from hexshards.game.validation import Draft, admit
from hexshards.loading.expansion.expand import Batch, Packed, expand, expand_on_device

SIDES = (3, 5, 13, 19)


def rng(*path):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(23, spawn_key=path)))


def positions_of(side, count, *, soft):
    """Positions of random games in random order, some of them final; with soft policies on the empty cells."""
    random = rng(side, count)
    examples = [e for game in play(1 + count // side, side=side, seed=side) for e in examples_of(game)]
    # the last position of a game has no policy: a few are always among them
    finals = [example for example in examples if example["policy"] is None][: count // 10 + 1]
    chosen = finals + [examples[i] for i in random.integers(len(examples), size=count - len(finals))]
    chosen = [chosen[i] for i in random.permutation(count)]
    cells = side * side
    policy = np.zeros((count, cells), dtype=np.float32)
    for row, example in zip(policy, chosen, strict=True):
        if example["policy"] is None:
            continue
        row[:] = example["policy"]
        if soft:
            empty = ~example["board"].reshape(2, cells).any(axis=0)
            row[:] = np.where(empty, random.random(cells), 0)
            row /= row.sum()
    unknown = np.full(count, -1)
    kept, rejects = admit(
        Draft(
            side=side,
            boards=np.array([example["board"] for example in chosen]),
            policy=policy,
            has_policy=np.array([example["policy"] is not None for example in chosen]),
            value=np.array([example["value"] for example in chosen]),
            player=unknown.astype(np.int8),
            ply=unknown,
            source=np.zeros(count, dtype=np.int64),
            game=unknown,
            plies=unknown,
            tier=unknown,
            places=[""] * count,
        )
    )
    assert rejects == [] and kept.soft == soft
    return kept


def packed(positions, symmetry):
    symmetry = np.broadcast_to(np.asarray(symmetry, dtype=np.uint8), len(positions)).copy()
    return Packed(positions.stones, positions.player, positions.policy, positions.value, symmetry)


def sent_to(row, col, side, symmetry):
    """Where a symmetry of Hex sends a cell."""
    match symmetry:
        case 0:
            return row, col
        case 1:
            return side - 1 - row, side - 1 - col
        case 2:
            return col, row
        case 3:
            return side - 1 - col, side - 1 - row


def expand_slowly(rows, side):
    """Every bit of every row on its own."""
    cells, count = side * side, len(rows.stones)
    board = np.zeros((count, 3, side, side), dtype=np.float32)
    policy = np.zeros((count, cells), dtype=np.float32)
    value = np.zeros((count, 1), dtype=np.float32)
    for i in range(count):
        symmetry = int(rows.symmetry[i])
        swaps = symmetry >= 2
        for row in range(side):
            for col in range(side):
                to = sent_to(row, col, side, symmetry)
                cell = row * side + col
                for player in (BLUE, RED):
                    bit = player * cells + cell
                    if rows.stones[i][bit // 8] >> (7 - bit % 8) & 1:
                        board[i][1 - player if swaps else player][to] = 1
                if rows.policy.ndim == 2:
                    policy[i][to[0] * side + to[1]] = rows.policy[i][cell]
                elif rows.policy[i] == cell:
                    policy[i][to[0] * side + to[1]] = 1
        board[i][2] = 1 - rows.player[i] if swaps else rows.player[i]
        value[i] = 1 - rows.value[i] if swaps else rows.value[i]
    return board, policy, value


def assert_same_bits(made, expected):
    assert isinstance(made, Batch)
    for name, one, other in zip(Batch._fields, made, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (np.float32, other.shape), name
        assert one.tobytes() == np.ascontiguousarray(other).tobytes(), name


def on_device(rows):
    return Packed(*(torch.from_numpy(np.array(column)) for column in rows))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_a_batch_is_what_a_look_at_every_cell_makes_of_its_rows(side, soft):
    positions = positions_of(side, 40, soft=soft)
    for symmetry in (0, 1, 2, 3, rng(side).integers(0, 4, size=40)):
        rows = packed(positions, symmetry)
        assert_same_bits(expand(rows, side=side), expand_slowly(rows, side))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("side", [*SIDES, 4, 7, 8])
def test_the_device_makes_the_same_bits(side, soft):
    positions = positions_of(side, 500, soft=soft)
    rows = packed(positions, rng(side, 1).integers(0, 4, size=500))
    assert_same_bits(expand_on_device(on_device(rows), side=side), expand(rows, side=side))


@pytest.mark.parametrize("soft", [False, True])
def test_values_between_0_and_1_are_the_same_bits_on_the_device(soft):
    positions = positions_of(5, 300, soft=soft)
    value = rng(9).random(300).astype(np.float32)
    rows = packed(positions, rng(10).integers(0, 4, size=300))._replace(value=value)
    assert_same_bits(expand_on_device(on_device(rows), side=5), expand(rows, side=5))
    assert_same_bits(expand(rows, side=5), expand_slowly(rows, 5))


@pytest.mark.parametrize(
    "spread", [lambda rows: expand(rows, side=13), lambda rows: expand_on_device(on_device(rows), side=13)]
)
def test_rows_keep_their_order_whatever_their_symmetries(spread):
    positions = positions_of(13, 64, soft=False)
    rows = packed(positions, rng(2).integers(0, 4, size=64))
    whole = spread(rows)
    for i in range(64):
        alone = spread(Packed(*(column[i : i + 1] for column in rows)))
        for one, many in zip(alone, whole, strict=True):
            assert torch.equal(one[0], many[i])


@pytest.mark.parametrize("soft", [False, True])
def test_no_rows_are_an_empty_batch(soft):
    rows = packed(positions_of(5, 20, soft=soft).take(slice(0, 0)), 0)
    for batch in (expand(rows, side=5), expand_on_device(on_device(rows), side=5)):
        assert [tuple(part.shape) for part in batch] == [(0, 3, 5, 5), (0, 25), (0, 1)]
        assert {part.dtype for part in batch} == {torch.float32}


@pytest.mark.parametrize("symmetry", range(4))
def test_a_symmetry_keeps_the_game_what_it_is(symmetry):
    side = 5
    examples = [e for game in play(60, side=side, seed=4) for e in examples_of(game) if e["policy"] is None]
    boards = np.array([example["board"] for example in examples])
    winner = np.array([example["value"] for example in examples]).astype(int)
    stones = np.packbits(boards.reshape(len(boards), -1).astype(bool), axis=1)
    assert stones.shape[1] == stone_bytes(side) and set(winner.tolist()) == {BLUE, RED}
    player = (boards.sum(axis=(1, 2, 3)) % 2).astype(np.uint8)
    rows = Packed(
        stones,
        player,
        np.full(len(boards), -1, dtype=np.int16),
        winner.astype(np.float32),
        np.full(len(boards), symmetry, dtype=np.uint8),
    )
    board, policy, value = (part.numpy() for part in expand(rows, side=side))
    won = 1 - winner if symmetry >= 2 else winner
    assert value[:, 0].tolist() == won.tolist()
    for colour in (BLUE, RED):
        assert connects(board[:, colour] == 1, player=colour).tolist() == (won == colour).tolist()
    assert not policy.any()
    counts = board[:, :2].sum(axis=(2, 3))
    # seen from the other side, RED began
    first, second = (counts[:, 1], counts[:, 0]) if symmetry >= 2 else (counts[:, 0], counts[:, 1])
    to_move = np.where(first == second, 0, 1) if symmetry < 2 else np.where(first == second, 1, 0)
    assert (board[:, 2] == to_move[:, None, None]).all()


@pytest.mark.parametrize("symmetry", range(4))
def test_a_target_stays_on_an_empty_cell_and_keeps_its_mass(symmetry):
    positions = positions_of(7, 100, soft=True)
    shown = expand(packed(positions, symmetry), side=7)
    taken = shown.board[:, :2].sum(dim=1).reshape(100, 49) > 0
    assert not shown.policy[taken].any()
    expected = np.sort(positions.policy.astype(np.float32), axis=1)
    np.testing.assert_array_equal(np.sort(shown.policy.numpy(), axis=1), expected)


def test_each_symmetry_undoes_itself():
    positions = concat([positions_of(5, 50, soft=True)])
    plain = expand(packed(positions, 0), side=5)
    for symmetry in range(4):
        board, policy, value = (part.numpy() for part in expand(packed(positions, symmetry), side=5))
        again = Packed(
            np.packbits(board[:, :2].reshape(50, -1).astype(bool), axis=1),
            board[:, 2, 0, 0].astype(np.uint8),
            policy.astype(np.float16),
            value[:, 0],
            np.full(50, symmetry, dtype=np.uint8),
        )
        assert_same_bits(expand(again, side=5), plain)
