"""The policy's target: what was played, what a search visited, or a mix of both; equal bits by every way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.small_data import SIDE, columns_of, dataset, examples, write_examples

import hexshards
from hexshards.conversion.convert import convert
from hexshards.game.board import symmetry_cells
from hexshards.game.columns import MAX_VISITED
from hexshards.game.random_visits import search
from hexshards.game.visits import Entries, visits_of
from hexshards.loading.expansion import expand_compiled
from hexshards.loading.expansion.expand import Packed, expand, expand_on_device
from hexshards.loading.expansion.policy_targets import WHOLE, sparse
from hexshards.loading.loader import Loader
from hexshards.loading.options import LoaderSpec

CELLS = SIDE * SIDE


def visits_at(counts):
    rows, cells = np.nonzero(counts)
    return visits_of(Entries(rows, cells, counts[rows, cells].astype(float)), rows=len(counts))


def slowly(moves, counts, symmetry, share, side):
    """Slow and obvious: one position and one move at a time, in float32 as a batch is."""
    shown = np.zeros(counts.shape, dtype=np.float32)
    for row, (move, mine) in enumerate(zip(moves.tolist(), counts, strict=True)):
        cells = symmetry_cells(side)[symmetry[row]]
        total = int(mine.sum())
        part = np.float32(np.uint16(np.rint((1 - share) * float(WHOLE)))) / WHOLE
        played = np.float32(0) if move < 0 else np.float32(1) if not total else part
        for cell in np.flatnonzero(mine).tolist():
            shown[row, cells[cell]] = np.float32(mine[cell]) * ((np.float32(1) - played) / np.float32(total))
        if move >= 0:
            shown[row, cells[move]] += played
    return shown


@pytest.mark.parametrize("side", [3, 5, 13, 19])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_numpy_compiled_code_and_torch_make_the_bits_of_the_slow_way(side, share):
    random, count, cells = np.random.default_rng(side), 300, side * side
    counts = search(np.ones((count, cells), dtype=bool), simulations=50, seed=side)
    counts[np.argsort(np.argsort(-counts, axis=1), axis=1) >= MAX_VISITED] = 0
    counts[::7] = 0
    counts[3] *= 1000
    moves = random.integers(-1, cells, count).astype(np.int16)
    symmetry = random.integers(0, 4, count).astype(np.uint8)
    rows = Packed(
        np.packbits(random.random((count, 2 * cells)) < 0.1, axis=1),
        random.integers(0, 2, count).astype(np.uint8),
        sparse(moves, visits_at(counts), share),
        random.random(count).astype(np.float32),
        symmetry,
    )
    expected = slowly(moves, counts, symmetry, share, side).tobytes()
    whole = expand(rows, side=side)
    compiled = expand(rows, side=side, by=expand_compiled.fill)
    there = expand_on_device(Packed(*map(torch.from_numpy, rows)), side=side)
    assert whole.policy.numpy().tobytes() == expected
    for other in (compiled, there):
        assert [part.numpy().tobytes() for part in other] == [part.numpy().tobytes() for part in whole]


def test_compiled_code_refuses_visits_beyond_the_board():
    rows = Packed(
        np.zeros((2, 7), np.uint8),
        np.zeros(2, np.uint8),
        sparse(np.array([-1, -1], np.int16), visits_at(np.eye(25, dtype=int)[:2]), 1.0),
        np.zeros(2, np.float32),
        np.zeros(2, np.uint8),
    )
    rows.policy[1, 0, 5] = 25
    with pytest.raises(IndexError, match="row 1 has visits beyond 25 cells"):
        expand(rows, side=5, by=expand_compiled.fill)


# of a dataset ---------------------------------------------------------------------------------------------------------


def searched(count=12):
    """Examples, most of them with counts."""
    entries = examples(count)
    free = np.array([example["board"].sum(axis=0).reshape(-1) == 0 for example in entries])
    for number, (example, counts) in enumerate(zip(entries, search(free, simulations=30), strict=True)):
        if example["policy"] is not None and number % 5:
            example["visits"] = counts
    return entries


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    path = write_examples(folder / "a_processed.pkl.gz", searched())
    for name, dedupe in (("data", "none"), ("merged", "positions")):
        convert(path, out=folder / name, shard_positions=96, block_positions=16, val_fraction=0.0, dedupe=dedupe)
    return folder / "data"


def counts_of(columns):
    counts = np.zeros((len(columns["ply"]), CELLS), dtype=np.int64)
    for row, (cells, times) in enumerate(columns["visits"].tolist()):
        for cell, count in zip(cells, times, strict=True):
            counts[row, cell] += count
    return counts


OPTIONS = {"batch_size": 50, "shuffle": False}


def policies(folder, **options):
    return torch.cat([batch.policy for batch in hexshards.loader(folder, **{**OPTIONS, **options})]).numpy()


@pytest.mark.parametrize(("policy", "share"), [("search", 1.0), (0.3, 0.3), ("0.3", 0.3), (1, 1.0)])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_the_target_that_is_asked_for(data, policy, share, workers):
    if workers and policy != "search":
        pytest.skip("one process is enough to see that others give the same")
    columns = columns_of(data, "train")
    still = np.zeros(len(columns["ply"]), dtype=np.uint8)
    expected = slowly(columns["policy"], counts_of(columns), still, share, SIDE)
    given = policies(data, policy=policy, augment="none", num_workers=workers)
    assert given.tobytes() == expected.tobytes()
    has_target = (columns["policy"] >= 0) | columns["visits"][:, 1].any(axis=1)
    np.testing.assert_allclose(given.sum(axis=1), has_target, rtol=1e-5)


def test_played_is_the_default_and_0_is_the_same(data):
    assert policies(data).tobytes() == policies(data, policy="played").tobytes() == policies(data, policy=0).tobytes()


def test_the_order_boards_and_values_are_those_of_single_moves(data):
    one, other = (list(hexshards.loader(data, batch_size=50, policy=policy)) for policy in ("played", "search"))
    for played, shares in zip(one, other, strict=True):
        assert all((a == b).all() for a, b in zip(played[::2], shares[::2], strict=True))


def test_visits_are_shown_in_the_symmetry_of_their_row(data):
    loader = hexshards.loader(data, policy="search", augment="all", columns=("visits",), **OPTIONS)
    seen = set()
    for batch, rows in zip(loader, loader.packed(), strict=False):
        counts = counts_of({"ply": batch.value, "visits": batch.columns["visits"].numpy()})
        searched_rows = np.flatnonzero(counts.any(axis=1))
        shares = counts[searched_rows] / counts[searched_rows].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(batch.policy.numpy()[searched_rows], shares, rtol=1e-6)
        stones = batch.board[:, :2].sum(dim=1).reshape(-1, CELLS).numpy()
        assert not (stones * counts).any()
        seen |= set(rows.symmetry.tolist())
    assert seen == {0, 1, 2, 3}


def test_distributions_are_mixed_as_distributions(data):
    merged = data.parent / "merged"
    columns = columns_of(merged, "train")
    counts = counts_of(columns)
    for policy, share in (("search", 1.0), (0.5, 0.5)):
        given = policies(merged, policy=policy, augment="none")
        for row, target in enumerate(columns["policy"].astype(np.float32)):
            part = 0 if not counts[row].any() else share if target.any() else 1
            shares = counts[row] / max(1, counts[row].sum())
            np.testing.assert_allclose(given[row], part * shares + (1 - part) * target, atol=2e-3)


def test_a_dataset_of_a_mix_without_visits_gives_its_moves(data, tmp_path):
    plain = dataset(tmp_path, games=12)
    with pytest.raises(ValueError, match=r"policy: no position here has visits of a search\. Leave it played"):
        hexshards.loader(plain, policy="search")
    batches = list(hexshards.loader({data: 1, plain: 1}, policy="search", batch_size=50, augment="none"))
    several = torch.cat([batch.policy for batch in batches]).count_nonzero(dim=1)
    assert (several > 1).any()
    assert (several == 1).sum() > len(several) / 2


def test_the_searchs_share_follows_its_schedule_window_by_window_and_goes_on_with_it(data):
    fixed = {policy: policies(data, policy=policy, augment="none") for policy in ("played", 0.25, "search")}
    total = len(fixed["played"])
    options = {**OPTIONS, "augment": "none", "window_blocks": 2, "policy": f"step 0:0 64:0.25 {total}:1"}
    loader = Loader(data, LoaderSpec(**options))
    first, second = (torch.cat([batch.policy for batch in loader]).numpy() for _ in range(2))
    assert (first == np.concatenate([fixed["played"][:64], fixed[0.25][64:]])).all()
    assert (second == fixed["search"]).all()
    next(passing := iter(loader))
    again = Loader(data, LoaderSpec(**options))
    again.load_state_dict(loader.state_dict())
    assert all((one.policy == other.policy).all() for one, other in zip(passing, again, strict=True))


@pytest.mark.parametrize("policy", ["visits", "", -0.1, 1.5, "nan", "1e999", "linear 0:0 9:2", "linear 0:0.5 0:1"])
def test_what_is_no_target_is_refused_in_a_sentence(data, policy):
    with pytest.raises(ValueError, match="policy is played, search or a number from 0"):
        hexshards.loader(data, policy=policy)


def test_resident_keeps_no_visits_and_says_so(data):
    with pytest.raises(ValueError, match="Leave resident out, or policy played"):
        hexshards.loader(data, policy="search", resident=True)


def test_a_loader_goes_on_from_a_state_with_the_same_targets(data):
    whole = [batch.policy for batch in hexshards.loader(data, policy=0.5, batch_size=32)]
    first = hexshards.loader(data, policy=0.5, batch_size=32)
    for _, _batch in zip(range(3), first, strict=False):
        pass
    again = hexshards.loader(data, policy=0.5, batch_size=32)
    again.load_state_dict(first.state_dict())
    rest = [batch.policy for batch in again]
    assert all((one == other).all() for one, other in zip(whole[3:], rest, strict=True))
