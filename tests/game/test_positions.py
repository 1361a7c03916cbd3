from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from hexshards.game.columns import NO_POLICY, SUM_TOLERANCE, UNKNOWN, columns
from hexshards.game.positions import Positions, concat
from hexshards.game.validation import Draft, admit

SIDES = (3, 5, 13, 19)

# what a fault may be, in the words of a reject
ENTRY = "board entry neither 0 nor 1"
OVERLAP = "cell with two stones"
COUNTS = "impossible stone counts"
PLAYER = "player to move contradicts the stones"
PLY = "stated number of stones contradicts the board"
PLIES = "game ends before the position"
POLICY_ENTRY = "policy entry negative or not finite"
POLICY_SUM = "policy does not sum to 1"
POLICY_CELL = "policy on an occupied cell"
VALUE = "value outside 0 to 1"


def rng(*path):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(11, spawn_key=path)))


def draft_of(side, rows):
    """One draft of rows, each a dict of what the file would state."""
    policies = [row["policy"] for row in rows]
    none = np.zeros(side * side)
    return Draft(
        side=side,
        boards=np.array([row["board"] for row in rows], dtype=np.float32).reshape(-1, 2, side, side),
        policy=np.array([none if p is None else p for p in policies], np.float32).reshape(-1, side * side),
        has_policy=np.array([p is not None for p in policies], dtype=bool),
        value=np.array([row["value"] for row in rows], dtype=np.float64),
        player=np.array([row["player"] for row in rows], dtype=np.int8),
        ply=np.array([row["ply"] for row in rows], dtype=np.int32),
        source=np.array([row["source"] for row in rows], dtype=np.int64),
        game=np.array([row["game"] for row in rows], dtype=np.int64),
        plies=np.array([row["plies"] for row in rows], dtype=np.int32),
        tier=np.array([row["tier"] for row in rows], dtype=np.int32),
        places=[f"example {number}" for number in range(len(rows))],
    )


def sound_row(side, random, *, soft=False):
    """A legal position of random stones and everything that a file may say of it."""
    cells = side * side
    ply = int(random.integers(0, cells))
    placed = random.permutation(cells)[:ply]
    board = np.zeros((2, cells), dtype=np.float32)
    board[0, placed[::2]] = 1
    board[1, placed[1::2]] = 1
    empty = np.flatnonzero(~board.any(axis=0))
    policy = np.zeros(cells, dtype=np.float32)
    if soft:
        weights = random.integers(1, 9, size=len(empty)).astype(np.float32)
        policy[empty] = weights / weights.sum()
    else:
        policy[random.choice(empty)] = 1
    return {
        "board": board,
        "policy": policy,
        "value": float(random.integers(0, 2)),
        "player": ply % 2,
        "ply": ply,
        "source": int(random.integers(0, 9)),
        "game": int(random.integers(0, 2**31)),
        "plies": int(random.integers(ply, cells + 1)),
        "tier": int(random.integers(0, 4)),
    }


def faults_slowly(row):
    """Every fault of one row, found cell by cell."""
    blue, red = (plane.tolist() for plane in row["board"])
    faults = set()
    if any(stone != 0 and stone != 1 for stone in blue + red):
        faults.add(ENTRY)
    held_blue = [cell for cell, stone in enumerate(blue) if stone != 0]
    held_red = [cell for cell, stone in enumerate(red) if stone != 0]
    if set(held_blue) & set(held_red):
        faults.add(OVERLAP)
    ply, lead = len(held_blue) + len(held_red), len(held_blue) - len(held_red)
    if lead not in (0, 1):
        faults.add(COUNTS)
    if row["player"] != UNKNOWN and row["player"] != lead:
        faults.add(PLAYER)
    if row["ply"] != UNKNOWN and row["ply"] != ply:
        faults.add(PLY)
    if row["plies"] != UNKNOWN and row["plies"] < ply:
        faults.add(PLIES)
    if row["policy"] is not None:
        shares = row["policy"].tolist()
        if any(math.isnan(share) or math.isinf(share) or share < 0 for share in shares):
            faults.add(POLICY_ENTRY)
        # not math.fsum, which refuses the sum of inf and -inf
        if not abs(sum(shares) - 1) <= SUM_TOLERANCE:
            faults.add(POLICY_SUM)
        if any(shares[cell] > 0 for cell in {*held_blue, *held_red}):
            faults.add(POLICY_CELL)
    if not 0 <= row["value"] <= 1:
        faults.add(VALUE)
    return faults


def set_board(entry):
    def spoil(row):
        row["board"][0, np.flatnonzero(row["board"][0])[0]] = entry

    return spoil


def policy_at(empty, share):
    """The share of an empty or of an occupied cell other than the target."""

    def spoil(row):
        taken = row["board"].any(axis=0)
        cell = next(c for c in range(len(taken)) if taken[c] != empty and row["policy"][c] == 0)
        row["policy"][cell] = share

    return spoil


def set_to(**new):
    return lambda row: row.update(new)


def scaled(factor):
    return lambda row: row.update(policy=row["policy"] * np.float32(factor))


def overlap(row):
    # the count stays right: a red stone moves under a blue one
    row["board"][1, np.flatnonzero(row["board"][1])[0]] = 0
    row["board"][1, np.flatnonzero(row["board"][0])[0]] = 1


def blue_plus_two(row):
    row["board"][1, np.flatnonzero(row["board"][1])[:1]] = 0
    row.update(player=UNKNOWN, ply=UNKNOWN)


def more_red(row):
    row["board"][0, np.flatnonzero(row["board"][0])[:2]] = 0
    row.update(player=UNKNOWN, ply=UNKNOWN)


FAULTS = [
    (set_board(2.0), ENTRY, "2.0"),
    (set_board(-1.0), ENTRY, "-1.0"),
    (set_board(np.nan), ENTRY, "nan"),
    (set_board(np.inf), ENTRY, "inf"),
    (set_board(0.5), ENTRY, "0.5"),
    (overlap, OVERLAP, "cell 0"),
    (blue_plus_two, COUNTS, "4 BLUE and 2 RED"),
    (more_red, COUNTS, "2 BLUE and 3 RED"),
    (set_to(player=0), PLAYER, "player 0, 4 BLUE and 3 RED"),
    (set_to(player=2), PLAYER, "player 2, 4 BLUE and 3 RED"),
    (set_to(ply=8), PLY, "stated 8, 7 on the board"),
    (set_to(ply=0), PLY, "stated 0, 7 on the board"),
    (set_to(plies=6), PLIES, "6 moves in the game, 7 stones on the board"),
    (policy_at(True, np.nan), POLICY_ENTRY, "nan"),
    (policy_at(True, -0.25), POLICY_ENTRY, "-0.25"),
    (policy_at(True, np.inf), POLICY_ENTRY, "inf"),
    (policy_at(True, -np.inf), POLICY_ENTRY, "-inf"),
    (policy_at(True, 0.0011), POLICY_SUM, "sum 1.0011"),
    (scaled(1 - 0.0011), POLICY_SUM, "sum 0.9989"),
    (scaled(0), POLICY_SUM, "sum 0"),
    (policy_at(False, 0.0005), POLICY_CELL, "cell 0"),
    (set_to(value=np.nan), VALUE, "nan"),
    (set_to(value=np.inf), VALUE, "inf"),
    (set_to(value=-0.1), VALUE, "-0.1"),
    (set_to(value=1.1), VALUE, "1.1"),
]


def seven_stones():
    """BLUE on cells 0 to 3, RED on 5 to 7, of side 3 the target 8."""
    row = sound_row(3, rng(0))
    row["board"] = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 0]], dtype=np.float32)
    row["policy"] = np.eye(9, dtype=np.float32)[8]
    return {**row, "player": 1, "ply": 7, "plies": 8}


def assert_same_positions(given, expected):
    assert given.side == expected.side
    for name, column in expected.columns().items():
        np.testing.assert_array_equal(getattr(given, name), column, err_msg=name, strict=True)


@pytest.mark.parametrize(("spoil", "reason", "finding"), FAULTS)
def test_a_fault_rejects_its_row_alone_with_place_reason_and_finding(spoil, reason, finding):
    rows = [seven_stones() for _ in range(5)]
    for number, row in enumerate(rows):
        row["game"] = number
    assert admit(draft_of(3, rows))[1] == []
    spoil(rows[3])
    kept, rejects = admit(draft_of(3, rows))
    assert kept.game.tolist() == [0, 1, 2, 4]
    assert [(reject.place, reject.reason) for reject in rejects] == [("example 3", reason)]
    assert rejects[0].finding.startswith(finding)


@pytest.mark.parametrize("factor", [1 - 0.0009, 1 + 0.0009])
def test_a_policy_that_sums_to_one_within_the_tolerance_is_kept(factor):
    row = sound_row(5, rng(1), soft=True)
    scaled(factor)(row)
    kept, rejects = admit(draft_of(5, [row]))
    assert (len(kept), rejects) == (1, [])


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 1e-12])
def test_a_value_from_0_to_1_is_kept(value):
    kept, rejects = admit(draft_of(3, [{**seven_stones(), "value": value}]))
    assert (kept.value.tolist(), rejects) == ([np.float32(value)], [])


def test_what_a_file_does_not_state_is_not_held_against_it():
    row = {**seven_stones(), "player": UNKNOWN, "ply": UNKNOWN, "plies": UNKNOWN, "game": UNKNOWN, "tier": UNKNOWN}
    kept, rejects = admit(draft_of(3, [row]))
    assert rejects == []
    assert (kept.player[0], kept.ply[0], kept.plies[0], kept.game[0], kept.tier[0]) == (1, 7, -1, -1, -1)


def test_what_a_row_without_policy_holds_in_its_place_is_ignored():
    draft = draft_of(3, [{**seven_stones(), "policy": None}])
    draft.policy[:] = np.nan
    kept, rejects = admit(draft)
    assert (kept.policy.tolist(), rejects) == ([NO_POLICY], [])


def test_an_empty_draft_has_no_positions_and_no_rejects():
    kept, rejects = admit(draft_of(13, []))
    assert (len(kept), kept.soft, rejects) == (0, False, [])


def test_every_row_may_be_rejected():
    kept, rejects = admit(draft_of(3, [{**seven_stones(), "value": 2.0}] * 3))
    assert (len(kept), [reject.place for reject in rejects]) == (0, ["example 0", "example 1", "example 2"])


def corrupt(row, side, random):
    """Change a few things of a row, by chance also so that it stays sound."""
    cells = side * side
    for _ in range(int(random.integers(1, 3))):
        cell, plane = int(random.integers(cells)), int(random.integers(2))
        match int(random.integers(9)):
            case 0:
                row["board"][plane, cell] = random.choice([0, 1, 2, -1, 0.5, np.nan, np.inf])
            case 1:
                row["board"][:, cell] = row["board"][::-1, cell].copy()
            case 2:
                row["player"] = int(random.integers(-1, 3))
            case 3:
                row["ply"] = int(random.integers(-1, cells + 1))
            case 4:
                row["plies"] = int(random.integers(-1, cells + 1))
            case 5:
                row["policy"] = None
            case 6 if row["policy"] is not None:
                row["policy"][cell] = random.choice([0, 1, -1, 0.5, 1e-4, np.nan, np.inf, -np.inf])
            case 7 if row["policy"] is not None:
                with np.errstate(invalid="ignore"):  # 0 * inf
                    row["policy"] *= np.float32(random.choice([0, 0.99, 0.9995, 1.0005, 1.01, 2]))
            case 8:
                row["value"] = float(random.choice([0, 1, 0.5, -0.1, 1.1, np.nan, np.inf, -np.inf]))


@pytest.mark.parametrize("side", SIDES)
def test_the_rows_that_are_kept_are_those_a_look_at_every_cell_finds_no_fault_in(side):
    random = rng(2, side)
    rows = [sound_row(side, random, soft=bool(random.integers(2))) for _ in range(1000)]
    for row in rows:
        if random.integers(4):
            corrupt(row, side, random)
        row["board"].setflags(write=False)
    draft = draft_of(side, rows)
    kept, rejects = admit(draft)
    faults = [faults_slowly(row) for row in rows]
    sound = [number for number, fault in enumerate(faults) if not fault]
    assert 200 < len(sound) < 800
    assert [reject.place for reject in rejects] == [f"example {i}" for i, fault in enumerate(faults) if fault]
    for reject in rejects:
        assert reject.reason in faults[int(reject.place.split()[1])]
    expected = [rows[number] for number in sound]
    np.testing.assert_array_equal(kept.planes().reshape(len(kept), 2, -1), [row["board"] for row in expected])
    none = np.zeros(side * side, dtype=np.float32)
    policy = [none if row["policy"] is None else row["policy"] for row in expected]
    np.testing.assert_array_equal(kept.softened().policy, np.array(policy).astype(np.float16))
    stones = [int(row["board"].sum()) for row in expected]
    assert kept.ply.tolist() == stones
    assert kept.player.tolist() == [count % 2 for count in stones]
    for name in ("value", "source", "game", "plies", "tier"):
        assert getattr(kept, name).tolist() == [row[name] for row in expected]


def test_policies_are_cells_while_all_are_single_moves_and_distributions_when_one_is_not():
    random = rng(3)
    one_hot, soft = sound_row(5, random), sound_row(5, random, soft=True)
    none = {**sound_row(5, random), "policy": None}
    hard, _ = admit(draft_of(5, [one_hot, none]))
    assert hard.policy.tolist() == [int(one_hot["policy"].argmax()), NO_POLICY]
    mixed, _ = admit(draft_of(5, [one_hot, none, soft]))
    assert mixed.policy.dtype == np.float16
    np.testing.assert_array_equal(
        mixed.policy, np.array([one_hot["policy"], np.zeros(25), soft["policy"]], dtype=np.float16)
    )


def test_a_single_cell_that_holds_nearly_1_is_a_distribution():
    row = seven_stones()
    scaled(0.9995)(row)
    kept, _ = admit(draft_of(3, [row]))
    assert kept.soft
    assert kept.policy[0, 8] == np.float16(0.9995)


def a_few(side=5, count=6, *, soft=False, path=4):
    random = rng(path, side, count)
    kept, rejects = admit(draft_of(side, [sound_row(side, random, soft=soft) for _ in range(count)]))
    assert rejects == []
    return kept


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", [field.name for field in fields(Positions) if field.name not in ("side", "optional")])
def test_a_column_of_another_dtype_or_length_is_refused(name, soft):
    good = {**a_few(soft=soft).columns(), "count": np.ones(6, dtype=np.uint32)}
    for wrong in (good[name].astype(np.float64), good[name][:-1], good[name][..., None], good[name].T[None]):
        with pytest.raises(ValueError, match=r"^Positions\.\w+ must be "):
            Positions(side=5, **{**good, name: wrong})


@pytest.mark.parametrize("side", [2, 20, 0, -1])
def test_a_side_outside_3_to_19_is_refused(side):
    with pytest.raises(ValueError, match="side must be 3 to 19"):
        Positions(side=side, **a_few().columns())


def test_columns_of_another_side_are_refused():
    with pytest.raises(ValueError, match=r"Positions\.stones must be"):
        Positions(side=7, **a_few(side=5).columns())


@pytest.mark.parametrize("soft", [False, True])
def test_columns_come_in_the_order_in_which_a_block_stores_them(soft):
    order = ["stones", "policy", "player", "value", "source", "game", "ply", "plies", "tier"]
    positions = a_few(soft=soft)
    assert list(columns(5, soft=soft)) == list(positions.columns()) == order
    counted = with_counts(positions)
    assert list(columns(5, soft=soft, counted=True)) == list(counted.columns()) == [*order, "count"]


def with_counts(positions):
    count = np.arange(1, len(positions) + 1, dtype=np.uint32)
    return Positions(side=positions.side, **positions.columns(), count=count)


def test_counts_travel_with_their_rows():
    positions = with_counts(a_few())
    assert positions.take(np.array([4, 0])).count.tolist() == [5, 1]
    assert positions.softened().count.tolist() == [1, 2, 3, 4, 5, 6]
    assert concat([positions, positions.take(slice(2, 3))]).count.tolist() == [1, 2, 3, 4, 5, 6, 3]


@pytest.mark.parametrize("soft", [False, True])
def test_take_picks_rows_by_number_mask_or_slice(soft):
    positions = a_few(soft=soft)
    picks = [np.array([4, 0, 4]), np.array([True, False, True, True, False, False]), slice(1, 5, 2)]
    for rows in picks:
        expected = {name: np.array(list(column))[rows] for name, column in positions.columns().items()}
        assert_same_positions(positions.take(rows), Positions(side=5, **expected))
    assert np.shares_memory(positions.take(slice(1, 3)).stones, positions.stones)


@pytest.mark.parametrize("soft", [False, True])
def test_concat_is_the_parts_one_after_another(soft):
    whole = a_few(soft=soft)
    parts = [whole.take(slice(0, 2)), whole.take(slice(2, 2)), whole.take(slice(2, 6))]
    assert_same_positions(concat(parts), whole)


def test_concat_of_cells_and_distributions_is_distributions():
    hard, soft = a_few(path=5), a_few(soft=True, path=6)
    both = concat([hard, soft])
    assert_same_positions(both.take(slice(0, 6)), hard.softened())
    assert_same_positions(both.take(slice(6, 12)), soft)


def test_concat_of_nothing_is_a_callers_mistake():
    with pytest.raises(ValueError, match="at least one part"):
        concat([])


def test_softened_puts_all_mass_on_the_target_and_none_where_there_is_no_target():
    hard, _ = admit(draft_of(3, [seven_stones(), {**seven_stones(), "policy": None}]))
    soft = hard.softened()
    assert soft.policy.tolist() == [[0, 0, 0, 0, 0, 0, 0, 0, 1], [0] * 9]
    assert_same_positions(Positions(side=3, **{**soft.columns(), "policy": hard.policy}), hard)
    assert soft.softened() is soft


@pytest.mark.parametrize("side", SIDES)
def test_packed_stones_lie_bit_by_bit_plane_by_plane(side):
    positions = a_few(side=side, count=20)
    for row, planes in zip(positions.stones, positions.planes(), strict=True):
        bits = "".join(f"{byte:08b}" for byte in row.tolist())
        assert bits[: 2 * side * side] == "".join(str(bit) for bit in planes.reshape(-1).tolist())
        assert set(bits[2 * side * side :]) <= {"0"}
    np.testing.assert_array_equal(np.packbits(positions.planes().reshape(20, -1), axis=1), positions.stones)
