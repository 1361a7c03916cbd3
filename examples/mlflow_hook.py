"""A run in MLflow: its options, each mini-epoch's numbers, and best.pt. ``pip install mlflow``.

python examples/mlflow_hook.py DATASET RUN
"""

import sys
from pathlib import Path

import mlflow

import hexshards
from hexshards import Event, RunEnded, RunStarted, Saved


def to_mlflow(event: Event) -> None:
    """A hook: numbers go to a run of MLflow by the name of the folder."""
    if event.run.rank:
        return
    if isinstance(event, RunStarted):
        mlflow.start_run(run_name=event.run.folder.name)
        mlflow.log_params(dict(event.run.options))
    elif isinstance(event, Saved) and event.record:
        for part in ("train", "val"):
            numbers = {f"{part}.{name}": value for name, value in event.record[part].items() if value is not None}
            mlflow.log_metrics(numbers, step=event.record["samples_seen"])
    elif isinstance(event, RunEnded):
        if (best := event.run.folder / "best.pt").exists():
            mlflow.log_artifact(str(best))
        mlflow.end_run()


if __name__ == "__main__":
    spec = hexshards.TrainSpec(data=sys.argv[1], run=Path(sys.argv[2]), channels=16, blocks=2)
    print(hexshards.train(spec, hooks=[to_mlflow]).summary())
