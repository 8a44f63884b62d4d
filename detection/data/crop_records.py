"""A dataset of labelled boxes as a dataset of crops, one per box. Plain Python."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from detection.data.records import BoxRecord, DatasetRecord, ImageRecord
from detection.data.wording import counted, quoted
from detection.errors import DatasetFormatError

MOST_NAMED = 20
"""Attributes or values in a message."""


@dataclass(frozen=True, slots=True)
class CropDataset:
    """Crops in the order of their pictures."""

    record: DatasetRecord
    """Of the classes that a classifier learns; a picture stands in it once for each of its boxes, with that
    box alone."""
    left_out: int
    """Boxes that say nothing of what is learnt."""


def crop_dataset(dataset: DatasetRecord, attribute: str | None) -> CropDataset:
    """Return every box of a dataset as a crop, labelled with an attribute's value or with its class.

    Crowd regions are no single object and never a crop. Values are classes in the order of the alphabet.

    Args:
        attribute: None is the class.

    Raises:
        DatasetFormatError: no box has the attribute.
    """
    if attribute is None:
        images = [_crop(image, box, box.class_id) for image, box in _boxes(dataset)]
        return CropDataset(replace(dataset, images=tuple(images)), left_out=0)
    values = sorted({value for _, box in _boxes(dataset) if (value := box.attribute(attribute)) is not None})
    if not values:
        raise DatasetFormatError("the dataset", "", _no_such_attribute(dataset, attribute))
    ids = {value: class_id for class_id, value in enumerate(values)}
    labelled = [(image, box, box.attribute(attribute)) for image, box in _boxes(dataset)]
    images = [_crop(image, box, ids[value]) for image, box, value in labelled if value is not None]
    record = replace(dataset, classes=tuple(values), images=tuple(images))
    return CropDataset(record, left_out=len(labelled) - len(images))


def _boxes(dataset: DatasetRecord) -> list[tuple[ImageRecord, BoxRecord]]:
    return [(image, box) for image in dataset.images for box in image.boxes if not box.crowd]


def _crop(image: ImageRecord, box: BoxRecord, class_id: int) -> ImageRecord:
    return replace(image, boxes=(replace(box, class_id=class_id),))


def _no_such_attribute(dataset: DatasetRecord, attribute: str) -> str:
    names = Counter(name for _, box in _boxes(dataset) for name, _ in box.attributes)
    there_are = ", ".join(quoted(name) for name, _ in names.most_common(MOST_NAMED))
    boxes = counted(len(_boxes(dataset)), "box", "boxes")
    return f"none of its {boxes} has the attribute {quoted(attribute)}; there are: {there_are or 'none'}"
