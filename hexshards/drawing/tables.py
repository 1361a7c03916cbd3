"""Tables and lists of facts as HTML, for notebooks: trees of elements, so that text stays text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hexshards.drawing.svg import Element, element, html


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under heads; ``numbers`` are the columns that are aligned on the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


def summary(title: str, *parts: Element) -> str:
    """What a notebook shows of an object: a title and what stands below it."""
    return html(element("div", element("p", element("strong", text=title)), *parts, class_="hexshards"))


def table(facts: Table) -> Element:
    """A table."""
    head = element("tr", *_cells("th", facts.heads, facts.numbers))
    body = (element("tr", *_cells("td", row, facts.numbers)) for row in facts.rows)
    return element("table", element("thead", head), element("tbody", *body))


def facts(rows: Iterable[tuple[str, str]]) -> Element:
    """Terms, and what is said of each."""
    return table(Table(heads=[], rows=[*rows]))


def _cells(tag: str, row: Sequence[str], numbers: Sequence[int]) -> Iterable[Element]:
    for at, said in enumerate(row):
        yield element(tag, text=said, style=f"text-align: {'right' if at in numbers else 'left'}")
