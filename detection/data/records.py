"""The one shape that every dataset format is read into and written from. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Split(StrEnum):
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRecord:
    """One labelled object: xyxy in pixels of the picture as a person sees it (EXIF orientation applied)."""

    class_id: int
    """Index into `DatasetRecord.classes`."""
    x1: float
    y1: float
    x2: float
    y2: float
    crowd: bool = False
    """A COCO crowd region: never a training target, ignored in evaluation."""
    difficult: bool = False
    """Pascal VOC's `difficult`; kept for export, trained on like any other box."""
    attributes: tuple[tuple[str, str], ...] = ()
    """What else the labels say about the object: name and value, sorted by name, each name once."""

    @property
    def area(self) -> float:
        return max(self.x2 - self.x1, 0.0) * max(self.y2 - self.y1, 0.0)

    def attribute(self, name: str) -> str | None:
        """Return the value of one attribute; None where the labels do not say."""
        return next((value for each, value in self.attributes if each == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One picture of a dataset."""

    id: str
    """Stable within the dataset; made of digits and letters, safe as a file name and in a URL."""
    file_name: str
    """Path inside the archive, with forward slashes; shown to users and written by exports."""
    width: int
    height: int
    """Pixels of the picture as a person sees it (EXIF orientation applied)."""
    split: Split
    boxes: tuple[BoxRecord, ...] = ()
    sha256: str = ""
    """Of the picture's bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """A whole dataset: immutable once imported; its manifest is this record as JSON."""

    format: str
    """Name of the format it was read from."""
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]

    def of_split(self, split: Split) -> tuple[ImageRecord, ...]:
        return tuple(image for image in self.images if image.split == split)
