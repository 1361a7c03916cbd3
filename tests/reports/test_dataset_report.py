from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.cli import call
from helpers.small_data import SIDE, columns_of, dataset

from hexshards.dataset.index import read_index
from hexshards.game.symmetry import image
from hexshards.loading.shuffle_quality import Measure, Mixing
from hexshards.reports.copies import copies, copies_by_ply, shared
from hexshards.reports.dataset_report import dataset_report
from hexshards.reports.options import ReportSpec
from hexshards.reports.sample import Sample, read_sample
from hexshards.reports.source_files import source_files
from hexshards.reports.verdicts import verdicts_of
from hexshards.storage.remote import home_of

VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert('x')//`${alert(1)}`{{7*7}}\x1b[2J\u202e\udc80",
)


class Parsed(HTMLParser):
    """What a browser makes of a page: its elements, their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open, self.style = Counter(), [], [], [], ""
        self.feed(page)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(data):
    return dataset_report(data)


def test_what_each_split_shares_with_training_is_counted_also_of_three(tmp_path):
    three = dataset(tmp_path, games=60, val_fraction=0.3, test_fraction=0.3)
    home, index = home_of(three), read_index(three)
    train, *others = (read_sample(home, index, split, ReportSpec()) for split in index.splits)
    text = " ".join(" ".join(Parsed(dataset_report(three).html).text).split())
    told = [f"{len(shared(train, each).rows)} positions of {each.split}" for each in others]
    assert [each.split for each in others] == ["val", "test"]
    assert f"Met in train too, in whatever symmetry: {told[0]} and {told[1]}. Those of val" in text


@pytest.fixture(scope="module")
def samples(data):
    return [read_sample(home_of(data), read_index(data), split, ReportSpec()) for split in ("train", "val")]


def verdicts(samples, **changes):
    given = {
        "files": source_files(samples[0]),
        "compared": {"val": shared(*samples)} if len(samples) > 1 else {},
        "mixing": None,
        **changes,
    }
    return {each.name: each for each in verdicts_of(samples[0].index, samples, **given)}


def of(sample, positions):
    """A sample of other positions."""
    by_ply = np.bincount(positions.ply, minlength=len(sample.total_by_ply))
    return Sample(
        split=sample.split,
        positions=positions,
        total=len(positions),
        total_by_ply=by_ply,
        column_bytes=sample.column_bytes,
        index=sample.index,
    )


# the page -----------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_nothing(made):
    page = Parsed(made.html)
    assert not set(page.tags) & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a:href"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("style", "src", "srcdoc")]
    links = [value for _, name, value in page.attributes if name in ("href", "xlink:href")]
    ids = {value for _, name, value in page.attributes if name == "id"}
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_a_policy_allows_the_one_style_sheet_by_its_hash_and_nothing_else(made):
    page = Parsed(made.html)
    (policy,) = [value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert page.tags["style"] == 1


def test_hostile_names_are_text_on_the_page(data, made, tmp_path):
    folder = tmp_path / "hostile"
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "index.json").unlink()
    index = read_index(data)
    inputs = tuple(
        replace(each, name=name, notes=name, format=name, headers={name[:40]: "<i>"})
        for each, name in zip(index.inputs, HOSTILE, strict=True)
    )
    replace(index, sources=HOSTILE, inputs=inputs, options={HOSTILE[0]: HOSTILE[1]}).write(folder)
    hostile, plain = Parsed(dataset_report(folder).html), Parsed(made.html)
    assert hostile.tags.keys() == plain.tags.keys()
    assert {(tag, name) for tag, name, _ in hostile.attributes} == {(tag, name) for tag, name, _ in plain.attributes}
    text = "".join(hostile.text)
    assert all(name in text and f"{name[:40]}: <i>" in text for name in HOSTILE[:2])
    assert r"`${alert(1)}`{{7*7}}\x1b[2J\u202e\udc80" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\udc80]", text)


def test_the_page_holds_the_numbers_of_the_index(data, made):
    text, index = "".join(Parsed(made.html).text), read_index(data)
    for split in index.splits.values():
        assert f"{split.positions:,}" in text
        assert f"{split.blue_wins / split.positions:.1%}" in text
    assert index.fingerprint in text
    assert f"version {index.version}" in text
    assert all(file.name in text and file.sha256[:12] in text for file in index.inputs)
    assert "Every position was read." in text


def test_the_same_seed_gives_the_same_page_and_another_one_other_boards(data, made):
    assert dataset_report(data).html == made.html
    assert dataset_report(data, spec=ReportSpec(seed=1)).html != made.html


def test_of_a_large_dataset_a_sample_is_read_and_the_page_says_so(data):
    report = dataset_report(data, spec=ReportSpec(sample=100))
    assert report.positions == {"train": 1117, "val": 192}
    assert all(100 <= count < 116 for count in report.read.values())
    text = "".join(Parsed(report.html).text)
    assert f"{report.read['train']:,} of 1,117 positions of train" in text
    assert "drawn with seed 0" in text
    assert "positions of train that were read, so about" in text


def test_what_is_to_be_mended_stands_first(made):
    names = re.findall(r"<h3>([^<]*)</h3>\s*<div class=\"said\"", made.html)
    levels = {each.name: each.level for each in made.verdicts}
    assert sorted(names) == sorted(levels)
    assert [levels[name] for name in names] == sorted(levels.values(), key=["bad", "look", "unknown", "good"].index)


def test_a_sample_is_whole_blocks_without_repeats(data):
    index = read_index(data)
    sample = read_sample(home_of(data), index, "train", ReportSpec(sample=300, seed=3))
    every = columns_of(data, "train")
    rows = Counter(zip(*(every[name].tolist() for name in ("source", "game", "ply")), strict=True))
    drawn = Counter(zip(*(getattr(sample.positions, name).tolist() for name in ("source", "game", "ply")), strict=True))
    assert drawn <= rows
    assert not sample.whole
    assert sample.total_by_ply.sum() == 1117


def test_every_optional_column_gets_a_figure(data, tmp_path):
    from hexshards.game.columns import OPTIONAL
    from hexshards.reports.figures import figures_of

    index = read_index(data)
    sample = read_sample(home_of(data), index, "train", ReportSpec())
    weighted = {kind: kind.unknowns(len(sample.positions), side=SIDE) for kind in OPTIONAL}
    for kind, column in weighted.items():
        column[1::2] = 5 if kind.dtype.kind in "iu" else 0
    layout = replace(index.layout, optional=tuple(OPTIONAL))
    wide = replace(of(sample, sample.positions.with_optional(weighted)), index=replace(index, layout=layout))
    captions = {each.title: each.caption for each in figures_of(wide.index, [wide], source_files(wide))}
    assert all(f"Column {kind.name}" in captions for kind in OPTIONAL)
    # one more than half of the positions are left unknown: a weight is then 1
    assert "all positions say it, from 0 to 1, mean 0.5" in captions["Column weight"]
    assert all("50% say it" in captions[f"Column {name}"] for name in ("search_value", "generation", "visits"))


def test_soft_policies_show_how_undecided_they_are(samples):
    from hexshards.reports.figures import figures_of

    soft = of(samples[0], samples[0].positions.softened())
    titles = [each.title for each in figures_of(soft.index, [soft], source_files(soft))]
    assert "How undecided the policy targets are" in titles


@pytest.mark.parametrize(
    "options", [{"val_fraction": 0}, {"val_fraction": 1}, {"dedupe": "symmetric"}, {"bake_symmetries": True}]
)
def test_every_kind_of_dataset_has_a_page(tmp_path, options):
    report = dataset_report(dataset(tmp_path, games=24, **options))
    assert Parsed(report.html).tags["svg"] > 10
    assert all(each.says.endswith(".") for each in report.verdicts)


def test_without_jinja_the_command_that_installs_it_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    told = call("report", data, "--out", tmp_path / "r.html", code=2).stderr
    assert "Jinja2 is not installed. Run: pip install 'hexshards[report]'" in told


# the command --------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_says_the_verdicts(data, made, tmp_path):
    out = tmp_path / "page.html"
    assert call("report", data, "--out", out).stdout.splitlines()[-1] == f"page {out}"
    assert out.read_text(encoding="utf-8") == made.html
    told = json.loads(call("report", data, "--out", out, "--json").stdout)
    assert told == {"out": str(out), **json.loads(json.dumps(made.entry()))}


def test_what_cannot_be_done_leaves_nothing_behind(data, tmp_path):
    out = tmp_path / "page.html"
    assert "no dataset here" in call("report", tmp_path, "--out", out, code=2).stderr
    assert "ends in .html" in call("report", data, "--out", tmp_path / "index.json", code=2).stderr
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in data.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 900 if path.name == "val-000000.tar" else None])
    assert "val-000000.tar" in call("report", broken, "--out", out, code=1).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


# verdicts -----------------------------------------------------------------------------------------------------------


def test_a_sound_dataset_has_nothing_to_mend(made):
    levels = {each.name: each.level for each in made.verdicts}
    assert (
        levels["Games in both splits"] == levels["Mixing"] == levels["Sides mixed"] == levels["Source files"] == "good"
    )
    assert "bad" not in {each.level for each in made.verdicts if each.name != "Leakage"}


def test_a_game_in_both_splits_is_found(samples):
    train, val = samples
    assert verdicts(samples)["Games in both splits"].level == "good"
    torn = of(val, val.positions)
    mixed = of(train, train.positions.take(np.arange(100)))
    verdict = verdicts([mixed, of(torn, train.positions.take(np.arange(100, 200)))])["Games in both splits"]
    assert verdict.level == "bad"
    assert "in both splits by name" in verdict.says


def test_few_games_to_validate_on_are_worth_a_look_and_many_are_not(samples):
    name, index = "Games to validate on", samples[0].index
    few, val = verdicts(samples)[name], index.splits["val"]
    assert few.level == "look" and f"Validation has {val.games} games, " in few.says and "200 games or more" in few.do
    many = {**index.splits, "val": replace(val, games=200)}
    assert replace(index, splits=many).few_val_games is None
    assert replace(index, splits={"train": index.splits["train"]}).few_val_games is None
    unnamed = replace(index.inputs[0], without_game=1)  # games are not known, and not counted
    assert replace(index, inputs=(unnamed,)).few_val_games is None


def test_leaked_positions_are_counted_as_a_slow_twin_counts_them(samples):
    train, val = samples
    twice = of(val, image(train.positions.take(np.arange(50)), 1))
    leaked = shared(train, twice)
    assert leaked.exact
    boards = {each.tobytes() for s in (0, 1) for each in image(train.positions, s).stones}
    for sample in (val, twice):
        expected = [row for row in range(len(sample.positions)) if sample.positions.stones[row].tobytes() in boards]
        assert shared(train, sample).rows.tolist() == expected
    assert leaked.late == leaked.late_shared > 0
    assert verdicts([train, twice])["Leakage"].level == "bad"


def test_copies_of_a_sample_are_those_of_the_whole_on_average():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 60, size=400).astype(np.uint64)
    counts = Counter(keys.tolist())
    exact = np.mean([counts[key] for key in keys.tolist()])
    assert copies(keys, 400) == pytest.approx(exact)
    parts = [copies(keys[rng.permutation(400)[:40]], 400) for _ in range(2000)]
    assert np.mean(parts) == pytest.approx(exact, rel=0.02)
    assert np.isnan(copies(keys[:1], 400))


def test_copies_by_ply_are_those_of_a_slow_twin(samples):
    positions = samples[0].positions
    often = copies_by_ply(samples[0])
    names = [
        min(image(positions.take(slice(row, row + 1)), s).stones.tobytes() for s in (0, 1))
        for row in range(len(positions))
    ]
    for ply in range(6):
        here = [name for name, p in zip(names, positions.ply.tolist(), strict=True) if p == ply]
        counts = Counter(here)
        assert often[ply] == pytest.approx(np.mean([counts[name] for name in here]))


def test_games_that_are_there_twice_are_said_with_what_to_do(samples):
    train = samples[0]
    again = train.positions.changed(game=train.positions.game + 1000)
    from hexshards.game.positions import concat

    verdict = verdicts([of(train, concat([train.positions, again]))])["Repeated games"]
    assert verdict.level == "bad"
    assert "--dedupe games" in verdict.do
    assert verdicts(samples)["Repeated games"].level == "good"


def with_values_turned(sample, source):
    """A sample in which one file's values are inverted, of games that BLUE mostly won."""
    positions = sample.positions
    value = np.where(positions.game % 5 == 0, 1, 0).astype(np.float32)
    return of(sample, positions.changed(value=np.where(positions.source == source, 1 - value, value)))


def test_a_file_whose_values_are_inverted_is_an_outlier(tmp_path):
    data = dataset(tmp_path, games=160, val_fraction=0)
    index = read_index(data)
    sample = read_sample(home_of(data), index, "train", ReportSpec())
    # files of 20 games each: four and four become two files
    positions = sample.positions
    line = positions.game + 20 * (positions.source % 4).astype(np.int32)
    merged = of(sample, positions.changed(source=positions.source // 4, game=line))
    assert source_files(with_values_turned(merged, 9)).odd == ()
    sources = source_files(with_values_turned(merged, 1))
    assert 1 in sources.odd_winners
    said = verdicts([with_values_turned(merged, 1)])["Outlier files"]
    assert said.level == "look"
    assert index.sources[1] in said.says


def test_a_file_of_games_of_a_smaller_board_is_found(tmp_path):
    data = dataset(tmp_path, games=80, val_fraction=0)
    sample = read_sample(home_of(data), read_index(data), "train", ReportSpec())
    positions = sample.positions
    line = positions.game + 20 * (positions.source % 2).astype(np.int32)
    sample = of(sample, positions.changed(source=positions.source // 2, game=line))
    assert source_files(sample).small_boards == ()
    assert verdicts([sample])["Sides mixed"].level == "good"
    planes = sample.positions.planes()
    planes[sample.positions.source == 0, :, -1, :] = 0
    planes[sample.positions.source == 0, :, :, -1] = 0
    stones = np.packbits(planes.reshape(len(planes), -1), axis=1)
    verdict = verdicts([of(sample, sample.positions.changed(stones=stones))])["Sides mixed"]
    assert verdict.level == "bad"
    assert f"{sample.index.sources[0]} (to 4)" in verdict.says


def test_batches_that_are_not_mixed_are_said_with_the_worst_figure(samples):
    name = "pairs of the same game per batch"
    measures = (
        Measure(name=name, measured=63_530, uniform=45_000, deviations=30.0, lost=0.3),
        Measure(name="serial correlation of the value", measured=0.9, uniform=0, deviations=50.0, lost=0.1),
    )
    mixed = Mixing(
        positions=100,
        held=100,
        chosen=(),
        batch_size=10,
        batches=10,
        without_game=0,
        measures=measures,
        remedy="Mix them",
    )
    verdict = verdicts(samples, mixing=mixed)["Mixing"]
    assert verdict.level == "bad"
    assert f"{name} is 63,530 where a uniform shuffle gives 45,000: at worst as if batches were 30% " in verdict.says
    assert verdict.do == "Mix them."
    harmless = replace(mixed, measures=(replace(measures[0], measured=45_540, lost=0.012),))
    verdict = verdicts(samples, mixing=harmless)["Mixing"]
    assert (verdict.level, verdict.do) == ("good", "")
    assert "is 45,540 where a uniform shuffle gives 45,000: at worst as if batches were 1.2% smaller" in verdict.says
    assert verdicts(samples)["Mixing"].level == "unknown"


@pytest.mark.parametrize(("blue", "level"), [(0.5, "good"), (0.7, "look"), (0.95, "bad")])
def test_winners_out_of_balance_are_said(samples, blue, level):
    def split(part):
        return replace(part, blue_wins=round(blue * part.positions), red_wins=round((1 - blue) * part.positions))

    index = replace(samples[0].index, splits={name: split(part) for name, part in samples[0].index.splits.items()})
    by_name = {
        each.name: each
        for each in verdicts_of(index, samples, files=source_files(samples[0]), compared={}, mixing=None)
    }
    assert by_name["Balance"].level == level
    assert f"{blue:.1%}" in by_name["Balance"].says


def test_splits_that_differ_by_more_than_chance_are_said(samples):
    def level(games):
        train, val = samples[0].index.splits["train"], samples[0].index.splits["val"]
        val = replace(val, games=games, blue_wins=round(0.7 * val.positions))
        train = replace(train, blue_wins=round(0.5 * train.positions))
        index = replace(samples[0].index, splits={"train": train, "val": val})
        said = verdicts_of(index, samples, files=source_files(samples[0]), compared={}, mixing=None)
        return next(each.level for each in said if each.name == "Balance")

    assert (level(games=50), level(games=5000)) == ("good", "look")


def test_positions_without_a_game_and_rejects_are_said(samples):
    index = samples[0].index

    def said(**changes):
        inputs = (replace(index.inputs[0], **changes), *index.inputs[1:])
        told = verdicts_of(
            replace(index, inputs=inputs), samples, files=source_files(samples[0]), compared={}, mixing=None
        )
        return next(each for each in told if each.name == "Source files")

    assert said().level == "good"
    assert "5 positions do not say which game" in said(without_game=5).says
    assert "200 entries were rejected" in said(rejected=200).says
