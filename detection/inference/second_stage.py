"""The second stage: a classifier says what each box of a picture shows, all crops of a picture in one batch.

Shape suffixes: N = boxes, K = crops, B = crops in one pass, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.crops import Regions, cut, regions_of, squares_around
from detection.devices import CPU, wait_for
from detection.errors import WeightsError
from detection.images import Pixels
from detection.inference.backends import BACKENDS, Backend
from detection.inference.out_of_memory import MemoryLimit
from detection.model_files import read_record
from detection.model_record import PUBLISHED_CROP, ModelRecord
from detection.preprocess import Placement, fit_image, place_image
from detection.tasks import Task

MOST_AT_ONCE = 100
"""Crops in one pass: all of a picture, unless more detections than usual were asked for. A thousand must not
need a thousand times the memory of one; a hundred take ResNet-101 1.1 GiB."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says about one box."""

    class_id: int
    score: float
    """The probability of that class."""


class CropClassifier:
    """A classifier that is ready to look at crops. Results do not depend on what else is in a batch."""

    def __init__(self, backend: Backend, record: ModelRecord) -> None:
        """Wrap a loaded model.

        Raises:
            WeightsError: it is no classifier.
        """
        if record.task is not Task.CLASSIFY:
            raise WeightsError(f"a {record.architecture} is a model to {record.task}, not to classify")
        self.backend, self.record = backend, record
        self.rule = record.crop or PUBLISHED_CROP
        self._limit = MemoryLimit(MOST_AT_ONCE)

    @classmethod
    def from_folder(
        cls, folder: Path, *, backend: str = "eager", device: torch.device = CPU, threads: int | None = None
    ) -> CropClassifier:
        """Load a published model; arguments of `Predictor.from_folder`."""
        record = read_record(folder)
        return cls(BACKENDS[backend].load(folder, record, device=device, threads=threads), record)

    def warm_up(self, batch_size: int = 1) -> None:
        """Run once on nothing, so that the first crop does not pay for what is loaded lazily."""
        self.backend.run(torch.zeros(batch_size, 3, *self.record.input_size_hw))
        wait_for(self.backend.device)

    def regions(
        self, boxes_N4: NDArray[np.float32], placement: Placement, picture_size_wh: tuple[int, int]
    ) -> Regions:
        """Return the pixels that are looked at for boxes of a picture.

        Args:
            boxes_N4: xyxy, pixels of the picture.
            placement: where the picture lies in the input of the detector that found them.
        """
        squares_N3 = squares_around(placement.to_input(boxes_N4), self.rule)
        return regions_of(squares_N3, placement, picture_size_wh)

    def classify(self, pixels: Pixels, regions_N4: Regions) -> list[Classification | None]:
        """Return what is seen in each region of a whole picture; None for one that holds no pixel."""
        crops = [cut(pixels, region) for region in regions_N4.tolist()]
        found = iter(self.look([crop for crop in crops if crop is not None]))
        return [None if crop is None else next(found) for crop in crops]

    def fit(self, crop: Pixels) -> Pixels:
        """Return a crop in the size of the network's input, still 8-bit BGR: what needs to be kept of it."""
        return place_image(crop, self.record.input_size_hw, self.record.input_convention)[0]

    def look(self, crops: Sequence[Pixels]) -> list[Classification]:
        """Return what each crop (height, width, BGR; fitted or not) shows."""
        probabilities_KC = self.probabilities(crops)
        scores_K, ids_K = probabilities_KC.max(dim=1)
        return [
            Classification(class_id, score)
            for class_id, score in zip(ids_K.tolist(), scores_K.tolist(), strict=True)
        ]

    def probabilities(self, crops: Sequence[Pixels]) -> Tensor:
        """Return the probability of every class for each crop, [K, C] on the CPU.

        A pass for which the memory does not suffice is cut in halves, and none is as large again.
        """
        parts = list(self._limit.in_parts(self._pass, crops))
        return torch.cat(parts) if parts else torch.zeros(0, len(self.record.classes))

    def _pass(self, crops: Sequence[Pixels]) -> Tensor:
        size_hw, convention = self.record.input_size_hw, self.record.input_convention
        prepared = np.stack([fit_image(crop, size_hw, convention).tensor for crop in crops])
        (probabilities_BC,) = self.backend.run(torch.from_numpy(prepared))
        return probabilities_BC.cpu()


def agreeing(class_ids: Sequence[int], classifications: Sequence[Classification | None]) -> list[int]:
    """Return the rows of detections whose class the classifier names too, when both know the same classes.

    So the original project filters its detections. Harrier drops none: each gains what the classifier says.
    """
    return [
        row
        for row, (class_id, seen) in enumerate(zip(class_ids, classifications, strict=True))
        if seen is not None and seen.class_id == class_id
    ]
