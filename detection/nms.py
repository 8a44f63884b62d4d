"""Non-maximum suppression: torchvision's kernel without torchvision.

Importing the package takes longer than importing torch, for models that nobody here uses. Every process that
detects would pay for it, and after a crash of the engine its users would wait for it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HANDFUL = 100
"""Up to so many boxes comparing each with each is quicker than the kernel, once caches are cold."""
FEW_ON_CPU, FEW_ELSEWHERE = 1_000, 25_000
"""Up to so many boxes it is faster to move the classes apart than to look at each for itself."""


def nms(boxes_N4: Tensor, scores_N: Tensor, max_iou: float) -> Tensor:
    """Return the rows that no better box overlaps by more than `max_iou`, by decreasing score.

    Args:
        boxes_N4: xyxy, pixels.
    """
    kept_N: Tensor = torch.ops.torchvision.nms(boxes_N4, scores_N, max_iou)
    return kept_N


def nms_by_class(boxes_N4: Tensor, scores_N: Tensor, labels_N: Tensor, max_iou: float) -> Tensor:
    """Return the rows that no better box of the same class overlaps by more than `max_iou`, in no order.

    Args:
        boxes_N4: xyxy, pixels, none negative; float64, or those of a late class lose digits.
    """
    if len(boxes_N4) <= (FEW_ON_CPU if boxes_N4.device.type == "cpu" else FEW_ELSEWHERE):
        apart_N = labels_N * (boxes_N4.amax() + 1.0) if len(boxes_N4) else labels_N
        return nms(boxes_N4 + apart_N[:, None], scores_N, max_iou)
    kept = [
        rows_K[nms(boxes_N4[rows_K], scores_N[rows_K], max_iou)]
        for rows_K in (torch.where(labels_N == label)[0] for label in labels_N.unique())
    ]
    return torch.cat(kept)


def nms_of_few(boxes_N4: NDArray[np.float64], max_iou: float) -> NDArray[np.int64]:
    """Return the rows of `nms` for boxes by decreasing score, in this order.

    To begin a kernel takes longer than to compare a handful of boxes, each with each.
    """
    x1, y1, x2, y2 = boxes_N4.T
    area = (x2 - x1) * (y2 - y1)
    width = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1)
    height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1)
    overlap = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # boxes without an area overlap nothing
        suppresses = overlap / (area[:, None] + area - overlap) > max_iou
    kept: list[int] = []
    is_alive = np.ones(len(boxes_N4), np.bool_)
    for row in range(len(boxes_N4)):
        if is_alive[row]:
            kept.append(row)
            is_alive &= ~suppresses[row]
    return np.array(kept, np.int64)


def _load_kernel() -> None:
    found = find_spec("torchvision")  # looks for the package, and does not import it
    folders = found.submodule_search_locations if found is not None else None
    libraries = [library for folder in folders or () for library in Path(folder).glob("_C*.so")]
    if not libraries:
        raise ImportError("torchvision is not installed, or has no kernels")
    for library in libraries:
        torch.ops.load_library(str(library))


_load_kernel()
