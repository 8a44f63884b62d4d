"""The number among a model's metrics that says how good it is, for each task."""

from __future__ import annotations

from dataclasses import dataclass

from detection.tasks import Task


@dataclass(frozen=True, slots=True)
class Score:
    field: str
    """Among the metrics."""
    word: str
    """In sentences."""

    def told(self, value: float | None) -> str:
        """Return it with its value, for a log."""
        return f"{self.word} {shown(value)}"


def shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


SCORE_OF_TASK = {Task.DETECT: Score("ap", "AP"), Task.CLASSIFY: Score("accuracy", "accuracy")}
