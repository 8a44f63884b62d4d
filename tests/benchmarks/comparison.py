"""Figures of several rounds side by side: ratios with their spread, and claims that hold or do not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

DIGITS = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Return the spread of at least one round."""
        return cls(*(round(each, DIGITS) for each in (statistics.median(rounds), min(rounds), max(rounds))))


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Divide round by round, so that what the machine did in a round is in both."""
    return [ours_now / others_now for ours_now, others_now in zip(ours, others, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What must be shown, and whether it is: the median counts, the spread stands beside it."""

    name: str
    sense: str
    """`>=` or `<=`."""
    limit: float
    found: Spread | None
    """None when nothing could be measured; then it is not met."""
    rounds: tuple[float, ...] = ()
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the median keeps the limit."""
        if self.found is None:
            return False
        return self.found.median >= self.limit if self.sense == ">=" else self.found.median <= self.limit

    def figures(self) -> dict[str, Any]:
        """Return it as it is written to the results."""
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        if self.found is None:
            return f"NOT MET  {self.name}: nothing could be measured. {self.note}"
        spread = f"{self.found.median:g} ({self.found.low:g} to {self.found.high:g})"
        verdict = "met    " if self.met else "NOT MET"
        return f"{verdict}  {self.name}: {spread}, must be {self.sense} {self.limit:g}. {self.note}".rstrip()


def claim(name: str, sense: str, limit: float, rounds: Sequence[float], note: str = "") -> Claim:
    """Return what some rounds say about a claim."""
    return Claim(
        name=name,
        sense=sense,
        limit=limit,
        found=Spread.of(rounds) if rounds else None,
        rounds=tuple(round(each, DIGITS) for each in rounds),
        note=note,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies, the nearest one that was seen.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """Return by how much the values grow per unit of their places: the line of least squares."""
    return statistics.linear_regression(places, values).slope
