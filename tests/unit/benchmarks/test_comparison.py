"""Figures of several rounds side by side, by hand."""

from __future__ import annotations

import pytest

from tests.benchmarks.comparison import Spread, claim, percentile, ratios, slope


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([10.0, 20.0], [5.0, 40.0]) == [2.0, 0.5]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_the_spread_is_middle_lowest_and_highest() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("sense", "limit", "rounds", "met"),
    [
        (">=", 0.9, [0.95, 0.9, 0.1], True),
        (">=", 0.9, [0.95, 0.8, 0.1], False),
        ("<=", 1.2, [1.2], True),
        ("<=", 1.2, [1.21], False),
        (">=", 4.0, [], False),
    ],
)
def test_the_median_decides(sense: str, limit: float, rounds: list[float], met: bool) -> None:
    found = claim("it is fast", sense, limit, rounds)
    assert found.met is met
    assert found.figures()["met"] is met
    assert str(found).startswith("met" if met else "NOT MET")


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(each) for each in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (51.0, 100.0, 7.0)
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_the_slope_is_growth_per_unit() -> None:
    assert slope([0.0, 1.0, 2.0, 3.0], [5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0)
