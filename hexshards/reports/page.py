"""The page of a report: one HTML file that loads nothing and runs nothing, whatever the names in it are.

Text is escaped by the template, control characters in it are written out, pictures come as trees of elements, and a
Content-Security-Policy allows one style sheet, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from hexshards.drawing.charts import tone_class
from hexshards.drawing.svg import Element, markup
from hexshards.drawing.tables import Table
from hexshards.errors import escaped
from hexshards.reports.figures import Figure
from hexshards.reports.verdicts import Verdict

LEVELS = {"good": "fine", "look": "look", "bad": "mend", "unknown": "not told"}
"""How verdicts stand, in a word."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Board:
    """A diagram with words above and below it."""

    heading: str
    caption: str
    picture: Element


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunsPart:
    """What is said of runs."""

    table: Table
    legend: Sequence[tuple[int, str]]
    notes: Sequence[str]
    figures: Sequence[Figure]
    hardest: Sequence[Board]
    hardest_note: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """All that stands on the page."""

    title: str
    lead: str
    read: str
    """What was read of the dataset."""
    made: str
    version: str
    verdicts: Sequence[Verdict]
    splits: Table
    facts: Sequence[tuple[str, str]]
    shared_board: Element
    boards: Sequence[Board]
    boards_note: str
    opening_figures: Sequence[Figure]
    opening_table: Table
    figures: Sequence[Figure]
    shared_boards: Sequence[Board]
    shared_note: str
    runs: RunsPart | None
    files: Table
    files_note: str
    files_summary: str


def rendered(page: Page) -> str:
    """A page as HTML. Raises ValueError where Jinja2 is missing."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise ValueError("Jinja2 is not installed. Run: pip install 'hexshards[report]'") from None
    style = (files("hexshards.reports") / "templates" / "report.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("hexshards.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else escaped(value),
    )
    return environment.get_template("report.html").render(
        page=page,
        levels=LEVELS,
        policy=policy_of(style),
        style=Markup(style),  # our own file
        svg=lambda picture: Markup(markup(picture)),  # a tree of elements, written by ElementTree
        tone_class=tone_class,
    )


def policy_of(style: str) -> str:
    """A Content-Security-Policy that lets a page have one style sheet, and load and run nothing."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
