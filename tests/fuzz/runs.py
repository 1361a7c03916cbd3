"""Run folders and checkpoints that anybody could have written: each is gone on with, or refused in a sentence.

    PYTHONPATH=tests python -m fuzz.runs [--minutes M | --cases N] [--seed S [--first N]]

Each case takes a sound run, puts one hostile value in the place of one that it holds (in a checkpoint whose checksum
then fits, in metrics.jsonl), and starts it again, shows its curves and begins another run with its weights.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from helpers.small_runs import Drawing, SmallLoader, Validation, orchestrator, seeded

from fuzz.harness import VALUES, Case, Random, check_text, fuzz, places, put, refusal, shown
from hexshards.reports.history import read_history
from hexshards.reports.terminal_curves import curves_text
from hexshards.training.checkpointing import checkpoint_file
from hexshards.training.steps.model_factory import _load_weights
from hexshards.training.steps.trainer import Trainer

TENSORS: list[Any] = [
    *(torch.zeros(0), torch.zeros(3), torch.tensor(1), torch.zeros(2, 2).bool(), torch.tensor(float("nan"))),
    *(torch.full((5000,), 255, dtype=torch.uint8), torch.zeros(1).expand(10**12)),
    *({1: 2}, (1,), 10**5000, "/etc/passwd", "../../x", "checkpoint_epoch0009_mini0009.pt"),
]
LINES = [
    *('{"epoch": 1e999}', "[" * 100_000, "{}", "null", "[]", '{"epoch": 1, "mini_epoch": 1}', "\x00", "\x1b[2J", ""),
    *('{"a": ' * 2_000 + "1" + "}" * 2_000, "9" * 5_000, "NaN", '"\ud800"', '{"epoch": 1, "epoch": 2}'),
]


def seal(path: Path, state: Any) -> None:
    """A checkpoint whose checksum fits, whatever it holds."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(checkpoint_file._sealed(buffer.getvalue()))


def logged(random: Random, run: Path, told: list[str]) -> None:
    """Put something else into a line of metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    number, record = random.randrange(len(lines)), json.loads(lines[0])
    path = random.choice([each for each in places(record) if each])
    lines[number] = random.choice([*LINES, *[json.dumps(put(record, path, random.choice(VALUES)))] * 10])
    (run / "metrics.jsonl").write_bytes("\n".join([*lines, ""]).encode(errors="surrogatepass"))
    told.append(f"metrics.jsonl line {number}: {shown(lines[number])}")


def saved(random: Random, path: Path, told: list[str]) -> None:
    """Put something else into a checkpoint."""
    state = torch.load(path, weights_only=True)
    # what the small loader's state may hold is that loader's own affair
    paths = [each for each in places(state) if each[:1] != ("loader_state",)]
    where, new = random.choice(paths), random.choice([*VALUES, *TENSORS])
    seal(path, put(state, where, new))
    told.append(f"{'.'.join(map(str, where))} = {shown(new)}")


def swollen(path: Path, bomb: Path) -> None:
    """A checkpoint of which one record is stored compressed: 2 GB of zeros in 2 MB."""
    with zipfile.ZipFile(path) as sound, zipfile.ZipFile(bomb, "w") as made:
        names = sound.namelist()
        largest = max(sound.infolist(), key=lambda each: each.file_size).filename
        for name in names:
            if name != largest:
                made.writestr(name, sound.read(name))
        info = zipfile.ZipInfo(largest)
        info.compress_type = zipfile.ZIP_DEFLATED
        with made.open(info, "w", force_zip64=True) as record:
            for _ in range(2_000):
                record.write(bytes(1 << 20))


def replaced(random: Random, run: Path, bomb: Path, told: list[str]) -> None:
    """Put something that is no regular file in the place of one, or a checkpoint that swells when it is read."""
    path = random.choice([checkpoint_file.newest_first(run / "checkpoints")[0], run / "metrics.jsonl"])
    path.unlink()
    kind = random.choice(["a pipe", "endless", "a folder", "a link to nothing", "a link to itself", "swollen"])
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
        case "a link to nothing":
            path.symlink_to(run / "nothing")
        case "a link to itself":
            path.symlink_to(path)
        case _:
            path.symlink_to(bomb)
    told.append(f"{path.name} is {kind}")


def prepare(work: Path) -> Case:
    """A sound run, and the case that spoils a copy."""
    sound, run = work / "sound", work / "run"
    orchestrator(sound, num_epochs=1).run()
    bomb = work / "bomb.pt"
    swollen(checkpoint_file.newest_first(sound / "checkpoints")[0], bomb)
    bomb.write_bytes(checkpoint_file._sealed(bomb.read_bytes()))

    def gone_on() -> None:
        orchestrator(run, trainer=seeded(Trainer), train_loader=SmallLoader(), val_loader=Validation()).run()

    def curves() -> None:
        check_text(curves_text([read_history(run)]))

    def begun() -> None:
        _load_weights(Drawing(), checkpoint_file.newest_first(run / "checkpoints")[0])

    def case(random: Random, told: list[str]) -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(sound, run)
        if random.randrange(30) == 0:
            replaced(random, run, bomb, told)
        elif random.randrange(4):
            saved(random, checkpoint_file.newest_first(run / "checkpoints")[0], told)
        else:
            logged(random, run, told)
        ways = [gone_on, curves, begun]
        random.shuffle(ways)
        for way in ways:
            told.append(way.__name__)
            try:
                way()
            except FileNotFoundError as error:
                check_text(str(error))  # plot, where a record names no checkpoint that is there
            except Exception as error:
                refusal(error)
            told.pop()

    return case


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        fuzz(__doc__ or "", lambda: prepare(Path(place)))
