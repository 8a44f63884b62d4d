"""Make a prepared input smaller or larger and pad it to what the network takes.

Shape suffixes: B = images, C = channels, H W = pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)


def scaled_size_hw(
    size_hw: tuple[int, int], ratio: float, *, same_shape: bool, multiple: int
) -> tuple[int, int]:
    """Return height and width, in pixels, of what `scale_img` returns for an input of this size."""
    if ratio == 1.0 or same_shape:
        return size_hw
    height, width = (math.ceil(side * ratio / multiple) * multiple for side in size_hw)
    return height, width


def scale_img(
    images_BCHW: Tensor,
    ratio: float,
    *,
    same_shape: bool = False,
    multiple: int = 32,
    pad_value: float | Sequence[float] = 0.0,
) -> Tensor:
    """Resize images bilinearly by a ratio and fill up their right and bottom sides.

    Args:
        images_BCHW: as a network takes them.
        ratio: of the new sides to the old ones; 1 leaves everything as it is, padding included.
        same_shape: return images of the old size: smaller ones are padded, larger ones cropped. Otherwise
            sides are the next multiples of `multiple`, pixels.
        multiple: the network's coarsest stride.
        pad_value: what fills the rest, in the numbers of the input; one for all channels or one for each.

    Returns:
        Images [B, C, H', W'] with H', W' of `scaled_size_hw`.

    Raises:
        ValueError: the ratio is not positive, or leaves no pixel.
    """
    height, width = images_BCHW.shape[-2:]
    resized_hw = int(height * ratio), int(width * ratio)
    if min(resized_hw) < 1:
        raise ValueError(f"nothing is left of {height} x {width} pixels at the ratio {ratio:g}")
    if ratio == 1.0:
        return images_BCHW
    resized = functional.interpolate(images_BCHW, size=resized_hw, mode="bilinear", align_corners=False)
    size_hw = scaled_size_hw((height, width), ratio, same_shape=same_shape, multiple=multiple)
    padded = _padding(resized, pad_value).expand(-1, -1, *size_hw).clone()
    kept_height, kept_width = min(resized_hw[0], size_hw[0]), min(resized_hw[1], size_hw[1])
    padded[..., :kept_height, :kept_width] = resized[..., :kept_height, :kept_width]
    logger.debug(
        "scale_img: %d x %d pixels by %g to %d x %d, padded with %s",
        *(height, width, ratio, *size_hw, pad_value),
    )
    return padded


def _padding(images_BCHW: Tensor, pad_value: float | Sequence[float]) -> Tensor:
    """Return the padding as [B, C, 1, 1]."""
    value_C = torch.as_tensor(pad_value, dtype=images_BCHW.dtype, device=images_BCHW.device).reshape(-1)
    return value_C[:, None, None].expand(*images_BCHW.shape[:2], 1, 1)
