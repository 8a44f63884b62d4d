"""Box geometry: conversions and pairwise overlap.

Shape suffixes: N M = boxes; leading dimensions may be added on both sides alike.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor


class BoxFormat(StrEnum):
    XYXY = "xyxy"
    """Left, top, right, bottom."""
    CXCYWH = "cxcywh"
    """Centre and size."""


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Return boxes [..., 4] given by centre and size as corners."""
    centre, half_size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half_size, centre + half_size), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Return boxes [..., 4] given by corners as centre and size."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def clip_boxes(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return boxes [..., 4] (xyxy) moved inside a picture of this height and width."""
    height, width = size_hw
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas [...] of boxes [..., 4] (xyxy)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(
    boxes_N4: Tensor, others_M4: Tensor, *, box_format: BoxFormat | str = BoxFormat.XYXY
) -> Tensor:
    """Return intersection over union [..., N, M] of every box with every other; 0 / 0 counts as 0.

    Leading dimensions (a batch) broadcast. No epsilon: two identical boxes give exactly 1.

    Raises:
        ValueError: a last dimension is not 4, or the format is unknown.
    """
    check_boxes(boxes_N4, others_M4)
    if BoxFormat(box_format) is BoxFormat.CXCYWH:
        boxes_N4, others_M4 = cxcywh_to_xyxy(boxes_N4), cxcywh_to_xyxy(others_M4)
    overlap = _pairwise_overlap(boxes_N4, others_M4)
    areas = box_area(boxes_N4).unsqueeze(-1) + box_area(others_M4).unsqueeze(-2)
    union = areas.sub_(overlap)
    return overlap.div_(union).nan_to_num_(nan=0.0)


def pairwise_share(boxes_N4: Tensor, others_M4: Tensor) -> Tensor:
    """Return which share [..., N, M] of every box (xyxy) lies in each of the others; 0 / 0 counts as 0."""
    check_boxes(boxes_N4, others_M4)
    overlap = _pairwise_overlap(boxes_N4, others_M4)
    return overlap.div_(box_area(boxes_N4).unsqueeze(-1)).nan_to_num_(nan=0.0)


def _pairwise_overlap(boxes_N4: Tensor, others_M4: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes_N4.unsqueeze(-1).unbind(-2)
    other_x1, other_y1, other_x2, other_y2 = others_M4.unsqueeze(-3).unbind(-1)
    width = torch.minimum(x2, other_x2).sub_(torch.maximum(x1, other_x1)).clamp_(min=0)
    height = torch.minimum(y2, other_y2).sub_(torch.maximum(y1, other_y1)).clamp_(min=0)
    return width.mul_(height)


def check_boxes(*boxes: Tensor) -> None:
    """Raise ValueError unless every tensor's last dimension is 4."""
    for each in boxes:
        if each.ndim == 0 or each.shape[-1] != 4:
            raise ValueError(f"boxes need a last dimension of 4, not shape {list(each.shape)}")
