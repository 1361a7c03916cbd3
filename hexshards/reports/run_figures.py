"""Runs on a page: a table, a figure for each panel with all runs in it, and their hardest positions as boards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hexshards.dataset.blocks import Columns
from hexshards.dataset.filters import Filter, Selection
from hexshards.dataset.index import Index
from hexshards.drawing.charts import TONE_QUIET, Series, chart
from hexshards.drawing.tables import Table
from hexshards.errors import DataError, escaped, printable
from hexshards.game.diagram import caption_of, diagram_of
from hexshards.game.diagram_svg import draw
from hexshards.game.positions import Positions
from hexshards.reports.figures import Figure
from hexshards.reports.history import History, number, read_history
from hexshards.reports.page import Board, RunsPart
from hexshards.reports.panels import Panel, panels_of
from hexshards.reports.runs import RunSummary, differing, option_of, summary_of
from hexshards.reports.validations import MEASURE, apart, is_of, name_of, named, validation_index, validation_of
from hexshards.reports.verdicts import Verdict
from hexshards.storage.files import Home
from hexshards.training.steps.heads import HEADS, Head
from hexshards.units import counted, show_duration

HARDEST, FEWEST_OF_EACH = 6, 2
"""Hard positions that are drawn, and how many of each run at least."""

MOST_RUNS = 24
"""Runs whose curves are drawn; of more, the table has all."""


def runs_part(home: Home, index: Index, runs: Sequence[Path], *, most: int, left_out: Sequence[str] = ()) -> RunsPart:
    """All that a page says of some runs. ``most``: positions of val that are read for the hardest ones.

    ``left_out``: why other runs are not among them.

    Raises FileNotFoundError where a folder holds none, DataError where what it holds is damaged.
    """
    histories = [read_history(run) for run in runs]
    drawn = histories[:MOST_RUNS]
    boards, missing = _hardest(home, index, drawn, most=most)
    lost = f" {counted(missing, 'more position', verb='is/are')} not in what was read of val." if missing else ""
    return RunsPart(
        table=_table(runs, histories),
        legend=[(at, history.name) for at, history in enumerate(drawn)] if len(drawn) > 1 else [],
        notes=[*_warnings(drawn), *(f"Left out: {each}." for each in left_out)],
        figures=[_figure(panel, drawn) for panel in panels_of(drawn)],
        hardest=boards,
        hardest_note="Positions of val with the largest losses at the end of a run. The ring is the move to learn."
        + lost,
    )


def validations_verdict(index: Index, runs: Sequence[Path]) -> Verdict | None:
    """That runs were validated on other positions than each other, or than val of the dataset; None where on these."""
    held = [(run, validation_index(run)) for run in runs]
    strange = [escaped(run) for run, each in held if each and not is_of(index, each)]
    differ = apart([validation_of(run) for run in runs])
    if not (strange or differ):
        return None
    others = f"{', '.join(strange)}: validated on positions that are not in val of this dataset" if strange else ""
    says = ". ".join(each for each in (others, differ and f"R{differ[1:]}") if each)
    return Verdict(name="Validation of the runs", level="look", says=f"{says}.", do=f"{MEASURE}.")


def _table(runs: Sequence[Path], histories: Sequence[History]) -> Table:
    heads = [head for head in HEADS if any(history.newest(f"val.{head.loss_name}") for history in histories)]
    brought = [summary_of(run, run.parent) for run in runs]
    options, groups = differing(brought), named([each.validation for each in brought])
    names = ["Run", "Mini-epochs", "Samples", "Time", "Samples/s", "Best", "of"]
    names += [f"{head.title} loss" for head in heads]
    names += [head.metrics[0].name.replace("_", " ") for head in heads]
    numbers = [1, 2, 3, 4, 5, *range(7, len(names))]
    names += [*(["validation"] if groups else []), *options]
    rows = [
        [
            history.name,
            *_progress(each, history),
            *_newest(history, heads),
            *([name_of(each.validation, groups)] if groups else []),
            *_options(each, options),
        ]
        for each, history in zip(brought, histories, strict=True)
    ]
    return Table(heads=names, rows=rows, numbers=numbers)


def _progress(brought: RunSummary, history: History) -> Iterator[str]:
    yield f"{brought.mini_epochs:,}"
    yield f"{brought.samples:,}"
    yield "" if brought.seconds is None else show_duration(brought.seconds)
    yield _shown(number(history.records[-1], "samples_per_s"), "{:,.0f}")
    yield "" if brought.best is None else f"{brought.best:.4f}"
    yield "" if brought.best is None else brought.metric


def _options(brought: RunSummary, names: Sequence[str]) -> Iterator[str]:
    return (_option(option_of(brought, name)) for name in names)


def _option(value: object) -> str:
    return "" if value is None else printable(value)


def _newest(history: History, heads: Sequence[Head]) -> Iterator[str]:
    newest = history.records[-1]
    for head in heads:
        yield _shown(number(newest, f"val.{head.loss_name}"), "{:.4f}")
    for head in heads:
        value = number(newest, f"val.{head.metrics[0].name}")
        yield head.metrics[0].shown(value) if math.isfinite(value) else ""


def _shown(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else ""


def _warnings(histories: Sequence[History]) -> Iterator[str]:
    for history in histories:
        if warning := history.newest("diagnosis.warning"):
            yield f"{history.name}: {printable(warning, width=300)}."


def _figure(panel: Panel, histories: Sequence[History]) -> Figure:
    series = [each for at, history in enumerate(histories) for each in _series(panel, history, tone=at)]
    training = any(each.kind == "dashed" for each in series)
    if panel.diagonal:
        both = np.array([0.0, 1.0])
        series.insert(0, Series(x=both, y=both, kind="dashed", tone=TONE_QUIET))
    return Figure(
        title=panel.title,
        caption=_caption(panel, training=training),
        picture=chart(
            series,
            title=panel.title,
            below=panel.below,
            unit=panel.unit,
            percent=panel.percent,
            low=0 if panel.zero or panel.diagonal else None,
            high=1 if panel.diagonal else None,
        ),
    )


def _series(panel: Panel, history: History, *, tone: int) -> Iterator[Series]:
    for line in panel.lines(history):
        yield Series(x=line.x, y=line.y, kind="dashed" if line.training else "line", tone=tone)
        if line.shares is not None:
            yield Series(x=line.x, y=line.y, kind="dots", tone=tone, sizes=2 + 7 * np.sqrt(_between(line.shares)))


def _between(shares: NDArray[Any]) -> NDArray[Any]:
    """Shares of a record, which may say anything, between 0 and 1."""
    return np.asarray(np.clip(np.nan_to_num(shares), 0, 1))


def _caption(panel: Panel, *, training: bool) -> str:
    if panel.diagonal:
        return "An honest network is on the dashed line; the larger a dot, the more positions it stands for."
    return "Validation is the full line, training the dashed one." if training else ""


# the hardest positions ----------------------------------------------------------------------------------------------


def _hardest(home: Home, index: Index, histories: Sequence[History], *, most: int) -> tuple[list[Board], int]:
    """Boards of the hardest positions of each run, and how many of them were not met."""
    of_each = max(FEWEST_OF_EACH, HARDEST // len(histories))
    told = [(history, each) for history in histories for each in _told(history)[:of_each]]
    if not told or "val" not in index.splits:
        return [], len(told)
    looked_at = max(number(history.records[-1], "diagnosis.positions") for history, _ in told)
    limit = int(min(most, looked_at)) if math.isfinite(looked_at) and looked_at >= 1 else most
    wanted = {_key(each) for _, each in told}
    met = _met(home, index, wanted, limit=limit)
    several = len(histories) > 1
    boards = [_board(history, each, met[_key(each)], several=several) for history, each in told if _key(each) in met]
    return boards, len(told) - len(boards)


def _told(history: History) -> list[Mapping[str, Any]]:
    hardest = history.newest("diagnosis.hardest")
    return [each for each in hardest if isinstance(each, dict)] if isinstance(hardest, list) else []


Key = tuple[str, object, object]
"""What a diagnosis says of a position: source, line and ply."""


def _key(entry: Mapping[str, Any]) -> Key:
    line, ply = (each if isinstance(each, int) else None for each in (entry.get("line"), entry.get("ply")))
    return printable(entry.get("source")), line, ply


def _met(home: Home, index: Index, wanted: set[Key], *, limit: int) -> dict[Key, Positions]:
    """Those of the wanted positions that are among the positions that a diagnosis looks at."""
    selection = Selection(home, index, "val", where=Filter(), limit=limit)
    names = tuple(index.layout.columns())
    sources = [printable(name) for name in index.sources]
    met = dict[Key, Positions]()
    for block in np.flatnonzero(selection.block_rows):
        (columns,) = selection.read(np.array([block]), names)
        if isinstance(columns, DataError):
            raise columns
        for row, key in enumerate(_keys(columns, sources)):
            if key in wanted and key not in met:
                one = {name: columns[name][row : row + 1].copy() for name in names}
                met[key] = Positions.of(index.side, one, index.layout.optional)
    return met


def _keys(columns: Columns, sources: Sequence[str]) -> Iterator[Key]:
    three = (columns[name].tolist() for name in ("source", "game", "ply"))
    return ((sources[source], game, ply) for source, game, ply in zip(*three, strict=True))


def _board(history: History, entry: Mapping[str, Any], position: Positions, *, several: bool) -> Board:
    name = f"{history.name}: " if several else ""
    preferred, move = printable(entry.get("preferred")), printable(entry.get("move"))
    target = f"; the move {move} had {_part(entry, 'move_probability')}" if entry.get("move") else ""
    where = f"{printable(entry.get('source'))} line {printable(entry.get('line'))}"
    said = f"loss {_shown(number(entry, 'loss'), '{:.2f}')}; it gave RED {_part(entry, 'red_wins')}{target}"
    return Board(
        heading=caption_of(position, 0),
        caption=f"{name}{said}; it would play {preferred}. {where}",
        picture=draw(diagram_of(position, 0), shared=True),
    )


def _part(entry: Mapping[str, Any], name: str) -> str:
    return _shown(number(entry, name), "{:.1%}") or "?"
