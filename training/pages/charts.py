"""Charts of the report as inline SVG: no image library, no script, legible in light and dark.

Colours are CSS classes of the template, so one drawing serves both schemes. Every text is escaped on its way in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH = 960
CHARACTER = 6.7  # width of one character of a label, in user units (12 px system font)
LONGEST_LABEL = 26
MOST_DOTS = 80  # of one curve: beyond, they are a smear


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: its name.
        values: one bar each, all in one unit.
        texts: what to write at the end of each bar.
        tone: CSS class of the first bar ("on", "weak", "off").
        hint: shown when the pointer rests on the row.
    """

    label: str
    values: tuple[float, ...]
    texts: tuple[str, ...]
    tone: str = "on"
    hint: str = ""


@dataclass(frozen=True)
class Line:
    """One curve of a line chart.

    Attributes:
        name: of the curve.
        parts: each of points (x, y) ascending in x, with gaps between.
        area: (x, low, high) ascending in x: an interval, shaded; it does not widen the axes.
    """

    name: str
    parts: tuple[tuple[tuple[float, float], ...], ...]
    area: tuple[tuple[float, float, float], ...] = ()


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that lie in [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def bar_chart(
    bars: Sequence[Bar], *, title: str, scale: Literal["linear", "log"] = "linear", width: int = WIDTH
) -> Markup:
    """Horizontal bars, one group a row.

    Args:
        bars: rows from top to bottom; their first bar takes the row's tone, the others "second".
        title: what the chart shows, for screen readers.
        scale: "log" starts at 1 and suits counts of very different sizes.
        width: of the drawing, in user units.
    """
    thick = 13
    step = thick * max((len(bar.values) for bar in bars), default=1) + 8
    left = 12 + CHARACTER * min(LONGEST_LABEL, max((len(bar.label) for bar in bars), default=0))
    right = 12 + CHARACTER * max((len(note) for bar in bars for note in bar.texts), default=0)
    room = width - left - right

    def length(value: float) -> float:
        return math.log10(max(value, 1.0)) if scale == "log" else max(value, 0.0)

    longest = max((length(value) for bar in bars for value in bar.values), default=0.0) or 1.0
    rows = []
    for index, bar in enumerate(bars):
        middle = index * step + step / 2
        drawn = [Markup("<title>{}</title>").format(bar.hint or bar.label)]
        drawn.append(text(left - 8, middle, _short(bar.label), "end", "label" if bar.tone != "off" else "label off"))
        top = middle - thick * len(bar.values) / 2
        for place, (value, note) in enumerate(zip(bar.values, bar.texts, strict=True)):
            wide = max(room * length(value) / longest, 1.0)
            tone = bar.tone if place == 0 else "second"
            drawn.append(
                Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="2"/>').format(
                    tone, left, top + place * thick + 0.5, wide, thick - 1
                )
            )
            drawn.append(text(left + wide + 6, top + (place + 0.5) * thick, note, "start", "value"))
        rows.append(Markup("<g>{}</g>").format(Markup().join(drawn)))
    return drawing(width, len(bars) * step + 4, title, rows)


def heat_map(names: Sequence[str], values: Sequence[Sequence[float]], *, title: str) -> Markup:
    """A square of cells in [0, 1], darker the larger; the lower triangle only, as redundancy is symmetric."""
    left = 12 + CHARACTER * min(LONGEST_LABEL, max((len(name) for name in names), default=0))
    cell = min(30.0, (WIDTH - left - 90) / max(len(names), 1))
    foot = left * 0.75
    drawn = []
    for row, name in enumerate(names):
        middle = (row + 0.5) * cell
        drawn.append(text(left - 8, middle, _short(name), "end", "label"))
        along = left + middle
        drawn.append(
            Markup(
                '<text class="label" text-anchor="end" transform="translate({:.1f} {:.1f}) rotate(-50)">{}</text>'
            ).format(along + 4, len(names) * cell + 10, _short(name))
        )
        for column in range(row + 1):
            value = min(max(float(values[row][column]), 0.0), 1.0)
            if row == column:
                shade = Markup('class="cell self"')
            else:
                shade = Markup('class="cell" fill-opacity="{:.3f}"').format(value)
            drawn.append(
                Markup('<rect {} x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
                    shade,
                    left + column * cell,
                    row * cell,
                    cell - 1,
                    cell - 1,
                    name if row == column else f"{name} and {names[column]}: {value:.3f}",
                )
            )
            if row != column and value >= 0.05 and cell >= 22:  # noqa: PLR2004 - what is worth a number, and fits one
                tone = "number on" if value > 0.55 else "number"  # noqa: PLR2004 - from here white reads better
                drawn.append(text(left + (column + 0.5) * cell, middle, _hundredths(value), "middle", tone))
    return drawing(WIDTH, len(names) * cell + foot + 12, title, drawn)


def line_chart(
    lines: Sequence[Line], *, title: str, x_label: str, y_label: str, bands: Sequence[tuple[str, float, float]] = ()
) -> Markup:
    """Curves over a common axis, with named bands (phases) behind them.

    Args:
        lines: the curves; a part of a single point is drawn as a dot.
        title: what the chart shows, for screen readers.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        bands: (name, first x, last x) of each phase.
    """
    points = [point for line in lines for part in line.parts for point in part]
    if not points:
        return Markup("")
    low_x, high_x = _span([x for x, _ in points])
    low_y, high_y = _span([y for _, y in points], pad=0.06)
    top, left, tall = 62, 78, 260
    wide = WIDTH - left - 14

    def at(x: float, y: float) -> tuple[float, float]:
        return left + wide * (x - low_x) / (high_x - low_x), top + tall * (high_y - y) / (high_y - low_y)

    drawn = []
    for index, (name, start, end) in enumerate(bands):
        x0, x1 = at(max(start, low_x), high_y)[0], at(min(end, high_x), high_y)[0]
        if index % 2 == 0:
            drawn.append(
                Markup('<rect class="band" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                    x0, top, max(x1 - x0, 0.0), tall
                )
            )
        drawn.append(text((x0 + x1) / 2, top - 11, name, "middle", "note"))
    drawn += _axes(at, (low_x, high_x), (low_y, high_y), x_label, y_label)
    along = float(left)
    for index, line in enumerate(lines):
        rim = [(x, low) for x, low, _ in line.area] + [(x, high) for x, _, high in reversed(line.area)]
        if rim:
            path = " ".join("{:.1f},{:.1f}".format(*at(x, min(max(y, low_y), high_y))) for x, y in rim)
            drawn.append(Markup('<polygon class="area s{}" points="{}"/>').format(index % 6, path))
        dots = sum(len(part) for part in line.parts) <= MOST_DOTS
        for part in line.parts:
            if len(part) > 1:
                path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in part)
                hint = Markup("<title>{}</title>").format(line.name)
                drawn.append(
                    Markup('<polyline class="line s{}" points="{}">{}</polyline>').format(index % 6, path, hint)
                )
            for x, y in part if dots or len(part) == 1 else ():
                hint = Markup("<title>{}</title>").format(f"{line.name}: {x:g}, {y:.5g}")
                drawn.append(
                    Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="2.6">{}</circle>').format(
                        index % 6, *at(x, y), hint
                    )
                )
        drawn.append(
            Markup('<rect class="key s{}" x="{:.1f}" y="18" width="14" height="4" rx="2"/>').format(index % 6, along)
        )
        drawn.append(text(along + 20, 20, line.name, "start", "label"))
        along += 36 + CHARACTER * len(line.name)
    return drawing(WIDTH, top + tall + 44, title, drawn)


def reliability(points: Sequence[tuple[float, float, float]], *, title: str) -> Markup:
    """Observed against predicted rate; a dot's area is its share of the rows.

    Args:
        points: (mean prediction, observed rate, share of rows) a bin.
        title: what the chart shows, for screen readers.
    """
    high = max((max(x, y) for x, y, _ in points), default=0.0) * 1.08 or 1.0
    top, left, side = 14, 78, 340

    def at(x: float, y: float) -> tuple[float, float]:
        return left + side * x / high, top + side * (high - y) / high

    drawn = _axes(at, (0.0, high), (0.0, high), "predicted rate", "observed rate")
    (x0, y0), (x1, y1) = at(0, 0), at(high, high)
    drawn.append(Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(x0, y0, x1, y1))
    path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y, _ in points)
    drawn.append(Markup('<polyline class="line s0 thin" points="{}"/>').format(path))
    largest = max((share for _, _, share in points), default=1.0) or 1.0
    for x, y, share in points:
        drawn.append(
            Markup('<circle class="dot s0" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>').format(
                *at(x, y), 2.0 + 6.0 * math.sqrt(share / largest), f"predicted {x:.4f}, observed {y:.4f}, {share:.1%}"
            )
        )
    return drawing(left + side + 20, top + side + 44, title, drawn)


def _axes(
    at: Callable[[float, float], tuple[float, float]],
    x: tuple[float, float],
    y: tuple[float, float],
    x_label: str,
    y_label: str,
) -> list[Markup]:
    (left, bottom), (right, top) = at(x[0], y[0]), at(x[1], y[1])
    drawn = []
    for value in ticks(*y):
        height = at(x[0], value)[1]
        drawn.append(
            Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                left, right, height, height
            )
        )
        drawn.append(text(left - 7, height, f"{value:g}", "end", "value"))
    drawn += [text(at(value, y[0])[0], bottom + 14, f"{value:g}", "middle", "value") for value in ticks(*x, count=8)]
    drawn.append(
        Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(left, right, bottom, bottom)
    )
    drawn.append(text((left + right) / 2, bottom + 32, x_label, "middle", "note"))
    drawn.append(
        Markup('<text class="note" text-anchor="middle" transform="translate(13 {:.1f}) rotate(-90)">{}</text>').format(
            (top + bottom) / 2, y_label
        )
    )
    return drawn


def _span(values: Sequence[float], pad: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low - pad * (high - low), high + pad * (high - low)


def _hundredths(value: float) -> str:
    short = f"{value:.2f}"
    return "1" if short == "1.00" else short.removeprefix("0")


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def text(x: float, y: float, words: str, anchor: str, tone: str) -> Markup:
    """Words at a point, centred upright; `anchor` is SVG's text-anchor, `tone` a class of the template."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" dy="0.35em" text-anchor="{}">{}</text>').format(
        tone, x, y, anchor, words
    )


def drawing(width: float, height: float, title: str, drawn: Sequence[Markup]) -> Markup:
    """An SVG of this size, with a title for screen readers."""
    return Markup(
        '<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}" style="max-width:{:.0f}px">{}</svg>'
    ).format(width, height, title, width, Markup("\n").join(drawn))
