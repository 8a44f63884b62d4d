"""From picture bytes to boxes in the picture's own pixels, in three steps that a batcher can drive.

prepare (one picture: decode, fit) -> infer (several at once) -> finish (one picture: choose, map back).
With test-time augmentation `view` makes several of one prepared picture, and `merge` one answer of theirs.

Shape suffixes: P = priors, C = classes, N = detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.clock import Stopwatch
from detection.detections import Detections
from detection.devices import CPU, wait_for
from detection.errors import ImageError
from detection.images import MAX_PIXELS, DecodedImage, ImageHeader, decode_image
from detection.inference.backends import BACKENDS, Backend
from detection.inference.passes import PLAIN, TtaPass
from detection.inference.tta import make_view, merge_passes
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
    passes: Sequence[TtaPass] = (PLAIN,)
    """How the network looks at each picture; more than one is test-time augmentation."""

    def __post_init__(self) -> None:
        if not self.passes:
            raise ValueError("without a pass nobody looks at the picture; a plain look is one")


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
    """Of the whole batch that the picture was part of; of several passes the sum."""
    batch_size: int
    passes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one picture went; inference is that of its whole batch, and of all passes."""

    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    batch_size: int
    passes: int = 1


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
        loaded = BACKENDS[backend].load(folder, record, device=device, threads=threads)
        return cls(loaded, record, max_pixels=max_pixels)

    def warm_up(self, batch_size: int = 1) -> None:
        """Run once on nothing, so that the first picture does not pay for what is loaded lazily."""
        self.backend.run(torch.zeros(batch_size, 3, *self.record.input_size_hw))
        wait_for(self.backend.device)

    def prepare(
        self,
        picture: bytes | DecodedImage,
        *,
        header: ImageHeader | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> Prepared:
        """Decode a picture, unless it is decoded already, and fit it to the network.

        Args:
            header: of the picture, where it was checked already.
            out: where the network's input is written, [3, height, width]; None is a new array.

        Raises:
            ImageError: the picture cannot be used.
        """
        watch = Stopwatch()
        size_hw = self.record.input_size_hw
        if isinstance(picture, bytes):
            picture = decode_image(picture, max_pixels=self._max_pixels, input_size_hw=size_hw, header=header)
        decode_ms = watch.lap_ms()
        fitted = fit_image(
            picture.pixels, size_hw, self.record.input_convention, picture_size_wh=picture.size_wh, out=out
        )
        return Prepared(fitted, picture.width, picture.height, decode_ms, watch.lap_ms())

    def view(self, prepared: Prepared, look: TtaPass) -> Prepared:
        """Return a prepared picture as a pass of test-time augmentation shows it to the network.

        Its `preprocess_ms` is what making it took; of the plain pass it is the very picture.
        """
        if look == PLAIN:
            return prepared
        watch = Stopwatch()
        seen = FittedImage(make_view(prepared.fitted.tensor, look, self.record), prepared.fitted.placement)
        return replace(prepared, fitted=seen, preprocess_ms=watch.lap_ms())

    def infer(self, batch: Sequence[Prepared]) -> list[Inferred]:
        """Run the network on several pictures at once; one answer per picture, in their order.

        Views of another size than the model's own are for backends that take any, and run beside the others.
        """
        answers: dict[int, Inferred] = {}
        for places in _by_size(batch):
            alike = self._infer_alike([batch[place] for place in places])
            answers.update(zip(places, alike, strict=True))
        return [answers[place] for place in range(len(batch))]

    def _infer_alike(self, batch: Sequence[Prepared]) -> list[Inferred]:
        watch = Stopwatch(self.backend.device)
        tensors = [each.fitted.tensor for each in batch]
        images_BCHW = torch.from_numpy(np.stack(tensors) if len(tensors) > 1 else tensors[0][None])
        boxes_BP4, scores_BPC = self.backend.run(images_BCHW)
        took_ms = watch.lap_ms()
        return [
            Inferred(boxes_P4, scores_PC, took_ms, len(batch))
            for boxes_P4, scores_PC in zip(boxes_BP4, scores_BPC, strict=True)
        ]

    def merge(self, passes: Sequence[TtaPass], inferred: Sequence[Inferred]) -> Inferred:
        """Put together what the passes saw in one picture, in the frame of the plain one."""
        if tuple(passes) == (PLAIN,):
            return inferred[0]
        boxes_A4, scores_AC = merge_passes(
            [each.boxes_P4 for each in inferred],
            [each.scores_PC for each in inferred],
            passes,
            self.record.input_size_hw,
        )
        return Inferred(
            boxes_A4,
            scores_AC,
            inference_ms=sum(each.inference_ms for each in inferred),
            batch_size=max(each.batch_size for each in inferred),
            passes=len(passes),
        )

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
        boxes_N4 = prepared.fitted.placement.to_picture(chosen.boxes_N4.cpu().numpy())
        scores_N, labels_N = chosen.scores_N.cpu(), chosen.labels_N.cpu()
        if options.clip:
            detections = _clipped(boxes_N4, scores_N, labels_N, prepared.width, prepared.height)
        else:
            detections = Detections(torch.from_numpy(boxes_N4), scores_N, labels_N)
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
                passes=inferred.passes,
            ),
        )

    def detect(
        self, batch: Sequence[Prepared], options: DetectOptions, *, plain: Sequence[Inferred] = ()
    ) -> list[Prediction]:
        """Infer and finish several pictures, pass after pass, so that the views of one exist at a time.

        Args:
            batch: prepared pictures.
            options: with the passes to look at each.
            plain: what the plain pass says about each, where that is known already.
        """
        seen_by_pass: list[Sequence[Inferred]] = []
        prepared = list(batch)
        for look in options.passes:
            views = [self.view(each, look) for each in batch]
            seen_by_pass.append(plain if look == PLAIN and plain else self.infer(views))
            prepared = [with_view(each, view, look) for each, view in zip(prepared, views, strict=True)]
        inferred = [self.merge(options.passes, seen) for seen in zip(*seen_by_pass, strict=True)]
        return [self.finish(each, seen, options) for each, seen in zip(prepared, inferred, strict=True)]

    def predict(
        self, pictures: Sequence[bytes | DecodedImage], options: DetectOptions = DetectOptions()
    ) -> list[Prediction | ImageError]:
        """Detect in several pictures in one batch; a useless picture costs only its own answer."""
        prepared = [self._prepare_or_error(picture) for picture in pictures]
        found = iter(self.detect([each for each in prepared if isinstance(each, Prepared)], options))
        return [next(found) if isinstance(each, Prepared) else each for each in prepared]

    def _prepare_or_error(self, picture: bytes | DecodedImage) -> Prepared | ImageError:
        try:
            return self.prepare(picture)
        except ImageError as error:
            return error


def with_view(prepared: Prepared, view: Prepared, look: TtaPass) -> Prepared:
    """Return a picture whose `preprocess_ms` holds what making a view of it took, too."""
    if look == PLAIN:
        return prepared
    return replace(prepared, preprocess_ms=prepared.preprocess_ms + view.preprocess_ms)


def _by_size(batch: Sequence[Prepared]) -> list[list[int]]:
    """Return the places of the pictures that can run together, for each size."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, each in enumerate(batch):
        places.setdefault(each.fitted.tensor.shape, []).append(place)
    return list(places.values())


def _clipped(
    boxes_N4: NDArray[np.float32], scores_N: Tensor, labels_N: Tensor, width: int, height: int
) -> Detections:
    inside_N4 = boxes_N4.clip(0.0, np.array([width, height, width, height], np.float32))
    kept_N = (inside_N4[:, 2:] > inside_N4[:, :2]).all(axis=1)
    if kept_N.all():
        return Detections(torch.from_numpy(inside_N4), scores_N, labels_N)
    rows_N = torch.from_numpy(kept_N)
    return Detections(torch.from_numpy(inside_N4[kept_N]), scores_N[rows_N], labels_N[rows_N])
