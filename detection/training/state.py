"""Where a training stands: everything about it that is not a tensor, and why it may stop. Plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class StopRequest(StrEnum):
    """What somebody may ask of a running training; it obeys after the step at hand."""

    CANCEL = "cancel"
    """Stop; nobody wants the model now."""
    FINISH = "finish"
    """Stop and publish the best weights so far."""
    DRAIN = "drain"
    """Make room: checkpoint and stop, another process goes on later."""


class StopReason(StrEnum):
    """Why a training ended in an orderly way."""

    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    DRAINED = "drained"
    TIME_LIMIT = "time_limit"
    STEP_REACHED = "step_reached"
    """It was to go up to a step before the last one, as a reproduction does."""

    @property
    def publishes(self) -> bool:
        """True when the weights are wanted; otherwise the training can be resumed."""
        return self in PUBLISHING

    @property
    def measures(self) -> bool:
        """True when the training may have ended between two evaluations, and its last weights count too."""
        return self in (StopReason.FINISHED, StopReason.STEP_REACHED)


PUBLISHING = (StopReason.COMPLETED, StopReason.EARLY_STOPPED, StopReason.FINISHED, StopReason.STEP_REACHED)


REASON_OF_REQUEST = {
    StopRequest.CANCEL: StopReason.CANCELLED,
    StopRequest.FINISH: StopReason.FINISHED,
    StopRequest.DRAIN: StopReason.DRAINED,
}


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """The counters of a training; stored with every checkpoint."""

    epoch: int = 0
    """The epoch that is being trained, counted from 0; `epochs` when all are done."""
    epoch_step: int = 0
    """Steps done in this epoch; all of them while its evaluation is still due."""
    step: int = 0
    """Optimizer updates done."""
    best_score: float | None = None
    best_step: int | None = None
    """The step whose averaged weights are to be published; None until something was measured."""
    best_metrics: dict[str, Any] = field(default_factory=dict)
    evaluated_step: int | None = None
    score_to_beat: float | None = None
    """What early stopping compares with."""
    evaluations_without_gain: int = 0
    values: dict[str, float] = field(default_factory=dict)
    """The newest row of the metric series."""
    frozen: bool = False
    """True while some parts do not learn; they are not in the optimizer then."""
    lr_factor: float = 1.0
    """Below 1 after the loss was not finite and the training went back."""
    recoveries: int = 0
    micro_batches: int = 1
    """Parts a batch is computed in, so that it fits into the accelerator's memory."""
    elapsed_s: float = 0.0
    """Time spent training, over all attempts since the last time limit."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingState:
        return cls(**values)
