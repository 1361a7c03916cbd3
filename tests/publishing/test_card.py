from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.small_data import CUT, columns_of, dataset, examples, planes_of, write_examples
from hypothesis import given, settings
from hypothesis import strategies as st

import hexshards
from hexshards.conversion.convert import convert
from hexshards.errors import printable, without_secrets
from hexshards.game.board import move_name
from hexshards.publishing.card import Card, card_of, size_category, untouched
from hexshards.publishing.croissant import REQUIRED, croissant_of, lacking
from hexshards.publishing.markdown import name, table, text, yaml
from hexshards.publishing.options import PublishSpec
from hexshards.publishing.preview import fields_of, parquet_of, sample_of, table_of
from hexshards.storage.files import Folder

parquet = pytest.importorskip("pyarrow.parquet", reason="without pyarrow NOTHING OF PREVIEWS IS CHECKED")

HOSTILE = [
    "---\nlicense: gpl",
    '"]\nconfigs: []\n',
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b | c",
    "`code` `` ` ``",
    "[here](javascript:alert(1)) ![](http://host/x.png)",
    "www.example.org http://example.org me@example.org @me #1 :smile: $x$ ~~x~~ **x** _x_",
    "\\| \\` \\",
    "{{ 7 * 7 }} &lt;b&gt; &#60;b&#62;",
    "\ud800\udcff\x00\x1b[31m\u202e\u2028",
    "x" * 100_000,
    "",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def index(data):
    return hexshards.read_index(data)


def made(index, **said):
    return Card(
        index=index,
        spec=PublishSpec(**{"license": "mit", **said}),
        place="games",
        previewed=dict.fromkeys(index.splits, 9),
    )


def rows_of(data, split="train", count=100):
    index = hexshards.read_index(data)
    return table_of(sample_of(Folder(data), index, split, count=count), index, split).to_pylist()


# the preview --------------------------------------------------------------------------------------------------------


def test_each_row_is_a_position_of_the_dataset_as_it_is_stored(data, index):
    rows, columns = rows_of(data, count=2000), columns_of(data, "train")
    assert len(rows) == len(columns["value"])
    names = np.array(index.sources)[columns["source"]]
    stored = {
        (name, game, ply): at
        for at, (name, game, ply) in enumerate(zip(names, columns["game"], columns["ply"], strict=True))
    }
    for row in rows:
        at = stored.pop((row["source"], row["game"], row["ply"]))
        blue, red = planes_of(columns["stones"][at])
        assert row["cells"] == (blue + 2 * red).ravel().astype(int).tolist()
        letters = ["·BR"[cell] for cell in row["cells"]]
        assert row["board"].split() == letters
        assert [len(line) - len(line.lstrip()) for line in row["board"].split("\n")] == list(range(5))
        cell = int(columns["policy"][at])
        assert (row["cell"], row["move"]) == ((None, None) if cell < 0 else (cell, move_name(cell, side=5)))
        assert row["player"] == ("BLUE", "RED")[columns["player"][at]]
        assert (row["value"], row["plies"]) == (columns["value"][at], columns["plies"][at])
        assert row["split"] == "train"
    assert not stored


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_as_many_positions_as_are_asked_for_are_shown_none_twice(data, count):
    rows = [(row["source"], row["game"], row["ply"]) for row in rows_of(data, count=count)]
    assert count <= len(set(rows)) == len(rows) < count + 16


def test_a_sample_is_a_function_of_the_dataset_and_of_several_blocks_of_it(data, index, tmp_path):
    first, again = (
        parquet_of(table_of(sample_of(Folder(data), index, "train", count=50), index, "train")) for _ in "12"
    )
    assert first == again
    other = hexshards.read_index(dataset(tmp_path, seed=1))
    assert other.fingerprint != index.fingerprint
    columns = columns_of(data, "train")
    at = {(name, ply): row // 16 for row, (name, ply) in enumerate(zip(columns["game"], columns["ply"], strict=True))}
    assert len({at[row["game"], row["ply"]] for row in rows_of(data, count=50)}) >= 10


def test_visits_and_soft_policies_stand_with_the_names_of_moves(tmp_path):
    entries = examples(4)
    for number, example in enumerate(entries):
        example["search_value"] = 0.25
        if example["policy"] is not None and number % 2:
            counts = np.zeros(25)
            counts[np.flatnonzero(example["policy"])] = 3
            example["visits"] = counts.astype(np.float32)
            example["policy"] = (counts / counts.sum()).astype(np.float32)
    write_examples(tmp_path / "in" / "a_processed.pkl.gz", entries)
    convert(tmp_path / "in", out=tmp_path / "data", **CUT)
    rows = rows_of(tmp_path / "data", split="train", count=1000)
    visited = [row for row in rows if row["visits"]]
    assert visited
    assert all(row["visits"] == [{"move": row["move"], "count": 3}] for row in visited)
    assert {row["search_value"] for row in rows} == {0.25}


def test_hostile_names_of_sources_are_plain_text_in_parquet(data, index):
    positions = sample_of(Folder(data), index, "train", count=20)
    for hostile in HOSTILE:
        spoiled = replace(index, sources=(hostile,) * len(index.sources))
        back = parquet.read_table(io.BytesIO(parquet_of(table_of(positions, spoiled, "train"))))
        said = set(back["source"].to_pylist())
        assert len(said) == 1
        assert all(name.isprintable() and len(name) <= 200 for name in said)


# the card -----------------------------------------------------------------------------------------------------------


def head_of(said):
    yaml = pytest.importorskip("yaml", reason="without PyYAML THE HEADS OF CARDS ARE NOT CHECKED")
    start, head, _ = said.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head)


def spoiled(index, hostile):
    inputs = [replace(file, name=hostile, notes=hostile, headers={"model": hostile[:1000]}) for file in index.inputs]
    options = {**index.options, hostile[:50]: hostile}
    return replace(index, inputs=tuple(inputs), sources=(hostile,) * len(index.sources), options=options)


def test_the_head_is_what_the_hub_asks_for(index):
    head = head_of(card_of(made(index, name="Hex games")))
    assert head == {
        "license": "mit",
        "pretty_name": "Hex games",
        "size_categories": ["1K<n<10K"],
        "tags": ["hex", "board-games", "webdataset", "hexshards"],
        "configs": [
            {
                "config_name": "positions",
                "default": True,
                "data_files": [
                    {"split": "train", "path": "preview/train.parquet"},
                    {"split": "val", "path": "preview/val.parquet"},
                ],
            }
        ],
    }


def test_the_card_says_what_is_in_the_dataset_and_where_it_came_from(index):
    said = card_of(made(index))
    for column in (*index.layout.columns(), *(each.name for each in fields_of(index))):
        assert f"| `{column}` |" in said
    for file in index.inputs:
        assert f"| `{file.name}` | {file.format} | {file.positions:,} |" in said
    assert index.fingerprint in said
    assert "1,117" in said


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_name_adds_nothing_to_head_and_tables(index, hostile):
    plain = card_of(made(index, name="plain"))
    said = card_of(made(spoiled(index, hostile), name=hostile or None))
    head = head_of(said)
    assert head.keys() == head_of(plain).keys()
    assert head["configs"] == head_of(plain)["configs"]
    assert said.count("```") == plain.count("```")
    assert said.count("\n#") == plain.count("\n#")
    assert len(said) < 50_000 + 40 * 1000
    for line in said.splitlines():
        assert line.isprintable()


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_a_name_is_it_is_shown_as_text(said):
    markdown = pytest.importorskip("markdown_it", reason="without markdown-it NO RENDERED CARD IS CHECKED")
    reader = markdown.MarkdownIt("gfm-like", {"html": True, "linkify": False})
    for show, tag in ((text, ""), (name, "code")):
        page = reader.render(table(["a", "b"], [(said, "end")], names=(0,) if show is name else ()))
        assert page.count("<td") == 2
        assert set(_tags(page)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
        cell = page.split("<td>")[1].split("</td>")[0]
        cell = cell.removeprefix("<code>").removesuffix("</code>") if tag else cell
        assert html.unescape(cell).split() == printable(said, width=200).split()


def _tags(page):
    return re.findall(r"<([a-z0-9]+)", page)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), st.text(max_size=30) | st.booleans(), min_size=1))
@settings(max_examples=100, deadline=None)
def test_yaml_reads_back_what_was_said(said):
    reader = pytest.importorskip("yaml", reason="without PyYAML THE HEADS OF CARDS ARE NOT CHECKED")
    shown = {
        key: value if isinstance(value, bool) else printable(without_secrets(value), width=300)
        for key, value in said.items()
    }
    assert reader.safe_load(yaml({f"x{key}": [value, {"k": value}] for key, value in said.items()})) == {
        f"x{key}": [value, {"k": value}] for key, value in shown.items()
    }


def test_a_card_knows_whether_it_was_edited(index):
    said = card_of(made(index))
    assert untouched(said)
    assert not untouched(said.replace("games", "game", 1))
    assert not untouched("# A project of mine\n")
    assert not untouched(said + "more\n")
    assert untouched("---\nlicense: mit\n---\n")
    assert not untouched("---\nlicense: mit\n---\n# Mine\n")


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (97_000_000, "10M<n<100M"), (10**12, "n>1T")],
)
def test_sizes_are_named_as_the_hub_names_them(count, said):
    assert size_category(count) == said


# croissant ----------------------------------------------------------------------------------------------------------


def metadata(index, **said):
    previews = {split: b"parquet" for split in index.splits}
    return croissant_of(made(index, **said), previews, published="2026-11-28")


def test_croissant_has_what_its_format_requires_and_invents_nothing(index):
    whole = metadata(index, creator="Me", homepage="https://example.org/games")
    entry = json.loads(whole)
    assert lacking(whole) == []
    assert entry.keys() >= {"@context", "@type", "conformsTo", *REQUIRED}
    assert entry["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {each["@id"]: each["sha256"] for each in entry["distribution"]}
    shards = [shard for split in index.splits.values() for shard in split.shards]
    assert files.items() >= {shard.name: shard.sha256 for shard in shards}.items()
    fields = {each["@id"] for records in entry["recordSet"] for each in records["field"]}
    assert {"train/board", "val/move"} <= fields
    assert lacking(metadata(index)) == ["url", "creator"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_text_in_croissant(index, hostile):
    plain = json.loads(metadata(index))
    entry = json.loads(metadata(spoiled(index, hostile), name=hostile or None, creator=hostile or None))
    assert [each["@id"] for each in entry["distribution"]] == [each["@id"] for each in plain["distribution"]]
    assert entry["recordSet"] == plain["recordSet"]
    assert entry["name"].isprintable()
