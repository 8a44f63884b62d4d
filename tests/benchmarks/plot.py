"""Lines over two axes as SVG: small, without a library, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 36, 48
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
NAME_HEIGHT = 14
FONT = "font-family='sans-serif' font-size='12'"
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a plot."""

    label: str
    ticks: tuple[float, ...]
    """Increasing; the first and the last are its ends."""
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1; what is beyond them is put onto them."""
        low, high = self._scaled(self.ticks[0]), self._scaled(self.ticks[-1])
        return min(max((self._scaled(value) - low) / (high - low), 0.0), 1.0)

    def _scaled(self, value: float) -> float:
        return math.log(max(value, self.ticks[0])) if self.logarithmic else value


def fitting_ticks(highest: float, lowest: float | None = None) -> tuple[float, ...]:
    """Return round ticks up to a value: from 0 in even steps, or from `lowest` in decades with 1, 2 and 5."""
    if lowest is None:
        step = 10 ** math.floor(math.log10(highest))
        step = next(each for each in (step / 5, step / 2, step, 2 * step) if highest / each <= 6)
        return tuple(round(step * number, 10) for number in range(math.ceil(highest / step) + 1))
    decades = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    steps = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    first = max((each for each in steps if each <= lowest), default=steps[0])
    last = min((each for each in steps if each >= highest), default=steps[-1])
    return tuple(each for each in steps if first <= each <= last)


def line_plot(title: str, across: Axis, up: Axis, lines: Mapping[str, Points]) -> str:
    """Return an SVG with a line and its dots for each series, named at its right end."""
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' {FONT}>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        f"<text x='{LEFT}' y='20' font-weight='bold'>{escape(title)}</text>",
        *_grid(across, up),
    ]
    ends = []
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        places = [(_x(across, x), _y(up, y)) for x, y in points]
        parts += _line(places, colour)
        ends.append((places[-1], name, colour))
    return "\n".join([*parts, *_names(ends), "</svg>", ""])


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    low, high, left, right = HEIGHT - BOTTOM, TOP, LEFT, WIDTH - RIGHT
    for tick in across.ticks:
        x = _x(across, tick)
        yield f"<path d='M{x:.1f} {low}V{high}' stroke='#d8dee4'/>"
        yield f"<text x='{x:.1f}' y='{low + 18}' text-anchor='middle'>{tick:g}</text>"
    for tick in up.ticks:
        y = _y(up, tick)
        yield f"<path d='M{left} {y:.1f}H{right}' stroke='#d8dee4'/>"
        yield f"<text x='{left - 8}' y='{y + 4:.1f}' text-anchor='end'>{tick:g}</text>"
    middle = (left + right) / 2
    yield f"<text x='{middle:.1f}' y='{HEIGHT - 8}' text-anchor='middle'>{escape(across.label)}</text>"
    height = (low + high) / 2
    turned = f"transform='rotate(-90 14 {height:.1f})'"
    yield f"<text x='14' y='{height:.1f}' text-anchor='middle' {turned}>{escape(up.label)}</text>"


def _line(places: Points, colour: str) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
    for x, y in places:
        yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>"


def _names(ends: Sequence[tuple[tuple[float, float], str, str]]) -> Iterator[str]:
    """Write each name beside the end of its line, further down where it would lie on another one."""
    free = 0.0
    for (x, y), name, colour in sorted(ends, key=lambda end: end[0][1]):
        y = max(y + 4, free)
        free = y + NAME_HEIGHT
        yield f"<text x='{x + 8:.1f}' y='{y:.1f}' fill='{colour}'>{escape(name)}</text>"
