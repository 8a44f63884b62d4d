"""From picture bytes to boxes in the picture's own pixels, in three steps that a batcher can drive.

prepare (one picture: decode, fit) -> infer (several at once) -> finish (one picture: choose, map back).

Shape suffixes: P = priors, C = classes, N = detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detection.clock import Stopwatch
from detection.detections import Detections
from detection.devices import CPU, wait_for
from detection.errors import ImageError
from detection.images import MAX_PIXELS, DecodedImage, decode_image
from detection.inference.backends import BACKENDS, Backend
from detection.model_files import read_record
from detection.model_record import ModelRecord
from detection.postprocess import select_detections
from detection.preprocess import FittedImage, fit_image


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectOptions:
    """Which of a network's boxes become detections."""

    score_threshold: float = 0.3
    nms_iou: float | None = None
    """Boxes of one class that overlap a better one by more are dropped; None is the model's value."""
    max_detections: int | None = 100
    class_ids: Sequence[int] | None = None
    """Only these classes; None is all."""
    clip: bool = True
    """Cut boxes off at the picture's border; what lies outside it entirely is dropped."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for the network."""

    fitted: FittedImage
    width: int
    height: int
    """Of the picture as a person sees it, pixels."""
    decode_ms: float
    preprocess_ms: float


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the network said about one picture."""

    boxes_P4: Tensor
    scores_PC: Tensor
    inference_ms: float
    """Of the whole batch that the picture was part of."""
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one picture went; inference is that of its whole batch."""

    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer for one picture."""

    detections: Detections
    """In pixels of the picture as a person sees it, on the CPU."""
    width: int
    height: int
    timing: Timing


class Predictor:
    """A model that is ready to look at pictures. Results do not depend on what else is in a batch."""

    def __init__(self, backend: Backend, record: ModelRecord, *, max_pixels: int = MAX_PIXELS) -> None:
        self.backend, self.record, self._max_pixels = backend, record, max_pixels

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        backend: str = "eager",
        device: torch.device = CPU,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Predictor:
        """Load a published model.

        Args:
            backend: a name of `BACKENDS`.
            threads: that one inference may use; None is the backend's choice.
            max_pixels: larger pictures are refused from their header.
        """
        record = read_record(folder)
        loaded = BACKENDS[backend](folder, record, device=device, threads=threads)
        return cls(loaded, record, max_pixels=max_pixels)

    def warm_up(self, batch_size: int = 1) -> None:
        """Run once on nothing, so that the first picture does not pay for what is loaded lazily."""
        self.backend.run(torch.zeros(batch_size, 3, *self.record.input_size_hw))
        wait_for(self.backend.device)

    def prepare(self, picture: bytes | DecodedImage) -> Prepared:
        """Decode a picture, unless it is decoded already, and fit it to the network.

        Raises:
            ImageError: the picture cannot be used.
        """
        watch = Stopwatch()
        size_hw = self.record.input_size_hw
        if isinstance(picture, bytes):
            picture = decode_image(picture, max_pixels=self._max_pixels, input_size_hw=size_hw)
        decode_ms = watch.lap_ms()
        fitted = fit_image(
            picture.pixels, size_hw, self.record.input_convention, picture_size_wh=picture.size_wh
        )
        return Prepared(fitted, picture.width, picture.height, decode_ms, watch.lap_ms())

    def infer(self, batch: Sequence[Prepared]) -> list[Inferred]:
        """Run the network on several pictures at once; one answer per picture, in their order."""
        if not batch:
            return []
        watch = Stopwatch(self.backend.device)
        images_BCHW = torch.from_numpy(np.stack([each.fitted.tensor for each in batch]))
        boxes_BP4, scores_BPC = self.backend.run(images_BCHW)
        took_ms = watch.lap_ms()
        return [
            Inferred(boxes_P4, scores_PC, took_ms, len(batch))
            for boxes_P4, scores_PC in zip(boxes_BP4, scores_BPC, strict=True)
        ]

    def finish(self, prepared: Prepared, inferred: Inferred, options: DetectOptions) -> Prediction:
        """Choose the detections of one picture and map them back to its own pixels."""
        watch = Stopwatch()
        chosen = select_detections(
            inferred.boxes_P4,
            inferred.scores_PC,
            score_threshold=options.score_threshold,
            nms_iou=self.record.nms_iou if options.nms_iou is None else options.nms_iou,
            max_detections=options.max_detections,
            one_label_per_prior=self.record.one_label_per_prior,
            class_ids=options.class_ids,
        )
        boxes_N4 = prepared.fitted.placement.to_picture(chosen.boxes_N4.cpu())
        detections = Detections(boxes_N4, chosen.scores_N.cpu(), chosen.labels_N.cpu())
        if options.clip:
            detections = _clipped(detections, prepared.width, prepared.height)
        return Prediction(
            detections=detections,
            width=prepared.width,
            height=prepared.height,
            timing=Timing(
                decode_ms=prepared.decode_ms,
                preprocess_ms=prepared.preprocess_ms,
                inference_ms=inferred.inference_ms,
                postprocess_ms=watch.lap_ms(),
                batch_size=inferred.batch_size,
            ),
        )

    def predict(
        self, pictures: Sequence[bytes | DecodedImage], options: DetectOptions = DetectOptions()
    ) -> list[Prediction | ImageError]:
        """Detect in several pictures in one batch; a useless picture costs only its own answer."""
        prepared = [self._prepare_or_error(picture) for picture in pictures]
        usable = [each for each in prepared if isinstance(each, Prepared)]
        inferred = iter(self.infer(usable))
        return [
            self.finish(each, next(inferred), options) if isinstance(each, Prepared) else each
            for each in prepared
        ]

    def _prepare_or_error(self, picture: bytes | DecodedImage) -> Prepared | ImageError:
        try:
            return self.prepare(picture)
        except ImageError as error:
            return error


def _clipped(detections: Detections, width: int, height: int) -> Detections:
    low = detections.boxes_N4.new_zeros(4)
    high = detections.boxes_N4.new_tensor([width, height, width, height])
    boxes_N4 = detections.boxes_N4.clamp(low, high)
    kept_N = (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(dim=1)
    return Detections(boxes_N4[kept_N], detections.scores_N[kept_N], detections.labels_N[kept_N])
