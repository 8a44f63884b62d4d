"""Bring batches from the dataset to the device in the size of the moment, as the network takes them.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.data.dataset import (
    Samples,
    default_workers,
    multi_scale_side,
    normalise_batch,
    resize_batch,
    training_batches,
)
from detection.data.sampler import Sampler
from detection.images import decode_image
from detection.preprocess import fit_image
from detection.targets import Targets
from detection.training.distributed import Ranks
from detection.training.job import TrainingJob
from detection.training.plan import EpochPlan

CACHE_BYTES = 1 << 30
"""Decoded pictures kept in memory, by all ranks together."""
MOST_AS_SERVED = 128
"""A few batches of them; even the coarsest level has thousands of cells in so many pictures."""
AS_SERVED_BATCH = 4


class TrainingFeed:
    """This rank's share of a training's batches. What they hold depends on seed, epoch and position only."""

    def __init__(self, job: TrainingJob, samples: Samples, ranks: Ranks) -> None:
        self._job, self._dataset, self._ranks = job, samples, ranks

    def batches(self, plan: EpochPlan, *, start_step: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield images [B, 3, H, W] and targets on the device; see `BatchSource`."""
        ranks, convention = self._ranks, self._job.record.input_convention
        drawn = training_batches(
            self._dataset,
            batch_size=plan.batch_size,
            epoch=plan.epoch,
            start_step=start_step,
            rank=ranks.rank,
            world=ranks.world,
            workers=max(default_workers() // ranks.world, 1),
            tail=plan.tail,
        )
        for step, (images_BCHW, targets) in enumerate(drawn, start=plan.first_step + start_step):
            images_BCHW, targets = resize_batch(
                normalise_batch(images_BCHW.to(ranks.device, non_blocking=True), convention),
                targets.to(ranks.device, non_blocking=True),
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


def pictures_as_served(
    job: TrainingJob, device: torch.device, *, most: int = MOST_AS_SERVED
) -> Iterator[Tensor]:
    """Yield a few pictures of the training split as they would be served, without augmentation.

    They are drawn by the seed alone. Batches are images [B, 3, H, W] on the device, read when asked for.

    Raises:
        ImageError: a picture cannot be decoded.
    """
    images, record = job.train_images, job.record
    sampler, size_hw = Sampler(len(images), seed=job.config.seed), record.input_size_hw
    chosen = [images[sampler.image_index(0, position)] for position in range(min(most, len(images)))]
    for start in range(0, len(chosen), AS_SERVED_BATCH):
        decoded = [
            decode_image(job.read(image), input_size_hw=size_hw)
            for image in chosen[start : start + AS_SERVED_BATCH]
        ]
        fitted = [
            fit_image(each.pixels, size_hw, record.input_convention, picture_size_wh=each.size_wh)
            for each in decoded
        ]
        yield torch.from_numpy(np.stack([each.tensor for each in fitted])).to(device)
