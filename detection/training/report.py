"""Tell a reporter about losses and speed, without slowing the training down."""

from __future__ import annotations

import time

import torch

from detection.clock import Clock, Stopwatch
from detection.evaluation.metrics import Metrics, headline_of
from detection.training.plan import EpochPlan
from detection.training.reporting import Reporter
from detection.training.trainer import Callback, StepResult, Trainer, values_of

READ_EVERY_S = 1.0
"""Reading a loss makes an accelerator wait, so the losses of many steps are read at once."""


class Report(Callback):
    """Tells a reporter about every step: at once on a CPU, in blocks where reading has to wait.

    All rows that belong to a checkpoint are told before it is saved.
    """

    def __init__(self, reporter: Reporter, *, clock: Clock = time.perf_counter) -> None:
        self._reporter, self._clock = reporter, clock
        self._read_every_s = READ_EVERY_S
        self._watch = Stopwatch(clock=clock)
        self._unread: list[StepResult] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        self._read_every_s = 0.0 if trainer.optimisation.device.type == "cpu" else READ_EVERY_S
        self._reporter.on_start(trainer.state.step)
        self._reporter.on_stage("training")
        self._watch = Stopwatch(trainer.optimisation.device, clock=self._clock)

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        # All rows were told as the last epoch ended; what came since then is no time spent on pictures.
        self._watch.lap_s()

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        self._unread.append(step)
        if self._watch.passed_s() >= self._read_every_s or step.last_of_epoch:
            self._report_rows(trainer)

    def on_evaluated(self, trainer: Trainer, metrics: Metrics) -> None:
        measured = headline_of(metrics)
        state = trainer.state
        state.values = {**state.values, **measured}
        self._reporter.on_metrics(state.step, state.epoch + 1, state.values)
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
        trainer.log(f"epoch {state.epoch + 1}: {numbers or 'nothing to measure on'}")

    def before_checkpoint(self, trainer: Trainer) -> None:
        self._report_rows(trainer)

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        self._reporter.on_checkpoint(step)

    def on_diverged(self, trainer: Trainer) -> None:
        self._report_rows(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._report_rows(trainer)

    def _report_rows(self, trainer: Trainer) -> None:
        """Read what the steps since the last time have left on the device; they share one speed."""
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        rows = values_of(steps)
        took_s = max(self._watch.lap_s(), 1e-9)
        facts = {"images_per_s": sum(step.num_images for step in steps) / took_s}
        device = trainer.optimisation.device
        if device.type == "cuda":
            facts["gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        for step, values in zip(steps, rows, strict=True):
            trainer.state.values = {**values, "lr": step.lr, **facts}
            self._reporter.on_metrics(step.step, step.plan.epoch + 1, trainer.state.values)
