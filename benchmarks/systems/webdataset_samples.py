"""webdataset at its best with a sample a member: packed bytes, mixed in a buffer of 10,000, expanded by batches."""

from __future__ import annotations

from pathlib import Path

import webdataset
from harness.rows import Dense, Source, expand, from_bytes

BUFFER, SHARDS = 10_000, 16


def prepare(source: Source, folder: Path) -> int:
    """A member of packed bytes per position."""
    write(folder, [row.tobytes() for row in source.rows])
    return len(source.rows)


def write(folder: Path, members: list[bytes]) -> None:
    """Shards of members; without mtime=0 the headers of each are twice as long and reading is half as fast."""
    pattern, size = str(folder / "train-%06d.tar"), -(-len(members) // SHARDS)
    with webdataset.ShardWriter(pattern, maxcount=size, mtime=0, encoder=False, verbose=0) as shards:
        for number, member in enumerate(members):
            shards.write({"__key__": f"{number:08d}", "row": member})


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> webdataset.WebLoader:
    """Batches whose members are joined and expanded at once."""
    samples = members(folder, epochs).map(_row).shuffle(BUFFER, initial=BUFFER)
    return webdataset.WebLoader(samples.batched(batch, collation_fn=_joined), batch_size=None, num_workers=workers)


def members(folder: Path, epochs: int) -> webdataset.WebDataset:
    """The members of all shards, these in random order."""
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    return webdataset.WebDataset(shards, shardshuffle=len(shards)).repeat(epochs)


def _row(member: dict[str, bytes]) -> bytes:
    return member["row"]


def _joined(rows: list[bytes]) -> Dense:
    return expand(from_bytes(rows))
