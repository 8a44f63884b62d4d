"""Bring batches from the dataset to the device in the size of the moment, as the network takes them.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.data.dataset import (
    TrainingDataset,
    multi_scale_side,
    normalise_batch,
    resize_batch,
    training_batches,
)
from detection.targets import Targets
from detection.training.job import TrainingJob
from detection.training.plan import EpochPlan

CACHE_BYTES = 1 << 30
"""Decoded pictures kept in memory."""


class TrainingFeed:
    """The batches of a training job. Which samples they hold depends on seed, epoch and position only."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._dataset = TrainingDataset(
            job.train_images,
            job.read,
            input_size_hw=job.input_size_hw,
            augmentation=job.config.augmentation,
            seed=job.config.seed,
            cache_bytes=CACHE_BYTES,
            convention=job.record.input_convention,
        )

    def batches(self, plan: EpochPlan, *, start_step: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield images [B, 3, H, W] and targets on the device; see `BatchSource`."""
        device, convention = self._job.devices[0], self._job.record.input_convention
        drawn = training_batches(
            self._dataset,
            batch_size=plan.batch_size,
            epoch=plan.epoch,
            start_step=start_step,
            tail=plan.tail,
        )
        for step, (images_BCHW, targets) in enumerate(drawn, start=plan.first_step + start_step):
            images_BCHW, targets = resize_batch(
                normalise_batch(images_BCHW.to(device, non_blocking=True), convention),
                targets.to(device, non_blocking=True),
                self._size_hw(step),
            )
            yield images_BCHW.contiguous(memory_format=torch.channels_last), targets

    def _size_hw(self, step: int) -> tuple[int, int]:
        augmentation = self._job.config.augmentation
        if not augmentation.multi_scale or augmentation.multi_scale_range is None:
            return self._job.input_size_hw
        side = multi_scale_side(
            self._job.config.seed,
            step,
            augmentation.multi_scale_range,
            every=augmentation.multi_scale_every,
            multiple=ARCHITECTURES[self._job.config.architecture].input_multiple,
        )
        return side, side
