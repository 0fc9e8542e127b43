"""Charts as inline SVG: lines over time and bars beside names, drawn by hand.

Colours are CSS variables of the page, so that the same picture serves light and dark. Every mark has
a `<title>`, which browsers show when pointed at and readers read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

WIDTH: Final = 560
# Of a chart as wide as the page, so that its letters are no larger than the others'.
WIDE: Final = 1160
HEIGHT: Final = 200
LEFT: Final = 52
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 24
TICKS: Final = 4
# Of a bar chart.
ROW: Final = 24
# A letter is at most about so wide; what is longer is cut.
LETTER: Final = 7
VALUE: Final = 84
LABEL_CHARS: Final = 26
COLOURS: Final = 6

Points = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Points], unit: str = "", width: int = WIDTH) -> str:
    """Lines over time: x is milliseconds since the epoch, y at least 0."""
    points = [point for one in series.values() for point in one]
    if not points:
        return '<p class="none">nothing in this period</p>'
    begin, end = min(x for x, _ in points), max(x for x, _ in points)
    top = nice_top(max(y for _, y in points))
    wide, high = width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        along = (x - begin) / (end - begin) if end > begin else 0.5
        return LEFT + along * wide, TOP + high - y / top * high

    parts = [_grid(top, high, wide, unit), _hours(begin, end, wide)]
    for number, (name, one) in enumerate(series.items()):
        colour = f"var(--c{number % COLOURS})"
        where = [at(x, y) for x, y in one]
        last = f"{escape(name)}: {shown(one[-1][1], unit)} at the end" if one else escape(name)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" '
            f'stroke-linejoin="round"><title>{last}</title></polyline>'
        )
        if len(where) == 1:
            parts.append(
                f'<circle cx="{where[0][0]:.1f}" cy="{where[0][1]:.1f}" r="3" fill="{colour}"/>'
            )
    return _legend(series) + _picture("".join(parts), width, HEIGHT)


def bars(values: Sequence[tuple[str, float]], unit: str = "") -> str:
    """Horizontal bars, each with its name before and its value behind."""
    if not values:
        return '<p class="none">nothing in this period</p>'
    top = max(value for _, value in values) or 1
    label = 12 + LETTER * max(min(len(name), LABEL_CHARS) for name, _ in values)
    wide = WIDTH - label - VALUE
    parts = []
    for row, (name, value) in enumerate(values):
        y = row * ROW
        text = name if len(name) <= LABEL_CHARS else name[: LABEL_CHARS - 1] + "…"
        parts.append(
            f"<g><title>{escape(name)}: {shown(value, unit)}</title>"
            f'<text x="{label - 8}" y="{y + 16}" text-anchor="end">{escape(text)}</text>'
            f'<rect x="{label}" y="{y + 4}" width="{max(1.0, value / top * wide):.1f}" height="{ROW - 8}" '
            f'rx="2" fill="var(--c0)"/>'
            f'<text x="{label + max(1.0, value / top * wide) + 6:.1f}" y="{y + 16}" class="value">{shown(value, unit)}</text></g>'
        )
    return _picture("".join(parts), WIDTH, len(values) * ROW + 4)


def shown(value: float, unit: str = "") -> str:
    """A number for people: `12.3 %` of a share, `1.2k` of a count."""
    if unit == "%":
        return f"{100 * value:.3g} %"
    size = abs(value)
    for limit, mark in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return (
                f"{value / (1000 if mark == 'k' else limit):.3g}{mark}{' ' + unit if unit else ''}"
            )
    text = f"{value:,.0f}" if size >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}" if unit else text


def nice_top(value: float) -> float:
    """The least of 1, 2, 2.5 or 5 times a power of ten that is not below the value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * (1 - 1e-9))


def _grid(top: float, high: float, wide: float, unit: str) -> str:
    parts = []
    for tick in range(TICKS + 1):
        y = TOP + high - tick / TICKS * high
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown(tick / TICKS * top, unit)}</text>'
        )
    return "".join(parts)


def _hours(begin: float, end: float, wide: float) -> str:
    form = "%H:%M" if end - begin <= 2 * 86_400_000 else "%d %b"
    parts = []
    for tick in range(TICKS + 1):
        moment = datetime.fromtimestamp((begin + tick / TICKS * (end - begin)) / 1000, UTC)
        x = LEFT + tick / TICKS * wide
        anchor = "end" if tick == TICKS else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{moment.strftime(form)}</text>'
        )
        if begin == end:
            break
    return "".join(parts)


def _legend(series: Mapping[str, Points]) -> str:
    if len(series) < 2:
        return ""
    keys = (
        f'<span><i style="background:var(--c{number % COLOURS})"></i>{escape(name)}</span>'
        for number, name in enumerate(series)
    )
    return f'<p class="legend">{"".join(keys)}</p>'


def _picture(inside: str, width: int, height: int) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{inside}</svg>'
