"""Tell a reporter about losses, speed and progress, without slowing the training down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from detection.training.callbacks import Clock, evaluation_is_due
from detection.training.plan import EpochPlan
from detection.training.reporting import Progress, Reporter
from detection.training.trainer import Callback, StepResult, Trainer, values_of

PROGRESS_EVERY_S = 1.0
READ_EVERY_S = 1.0
"""Reading a loss makes an accelerator wait, so the losses of many steps are read at once."""
SPEED_MEMORY = 0.9
"""Weight of the past in the running average of the time that a step takes."""


class Report(Callback):
    """Tells a reporter about every step: at once on a CPU, in blocks where reading has to wait.

    All rows that belong to a checkpoint are told before it is saved.
    """

    def __init__(
        self, reporter: Reporter, *, evaluate_every_epochs: int | None, clock: Clock = time.monotonic
    ) -> None:
        """Report to `reporter`; `evaluate_every_epochs` is None when nothing is evaluated."""
        self._reporter, self._evaluate_every, self._clock = reporter, evaluate_every_epochs, clock
        self._read_every_s = READ_EVERY_S
        self._row_at = self._step_at = self._progress_at = self._trained_at = clock()
        self._unread: list[StepResult] = []
        self._step_s: float | None = None
        self._evaluation_s = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        self._read_every_s = 0.0 if trainer.optimisation.device.type == "cpu" else READ_EVERY_S
        self._reporter.on_start(trainer.state.step)
        self._reporter.on_stage("training")
        self._row_at = self._step_at = self._clock()
        self._reporter.on_progress(self._progress(trainer))

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        # All rows were told as the last epoch ended; what came since then is no time spent on pictures.
        self._step_at = self._row_at = self._clock()

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        now = self._clock()
        took_s, self._step_at = now - self._step_at, now
        past_s = took_s if self._step_s is None else self._step_s
        self._step_s = SPEED_MEMORY * past_s + (1 - SPEED_MEMORY) * took_s
        self._unread.append(step)
        if now - self._row_at >= self._read_every_s or step.last_of_epoch:
            self._report_rows(trainer)
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

    def before_checkpoint(self, trainer: Trainer) -> None:
        self._report_rows(trainer)

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        self._reporter.on_checkpoint(step)

    def on_diverged(self, trainer: Trainer) -> None:
        self._report_rows(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._report_rows(trainer)
        self._reporter.on_progress(self._progress(trainer))

    def _report_rows(self, trainer: Trainer) -> None:
        """Read what the steps since the last time have left on the device; they share one speed."""
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        rows = values_of(steps)
        now = self._clock()
        facts = {"images_per_s": sum(step.num_images for step in steps) / max(now - self._row_at, 1e-9)}
        self._row_at = now
        device = trainer.optimisation.device
        if device.type == "cuda":
            facts["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
        for step, values in zip(steps, rows, strict=True):
            trainer.state.values = {**values, "lr": step.lr, **facts}
            self._reporter.on_metrics(step.step, step.plan.epoch + 1, trainer.state.values)

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
