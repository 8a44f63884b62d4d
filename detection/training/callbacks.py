"""Everything in a training besides optimising: evaluate, checkpoint, report, obey, stop in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from detection.evaluation.coco import CocoMetrics
from detection.models.detector import Detector
from detection.training.plan import EpochPlan, TrainingPlan
from detection.training.reporting import Progress, Reporter
from detection.training.state import REASON_OF_REQUEST, StopReason, StopRequest
from detection.training.trainer import Callback, StepResult, Trainer

Clock = Callable[[], float]
"""Seconds from an arbitrary point; never goes back."""
StopRequests = Callable[[], StopRequest | None]
"""What somebody wants of the training at this moment; asked after every step, so it must be quick."""

CHECKPOINT_EVERY_S = 600.0
"""No kill costs more work than this, however long an epoch is."""
MOST_ROWS = 5000
"""Rows of the metric series of one training, about."""
ACCELERATOR_ROW_EVERY = 10
"""Reading a loss stops an accelerator, so it is not done at every step."""
PROGRESS_EVERY_S = 1.0
SPEED_MEMORY = 0.9
"""Weight of the past in the running average of the time that a step takes."""


class Measure(Protocol):
    """Measures weights on the validation split."""

    def __call__(self, detector: Detector, interrupted: Callable[[], bool]) -> CocoMetrics | None:
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
        if trainer.reason is StopReason.FINISHED:
            trainer.require_finite()
            self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        state = trainer.state
        if state.evaluated_step == state.step:
            return
        self._reporter.on_stage("evaluating")
        metrics = self._measure(trainer.evaluated_model, self._interrupted)
        if metrics is None:
            trainer.stop(REASON_OF_REQUEST[self._requests() or StopRequest.DRAIN])
            return
        state.evaluated_step = state.step
        if metrics.ap is not None and metrics.ap >= (state.best_ap or 0.0):
            state.best_ap, state.best_step = metrics.ap, state.step
            state.best_metrics = metrics.as_json()
        for callback in trainer.callbacks:
            callback.on_evaluated(trainer, metrics.as_json())
        self._reporter.on_stage("training")

    def _interrupted(self) -> bool:
        return self._requests() in (StopRequest.CANCEL, StopRequest.DRAIN)


def evaluation_is_due(epoch: EpochPlan, plan: TrainingPlan, every_epochs: int) -> bool:
    """Return whether an epoch ends with an evaluation: every so many, in the tail, and the last one."""
    number = epoch.epoch + 1
    return number % every_epochs == 0 or epoch.tail or number == plan.epochs


class StopEarly(Callback):
    """Ends a training whose AP has not become better for a number of evaluations."""

    def __init__(self, *, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta

    def on_fit_start(self, trainer: Trainer) -> None:
        self._stop_if_hopeless(trainer)

    def on_evaluated(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        state, ap = trainer.state, metrics["ap"]
        if ap is None:
            return  # without a box to be found nothing tells whether the training gets better
        if state.ap_to_beat is None or ap > state.ap_to_beat + self._min_delta:
            state.ap_to_beat, state.evaluations_without_gain = ap, 0
            return
        state.evaluations_without_gain += 1
        self._stop_if_hopeless(trainer)

    def _stop_if_hopeless(self, trainer: Trainer) -> None:
        if trainer.state.evaluations_without_gain >= self._patience:
            trainer.log(f"no better AP in {self._patience} evaluations: the training ends early")
            trainer.stop(StopReason.EARLY_STOPPED)


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


class Report(Callback):
    """Tells a reporter about losses, speed and progress, rarely enough not to slow the training down."""

    def __init__(
        self, reporter: Reporter, *, evaluate_every_epochs: int | None, clock: Clock = time.monotonic
    ) -> None:
        """Report to `reporter`; `evaluate_every_epochs` is None when nothing is evaluated."""
        self._reporter, self._evaluate_every, self._clock = reporter, evaluate_every_epochs, clock
        self._row_every = 1
        self._row_at = self._step_at = self._progress_at = self._trained_at = clock()
        self._images_since_row = 0
        self._step_s: float | None = None
        self._evaluation_s = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        accelerated = trainer.optimisation.device.type != "cpu"
        fewest = ACCELERATOR_ROW_EVERY if accelerated else 1
        self._row_every = max(fewest, math.ceil(trainer.plan.total_steps / MOST_ROWS))
        self._reporter.on_start(trainer.state.step)
        self._reporter.on_stage("training")
        self._row_at = self._step_at = self._clock()
        self._reporter.on_progress(self._progress(trainer))

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        # The last epoch ended with a row; evaluating and saving since then are no time spent on pictures.
        self._step_at = self._row_at = self._clock()

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        now = self._clock()
        took_s, self._step_at = now - self._step_at, now
        past_s = took_s if self._step_s is None else self._step_s
        self._step_s = SPEED_MEMORY * past_s + (1 - SPEED_MEMORY) * took_s
        self._images_since_row += step.num_images
        if step.step % self._row_every == 0 or step.last_of_epoch:
            self._report_row(trainer, step)
        if now - self._progress_at >= PROGRESS_EVERY_S or step.last_of_epoch:
            self._progress_at = now
            self._reporter.on_progress(self._progress(trainer))

    def on_epoch_trained(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._trained_at = self._clock()

    def on_evaluated(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        self._evaluation_s = self._clock() - self._trained_at
        measured = {
            name: value
            for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
            if (value := metrics[name]) is not None
        }
        state = trainer.state
        state.values = {**state.values, **measured}
        self._reporter.on_metrics(state.step, state.epoch + 1, state.values)
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
        trainer.log(f"epoch {state.epoch + 1}: {numbers or 'no box to be found'}")

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        self._reporter.on_checkpoint(step)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._reporter.on_progress(self._progress(trainer))

    def _report_row(self, trainer: Trainer, step: StepResult) -> None:
        values = {**step.values(), "lr": step.lr, "images_per_s": self._images_per_s()}
        device = trainer.optimisation.device
        if device.type == "cuda":
            values["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
        trainer.state.values = values
        self._reporter.on_metrics(step.step, step.plan.epoch + 1, values)

    def _images_per_s(self) -> float:
        now = self._clock()
        speed = self._images_since_row / max(now - self._row_at, 1e-9)
        self._row_at, self._images_since_row = now, 0
        return speed

    def _progress(self, trainer: Trainer) -> Progress:
        state, plan = trainer.state, trainer.plan
        batch_size = plan.epoch(min(state.epoch, plan.epochs - 1)).batch_size
        return Progress(
            epoch=min(state.epoch + 1, plan.epochs),
            epochs=plan.epochs,
            step=state.step,
            steps=plan.total_steps,
            fraction=state.step / plan.total_steps,
            eta_s=self._eta_s(trainer),
            images_per_s=batch_size / self._step_s if self._step_s else None,
        )

    def _eta_s(self, trainer: Trainer) -> float | None:
        if self._step_s is None:
            return None
        state, plan = trainer.state, trainer.plan
        evaluations = 0
        if self._evaluate_every is not None:
            ahead = (plan.epoch(index) for index in range(state.epoch, plan.epochs))
            evaluations = sum(evaluation_is_due(each, plan, self._evaluate_every) for each in ahead)
        return (plan.total_steps - state.step) * self._step_s + evaluations * self._evaluation_s
