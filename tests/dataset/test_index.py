from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import replace

import pytest

from hexshards.dataset.index import NAME, Index, InputFile, Split, read_index
from hexshards.dataset.layout import Layout, Part, Shard
from hexshards.errors import DataError


def shard(name, positions):
    blocks = -(-positions // 100)
    return Shard(
        name=name,
        positions=positions,
        size_bytes=1024 + 5120 * blocks,
        sha256="ab" * 32,
        block_bytes=(5120,) * blocks,
        block_crc32=tuple(range(blocks)),
    )


def split(*shards):
    positions = sum(shard.positions for shard in shards)
    return Split(shards=shards, games=9, blue_wins=0, red_wins=1, without_policy=0, plies=(positions, *[0] * 9))


def an_index():
    return Index(
        layout=Layout(side=3, soft=False, codec="zstd", block_positions=100),
        splits={
            "train": split(shard("train-000000.tar", 300), shard("train-000001.tar", 250)),
            "val": split(shard("val-000000.tar", 1)),
        },
        sources=("games_00", "games_01"),
        inputs=(
            InputFile(
                name="games_00_processed.pkl.gz",
                format="processed",
                size_bytes=12345,
                sha256="cd" * 32,
                positions=551,
                rejected=2,
                without_game=0,
                notes="v2 with players as enums",
            ),
        ),
        options={"val_fraction": 0.02, "seed": 0, "codec": "zstd", "dry": False},
    )


def entry_of(folder):
    return json.loads((folder / NAME).read_bytes())


def put(folder, entry):
    (folder / NAME).write_text(json.dumps(entry))


def fingerprint(entry):
    """SHA-256 of everything but the fingerprint, as compact JSON with sorted keys."""
    rest = {key: value for key, value in entry.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def forged(folder, entry):
    """Put an entry with a fingerprint that agrees with it."""
    put(folder, {**entry, "fingerprint": fingerprint(entry)})


def leaves(value, path=()):
    """The path of every number, text and truth value."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, inner in items for leaf in leaves(inner, (*path, key))]
    return [path]


def at(entry, path):
    for key in path:
        entry = entry[key]
    return entry


def set_at(entry, path, value):
    entry = copy.deepcopy(entry)
    at(entry, path[:-1])[path[-1]] = value
    return entry


def without(entry, path):
    entry = copy.deepcopy(entry)
    del at(entry, path[:-1])[path[-1]]
    return entry


def test_an_index_comes_back_as_it_was_written(tmp_path):
    index = an_index()
    index.write(tmp_path)
    assert read_index(tmp_path) == index == read_index(str(tmp_path))
    assert read_index(tmp_path).fingerprint == index.fingerprint == entry_of(tmp_path)["fingerprint"]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_an_index_without_a_split_comes_back_as_it_was_written(tmp_path):
    index = replace(an_index(), splits={"val": an_index().splits["val"]})
    index.write(tmp_path)
    assert read_index(tmp_path) == index


def test_the_fingerprint_is_that_of_format_version_1():
    # states and checkpoints name their dataset by it: a change here orphans them
    assert an_index().fingerprint == "840567a9efb37a27cec44f4182448cb52dffc2e229fe15232fd68b24f23ac256"


def test_the_same_index_is_the_same_bytes(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        an_index().write(folder)
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()


def test_blocks_are_full_but_for_the_last_of_each_shard():
    index = an_index()
    assert index.block_rows("train").tolist() == [100, 100, 100, 100, 100, 50]
    assert index.block_rows("val").tolist() == [1]
    assert index.splits["train"].positions == 550
    assert index.side == 3


def edits(value):
    """Other values that an editor, a bad disk or a bad copy could leave in a place."""
    others = [None, "", [], not value]
    if isinstance(value, str):
        others += [value + "x", value[1:], value.upper()]
    elif isinstance(value, (int, float)):
        others += [value + 1, -value - 1, str(value)]
    # 0 and False are equal in Python and not in JSON
    return [other for other in others if json.dumps(other) != json.dumps(value)]


def test_any_edit_of_anything_is_found(tmp_path):
    an_index().write(tmp_path)
    entry = entry_of(tmp_path)
    paths = leaves(entry)
    assert len(paths) >= 60
    for path in paths:
        for other in edits(at(entry, path)):
            put(tmp_path, set_at(entry, path, other))
            with pytest.raises(DataError) as damage:
                read_index(tmp_path)
            assert damage.value.where == str(tmp_path / NAME), path
        put(tmp_path, without(entry, path))
        with pytest.raises(DataError):
            read_index(tmp_path)


def test_an_edit_is_called_that(tmp_path):
    an_index().write(tmp_path)
    put(tmp_path, set_at(entry_of(tmp_path), ("splits", "train", "games"), 10))
    with pytest.raises(DataError, match="was edited"):
        read_index(tmp_path)


def test_anything_added_is_found(tmp_path):
    an_index().write(tmp_path)
    entry = entry_of(tmp_path)
    for path in [(), ("layout",), ("splits",), ("splits", "train"), ("splits", "train", "shards", 0), ("inputs", 0)]:
        put(tmp_path, set_at(entry, (*path, "more"), 1))
        with pytest.raises(DataError, match="more"):
            read_index(tmp_path)
        forged(tmp_path, set_at(entry, (*path, "more"), 1))
        with pytest.raises(DataError, match="more"):
            read_index(tmp_path)


def test_a_file_that_was_cut_is_a_data_error(tmp_path):
    an_index().write(tmp_path)
    data = (tmp_path / NAME).read_bytes()
    for end in range(0, len(data), 3):
        (tmp_path / NAME).write_bytes(data[:end])
        with pytest.raises(DataError):
            read_index(tmp_path)


@pytest.mark.parametrize("version", [-1, 0, 3, 99, 10**30])
def test_another_version_is_refused_even_with_a_right_fingerprint(tmp_path, version):
    an_index().write(tmp_path)
    forged(tmp_path, {**entry_of(tmp_path), "version": version})
    with pytest.raises(DataError, match=r"has format version .* this release reads 1"):
        read_index(tmp_path)


@pytest.mark.parametrize("version", ["1", None, 1.5, [1], True, "\x1b[31m"])
def test_a_version_that_is_no_number_is_refused_even_with_a_right_fingerprint(tmp_path, version):
    an_index().write(tmp_path)
    forged(tmp_path, {**entry_of(tmp_path), "version": version})
    with pytest.raises(DataError, match="is not the index of a dataset"):
        read_index(tmp_path)


@pytest.mark.parametrize("stated", [None, 7, [], "", "\x1b[31m" * 9, "ab" * 32])
def test_another_fingerprint_is_refused_in_a_message_without_control_characters(tmp_path, stated):
    an_index().write(tmp_path)
    put(tmp_path, {**entry_of(tmp_path), "fingerprint": stated})
    with pytest.raises(DataError) as damage:
        read_index(tmp_path)
    assert str(damage.value).isprintable()


def test_where_there_is_no_index_there_is_no_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset here"):
        read_index(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(FileNotFoundError, match="no dataset here"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("data/index.json", r"this is the index of a dataset, not a dataset. Give the folder that holds it, .*data$"),
        ("data/train-000000.tar", r"this is a shard, not a dataset. Give the folder that holds it, .*data$"),
        (
            "data/notes.txt",
            r"a file, and a dataset is a folder. If games .* `hexshards convert FILE --out DIR` and give DIR$",
        ),
        ("data/best.pt", r"this is a checkpoint or a file of weights, not a dataset. Give the dataset that"),
        (
            "run/metrics.jsonl",
            r"run: this is the folder of a run, not a dataset. Give the dataset that it was trained on",
        ),
        ("run/checkpoints/a.pt", r"run: this is the folder of a run, not a dataset"),
    ],
)
def test_what_is_given_in_the_place_of_a_dataset_is_called_what_it_is(tmp_path, made, says):
    (tmp_path / made).parent.mkdir(parents=True)
    (tmp_path / made).touch()
    with pytest.raises(FileNotFoundError, match=says):
        read_index(tmp_path / ("run" if made.startswith("run") else made))


NOT_AN_INDEX = [
    b"",
    b"{",
    b"null",
    b"7",
    b"[]",
    b'"text"',
    b"{}",
    b'{"version": 1}',
    b'{"fingerprint": ""}',
    b"\xff\xfe",
]
NOT_AN_INDEX += [b'{"version": 1, "fingerprint": 7, "x": NaN}', b"\x1f\x8b\x08", b"<!DOCTYPE html>", b"9" * 5000]


@pytest.mark.parametrize("data", NOT_AN_INDEX, ids=lambda data: repr(data[:20]))
def test_what_is_not_an_index_is_a_data_error(tmp_path, data):
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(DataError):
        read_index(tmp_path)


@pytest.mark.parametrize("depths", [range(900, 1020), [10_000, 200_000]], ids=["near the limit", "far beyond it"])
def test_any_depth_of_nesting_is_a_data_error(tmp_path, depths):
    for depth in depths:
        for opened, closed in (("[", "]"), ('{"a":', "}")):
            deep = opened * depth + "0" + closed * depth
            for entry in (
                f'{{"version": 1, "fingerprint": "x", "options": {deep}}}',
                f'{{"version": 1, "fingerprint": {deep}}}',
                f'{{"version": {deep}, "fingerprint": "x"}}',
            ):
                (tmp_path / NAME).write_text(entry)
                with pytest.raises(DataError):
                    read_index(tmp_path)


ELSEWHERE = [
    *("../train-000000.tar", "/etc/passwd", "/train-000000.tar", "train-000000.tar/../../x", "a/train-000000.tar"),
    *("..", "", ".", "train-0.tar", "train-0000000.tar", "train-000000.tar.gz", "TRAIN-000000.tar"),
    *("train-000000.tar\n", "train-000000.tar\0", "pipe:cat", "http://host/train-000000.tar", "val-000000.tar"),
    *("train-00000a.tar", "xtrain-000000.tar", "C:\\train-000000.tar", 7, None, ["train-000000.tar"]),
]


@pytest.mark.parametrize("name", ELSEWHERE, ids=repr)
def test_a_shard_by_a_name_that_no_dataset_has_is_refused_even_with_a_right_fingerprint(tmp_path, name):
    an_index().write(tmp_path)
    forged(tmp_path, set_at(entry_of(tmp_path), ("splits", "train", "shards", 0, "name"), name))
    with pytest.raises(DataError, match="is not well formed"):
        read_index(tmp_path)


TRAIN_SHARD = ("splits", "train", "shards", 0)


def parts_of(*positions, sha256="ab" * 32):
    """What a merged shard was made of, as JSON says it."""
    return [{"sha256": sha256, "positions": count} for count in positions]


FORGED = [
    *((("layout", "side"), side) for side in (2, 20, 0, -13, "13", None)),
    *((("layout", "codec"), codec) for codec in ("gzip", "", None)),
    *((("layout", "block_positions"), rows) for rows in (0, -1, "100", None)),
    *(((*TRAIN_SHARD, "positions"), positions) for positions in (0, 301, 200, -300, "300", None)),
    *(((*TRAIN_SHARD, "block_bytes"), sizes) for sizes in ([], [5120] * 2, [5120] * 4, [5120, -5120, 5120], [0] * 3)),
    *(((*TRAIN_SHARD, "block_bytes"), sizes) for sizes in (["5120"] * 3, [5120.0] * 3, [True] * 3, 5120, None)),
    *(((*TRAIN_SHARD, "block_crc32"), sums) for sums in ([], [1] * 2, [1] * 4, None)),
    *(((*TRAIN_SHARD, "sha256"), name) for name in ("", "../" * 16 + "etc/passwd", "A" * 64, "0" * 63, 0, None)),
    *(((*TRAIN_SHARD, "size_bytes"), size) for size in (0, -1, "1", 1.0, True, None)),
    *((("layout",), layout) for layout in (None, [], {}, 7)),
    *((("splits",), splits) for splits in (None, {"train": None}, {"train": {}}, {"train": []}, 7)),
    *((("inputs",), inputs) for inputs in (None, [None], [{}], [7], 7)),
    *(((*TRAIN_SHARD, "block_crc32"), sums) for sums in ([None] * 3, [-1] * 3, [1 << 32] * 3, [0.0] * 3, ["0"] * 3)),
    *(((*TRAIN_SHARD, "block_bytes"), [size] * 3) for size in (10**18, 10**30, 512.0, math.inf, math.nan, 5121)),
    *(((*TRAIN_SHARD, "size_bytes"), size) for size in (10**18, 10**30, 16383, 16385)),
    *(((*TRAIN_SHARD, "positions"), positions) for positions in (10**30, 300.0, 299.5, math.inf, True)),
    *((("layout", "block_positions"), rows) for rows in (1 << 20, 10**30, 100.0, True)),
    (("layout", "soft"), 0),
    *((("splits", "train", "plies"), plies) for plies in ([550], [550, *[0] * 8], [549, *[0] * 9], [1] * 10**5, None)),
    *((("splits", "train", "blue_wins"), count) for count in (-1, 551, 1.0, None, 10**30)),
    *((("splits", "val", "without_policy"), count) for count in (-1, 2, "1")),
    *((("splits", "train", "games"), count) for count in (-1, 10**30, None)),
    *((("inputs", 0, name), -1) for name in ("size_bytes", "positions", "rejected", "without_game")),
    *((("inputs", 0, "name"), name) for name in (7, None, [])),
    (("inputs", 0, "sha256"), "../../x"),
    *((("sources",), sources) for sources in (None, "games", [7], [None], {"0": "games"})),
    *((("options",), options) for options in (None, [], {"seed": [0]}, {"seed": {}}, {"seed": None})),
    (("format",), "hexshardz"),
    (("splits",), {}),
    (("splits", "test"), None),
    *((("merged",), merged) for merged in (None, [], {}, {"train-000002.tar": parts_of(4, 4)})),
    *((("merged",), {"train-000000.tar": made}) for made in (None, [], [7, 7], ["ab" * 32] * 2, parts_of(300))),
    *((("merged",), {"train-000000.tar": parts_of(*each)}) for each in ((1, 1), (300, 0), (301, -1))),
    (("merged",), {"train-000000.tar": parts_of(1, 299, sha256="../x")}),
]


def test_merged_shards_are_listed_with_what_they_were_made_of_and_in_no_index_without_any(tmp_path):
    index = an_index()
    index.write(tmp_path)
    assert "merged" not in entry_of(tmp_path)
    parts = Part("01" * 32, 1), Part("02" * 32, 249)
    made = replace(index, merged={"train-000001.tar": parts})
    made.write(tmp_path)
    assert read_index(tmp_path) == made
    entry = entry_of(tmp_path)
    assert (index.version, entry["version"], entry["fingerprint"]) == (1, 2, fingerprint(entry))
    assert made.written("train") == ("ab" * 32, "01" * 32, "02" * 32)


@pytest.mark.parametrize(("path", "value"), FORGED, ids=repr)
def test_what_contradicts_itself_is_refused_even_with_a_right_fingerprint(tmp_path, path, value):
    an_index().write(tmp_path)
    forged(tmp_path, set_at(entry_of(tmp_path), path, value))
    with pytest.raises(DataError, match=r"is not (well formed|the index)"):
        read_index(tmp_path)


def test_a_shard_that_is_listed_again_is_refused_even_with_a_right_fingerprint(tmp_path):
    an_index().write(tmp_path)
    entry = entry_of(tmp_path)
    shards = entry["splits"]["train"]["shards"]
    for order in ([0, 1, 1], [0] * 10_000, [1, 0]):
        again = set_at(entry, ("splits", "train", "shards"), [shards[number] for number in order])
        positions = sum(shards[number]["positions"] for number in order)
        forged(tmp_path, set_at(again, ("splits", "train", "plies"), [positions, *[0] * 9]))
        with pytest.raises(DataError, match=r"each once - at `\$.splits.train.shards\[[12]\].name`"):
            read_index(tmp_path)


def test_a_refusal_names_the_field_and_its_place(tmp_path):
    an_index().write(tmp_path)
    forged(tmp_path, set_at(entry_of(tmp_path), ("splits", "train", "shards", 1, "block_crc32"), [None, 1, 2]))
    with pytest.raises(DataError) as damage:
        read_index(tmp_path)
    assert "Expected `int`, got `null` - at `$.splits.train.shards[1].block_crc32[0]`" in damage.value.problem


@pytest.mark.parametrize("name", ["games\udce9", "\x1b[31mgames\n", "é\u2028", "😀"])
def test_names_that_files_may_have_are_read_as_ever(tmp_path, name):
    index = replace(an_index(), sources=(name,), inputs=(replace(an_index().inputs[0], name=name),))
    index.write(tmp_path)
    assert read_index(tmp_path) == index
    assert read_index(tmp_path).fingerprint == fingerprint(entry_of(tmp_path))


def test_a_list_that_would_take_much_memory_is_refused_before_it_is_made(tmp_path, small_machine):
    an_index().write(tmp_path)
    text = json.dumps({**entry_of(tmp_path), "sources": "LONG"}).replace('"LONG"', "[" + "[]," * 40_000_000 + "[]]")
    (tmp_path / NAME).write_text(text)
    source = """
import json, sys
from hexshards.errors import DataError
from hexshards.dataset.index import read_index
try:
    read_index(sys.argv[1])
except DataError as error:
    print(json.dumps({"problem": error.problem}))
"""
    assert "Expected `str`, got `array` - at `$.sources[0]`" in small_machine(source, tmp_path)["problem"]


def test_anything_missing_is_refused_even_with_a_right_fingerprint(tmp_path):
    an_index().write(tmp_path)
    entry = entry_of(tmp_path)
    needed = [("layout",), ("splits",), ("sources",), ("inputs",), ("options",)]
    for owner in (("layout",), TRAIN_SHARD, ("splits", "val"), ("inputs", 0)):
        needed += [(*owner, key) for key in at(entry, owner) if key != "counted"]
    for path in needed:
        forged(tmp_path, without(entry, path))
        with pytest.raises(DataError, match="is not well formed"):
            read_index(tmp_path)
