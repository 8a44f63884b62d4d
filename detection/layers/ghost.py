"""Ghost modules: half of the features come from a cheap depthwise convolution over the other half.

Han et al., "GhostNet: More Features from Cheap Operations", https://arxiv.org/abs/1911.11907

Shape suffixes: B = images, C = channels, H W = cells of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detection.layers.conv import Activation, ConvSequence


class GhostModule(nn.Module):
    """A 1x1 unit, and a depthwise 3x3 unit over its output, side by side; an even number of channels."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary_conv = ConvSequence(
            nn.Conv2d(in_channels, half, 1, bias=False), nn.BatchNorm2d(half), activation()
        )
        self.cheap_operation = ConvSequence(
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half), activation()
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        primary = self.primary_conv(features_BCHW)
        return torch.cat((primary, self.cheap_operation(primary)), dim=1)


class GhostBottleneck(nn.Module):
    """Two ghost modules, the second without activation, plus a shortcut; no activation after the sum."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, activation: Activation
    ) -> None:
        super().__init__()
        self.ghost1 = GhostModule(in_channels, out_channels, activation=activation)
        self.ghost2 = GhostModule(out_channels, out_channels, activation=nn.Identity)
        self.shortcut = (
            nn.Sequential()
            if in_channels == out_channels
            else ConvSequence(
                nn.Conv2d(
                    in_channels,
                    in_channels,
                    kernel_size,
                    padding=(kernel_size - 1) // 2,
                    groups=in_channels,
                    bias=False,
                ),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.ghost2(self.ghost1(features_BCHW)) + self.shortcut(features_BCHW)
