"""Write the fixture of dataset format 2: ``PYTHONPATH=tests python make_format_2.py FOLDER``, once, and never again.

A small dataset with every optional column of hexshards' own that a processed file can give, its source, and digests of
what the loader made of it. ``test_released.py`` reads it for good.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from helpers.small_data import examples, write_examples

import hexshards

CUT = {"val_fraction": 0.3, "shard_positions": 96, "block_positions": 48, "codec": "none"}
COLUMNS = ("weight", "policy_weight", "search_value", "visits", "generation", "plies_left", "tier")
READ = {"augment": "random", "seed": 7, "batch_size": 20, "columns": COLUMNS, "weights": "ply=6..:2,tier=0:0.5"}


def rich(games: int) -> list[dict[str, object]]:
    """Examples with weights, values and visits, and some without."""
    entries = examples(games, side=5)
    for number, example in enumerate(entries):
        free = np.flatnonzero(np.asarray(example["board"]).reshape(-1, 25)[:2].sum(axis=0) == 0)
        visits = np.zeros(25, dtype=np.int64)
        visits[free] = (free * 7 + number) % 5
        if number % 3:
            example |= {"weight": 0.25 * (number % 5), "policy_weight": 1.0 + number % 2}
        if number % 4 and visits.any():
            example |= {"search_value": (number % 11) / 10, "visits": visits}
    return entries


def digests(dataset: Path) -> dict[str, str]:
    """SHA-256 of each part of all batches, in their order."""
    sums = {name: hashlib.sha256() for name in ("board", "policy", "value", *COLUMNS)}
    for batch in hexshards.loader(dataset, **READ):
        for name, part in {**dict(zip(("board", "policy", "value"), batch, strict=False)), **batch.columns}.items():
            sums[name].update(part.contiguous().numpy().tobytes())
    return {name: each.hexdigest() for name, each in sums.items()}


def main(out: Path) -> None:
    out.mkdir(parents=True)
    os.chdir(out)  # no path of the machine that made it gets into the files
    write_examples(Path("rich_processed.pkl.gz"), rich(6))
    hexshards.convert(Path("rich_processed.pkl.gz"), out=Path("rich5"), workers=1, **CUT)
    shards = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path("rich5").glob("*.tar"))}
    read = {**READ, "columns": list(COLUMNS)}
    made = {"options": CUT, "shards": shards, "read": read, "digests": digests(Path("rich5"))}
    Path("expected.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
