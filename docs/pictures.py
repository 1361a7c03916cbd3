"""Pictures of README and docs are drawn from what was recorded and from words: ``python docs/pictures.py``.

Each is an SVG without a background that takes dark colours where the page around it is dark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as Tree

from hexshards.rng import raw

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
RESULTS = DOCS.parent / "benchmarks" / "results"

WIDTH = 640
"""Of all pictures: on a telephone, 390 pixels wide, letters of 18 are still 11 high."""

STYLE = """
text { font: 18px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2430 }
.strong { font-weight: 650 } .faint { fill: #5b6472; font-size: 15px }
.ours { fill: #0b7a75 } .theirs { fill: #a9b4c2 } .edge { fill: none; stroke: #8a94a3; stroke-width: 2 }
.a { fill: #0b7a75 } .b { fill: #d1703c } .c { fill: #5f6caf } .d { fill: #c9a227 } .head { fill: #8a94a3 }
.said { fill: none; stroke: #b4531f; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ef } .faint { fill: #a3adba }
  .said { stroke: #e58f5f } .ours { fill: #35b8b0 } .theirs { fill: #5b6675 } .edge { stroke: #7d8896 }
  .a { fill: #35b8b0 } .b { fill: #e58f5f } .c { fill: #8b97dc } .d { fill: #dcb94a } .head { fill: #7d8896 }
}
"""

SHOWN = {
    "**hexshards**": "hexshards",
    "NumPy memmap, batched `__getitems__`": "NumPy memmap",
    "FFCV, compiled, 1 / 2 threads": "FFCV",
    "webdataset, packed members": "webdataset, packed",
    "Hugging Face datasets, batched": "HF datasets",
    "LitData": "LitData",
    "LanceDB, StreamingDataset": "LanceDB",
    "SPDL, 1 / 2 threads, NumPy memmap": "SPDL, memmap",
    "Ray Data, Parquet": "Ray Data",
    "Megatron-Energon": "Megatron-Energon",
    "Grain, ArrayRecord": "Grain",
    "MosaicML Streaming": "MosaicML Streaming",
    "pickles, a sample at a time, as hex_ai": "pickles, as hex_ai",
}
"""Systems of the recorded run that the picture of the speed shows, as it calls them."""


TAUGHT = {
    "files in turn, four symmetries in a row": "files in turn, 4 symmetries",
    "a file at a time, shuffled in memory": "a file at a time, shuffled",
    "**hexshards**, `random`": "hexshards",
}
"""Orders of the recorded runs that the picture of learning shows, as it calls them."""

NETWORKS = {"cheap": "a network so cheap that data is the limit", "conv": "a small convolutional network"}


class Stage(NamedTuple):
    """A step of a path: its name, what happens there, and small squares that show it, a letter a colour."""

    name: str
    says: Sequence[str]
    rows: Sequence[str]


PATHS = {
    "loading": (
        "How a batch comes about: plan, window, batch, expand",
        [
            Stage("Plan", ["Which blocks, in which order:", "arithmetic from seed and epoch."], ["aaa bbb", "ccc ddd"]),
            Stage(
                "Window", ["16 blocks are read, checked,", "decompressed; all rows mixed."], ["mixed", "mixed", "mixed"]
            ),
            Stage("Batch", ["The next rows of the window,", "still packed: 51 bytes each."], ["mixed"]),
            Stage("Expand", ["Bits become planes, in one of", "four symmetries, where used."], ["planes"]),
        ],
    ),
    "converting": (
        "How files become a dataset: read, split, shuffle, write",
        [
            Stage(
                "Read",
                ["Each position is checked; a", "faulty one is named."],
                ["aaaa", "bbbb", "cccc"],
            ),
            Stage("Split", ["Whole games go to one split,", "by a hash of file and line."], ["aaa bbb cccc", "a b"]),
            Stage("Shuffle", ["All positions of a split are", "mixed, with room for only some."], ["mixed", "mixed"]),
            Stage(
                "Write",
                ["Blocks with checksums, in tars;", "index.json comes last."],
                ["ddd ddd ddd", "ddd ddd d"],
            ),
        ],
    ),
    "run": (
        "What a run does in each mini-epoch: train, validate, save, tell",
        [
            Stage("Train", ["Until so many samples were", "seen: 200,000 by default."], ["aaaaaaaaaaaa"]),
            Stage("Validate", ["Those very weights, on games", "that training never shows."], ["bbb"]),
            Stage("Save", ["A checkpoint and a line of", "metrics.jsonl, whole or not at all."], ["c"]),
            Stage("Go on", ["Or stop: at the end, at Ctrl-C.", "The same command goes on."], ["aaaaaa bb c"]),
        ],
    ),
}


def pictures() -> dict[str, str]:
    """Every picture by its file name."""
    drawn = {f"{name}.svg": path(title, stages) for name, (title, stages) in PATHS.items()}
    read = {name: (RESULTS / f"{name}.md").read_text(encoding="utf-8") for name in ("loading", "learning")}
    return {**drawn, "speed.svg": speed(read["loading"]), "learning.svg": learning(read["learning"])}


def recorded(text: str) -> Iterator[tuple[str, int]]:
    """Systems of a recorded run that are shown, with samples/s: the better of its two numbers of workers."""
    table = text.split("| batch 1024 |")[1].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if name in SHOWN:
            yield SHOWN[name], max(int(cell.replace(",", "")) for cell in cells[:2] if cell != "-")


def speed(text: str) -> str:
    """Samples a second of each system, as bars."""
    speeds = sorted(recorded(text), key=lambda each: -each[1])
    longest = speeds[0][1]
    picture = _picture("Samples a second", height=70 + 34 * len(speeds))
    _text(picture, 0, 22, "Samples a second, shuffled and augmented", "strong")
    _text(picture, 0, 46, "batch 1,024, two cores, the better of 0 and 2 workers", "faint")
    for number, (name, samples) in enumerate(speeds):
        y = 64 + 34 * number
        kind = "ours" if name == "hexshards" else "theirs"
        _text(picture, 0, y + 18, name, *(["strong"] if kind == "ours" else []))
        _rect(picture, 210, y + 2, max(2, round(320 * samples / longest)), 20, kind)
        _text(picture, 220 + max(2, round(320 * samples / longest)), y + 18, f"{samples:,}")
    return _written(picture)


class Taught(NamedTuple):
    """What a network learned in an order: shares of winners in percent, and seconds."""

    network: str
    order: str
    truth: float
    said: float
    seconds: int


def taught(text: str) -> list[Taught]:
    """The recorded orders that are shown."""
    table = text.split("## At the end")[1].split("\n\n")[1]
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    rows = (dict(zip(head, cells, strict=True)) for cells in lines)
    return [
        Taught(
            row["network"],
            TAUGHT[row["order"]],
            *(float(row[name].split(" ")[0]) for name in ("winner right", "its own validation says")),
            int(row["CPU s in all"]),
        )
        for row in rows
        if row["order"] in TAUGHT
    ]


LEAST, MOST, LEFT, WIDE = 50, 80, 264, 270
"""Percent at the ends of the scale, where it begins, and how wide it is."""


def learning(text: str) -> str:
    """For each network and order, a dot for what its own validation says and one for what unseen games say."""
    rows = taught(text)
    heads = list(dict.fromkeys(row.network for row in rows))
    picture = _picture("Validation and the truth", height=104 + 34 * (len(rows) + len(heads)))
    _text(picture, 0, 22, "Positions whose winner the network tells right", "strong")
    _dot(picture, 10, 42, "said")
    _text(picture, 26, 48, "what its own validation says", "faint")
    _dot(picture, 264, 42, "ours")
    _text(picture, 276, 48, "what unseen games say", "faint")
    _text(picture, WIDTH - 64, 48, "seconds", "faint")
    for number, row in enumerate(rows):
        y = 84 + 34 * (number + heads.index(row.network) + 1)
        if not number or rows[number - 1].network != row.network:
            _text(picture, 0, y - 34, NETWORKS[row.network], "faint")
        _text(picture, 0, y, row.order, *(["strong"] if row.order == "hexshards" else []))
        truth, said = _across(row.truth), _across(row.said)
        _rect(picture, min(truth, said), y - 8, abs(said - truth), 4, "theirs")
        _dot(picture, said, y - 6, "said")
        _dot(picture, truth, y - 6, "ours")
        _text(picture, WIDTH - 52, y, f"{row.seconds}")
    bottom = 90 + 34 * (len(rows) + len(heads))
    for percent in range(LEAST, MOST + 1, 10):
        _text(picture, _across(percent) - 16, bottom, f"{percent}%", "faint")
    return _written(picture)


def _across(percent: float) -> int:
    return round(LEFT + WIDE * (percent - LEAST) / (MOST - LEAST))


def _dot(picture: Tree.Element, x: int, y: int, kind: str) -> None:
    radius = "8" if kind == "said" else "5"  # a ring around a dot, where both are in one place
    Tree.SubElement(picture, "circle", {"cx": f"{x}", "cy": f"{y}", "r": radius, "class": kind})


def path(title: str, stages: Sequence[Stage]) -> str:
    """Steps below each other, with small squares that show what becomes of the rows."""
    picture = _picture(title, height=104 * len(stages) - 26)
    for number, stage in enumerate(stages):
        top = 104 * number + 4
        Tree.SubElement(
            picture, "rect", {"class": "edge", "x": "1", "y": f"{top}", "width": "638", "height": "72", "rx": "8"}
        )
        _text(picture, 16, top + 43, stage.name, "strong")
        for line, words in enumerate(stage.says):
            _text(picture, 116, top + 30 + 26 * line, words)
        DRAWN.get(stage.rows[0], _squares)(picture, 448, top, stage.rows, number)
    for number, _ in enumerate(pairwise(stages)):
        _arrow(picture, WIDTH // 2, 104 * number + 78)
    return _written(picture)


def _squares(picture: Tree.Element, left: int, top: int, rows: Sequence[str], number: int) -> None:
    mixed = [int(word) % 4 for word in raw(12 * len(rows), number)]
    for line, row in enumerate(rows):
        y = top + 36 + round((line - (len(rows) - 1) / 2) * 16) - 6
        if row == "mixed":
            row = "".join("abcd"[each] for each in mixed[12 * line : 12 * line + 12])
        for place, colour in enumerate(row):
            if colour != " ":
                _rect(picture, left + 14 * place - 5 * row[:place].count(" "), y, 12, 12, colour)


def _planes(picture: Tree.Element, left: int, top: int, rows: Sequence[str], number: int) -> None:
    """Three planes of a small board, each cell a square of its own, the rows slid as a rhombus."""
    stones = [int(word) % 3 for word in raw(16, number)]
    for plane in range(3):
        for row in range(4):
            for column in range(4):
                shown = plane == 2 or stones[4 * row + column] == plane
                x = left + 58 * plane + 11 * column + 5 * row
                _rect(picture, x, top + 15 + 11 * row, 10, 10, "acd"[plane] if shown else "theirs")


DRAWN: dict[str, Callable[[Tree.Element, int, int, Sequence[str], int], None]] = {"planes": _planes}
"""Stages that squares in a row do not show."""


def _picture(title: str, *, height: int) -> Tree.Element:
    picture = Tree.Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH} {height}", "role": "img"}
    )
    Tree.SubElement(picture, "title").text = title
    Tree.SubElement(picture, "style").text = STYLE
    return picture


def _text(picture: Tree.Element, x: int, y: int, words: str, *kinds: str) -> None:
    Tree.SubElement(picture, "text", {"x": f"{x}", "y": f"{y}", "class": " ".join(kinds)}).text = words


def _rect(picture: Tree.Element, x: int, y: int, width: int, height: int, kind: str) -> None:
    size = {"x": f"{x}", "y": f"{y}", "width": f"{width}", "height": f"{height}", "rx": "2"}
    Tree.SubElement(picture, "rect", {**size, "class": kind})


def _arrow(picture: Tree.Element, x: int, y: int) -> None:
    Tree.SubElement(picture, "path", {"class": "head", "d": f"M{x - 1} {y}h2v12h6l-7 10l-7-10h6z"})


def _written(picture: Tree.Element) -> str:
    Tree.indent(picture)
    return re.sub(r' class=""', "", Tree.tostring(picture, encoding="unicode")) + "\n"


def main() -> None:
    """Write the pictures that are not as they would be drawn."""
    for name, drawn in pictures().items():
        target = PICTURES / name
        if not target.exists() or target.read_text(encoding="utf-8") != drawn:
            target.write_text(drawn, encoding="utf-8")
            sys.stdout.write(f"{name} is drawn anew\n")


if __name__ == "__main__":
    main()
