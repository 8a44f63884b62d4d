"""Samples become batches, and batches become what the network takes.

Shape suffixes: B = images, C = colour channels, H W = input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from detection.data.transforms import Sample
from detection.input_convention import ChannelOrder, InputConvention
from detection.targets import Targets


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Targets]:
    """Return images [B, 3, H, W], BGR, uint8 or float32, and the padded targets of samples of one size."""
    images_BCHW = torch.stack([torch.from_numpy(sample.pixels).permute(2, 0, 1) for sample in samples])
    targets = Targets.from_lists(
        [torch.from_numpy(sample.boxes) for sample in samples],
        [torch.from_numpy(sample.labels) for sample in samples],
        [torch.from_numpy(sample.crowds) for sample in samples],
    )
    return images_BCHW.contiguous(), targets


def normalise_batch(images_BCHW: Tensor, convention: InputConvention) -> Tensor:
    """Turn BGR images in 0..255 into the network's input: order, scale, mean and std; float32."""
    images = images_BCHW.flip(1) if convention.order is ChannelOrder.RGB else images_BCHW
    images = images.float()
    if convention.scale != 1.0:
        images = images * convention.scale
    if any(convention.mean):
        images = images - images.new_tensor(convention.mean)[:, None, None]
    if convention.std != (1.0, 1.0, 1.0):
        images = images / images.new_tensor(convention.std)[:, None, None]
    return images


def resize_batch(images_BCHW: Tensor, targets: Targets, size_hw: tuple[int, int]) -> tuple[Tensor, Targets]:
    """Return a batch and its boxes in another input size, bilinearly; unchanged when it has that size."""
    height, width = images_BCHW.shape[-2:]
    if (height, width) == size_hw:
        return images_BCHW, targets
    resized = functional.interpolate(images_BCHW, size_hw, mode="bilinear", align_corners=False)
    return resized, targets.scaled(size_hw[1] / width, size_hw[0] / height)
