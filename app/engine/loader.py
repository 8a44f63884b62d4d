"""Loads models from the storage: checked, ready and warm, in as many copies as their shape wants."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from app.detect.wire import ServedModel, WeightsFile
from app.engine.batch_probe import fitting_batch_size, learn_batch_size
from app.engine.device import Device, num_cores
from app.engine.footprint import give_back, memory_in_use
from app.engine.models import unavailable
from app.storage import Storage
from detection.inference.backends import BACKENDS, Backend
from detection.inference.predictor import Predictor
from detection.inference.second_stage import CropClassifier
from detection.inference.serving import ServingShape
from detection.tasks import Task

WARM_UP_RUNS = 3
"""The first allocates, the second finds the memory; the third is as quick as all that follow."""

Warm = TypeVar("Warm", Predictor, CropClassifier)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready for pictures, in one copy or two."""

    predictor: Predictor
    """Computes one batch with all the threads there are."""
    narrow: Predictor
    """Computes with the threads of one stream, so that all streams run side by side; else the same object."""
    size_bytes: int
    batch_size: int = 1
    """Most pictures in one batch."""


@dataclass(frozen=True, slots=True)
class LoadedClassifier:
    """The same of a classifier."""

    classifier: CropClassifier
    narrow: CropClassifier
    size_bytes: int


class Loader:
    """Loads models from the storage; knows nothing of who waits for them. One at a time."""

    def __init__(
        self,
        storage: Storage,
        device: Device,
        *,
        scratch: Path,
        max_pixels: int,
        cache: Path | None = None,
    ) -> None:
        self._storage, self._device = storage, device
        self._scratch, self._max_pixels, self._cache = scratch, max_pixels, cache

    def load(self, model: ServedModel, shape: ServingShape) -> LoadedModel | LoadedClassifier:
        """Check the file's sha256, load it and run it on nothing until it is as quick as it gets.

        Raises:
            RefusedError: the file is missing or damaged.
        """
        needed = BACKENDS[shape.backend].file
        wanted = next((file for file in model.files if file.format == needed.format), None)
        if wanted is None:
            raise unavailable(model, f"has no {needed.format} file")
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            try:
                source = self._storage.local_path(wanted.key, Path(folder))
                damaged = _sha256(source) != wanted.sha256
            except FileNotFoundError:
                raise unavailable(model, f"has lost its {needed.format} file") from None
            if damaged:
                raise unavailable(model, f"has a damaged {needed.format} file")
            served = Path(folder) / "served"
            served.mkdir()
            (served / needed.name).symlink_to(source)
            return self._load_folder(served, model, wanted, shape)

    def _load_folder(
        self, folder: Path, model: ServedModel, file: WeightsFile, shape: ServingShape
    ) -> LoadedModel | LoadedClassifier:
        give_back(self._device.torch_device)  # so that what is taken from now on is the model's
        before = memory_in_use(self._device.torch_device)

        def size_bytes(copies: int) -> int:
            # Pictures come and go meanwhile: the difference can be too small, never smaller than the weights.
            return max(memory_in_use(self._device.torch_device) - before, copies * file.size_bytes)

        if model.record.task is Task.CLASSIFY:
            classifier, narrow_one = self._copies(
                shape,
                lambda threads: CropClassifier(self._backend(folder, model, shape, threads), model.record),
            )
            copies = 1 if narrow_one is classifier else 2
            return LoadedClassifier(classifier, narrow_one, size_bytes(copies))
        predictor, narrow = self._copies(
            shape, lambda threads: self._predictor(folder, model, shape, threads)
        )
        batch_size = self._batch_size(predictor, model, shape)
        give_back(self._device.torch_device)  # what only larger batches needed that did not pay
        predictor.warm_up(batch_size)
        copies = 1 if narrow is predictor else 2
        return LoadedModel(predictor, narrow, size_bytes(copies), batch_size)

    def _copies(self, shape: ServingShape, load: Callable[[int | None], Warm]) -> tuple[Warm, Warm]:
        """Return what computes with all threads, and what computes with those of one stream; both warm."""
        wide = load(self._most_threads(shape))
        _warm_up(wide, side_by_side=1)
        if shape.streams == 1:
            return wide, wide
        narrow = load(shape.threads)
        _warm_up(narrow, side_by_side=shape.streams)
        return wide, narrow

    def _most_threads(self, shape: ServingShape) -> int | None:
        """Return the threads that a lone picture gets: as a plan has measured it."""
        if not self._device.on_cpu:
            return None
        return num_cores() if BACKENDS[shape.backend].side_by_side else shape.threads

    def _backend(self, folder: Path, model: ServedModel, shape: ServingShape, threads: int | None) -> Backend:
        return BACKENDS[shape.backend].load(
            folder,
            model.record,
            device=self._device.torch_device,
            threads=threads,
            precision=shape.precision,
            cache=self._cache,
        )

    def _predictor(
        self, folder: Path, model: ServedModel, shape: ServingShape, threads: int | None
    ) -> Predictor:
        loaded = self._backend(folder, model, shape, threads)
        return Predictor(loaded, model.record, max_pixels=self._max_pixels)

    def _batch_size(self, predictor: Predictor, model: ServedModel, shape: ServingShape) -> int:
        pinned = model.shape
        is_pinned = pinned is not None and pinned.executor == shape.executor
        if self._device.learns_batch_size and not is_pinned:
            return learn_batch_size(predictor.warm_up, most=shape.batch_size)
        return fitting_batch_size(predictor.warm_up, wanted=shape.batch_size)


def _warm_up(model: Predictor | CropClassifier, *, side_by_side: int) -> None:
    """Run so often at the same time as it will be: each run in flight has memory of its own."""
    with ThreadPoolExecutor(side_by_side) as threads:
        runs = [threads.submit(model.warm_up) for _ in range(WARM_UP_RUNS * side_by_side)]
    for run in runs:
        run.result()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
