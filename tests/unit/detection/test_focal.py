"""Quality and distribution focal losses, distances as expectations: the original's numbers and the edges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detection.distances import decode_distances, encode_distances, expected_distances
from detection.losses.focal import distribution_focal_loss, quality_focal_loss
from detection.losses.iou import iou_loss
from detection.priors import Priors, grid_priors
from tests.npz import read_npz


def arrays(path: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in read_npz(path).items()}


def close(found: Tensor, expected: Tensor, *, rtol: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("case", ["qfl_c80", "qfl_c1"])
def test_quality_focal_loss_of_the_original(golden: Path, case: str) -> None:
    numbers = arrays(golden / "nanodet_losses.npz")
    logits, label = numbers[f"{case}_logits"].requires_grad_(), numbers[f"{case}_label"]
    targets = torch.zeros_like(logits)
    positive = label < logits.shape[1]
    targets[positive, label[positive]] = numbers[f"{case}_score"][positive]
    elementwise = quality_focal_loss(logits, targets).sum(dim=1)
    close(elementwise, numbers[f"{case}_elementwise"])
    (elementwise * numbers[f"{case}_weight"]).sum().div(numbers[f"{case}_avg_factor"]).backward()
    assert logits.grad is not None
    close(logits.grad, numbers[f"{case}_grad"], rtol=1e-3)


def test_distribution_focal_loss_of_the_original(golden: Path) -> None:
    numbers = arrays(golden / "nanodet_losses.npz")
    logits = numbers["dfl_logits"].requires_grad_()
    elementwise = distribution_focal_loss(logits, numbers["dfl_target"])
    close(elementwise, numbers["dfl_elementwise"])
    (0.25 * elementwise * numbers["dfl_weight"]).sum().div(numbers["dfl_avg_factor"]).backward()
    assert logits.grad is not None
    close(logits.grad, numbers["dfl_grad"], rtol=1e-3)


def test_generalised_iou_of_the_original(golden: Path) -> None:
    numbers = arrays(golden / "nanodet_losses.npz")
    boxes = numbers["giou_pred_xyxy"].requires_grad_()
    elementwise = iou_loss(boxes, numbers["giou_target_xyxy"], kind="giou", smallest_area=1e-6)
    close(elementwise, numbers["giou_elementwise"])
    (2 * elementwise * numbers["giou_weight"]).sum().div(numbers["giou_avg_factor"]).backward()
    assert boxes.grad is not None
    close(boxes.grad, numbers["giou_grad"], rtol=1e-3)


def test_a_perfect_answer_costs_nothing() -> None:
    targets = torch.tensor([[1.0, 0.0]])
    assert float(quality_focal_loss(torch.tensor([[20.0, -20.0]]), targets).sum()) == pytest.approx(
        0, abs=1e-8
    )
    bins = torch.full((1, 8), -30.0)
    bins[0, 3] = 30.0
    assert float(distribution_focal_loss(bins, torch.tensor([3.0]))) == pytest.approx(0, abs=1e-6)


def test_expected_distances_of_the_original(golden: Path) -> None:
    numbers = arrays(golden / "nanodet_integral_distance.npz")
    logits = numbers["rm7_logits"].requires_grad_()
    distances = expected_distances(logits.unflatten(2, (4, -1)))
    close(distances, numbers["rm7_distances"])
    distances.backward(numbers["rm7_upstream_grad"])
    assert logits.grad is not None
    close(logits.grad, numbers["rm7_grad_logits"], rtol=1e-3)


def test_boxes_from_distances_of_the_original(golden: Path) -> None:
    numbers = arrays(golden / "nanodet_integral_distance.npz")
    points = Priors(numbers["points"], torch.ones(len(numbers["points"]), 1))
    close(decode_distances(numbers["distance"], points), numbers["d2b"])
    torch.testing.assert_close(
        encode_distances(numbers["d2b"] + 3.5, points), numbers["b2d"], rtol=1e-4, atol=1e-4
    )


def test_encoding_undoes_decoding() -> None:
    priors = grid_priors((64, 96), (8, 16))
    distances = torch.rand(2, len(priors.corners_P2), 4, generator=torch.Generator().manual_seed(0)) * 6
    torch.testing.assert_close(encode_distances(decode_distances(distances, priors), priors), distances)


def test_the_priors_of_the_original(golden: Path) -> None:
    for name, expected in arrays(golden / "nanodet_center_priors.npz").items():
        height, width = (int(side) for side in name.removeprefix("priors_").split("x"))
        priors = grid_priors((height, width), (8, 16, 32, 64))
        assert torch.equal(torch.cat((priors.corners_P2, priors.strides_P1, priors.strides_P1), 1), expected)
