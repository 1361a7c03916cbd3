from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shlex
import shutil
import sys
import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import zstandard
from helpers.loading import open_loader
from helpers.small_data import dataset
from typer.testing import CliRunner

import hexshards
from hexshards.cli.app import app
from hexshards.conversion.duplicates.count_games import note_games_of_shard
from hexshards.dataset import shard, validation
from hexshards.dataset.leakage import leakage
from hexshards.dataset.shard import write_shard
from hexshards.dataset.validation import check_numbers, check_stones
from hexshards.dataset.validation_compiled import sound as sound_stones
from hexshards.errors import DataError
from hexshards.game.board import MAX_SIDE, MIN_SIDE
from hexshards.game.columns import NO_POLICY, columns, declared, stone_bytes
from hexshards.game.positions import Positions
from hexshards.loading import batching
from hexshards.loading.options import LoaderSpec
from hexshards.loading.shuffle_quality import mixing

SOURCES = 3


@pytest.fixture(params=["NumPy", "compiled"])
def first_look(request, monkeypatch):
    """Stones are looked at by NumPy alone, or by compiled code first."""
    monkeypatch.setattr(validation, "_first_look", [])
    if request.param == "compiled":
        validation.look_first(sound_stones)


# the check and its slow, obvious twin -------------------------------------------------------------------------------


def may_hold(name, number, *, cells, soft):
    """Whether a column may hold a number, said one number at a time."""
    number = float(number)
    if number != number:
        return False
    if name == "policy":
        return 0 <= number <= 1.002 if soft else int(number) in (NO_POLICY, *range(cells))
    if name == "value":
        return 0 <= number <= 1
    if name == "count":
        return number >= 1
    allowed = {"player": (0, 1), "source": range(SOURCES), "ply": range(cells + 1)}
    return int(number) in allowed[name] if name in allowed else number >= -1


def stones_may_be(row, side):
    """Whether one position's packed stones are one or none a cell, said bit by bit."""
    bits = [byte >> place & 1 for byte in row.tolist() for place in range(7, -1, -1)]
    cells = side * side
    return not any(bits[cell] and bits[cells + cell] for cell in range(cells)) and not any(bits[2 * cells :])


def agrees(check, holds, message):
    """The check raises just where the twin says no, and names what is wrong."""
    if holds:
        check()
    else:
        with pytest.raises(DataError, match=message):
            check()


KINDS = {soft: {each.name: each for each in declared(soft=soft, counted=True)} for soft in (False, True)}
NUMBERS = [-(2**31), -300, -2, -1, -0.5, -0.0, 0, 0.25, 1, 1.001, 1.5, 2, 3, 24, 25, 26, 127, 128, 2**15, 2**31]
NUMBERS += [np.nan, -np.nan, np.inf, -np.inf, 5e-324, 6e-8]


@pytest.mark.parametrize("soft", [False, True])
def test_a_number_is_refused_just_where_its_column_may_not_hold_it(soft):
    side, tried = 5, 0
    for name, (dtype, shape) in columns(side, soft=soft, counted=True).items():
        for number in NUMBERS:
            with np.errstate(over="ignore"):
                if name == "stones" or (dtype.kind != "f" and not _fits(number, dtype)):
                    continue
                column = np.ones((4, *shape), dtype)
                column[(2, *(3,) * len(shape))] = number
            agrees(
                lambda name=name, column=column: check_numbers(
                    {name: column}, KINDS[soft], side=side, sources=SOURCES, where="a"
                ),
                may_hold(name, column[(2, *(3,) * len(shape))], cells=side * side, soft=soft),
                f"^a, {name}: row 2 holds ",
            )
            tried += 1
    assert tried > 100


def _fits(number, dtype):
    return number == number and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max and number == int(number)


def test_a_signalling_nan_is_refused_without_a_warning():
    column = np.array([0, 0x7F800001], dtype=np.uint32).view(np.float32)
    with pytest.raises(DataError, match=r"^a, value: row 1 holds nan, where it must be 0 to 1\. "):
        check_numbers({"value": column}, KINDS[False], side=5, sources=1, where="a")


@pytest.mark.parametrize("side", range(MIN_SIDE, MAX_SIDE + 1))
def test_two_stones_on_a_cell_are_refused_on_every_cell_and_no_others_are(side, first_look):
    random, cells, width = np.random.default_rng(side), side * side, stone_bytes(side)
    for rows in (1, 2, 5, 8):
        own = random.integers(0, 3, size=(rows, cells))
        sound = np.packbits(np.concatenate([own == 1, own == 2], axis=1), axis=1)
        assert all(stones_may_be(row, side) for row in sound)
        check_stones(sound, side=side, where="a")
        for cell in {0, 1, 6, 7, 8, cells // 2, cells - 2, cells - 1, *random.integers(0, cells, size=4).tolist()}:
            row = int(random.integers(rows))
            bits = np.unpackbits(sound, axis=1)
            bits[row, [cell, cells + cell]] = 1
            with pytest.raises(DataError, match=f"^a, stones: row {row} has two stones on cell {cell}\\. "):
                check_stones(np.packbits(bits, axis=1), side=side, where="a")
        for bit in range(2 * cells, 8 * width):
            spoiled = sound.copy()
            spoiled[rows - 1, -1] |= 1 << (8 * width - 1 - bit)
            with pytest.raises(DataError, match=f"^a, stones: row {rows - 1} has bits behind its last cell"):
                check_stones(spoiled, side=side, where="a")


@pytest.mark.parametrize("side", [3, 4, 5, 13, 19])
def test_random_bits_are_refused_just_where_the_twin_refuses_them(side, first_look):
    random = np.random.default_rng(side)
    for chance in (0.01, 0.05, 0.3):
        for _ in range(30):
            stones = np.packbits(random.random((3, 8 * stone_bytes(side))) < chance, axis=1)
            holds = all(stones_may_be(row, side) for row in stones)
            agrees(lambda stones=stones: check_stones(stones, side=side, where="a"), holds, "^a, stones: row ")
            assert sound_stones(stones, side) == holds


@pytest.mark.parametrize("rows", [0, 1, 8191, 8192, 8193, 20_000])
def test_stones_are_looked_at_in_blocks_of_any_length(rows, first_look):
    stones = np.zeros((rows, stone_bytes(5)), dtype=np.uint8)
    check_stones(stones, side=5, where="a")
    for row in {0, rows // 2, rows - 1} if rows else ():
        spoiled = stones.copy()
        spoiled[row] = np.packbits(np.isin(np.arange(56), [7, 25 + 7]))
        with pytest.raises(DataError, match=f"^a, stones: row {row} has two stones on cell 7\\. "):
            check_stones(spoiled, side=5, where="a")


def test_a_loader_that_expands_with_compiled_code_looks_at_stones_with_it(sound, monkeypatch):
    batching.compile_reading()  # so that it is there, as in all processes but a machine's first
    monkeypatch.setattr(validation, "_first_look", [])
    open_loader(sound)
    assert validation._first_look == [sound_stones]


# every reader of a dataset ------------------------------------------------------------------------------------------

ILLEGAL = {
    "a move beyond the board": ("policy", 25),
    "a move far beyond it": ("policy", 2**15 - 1),
    "a negative move": ("policy", -2),
    "a third player": ("player", 2),
    "a value above 1": ("value", 1.5),
    "a negative value": ("value", -0.25),
    "no number": ("value", np.nan),
    "infinity": ("value", np.inf),
    "two stones on a cell": ("stones", 255),
    "a source that is not listed": ("source", 3),
    "the last source there could be": ("source", 2**32 - 1),
    "more stones than cells": ("ply", 26),
    "fewer stones than none": ("ply", -1),
    "a line below -1": ("game", -2),
    "a length below -1": ("plies", -2),
    "a tier below -1": ("tier", -2),
}
"""What a block of the first shard holds in its row 3, under checksums that are right."""

READ_BY_LOADERS = [what for what, (name, _) in ILLEGAL.items() if name in ("policy", "player", "value", "stones")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("contents"), games=30)


def blocks_of(path):
    """The columns of each block of a shard, read with tarfile and NumPy alone."""
    blocks = {}
    with tarfile.open(path) as tar:
        for member in tar:
            number, name, *_ = member.name.split(".")
            data = zstandard.ZstdDecompressor().decompress(tar.extractfile(member).read())
            blocks.setdefault(number, {})[name] = np.load(io.BytesIO(data))
    return list(blocks.values())


def spoilt(sound, folder, what, *, block=2):
    """A copy of a dataset with an illegal number in row 3 of a block, and an index that fits."""
    shutil.copytree(sound, folder)
    index = hexshards.read_index(folder)
    shard, *others = index.splits["train"].shards
    blocks = blocks_of(folder / shard.name)
    name, number = ILLEGAL[what]
    blocks[block][name][3] = number
    positions = [Positions(side=index.side, **block) for block in blocks]
    made = write_shard(folder / shard.name, positions, layout=index.layout)
    changed = replace(index.splits["train"], shards=(made, *others))
    replace(index, splits={**index.splits, "train": changed}).write(folder)
    return folder


def complaint(what, block=2):
    return rf"train-000000\.tar, block 00000{block}, {ILLEGAL[what][0]}: row 3 "


@pytest.mark.parametrize("what", ILLEGAL)
def test_verify_reports_an_illegal_column_by_file_block_and_row(sound, tmp_path, what):
    (problem,) = hexshards.verify(spoilt(sound, tmp_path / "data", what)).problems
    assert re.search(complaint(what), str(problem))
    assert str(problem).isprintable() and str(problem).endswith("or convert again")


@pytest.mark.parametrize("what", READ_BY_LOADERS)
def test_a_loader_raises_at_an_illegal_column_or_skips_its_block(sound, tmp_path, what):
    data = spoilt(sound, tmp_path / "data", what)
    with pytest.raises(DataError, match=complaint(what)):
        list(open_loader(data))
    loader, whole = open_loader(data, on_error="skip"), open_loader(sound)
    for _ in range(2):  # in the second epoch as well, whatever is remembered of the first
        batches = list(loader)
        assert [len(batch.value) for batch in batches] == [len(batch.value) for batch in whole]
        assert all(((part >= 0) & (part <= 1)).all() for batch in batches for part in batch)
    assert (loader.skipped.blocks, loader.skipped.positions) == (2, 32)


def test_workers_raise_and_skip_alike(sound, tmp_path):
    what = "a move beyond the board"
    data = spoilt(sound, tmp_path / "data", what)
    with pytest.raises(DataError, match=complaint(what)):
        list(open_loader(data, num_workers=1))
    loader = open_loader(data, num_workers=1, on_error="skip")
    given = [batch.board for batch in loader]
    assert all(map(torch.equal, given, [batch.board for batch in open_loader(data, on_error="skip")]))
    assert loader.skipped.blocks == 1


READERS = {
    "resident": ("a move beyond the board", lambda data: list(hexshards.loader(data, batch_size=32, resident=True))),
    "a mixture": ("no number", lambda data: list(hexshards.loader({data: 1, f"{data}/../other": 1}, batch_size=32))),
    "a filter": ("more stones than cells", lambda data: hexshards.loader(data, where="ply=1..")),
    "mixing": ("a source that is not listed", lambda data: mixing(data, LoaderSpec(batch_size=32))),
    "leakage": ("two stones on a cell", lambda data: leakage(data)),
    "append": ("the last source there could be", lambda data: append_to(data)),
    "a pipeline": ("a negative move", lambda data: list(hexshards.pipeline(str(data / "train-000000.tar")))),
    "a pipeline without an index": ("a value above 1", lambda data: list(hexshards.pipeline(without_index(data)))),
}


def append_to(data):
    shard = hexshards.read_index(data).splits["train"].shards[0]
    (data.parent / "scratch").mkdir()
    note_games_of_shard(
        shard, folder=data, scratch=data.parent / "scratch", index=hexshards.read_index(data), sketched=0
    )


def without_index(data):
    return str(shutil.copy(data / "train-000000.tar", data.parent / "train-000000.tar"))


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_a_block_names_what_it_may_not_hold(sound, tmp_path, reader):
    what, read = READERS[reader]
    if reader == "a mixture":
        shutil.copytree(sound, tmp_path / "other")
    data = spoilt(sound, tmp_path / "data", what)
    with pytest.raises(DataError, match=complaint(what)):
        read(data)


def test_show_names_what_a_block_may_not_hold(sound, tmp_path):
    data = spoilt(sound, tmp_path / "data", "a source that is not listed", block=0)
    shown = CliRunner().invoke(app, ["show", str(data)])
    assert shown.exit_code == 1
    assert re.search(complaint("a source that is not listed", block=0), shown.stderr)
    assert len(shown.stderr.splitlines()) == 1


# tars that are none -------------------------------------------------------------------------------------------------


def member(name, data=b"", *, size=None, kind=tarfile.REGTYPE, link=""):
    """A member as bytes; ``size`` is what its header claims."""
    head = tarfile.TarInfo(name)
    head.size, head.type, head.linkname = len(data), kind, link
    complaint = bytearray(head.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        complaint[124:136] = size
        complaint[148:156] = b" " * 8
        complaint[148:156] = b"%06o\0 " % sum(complaint[:512])
    return bytes(complaint) + data + bytes(-len(data) % 512)


TARS = {
    "nothing": b"",
    "a member and no end": member("000000.player.npy", b"x"),
    "nothing of a tar": b"no tar at all " * 99,
    "the head of a gzip file": b"\x1f\x8b\x08" + bytes(600),
    "half a header": member("000000.player.npy")[:300],
    "a wrong checksum": b"1" + member("000000.player.npy")[1:],
    "a member cut short": member("000000.player.npy", b"x" * 900)[:1000],
    "a claim of eight gigabytes": member("000000.player.npy", b"x" * 512, size=b"77777777777\0"),
    "a claim of 10^28 bytes": member("000000.player.npy", b"x" * 512, size=b"\x80" + b"\x7f" * 11),
    "a negative size": member("000000.player.npy", b"x" * 512, size=b"\xff" * 11 + b"\x00"),
    "a size that is no number": member("000000.player.npy", b"x" * 512, size=b"four \0\0\0\0\0\0\0"),
    "a name twice": member("000000.player.npy", b"x") * 2,
    "an extended header that never ends": member("000000.player.npy", size=b"77777777777\0", kind=tarfile.XHDTYPE),
    "a name that is no text": b"\xff" + member("000000.player.npy")[1:],
}


@pytest.mark.parametrize("tar", TARS)
def test_a_pipeline_names_the_shard_that_is_no_tar_in_a_sentence(tmp_path, tar):
    path = tmp_path / "train-000000.tar"
    path.write_bytes(TARS[tar])
    with pytest.raises(DataError) as raised:
        list(hexshards.pipeline(str(path)))
    assert str(raised.value).startswith(f"{path}")
    assert len(str(raised.value).splitlines()) == 1 and len(str(raised.value)) < 600


def test_a_pipeline_names_a_shard_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"train-000000\.tar: the shard is missing"):
        list(hexshards.pipeline(str(tmp_path / "train-000000.tar")))


def test_a_pipeline_names_a_shard_that_is_a_folder(tmp_path):
    (tmp_path / "train-000000.tar").mkdir()
    with pytest.raises(DataError, match=r"train-000000\.tar: cannot be read \(Is a directory\)"):
        list(hexshards.pipeline(str(tmp_path / "train-000000.tar")))


@pytest.mark.skipif(shutil.which("gunzip") is None, reason="without gunzip A PIPE THAT UNPACKS IS NOT CHECKED")
def test_a_tar_that_was_compressed_as_a_whole_comes_through_a_pipe(sound, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((sound / "train-000000.tar").read_bytes()))
    given = list(hexshards.pipeline(f"pipe:gunzip -c {shlex.quote(str(tmp_path / 'a.tar.gz'))}"))
    assert sum(len(batch.value) for batch in given) == 96


@pytest.mark.skipif(os.name != "posix", reason="it runs a shell")
def test_members_without_end_are_not_gathered_for_ever(monkeypatch):
    monkeypatch.setattr(shard, "MAX_BLOCK_BYTES", 1 << 20)
    script = "import sys, itertools, tarfile\nfor n in itertools.count():\n"
    script += " sys.stdout.buffer.write(tarfile.TarInfo(f'000000.x{n}').tobuf())"
    with pytest.raises(DataError, match="and a block at most 1,048,576"):
        list(hexshards.pipeline(f"pipe:{shlex.quote(sys.executable)} -c {shlex.quote(script)} 2>/dev/null"))


OPENED = []
"""Paths that were opened while ``listening``."""


@pytest.fixture(scope="module")
def listening():
    heard = {"on": True}
    sys.addaudithook(lambda event, given: heard["on"] and event == "open" and OPENED.append(str(given[0])))
    yield
    heard["on"] = False


@pytest.mark.parametrize("reader", ["loader", "verify", "pipeline", "pipeline without an index"])
def test_names_of_members_open_and_write_nothing_outside(sound, tmp_path, listening, reader):
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "000000.stones.npy.zst"
    secret.write_bytes(b"secret")
    data = shutil.copytree(sound, tmp_path / "data")
    index = hexshards.read_index(data)
    first, *others = index.splits["train"].shards
    whole = (data / first.name).read_bytes()
    hostile = [member(str(secret), b"x"), member(f"../outside/{secret.name}", b"x")]
    hostile += [member("../outside/new.npy", b"x"), member("..\\outside\\new.npy", b"x"), member("\x1b[2J", b"x")]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        hostile += [
            member("000000.link.npy", kind=kind, link=each) for each in (str(secret), f"../outside/{secret.name}")
        ]
    block = whole[: first.block_bytes[0]] + b"".join(hostile)
    (data / first.name).write_bytes(block + whole[first.block_bytes[0] :])
    made = replace(
        first,
        size_bytes=first.size_bytes + len(b"".join(hostile)),
        sha256=hashlib.sha256((data / first.name).read_bytes()).hexdigest(),
        block_bytes=(len(block), *first.block_bytes[1:]),
        block_crc32=(zlib.crc32(block), *first.block_crc32[1:]),
    )
    split = replace(index.splits["train"], shards=(made, *others))
    replace(index, splits={**index.splits, "train": split}).write(data)
    OPENED.clear()
    if reader == "loader":
        assert sum(len(batch.value) for batch in open_loader(data)) == index.splits["train"].positions
    elif reader == "verify":
        assert hexshards.verify(data).problems == ()
    else:
        path = data / first.name if reader == "pipeline" else without_index(data)
        with pytest.raises(DataError, match=r"block 00000[01]"):
            list(hexshards.pipeline(str(path)))
    assert any(path.endswith(first.name) for path in OPENED)
    assert [path for path in OPENED if "outside" in path] == []
    assert [path.name for path in outside.iterdir()] == [secret.name]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["data", "outside"]
