"""Test-time augmentation: several looks at one picture, their boxes mapped back and put together.

Shape suffixes: B = images, C = channels or classes, H W = pixels of the network's input, P = priors of one
pass, A = of all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.architectures import ARCHITECTURES
from detection.candidates import CHOOSING_BYTES
from detection.inference.passes import Flip, TtaPass
from detection.inference.scaling import scale_img, scaled_size_hw
from detection.model_record import ModelRecord

AXIS_OF_FLIP = {Flip.LEFT_RIGHT: -1, Flip.UP_DOWN: -2}
BYTES_OF_FLOAT = 4

logger = logging.getLogger(__name__)


def make_view(image_CHW: NDArray[np.float32], look: TtaPass, record: ModelRecord) -> NDArray[np.float32]:
    """Return a prepared input as a pass shows it to the network: flipped, scaled, padded to the stride.

    Args:
        image_CHW: float32, as the model's input convention prepares it.
        look: scale and flip.
        record: of the model; its coarsest stride and its own padding are what the view is padded to and with.
    """
    view_BCHW = torch.from_numpy(image_CHW)[None]
    if look.flip is not Flip.NONE:
        view_BCHW = view_BCHW.flip(AXIS_OF_FLIP[look.flip])
    view_BCHW = scale_img(
        view_BCHW,
        look.scale,
        multiple=_stride(record),
        pad_value=record.input_convention.network_padding,
    )
    return np.asarray(view_BCHW[0].numpy(), np.float32)


def view_size_hw(look: TtaPass, record: ModelRecord) -> tuple[int, int]:
    """Return height and width of a pass's view, pixels."""
    return scaled_size_hw(record.input_size_hw, look.scale, same_shape=False, multiple=_stride(record))


def view_bytes(passes: Sequence[TtaPass], record: ModelRecord) -> int:
    """Return how much memory the views of one picture take, and what the network says about them.

    Choosing among all its scores counts too: a threshold of 0 leaves none out.
    """
    pixels = sum(height * width for height, width in (view_size_hw(look, record) for look in passes))
    # Priors of strides 8, 16, 32 and 64 are less than a 46th of the pixels.
    priors = pixels // 46
    labels = 1 if record.one_label_per_prior else len(record.classes)
    return (
        BYTES_OF_FLOAT * (3 * pixels + (4 + len(record.classes)) * priors) + CHOOSING_BYTES * labels * priors
    )


def map_back(boxes_P4: Tensor, look: TtaPass, size_hw: tuple[int, int]) -> Tensor:
    """Map the boxes of a pass back to the input that is neither scaled nor flipped.

    Args:
        boxes_P4: xyxy, pixels of the view.
        look: the pass that saw them.
        size_hw: of the input that is neither scaled nor flipped, pixels.

    Returns:
        xyxy [P, 4], pixels of that input; left stays left of right, and top above bottom.
    """
    height, width = size_hw
    boxes_P4 = boxes_P4 / look.scale
    x1, y1, x2, y2 = boxes_P4.unbind(dim=-1)
    if look.flip is Flip.LEFT_RIGHT:
        x1, x2 = width - x2, width - x1
    elif look.flip is Flip.UP_DOWN:
        y1, y2 = height - y2, height - y1
    return torch.stack([x1, y1, x2, y2], dim=-1)


def merge_passes(
    boxes: Sequence[Tensor], scores: Sequence[Tensor], passes: Sequence[TtaPass], size_hw: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Put together what the passes saw in one picture, as if one look had had the priors of all.

    One non-maximum suppression over the result is the merging; it is that of a plain look.

    Args:
        boxes: of each pass, [P, 4], xyxy, pixels of its own view.
        scores: of each pass, [P, C] in [0, 1].
        passes: in the same order.
        size_hw: of the input that is neither scaled nor flipped, pixels.

    Returns:
        Boxes [A, 4] (xyxy, pixels of that input) and scores [A, C].
    """
    device = boxes[0].device
    mapped = [map_back(each.to(device), look, size_hw) for each, look in zip(boxes, passes, strict=True)]
    merged_A4, scores_AC = torch.cat(mapped), torch.cat([each.to(device) for each in scores])
    logger.debug("test-time augmentation: %d passes, %d boxes together", len(passes), len(merged_A4))
    return merged_A4, scores_AC


def _stride(record: ModelRecord) -> int:
    return ARCHITECTURES[record.architecture].coarsest_stride
