"""A checkpoint is whole or refused; it is plain torch.save to anyone else."""

from __future__ import annotations

import io
import os
import pickle
import re
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hexshards.errors import DataError
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.checkpointing.schema import RandomStates
from hexshards.training.distributed import ProcessGroup

STATE = {
    "dataset": "abc",
    "options": {"seed": 0, "epochs": 1, "data": "here"},
    "counters": {
        "epoch": 1,
        "mini_epoch": 2,
        "epoch_batches": 4,
        "epoch_samples": 64,
        "mini_batches": 2,
        "mini_samples": 32,
        "samples_seen": 64,
        "finished": True,
    },
    "standing": {"best": 0.5, "checkpoint": "checkpoint_epoch0001_mini0001.pt", "waited": 1, "used_s": 2.5},
    "loader_state": {"epoch": 0, "samples": 64},
    "random_state": {"ranks": [{"cpu": torch.zeros(8, dtype=torch.uint8), "cuda": []}]},
    "metrics": {
        "epoch": 1,
        "mini_epoch": 2,
        "samples_seen": 64,
        "checkpoint": "checkpoint_epoch0001_mini0002.pt",
        "train": {"loss": 0.5},
    },
}
WEIGHTS = {"model_state_dict": {"w": torch.arange(50.0)}}


def written(path: Path) -> Path:
    checkpoint_file.write(path, STATE, trainer_state=WEIGHTS)
    return path


@pytest.fixture
def good(tmp_path) -> Path:
    return written(tmp_path / checkpoint_file.file_name(1, 2))


def test_what_was_written_is_read_back(good):
    state = checkpoint_file.read(good)
    assert torch.equal(state["model_state_dict"]["w"], WEIGHTS["model_state_dict"]["w"])
    assert {name: state[name] for name in ("dataset", "options", "counters")}.items() <= STATE.items()
    assert checkpoint_file.trainer_state(state).keys() == WEIGHTS.keys()


OWN = {"numpy_arrays": [["model_state_dict", "w"], "mine"]}


def test_what_a_trainer_calls_numpy_arrays_stays_its_own_as_in_version_0_1(tmp_path):
    path = tmp_path / checkpoint_file.file_name(1, 2)
    # as 0.1 wrote it, and as it is written now
    sealed(path, {**WEIGHTS, **OWN, "format": 1, **STATE})
    state = checkpoint_file.trainer_state(checkpoint_file.read(path))
    assert state["numpy_arrays"] == OWN["numpy_arrays"] and isinstance(state["model_state_dict"]["w"], torch.Tensor)
    checkpoint_file.write(path, STATE, trainer_state=state)
    assert checkpoint_file.trainer_state(checkpoint_file.read(path)).keys() == state.keys()


def test_a_checkpoint_with_numpy_arrays_has_a_format_that_version_0_1_refuses(tmp_path):
    path = tmp_path / checkpoint_file.file_name(1, 2)
    checkpoint_file.write(path, STATE, trainer_state={**WEIGHTS, "seen": np.arange(3)})
    state = checkpoint_file.read(path)
    assert state["format"] == 2
    assert isinstance(checkpoint_file.trainer_state(state)["seen"], np.ndarray)
    with pytest.raises(ValueError, match="needs itself: numpy_arrays"):
        checkpoint_file.write(path, STATE, trainer_state={**WEIGHTS, **OWN, "seen": np.arange(3)})
    sealed(path, {**WEIGHTS, "format": 2, **STATE, "numpy_arrays": {"w": 1}})
    with pytest.raises(DataError, match="numpy_arrays that cannot be"):
        checkpoint_file.read(path)


@pytest.mark.parametrize("mmap", [False, True])
def test_plain_torch_load_reads_it(good, mmap):
    loaded = torch.load(good, weights_only=True, mmap=mmap)
    assert torch.equal(loaded["model_state_dict"]["w"], WEIGHTS["model_state_dict"]["w"])


def test_a_flipped_bit_in_any_byte_is_noticed(good):
    data = good.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        good.write_bytes(flipped)
        with pytest.raises(DataError):
            checkpoint_file.read(good)


def test_a_file_cut_at_any_length_is_noticed(good):
    data = good.read_bytes()
    for length in range(0, len(data), 37):
        good.write_bytes(data[:length])
        with pytest.raises(DataError):
            checkpoint_file.read(good)


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and no more", "ends without its checksum"),
        (b"hello, world", "begins with b'hello, w'"),
    ],
)
def test_the_error_names_the_file_what_was_found_and_what_to_do(tmp_path, data, finding):
    path = tmp_path / "checkpoint_epoch0001_mini0001.pt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=finding) as error:
        checkpoint_file.read(path)
    assert str(path) in str(error.value) and "Remove it" in str(error.value)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "PWNED"),)

    path = tmp_path / "checkpoint_epoch0001_mini0001.pt"
    buffer = io.BytesIO()
    torch.save({**WEIGHTS, "format": 1, **STATE, "metrics": Payload()}, buffer)
    path.write_bytes(checkpoint_file._sealed(buffer.getvalue()))
    with pytest.raises(DataError, match=r"torch\.load takes it for no checkpoint"):
        checkpoint_file.read(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError):
        checkpoint_file.read(path)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", sorted(checkpoint_file.PARTS))
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, name):
    path = tmp_path / "checkpoint_epoch0001_mini0001.pt"
    checkpoint_file.write(path, {part: value for part, value in STATE.items() if part != name}, trainer_state=WEIGHTS)
    with pytest.raises(DataError, match=name):
        checkpoint_file.read(path)


def sealed(path: Path, state: dict[str, object], **torch_save: bool) -> Path:
    """A file that anybody could make: whatever it holds, its checksum fits."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **torch_save)
    path.write_bytes(checkpoint_file._sealed(buffer.getvalue()))
    return path


def changed(part: str, **values: object) -> dict[str, object]:
    return {**WEIGHTS, "format": 1, **STATE, part: {**STATE[part], **values}}  # type: ignore[dict-item]


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("counters", {name: value}) for name in ("epoch", "samples_seen") for value in (-1, 10**30, "1", 1.0, True)),
        ("counters", {"epoch": 0}),
        ("counters", {"finished": 1}),
        ("counters", {"mini_samples": 65}),
        ("standing", {"best": "good"}),
        ("standing", {"checkpoint": "../../other/checkpoint_epoch0001_mini0001.pt"}),
        ("standing", {"checkpoint": "checkpoint_epoch0001_mini0001.pt\n"}),
        ("standing", {"waited": -1}),
        ("standing", {"used_s": float("nan")}),
        ("standing", {"used_s": torch.zeros(1)}),
        ("metrics", {"checkpoint": "/etc/passwd"}),
        ("metrics", {"epoch": 10**30}),
        ("metrics", {"val": {"loss": ENDLESS}}),
        ("random_state", {"ranks": 7}),
        ("random_state", {"ranks": [3]}),
    ],
    ids=str,
)
def test_plain_parts_that_cannot_be_are_refused_in_a_sentence(tmp_path, part, value):
    path = sealed(tmp_path / "checkpoint_epoch0001_mini0002.pt", changed(part, **value))
    with pytest.raises(DataError, match=rf"holds (a record|{part}) that cannot be: ") as error:
        checkpoint_file.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", sorted(checkpoint_file.PARTS))
def test_parts_of_another_kind_are_refused(tmp_path, part):
    for value in (None, 7, [], torch.zeros(3)):
        path = sealed(tmp_path / "checkpoint_epoch0001_mini0002.pt", {**WEIGHTS, "format": 1, **STATE, part: value})
        with pytest.raises(DataError, match="that cannot be"):
            checkpoint_file.read(path)


def test_a_small_file_whose_records_inflate_is_refused_before_they_do(tmp_path):
    path, buffer = tmp_path / "checkpoint_epoch0001_mini0002.pt", io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"archive/data/{number}", bytes(64 << 20))
    path.write_bytes(checkpoint_file._sealed(buffer.getvalue()))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="compressed records, which may grow to anything"):
        checkpoint_file.read(path)


def test_only_regular_files_are_opened(tmp_path):
    pipe, link = tmp_path / "checkpoint_epoch0001_mini0001.pt", tmp_path / "checkpoint_epoch0001_mini0002.pt"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link):
        with pytest.raises(DataError, match=r"cannot be read \(it is no regular file\)"):
            checkpoint_file.read(path)


def test_a_worker_that_dies_while_a_checkpoint_is_read_is_no_fault_of_the_checkpoint(good):
    dead = "DataLoader worker (pid 5) is killed by signal: Terminated. "

    class Dying(io.BytesIO):
        def readinto(self, into):
            raise RuntimeError(dead)  # as PyTorch does by signal, wherever the program is just then

        read = readinto

    with pytest.raises(RuntimeError, match=re.escape(dead)):
        checkpoint_file._loaded(Dying(good.read_bytes()), good)


def test_a_write_that_fails_leaves_the_checkpoint_before_it_and_no_other_file(good):
    before = good.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError):
            written(good)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert good.read_bytes() == before
    assert list(good.parent.iterdir()) == [good]


def test_a_trainer_may_not_take_a_checkpoints_own_names(tmp_path):
    with pytest.raises(ValueError, match="counters"):
        checkpoint_file.write(tmp_path / "x.pt", STATE, trainer_state={"counters": {}})


def fits(state: dict[str, object], *, dataset: str = "abc", **options: object) -> None:
    given = {**STATE["options"], **options}  # type: ignore[dict-item]
    checkpoint_file.check_fits({"format": 1, **STATE, **state}, dataset=dataset, options=given, where=Path("x.pt"))


def test_another_dataset_other_options_or_another_format_are_told_apart():
    fits({})
    with pytest.raises(DataError, match="dataset abc, not on def"):
        fits({}, dataset="def")
    with pytest.raises(DataError, match="seed was 0, is 7"):
        fits({}, seed=7)
    with pytest.raises(DataError, match="channels was None, is 8"):
        fits({}, channels=8)
    with pytest.raises(DataError, match="format 3, this program reads 1 and 2"):
        fits({"format": 3})


def test_epochs_workers_device_and_paths_may_change():
    fits({}, epochs=5, num_workers=4, device="cuda", resume="never", run="there", data="elsewhere")


def test_names_sort_by_age_and_a_partial_checkpoint_is_older_than_the_whole_one(tmp_path):
    places = [(1, 2, False), (1, 2, True), (1, 10, True), (2, 1, True), (12, 1, True), (12345, 1, True)]
    names = [checkpoint_file.file_name(e, m, partial=not whole) for e, m, whole in places]
    assert names[:2] == ["checkpoint_epoch0001_mini0002_partial.pt", "checkpoint_epoch0001_mini0002.pt"]
    for name in [*reversed(names), "checkpoint_final.pt", "checkpoint_epoch0001_mini0001.pt.7.partial"]:
        (tmp_path / name).touch()
    assert [path.name for path in checkpoint_file.newest_first(tmp_path)] == names[::-1]
    assert [checkpoint_file.place_in_run(tmp_path / name) for name in names] == places


def test_what_is_drawn_with_the_random_state_kept_is_not_missed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with checkpoint_file.random_state_kept():
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)


def test_the_random_state_of_apples_gpu_is_kept_where_there_is_one(tmp_path, monkeypatch):
    state, given = torch.arange(44, dtype=torch.uint8), []
    assert checkpoint_file.random_state().keys() == {"cpu", "cuda"}
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.mps, "set_rng_state", given.append)
    states = checkpoint_file.random_states(ProcessGroup())
    assert states["ranks"][0]["mps"] is state and RandomStates(**states)
    checkpoint_file.set_random_states(states, ProcessGroup())
    assert given == [state]
    with pytest.raises(ValueError, match="no bytes"):
        RandomStates(ranks=[{**states["ranks"][0], "mps": "x"}])
