from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from helpers.katahex_files import arrays_of, npz, rows_of

import hexshards
from hexshards.conversion.options import CONVERT, ConvertSpec
from hexshards.converters.katahex import KataHexRows
from hexshards.errors import DataError
from hexshards.game.positions import concat
from hexshards.game.random_games import play

GAMES = [*play(6, side=5, seed=3), *play(2, side=7, seed=3)]


ARRAYS = arrays_of(rows_of(GAMES))


def read(data, *, spec=CONVERT):
    chunks = list(KataHexRows().read(data, name="a.npz", where="a.npz", spec=spec))
    parts = [chunk.positions for chunk in chunks if len(chunk.positions)] or [chunks[0].positions]
    return concat(parts), [reject for chunk in chunks for reject in chunk.rejects], chunks[-1].notes


@pytest.mark.parametrize("side", [5, 7])
def test_rows_are_the_positions_of_their_games(side):
    positions, rejects, notes = read(npz(ARRAYS), spec=ConvertSpec(side=side))
    boards, ply, value, policy = positions.planes(), positions.ply, positions.value, positions.policy
    assert not rejects and len(notes) == 1
    games = [game for game in GAMES if game.side == side]
    row = 0
    for game in games:
        stones = np.zeros((2, side, side), dtype=np.uint8)
        for number, move in enumerate(game.moves):
            assert np.array_equal(boards[row], stones) and ply[row] == number and value[row] == game.winner
            assert positions.player[row] == number % 2
            full = number + 1 == side**2
            assert policy[row][move] == (1 if full else 0.75) and policy[row].sum() == 1
            stones[number % 2][divmod(move, side)] = 1
            row += 1
    assert row == len(positions)


def test_the_search_and_the_weights_are_columns():
    positions, _, _ = read(npz(ARRAYS))
    columns = {column.name: numbers for column, numbers in positions.optional.items()}
    assert columns["search_value"].tolist() == [0.75 if value else 0.25 for value in positions.value]
    assert set(columns["weight"]) == {2} and set(columns["policy_weight"]) == {1}


def test_a_game_is_one_game_in_whatever_files_its_rows_lie(tmp_path):
    rows = rows_of(GAMES[:6])
    rng = np.random.default_rng(0)
    order = rng.permutation(len(rows))
    for number in range(3):
        part = [rows[row] for row in order[number::3]]
        (tmp_path / f"{number}.npz").write_bytes(npz(arrays_of(part)))
    hexshards.convert(tmp_path, out=tmp_path / "data", val_fraction=0.5)
    index = hexshards.read_index(tmp_path / "data")
    assert sum(split.games for split in index.splits.values()) == 6
    assert index.sources == ("katahex-4d",)
    assert not hexshards.verify(tmp_path / "data").problems


def test_a_row_without_a_policy_or_a_winner():
    rows = rows_of(GAMES[:1])
    rows[1][3][26] = 0
    rows[2][3][:2] = 0
    positions, _, notes = read(npz(arrays_of(rows)))
    assert not positions.policy[1].any() and len(positions) == len(rows) - 1
    assert notes == ["passed over: 1 row of games without a winner"]


FAULTS = {
    "cell with two stones": lambda arrays: arrays["binaryInputNCHWPacked"].__setitem__(
        (3, 1), arrays["binaryInputNCHWPacked"][3, 0]
    ),
    "no square board in the corner": lambda arrays: arrays["binaryInputNCHWPacked"].__setitem__((3, 0, 2), 0),
    "impossible stone counts": lambda arrays: arrays["globalInputNC"].__setitem__((3, 0), 0),
    "policy entry negative or not finite": lambda arrays: arrays["policyTargetsNCMove"].__setitem__((3, 0, 6), 4),
    "weight at least 0": lambda arrays: arrays["globalTargetsNC"].__setitem__((3, 25), -1),
    "value outside 0 to 1": lambda arrays: arrays["globalTargetsNC"].__setitem__((3, slice(2)), (1.5, -0.5)),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_row_that_is_none_is_named_and_the_others_are_kept(reason):
    arrays = {name: array.copy() for name, array in arrays_of(rows_of(GAMES[:1])).items()}
    FAULTS[reason](arrays)
    positions, rejects, _ = read(npz(arrays))
    assert [reject.place for reject in rejects] == ["row 3"] and len(positions) == len(GAMES[0].moves) - 1
    assert rejects[0].reason.startswith(reason.split(" at ")[0])


def without(name):
    return {other: array for other, array in ARRAYS.items() if other != name}


HOSTILE = {
    "not a zip": b"PK\x03\x04 nothing",
    "empty": b"",
    "no rows": npz({"a": np.zeros(3)}),
    "objects": npz({**ARRAYS, "globalTargetsNC": np.array([[{}] * 64] * 2, dtype=object)}),
    "other dtype": npz({**ARRAYS, "globalTargetsNC": ARRAYS["globalTargetsNC"].astype(np.float64)}),
    "fewer rows": npz({**ARRAYS, "globalTargetsNC": ARRAYS["globalTargetsNC"][1:]}),
    "other width": npz({**ARRAYS, "policyTargetsNCMove": ARRAYS["policyTargetsNCMove"][:, :, 1:]}),
    "few targets": npz({**ARRAYS, "globalTargetsNC": ARRAYS["globalTargetsNC"][:, :40]}),
    "one missing": npz(without("globalInputNC")),
    "damaged": npz(ARRAYS)[:300] + b"\0" * 40 + npz(ARRAYS)[340:],
    "bomb": npz({**ARRAYS, "globalTargetsNC": np.zeros((500_000, 64), dtype=np.float32)}),
}


def claimed(header):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in ARRAYS.items():
            held = io.BytesIO()
            np.save(held, array)
            data = held.getvalue()
            if name == "globalTargetsNC":
                data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


HOSTILE |= {
    "claims 10^18 rows": claimed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000000, 64), }\n"),
    "claims fewer than none": claimed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -16), }\n"),
    "header that is code": claimed(b"{'descr': __import__('os').abort(), 'shape': (1, 64)}\n"),
    "header that is deep": claimed(b"(" * 9_000 + b"\n"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_none_is_refused_in_a_sentence(what):
    with pytest.raises(DataError) as raised:
        read(HOSTILE[what])
    assert "a.npz" in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_numbers_of_any_size_end_in_rejects():
    arrays = {name: array.copy() for name, array in arrays_of(rows_of(GAMES[:1])).items()}
    arrays["globalTargetsNC"][:5] = [[np.nan], [np.inf], [-np.inf], [3e38], [-3e38]]
    arrays["policyTargetsNCMove"][5:7] = [[[-32768]], [[32767]]]
    with np.errstate(all="raise", invalid="ignore", over="ignore"):
        positions, rejects, _ = read(npz(arrays))
    assert len(positions) + len(rejects) <= len(GAMES[0].moves)
    assert np.isfinite(positions.policy.astype(np.float32)).all() and np.isfinite(positions.value).all()
