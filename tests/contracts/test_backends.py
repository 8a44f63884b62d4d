"""What every backend must do for every family: answer like the eager one, whatever the batch."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.deploy.package import ModelFile, write_model
from detection.devices import CPU
from detection.durable import sha256_of
from detection.errors import BackendError
from detection.inference.backends import BACKENDS, Backend
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.inference.serving import Precision, executor_name, read_executor
from detection.model_files import ONNX_FILE, RECORD_FILE, WEIGHTS_FILE, read_record
from detection.model_record import ModelRecord
from detection.models import MODELS, create_model, create_served_model
from detection.models.detector import Detector
from detection.models.weights import read_weights
from detection.priors import grid_priors
from tests.pictures import jpeg, noise, png, quadrants

CLASSES = ("cat", "dog", "owl")
SMALLEST_OF_FAMILY = list({ARCHITECTURES[name].family: name for name in reversed(MODELS.names())}.values())
EXECUTORS = [
    executor_name(name, precision) for name in BACKENDS for precision in BACKENDS[name].precisions(CPU)
]
"""Every backend in every precision that this processor has."""
EXACT = [name for name in EXECUTORS if read_executor(name)[1] is Precision.FP32]
OPTIONS = DetectOptions(score_threshold=0.3, max_detections=20)
torch.set_num_threads(1)


def pictures() -> list[bytes]:
    return [jpeg(quadrants(120, 80)), png(noise(64, 64)), jpeg(noise(33, 200, seed=1)), png(quadrants(1, 1))]


@pytest.fixture(scope="module", params=SMALLEST_OF_FAMILY)
def record(request: pytest.FixtureRequest) -> ModelRecord:
    return ARCHITECTURES[request.param].record(classes=CLASSES, input_size_hw=(64, 96))


@pytest.fixture(scope="module")
def detector(record: ModelRecord) -> Detector:
    """A network whose batch norms have seen something and whose scores are not all alike."""
    torch.manual_seed(0)
    detector = create_model(record.architecture, num_classes=3)
    for layer in detector.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for _ in range(20):
            detector(images(4))
    return detector.eval()


Written = tuple[Path, tuple[ModelFile, ...]]


@pytest.fixture(scope="module")
def written(detector: Detector, record: ModelRecord, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The model's folder, and what was said to be written there."""
    folder = tmp_path_factory.mktemp("model")
    return folder, write_model(detector, record, folder, pictures=pictures())


@pytest.fixture(scope="module")
def folder(written: Written) -> Path:
    return written[0]


@pytest.fixture(params=EXECUTORS)
def backend(request: pytest.FixtureRequest, folder: Path, record: ModelRecord) -> Backend:
    name, precision = read_executor(request.param)
    return BACKENDS[name].load(folder, record, device=CPU, threads=1, precision=precision)


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def test_outputs_have_the_shape_and_range_of_the_contract(backend: Backend, detector: Detector) -> None:
    boxes_BP4, scores_BPC = backend.run(images(2))
    priors = len(grid_priors((64, 96), detector.strides).corners_P2)
    assert boxes_BP4.shape == (2, priors, 4)
    assert scores_BPC.shape == (2, priors, 3)
    assert boxes_BP4.dtype is scores_BPC.dtype is torch.float32
    assert (boxes_BP4[..., 2:] >= boxes_BP4[..., :2]).all()
    assert scores_BPC.min() >= 0
    assert scores_BPC.max() <= 1
    assert scores_BPC.std() > 0.01


@pytest.mark.parametrize("backend", EXACT, indirect=True)
def test_the_detector_itself_says_the_same(backend: Backend, detector: Detector) -> None:
    with torch.no_grad():
        expected_boxes, expected_scores = detector.predict(images(3))
    boxes, scores = backend.run(images(3))
    torch.testing.assert_close(boxes, expected_boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-3, atol=1e-5)


def test_whatever_the_precision_the_detector_says_nearly_the_same(
    backend: Backend, detector: Detector
) -> None:
    with torch.no_grad():
        expected_boxes, expected_scores = detector.predict(images(3))
    boxes, scores = backend.run(images(3))
    assert (boxes - expected_boxes).abs().mean() < 2
    assert (scores - expected_scores).abs().mean() < 0.05


def test_several_threads_may_ask_one_backend(backend: Backend) -> None:
    batch = images(4)
    expected = [backend.run(batch[index : index + 1]) for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(backend.run, [batch[index : index + 1] for index in range(4)] * 3))
    for own, wanted in zip(answers, expected * 3, strict=True):
        torch.testing.assert_close(own, wanted)


def test_an_answer_is_the_callers(backend: Backend) -> None:
    boxes, scores = backend.run(images(1))
    kept = boxes.clone(), scores.clone()
    backend.run(255 - images(1))
    torch.testing.assert_close((boxes, scores), kept)


def test_a_batch_says_what_its_pictures_say_alone(backend: Backend) -> None:
    batch = images(5)
    boxes, scores = backend.run(batch)
    for index in range(5):
        own_boxes, own_scores = backend.run(batch[index : index + 1])
        torch.testing.assert_close(own_boxes[0], boxes[index], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(own_scores[0], scores[index], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in EXACT if name != "eager"])
def test_a_published_model_detects_the_same_with_every_backend(name: str, folder: Path) -> None:
    def detected(backend: str) -> list[Prediction]:
        predictor = Predictor.from_folder(folder, backend=backend, threads=1)
        predictor.warm_up()
        answers = predictor.predict(pictures(), OPTIONS)
        return [each for each in answers if isinstance(each, Prediction)]

    expected, answers = detected("eager"), detected(name)
    assert len(answers) == len(expected) == 4
    assert sum(len(each.detections) for each in expected) > 10
    for own, reference in zip(answers, expected, strict=True):
        torch.testing.assert_close(
            own.detections.boxes_N4, reference.detections.boxes_N4, rtol=1e-3, atol=0.05
        )
        torch.testing.assert_close(
            own.detections.scores_N, reference.detections.scores_N, rtol=1e-3, atol=1e-4
        )
        assert torch.equal(own.detections.labels_N, reference.detections.labels_N)


def test_a_model_folder_holds_weights_graph_and_record(written: Written, record: ModelRecord) -> None:
    folder, files = written
    assert {each.name for each in files} == {WEIGHTS_FILE, ONNX_FILE, RECORD_FILE}
    assert {path.name for path in folder.iterdir()} == {each.name for each in files}
    for each in files:
        assert sha256_of(folder / each.name) == each.sha256
        assert (folder / each.name).stat().st_size == each.size_bytes
    assert read_record(folder) == record


def test_the_weights_can_be_trained_on(detector: Detector, folder: Path) -> None:
    """They are not fused: every name and value of the detector is there, but for what is training's alone."""
    stored = load_file(folder / WEIGHTS_FILE)
    served = copy.deepcopy(detector)
    served.drop_training_parts()
    for name, value in served.state_dict().items():
        assert torch.equal(stored[name], value), name
    assert len(stored) == len(served.state_dict())


def test_both_files_of_weights_can_be_imported_again(folder: Path, record: ModelRecord) -> None:
    expected = Predictor.from_folder(folder).backend.run(images(2))
    for name in (WEIGHTS_FILE, ONNX_FILE):
        weights = read_weights(folder / name)
        assert (weights.architecture, weights.num_classes) == (record.architecture, len(CLASSES))
        assert weights.folded == (name == ONNX_FILE)
        detector = create_served_model(weights.architecture, num_classes=weights.num_classes)
        detector.load_state_dict(weights.state)
        with torch.no_grad():
            boxes, scores = detector.predict(images(2))
        torch.testing.assert_close(boxes, expected[0], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(scores, expected[1], rtol=1e-3, atol=1e-5)


def test_what_a_backend_has_not_is_said_when_it_is_loaded(folder: Path, record: ModelRecord) -> None:
    with pytest.raises(BackendError, match="onnxruntime does not compute in bf16 on cpu; it has fp32"):
        BACKENDS["onnxruntime"].load(folder, record, device=CPU, threads=None, precision=Precision.BF16)


def test_an_accelerator_is_not_for_every_backend(folder: Path, record: ModelRecord) -> None:
    with pytest.raises(BackendError, match="onnxruntime cannot use cuda:0"):
        BACKENDS["onnxruntime"].load(folder, record, device=torch.device("cuda", 0), threads=None)
