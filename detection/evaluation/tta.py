"""What test-time augmentation changes on a split: the same pictures looked at once and in several passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detection.data.records import ImageRecord
from detection.detections import Detections
from detection.evaluation.coco import CocoMetrics, measure_detections
from detection.evaluation.evaluate import ReadPicture, evaluation_options, look_at_all
from detection.inference.passes import TtaPass, passes_as_json
from detection.inference.predictor import Predictor, Prepared

COMPARED = ("ap", "ap50", "ap75")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainAndAugmented:
    """What was found in each picture, in its own pixels."""

    passes: tuple[TtaPass, ...]
    plain: list[Detections]
    augmented: list[Detections] | None
    """With all passes; None where none were asked for."""

    @property
    def asked_for(self) -> list[Detections]:
        return self.plain if self.augmented is None else self.augmented

    def measure(self, images: Sequence[ImageRecord], classes: Sequence[str]) -> MeasuredPasses:
        """Compare with the boxes of the same pictures by COCO's rules."""
        return MeasuredPasses(
            passes=self.passes,
            plain=measure_detections(images, self.plain, classes),
            augmented=None if self.augmented is None else measure_detections(images, self.augmented, classes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPasses:
    """COCO metrics without augmentation and with it."""

    passes: tuple[TtaPass, ...]
    plain: CocoMetrics
    augmented: CocoMetrics | None

    @property
    def asked_for(self) -> CocoMetrics:
        return self.augmented or self.plain

    @property
    def comparison(self) -> dict[str, Any] | None:
        """Both and their difference, as an evaluation shows them; None without augmentation.

        A difference is None where a split has nothing to be found at that IoU.
        """
        if self.augmented is None:
            return None
        plain, augmented = _compared(self.plain), _compared(self.augmented)
        difference = {name: _minus(augmented[name], plain[name]) for name in COMPARED}
        return {
            "passes": passes_as_json(self.passes),
            "plain": plain,
            "augmented": augmented,
            "difference": difference,
        }


def detect_plain_and_augmented(
    predictor: Predictor,
    images: Sequence[ImageRecord],
    read: ReadPicture,
    passes: Sequence[TtaPass],
    *,
    interrupted: Callable[[], bool] = lambda: False,
    saw: Callable[[int], None] = lambda num_images: None,
) -> PlainAndAugmented | None:
    """Detect in every picture without and with augmentation; each is decoded, and seen plainly, only once.

    Args:
        passes: of the augmentation; without any the plain look is all.
        interrupted: asked before every batch; when true, all is given up and None returned.
        saw: told after every batch how many pictures are done.

    Raises:
        ImageError: a picture cannot be read; an evaluation never leaves one out.
    """
    plain_options = evaluation_options(predictor.record)
    augmented_options = replace(plain_options, passes=tuple(passes)) if passes else None

    def look(batch: Sequence[Prepared]) -> list[tuple[Detections, ...]]:
        inferred = predictor.infer(batch)
        looks = [predictor.detect(batch, plain_options, plain=inferred)]
        if augmented_options is not None:
            looks.append(predictor.detect(batch, augmented_options, plain=inferred))
        return [tuple(each.detections for each in of_picture) for of_picture in zip(*looks, strict=True)]

    found = look_at_all(predictor, images, read, look, interrupted=interrupted, saw=saw)
    if found is None:
        return None
    return PlainAndAugmented(
        passes=tuple(passes),
        plain=[each[0] for each in found],
        augmented=[each[1] for each in found] if passes else None,
    )


def _compared(metrics: CocoMetrics) -> dict[str, float | None]:
    return {name: getattr(metrics, name) for name in COMPARED}


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
