from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.cli import call
from helpers.small_data import SIDE, dataset, examples, write_examples

from hexshards.dataset.blocks import first_positions
from hexshards.dataset.index import read_index
from hexshards.drawing.svg import element, markup
from hexshards.game.board import BLUE, MAX_SIDE, MIN_SIDE, RED, connects
from hexshards.game.columns import VISITS
from hexshards.game.diagram import connecting_path, diagram_of, last_moves, winner_of
from hexshards.game.diagram_svg import draw, place_of, size
from hexshards.game.positions import as_distributions, no_positions
from hexshards.storage.remote import home_of


@pytest.fixture(scope="module")
def positions(tmp_path_factory):
    folder = dataset(tmp_path_factory.mktemp("diagram"), block_positions=1000, shard_positions=2000)
    return first_positions(home_of(folder), read_index(folder), split="train", count=1000)


def parts_of(picture, kind):
    return [each for each in ElementTree.fromstring(picture).iter() if each.get("class") == kind]


def middles(picture, kind):
    return {(float(each.get("cx")), float(each.get("cy"))) for each in parts_of(picture, kind)}


def test_a_diagram_has_each_stone_in_the_middle_of_its_cell(positions):
    for row in range(0, 200, 7):
        picture = markup(draw(diagram_of(positions, row)))
        for plane, kind in enumerate(("hex-blue", "hex-red")):
            cells = np.flatnonzero(positions.planes()[row, plane])
            expected = {tuple(round(each, 2) for each in place_of(cell, SIDE)) for cell in cells.tolist()}
            assert middles(picture, kind) == expected


def test_rows_lean_to_the_right_and_touch_as_hexagons_do():
    middle = place_of(12, SIDE)
    far = [np.hypot(*np.subtract(place_of(cell, SIDE), middle)) for cell in range(SIDE * SIDE)]
    touching = {cell for cell in range(SIDE * SIDE) if 0 < far[cell] < 1.01 * min(d for d in far if d)}
    assert touching == {7, 8, 11, 13, 16, 17}  # above, above right, left, right, below left, below
    assert place_of(5, SIDE)[0] > place_of(0, SIDE)[0]


@pytest.mark.parametrize("side", [MIN_SIDE, 13, MAX_SIDE])
def test_nothing_is_drawn_outside_the_picture(side):
    picture = ElementTree.fromstring(markup(draw(diagram_of(_empty(side), 0))))
    places = [
        (float(x), float(y))
        for each in picture.iter()
        for name in ("d", "points")
        for x, y in re.findall(r"([-\d.]+),([-\d.]+)", each.get(name, ""))
    ]
    assert len(places) > 6 * side * side
    assert np.min(places) > 0
    assert (np.max(places, axis=0) < size(side)).all()
    letters = [each.text for each in parts_of(ElementTree.tostring(picture), "hex-coordinate")]
    assert sorted(letters[::2]) == [chr(ord("a") + at) for at in range(side)]
    assert [int(each) for each in letters[1::2]] == list(range(1, side + 1))


def _empty(side):
    none = no_positions(side)
    return none.changed(**{name: np.zeros((1, *each.shape[1:]), each.dtype) for name, each in none.columns().items()})


def test_the_target_is_a_ring_in_the_colour_of_who_is_to_move(positions):
    for row in range(50):
        move, player = int(positions.policy[row]), int(positions.player[row])
        rings = middles(markup(draw(diagram_of(positions, row))), f"hex-target-{('blue', 'red')[player]}")
        assert rings == ({tuple(round(each, 2) for each in place_of(move, SIDE))} if move >= 0 else set())


def test_a_soft_policy_is_a_shade_on_each_of_its_cells(positions):
    policy = as_distributions(positions.policy, cells=SIDE * SIDE)
    policy[0] = 0
    policy[0, [3, 4]] = 0.75, 0.25
    picture = markup(draw(diagram_of(positions.changed(policy=policy), 0)))
    assert [float(each.get("fill-opacity")) for each in parts_of(picture, "hex-heat")] == [0.9, 0.3]


def test_visits_are_shaded_by_how_often_a_cell_was_visited(positions):
    visits = VISITS.unknowns(len(positions), side=SIDE)
    visits[0, :, :2] = [[7, 3], [60, 20]]
    visits[1, :, :2] = [[60_000, 3], [60, 20]]  # a cell that no board has
    searched = positions.with_optional({VISITS: visits})
    for row, shades in ((0, [20 / 60 * 0.9, 0.9]), (1, [])):
        picture = markup(draw(diagram_of(searched, row)))
        drawn = [float(each.get("fill-opacity")) for each in parts_of(picture, "hex-heat")]
        assert drawn == pytest.approx(shades, abs=0.01)


def test_the_last_stone_is_marked_where_the_position_before_is_there(positions):
    games = {}
    for row, (source, game, ply) in enumerate(zip(positions.source, positions.game, positions.ply, strict=True)):
        games[source, game, ply] = row
    last = last_moves(positions)
    known = 0
    for (source, game, ply), row in games.items():
        before = games.get((source, game, ply - 1))
        assert last[row] == (-1 if before is None else positions.policy[before])
        known += before is not None
    assert known > 500


def test_the_path_of_a_finished_game_connects_and_no_other_has_one(positions):
    planes = positions.planes()
    for row in range(len(positions)):
        stones = diagram_of(positions, row).stones
        path = connecting_path(stones, SIDE)
        won = [bool(connects(planes[row, player][None].astype(bool), player=player)[0]) for player in (BLUE, RED)]
        assert bool(path) == any(won)
        if path:
            chain = np.zeros((1, SIDE, SIDE), dtype=bool)
            chain.reshape(-1)[list(path)] = True
            player = won.index(True)
            assert set(stones[list(path)]) == {player}
            assert connects(chain, player=player).all()


def test_a_notebook_sees_the_first_positions(positions):
    picture = positions._repr_svg_()
    captions = [each.text for each in parts_of(picture, "hex-caption")]
    assert len(captions) == 8
    assert re.fullmatch(r"ply \d+ · (BLUE|RED) to move · (BLUE|RED) wins", captions[0])
    assert no_positions(SIDE)._repr_svg_().startswith("<svg")
    assert winner_of(0.25) == "RED wins 25%"


def test_show_draws_the_same_picture_into_a_file(tmp_path):
    write_examples(tmp_path / "in" / "one_processed.pkl.gz", examples(1)[7:8])
    call("convert", tmp_path / "in", "--out", tmp_path / "data", "--val-fraction", 0)
    said = call("show", tmp_path / "data", "--svg", tmp_path / "boards.svg").stdout
    assert said.rstrip().splitlines()[-1] == f"picture {tmp_path / 'boards.svg'}"
    picture = (tmp_path / "boards.svg").read_text()
    assert len(parts_of(picture, "hex-blue")) == 4
    assert "ends in .svg" in call("show", tmp_path / "data", "--svg", tmp_path / "boards.png", code=2).stderr
    assert not (tmp_path / "boards.png").exists()


def test_text_and_attributes_of_a_picture_stay_what_they_are():
    hostile = """</text><script>alert(1)</script>"'&\x00\x1b\ud800"""
    picture = markup(element("text", text=hostile, class_=hostile))
    (only,) = [ElementTree.fromstring(picture)]
    escaped = hostile.replace("\x00", r"\x00").replace("\x1b", r"\x1b").replace("\ud800", r"\ud800")
    assert len(only) == 0
    assert only.text == only.get("class") == escaped
