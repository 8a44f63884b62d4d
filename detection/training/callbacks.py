"""Everything in a training besides optimising and telling of it: evaluate, checkpoint, obey, stop in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from detection.clock import Clock
from detection.evaluation.metrics import Metrics
from detection.models.network import Network
from detection.training.plan import EpochPlan, TrainingPlan
from detection.training.reporting import Reporter
from detection.training.state import REASON_OF_REQUEST, StopReason, StopRequest
from detection.training.trainer import Callback, StepResult, Trainer

StopRequests = Callable[[], StopRequest | None]
"""What somebody wants of the training at this moment; asked after every step, so it must be quick."""

CHECKPOINT_EVERY_S = 600.0
"""No kill costs more work than this, however long an epoch is."""


class Measure(Protocol):
    """Measures weights on the validation split."""

    def __call__(self, network: Network, interrupted: Callable[[], bool]) -> Metrics | None:
        """Return the metrics, or None when `interrupted` became true on the way."""


class Evaluate(Callback):
    """Measures the averaged weights when an epoch calls for it, and remembers the best."""

    def __init__(
        self, measure: Measure, *, every_epochs: int, requests: StopRequests, reporter: Reporter
    ) -> None:
        self._measure, self._every, self._requests, self._reporter = measure, every_epochs, requests, reporter

    def on_epoch_trained(self, trainer: Trainer, plan: EpochPlan) -> None:
        if evaluation_is_due(plan, trainer.plan, self._every):
            self._evaluate(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        if trainer.reason is not None and trainer.reason.measures:
            trainer.require_finite()
            self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        state = trainer.state
        if state.evaluated_step == state.step:
            return
        self._reporter.on_stage("evaluating")
        if (average := trainer.optimisation.average) is not None:
            average.update_attributes(trainer.optimisation.detector)
        metrics = self._measure(trainer.evaluated_model, self._interrupted)
        if metrics is None:
            trainer.stop(REASON_OF_REQUEST[self._requests() or StopRequest.DRAIN])
            return
        state.evaluated_step = state.step
        if metrics.score is not None and metrics.score >= (state.best_score or 0.0):
            state.best_score, state.best_step = metrics.score, state.step
            state.best_metrics = metrics.as_json()
        for callback in trainer.callbacks:
            callback.on_evaluated(trainer, metrics)
        self._reporter.on_stage("training")

    def _interrupted(self) -> bool:
        return self._requests() in (StopRequest.CANCEL, StopRequest.DRAIN)


def evaluation_is_due(epoch: EpochPlan, plan: TrainingPlan, every_epochs: int) -> bool:
    """Return whether an epoch ends with an evaluation: every so many, in the tail, and the last one."""
    number = epoch.epoch + 1
    return number % every_epochs == 0 or epoch.tail or number == plan.epochs


class StopEarly(Callback):
    """Ends a training whose score has not become better for a number of evaluations."""

    def __init__(self, *, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta
        self._score_name = "score"

    def on_fit_start(self, trainer: Trainer) -> None:
        self._stop_if_hopeless(trainer)

    def on_evaluated(self, trainer: Trainer, metrics: Metrics) -> None:
        state, score = trainer.state, metrics.score
        self._score_name = metrics.score_name
        if score is None:
            return  # without anything to measure on nothing tells whether the training gets better
        if state.score_to_beat is None or score > state.score_to_beat + self._min_delta:
            state.score_to_beat, state.evaluations_without_gain = score, 0
            return
        state.evaluations_without_gain += 1
        self._stop_if_hopeless(trainer)

    def _stop_if_hopeless(self, trainer: Trainer) -> None:
        if trainer.state.evaluations_without_gain >= self._patience:
            trainer.log(
                f"no better {self._score_name} in {self._patience} evaluations: the training ends early"
            )
            trainer.stop(StopReason.EARLY_STOPPED)


class StopAtStep(Callback):
    """Ends a training after so many steps; the weights of that step are the best, whatever was measured."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_fit_start(self, trainer: Trainer) -> None:
        self._stop_if_reached(trainer)

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        # The last step of an epoch is followed by what belongs to the epoch's end: it stops after that.
        if not step.last_of_epoch:
            self._stop_if_reached(trainer)

    def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._stop_if_reached(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        if trainer.state.step == self._step:
            trainer.state.best_step = self._step

    def _stop_if_reached(self, trainer: Trainer) -> None:
        if trainer.state.step == self._step:
            trainer.state.best_step = self._step
            trainer.stop(StopReason.STEP_REACHED)


class SaveCheckpoints(Callback):
    """Saves at the end of epochs, when something was measured best, every ten minutes, and at the end."""

    def __init__(
        self,
        save: Callable[[Trainer], None],
        *,
        every_epochs: int,
        every_s: float = CHECKPOINT_EVERY_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._save, self._every_epochs, self._every_s, self._clock = save, every_epochs, every_s, clock
        self._saved: tuple[int, int, int | None] | None = None
        self._saved_at = clock()

    def on_fit_start(self, trainer: Trainer) -> None:
        self._saved, self._saved_at = _position(trainer), self._clock()

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        if self._clock() - self._saved_at >= self._every_s:
            self._save_now(trainer)

    def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
        state = trainer.state
        is_best = state.best_step == state.step
        if is_best or state.epoch % self._every_epochs == 0 or state.epoch == trainer.plan.epochs:
            self._save_now(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._saved != _position(trainer):
            self._save_now(trainer)

    def _save_now(self, trainer: Trainer) -> None:
        for callback in trainer.callbacks:
            callback.before_checkpoint(trainer)
        trainer.require_finite()
        self._save(trainer)
        self._saved, self._saved_at = _position(trainer), self._clock()
        for callback in trainer.callbacks:
            callback.on_checkpoint(trainer, trainer.state.step)


def _position(trainer: Trainer) -> tuple[int, int, int | None]:
    """Return what tells two checkpoints apart."""
    return trainer.state.step, trainer.state.epoch, trainer.state.evaluated_step


class ObeyRequests(Callback):
    """Asks after every step whether somebody wants the training to stop."""

    def __init__(self, requests: StopRequests) -> None:
        self._requests = requests

    def on_fit_start(self, trainer: Trainer) -> None:
        self._obey(trainer)

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        self._obey(trainer)

    def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._obey(trainer)

    def _obey(self, trainer: Trainer) -> None:
        request = self._requests()
        if request is not None:
            trainer.stop(REASON_OF_REQUEST[request])


class LimitTime(Callback):
    """Ends a training that has taken too long; one that is resumed afterwards gets the same time again."""

    def __init__(self, limit_s: float | None, *, clock: Clock = time.monotonic) -> None:
        self._limit_s, self._clock, self._looked_at = limit_s, clock, clock()

    def on_fit_start(self, trainer: Trainer) -> None:
        self._looked_at = self._clock()

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        now = self._clock()
        trainer.state.elapsed_s += now - self._looked_at
        self._looked_at = now
        if self._limit_s is not None and trainer.state.elapsed_s >= self._limit_s:
            trainer.state.elapsed_s = 0.0
            trainer.log(f"the time limit of {self._limit_s:g} s is reached")
            trainer.stop(StopReason.TIME_LIMIT)
