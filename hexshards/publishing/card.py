"""Dataset card: the README.md that the Hugging Face hub reads, and that people read anywhere.

Its head names the preview's files as the one config, so that a viewer shows positions: `datasets` takes one builder for
all configs of a repository, by the files of the first, so that the shards cannot be a second one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from hexshards import __version__
from hexshards.dataset.facts import facts_of, lead, splits
from hexshards.dataset.index import Index
from hexshards.errors import without_secrets
from hexshards.publishing.markdown import table, text, yaml
from hexshards.publishing.options import PublishSpec
from hexshards.publishing.preview import fields_of
from hexshards.units import counted, show_bytes

NAME = "README.md"

CONFIG = "positions"
"""Name of the config: the preview."""

LISTED_FILES = 200
"""Source files that get a row."""

LISTED_HEADERS = 20
"""Lines of a source file's head that are shown."""

_MARK = re.compile(r"\n<!-- written by hexshards publish: ([0-9a-f]{64}) -->\n\Z")
"""The last line, with the SHA-256 of all before it."""

_HEAD_ALONE = re.compile(r"---\s*\n(?:(?!---).*\n)*---\s*\Z")


def preview_name(split: str) -> str:
    """Where a split's preview is."""
    return f"preview/{split}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card is made of."""

    index: Index
    spec: PublishSpec
    place: str
    """Where the dataset will be, without secrets; a name alone where it is a folder."""
    previewed: Mapping[str, int]
    """Rows of each split's preview."""

    @property
    def name(self) -> str:
        """The title."""
        return self.spec.name or PurePosixPath(self.place.rstrip("/")).name or "Hex positions"

    @property
    def lead(self) -> str:
        """The dataset in a sentence."""
        return lead(self.index)


def card_of(card: Card) -> str:
    """The whole file."""
    parts = (_title(card), _splits(card), _loading(card), _preview(card), _columns(card), _made(card), _sources(card))
    body = f"---\n{yaml(_head(card))}---\n\n" + "\n".join(parts)
    return f"{body}\n<!-- written by hexshards publish: {_digest(body)} -->\n"


def untouched(there: str) -> bool:
    """Whether nobody wrote in a card: it is as ``card_of`` made it, or a head alone, as a new repository's may be."""
    mark = _MARK.search(there)
    return _HEAD_ALONE.match(there) is not None or (mark is not None and _digest(there[: mark.start()]) == mark[1])


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def size_category(positions: int) -> str:
    """The hub's name for so many rows: 1K<n<10K."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    above = sum(positions >= 1000 * 10**power for power in range(len(names)))
    if above == 0:
        return f"n<{names[0]}"
    return f"n>{names[-1]}" if above == len(names) else f"{names[above - 1]}<n<{names[above]}"


def _head(card: Card) -> dict[str, object]:
    positions = sum(split.positions for split in card.index.splits.values())
    files = [{"split": split, "path": preview_name(split)} for split in card.index.splits]
    return {
        "license": card.spec.license,
        "pretty_name": card.name,
        "size_categories": [size_category(positions)],
        "tags": ["hex", "board-games", "webdataset", "hexshards"],
        "configs": [{"config_name": CONFIG, "default": True, "data_files": files}],
    }


# what stands on it --------------------------------------------------------------------------------------------------


def _title(card: Card) -> str:
    shown = " and ".join(f"{count:,} of {split}" for split, count in card.previewed.items())
    return (
        f"# {text(card.name)}\n\n{text(card.lead)} Training data for engines that play the board game "
        "[Hex](https://en.wikipedia.org/wiki/Hex_(board_game)): which move to play, and who wins.\n\n"
        f"The viewer shows a sample of single positions, {shown}, drawn at random. All of them are in the "
        "`.tar` files, in blocks, packed and compressed. License: "
        f"{text(card.spec.license)}.\n"
    )


def _splits(card: Card) -> str:
    said = splits(card.index)
    games = "No game is in more than one split.\n" if len(card.index.splits) > 1 else ""
    return f"## What is in it\n\n{table(said.heads, said.rows, numbers=said.numbers)}\n{games}"


def _preview(card: Card) -> str:
    rows = [(each.name, each.kind, each.doc) for each in fields_of(card.index)]
    rows.append(("split", "string", " or ".join(card.index.splits)))
    said = table(["Column", "Type", "Meaning"], rows, names=(0, 1))
    return f"## The preview's columns\n\nA row is one position.\n\n{said}"


def _columns(card: Card) -> str:
    side, layout = card.index.side, card.index.layout
    rows = [
        (each.name, each.dtype.name, " × ".join(map(str, each.shape(side))) or "1", each.doc)
        for each in layout.declared
    ]
    said = table(["Column", "Type", "A position", "Meaning"], rows, names=(0, 1))
    block = counted(layout.block_positions, "position")
    return (
        f"## The shards' columns\n\nA sample of the tars is a block of up to {block} with a member "
        f"for each column. A cell is row × {side} + column; BLUE moves first and connects top and bottom.\n\n"
        f"{said}"
    )


def _made(card: Card) -> str:
    facts = [(term, said) for term, said in facts_of(card.index) if term != "Columns"]
    return f"## How it was made\n\n{table(['', ''], [*facts, ('Card by', f'hexshards {__version__}')])}"


def _sources(card: Card) -> str:
    inputs = card.index.inputs
    rows: list[tuple[object, ...]] = [
        (
            file.name,
            file.format,
            f"{file.positions:,}",
            f"{file.rejected:,}",
            show_bytes(file.size_bytes),
            file.sha256[:12],
        )
        for file in inputs[:LISTED_FILES]
    ]
    if (more := len(inputs) - LISTED_FILES) > 0:
        rows.append((f"and {counted(more, 'more file')}, listed in index.json", *[""] * 5))
    heads = ["File", "Format", "Positions", "Rejected", "Size", "SHA-256"]
    said = table(heads, rows, numbers=(2, 3, 4), names=(0, 5))
    return f"## Where it comes from\n\n{said}{_heads(card.index)}"


def _heads(index: Index) -> str:
    """What converters and the files' heads say of them, each text once."""
    said = dict[str, int]()
    for file in index.inputs:
        headers = (f"{name}: {value}" for name, value in islice(file.headers.items(), LISTED_HEADERS))
        line = "; ".join(filter(None, [file.notes, *headers]))
        said[line] = said.get(line, 0) + 1
    said.pop("", None)
    rows = [*islice(said.items(), LISTED_HEADERS)]
    return f"\n{table(['What they say of themselves', 'Files'], rows, numbers=(1,))}" if rows else ""


# how it is loaded ---------------------------------------------------------------------------------------------------


def _loading(card: Card) -> str:
    place = card.place.replace("\\", "").replace('"', "")
    hub = place.removeprefix("hf://datasets/") if place.startswith("hf://datasets/") else ""
    first = next(iter(card.index.splits))
    files = ", ".join(f'"{split}": "{place}/{preview_name(split)}"' for split in card.index.splits)
    named = f'"{hub or place}", split="{first}"' if hub or "://" not in place else f'"parquet", data_files={{{files}}}'
    shards = [shard.name for shard in card.index.splits[first].shards]
    urls = f"{place}/{first}-{{{shards[0][-10:-4]}..{shards[-1][-10:-4]}}}.tar"
    opened = urls if not hub else f"https://huggingface.co/datasets/{hub}/resolve/main/{urls.removeprefix(place + '/')}"
    decode = "hexshards.decode_column" if card.index.layout.codec == "zstd" else ""
    stock = f"webdataset.WebDataset({_quoted(opened)}, shardshuffle=False).decode({decode})"
    blocks = f'load_dataset("webdataset", data_files={{"{first}": {_quoted(f"{place}/{first}-*.tar")}}})'
    return (
        "## How to load it\n\n"
        + _code(
            "hexshards: shuffled and augmented batches, exact resume",
            "import hexshards",
            f'loader = hexshards.loader({_quoted(place)}, batch_size=256, augment="random", seed=0)',
            "for board, policy, value in loader:  # float32 (B, 3, S, S), (B, S * S), (B, 1)",
            "    ...",
        )
        + _code(
            "datasets: the preview",
            "from datasets import load_dataset",
            f"positions = load_dataset({named})",
        )
        + _code(
            "datasets: all positions, a row for each block",
            "from datasets import load_dataset",
            f"blocks = {blocks}",
        )
        + _code(
            "webdataset: all positions, a sample for each block",
            *(["import hexshards"] if decode else []),
            "import webdataset",
            f"blocks = {stock}",
        )
    )


def _quoted(place: str) -> str:
    return f'"{without_secrets(place)}"'


def _code(title: str, *lines: str) -> str:
    return f"{title}:\n\n```python\n" + "\n".join(lines) + "\n```\n\n"
