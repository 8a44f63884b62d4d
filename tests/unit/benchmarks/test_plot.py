"""Plots: ticks, places, and an SVG that is well-formed and holds what it should."""

from __future__ import annotations

import pytest
from defusedxml import ElementTree

from tests.benchmarks.plot import HEIGHT, WIDTH, Axis, fitting_ticks, line_plot


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (300.0, (0, 50, 100, 150, 200, 250, 300)),
        (1.0, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (47.0, (0, 10, 20, 30, 40, 50)),
    ],
)
def test_even_ticks_begin_at_zero_and_reach_the_highest(highest: float, ticks: tuple[float, ...]) -> None:
    assert fitting_ticks(highest) == pytest.approx(ticks)


def test_ticks_of_decades_hold_both_ends() -> None:
    assert fitting_ticks(48.0, 0.3) == pytest.approx((0.2, 0.5, 1, 2, 5, 10, 20, 50))


def test_places_are_between_the_ends() -> None:
    even, decades = Axis("", (0, 5, 10)), Axis("", (1, 10, 100), logarithmic=True)
    assert [even.place(each) for each in (-1, 0, 5, 10, 11)] == [0, 0, 0.5, 1, 1]
    assert [decades.place(each) for each in (0, 1, 10, 100)] == pytest.approx([0, 0, 0.5, 1])


def test_a_plot_has_a_line_a_dot_and_a_name_for_each_series() -> None:
    lines = {"all & everything": [(0, 1), (10, 4)], "part": [(0, 1), (10, 4)]}
    svg = line_plot("<growth>", Axis("boxes", (0, 5, 10)), Axis("ms", (0, 2, 4)), lines)
    root = ElementTree.fromstring(svg)
    texts = [element for element in root if element.tag.endswith("text")]
    names = {element.text: float(element.get("y")) for element in texts}
    assert {"all & everything", "part", "<growth>", "boxes", "ms"} <= names.keys()
    assert abs(names["all & everything"] - names["part"]) >= 12  # they end at the same place
    assert len([element for element in root if element.tag.endswith("polyline")]) == 2
    dots = [element for element in root if element.tag.endswith("circle")]
    assert len(dots) == 4
    assert all(0 <= float(dot.get("cx")) <= WIDTH and 0 <= float(dot.get("cy")) <= HEIGHT for dot in dots)
