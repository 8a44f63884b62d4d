"""How far a training is, and how long it will take: told by the pictures that it has to look at.

Pictures are trained on, evaluated, and measured once more for the model that is published. What was not timed
yet is taken to be as slow as training, which is timed from the first step on; nothing else is guessed.

Steps are timed in blocks of about a second, each of which ends with the device's work: a clock that is read
without waiting tells how fast steps are asked of an accelerator, and waiting after each slows it down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from detection.clock import Clock, Stopwatch
from detection.evaluation.metrics import Metrics
from detection.training.callbacks import evaluation_is_due
from detection.training.plan import EpochPlan, TrainingPlan
from detection.training.reporting import ALL_SEEN, Progress, Reporter
from detection.training.state import StopReason, TrainingState
from detection.training.trainer import Callback, StepResult, Trainer

PROGRESS_EVERY_S = 1.0
SPEED_MEMORY = 0.9
"""Weight of the past in the running average of the time that a picture takes, per step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paces:
    """Seconds that a picture takes; None where it was not timed yet."""

    trained_s: float | None = None
    measured_s: float | None = None


class Standing(Protocol):
    """Where a training stands; a trainer says it, and whoever publishes after one has ended."""

    @property
    def state(self) -> TrainingState: ...

    @property
    def reason(self) -> StopReason | None: ...


@dataclass(frozen=True, slots=True)
class Ended:
    """Where a training stood when it ended, in this process or another."""

    state: TrainingState
    reason: StopReason


Seen = Callable[[int], None]
"""Is told how many pictures of a measurement are done."""


class ProgressMeter(Callback):
    """Tells a reporter about once a second how far a training is, and goes on when its model is published."""

    def __init__(
        self,
        reporter: Reporter,
        plan: TrainingPlan,
        *,
        num_val_images: int,
        evaluate_every_epochs: int | None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Measure the way through `plan`; `evaluate_every_epochs` is None when nothing is evaluated."""
        self._reporter, self._plan, self._clock = reporter, plan, clock
        self._num_val_images = num_val_images
        self._ahead = _pictures_ahead(plan, num_val_images, evaluate_every_epochs)
        self._watch = Stopwatch(clock=clock)
        self._told_at = self._measuring_since = clock()
        self._untimed: list[int] = []
        self._trained_s: float | None = None
        self._trained_images, self._training_s = 0, 0.0
        self._measured_s: float | None = None
        self._seen = 0
        self._standing: Standing | None = None

    @property
    def paces(self) -> Paces:
        return Paces(trained_s=self._trained_s, measured_s=self._measured_s)

    def go_on(self, ended: Ended, paces: Paces) -> None:
        """Go on where the meter of another process stood when the training ended there."""
        self._standing, self._measuring_since = ended, self._clock()
        self._trained_s, self._measured_s = paces.trained_s, paces.measured_s
        self._tell()

    def on_fit_start(self, trainer: Trainer) -> None:
        self._standing = trainer
        self._watch = Stopwatch(trainer.optimisation.device, clock=self._clock)
        self._tell()

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        # What came since the last step, an evaluation or a checkpoint, is no time spent on training.
        self._watch.lap_s()

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        self._untimed.append(step.num_images)
        if step.last_of_epoch or self._watch.passed_s() >= PROGRESS_EVERY_S:
            self._time_steps()
            self._tell()

    def on_epoch_trained(self, trainer: Trainer, plan: EpochPlan) -> None:
        self._measuring_since = self._clock()

    def on_evaluated(self, trainer: Trainer, metrics: Metrics) -> None:
        self._measured_s = (self._clock() - self._measuring_since) / max(self._num_val_images, 1)
        self._seen = 0
        self._tell()

    def on_fit_end(self, trainer: Trainer) -> None:
        self._time_steps()
        if self._trained_images:
            images, seconds = self._trained_images, self._training_s
            trainer.log(
                f"trained on {images} pictures in {seconds:.1f} s: {images / max(seconds, 1e-9):.1f} images/s"
            )
        self._seen, self._measuring_since = 0, self._clock()
        self._tell()

    def saw(self, num_images: int) -> None:
        """Hear how many pictures of the evaluation, or of the publication's measurement, are done."""
        self._seen = num_images
        if num_images == self._num_val_images:
            self._tell()
        else:
            self._tell_now_and_then()

    def _time_steps(self) -> None:
        """Take the time of the steps that were not timed yet, up to the end of their work on the device."""
        if not self._untimed:
            return
        images, steps = sum(self._untimed), len(self._untimed)
        self._untimed.clear()
        took_s = self._watch.lap_s()
        past_s = took_s / images if self._trained_s is None else self._trained_s
        memory = SPEED_MEMORY**steps
        self._trained_s = memory * past_s + (1 - memory) * took_s / images
        self._trained_images += images
        self._training_s += took_s

    def _tell_now_and_then(self) -> None:
        if self._clock() - self._told_at >= PROGRESS_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._told_at = self._clock()
        if self._standing is not None:
            self._reporter.on_progress(self._progress(self._standing))

    def _progress(self, standing: Standing) -> Progress:
        state, plan = standing.state, self._plan
        to_train, to_measure = self._left(standing)
        all_pictures = sum(self._ahead[0]) + self._num_val_images
        return Progress(
            epoch=min(state.epoch + 1, plan.epochs),
            epochs=plan.epochs,
            step=state.step,
            steps=plan.total_steps,
            fraction=ALL_SEEN * (1 - (to_train + to_measure) / all_pictures),
            eta_s=self._eta_s(to_train, to_measure),
            images_per_s=1 / self._trained_s if self._trained_s else None,
        )

    def _left(self, standing: Standing) -> tuple[int, int]:
        """Return how many pictures are still to be trained on, and how many to be measured."""
        published = self._num_val_images - self._seen
        state, plan = standing.state, self._plan
        if standing.reason is not None and standing.reason.publishes:
            is_due = standing.reason.measures and state.evaluated_step != state.step
            return 0, self._num_val_images * is_due + published
        to_train, to_evaluate = self._ahead[state.epoch]
        if state.epoch < plan.epochs:
            epoch = plan.epoch(state.epoch)
            to_train -= state.epoch_step * epoch.batch_size
            if state.epoch_step == epoch.steps and state.evaluated_step == state.step:
                to_evaluate -= self._num_val_images
        return to_train, to_evaluate + published

    def _eta_s(self, to_train: int, to_measure: int) -> float | None:
        """Return the seconds that these pictures will take; None when it cannot be told, or none is left."""
        measured_s = self._measured_s or self._present_measurement_s() or self._trained_s
        if (to_train and self._trained_s is None) or (to_measure and measured_s is None):
            return None
        seconds = to_train * (self._trained_s or 0.0) + to_measure * (measured_s or 0.0)
        return seconds or None

    def _present_measurement_s(self) -> float | None:
        return (self._clock() - self._measuring_since) / self._seen if self._seen else None


def _pictures_ahead(
    plan: TrainingPlan, num_val_images: int, evaluate_every_epochs: int | None
) -> list[tuple[int, int]]:
    """Return how many pictures are to be trained on and evaluated from each epoch on; 0 after the last."""
    trained = [epoch.steps * epoch.batch_size for epoch in plan]
    evaluated = [
        num_val_images
        if evaluate_every_epochs is not None and evaluation_is_due(epoch, plan, evaluate_every_epochs)
        else 0
        for epoch in plan
    ]
    from_each = (accumulate(reversed(each), initial=0) for each in (trained, evaluated))
    return list(zip(*from_each, strict=True))[::-1]
