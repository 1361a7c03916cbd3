"""Preview: single positions of a few blocks as a table, one row each, for people who look at data in a browser.

Which positions follows from the dataset alone, and from how many are asked for. Of a split no more blocks are read
than are needed for these, and 16 at least, one after another.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Blocks
from hexshards.dataset.index import Index
from hexshards.errors import DataError, printable, without_secrets
from hexshards.game.board import BLUE, RED, move_name
from hexshards.game.columns import COUNT, NO_POLICY, SCALARS, UNKNOWN, VISITS, Column
from hexshards.game.diagram import NAMES
from hexshards.game.positions import Positions, concat
from hexshards.game.visits import visit_entries
from hexshards.rng import PREVIEW, permutation
from hexshards.storage.files import Home

if TYPE_CHECKING:
    import pyarrow

BLOCKS = 16
"""Blocks of a split that are read at least: of as many shards, where files were added in the course of time."""

MARKS = {BLUE: "B", RED: "R", -1: "·"}
"""How a cell stands in the text of a board."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column of the preview."""

    name: str
    kind: str
    """Its type, in words of Arrow."""
    doc: str
    values: Callable[[Positions, Index], Sequence[Any]]
    """Its entries, None for what is unknown."""


def sample_of(home: Home, index: Index, split: str, *, count: int) -> Positions:
    """Some positions of a split, from blocks drawn by the dataset's fingerprint. Raises DataError for a damaged one."""
    blocks, names = Blocks(home, index, split), tuple(index.layout.columns())
    seed = int(index.fingerprint[:8], 16)
    chosen = blocks.drawn(count, seed, PREVIEW, least=BLOCKS)
    parts = dict[int, Positions]()
    # small blocks first: what they lack the others give
    for number, block in enumerate(sorted(chosen.tolist(), key=lambda block: (blocks.rows[block], block))):
        (columns,) = blocks.read(np.array([block]), names)
        if isinstance(columns, DataError):
            raise columns
        rows = Positions.of(index.side, columns, index.layout.optional)
        wanted = -(-(count - sum(map(len, parts.values()))) // (len(chosen) - number))
        parts[block] = rows.take(np.sort(permutation(len(rows), seed, PREVIEW, 1 + block)[:wanted]))
    return concat([parts[block] for block in sorted(parts)])


def fields_of(index: Index) -> Iterator[Field]:
    """The columns of a dataset's preview: the registry's, as a person reads them."""
    cells = index.side**2
    yield Field(name="board", kind="string", doc="the board, row by row: B BLUE, R RED, · empty", values=_boards)
    yield Field(
        name="cells",
        kind="list<int8>",
        doc=f"the same as {cells} numbers, row by row: 0 empty, 1 BLUE, 2 RED",
        values=_cells,
    )
    yield Field(name="player", kind="string", doc="who is to move: BLUE or RED", values=_players)
    yield Field(
        name="move", kind="string", doc="the move to learn, letter of the column and number of the row", values=_moves
    )
    yield Field(name="cell", kind="int16", doc="the same as a number, row * side + column, from 0", values=_targets)
    if index.layout.soft:
        doc = "the policy to learn, the most likely move first"
        yield Field(name="policy", kind="list<struct<move: string, share: float>>", doc=doc, values=_policies)
    yield from map(_scalar, (*SCALARS[1:], *([COUNT] if index.layout.counted else [])))
    for column in index.layout.optional:
        if column == VISITS:
            doc = "moves that a search visited and how often, the most visited first"
            yield Field(name="visits", kind="list<struct<move: string, count: int32>>", doc=doc, values=_visits)
        elif not column.size:
            yield _scalar(column)


def table_of(positions: Positions, index: Index, split: str) -> pyarrow.Table:
    """Positions as a table, and the split that they are of. Raises ValueError where pyarrow is missing."""
    arrow = with_arrow()
    columns = {
        each.name: arrow.array(each.values(positions, index), type=_type(each.kind)) for each in fields_of(index)
    }
    return arrow.table({**columns, "split": arrow.array([split] * len(positions), type=arrow.string())})


def parquet_of(table: pyarrow.Table) -> bytes:
    """A table as a Parquet file."""
    from pyarrow import parquet

    out = io.BytesIO()
    # small groups let a viewer show a page without reading all of it
    parquet.write_table(table, out, compression="zstd", row_group_size=1000)
    return out.getvalue()


def with_arrow() -> Any:
    """The module pyarrow. Raises ValueError where it is missing."""
    try:
        import pyarrow
    except ImportError:
        raise ValueError(
            "pyarrow, which writes the preview, is not installed. Run: pip install 'hexshards[publish]'"
        ) from None
    return pyarrow


def _type(kind: str) -> Any:
    import pyarrow

    simple = {name: getattr(pyarrow, name)() for name in ("string", "int8", "int16", "int32", "int64")}
    simple |= {"float": pyarrow.float32()}
    if kind in simple:
        return simple[kind]
    inner = kind.removeprefix("list<").removesuffix(">")
    if not inner.startswith("struct<"):
        return pyarrow.list_(simple[inner])
    parts = (part.split(": ") for part in inner.removeprefix("struct<").removesuffix(">").split(", "))
    return pyarrow.list_(pyarrow.struct([(name, simple[each]) for name, each in parts]))


# columns ------------------------------------------------------------------------------------------------------------


def _stones(positions: Positions) -> NDArray[np.int8]:
    blue, red = np.moveaxis(positions.planes().reshape(len(positions), 2, -1), 1, 0)
    return (blue + 2 * red).astype(np.int8)


def _cells(positions: Positions, index: Index) -> Sequence[Any]:
    return list(_stones(positions))


def _boards(positions: Positions, index: Index) -> Sequence[Any]:
    letters = np.array([MARKS[-1], MARKS[BLUE], MARKS[RED]])[_stones(positions)]
    rows = letters.reshape(len(positions), index.side, index.side).tolist()
    # each row stands half a cell further right, as the hexagons do
    return ["\n".join(" " * at + " ".join(row) for at, row in enumerate(board)) for board in rows]


def _players(positions: Positions, index: Index) -> Sequence[Any]:
    return [NAMES[player] for player in positions.player.tolist()]


def _targets(positions: Positions, index: Index) -> Sequence[Any]:
    if positions.soft:
        targets = np.where(positions.policy.any(axis=1), positions.policy.argmax(axis=1), NO_POLICY)
    else:
        targets = positions.policy.astype(np.int64)
    return [None if cell == NO_POLICY else cell for cell in targets.tolist()]


def _moves(positions: Positions, index: Index) -> Sequence[Any]:
    return [None if cell is None else move_name(cell, side=index.side) for cell in _targets(positions, index)]


def _policies(positions: Positions, index: Index) -> Sequence[Any]:
    shown = []
    for row in positions.policy.astype(np.float64):
        likely = sorted(np.flatnonzero(row).tolist(), key=lambda cell, row=row: (-row[cell], cell))  # type: ignore[misc]
        shown.append([{"move": move_name(cell, side=index.side), "share": row[cell]} for cell in likely])
    return shown


def _visits(positions: Positions, index: Index) -> Sequence[Any]:
    entries = visit_entries(positions.optional[VISITS])
    shown: list[list[dict[str, Any]]] = [[] for _ in range(len(positions))]
    for row, cell, count in zip(*(part.tolist() for part in entries), strict=True):
        shown[row].append({"move": move_name(cell, side=index.side), "count": int(count)})
    return shown


_KINDS = {"u1": "int16", "i1": "int16", "u2": "int32", "i2": "int16", "u4": "int64", "i4": "int32", "i8": "int64"}
"""Types of whole numbers; of the rest are fractions."""


def _scalar(column: Column) -> Field:
    """A column with one number a position, unknown ones left out; of sources the file's name."""
    if column.name == "source":
        return Field(name="source", kind="string", doc="the file that the game came from", values=_sources)
    kind = _KINDS.get(column.dtype.str[1:], "float")
    doc = printable(column.doc.replace(", -1 unknown", "").replace(", NaN unknown", ""), width=200)
    return Field(name=column.name, kind=kind, doc=doc, values=lambda positions, index: _known(positions, column))


def _known(positions: Positions, column: Column) -> Sequence[Any]:
    values = positions.columns()[column.name]
    # 1 is a weight as good as any, and what a lacking one counts as
    unknown = UNKNOWN if column.unknown == UNKNOWN else None
    return [None if value == unknown or value != value else value for value in values.tolist()]


def _sources(positions: Positions, index: Index) -> Sequence[Any]:
    names = {number: source_name(index, number) for number in np.unique(positions.source).tolist()}
    return [names[number] for number in positions.source.tolist()]


def source_name(index: Index, number: int) -> str:
    """The name of a source as it may be shown: in one line, without secrets."""
    return printable(without_secrets(index.sources[number]), width=200)
