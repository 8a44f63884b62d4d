"""Non-maximum suppression, against the obvious loop."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from detection import nms as module
from detection.boxes import pairwise_iou
from detection.nms import nms, nms_by_class

MAX_IOU = 0.4


def crowd(num_boxes: int, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, scores and labels; every second box is near another one."""
    draw = torch.Generator().manual_seed(num_boxes)
    corners = torch.rand(num_boxes, 2, generator=draw, dtype=torch.float64) * 60
    sizes = 5 + torch.rand(num_boxes, 2, generator=draw, dtype=torch.float64) * 30
    labels = torch.randint(num_classes, (num_boxes,), generator=draw)
    return torch.cat([corners, corners + sizes], 1), torch.rand(num_boxes, generator=draw).double(), labels


def kept_by_hand(boxes: Tensor, scores: Tensor, labels: Tensor) -> list[int]:
    iou = pairwise_iou(boxes, boxes)
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if all(labels[row] != labels[better] or iou[row, better] <= MAX_IOU for better in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize("num_boxes", [0, 1, 2, 60, 200])
@pytest.mark.parametrize("few", [1_000, 0])
def test_each_class_is_thinned_out_for_itself(
    monkeypatch: pytest.MonkeyPatch, num_boxes: int, few: int
) -> None:
    monkeypatch.setattr(module, "FEW_ON_CPU", few)
    boxes, scores, labels = crowd(num_boxes, 5)
    kept = nms_by_class(boxes, scores, labels, MAX_IOU)
    assert sorted(kept.tolist()) == sorted(kept_by_hand(boxes, scores, labels))
    assert kept.dtype == torch.int64


def test_without_classes_the_best_come_first() -> None:
    boxes, scores, labels = crowd(80, 1)
    assert nms(boxes, scores, MAX_IOU).tolist() == kept_by_hand(boxes, scores, labels)


def test_the_kernel_comes_without_its_package() -> None:
    code = "import sys, detection.postprocess; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_package_may_come_later() -> None:
    from torchvision.ops import batched_nms

    boxes, scores, labels = crowd(200, 5)
    expected = batched_nms(boxes, scores, labels, MAX_IOU)
    assert sorted(nms_by_class(boxes, scores, labels, MAX_IOU).tolist()) == sorted(expected.tolist())
