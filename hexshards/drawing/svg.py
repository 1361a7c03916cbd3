"""SVG and HTML as trees of elements: text that comes in stays text, whatever it holds, and numbers are short.

Colours are attributes, which any style sheet overrides: a picture that stands alone has those of a light page.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from hexshards.errors import escaped

Element = ElementTree.Element
"""A tree of elements."""

FONT = "system-ui, sans-serif"


def element(tag: str, *children: Element, text: object = "", **attributes: object) -> Element:
    """An element of some name; ``class_`` is its class, ``stroke_width`` its ``stroke-width``, None is left out.

    Text and attributes have no control characters: see ``errors.escaped``. Floats are rounded to two digits.
    """
    made = Element(tag, {_name(name): _value(value) for name, value in attributes.items() if value is not None})
    made.text = escaped(text) or None
    made.extend(children)
    return made


def picture(width: float, height: float, children: Iterable[Element], *, title: str, **attributes: object) -> Element:
    """A whole picture of a size in pixels, with a title for those who hear it."""
    return element(
        "svg",
        element("title", text=title),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=round(width),
        height=round(height),
        role="img",
        **attributes,
    )


def label(x: float, y: float, said: object, **attributes: object) -> Element:
    """A line of text that begins at a place, or is centred on it with ``text_anchor="middle"``."""
    return element("text", text=said, x=x, y=y, **attributes)


def markup(tree: Element) -> str:
    """A picture as text: well-formed XML, which HTML takes too."""
    return ElementTree.tostring(tree, encoding="unicode")


def html(tree: Element) -> str:
    """A tree of HTML as text."""
    return ElementTree.tostring(tree, encoding="unicode", method="html")


def number(value: float) -> str:
    """A number with two digits behind the point at most."""
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def points(places: Iterable[tuple[float, float]]) -> str:
    """Places as the ``points`` of a polyline."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in places)


def _name(name: str) -> str:
    return name.rstrip("_") if name == "class_" or name in _CAMEL else name.replace("_", "-")


def _value(value: object) -> str:
    return number(value) if isinstance(value, float) else escaped(value)


_CAMEL = ("viewBox",)
