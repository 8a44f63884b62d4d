"""What imported weights become: architecture, classes and convention, given or found."""

from __future__ import annotations

from typing import Any

import pytest

from detection.data.coco_classes import COCO_CLASSES
from detection.errors import WeightsError
from detection.input_convention import NANODET_STRETCH, YOLOX, YOLOX_LEGACY, ChannelOrder
from detection.models.weights import ImportedWeights
from worker.jobs.import_model import model_record


def weights(num_classes: int = 2) -> ImportedWeights:
    return ImportedWeights("yolox-tiny", num_classes, {}, folded=False, report=())


def wishes(**given: Any) -> dict[str, Any]:
    return {"architecture": None, "classes": None, "input_convention": None, **given}


def test_what_is_not_said_is_found_or_usual() -> None:
    record = model_record(wishes(), weights(80))
    assert (record.architecture, record.input_size_hw) == ("yolox-tiny", (416, 416))
    assert record.classes == COCO_CLASSES
    assert record.input_convention == YOLOX


def test_a_model_is_served_and_measured_as_its_family_is() -> None:
    nanodet = ImportedWeights("nanodet-plus-m", 80, {}, folded=False, report=())
    record = model_record(wishes(), nanodet)
    assert record.input_convention == NANODET_STRETCH
    assert (record.nms_iou, record.one_label_per_prior) == (0.6, False)
    assert (record.evaluation_score_threshold, record.evaluation_max_detections) == (0.05, 100)
    usual = model_record(wishes(), weights(80))
    assert (usual.nms_iou, usual.one_label_per_prior) == (0.65, True)
    assert (usual.evaluation_score_threshold, usual.evaluation_max_detections) == (0.001, 1000)
    assert (
        model_record(wishes(input_convention="nanodet-keep-ratio"), nanodet).input_convention.pad_value == 114
    )


def test_what_is_said_is_believed() -> None:
    given = wishes(architecture="yolox-tiny", classes=["a", "b"], input_convention="yolox-legacy")
    record = model_record(given, weights())
    assert record.classes == ("a", "b")
    assert record.input_convention == YOLOX_LEGACY


def test_a_convention_may_be_spelled_out() -> None:
    convention = {"order": "rgb", "scale": 0.5, "mean": [1, 2, 3], "std": [1, 1, 1], "resize": "stretch"}
    given = wishes(classes=["a", "b"], input_convention={**convention, "pad_value": 0})
    record = model_record(given, weights())
    assert record.input_convention.order is ChannelOrder.RGB
    assert record.input_convention.mean == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"architecture": "yolox-s", "classes": ["a", "b"]}, "those of a yolox-tiny, not of a yolox-s"),
        ({}, "know 2 classes: send their names"),
        ({"classes": ["a", "b", "c"]}, "know 2 classes, but 3 names"),
    ],
)
def test_what_contradicts_the_weights_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(WeightsError, match=problem):
        model_record(wishes(**given), weights())


def test_there_are_eighty_classes_of_coco() -> None:
    assert len(set(COCO_CLASSES)) == len(COCO_CLASSES) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[11], COCO_CLASSES[-1]) == ("person", "stop sign", "toothbrush")
