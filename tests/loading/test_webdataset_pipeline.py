from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import torch
import webdataset
from helpers.small_data import columns_of, dataset, images, rows_of, samples_of
from helpers.small_server import serving

import hexshards
from hexshards.dataset.codec import encode
from hexshards.dataset.options import SUFFIXES
from hexshards.errors import DataError

# webdataset leaves the tars it has read to the garbage collector, where "error" finds them
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset for each codec, of the same positions."""
    folder = tmp_path_factory.mktemp("pipeline")
    return {codec: dataset(folder / codec, codec=codec) for codec in ("none", "zstd")}


@pytest.fixture(scope="module")
def rows(data):
    return Counter(images(*sample)[0] for sample in samples_of(data["zstd"], "train"))


@pytest.fixture
def copy(data, tmp_path):
    return shutil.copytree(data["zstd"], tmp_path / "copy")


def urls(folder, split="train"):
    return [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]


def opened(folder, **options):
    return hexshards.pipeline(urls(folder), **{"batch_size": 32, "augment": "none", "buffer_positions": 200, **options})


def given(batches):
    return [row for batch in batches for row in rows_of(batch)]


# what comes out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_it_is_a_stock_pipeline_of_the_loaders_batches(data, rows, codec):
    pipe = opened(data[codec])
    assert isinstance(pipe, webdataset.DataPipeline)
    batches = list(pipe)
    assert [len(batch.value) for batch in batches] == [32] * 34 + [29]
    assert batches[0].board.shape == (32, 3, 5, 5)
    assert batches[0].policy.shape == (32, 25)
    assert Counter(given(batches)) == rows


def test_without_shuffling_it_gives_the_order_of_the_dataset(data):
    assert given(opened(data["zstd"], shuffle=False)) == [images(*s)[0] for s in samples_of(data["zstd"], "train")]


def test_each_epoch_has_an_order_of_its_own_that_seed_and_number_name(data, rows):
    pipe = opened(data["zstd"])
    epochs = [given(pipe) for _ in range(3)]
    assert all(Counter(epoch) == rows for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert given(opened(data["zstd"], epoch=2)) == epochs[2]
    assert given(opened(data["zstd"], seed=1)) not in epochs


def test_positions_are_mixed_over_the_buffer_and_not_beyond_it(data):
    places = {image: at for at, image in enumerate(images(*s)[0] for s in samples_of(data["zstd"], "train"))}
    alone = [images(*s)[0] for s in samples_of(data["zstd"], "train")]
    small = given(hexshards.pipeline(urls(data["zstd"])[:4], batch_size=32, augment="none", buffer_positions=64))
    large = given(hexshards.pipeline(urls(data["zstd"])[:4], batch_size=32, augment="none", buffer_positions=10_000))

    def neighbours(order):
        """How many positions come right after the one they follow in the dataset."""
        return sum(places[one] + 1 == places[two] for one, two in pairwise(order))

    assert neighbours(alone) > 900
    assert neighbours(large) < neighbours(small) < 60


def test_random_symmetries_show_every_position_once_and_all_four_alike(data):
    shown, seen = Counter(), Counter()
    for batch in opened(data["zstd"], augment="random"):
        for board, policy, value in zip(*(part.numpy() for part in batch), strict=True):
            forms = images(board, policy.reshape(5, 5), value[0])
            seen[min(forms)] += 1
            shown[forms.index(min(forms))] += 1
    assert seen == Counter(min(images(*sample)) for sample in samples_of(data["zstd"], "train"))
    # of 1,117 each symmetry shows 279, give or take five standard deviations of 14
    assert all(abs(count - 1117 / 4) < 75 for count in shown.values())


# workers and nodes --------------------------------------------------------------------------------------------------


def test_two_workers_of_a_webloader_find_every_position_once_in_every_epoch(data, rows):
    loader = webdataset.WebLoader(opened(data["zstd"]), batch_size=None, num_workers=2)
    epochs = [given(hexshards.Batch(*batch) for batch in loader) for _ in range(3)]
    assert all(Counter(epoch) == rows for epoch in epochs)
    # a worker process lives for one epoch, and still knows which it is in
    assert len(set(map(tuple, epochs))) == 3


def test_nodes_share_the_shards_of_every_epoch(data, rows, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    pipes, shares = [opened(data["zstd"]) for _ in range(2)], []
    for _ in range(2):
        epoch = []
        for rank, pipe in enumerate(pipes):
            monkeypatch.setenv("RANK", str(rank))
            epoch.append(Counter(given(pipe)))
        assert epoch[0] + epoch[1] == rows
        shares.append(epoch[0])
    assert shares[0] != shares[1]


# composing ----------------------------------------------------------------------------------------------------------


def test_users_compose_their_own(data, rows):
    stones = opened(data["zstd"]).map(lambda batch: batch.board[:, :2].sum(dim=(1, 2, 3)))
    assert int(torch.cat(list(stones)).sum()) == int(columns_of(data["zstd"], "train")["ply"].sum())
    full = opened(data["zstd"]).select(lambda batch: len(batch.value) == 32)
    assert len(list(full)) == 34


def test_single_positions_can_be_chosen_and_batched_later(data):
    late = opened(data["zstd"], batch_size=None).select(lambda one: one.board[:2].sum() >= 10)
    sizes = [len(value) for _, _, value in late.batched(50)]
    assert sum(sizes) == int((columns_of(data["zstd"], "train")["ply"] >= 10).sum())
    assert set(sizes[:-1]) == {50}


def test_random_mix_draws_from_several_pipelines(data, rows):
    mix = webdataset.RandomMix([opened(data["zstd"]), opened(data["none"])], longest=True)
    assert Counter(given(mix)) == rows + rows


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset reads http with curl: NOT CHECKED")
@pytest.mark.parametrize("index", [None, "beside"])
def test_pipes_and_http_are_read_as_webdataset_reads_them(data, rows, index):
    folder = data["zstd"]
    with serving(folder.parent) as server:
        for prefix in (f"pipe:cat {folder}", f"{server.url}/data"):
            samples = hexshards.pipeline(
                [f"{prefix}/{path.name}" for path in sorted(folder.glob("train-*.tar"))],
                batch_size=32,
                augment="none",
                index=index and folder,
            )
            assert Counter(given(samples)) == rows


# damage -------------------------------------------------------------------------------------------------------------


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_by_the_index_beside_the_shards(copy):
    shard = hexshards.read_index(copy).splits["train"].shards[3]
    flip(copy / shard.name, sum(shard.block_bytes[:4]) + 520)
    with pytest.raises(DataError, match=r"train-000003\.tar, block 000004: differs from what the index says"):
        list(opened(copy))


@pytest.mark.parametrize("blocks", [5, 6])
def test_a_shard_cut_between_blocks_is_found_though_tar_hides_it(copy, blocks):
    shard = hexshards.read_index(copy).splits["train"].shards[3]
    path = copy / shard.name
    path.write_bytes(path.read_bytes()[: sum(shard.block_bytes[:blocks])] + bytes(1024))
    if blocks == 6:
        assert len(list(opened(copy))) == 35
        return
    with pytest.raises(DataError, match=r"train-000003\.tar: ends after 5 of 6 blocks"):
        list(opened(copy))


def test_a_block_that_is_not_there_is_missed_without_an_index_too(copy):
    shard = hexshards.read_index(copy).splits["train"].shards[3]
    (copy / "index.json").unlink()
    whole = (copy / shard.name).read_bytes()
    start, end = sum(shard.block_bytes[:2]), sum(shard.block_bytes[:3])
    (copy / shard.name).write_bytes(whole[:start] + whole[end:])
    with pytest.raises(DataError, match=r"train-000003\.tar, block 000002: is missing, 000003 comes next"):
        list(opened(copy))


SPOILED = {
    "fewer values": {"value": np.zeros(15, dtype=np.float32)},
    "a value beyond 1": {"value": np.full(16, 2, dtype=np.float32)},
    "no number": {"value": np.full(16, np.nan, dtype=np.float32)},
    "a cell beyond the board": {"policy": np.full(16, 25, dtype=np.int16)},
    "a third player": {"player": np.full(16, 2, dtype=np.uint8)},
    "no boards": {"stones": np.zeros((16, 100), dtype=np.uint8)},
    "another type": {"stones": np.zeros((16, 7), dtype=np.int8)},
    "nothing": {"player": None},
}


@pytest.mark.parametrize("spoiled", SPOILED)
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_columns_that_are_no_positions_are_refused_without_an_index(tmp_path, spoiled, codec):
    sound = {
        "stones": np.zeros((16, 7), dtype=np.uint8),
        "policy": np.zeros(16, dtype=np.int16),
        "player": np.zeros(16, dtype=np.uint8),
        "value": np.zeros(16, dtype=np.float32),
    }
    for columns in (sound, {**sound, **SPOILED[spoiled]}):
        with tarfile.open(tmp_path / "any.tar", "w") as tar:
            for name, column in columns.items():
                if column is not None:
                    member = tarfile.TarInfo(f"000000.{name}{SUFFIXES[codec]}")
                    data = encode(column, codec=codec)
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))
        pipe = hexshards.pipeline(str(tmp_path / "any.tar"))
        if columns is sound:
            assert [len(batch.value) for batch in pipe] == [16]
        else:
            with pytest.raises(DataError, match=r"any\.tar, block 000000"):
                list(pipe)


def test_a_shard_of_another_dataset_is_not_taken_for_one_of_the_index(data, tmp_path):
    shutil.copy(urls(data["zstd"])[0], tmp_path / "train-000099.tar")
    with pytest.raises(DataError, match=r"train-000099\.tar: is no shard of the index"):
        list(hexshards.pipeline(str(tmp_path / "train-000099.tar"), index=data["zstd"]))


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"augment": "all"}, "augment must be one of"), ({"batch_size": 0}, "batch_size must be at least 1")],
)
def test_what_it_cannot_do_is_refused(data, options, fault):
    with pytest.raises(ValueError, match=fault):
        opened(data["zstd"], **options)


# other columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [True, False])
def test_columns_that_are_asked_for_come_as_a_fourth_part(data, index, tmp_path):
    folder = data["zstd"] if index else shutil.copytree(data["zstd"], tmp_path / "bare")
    if not index:
        (folder / "index.json").unlink()
    asked = ("ply", "plies_left", "weight")
    batches = list(opened(folder, shuffle=False, columns=asked))
    held = columns_of(folder, "train")
    columns = {name: torch.cat([batch.columns[name] for batch in batches]).tolist() for name in asked}
    assert columns["ply"] == held["ply"].tolist()
    assert columns["plies_left"] == (held["plies"] - held["ply"]).tolist()
    assert set(columns["weight"]) == {1.0}
    assert given(batch[:3] for batch in batches) == given(opened(folder, shuffle=False))


def test_mixed_and_turned_columns_stay_with_their_positions(data):
    mixed = list(opened(data["none"], augment="random", columns=["ply"], batch_size=25))
    assert all(batch.columns["ply"].tolist() == batch.board[:, :2].sum(dim=(1, 2, 3)).tolist() for batch in mixed)
    (first, *_) = opened(data["none"], batch_size=None, columns=["ply"])
    assert int(first.columns["ply"]) == int(first.board[:2].sum())


def test_a_third_partys_column_needs_an_index_that_describes_it(data):
    with pytest.raises(ValueError, match="there is no x_strength"):
        opened(data["none"], columns=["x_strength"])
