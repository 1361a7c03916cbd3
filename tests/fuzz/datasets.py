"""Datasets that anybody could have written: an index whose fingerprint fits, blocks whose checksums do, any content.

    PYTHONPATH=tests python -m fuzz.datasets [--minutes M | --cases N] [--seed S [--first N]]

Each case takes a small sound dataset, puts hostile values into its index, a block, or the state of a loader, makes
every checksum fit again, and has it verified, shown, measured, loaded in all ways, kept resident and added to.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
import zstandard
from helpers.small_data import examples, processed, write_examples

import hexshards
from fuzz.harness import NUMBERS, VALUES, Random, Unclean, at, check_text, fuzz, one_place, places, put, refusal, shown
from hexshards.cli import dataset_commands
from hexshards.dataset import codec
from hexshards.dataset.index import NAME, read_index
from hexshards.dataset.leakage import leakage
from hexshards.game.columns import OPTIONAL
from hexshards.game.random_visits import search
from hexshards.loading.batching import compiled, on_cpu, on_device
from hexshards.loading.options import LoaderSpec
from hexshards.loading.shuffle_quality import mixing
from hexshards.loading.webdataset_pipeline import pipeline

KINDS: dict[str, dict[str, Any]] = {
    "hard": {},
    "soft": {"dedupe": "positions", "codec": "none"},
    "baked": {"bake_symmetries": True},
    "rich": {},
    "rich soft": {"dedupe": "positions", "codec": "none"},
}
"""Those that are rich have every optional column."""
CUT = {"val_fraction": 0.3, "shard_positions": 48, "block_positions": 16}
BATCH = 8

COLUMNS = tuple(column.name for column in OPTIONAL)

Files = dict[str, bytes]


# what is made hostile -------------------------------------------------------------------------------------------------


def sealed(entry: Any) -> bytes:
    """An index whose fingerprint fits."""
    if isinstance(entry, dict):
        entry.pop("fingerprint", None)
        plain = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        entry = {**entry, "fingerprint": hashlib.sha256(plain).hexdigest()}
    return json.dumps(entry).encode()


def changed(random: Random, entry: Any, told: list[str]) -> Any:
    """An index with something else in one place."""
    path = one_place(random, entry)
    old = at(entry, path)
    new: Any = random.choice(VALUES)
    match random.randrange(8):
        case 0 if isinstance(old, (int, float)):
            fraction = float(old) if abs(old) < 1e300 else 0.5  # a number may have been put there that no float holds
            new = random.choice([old + 1, old - 1, -old, fraction, old * 2, old * 10**6, str(old), old + 2**32])
        case 1 if isinstance(old, (int, float)):
            new = random.choice(NUMBERS)
        case 2 if isinstance(old, list) and old:
            new = random.choice([old + old[:1], old[1:], old[::-1], old * 2, old * 300, [], [old], [None] * len(old)])
        case 3 if isinstance(old, dict) and old:
            key = random.choice(list(old))
            new = {name: part for name, part in old.items() if name != key}
        case 4 if isinstance(old, dict):
            new = {**old, random.choice(["x", "", "self", "side", "shards", "\x1b[2J"]): new}
        case 5:
            new = at(entry, random.choice(list(places(entry))))
    told.append(f"{'.'.join(map(str, path)) or 'all'} = {shown(new)}")
    return put(entry, path, new)


def member(name: str, data: bytes) -> bytes:
    """A file in a tar."""
    head = tarfile.TarInfo(name)
    head.size = len(data)
    return head.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def famous(random: Random, entry: dict[str, Any], told: list[str]) -> None:
    """Put into a shard's entry what was once taken for sound, and what random choices would not find in a minute."""
    split = random.choice(list(entry["splits"]))
    shards = entry["splits"][split]["shards"]
    shard = random.choice(shards)
    match random.randrange(3):
        case 0:
            shard["block_crc32"], how = [None] * len(shard["block_crc32"]), "has checksums of null"
        case 1:
            entry["splits"][split]["shards"], how = shards * 10_000, "is listed 10,000 times"
        case _:
            size = random.choice([10**18, 10**30, -1, 512.0])
            shard["block_bytes"], how = [size] * len(shard["block_bytes"]), f"has blocks of {size} bytes"
    told.append(f"{shard['name']} {how}")


def refilled(random: Random, files: Files, entry: dict[str, Any], told: list[str]) -> None:
    """Put illegal contents into a block, and make all that the index says of it fit."""
    split = random.choice(list(entry["splits"]))
    shard = random.choice(entry["splits"][split]["shards"])
    number = random.randrange(len(shard["block_bytes"]))
    start, size = sum(shard["block_bytes"][:number]), shard["block_bytes"][number]
    data = files[shard["name"]]
    with tarfile.open(fileobj=io.BytesIO(data[start : start + size])) as tar:
        members = [(each.name, tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]
    which = random.randrange(len(members))
    name, column = members[which]
    new, how = spoiled(random, column, packed=name.endswith(".zst"))
    match random.randrange(12):
        case 0:
            members, how = members[:which] + members[which + 1 :], "is missing"
        case 1:
            members, how = [*members, (name, new)], "is there twice"
        case 2:
            to = random.choice(["../outside", "x" * 99, "000000.", "\xe9.npy", members[0][0]])
            members[which], how = (to, column), f"is called {to!r}"
        case _:
            members[which] = (name, new)
    block = b"".join(member(*each) for each in members)
    if random.random() < 0.1:
        place = random.randrange(len(block))
        block, how = block[:place] + random.randbytes(3) + block[place + 3 :], f"has other bytes at {place}"
    elif random.random() < 0.05:
        block, how = block[: -random.randrange(1, len(block))], "is in a block that is cut"
    data = data[:start] + block + data[start + size :]
    shard["block_bytes"][number], shard["block_crc32"][number] = len(block), zlib.crc32(block)
    shard["size_bytes"], shard["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    files[shard["name"]] = data
    told.append(f"{shard['name']} block {number}: {name} {how}")


def spoiled(random: Random, data: bytes, *, packed: bool) -> tuple[bytes, str]:
    """The file of a column with other numbers, or another file, and what was done."""
    column = np.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(data) if packed else data))
    kind = "zstd" if packed else "none"
    match random.randrange(10):
        case 0:
            other = random.choice([column[1:], column[None], column.astype("<f8"), column.astype("<i8"), column[:0]])
            return codec.encode(other, codec=kind), f"is {other.dtype} {other.shape}"
        case 1 if packed:
            bomb = zstandard.ZstdCompressor().compress(bytes(random.choice([10, 10**6, 10**8])))
            return bomb, "is a bomb"
        case 2:
            return random.randbytes(random.randrange(300)), "is noise"
        case _:
            column = column.copy()
            flat = column.reshape(-1).view(column.dtype)
            if column.dtype.kind == "f":
                values = [np.nan, np.inf, -np.inf, -1, 2, 1e-7, 0.25, -0.0, 65504]
            else:
                values = [np.iinfo(column.dtype).min, np.iinfo(column.dtype).max, 0, 1, 2, 24, 25, 26, 100, -1, -2]
                values = [value for value in values if value >= np.iinfo(column.dtype).min]
                values = [value for value in values if value <= np.iinfo(column.dtype).max]
            value, row = random.choice(values), random.randrange(len(flat))
            rows = slice(row, row + random.choice([1, 1, 5, len(flat)]))
            flat[rows] = value
            return codec.encode(column, codec=kind), f"is {value} from entry {row} on"


# what is done with it -------------------------------------------------------------------------------------------------


class Use:
    """A dataset, and a sound one to mix it with."""

    def __init__(self, folder: Path, sound: Path, extra: Path, random: Random) -> None:
        self.folder, self.sound, self.extra, self.random = folder, sound, extra, random

    def options(self, **others: Any) -> dict[str, Any]:
        """Of a loader, as they come."""
        choice = self.random.choice
        return {
            "split": choice(["train", "val"]),
            "augment": choice(["none", "none", "random", "all"]),
            "batch_size": choice([1, BATCH, 500]),
            "shuffle": choice([True, False]),
            "drop_last": choice([True, False]),
            "streams": choice([1, 1, 1, 3]),
            "where": choice(["", "", "ply=1..9", "plies=3..", "tier=0..1", "source=*"]),
            "positions": choice([None, None, 1, 20]),
            "seed": choice([0, 1, 2**40]),
            "policy": choice(["played", "played", "search", 0.5]),
            **others,
        }

    def verified(self) -> None:
        """Every problem is a sentence."""
        for problem in hexshards.verify(self.folder).problems:
            refusal(problem)

    def told(self) -> None:
        """What the commands print."""
        folder = str(self.folder)
        commands: list[Callable[[], None]] = [
            lambda: dataset_commands.info(folder, as_json=False),
            lambda: dataset_commands.info(folder, as_json=True),
            lambda: dataset_commands.show(folder, number=3, split=self.random.choice(["train", "val"])),
            lambda: dataset_commands.verify(folder, with_leakage=False, as_json=self.random.random() < 0.5),
        ]
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(out), suppress(typer.Exit):
            self.random.choice(commands)()
        check_text(out.getvalue())

    def measured(self) -> None:
        """How well it is mixed, and what leaks."""
        mixing(self.folder, LoaderSpec(split=self.random.choice(["train", "val"]), batch_size=BATCH, augment="none"))

    def compared(self) -> None:
        """What leaks from training into validation."""
        leakage(self.folder)

    def loaded(self) -> None:
        """A whole epoch, and the start of the next."""
        columns = self.random.choice([(), (), COLUMNS])
        options = self.options(on_error=self.random.choice(["raise", "skip"]), columns=columns)
        loader = hexshards.loader(self.folder, **options)
        loader.fingerprint(0)
        for _ in range(2):
            for batch in itertools.islice(loader, 200):
                assert len(batch.board) == len(batch.policy) == len(batch.value)

    def mixed(self) -> None:
        """A part of a mix."""
        loader = hexshards.loader({self.folder: 1, self.sound: 2}, **self.options(positions=None))
        loader.describe()
        for _ in itertools.islice(loader, 100):
            pass

    def resident(self) -> None:
        """Kept in memory."""
        for _ in itertools.islice(hexshards.loader(self.folder, resident=True, **self.options()), 100):
            pass

    def expanded(self) -> None:
        """NumPy, compiled code and torch see the same, or refuse the same."""
        options = self.options(on_error=self.random.choice(["raise", "skip"]), batch_size=BATCH)
        ways: dict[str, Callable[[Any, int], Any]] = {
            "numpy": lambda rows, side: on_cpu(rows, side=side, by=None),
            "compiled": lambda rows, side: on_cpu(rows, side=side, by=compiled()),
            "torch": lambda rows, side: on_device(rows, side=side, device=torch.device("cpu")),
        }
        seen = {}
        for name, way in ways.items():
            loader = hexshards.loader(self.folder, **options)
            try:
                made = itertools.islice(way(loader.packed(), loader.index.side), 100)
                seen[name] = b"".join(part.numpy().tobytes() for batch in made for part in batch)
            except Exception as error:
                seen[name] = refusal(error).encode()
        if len(set(seen.values())) > 1:
            raise Unclean("ways differ", {name: bits[:60] for name, bits in seen.items()})

    def resumed(self) -> None:
        """From a state that somebody wrote."""
        loader = hexshards.loader(self.folder, **self.options())
        state: Any = loader.state_dict()
        for _ in range(self.random.randrange(1, 3)):
            state = put(state, one_place(self.random, state), self.random.choice(VALUES))
        again = hexshards.loader(self.folder, **self.options())
        for each in (loader, again):
            try:
                each.load_state_dict(state)
            except Exception as error:
                refusal(error)
            else:
                json.dumps(each.state_dict())
                next(iter(each), None)

    def piped(self) -> None:
        """Through webdataset, with the index and without."""
        shards = sorted(self.folder.glob(self.random.choice(["train-*.tar", "val-*.tar"])))
        folder = self.folder
        if self.random.random() < 0.5:
            folder = self.folder / "alone"
            folder.mkdir()
            shards = [Path(shutil.copy(path, folder)) for path in shards]
        batch = self.random.choice([None, BATCH])
        augment, given = self.random.choice(["none", "random"]), [str(path) for path in shards]
        pipe = pipeline(given, batch_size=batch, augment=augment, shuffle=True)
        for _ in itertools.islice(pipe, 200):
            pass

    def added_to(self) -> None:
        """More games."""
        hexshards.convert(self.extra, out=self.folder, append=True)
        read_index(self.folder)

    def ways(self) -> Iterator[Callable[[], None]]:
        """A few things to do with it."""
        every = [self.verified, self.told, self.measured, self.compared, self.loaded, self.mixed]
        every += [self.resident, self.expanded, self.resumed, self.piped]
        yield from self.random.sample(every, 2)
        if self.random.random() < 0.05:
            yield self.added_to


# the loop -------------------------------------------------------------------------------------------------------------

opened: list[str] = []


def watch(event: str, given: tuple[Any, ...]) -> None:
    """Remember files that only a hostile name leads to."""
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "socket.connect") and "outside" in str(given[:2]):
        opened.append(f"{event} {given[:2]}")


def rich(path: Path) -> Path:
    """A processed file whose examples have every optional key."""
    entries = examples(6, seed=4)
    free = np.array([example["board"].sum(axis=0).reshape(-1) == 0 for example in entries])
    for number, (example, visits) in enumerate(zip(entries, search(free, simulations=30), strict=True)):
        if number % 3:
            example |= {"visits": visits, "weight": number % 4 / 2, "policy_weight": 0.5, "search_value": 0.25}
    return write_examples(path, entries)


def prepare(work: Path) -> Callable[[Random, list[str]], None]:
    """Sound datasets in memory, and the case that spoils one."""
    sources, folder = processed(work / "sources", games=6, games_per_file=3), work / "data"
    extra, sound = processed(work / "extra", games=1, seed=9), {}
    searched = rich(work / "searched" / "rich_processed.pkl.gz")
    for name, options in KINDS.items():
        given = {"generation": 7, **CUT, **options} if "rich" in name else {**CUT, **options}
        hexshards.convert(searched if "rich" in name else sources, out=work / name, **given)  # type: ignore[arg-type]
        sound[name] = {path.name: path.read_bytes() for path in (work / name).iterdir() if path.is_file()}
    hexshards.convert(extra, out=work / "other", **CUT)  # type: ignore[arg-type]
    sys.addaudithook(watch)

    def case(random: Random, told: list[str]) -> None:
        kind = random.choice(["hard", "hard", "soft", "baked", "rich", "rich", "rich soft"])
        files, told[:] = dict(sound[kind]), [kind]
        entry = json.loads(files[NAME])
        what = random.randrange(10)
        if random.randrange(50) == 0:
            famous(random, entry, told)
        elif what < 5:
            refilled(random, files, entry, told)
        if what >= 4:
            for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
                entry = changed(random, entry, told)
        files[NAME] = sealed(entry)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        opened.clear()
        use = Use(folder, work / "other", extra, random)
        try:
            read_index(folder)
        except Exception as error:
            refusal(error)
            ways = iter([use.told]) if random.random() < 0.1 else iter(())
        else:
            ways = use.ways()
        for way in ways:
            told.append(way.__name__)
            try:
                way()
            except Exception as error:
                refusal(error)
            told.pop()
        if opened:
            raise Unclean("opened", opened[0])

    return case


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        fuzz(__doc__ or "", lambda: prepare(Path(place)))
