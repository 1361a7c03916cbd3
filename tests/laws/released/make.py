"""Write the fixtures of a released version: ``python make.py FOLDER``, with that version installed, and never again.

What it writes into ``tests/laws/released/VERSION`` is committed, and read by ``test_released.py`` for good: small
datasets of every kind that the version could write, two runs (one stopped in the middle), and digests of what the
version itself made of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from itertools import islice
from pathlib import Path

import torch
import zstandard

import hexshards
from hexshards import TrainSpec
from hexshards.conversion.random_files import write

CUT = {"val_fraction": 0.3, "shard_positions": 128, "block_positions": 32}
DATASETS = {
    "processed7": ("processed7", {}),
    "processed5-plain": ("processed5", {"codec": "none"}),
    "trmph5": ("trmph5", {}),
    "trmph6-penultimate": ("trmph6", {"positions": "penultimate"}),
    "deduped5": ("processed5", {"dedupe": "positions"}),
    "symmetric5": ("trmph5", {"dedupe": "symmetric", "codec": "none"}),
    "baked5": ("trmph5", {"bake_symmetries": True}),
}
SOURCES = {"processed7": 16, "processed5": 20, "trmph5": 14, "trmph6": 60}
STREAMS = {
    "default": {},
    "seed7-all": {"seed": 7, "augment": "all", "batch_size": 33},
    "cycle-where": {"augment": "cycle", "where": "ply=3..", "batch_size": 20},
    "none-positions": {"augment": "none", "positions": 50, "drop_last": True, "batch_size": 16},
    "val-in-order": {"split": "val", "shuffle": False, "augment": "none"},
}
TRAIN = {
    "mini_epoch_samples": 100,
    "batch_size": 32,
    "channels": 4,
    "blocks": 1,
    "warmup_samples": 64,
    "seed": 3,
    "diagnose": 0,
    "device": "cpu",
}
RUNS = {
    "hard": ("processed7", {"epochs": 2}),
    "soft-ema": (
        "deduped5",
        {"epochs": 2, "ema": 0.9, "schedule": "cosine", "clip_norm": 1.0, "augment": "all", "keep_last": 2},
    ),
}


def digest(batches) -> str:
    """SHA-256 over the float32 bytes of all batches, in their order."""
    total = hashlib.sha256()
    for batch in batches:
        for part in batch:
            total.update(part.numpy().tobytes())
    return total.hexdigest()


def weights_of(path: Path) -> dict[str, float]:
    """A number a tensor: the sum of its elements times 1, 2, 3 ..., in float64."""
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]
    return {
        name: float((tensor.double().flatten() * torch.arange(1, tensor.numel() + 1)).sum())
        for name, tensor in state.items()
    }


def streams_of(dataset: Path, name: str) -> dict[str, object]:
    """What the version's loader makes of a dataset: two epochs by digest; a state in the second, and what follows."""
    streams: dict[str, object] = {}
    for stream, options in STREAMS.items():
        if name == "baked5":
            options = {**options, "augment": "none"}
        loader = hexshards.loader(dataset, **{"batch_size": 64, **options})
        if "where" in options and name == "trmph6-penultimate":
            continue
        epochs = [digest(loader)]
        passing = iter(loader)
        begun = digest(islice(passing, 1))
        state = loader.state_dict()
        rest = digest(passing)
        streams[stream] = {"options": options, "epoch0": epochs[0], "begun": begun, "state": state, "rest": rest}
    return streams


def stop_within_a_mini_epoch(event: object) -> None:
    """As SIGTERM after the first batch of the third mini-epoch."""
    if type(event).__name__ == "Progressed" and event.progress.samples_seen == 288:
        os.kill(os.getpid(), signal.SIGTERM)


def stop_before_validation(event: object) -> None:
    """As SIGTERM once the fourth mini-epoch is trained, and before it is validated."""
    if type(event).__name__ == "MiniEpochTrained" and event.samples_seen == 512:
        os.kill(os.getpid(), signal.SIGTERM)


STOPS = {"hard": stop_within_a_mini_epoch, "soft-ema": stop_before_validation}


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    os.chdir(out)  # no path of the machine that made them gets into the files
    out = Path()

    torch.set_num_threads(1)
    shards: dict[str, dict[str, str]] = {}
    streams = {}
    for name, games in SOURCES.items():
        kind = name.rstrip("0123456789")
        write(out / "sources" / name, games=games, side=int(name[-1]), seed=5, format=kind, games_per_file=8)
    for name, (source, options) in DATASETS.items():
        hexshards.convert(out / "sources" / source, out=out / name, workers=1, **{**CUT, **options})
        shards[name] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((out / name).glob("*.tar"))}
        streams[name] = streams_of(out / name, name)
    hexshards.convert(out / "sources" / "processed5", out=out / "grown5", workers=1, **CUT)
    before = (out / "grown5" / "index.json").read_bytes()
    write(out / "sources" / "more5", games=5, side=5, seed=6, format="trmph", games_per_file=8)
    hexshards.convert(out / "sources" / "more5", out=out / "grown5", workers=1, append=True)
    (out / "grown5" / "index-before.json").write_bytes(before)
    shards["grown5"] = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((out / "grown5").glob("*.tar"))
    }
    streams["grown5"] = streams_of(out / "grown5", "grown5")
    runs = {}
    for name, (dataset, options) in RUNS.items():
        spec = {**TRAIN, **options, "data": out / dataset}
        whole = hexshards.train(TrainSpec(run=out / "whole", **spec))
        hexshards.train(TrainSpec(run=out / name, **spec), hooks=[STOPS[name]])
        runs[name] = {
            "data": dataset,
            "options": {**TRAIN, **options},
            "checkpoints": sorted(p.name for p in (out / "whole" / "checkpoints").iterdir()),
            "weights": weights_of(whole.checkpoint),
            "samples_seen": whole.samples_seen,
        }
        shutil.rmtree(out / "whole")
        (out / name / ".lock").unlink(missing_ok=True)
    made = {
        "version": hexshards.__version__,
        "zstd": list(zstandard.ZSTD_VERSION),
        "torch": torch.__version__,
        "datasets": {
            name: {"source": source, "options": {**CUT, **options}} for name, (source, options) in DATASETS.items()
        },
        "shards": shards,
        "streams": streams,
        "runs": runs,
    }
    (out / "made.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
