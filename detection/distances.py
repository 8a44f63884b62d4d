"""How NanoDet writes a box: distances from a prior to the four sides, each an expectation over bins.

Li et al., "Generalized Focal Loss", https://arxiv.org/abs/2006.04388

Shape suffixes: P = priors of all levels, R = bins of a distance; leading dimensions may be added.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detection.priors import Priors


def expected_distances(logits_P4R: Tensor) -> Tensor:
    """Return the mean [..., P, 4] of each distribution over the bins 0..R-1, in cells."""
    bins_R = torch.arange(logits_P4R.shape[-1], dtype=logits_P4R.dtype, device=logits_P4R.device)
    return logits_P4R.softmax(dim=-1) @ bins_R


def decode_distances(distances_P4: Tensor, priors: Priors) -> Tensor:
    """Return boxes [..., P, 4] (xyxy, pixels) from distances (left, top, right, bottom) in cells.

    They are measured from the corner of the cell, as NanoDet-Plus was trained.
    """
    pixels_P4 = distances_P4 * priors.strides_P1
    return torch.cat((priors.corners_P2 - pixels_P4[..., :2], priors.corners_P2 + pixels_P4[..., 2:]), dim=-1)


def encode_distances(boxes_P4: Tensor, priors: Priors) -> Tensor:
    """Return the distances [..., P, 4] in cells that decode to these boxes (xyxy, pixels)."""
    to_first = priors.corners_P2 - boxes_P4[..., :2]
    to_second = boxes_P4[..., 2:] - priors.corners_P2
    return torch.cat((to_first, to_second), dim=-1) / priors.strides_P1
