from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
import webdataset
from helpers.small_data import columns_of, dataset

import hexshards

# webdataset leaves the tars it has read to the garbage collector, where "error" finds them
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset for each codec, of the same positions."""
    folder = tmp_path_factory.mktemp("webdataset")
    return {codec: dataset(folder / codec, codec=codec) for codec in ("none", "zstd")}


def urls(folder, split="train"):
    return [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]


def joined(samples):
    """Columns of all blocks, and the blocks' keys."""
    samples = list(samples)
    names = [name for name in samples[0] if not name.startswith("__")]
    keys = [(os.path.basename(sample["__url__"]), sample["__key__"]) for sample in samples]
    return keys, {name.split(".")[0]: np.concatenate([sample[name] for sample in samples]) for name in names}


def assert_all_there(samples, folder, split="train"):
    keys, delivered = joined(samples)
    index = hexshards.read_index(folder)
    shards = index.splits[split].shards
    assert keys == [(shard.name, f"{block:06d}") for shard in shards for block in range(len(shard.block_bytes))]
    expected = columns_of(folder, split)
    assert delivered.keys() == expected.keys()
    for name, column in expected.items():
        assert delivered[name].dtype == column.dtype
        assert np.array_equal(delivered[name], column)


@pytest.mark.parametrize("split", ["train", "val"])
def test_stock_webdataset_reads_uncompressed_shards_with_nothing_of_ours(data, split):
    pipeline = webdataset.WebDataset(urls(data["none"], split), shardshuffle=False).decode()
    assert_all_there(pipeline, data["none"], split)


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_handler_lets_stock_webdataset_read_compressed_shards(data, split):
    pipeline = webdataset.WebDataset(urls(data["zstd"], split), shardshuffle=False).decode(hexshards.decode_column)
    assert_all_there(pipeline, data["zstd"], split)


def test_the_handler_reads_uncompressed_shards_too(data):
    pipeline = webdataset.WebDataset(urls(data["none"]), shardshuffle=False).decode(hexshards.decode_column)
    assert_all_there(pipeline, data["none"])


def test_workers_of_a_webloader_together_find_every_block_once(data):
    pipeline = webdataset.WebDataset(urls(data["zstd"]), shardshuffle=False).decode(hexshards.decode_column)
    loader = webdataset.WebLoader(pipeline, batch_size=None, num_workers=2)
    samples = sorted(loader, key=lambda sample: (os.path.basename(sample["__url__"]), sample["__key__"]))
    assert_all_there(({n: np.asarray(v) if n[0] != "_" else v for n, v in s.items()} for s in samples), data["zstd"])


def test_tar_lists_the_members_of_a_shard(data):
    listed = subprocess.run(["tar", "tf", urls(data["zstd"])[0]], capture_output=True, text=True, check=True).stdout
    names = ["stones", "policy", "player", "value", "source", "game", "ply", "plies", "tier"]
    assert listed.split() == [f"{block:06d}.{name}.npy.zst" for block in range(6) for name in names]


def test_the_handler_leaves_other_members_alone():
    assert hexshards.decode_column("000000.stones.npy", b"") is None


def test_a_member_that_claims_a_gigabyte_is_refused_before_anything_is_allocated():
    # a zstd frame whose header claims 2 GiB: magic, descriptor (8-byte size, single segment), size, one empty block
    frame = bytes.fromhex("28b52ffd e0") + (2 << 30).to_bytes(8, "little") + bytes.fromhex("010000")
    with pytest.raises(ValueError, match="claims 2,147,483,648 bytes, more than 1,073,741,824"):
        hexshards.decode_column("000000.stones.npy.zst", frame)
