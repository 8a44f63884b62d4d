"""The original project's weights do here what they do there, on real pictures."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detection.architectures import ARCHITECTURES
from detection.data.importing import ImportedDataset, read_dataset
from detection.data.records import ImageRecord
from detection.devices import CPU
from detection.evaluation.coco import CocoMetrics
from detection.evaluation.evaluate import evaluate, evaluation_options
from detection.inference.backends.eager import EagerBackend
from detection.inference.passes import DEFAULT_PASSES
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.input_convention import YOLOX, YOLOX_LEGACY, InputConvention
from detection.models import create_served_model
from detection.models.batch_norm_statistics import recreate_norms
from detection.models.detector import Detector
from detection.models.weights import read_weights

pytestmark = pytest.mark.reference

SCORE_TOLERANCE = 0.02


class Original(NamedTuple):
    """The weights of an original project, from its checkpoint and from the graph that it exported."""

    files: tuple[str, ...]
    detections: str
    """Their name in the list of reference detections."""
    ap: float
    ap50: float
    tolerance: float
    tolerance50: float
    listed_from: float
    """The lowest score of a detection that was written down."""
    wrong: InputConvention
    """Weights of another kind want this one."""


ORIGINALS = (
    Original(
        files=("yolox-nano-coco.pth", "yolox-nano-coco-416.onnx"),
        detections="yolox-nano-coco-416",
        ap=0.2889,
        ap50=0.4730,
        tolerance=1e-3,
        tolerance50=1e-3,
        listed_from=0.4,
        wrong=YOLOX_LEGACY,
    ),
    Original(
        files=("nanodet-plus-m-416-coco.ckpt", "nanodet-plus-m-416-coco.onnx"),
        detections="nanodet-plus-m-416-coco",
        ap=0.3502,
        ap50=0.5131,
        tolerance=2e-3,
        tolerance50=4e-3,
        listed_from=0.35,
        wrong=YOLOX,
    ),
)
FILES = [(original, file) for original in ORIGINALS for file in original.files]


class Case(NamedTuple):
    original: Original
    predictor: Predictor


@pytest.fixture(scope="module")
def coco(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> ImportedDataset:
    """The 49 pictures of COCO's val2017, read as an upload is."""
    folder = tmp_path_factory.mktemp("coco")
    with zipfile.ZipFile(reference / "datasets" / "coco-val-49-coco.zip") as archive:
        archive.extractall(folder)
    return read_dataset(folder)


@pytest.fixture(scope="module", params=FILES, ids=[file for _, file in FILES])
def case(request: pytest.FixtureRequest, reference: Path, coco: ImportedDataset) -> Case:
    """One file of weights, ready to detect as an import of it would be."""
    original, file = request.param
    weights = read_weights(reference / "weights" / file)
    detector = create_served_model(weights.architecture, num_classes=weights.num_classes)
    detector.load_state_dict(weights.state)
    record = ARCHITECTURES[weights.architecture].record(classes=coco.dataset.classes)
    return Case(original, Predictor(EagerBackend(detector, CPU), record))


Measure = Callable[..., CocoMetrics]


@pytest.fixture(scope="module")
def measure(coco: ImportedDataset) -> Measure:
    def read(image: ImageRecord) -> bytes:
        return coco.paths[image.id].read_bytes()

    def measured(predictor: Predictor, options: DetectOptions | None = None) -> CocoMetrics:
        metrics = evaluate(predictor, coco.dataset.images, read, options=options)
        assert metrics is not None
        return metrics

    return measured


def test_ap_as_it_is_served(measure: Measure, case: Case) -> None:
    metrics = measure(case.predictor)
    assert metrics.ap == pytest.approx(case.original.ap, abs=case.original.tolerance)
    assert metrics.ap50 == pytest.approx(case.original.ap50, abs=case.original.tolerance50)


@pytest.mark.parametrize("case", FILES[:1], ids=[FILES[0][1]], indirect=True)
def test_ap_with_test_time_augmentation(measure: Measure, case: Case) -> None:
    options = replace(evaluation_options(case.predictor.record), passes=DEFAULT_PASSES)
    metrics = measure(case.predictor, options)
    assert metrics.ap == pytest.approx(0.2920, abs=1e-3)
    assert metrics.ap50 == pytest.approx(0.4660, abs=1e-3)


@pytest.mark.parametrize("file", ["yolox-nano-coco-416.onnx", "nanodet-plus-m-416-coco.onnx"])
def test_ap_stays_when_batch_norms_are_re_created(
    reference: Path, coco: ImportedDataset, measure: Measure, file: str
) -> None:
    weights = read_weights(reference / "weights" / file)
    detector = create_served_model(weights.architecture, num_classes=weights.num_classes)
    detector.load_state_dict(weights.state)
    record = ARCHITECTURES[weights.architecture].record(classes=coco.dataset.classes)
    predictor = Predictor(EagerBackend(copy.deepcopy(detector), CPU), record)
    seen = [
        predictor.prepare(coco.paths[image.id].read_bytes()).fitted.tensor for image in coco.dataset.images
    ]
    images_BCHW = torch.from_numpy(np.stack(seen))
    served = measure(predictor)
    neutral = train_mode_error(detector, images_BCHW[:8])
    made = recreate_norms(detector, images_BCHW[8:].split(7))
    assert made.norms == sum(isinstance(each, nn.BatchNorm2d) for each in detector.modules())
    assert made.pictures == 41
    assert train_mode_error(detector, images_BCHW[:8]) < neutral / 2
    again = measure(Predictor(EagerBackend(detector, CPU), record))
    assert again.ap == pytest.approx(served.ap, abs=1e-4)
    assert again.ap50 == pytest.approx(served.ap50, abs=1e-4)


def train_mode_error(detector: Detector, images_BCHW: Tensor) -> float:
    """Return how far the raw predictions in train mode are from those in eval mode, relative to these."""
    with torch.no_grad():
        expected = detector.eval()(images_BCHW)
        found = copy.deepcopy(detector).train()(images_BCHW)
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("case", FILES[:2], ids=[file for _, file in FILES[:2]], indirect=True)
def test_ap_is_that_of_yolox_as_it_was_measured(measure: Measure, case: Case) -> None:
    """Its figures are of boxes that are neither clipped nor capped."""
    usual = evaluation_options(case.predictor.record)
    metrics = measure(case.predictor, replace(usual, max_detections=None, clip=False))
    assert metrics.ap == pytest.approx(0.2868, abs=1e-3)
    assert metrics.ap50 == pytest.approx(0.4730, abs=1e-3)
    assert metrics.ap75 == pytest.approx(0.2800, abs=1e-3)


def test_another_input_convention_gives_little(measure: Measure, case: Case) -> None:
    record = replace(case.predictor.record, input_convention=case.original.wrong)
    metrics = measure(Predictor(case.predictor.backend, record))
    assert metrics.ap is not None
    assert metrics.ap < 0.01


@pytest.mark.parametrize("photo", ["dog", "eagle", "giraffe", "horses", "person", "scream"])
def test_photographs_show_what_the_original_sees(reference: Path, case: Case, photo: str) -> None:
    """Every detection of the original has one here, and nothing else is found that it would have shown."""
    listed = json.loads((reference / "weights" / "reference-detections.json").read_text())
    expected = listed[case.original.detections][f"{photo}.jpg"]
    options = DetectOptions(score_threshold=case.original.listed_from - SCORE_TOLERANCE, clip=False)
    (answer,) = case.predictor.predict([(reference / "photos" / f"{photo}.jpg").read_bytes()], options)
    assert isinstance(answer, Prediction)
    found = answer.detections
    for each in expected:
        label_N = found.labels_N == case.predictor.record.classes.index(each["label"])
        overlap_N = box_iou(torch.tensor([each["xyxy"]]), found.boxes_N4)[0] * label_N
        assert overlap_N.max() >= 0.95, each
        assert found.scores_N[overlap_N.argmax()].item() == pytest.approx(each["score"], abs=SCORE_TOLERANCE)
    surely_seen = (found.scores_N >= case.original.listed_from + SCORE_TOLERANCE).sum()
    assert surely_seen <= len(expected)
