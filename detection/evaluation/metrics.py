"""What a training asks of a measurement, whatever was measured. Plain Python."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class Metrics(Protocol):
    """How well weights do on a split; fractions from 0 to 1, None where there is nothing to measure on."""

    score_name: ClassVar[str]
    """What the score is, in a sentence: `AP`, `accuracy`."""
    headline: ClassVar[tuple[str, ...]]
    """The fields that are curves of a training."""

    @property
    def score(self) -> float | None:
        """The number that says which weights are the best."""

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured as plain values."""


class Details(Protocol):
    """Curves and confusion matrix of a measurement."""

    def as_json(self) -> dict[str, Any]:
        """Return `curves` and `confusion_matrix` as plain values; None for one that was not made."""


def headline_of(metrics: Metrics) -> dict[str, float]:
    """Return the fields that are curves of a training, as far as they were measured."""
    values = metrics.as_json()
    return {name: values[name] for name in metrics.headline if values[name] is not None}
