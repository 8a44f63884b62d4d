"""The original project's weights do here what they do there, on real pictures."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from detection.data.importing import ImportedDataset, read_dataset
from detection.data.records import ImageRecord
from detection.devices import CPU
from detection.evaluation.coco import CocoMetrics
from detection.evaluation.evaluate import EVALUATION, evaluate
from detection.inference.backends import Backend
from detection.inference.backends.eager import EagerBackend
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.input_convention import YOLOX_LEGACY
from detection.model_record import ModelRecord
from detection.models import create_model
from detection.models.weights import load_matching, read_weights

pytestmark = pytest.mark.reference

TOLERANCE = 1e-3
SCORE_TOLERANCE = 0.02
LISTED_FROM = 0.4
"""The lowest score among the detections that were written down."""
AS_THE_ORIGINAL = replace(EVALUATION, max_detections=None, clip=False)
"""Neither clipped nor capped."""


@pytest.fixture(scope="module")
def coco(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> ImportedDataset:
    """The 49 pictures of COCO's val2017, read as an upload is."""
    folder = tmp_path_factory.mktemp("coco")
    with zipfile.ZipFile(reference / "datasets" / "coco-val-49-coco.zip") as archive:
        archive.extractall(folder)
    return read_dataset(folder)


@pytest.fixture(scope="module")
def record(coco: ImportedDataset) -> ModelRecord:
    return ModelRecord(architecture="yolox-nano", classes=coco.dataset.classes, input_size_hw=(416, 416))


@pytest.fixture(scope="module", params=["yolox-nano-coco.pth", "yolox-nano-coco-416.onnx"])
def backend(request: pytest.FixtureRequest, reference: Path) -> Backend:
    """The original's weights, from its checkpoint and from the graph that it exported."""
    weights = read_weights(reference / "weights" / request.param)
    detector = create_model(weights.architecture, num_classes=weights.num_classes)
    load_matching(detector, weights.state)
    return EagerBackend(detector, CPU)


Measure = Callable[..., CocoMetrics]


@pytest.fixture(scope="module")
def measure(coco: ImportedDataset) -> Measure:
    def read(image: ImageRecord) -> bytes:
        return coco.paths[image.id].read_bytes()

    def measured(backend: Backend, record: ModelRecord, options: DetectOptions) -> CocoMetrics:
        metrics = evaluate(Predictor(backend, record), coco.dataset.images, read, options=options)
        assert metrics is not None
        return metrics

    return measured


def test_ap_is_that_of_the_original(measure: Measure, backend: Backend, record: ModelRecord) -> None:
    metrics = measure(backend, record, AS_THE_ORIGINAL)
    assert metrics.ap == pytest.approx(0.2868, abs=TOLERANCE)
    assert metrics.ap50 == pytest.approx(0.4730, abs=TOLERANCE)
    assert metrics.ap75 == pytest.approx(0.2800, abs=TOLERANCE)


def test_ap_as_it_is_served(measure: Measure, backend: Backend, record: ModelRecord) -> None:
    metrics = measure(backend, record, EVALUATION)
    assert metrics.ap == pytest.approx(0.2889, abs=TOLERANCE)
    assert metrics.ap50 == pytest.approx(0.4730, abs=TOLERANCE)


def test_the_legacy_input_convention_gives_nothing(
    measure: Measure, backend: Backend, record: ModelRecord
) -> None:
    metrics = measure(backend, replace(record, input_convention=YOLOX_LEGACY), EVALUATION)
    assert metrics.ap is not None
    assert metrics.ap < 0.01


@pytest.mark.parametrize("photo", ["dog", "eagle", "giraffe", "horses", "person", "scream"])
def test_photographs_show_what_the_original_sees(
    reference: Path, backend: Backend, record: ModelRecord, photo: str
) -> None:
    """Every detection of the original has one here, and nothing else is found that it would have shown."""
    listed = json.loads((reference / "weights" / "reference-detections.json").read_text())
    expected = listed["yolox-nano-coco-416"][f"{photo}.jpg"]
    options = DetectOptions(score_threshold=LISTED_FROM - SCORE_TOLERANCE, clip=False)
    (answer,) = Predictor(backend, record).predict(
        [(reference / "photos" / f"{photo}.jpg").read_bytes()], options
    )
    assert isinstance(answer, Prediction)
    found = answer.detections
    for each in expected:
        label_N = found.labels_N == record.classes.index(each["label"])
        overlap_N = box_iou(torch.tensor([each["xyxy"]]), found.boxes_N4)[0] * label_N
        assert overlap_N.max() >= 0.95, each
        assert found.scores_N[overlap_N.argmax()].item() == pytest.approx(each["score"], abs=SCORE_TOLERANCE)
    surely_seen = (found.scores_N >= LISTED_FROM + SCORE_TOLERANCE).sum()
    assert surely_seen <= len(expected)
