"""Box losses made of overlap: IoU and generalised IoU.

Yu et al., "UnitBox", https://arxiv.org/abs/1608.01471; Rezatofighi et al., "Generalized Intersection over
Union", https://arxiv.org/abs/1902.09630. Shape suffix: N = boxes; leading dimensions may be added.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from detection.boxes import BoxFormat, check_boxes

TINY = 1e-16


class IouLossKind(StrEnum):
    IOU = "iou"
    """1 - iou²: gentle for poor overlap, without any gradient where there is none."""
    GIOU = "giou"
    """1 - giou: also pulls boxes together that do not touch."""


class Reduction(StrEnum):
    NONE = "none"
    MEAN = "mean"
    SUM = "sum"


class _Corners(NamedTuple):
    top_left: Tensor
    bottom_right: Tensor
    area: Tensor


def iou_loss(
    predicted_N4: Tensor,
    target_N4: Tensor,
    *,
    kind: IouLossKind | str = IouLossKind.IOU,
    box_format: BoxFormat | str = BoxFormat.XYXY,
    reduction: Reduction | str = Reduction.NONE,
    smallest_area: float = TINY,
) -> Tensor:
    """Return the loss of each predicted box against the target in the same place: [..., N], or a scalar.

    In [0, 1] for `iou`, [0, 2] for `giou`. The mean of no boxes is 0, like their sum.

    Args:
        smallest_area: union and enclosing box count as at least this much, in square pixels.

    Raises:
        ValueError: the last dimension is not 4, the shapes differ, or a name is unknown.
    """
    check_boxes(predicted_N4, target_N4)
    if predicted_N4.shape != target_N4.shape:
        raise ValueError(f"{list(predicted_N4.shape)} boxes do not pair with {list(target_N4.shape)} targets")
    predicted, target = _corners(predicted_N4, box_format), _corners(target_N4, box_format)
    union, iou = _union_and_iou(predicted, target, smallest_area)
    if IouLossKind(kind) is IouLossKind.IOU:
        loss = 1 - iou**2
    else:
        enclosing = _enclosing_area(predicted, target).clamp(min=smallest_area)
        giou = iou - (enclosing - union) / enclosing
        loss = 1 - giou.clamp(min=-1, max=1)
    return _reduced(loss, Reduction(reduction))


def _corners(boxes: Tensor, box_format: BoxFormat | str) -> _Corners:
    first, second = boxes[..., :2], boxes[..., 2:]
    if BoxFormat(box_format) is BoxFormat.CXCYWH:
        return _Corners(first - second / 2, first + second / 2, _area_of(second))
    return _Corners(first, second, _area_of(second - first))


def _union_and_iou(predicted: _Corners, target: _Corners, smallest_area: float) -> tuple[Tensor, Tensor]:
    top_left = torch.maximum(predicted.top_left, target.top_left)
    bottom_right = torch.minimum(predicted.bottom_right, target.bottom_right)
    touching = (top_left < bottom_right).all(dim=-1)
    intersection = _area_of(bottom_right - top_left) * touching
    union = (predicted.area + target.area - intersection).clamp(min=smallest_area)
    return union, intersection / union


def _enclosing_area(predicted: _Corners, target: _Corners) -> Tensor:
    top_left = torch.minimum(predicted.top_left, target.top_left)
    bottom_right = torch.maximum(predicted.bottom_right, target.bottom_right)
    return _area_of(bottom_right - top_left)


def _area_of(sides: Tensor) -> Tensor:
    """Multiply width and height; the gradient of `prod` would wait for the device to look for zeros."""
    return sides[..., 0] * sides[..., 1]


def _reduced(loss: Tensor, reduction: Reduction) -> Tensor:
    if reduction is Reduction.NONE:
        return loss
    total = loss.sum()
    return total if reduction is Reduction.SUM else total / max(loss.numel(), 1)
