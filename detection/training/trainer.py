"""The training loop: it only optimises. Whatever else happens in a training is a callback.

On several ranks all run this loop in step. Most callbacks are those of the first rank; whether the training
goes on is its decision, and an error of any rank ends the training of all.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from detection.errors import DeviceMemoryError, TrainingDivergedError
from detection.evaluation.metrics import Metrics
from detection.models.network import Network, TrainingMoment
from detection.targets import Targets
from detection.training.gradients import compute_gradients, total_of
from detection.training.memory import is_out_of_memory
from detection.training.optimisation import Optimisation
from detection.training.optimizers import set_learning_rate
from detection.training.plan import EpochPlan, TrainingPlan
from detection.training.state import StopReason, TrainingState

REASONS = tuple(StopReason)
OOM_HALVINGS = 3
"""How often a process may halve the part of a batch that is computed at once."""


class BatchSource(Protocol):
    """Where a trainer's batches come from."""

    def batches(self, plan: EpochPlan, *, start_step: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield images [B, 3, H, W] and targets on the device, as the network takes them.

        Starts with step `start_step` of the epoch and ends with the epoch.
        """


class Callback:
    """What may happen around the loop. A subclass overrides the moments that it cares about.

    At every moment the callbacks are told in the order in which the trainer got them.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """The trainer is about to begin or to go on."""

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        """The detector is in train mode; its first batch of the epoch comes next."""

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        """Weights, average and counters are those after the step."""

    def on_epoch_trained(self, trainer: Trainer, plan: EpochPlan) -> None:
        """All steps of the epoch are done, and the counters still stand in it: time to evaluate."""

    def on_evaluated(self, trainer: Trainer, metrics: Metrics) -> None:
        """The averaged weights were measured."""

    def on_epoch_end(self, trainer: Trainer, plan: EpochPlan) -> None:
        """The counters stand at the beginning of the next epoch: time for a checkpoint."""

    def before_checkpoint(self, trainer: Trainer) -> None:
        """A checkpoint is about to be saved: what belongs to it must be in the state, and told."""

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        """Work up to `step` is safe."""

    def on_diverged(self, trainer: Trainer) -> None:
        """A loss was not finite; TrainingDivergedError comes next."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """The training ended in an orderly way; `trainer.reason` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One optimizer update, seen from outside. Tensors are still on the device."""

    step: int
    """Counted from 1: the updates done, with this one."""
    plan: EpochPlan
    lr: float
    losses: Mapping[str, Tensor]
    """Weighted, normalised terms by name; their sum is the loss."""
    statistics: Mapping[str, Tensor]
    """Facts about the batch that are no loss."""
    num_images: int
    """Of all ranks."""

    @property
    def last_of_epoch(self) -> bool:
        return self.step == self.plan.first_step + self.plan.steps


def values_of(steps: Sequence[StepResult]) -> list[dict[str, float]]:
    """Return each step's losses and statistics as numbers, the losses' sum as `loss`; waits for the device.

    However many steps they are, the device is waited for once.
    """
    scalars = [{**step.losses, **step.statistics} for step in steps]
    numbers = iter(torch.stack([each.float() for own in scalars for each in own.values()]).tolist())
    values = [{name: next(numbers) for name in own} for own in scalars]
    return [
        {"loss": sum(own[name] for name in step.losses), **own}
        for step, own in zip(steps, values, strict=True)
    ]


class Trainer:
    """Runs a training from where its state stands to its end, or until somebody asks it to stop."""

    def __init__(
        self,
        optimisation: Optimisation,
        plan: TrainingPlan,
        source: BatchSource,
        state: TrainingState,
        callbacks: Sequence[Callback],
        *,
        log: Callable[[str], None],
    ) -> None:
        self.optimisation, self.plan, self.source, self.state = optimisation, plan, source, state
        self.callbacks, self.log = tuple(callbacks), log
        self.reason: StopReason | None = None
        self._first_epoch = state.epoch
        self._halvings = 0
        self._newest: StepResult | None = None
        self._all_finite = torch.ones((), dtype=torch.bool, device=optimisation.device)
        self._ranks = optimisation.replicas.ranks

    @property
    def evaluated_model(self) -> Network:
        """The weights that are evaluated and published: the average, or the detector when there is none."""
        average = self.optimisation.average
        return self.optimisation.detector if average is None else average.model

    def fit(self) -> StopReason:
        """Train until the last epoch or until `stop` was called; return why it ended.

        Raises:
            TrainingDivergedError: the loss is no longer finite.
            DeviceMemoryError: the device's memory is too small, and this process can do nothing about it.
            RankError: another rank failed with an error that nobody foresaw.
        """
        self._tell(lambda callback: callback.on_fit_start(self))
        while self.reason is None and self.state.epoch < self.plan.epochs:
            self._train_epoch(self.plan.epoch(self.state.epoch))
        reason = self.reason = self.reason or StopReason.COMPLETED
        self._tell(lambda callback: callback.on_fit_end(self))
        return self.reason or reason

    def stop(self, reason: StopReason) -> None:
        """End the training after the step or evaluation at hand; giving up outranks publishing."""
        if self.reason is None or self.reason.publishes:
            self.reason = reason

    def require_finite(self) -> None:
        """Raise TrainingDivergedError if a loss was not finite since the last call; waits for the device."""
        if self._newest is not None and not bool(self._all_finite):
            for callback in self.callbacks:
                callback.on_diverged(self)
            raise TrainingDivergedError(self._newest.step, *values_of([self._newest]))

    def _train_epoch(self, plan: EpochPlan) -> None:
        self.optimisation.detector.train()
        self._tell(lambda callback: callback.on_epoch_start(self, plan))
        for images_BCHW, targets in self._batches(plan):
            self._train_step(plan, images_BCHW, targets)
            if self.reason is not None:
                return
        self._end_epoch(plan)

    def _batches(self, plan: EpochPlan) -> Iterator[tuple[Tensor, Targets]]:
        """Yield the batches of an epoch, each when every rank has its own."""
        source = self.source.batches(plan, start_step=self.state.epoch_step)
        batch: list[tuple[Tensor, Targets]] = []

        def draw() -> int:
            batch[:] = islice(source, 1)
            return len(batch)

        while self._ranks.together(draw):
            yield batch[0]

    def _tell(self, moment: Callable[[Callback], None]) -> None:
        """Let the callbacks act; then all ranks stand where the first one does."""

        def act() -> int:
            for callback in self.callbacks:
                moment(callback)
            return 0 if self.reason is None else 1 + REASONS.index(self.reason)

        decided = self._ranks.together(act)
        self.reason = REASONS[decided - 1] if decided else None

    def _end_epoch(self, plan: EpochPlan) -> None:
        self.require_finite()
        self._tell(lambda callback: callback.on_epoch_trained(self, plan))
        if self.reason is not None and not self.reason.publishes:
            return  # the evaluation was cut short: it is due again when the training goes on
        self.state.epoch += 1
        self.state.epoch_step = 0
        self._tell(lambda callback: callback.on_epoch_end(self, plan))

    def _train_step(self, plan: EpochPlan, images_BCHW: Tensor, targets: Targets) -> None:
        lr = self._learning_rate(plan)
        set_learning_rate(self.optimisation.optimizer, lr)
        losses = self._compute_gradients(plan, images_BCHW, targets)
        self._all_finite &= total_of(losses).isfinite()
        self._update_weights()
        self.state.step += 1
        self.state.epoch_step += 1
        newest = self._newest = StepResult(
            step=self.state.step,
            plan=plan,
            lr=lr,
            losses=losses,
            statistics=self.optimisation.detector.loss_statistics,
            num_images=len(images_BCHW) * self._ranks.world,
        )
        if self.optimisation.device.type == "cpu":  # elsewhere asking would stop the device at every step
            self.require_finite()
        self._tell(lambda callback: callback.on_step_end(self, newest))

    def _learning_rate(self, plan: EpochPlan) -> float:
        step = self.plan.schedule_step(plan, self.state.epoch_step)
        return self.optimisation.schedule.lr_at(step) * self.plan.lr_factor(plan) * self.state.lr_factor

    def _compute_gradients(self, plan: EpochPlan, images_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Leave the gradients of one batch in the parameters; return its losses, detached.

        A batch that does not fit into the device's memory is computed in parts of half the size.
        """
        moment = TrainingMoment(epoch=plan.epoch, tail=plan.tail)
        self.optimisation.optimizer.zero_grad(set_to_none=True)
        while True:
            parts = self.state.micro_batches
            try:
                return compute_gradients(self.optimisation, images_BCHW, targets, moment, parts=parts)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, so that the error no longer holds the tensors of the failed step.
            self._compute_in_smaller_parts(len(images_BCHW))

    def _update_weights(self) -> None:
        optimisation = self.optimisation
        if optimisation.clip_norm is not None:
            optimisation.scaler.unscale_(optimisation.optimizer)
            nn.utils.clip_grad_norm_(optimisation.detector.parameters(), optimisation.clip_norm)
        optimisation.scaler.step(optimisation.optimizer)
        optimisation.scaler.update()
        if optimisation.average is not None:
            optimisation.average.update(optimisation.detector)

    def _compute_in_smaller_parts(self, batch_size: int) -> None:
        """Compute batches in twice as many parts from now on.

        Raises:
            DeviceMemoryError: a part is one picture already, or this happens late in a process: memory that
                was enough so far is better looked for by a fresh one. Or there are other ranks, which are in
                the middle of the same step: they must all begin it again together.
        """
        parts, self._halvings = self.state.micro_batches, self._halvings + 1
        late = self.state.epoch > self._first_epoch
        if late or self._halvings > OOM_HALVINGS or parts >= batch_size or not self._ranks.is_alone:
            raise DeviceMemoryError(batch_size, parts)
        self.state.micro_batches = parts * 2
        self.optimisation.optimizer.zero_grad(set_to_none=True)
        if self.optimisation.device.type == "cuda":
            torch.cuda.empty_cache()
        self.log(
            f"the device ran out of memory; a batch of {batch_size} is now computed in "
            f"{self.state.micro_batches} parts whose gradients are added up"
        )
