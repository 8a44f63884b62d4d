"""Classes of a model and of a dataset are the same when their names are."""

from __future__ import annotations

import pytest

from detection.data.records import BoxRecord, ImageRecord, Split
from detection.errors import DatasetFormatError
from worker.jobs.evaluate import matched_ids, with_ids


def test_classes_are_matched_by_name() -> None:
    assert matched_ids(("dog", "owl", "cat"), ("cat", "dog", "horse")) == {0: 1, 2: 0}
    with pytest.raises(DatasetFormatError, match="no class in common"):
        matched_ids(("owl",), ("cat", "dog"))


def test_boxes_get_the_ids_of_the_model_and_unknown_ones_are_left_out() -> None:
    boxes = tuple(BoxRecord(class_id=each, x1=0, y1=0, x2=each + 1, y2=1) for each in (0, 1, 2))
    image = ImageRecord(id="1", file_name="1.jpg", width=8, height=8, split=Split.VAL, boxes=boxes)
    translated = with_ids(image, {0: 1, 2: 0})
    assert [(box.class_id, box.x2) for box in translated.boxes] == [(1, 1), (0, 3)]
