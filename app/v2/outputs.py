"""What was found as tensors: as long for every picture as the longest list, and padded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.detect.wire import Box, Detected
from app.errors import HarrierError
from app.v2.tensors import Datatype, Tensor

NOT_LOOKED_AT = -1
"""The number of detections in a picture that could not be used, so that it is not taken for an empty one."""
NO_CLASS = -1
ANY = -1
"""Of a shape: any length."""
ERRORS = "errors"


@dataclass(frozen=True, slots=True)
class OfPicture:
    """An output with one value a picture."""

    datatype: Datatype
    value: Callable[[Detected | HarrierError], Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return (ANY,)

    def tensor(self, name: str, images: Sequence[Detected | HarrierError], most: int) -> Tensor:
        return Tensor(name, self.datatype, (len(images),), [self.value(image) for image in images])


@dataclass(frozen=True, slots=True)
class OfBoxes:
    """An output with some values a box, and with as many boxes a picture as the fullest has."""

    datatype: Datatype
    values: Callable[[Box], tuple[Any, ...]]
    padding: tuple[Any, ...]
    axis: tuple[int, ...] = ()
    """The values of one box, where it has several."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (ANY, ANY, *self.axis)

    def tensor(self, name: str, images: Sequence[Detected | HarrierError], most: int) -> Tensor:
        values: list[Any] = []
        for image in images:
            boxes = _boxes(image)
            for box in boxes:
                values.extend(self.values(box))
            values.extend(self.padding * (most - len(boxes)))
        return Tensor(name, self.datatype, (len(images), most, *self.axis), values)


def _boxes(image: Detected | HarrierError) -> tuple[Box, ...]:
    return image.boxes if isinstance(image, Detected) else ()


def _count(image: Detected | HarrierError) -> int:
    return len(image.boxes) if isinstance(image, Detected) else NOT_LOOKED_AT


def _problem(image: Detected | HarrierError) -> str:
    return image.detail if isinstance(image, HarrierError) else ""


OUTPUTS: dict[str, OfPicture | OfBoxes] = {
    "num_detections": OfPicture("INT32", _count),
    "boxes": OfBoxes("FP32", lambda box: (box.x1, box.y1, box.x2, box.y2), (0.0,) * 4, axis=(4,)),
    "scores": OfBoxes("FP32", lambda box: (box.score or 0.0,), (0.0,)),
    "class_ids": OfBoxes("INT32", lambda box: (box.class_id,), (NO_CLASS,)),
    "labels": OfBoxes("BYTES", lambda box: (box.label,), ("",)),
    ERRORS: OfPicture("BYTES", _problem),
}
"""By name, in the order of an answer to those who name none."""


def tensors_of(images: Sequence[Detected | HarrierError], names: Iterable[str]) -> list[Tensor]:
    """Return the outputs of these names for the pictures of a request."""
    most = max((len(_boxes(image)) for image in images), default=0)
    return [OUTPUTS[name].tensor(name, images, most) for name in names]
