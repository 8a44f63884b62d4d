"""The IoU losses, by hand and against the original's numbers and gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.boxes import cxcywh_to_xyxy
from detection.losses.iou import iou_loss
from tests.npz import read_npz

PREDICTED = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]])
TARGET = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [3, 0, 4, 1]])
IOU = torch.tensor([1.0, 1 / 3, 0.0])
GIOU = torch.tensor([1.0, 1 / 3, -0.5])


@pytest.mark.parametrize(("kind", "expected"), [("iou", 1 - IOU**2), ("giou", 1 - GIOU)])
def test_by_hand(kind: str, expected: Tensor) -> None:
    torch.testing.assert_close(iou_loss(PREDICTED, TARGET, kind=kind), expected)
    torch.testing.assert_close(iou_loss(PREDICTED, TARGET, kind=kind, reduction="sum"), expected.sum())
    torch.testing.assert_close(iou_loss(PREDICTED, TARGET, kind=kind, reduction="mean"), expected.mean())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_no_boxes_is_zero_and_connected(reduction: str) -> None:
    nothing = torch.zeros(0, 4, requires_grad=True)
    loss = iou_loss(nothing, torch.zeros(0, 4), reduction=reduction)
    loss.backward()
    assert loss == 0
    assert nothing.grad is not None


@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_gradients(kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand(6, 4, generator=random, dtype=torch.float64) * 4 + 3
    others = boxes + torch.randn(6, 4, generator=random, dtype=torch.float64)

    def loss(predicted: Tensor) -> Tensor:
        return iou_loss(predicted, others, kind=kind, box_format="cxcywh")

    assert torch.autograd.gradcheck(loss, boxes.requires_grad_())


@pytest.mark.parametrize(
    ("predicted", "target", "options"),
    [
        (torch.zeros(2, 5), torch.zeros(2, 5), {}),
        (torch.zeros(2, 4), torch.zeros(3, 4), {}),
        (torch.zeros(2, 4), torch.zeros(2, 4), {"kind": "diou"}),
        (torch.zeros(2, 4), torch.zeros(2, 4), {"reduction": "median"}),
        (torch.zeros(2, 4), torch.zeros(2, 4), {"box_format": "xywh"}),
    ],
)
def test_mistakes_are_refused(predicted: Tensor, target: Tensor, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"last dimension|pair with|is not a valid"):
        iou_loss(predicted, target, **options)


@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_it_has_the_originals_numbers(numbers: Path, kind: str) -> None:
    case = read_npz(numbers / "yolox_iou_losses.npz")
    predicted = torch.from_numpy(case["pred_cxcywh"]).requires_grad_()
    target = torch.from_numpy(case["target_cxcywh"])
    loss = iou_loss(predicted, target, kind=kind, box_format="cxcywh")
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach(), case[f"{kind}_loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predicted.grad, case[f"{kind}_grad_pred"], rtol=1e-3, atol=1e-5)
    corners = iou_loss(cxcywh_to_xyxy(predicted.detach()), cxcywh_to_xyxy(target), kind=kind)
    np.testing.assert_allclose(corners, case[f"{kind}_loss"], rtol=1e-3, atol=1e-4)
