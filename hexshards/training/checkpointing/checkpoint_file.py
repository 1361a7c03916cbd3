"""Checkpoint file: everything needed to go on, in one file that is whole or is refused.

The file is what ``torch.save`` writes, with the SHA-256 of all of it in the zip archive's comment, so that
``torch.load(path, weights_only=True)`` reads it anywhere. The zip's own checksums are not enough: of 5,609
flipped bits, one in each byte of a small checkpoint, 109 changed or broke what is loaded unseen by
``zipfile.testzip``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from hexshards.dataset.filters import Filter
from hexshards.errors import DataError, Misused, escaped, printable, without_secrets
from hexshards.loading.selection.replay_window import ReplayWindow
from hexshards.loading.workers import tells_of_death
from hexshards.options import as_recorded, may_change, unrecorded_defaults
from hexshards.storage.files import Stamp, inflating, open_regular, stamp_of, write_whole
from hexshards.training.checkpointing.plain_values import plain_state, with_arrays
from hexshards.training.checkpointing.schema import CHECKPOINT_NAME, SCHEMA, problem_of
from hexshards.training.distributed import ProcessGroup
from hexshards.training.options import TRAIN, TrainSpec
from hexshards.units import show_bytes

FORMAT, WITH_ARRAYS = 1, 2
"""Versions of the layout. The second is written only where the trainer's state holds NumPy arrays, which version 0.1
would have taken for tensors; without them what ARRAYS names is the trainer's own."""


class Unopened(DataError):
    """A checkpoint that may be good could not be read: no right to it, or a disk that fails."""


PARTS = tuple(SCHEMA)
"""Names at the top level beside ``format`` and the trainer's own state."""

ARRAYS = "numpy_arrays"
"""At the top level too, of format WITH_ARRAYS: the paths of tensors that the trainer gave as NumPy arrays."""

EVERY_TRAINING = frozenset({"optimizer", "learning_rate", "mini_epoch_samples", "augment"})
"""Options that tell a run of ``train``, which records all that its version knows, from one of the caller's own."""

OF_THE_DATASET = frozenset({"side"})
"""Recorded beside the options for those that read a checkpoint alone; the dataset's fingerprint says it too."""

PARTIAL = "_partial"
"""Marks the checkpoint of an interrupted mini-epoch; gone once the whole mini-epoch has its own."""

_NAME = re.compile(CHECKPOINT_NAME)
_SEAL = b"hexshards sha256 "
_SEAL_BYTES = len(_SEAL) + 64
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22
_PIECE_BYTES = 1 << 20


def file_name(epoch: int, mini_epoch: int, *, partial: bool = False) -> str:
    """Name of a checkpoint; epoch and mini-epoch count from 1, the latter anew in each epoch."""
    return f"checkpoint_epoch{epoch:04d}_mini{mini_epoch:04d}{PARTIAL if partial else ''}.pt"


def place_in_run(path: Path) -> tuple[int, int, bool] | None:
    """(epoch, mini-epoch, whole) by a file's name, which orders checkpoints by age; None for other files."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2]), match[3] is None) if match else None


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by name; a folder that does not exist holds none."""
    placed = [(at, path) for path in folder.glob("checkpoint_*.pt") if (at := place_in_run(path))]
    return [path for _, path in sorted(placed, reverse=True)]


def write(path: Path, state: Mapping[str, Any], *, trainer_state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; a write that fails leaves what was there.

    state: the values of PARTS. The trainer's state joins them at the top level. What both hold is made plain (see
    plain_values). Raises NotPlain, before anything is written, for what could not be read back.
    """
    trained, arrays = plain_state(trainer_state, what="the trainer's state_dict()")
    own = {"format": WITH_ARRAYS, ARRAYS: arrays, **state} if arrays else {"format": FORMAT, **state}
    if taken := sorted(own.keys() & trainer_state.keys()):
        raise ValueError(
            f"the trainer's state uses names that a checkpoint needs itself: {', '.join(map(escaped, taken))}"
        )
    own, _ = plain_state(own, what="the run")
    buffer = io.BytesIO()
    torch.save({**trained, **own}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _sealed(buffer.getvalue())
    _check_space(path.parent, len(data))
    write_whole(path, data)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint: its state, tensors on the CPU. Raises DataError when it is not what was written.

    Nothing is held that the file itself does not bear out: its checksum is compared piece by piece, and no record in it
    may be compressed.
    """
    try:
        with open_regular(path) as file:
            _check_seal(file, path)
            if problem := inflating(file):
                raise _refused(problem, path)
            state = _loaded(file, path)
    except OSError as error:
        fix = "Make it readable, or put back a good copy"
        raise Unopened(f"cannot be read ({error.strerror})", where=str(path), fix=fix) from None
    if not isinstance(state, dict) or type(state.get("format")) is not int:
        raise _refused("is no checkpoint of hexshards", path)
    if state["format"] in (FORMAT, WITH_ARRAYS) and (problem := problem_of(state)):
        raise _refused(problem, path)
    if state["format"] == WITH_ARRAYS and not _are_paths(state.get(ARRAYS)):
        raise _refused(f"holds {ARRAYS} that cannot be: they are no list of paths", path)
    return state


def is_sealed(path: Path) -> bool:
    """Whether a file ends as a checkpoint of hexshards does; one that cannot be read does not."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _SEAL_BYTES))
            return file.read(len(_SEAL)) == _SEAL
    except OSError:
        return False


class Reader:
    """Reads the checkpoints of a run; one that was looked into first is not read again when it is taken."""

    def __init__(self) -> None:
        self._seen: tuple[Path, Stamp, dict[str, Any]] | None = None

    def look(self, path: Path) -> Mapping[str, Any]:
        """The state in a checkpoint, as ``read`` gives it, kept in memory until it is taken."""
        before = Stamp.of(path.stat())
        state = read(path)
        self._seen = (path, before, state)
        return state

    def take(self, path: Path) -> dict[str, Any]:
        """The state in a checkpoint, as ``read`` gives it, for the caller to change."""
        seen, self._seen = self._seen, None
        if seen and seen[0] == path and seen[1] == stamp_of(path):
            return seen[2]
        return read(path)


def _are_paths(arrays: object) -> bool:
    return isinstance(arrays, list) and all(isinstance(path, list) for path in arrays)


def trainer_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that the trainer gave."""
    with_some = state["format"] == WITH_ARRAYS
    own = {"format", *PARTS, *([ARRAYS] if with_some else [])}
    given = {name: value for name, value in state.items() if name not in own}
    return dict(with_arrays(given, state[ARRAYS])) if with_some else given


def check_fits(state: Mapping[str, Any], *, dataset: str, options: Mapping[str, Any], where: Path) -> None:
    """Raise DataError unless a checkpoint's run had this dataset and these options, free ones excepted."""
    if state["format"] not in (FORMAT, WITH_ARRAYS):
        problem = f"has format {state['format']}, this program reads {FORMAT} and {WITH_ARRAYS}"
        raise DataError(
            problem, where=str(where), fix="Use the version of hexshards that wrote it, or another run folder"
        )
    if state["dataset"] != dataset:
        raise other_dataset(state["dataset"], dataset, where=str(where))
    if differing := _differences(state["options"], options):
        problem = f"was made with other options: {'; '.join(differing)}"
        raise Misused(problem, where=str(where), fix="Use the same options, or another run folder")


def other_dataset(made_on: str, dataset: str, *, where: str) -> Misused:
    """The error of a checkpoint that was made on another dataset than the one at hand, by their fingerprints."""
    problem = f"was made on dataset {printable(made_on[:16])}, not on {printable(dataset[:16])}"
    fix = "Train on the same dataset, or begin another run on this one, with --init-from to keep the weights"
    return Misused(problem, where=where, fix=fix)


def goes_on_without_shards(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is at the end of an epoch: what comes next reads no shard of the dataset as it was."""
    counters = state["counters"]
    return bool(counters["finished"]) and state["loader_state"].get("epoch") == counters["epoch"]


def random_state() -> dict[str, Any]:
    """State of torch's global generators: the CPU's, each CUDA device's once CUDA is in use, and Apple's GPU's."""
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []
    mps = {"mps": torch.mps.get_rng_state()} if torch.backends.mps.is_available() else {}
    return {"cpu": torch.get_rng_state(), "cuda": cuda, **mps}


def random_states(process_group: ProcessGroup) -> dict[str, Any]:
    """The random state of each process of a group, by rank."""
    mine = random_state()
    cpu, cuda = process_group.gather(mine["cpu"]), [process_group.gather(each) for each in mine["cuda"]]
    ranks = [{"cpu": cpu[rank], "cuda": [each[rank] for each in cuda]} for rank in range(process_group.size)]
    if "mps" in mine:  # of which a machine has one, and so one process
        ranks[process_group.rank]["mps"] = mine["mps"]
    return {"ranks": ranks}


def set_random_states(states: Mapping[str, Any], process_group: ProcessGroup) -> None:
    """Put this process back to its own; one that the group did not have then goes on with what it has."""
    if process_group.rank < len(states["ranks"]):
        set_random_state(states["ranks"][process_group.rank])


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put torch's global generators back to a state; devices that are not here are left out."""
    torch.set_rng_state(state["cpu"])
    present = torch.cuda.device_count() if state["cuda"] else 0
    for device, cuda in enumerate(state["cuda"][:present]):
        torch.cuda.set_rng_state(cuda, device)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Keep torch's random state: what is drawn inside is not missed outside, such as the seed of each DataLoader."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        problem = f"a checkpoint needs {show_bytes(needed)}, {show_bytes(free)} are free; those before it are whole"
        raise OSError(errno.ENOSPC, problem, str(folder))


def _sealed(data: bytes) -> bytes:
    # torch writes no archive comment: the file ends with the length of an empty one
    assert data[-_END_OF_ZIP_BYTES:].startswith(_END_OF_ZIP) and data[-2:] == b"\0\0"
    body = data[:-2] + struct.pack("<H", _SEAL_BYTES)
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode()


def _check_seal(file: BinaryIO, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise _refused("is empty", path)
    file.seek(0)
    if not (first := file.read(8)).startswith(b"PK\x03\x04"):
        raise _refused(f"is no checkpoint (begins with {first!r})", path)
    file.seek(max(0, size - _SEAL_BYTES))
    if not (seal := file.read()).startswith(_SEAL):
        raise _refused("ends without its checksum", path)
    file.seek(0)
    total, left = hashlib.sha256(), size - _SEAL_BYTES
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        total.update(piece)
        left -= len(piece)
    if left or seal != _SEAL + total.hexdigest().encode():
        raise _refused("does not match its checksum", path)


def _loaded(file: BinaryIO, path: Path) -> object:
    try:
        loaded: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for what it does not take
        if tells_of_death(error):
            raise
        raise _refused(f"torch.load takes it for no checkpoint ({printable(error)})", path) from error
    return loaded


def _differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    # version 0.1 kept passwords of URLs, and a password may change
    saved, given = (
        {name: without_secrets(value) if isinstance(value, str) else value for name, value in each.items()}
        for each in (saved, given)
    )
    # an option that the version which saved did not know: it trained as that option's default does
    known = as_recorded(TRAIN) if saved.keys() >= EVERY_TRAINING else {}
    unsaid = unrecorded_defaults(TrainSpec) if known else {}
    saved = {**unsaid, **{name: value for name, value in known.items() if name in given}, **saved}
    given = {**unsaid, **given}
    names = sorted((saved.keys() | given.keys()) - may_change(TrainSpec) - OF_THE_DATASET)
    return [
        f"{printable(name)} was {printable(saved.get(name))}, is {printable(given.get(name))}"
        for name in names
        if _meant(name, saved.get(name)) != _meant(name, given.get(name))
    ]


_MEANT: dict[str, Callable[[str], object]] = {"where": Filter.parse, "window": ReplayWindow.parse}
"""Options that can be written in several ways."""


def _meant(name: str, value: Any) -> Any:
    """What an option says, however it is written."""
    with suppress(ValueError):  # another release may have known more of it
        return _MEANT[name](value) if name in _MEANT and isinstance(value, str) else value
    return value


def _refused(problem: str, path: Path) -> DataError:
    return DataError(problem, where=str(path), fix="Remove it, or put back a good copy")
