"""Priors: the cells of all levels, and how YOLOX writes a box relative to its cell.

Shape suffixes: P = priors of all levels, fine to coarse and row-major in a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-8
"""Keeps the logarithm of an empty box finite."""


@dataclass(frozen=True, slots=True)
class Priors:
    """Where each prediction sits: the corner of its cell, and the size of that cell."""

    corners_P2: Tensor
    """x and y of the cell's top left corner, pixels of the input, float32."""
    strides_P1: Tensor
    """Pixels per cell, float32."""

    @property
    def centres_P2(self) -> Tensor:
        """x and y of the middle of the cell, pixels of the input."""
        return self.corners_P2 + self.strides_P1 / 2


def grid_priors(
    size_hw: tuple[int, int], strides: Sequence[int], *, device: torch.device | str | None = None
) -> Priors:
    """Return the priors of an input of `size_hw` pixels; a level has ceil(side / stride) cells per side."""
    corners, sizes = [], []
    for stride in strides:
        rows, columns = (-(-side // stride) for side in size_hw)
        y = torch.arange(rows, device=device, dtype=torch.float32) * stride
        x = torch.arange(columns, device=device, dtype=torch.float32) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        corners.append(torch.stack((grid_x, grid_y), dim=-1).reshape(-1, 2))
        sizes.append(torch.full_like(corners[-1][:, :1], stride))
    return Priors(torch.cat(corners), torch.cat(sizes))


def decode_offsets(offsets_P4: Tensor, priors: Priors) -> Tensor:
    """Return boxes [..., P, 4] (cxcywh, pixels) from raw (tx, ty, tw, th) in units of the cell.

    Centre = corner + stride * (tx, ty), size = stride * exp(tw, th); Ge et al., section 2.1,
    https://arxiv.org/abs/2107.08430.
    """
    centre = offsets_P4[..., :2] * priors.strides_P1 + priors.corners_P2
    size = offsets_P4[..., 2:].exp() * priors.strides_P1
    return torch.cat((centre, size), dim=-1)


def encode_offsets(boxes_cxcywh_P4: Tensor, priors: Priors) -> Tensor:
    """Return the raw (tx, ty, tw, th) [..., P, 4] that decode to these boxes: the target of the L1 term."""
    centre = (boxes_cxcywh_P4[..., :2] - priors.corners_P2) / priors.strides_P1
    size = (boxes_cxcywh_P4[..., 2:] / priors.strides_P1 + TINY).log()
    return torch.cat((centre, size), dim=-1)
