"""Box conversions and pairwise overlap, by hand and against the original's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detection.boxes import box_area, clip_boxes, cxcywh_to_xyxy, pairwise_iou, pairwise_share, xyxy_to_cxcywh
from tests.npz import read_npz


def test_conversions_are_each_others_inverse() -> None:
    boxes = torch.tensor([[[10.0, 20.0, 30.0, 60.0]], [[0.0, 0.0, 1.0, 0.0]]])
    assert xyxy_to_cxcywh(boxes).tolist() == [[[20.0, 40.0, 20.0, 40.0]], [[0.5, 0.0, 1.0, 0.0]]]
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_area_and_clipping() -> None:
    boxes = torch.tensor([[-5.0, -5.0, 10.0, 30.0], [2.0, 3.0, 4.0, 6.0]])
    assert box_area(boxes).tolist() == [525.0, 6.0]
    assert clip_boxes(boxes, (20, 8)).tolist() == [[0.0, 0.0, 8.0, 20.0], [2.0, 3.0, 4.0, 6.0]]


def test_pairwise_iou_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0], [1.0, 1.0, 1.0, 1.0]])
    others = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[1 / 3, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_iou(boxes, others), expected)


def test_the_share_of_a_box_in_another_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0], [1.0, 1.0, 1.0, 1.0]])
    others = torch.tensor([[1.0, 0.0, 3.0, 2.0], [-1.0, -1.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.5, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_share(boxes, others), expected)


def test_a_batch_is_its_images() -> None:
    corners = torch.rand(3, 9, 2, generator=torch.Generator().manual_seed(0)) * 10
    boxes = torch.cat((corners, corners + 5), dim=2)
    batch = pairwise_iou(boxes[:, :4], boxes[:, 4:])
    assert batch.shape == (3, 4, 5)
    for image, own in enumerate(batch):
        assert torch.equal(own, pairwise_iou(boxes[image, :4], boxes[image, 4:]))


def test_no_boxes_have_no_overlaps() -> None:
    assert pairwise_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)


def test_pairwise_iou_has_gradients() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0]], dtype=torch.float64, requires_grad=True)
    others = torch.tensor([[1.0, 0.5, 3.0, 5.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise_iou, (boxes, others))


@pytest.mark.parametrize(
    ("boxes", "box_format"),
    [(torch.zeros(2, 5), "xyxy"), (torch.tensor(1.0), "xyxy"), (torch.zeros(2, 4), "yxyx")],
)
def test_wrong_boxes_are_refused(boxes: torch.Tensor, box_format: str) -> None:
    with pytest.raises(ValueError, match=r"last dimension of 4|yxyx"):
        pairwise_iou(boxes, torch.zeros(3, 4), box_format=box_format)


def test_pairwise_iou_has_the_originals_numbers(numbers: Path) -> None:
    case = read_npz(numbers / "yolox_iou_losses.npz")
    predicted = torch.from_numpy(case["pred_cxcywh"])[:17]
    target = torch.from_numpy(case["target_cxcywh"])[:23]
    by_size = pairwise_iou(predicted, target, box_format="cxcywh")
    by_corners = pairwise_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(target))
    np.testing.assert_allclose(by_size, case["pair_iou_cxcywh_a17_b23"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_corners, case["pair_iou_xyxy_a17_b23"], rtol=1e-4, atol=1e-5)
