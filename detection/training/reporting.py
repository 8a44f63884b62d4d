"""What a training tells the world while it runs, and to whom. Plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

ALL_SEEN = 0.99
"""The fraction of a job that is done with the last picture; the rest is the writing of its results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is."""

    epoch: int
    """Counted from 1, as people do; the one that is being trained."""
    epochs: int
    step: int
    """Optimizer updates done, over all epochs."""
    steps: int
    fraction: float
    """Of the pictures to be looked at: trained on, evaluated, and measured once more for the model. The last
    hundredth is the writing of the model."""
    eta_s: float | None
    """Seconds that the pictures left will take; None when it cannot be told: at first, and at last while the
    model is written."""
    images_per_s: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the part of it that counts steps."""
        return {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "step": self.step,
            "steps": self.steps,
            "fraction": self.fraction,
        }


class Reporter(Protocol):
    """Somebody who follows a training. Calls come from the training's own thread and must be quick."""

    def on_stage(self, stage: str) -> None:
        """The training enters a stage: `preparing`, `training`, `evaluating`, `publishing`."""

    def on_start(self, step: int) -> None:
        """The training goes on after `step` (0: from the beginning); what was told beyond it is void."""

    def on_progress(self, progress: Progress) -> None:
        """About once a second."""

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One row of the series; a later row of the same step replaces it. Epochs are counted from 1.

        `loss` is the sum of the terms `box`, `objectness`, …; `lr`, `images_per_s`, and `ap`, `ap50`, `ap75`
        where they were measured.
        """

    def on_checkpoint(self, step: int) -> None:
        """Work up to `step` is safe."""

    def on_log(self, line: str) -> None:
        """Something worth reading happened."""


class SilentReporter:
    """Follows a training without a word."""

    def on_stage(self, stage: str) -> None:
        pass

    def on_start(self, step: int) -> None:
        pass

    def on_progress(self, progress: Progress) -> None:
        pass

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        pass

    def on_checkpoint(self, step: int) -> None:
        pass

    def on_log(self, line: str) -> None:
        pass
