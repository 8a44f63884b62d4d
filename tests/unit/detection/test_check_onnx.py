"""What counts as the same boxes when an exported graph is compared with its detector."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from detection.architectures import ARCHITECTURES
from detection.deploy import export
from detection.deploy.export import check_backend, check_onnx
from detection.errors import ExportError
from detection.inference.backends.eager import EagerBackend
from detection.inference.predictor import DetectOptions, Prediction, Predictor
from detection.models import create_model
from tests.pictures import jpeg, noise

SCORES_BPC = torch.full((1, 1, 2), 0.5)
WIDE_BOX = (0.2, 0.3, 184.3, 220.7)
EVERYTHING = DetectOptions(score_threshold=0.0, nms_iou=1.0)


def boxes(*corners: float) -> Tensor:
    return torch.tensor(corners).reshape(1, 1, 4)


class FixedDetector(nn.Module):
    """Predicts one box, whatever the picture."""

    output_names = ("boxes", "scores")

    def predict(self, _: Tensor) -> tuple[Tensor, Tensor]:
        return boxes(*WIDE_BOX), SCORES_BPC


@pytest.fixture
def exported_box(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The box that the exported graph predicts; a test changes it in place."""
    box = boxes(*WIDE_BOX)

    class FixedBackend:
        def __init__(self, _: bytes, *, threads: int) -> None:
            del threads

        def run(self, _: Tensor) -> tuple[Tensor, Tensor]:
            return box, SCORES_BPC

    monkeypatch.setattr(export, "OnnxRuntimeBackend", FixedBackend)
    return box


def difference(detector: nn.Module | None = None) -> float:
    # A stand-in has what the comparison uses, and none of what a network is trained with.
    return check_onnx(b"", detector or FixedDetector(), torch.zeros(1, 3, 32, 32))  # type: ignore[arg-type]


def test_a_corner_near_the_edge_of_the_picture_is_rounded_like_the_opposite_one(exported_box: Tensor) -> None:
    exported_box[..., 0] += 0.002

    assert difference() == 0


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_corner_elsewhere_is_refused(exported_box: Tensor, wrong: float) -> None:
    exported_box[..., 0] += wrong

    with pytest.raises(ExportError, match="does not compute"):
        difference()


@pytest.mark.usefixtures("exported_box")
@pytest.mark.parametrize("useless", [float("nan"), float("inf")])
def test_a_model_that_answers_no_numbers_is_refused_whatever_its_graph_says(useless: float) -> None:
    class UselessDetector(FixedDetector):
        def predict(self, _: Tensor) -> tuple[Tensor, Tensor]:
            return boxes(*WIDE_BOX), SCORES_BPC * useless

    with pytest.raises(ExportError, match=r"no number.* more epochs"):
        difference(UselessDetector())


@pytest.mark.parametrize("told", [math.inf, 3e38])
def test_how_far_a_box_reaches_beyond_the_picture_is_nothing_that_anybody_sees(
    exported_box: Tensor, told: float
) -> None:
    """After a few steps from random weights the size of a box may be more than a number can hold."""

    class HardlyTrainedDetector(FixedDetector):
        def predict(self, _: Tensor) -> tuple[Tensor, Tensor]:
            return boxes(-math.inf, 0.3, math.inf, 220.7), SCORES_BPC

    exported_box.copy_(boxes(-told, 0.3, told, 220.7))
    assert difference(HardlyTrainedDetector()) == 0
    exported_box[..., 1] += 1
    with pytest.raises(ExportError, match="boxes by up to"):
        difference(HardlyTrainedDetector())


@pytest.mark.usefixtures("exported_box")
def test_a_graph_may_differ_as_much_as_float32_costs_the_network_itself() -> None:
    class SensitiveDetector(FixedDetector):
        """Blows up the last digits of what it computes."""

        def __init__(self, own_error: float) -> None:
            super().__init__()
            self._own_error = own_error

        def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
            # The graph, which `exported_box` fixes, is off by 0.02.
            truth = SCORES_BPC + 0.02
            rounded = truth + self._own_error if images_BCHW.dtype == torch.float64 else truth
            return boxes(*WIDE_BOX), rounded

    def checked(own_error: float) -> float:
        return difference(SensitiveDetector(own_error))

    assert checked(0.003) == pytest.approx(0.02)
    with pytest.raises(ExportError, match=r"scores by up to 0\.02"):
        checked(0.001)


def test_a_yolox_whose_boxes_are_infinite_can_be_published_and_asked() -> None:
    """As after 15 steps from random weights, when the size of some boxes was e^87 cells."""
    record = ARCHITECTURES["yolox-nano"].record(classes=("cat", "dog"), input_size_hw=(64, 64))
    torch.manual_seed(0)
    network = create_model("yolox-nano", num_classes=2).eval()
    for level, each in enumerate(network.get_submodule("head.reg_preds").children()):
        nn.init.constant_(each.get_parameter("bias"), 85.0 + 5 * level)
    images = torch.rand(2, 3, 64, 64) * 255
    backend = EagerBackend(copy.deepcopy(network), torch.device("cpu"))
    assert not network.predict(images)[0].isfinite().all()
    assert check_backend(backend, network, images) < 1e-3

    (found,) = Predictor(backend, record).predict([jpeg(noise(100, 80))], EVERYTHING)
    assert isinstance(found, Prediction)
    boxes_N4 = found.detections.boxes_N4
    assert len(boxes_N4) > 0
    assert boxes_N4.isfinite().all(), "clipped to the picture"
