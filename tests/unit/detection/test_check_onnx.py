"""What counts as the same boxes when an exported graph is compared with its detector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detection.deploy import export
from detection.deploy.export import check_onnx
from detection.errors import ExportError

SCORES_BPC = torch.full((1, 1, 2), 0.5)
WIDE_BOX = (0.2, 0.3, 184.3, 220.7)


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


def difference() -> float:
    return check_onnx(b"", FixedDetector(), torch.zeros(1, 3, 32, 32))  # type: ignore[arg-type]


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

    with pytest.raises(ExportError, match="not finite"):
        check_onnx(b"", UselessDetector(), torch.zeros(1, 3, 32, 32))  # type: ignore[arg-type]
