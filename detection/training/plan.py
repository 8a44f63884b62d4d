"""Which epoch, batch size and point of the schedule a step of a training has. Plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detection.training.config import TrainingConfig
from detection.training.recipes import steps_per_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """What one epoch consists of, before it begins."""

    epoch: int
    """Counted from 0."""
    steps: int
    first_step: int
    """Steps of all epochs before this one."""
    batch_size: int
    frozen: bool
    """True while the parts that the configuration freezes do not learn."""
    tail: bool
    """True in the last epochs, in which pictures are only coloured and mirrored."""


class TrainingPlan:
    """The epochs of a training, laid out from its resolved configuration.

    A frozen stage may have its own batch size, and then its own number of steps; the schedule is always
    read in steps of the training's own batch size, so that an epoch covers the same stretch of it.
    """

    def __init__(self, config: TrainingConfig, *, num_images: int) -> None:
        """Lay out the epochs for a training split of `num_images` pictures; `config` is resolved."""
        batch_size, tail = config.batch_size, config.schedule.no_aug_epochs
        if batch_size == "auto" or tail is None:
            raise ValueError("the configuration is not resolved; see detection.training.recipes.resolve")
        self.epochs = config.epochs
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch(num_images, batch_size)
        self._tail_begins = config.epochs - tail
        self._num_images = num_images
        self._frozen_batch_size = config.freeze.batch_size or batch_size
        self._frozen_epochs = 0
        if config.freeze.parts:
            self._frozen_epochs = min(config.freeze.epochs or config.epochs, config.epochs)

    @property
    def total_steps(self) -> int:
        return self._steps_before(self.epochs)

    def epoch(self, index: int) -> EpochPlan:
        """Return the plan of epoch `index`, counted from 0."""
        frozen = index < self._frozen_epochs
        batch_size = self._frozen_batch_size if frozen else self.batch_size
        return EpochPlan(
            epoch=index,
            steps=steps_per_epoch(self._num_images, batch_size),
            first_step=self._steps_before(index),
            batch_size=batch_size,
            frozen=frozen,
            tail=index >= self._tail_begins,
        )

    def __iter__(self) -> Iterator[EpochPlan]:
        return (self.epoch(index) for index in range(self.epochs))

    def schedule_step(self, plan: EpochPlan, epoch_step: int) -> int:
        """Return where in the schedule step `epoch_step` of an epoch lies."""
        return plan.epoch * self.steps_per_epoch + epoch_step * self.steps_per_epoch // plan.steps

    def lr_factor(self, plan: EpochPlan) -> float:
        """Return the epoch's learning rate relative to the schedule's: it follows the batch size."""
        return plan.batch_size / self.batch_size

    def _steps_before(self, epoch: int) -> int:
        frozen = min(epoch, self._frozen_epochs)
        frozen_steps = steps_per_epoch(self._num_images, self._frozen_batch_size)
        return frozen * frozen_steps + (epoch - frozen) * self.steps_per_epoch
