"""Charts as SVG: lines, bars and dots over two axes, sized so that their words can be read on a phone.

A number that is not there (NaN) leaves a gap. Tones are numbers of colours; a page's style sheet knows them as classes
``tone-0``, ``tone-1`` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hexshards.drawing.svg import FONT, Element, element, label, number, picture, points
from hexshards.errors import printable

WIDTH, HEIGHT = 360.0, 216.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 26.0, 36.0

TONES = ("#2f6f9f", "#b7791f", "#2f855a", "#8a4f9e", "#c05640", "#4a5568", "#0e8388", "#97266d")
"""Colours that are told apart; the first is for what there is one of."""

TONE_BLUE, TONE_RED, TONE_QUIET = -1, -2, -3
"""Tones of the two players, and of what is there for comparison."""

_NAMED = {TONE_BLUE: ("blue", "#2b6cb0"), TONE_RED: ("red", "#c0392b"), TONE_QUIET: ("quiet", "#8a8a8a")}

MARKED = 24
"""Points of a line that each get a dot; of more, none does."""

Kind = Literal["line", "dashed", "bars", "dots"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Numbers that belong together (N): a line, bars that begin at ``x`` and are ``width`` wide, or dots."""

    x: NDArray[Any]
    y: NDArray[Any]
    kind: Kind = "line"
    tone: int = 0
    name: str = ""
    width: float = 1.0
    """Of a bar, in units of ``x``."""
    sizes: NDArray[Any] | None = None
    """Radii of dots, in pixels."""
    hints: Sequence[str] = ()
    """What is said where a pointer rests, of each number."""

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which places have numbers."""
        return np.asarray(np.isfinite(self.x) & np.isfinite(self.y))


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers as places in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a number."""
        low, high, at = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def chart(
    series: Sequence[Series],
    *,
    title: str,
    below: str,
    unit: str = "",
    percent: bool = False,
    log: bool = False,
    low: float | None = None,
    high: float | None = None,
    guides: Sequence[float] = (),
) -> Element:
    """Series over two axes. ``low`` and ``high`` bound the vertical one; ``guides`` are lines across."""
    series = [each for each in series if each.there.any()]
    if not series:
        return picture(WIDTH, 60, [label(WIDTH / 2, 34, "No numbers to draw.", **_WORDS)], title=title, class_="chart")
    across, up = _scales(series, log=log, low=low, high=high, guides=guides)
    parts = [*_frame(across, up, below=below, unit=unit, percent=percent)]
    for guide in guides:
        parts.append(_line([(LEFT, up(guide)), (WIDTH - RIGHT, up(guide))], TONE_QUIET, dashed=True))
    for each in series:
        parts += _drawn(each, across, up)
    return picture(WIDTH, HEIGHT, parts, title=title, class_="chart", font_family=FONT)


def bar_list(rows: Sequence[tuple[str, float, str, int]], *, title: str) -> Element:
    """Named bars below each other, the longest as wide as there is room: name, number, what is said of it, tone."""
    step = 24.0
    most = max((value for _, value, _, _ in rows), default=0) or 1
    room, start = WIDTH - 190.0, 126.0
    parts = list[Element]()
    for place, (name, value, said, tone) in enumerate(rows):
        y = 4 + place * step
        kind, colour = _tone(tone)
        parts += [
            label(start - 8, y + 14, printable(name, width=20), text_anchor="end", **_TEXT),
            element(
                "rect",
                x=start,
                y=y + 4,
                width=max(1.0, room * value / most),
                height=13.0,
                fill=colour,
                class_=f"fill-{kind}",
            ),
            label(start + 6 + room * value / most, y + 14, said, **_TEXT),
        ]
    return picture(WIDTH, 8 + step * len(rows), parts, title=title, class_="chart", font_family=FONT)


def tone_class(tone: int) -> str:
    """The class of a tone, for a page's legend."""
    return f"fill-{_tone(tone)[0]}"


def counted_short(value: float) -> str:
    """A number as a tick says it: 1,500 as 1.5k, 2,000,000 as 2M, 0.0005 as 5e-4."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.3g}".partition("e")
        return f"{digits}e{int(power)}" if power else f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.3g}"


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers between two others: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [at * step for at in range(first, math.floor(high / step + 1e-9) + 1)]


_TEXT: dict[str, object] = {"class_": "chart-text", "fill": "#555", "font_size": 12.0}
_WORDS: dict[str, object] = {**_TEXT, "text_anchor": "middle"}


def _tone(tone: int) -> tuple[str, str]:
    """Name and colour."""
    return _NAMED[tone] if tone in _NAMED else (f"tone-{tone % len(TONES)}", TONES[tone % len(TONES)])


def _scales(
    series: Sequence[Series], *, log: bool, low: float | None, high: float | None, guides: Sequence[float]
) -> tuple[Scale, Scale]:
    y = np.concatenate([*(each.y[each.there] for each in series), np.asarray(guides, dtype=np.float64)])
    left = min(float(each.x[each.there].min()) for each in series)
    right = max(float(each.x[each.there].max()) + each.width * (each.kind == "bars") for each in series)
    zero = any(each.kind == "bars" for each in series) and not log
    bottom = low if low is not None else min(0.0, float(y.min())) if zero else float(y.min())
    top = high if high is not None else float(y.max())
    across = Scale(*_apart(left, right), LEFT, WIDTH - RIGHT)
    return across, Scale(*_apart(bottom, top, room=0 if high is not None else 0.04, log=log), HEIGHT - BOTTOM, TOP, log)


def _apart(low: float, high: float, *, room: float = 0, log: bool = False) -> tuple[float, float]:
    """Two bounds that are not one, with a little room above."""
    if log:
        return low, high * 1.1 if high > low * 1.5 else low * 2
    if not high > low:
        return (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    return low, high + (high - low) * room


def _frame(across: Scale, up: Scale, *, below: str, unit: str, percent: bool) -> Iterator[Element]:
    values = _log_ticks(up) if up.log else ticks(up.low, up.high)
    shown = _percent(values) if percent else counted_short
    for value in values:
        y = up(value)
        yield element(
            "line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="chart-grid", stroke="#ddd", stroke_width=0.8
        )
        yield label(LEFT - 6, y + 4, shown(value), **{**_TEXT, "text_anchor": "end"})
    for value in ticks(across.low, across.high):
        yield label(across(value), HEIGHT - BOTTOM + 15, counted_short(value), **_WORDS)
    yield label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, below, **_WORDS)
    if unit:
        yield label(4.0, 14.0, unit, **_TEXT)


def _percent(values: Sequence[float]) -> Callable[[float], str]:
    """Shares as percents, with as many digits as tell these apart."""
    step = values[1] - values[0] if len(values) > 1 else 1
    return f"{{:.{max(0, math.ceil(-math.log10(step * 100) - 1e-9))}%}}".format


def _log_ticks(up: Scale) -> list[float]:
    first, last = math.ceil(math.log10(up.low) - 1e-9), math.floor(math.log10(up.high) + 1e-9)
    step = max(1, (last - first) // 4)
    return [10.0**power for power in range(first, last + 1, step)]


def _drawn(series: Series, across: Scale, up: Scale) -> Iterator[Element]:
    if series.kind == "bars":
        yield from _bars(series, across, up)
    elif series.kind == "dots":
        yield from _dots(series, across, up)
    else:
        yield from _lines(series, across, up)


def _lines(series: Series, across: Scale, up: Scale) -> Iterator[Element]:
    there = np.flatnonzero(series.there)
    # a gap begins a new line
    for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if series.kind == "line" else [there]:
        places = [(across(float(series.x[at])), up(float(series.y[at]))) for at in run.tolist()]
        yield _line(places, series.tone, dashed=series.kind == "dashed")
        if len(there) <= MARKED and series.kind == "line":
            kind, colour = _tone(series.tone)
            for at, (x, y) in zip(run.tolist(), places, strict=True):
                yield _hinted(series, at, "circle", cx=x, cy=y, r=2.4, fill=colour, class_=f"fill-{kind}")


def _line(places: Sequence[tuple[float, float]], tone: int, *, dashed: bool) -> Element:
    kind, colour = _tone(tone)
    return element(
        "polyline",
        points=points(places),
        fill="none",
        stroke=colour,
        stroke_width=1.3 if dashed else 1.9,
        stroke_dasharray="4 3" if dashed else None,
        stroke_linejoin="round",
        class_=f"line-{kind}",
    )


def _dots(series: Series, across: Scale, up: Scale) -> Iterator[Element]:
    kind, colour = _tone(series.tone)
    for at in np.flatnonzero(series.there).tolist():
        radius = 2.8 if series.sizes is None else float(series.sizes[at])
        x, y = across(float(series.x[at])), up(float(series.y[at]))
        yield _hinted(series, at, "circle", cx=x, cy=y, r=radius, fill=colour, fill_opacity=0.75, class_=f"fill-{kind}")


def _bars(series: Series, across: Scale, up: Scale) -> Iterator[Element]:
    """Equal neighbours of many narrow bars are one shape."""
    kind, colour = _tone(series.tone)
    floor = up(up.low)
    if series.hints:
        for at in np.flatnonzero(series.there).tolist():
            x, y = across(float(series.x[at])), up(max(float(series.y[at]), up.low))
            wide = across(float(series.x[at]) + series.width) - x
            yield _hinted(
                series,
                at,
                "rect",
                x=x + wide * 0.06,
                y=y,
                width=wide * 0.88,
                height=max(0.0, floor - y),
                fill=colour,
                class_=f"fill-{kind}",
            )
        return
    path = list[str]()
    for at in np.flatnonzero(series.there & (series.y > up.low)).tolist():
        x, end = across(float(series.x[at])), across(float(series.x[at]) + series.width)
        gap = (end - x) * 0.06
        path.append(
            f"M{number(x + gap)},{number(floor)}V{number(up(float(series.y[at])))}H{number(end - gap)}V{number(floor)}Z"
        )
    yield element("path", d="".join(path), fill=colour, class_=f"fill-{kind}")


def _hinted(series: Series, at: int, tag: str, **attributes: object) -> Element:
    hint = [element("title", text=series.hints[at])] if series.hints else []
    return element(tag, *hint, **attributes)
