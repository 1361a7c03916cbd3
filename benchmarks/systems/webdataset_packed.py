"""webdataset with 1,024 positions in a member, taken apart and mixed in a buffer of 10,000."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import webdataset
from harness.rows import Dense, Resumable, Source, expand, from_bytes

from systems.webdataset_samples import BUFFER, members, write

MEMBER = 1024


def prepare(source: Source, folder: Path) -> int:
    """A member of many packed rows."""
    rows = source.rows
    write(folder, [rows[start : start + MEMBER].tobytes() for start in range(0, len(rows), MEMBER)])
    (folder / "row_bytes").write_text(str(rows.shape[1]))
    return len(rows)


def batches(folder: Path, *, batch: int, workers: int, epochs: int) -> webdataset.WebLoader:
    """Batches whose rows are joined and expanded at once."""
    apart = Apart(int((folder / "row_bytes").read_text()))
    rows = members(folder, epochs).compose(apart).shuffle(BUFFER, initial=BUFFER)
    return webdataset.WebLoader(rows.batched(batch, collation_fn=_joined), batch_size=None, num_workers=workers)


class Apart:
    """A stage that takes members apart into rows."""

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes = row_bytes

    def __call__(self, blocks: Iterable[dict[str, bytes]]) -> Iterator[bytes]:
        """Rows, in the order of the members."""
        for member in blocks:
            data, size = member["row"], self.row_bytes
            yield from (data[start : start + size] for start in range(0, len(data), size))


def _joined(rows: list[bytes]) -> Dense:
    return expand(from_bytes(rows))


def resumable(folder: Path, *, batch: int, workers: int, rank: int, world_size: int, states: Any) -> Resumable:
    """It has no state: who goes on begins the epoch again. Ranks and workers share the shards."""
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    apart = Apart(int((folder / "row_bytes").read_text()))
    members = webdataset.WebDataset(
        shards, shardshuffle=len(shards), nodesplitter=webdataset.split_by_node, detshuffle=True, seed=1
    )
    rows = members.compose(apart).shuffle(BUFFER, initial=BUFFER)
    return Resumable(
        webdataset.WebLoader(rows.batched(batch, collation_fn=from_bytes), batch_size=None, num_workers=workers)
    )
