"""The training split as batches: augmented, in the epoch's order, prepared while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from torch import Tensor

from detection.data.augmenters import PictureSource, build_augmenter
from detection.data.augmenters.augmenter import LabelledPicture
from detection.data.batches import collate, normalise_batch, resize_batch
from detection.data.draws import Purpose, draws
from detection.data.picture_cache import PictureCache, ReadPicture
from detection.data.records import BoxRecord, ImageRecord
from detection.data.sampler import Sampler, batch_positions, multi_scale_side
from detection.data.transforms import BoxArray, Sample
from detection.input_convention import YOLOX, InputConvention
from detection.targets import Targets
from detection.training.config import AugmentationConfig
from detection.training.recipes import steps_per_epoch
from detection.training.seeds import worker_seeding

__all__ = [
    "SampleKey",
    "Samples",
    "TrainingDataset",
    "collate",
    "default_workers",
    "multi_scale_side",
    "normalise_batch",
    "resize_batch",
    "training_batches",
]

MOST_WORKERS = 8
BATCHES_AHEAD = 2


class SampleKey(NamedTuple):
    """What a sample depends on, besides the seed."""

    epoch: int
    position: int
    """Within the epoch."""
    tail: bool
    """True in the last epochs: pictures are only coloured and mirrored."""


class Samples(Protocol):
    """Augmented samples of a training split by their key; equal keys give equal samples, everywhere."""

    seed: int
    """Of every draw for a sample."""

    def __len__(self) -> int:
        """Return how many pictures, or crops, there are."""

    def __getitem__(self, key: SampleKey) -> Sample:
        """Return a sample: picture (height, width, BGR), boxes [n, 4] float32, labels [n] int64."""


class TrainingDataset:
    """Augmented samples of a training split by their key; equal keys give equal samples, everywhere."""

    def __init__(
        self,
        images: Sequence[ImageRecord],
        read: ReadPicture,
        *,
        input_size_hw: tuple[int, int],
        augmentation: AugmentationConfig,
        seed: int,
        cache_bytes: int = 0,
        convention: InputConvention = YOLOX,
    ) -> None:
        """Prepare for the pictures of a split.

        Args:
            images: at least one.
            read: returns the bytes of a picture's file; called from several threads.
            augmentation: resolved, see `detection.training.recipes.resolve`; null counts as 0.
            cache_bytes: so much memory may hold decoded pictures.
            convention: decides how a picture is scaled and padded; its colours are `normalise_batch`'s part.
        """
        self.seed = seed
        self.sampler = Sampler(len(images), seed=seed)
        self._images = images
        self._cache = PictureCache(read, input_size_hw=input_size_hw, max_bytes=cache_bytes)
        source = PictureSource(
            load=self._picture,
            num_images=len(images),
            input_size_hw=input_size_hw,
            convention=convention,
        )
        self._augmenter = build_augmenter(augmentation, source)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Return a sample: picture (height, width, BGR), boxes [n, 4] float32, labels [n] int64.

        Raises:
            ImageError: a picture cannot be decoded.
        """
        rng = draws(self.seed, Purpose.SAMPLE, key.epoch, key.position)
        index = self.sampler.image_index(key.epoch, key.position)
        return self._augmenter.sample(index, rng, tail=key.tail)

    def _picture(self, index: int) -> LabelledPicture:
        image = self._images[index]
        boxes = [box for box in image.boxes if not box.crowd]
        labels = np.array([box.class_id for box in boxes], np.int64)
        crowds = [box for box in image.boxes if box.crowd]
        return LabelledPicture(self._cache.picture(image), _edges(boxes), labels, _edges(crowds))


def _edges(boxes: Sequence[BoxRecord]) -> BoxArray:
    return np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float32).reshape(-1, 4)


def training_batches(
    dataset: Samples,
    *,
    batch_size: int,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    tail: bool = False,
) -> Iterator[tuple[Tensor, Targets]]:
    """Yield the batches of an epoch from a step on: images [B, 3, H, W] (BGR, 0..255) and their targets.

    Batches are prepared ahead within the epoch only, so nothing of one epoch can appear in the next.

    Args:
        batch_size: pictures per step over all ranks; `world` divides it.
        start_step: the first step to yield, counted from 0 within the epoch.
        workers: threads that prepare samples; 0 prepares them when they are asked for, None chooses by the
            number of processors. The samples are the same.
        tail: see `SampleKey`.
    """
    if batch_size % world:
        raise ValueError(f"{batch_size} pictures cannot be divided among {world} ranks")
    steps = range(start_step, steps_per_epoch(len(dataset), batch_size))
    keys = (
        [SampleKey(epoch, p, tail) for p in batch_positions(step, batch_size, rank=rank, world=world)]
        for step in steps
    )
    num_workers = default_workers() if workers is None else workers
    if num_workers == 0:
        return (collate([dataset[key] for key in batch]) for batch in keys)
    return _prefetched(dataset, keys, num_workers, rank=rank)


def default_workers() -> int:
    """Return how many threads prepare samples: half of the processors that this process may use."""
    return min(max(len(os.sched_getaffinity(0)) // 2, 1), MOST_WORKERS)


def _prefetched(
    dataset: Samples, keys: Iterable[list[SampleKey]], num_workers: int, *, rank: int
) -> Iterator[tuple[Tensor, Targets]]:
    """Prepare samples in threads, which share the cache of pictures; OpenCV works without Python's lock."""
    cv2.setNumThreads(1)
    waiting: deque[list[Future[Sample]]] = deque()
    seeding = worker_seeding(dataset.seed, rank=rank)
    with ThreadPoolExecutor(num_workers, thread_name_prefix="samples", initializer=seeding) as pool:
        try:
            for batch in keys:
                waiting.append([pool.submit(dataset.__getitem__, key) for key in batch])
                if len(waiting) > BATCHES_AHEAD:
                    yield _finished(waiting.popleft())
            while waiting:
                yield _finished(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(futures: list[Future[Sample]]) -> tuple[Tensor, Targets]:
    return collate([future.result() for future in futures])
