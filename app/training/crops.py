"""What a dataset has for a classifier to learn from, told before a job is queued."""

from __future__ import annotations

from typing import Any

from app.api.faults import fault_at
from app.database.tables import Dataset
from app.errors import EmptySplitError
from detection.data.attributes import MOST_VALUES
from detection.data.records import Split

MOST_NAMED = 20
"""Attributes or values in a message."""


def num_train_crops(dataset: Dataset, attribute: str | None) -> int:
    """Return how many boxes of the training split are labelled with an attribute, None being the class.

    Raises:
        InvalidInputError: no box has the attribute, or it has a value that the training split lacks.
        EmptySplitError: the training split has no box, or crowds alone, which are no crops.
    """
    num_crops = _num_boxes(dataset) if attribute is None else _num_labelled(dataset, attribute)
    if num_crops == 0:
        raise EmptySplitError(
            "the dataset has no boxes of single objects to train on, and a classifier learns from those"
        )
    return num_crops


def _num_boxes(dataset: Dataset) -> int:
    if len(dataset.classes) < 2:
        classes = ", ".join(map(repr, dataset.classes))
        raise fault_at("/dataset_id", f"there is nothing to tell apart: its only class is {classes}")
    train = dataset.splits.get(Split.TRAIN, {})
    return int(train.get("boxes", 0)) - int(train.get("crowds", 0))


def _num_labelled(dataset: Dataset, attribute: str) -> int:
    attributes: dict[str, dict[str, Any]] = dataset.attributes or {}
    values = attributes.get(attribute)
    if values is None:
        there_are = _listed(sorted(attributes)) or "none"
        problem = f"its boxes have no attribute {attribute!r} of at most {MOST_VALUES} values"
        raise fault_at("/attribute", f"{problem}; there are: {there_are}")
    if len(values) < 2:
        raise fault_at(
            "/attribute", f"there is nothing to tell apart: the only value is {_listed([*values])}"
        )
    empty = [value for value, boxes in values.items() if not boxes.get(Split.TRAIN)]
    if empty:
        raise fault_at("/attribute", f"no box of the split `train` has the value {_listed(empty)}")
    return sum(int(boxes[Split.TRAIN]) for boxes in values.values())


def _listed(names: list[str]) -> str:
    more = ", …" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more
