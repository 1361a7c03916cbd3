"""A run in Weights & Biases: each mini-epoch's numbers, over the samples seen. ``pip install wandb``.

python examples/wandb_hook.py DATASET RUN
"""

import sys
from pathlib import Path

import wandb

import hexshards
from hexshards import Event, RunEnded, RunStarted, Saved


def to_wandb(event: Event) -> None:
    """A hook: numbers go to the run of this name, which a restart goes on with."""
    if event.run.rank:
        return
    if isinstance(event, RunStarted):
        name = event.run.folder.name
        wandb.init(project="hexshards", name=name, id=name, resume="allow", config=dict(event.run.options))
    elif isinstance(event, Saved) and event.record:
        numbers = {f"{part}/{name}": value for part in ("train", "val") for name, value in event.record[part].items()}
        wandb.log({**numbers, "learning_rate": event.record["learning_rate"]}, step=event.record["samples_seen"])
    elif isinstance(event, RunEnded):
        wandb.finish()


if __name__ == "__main__":
    spec = hexshards.TrainSpec(data=sys.argv[1], run=Path(sys.argv[2]), channels=16, blocks=2)
    print(hexshards.train(spec, hooks=[to_wandb]).summary())
