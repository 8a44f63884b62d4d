"""The larger blocks of YOLOX: focus stem, cross-stage-partial block, spatial pyramid pooling.

Wang et al., "CSPNet: A New Backbone that can Enhance Learning Capability of CNN", https://arxiv.org/abs/1911.11929

Shape suffixes: B = images, C = channels, H W = pixels or cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detection.layers.conv import ConvBnAct, ConvUnit


class Focus(nn.Module):
    """Stack the four parity sub-pictures as channels, then one dense unit; halves height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBnAct(4 * in_channels, out_channels, 3)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        even_rows, odd_rows = images_BCHW[..., ::2, :], images_BCHW[..., 1::2, :]
        corners = (even_rows[..., ::2], odd_rows[..., ::2], even_rows[..., 1::2], odd_rows[..., 1::2])
        return self.conv(torch.cat(corners, dim=1))


class Bottleneck(nn.Module):
    """A 1x1 unit and a 3x3 unit of the same width, plus the input when `shortcut` is set."""

    def __init__(self, channels: int, *, shortcut: bool, unit: ConvUnit) -> None:
        super().__init__()
        self.conv1 = ConvBnAct(channels, channels, 1)
        self.conv2 = unit(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, features_BCHW: Tensor) -> Tensor:
        refined_BCHW = self.conv2(self.conv1(features_BCHW))
        return refined_BCHW + features_BCHW if self.shortcut else refined_BCHW


class CspLayer(nn.Module):
    """Two half-width branches, one of them through `depth` bottlenecks, joined by a 1x1 unit."""

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, *, shortcut: bool, unit: ConvUnit
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = ConvBnAct(in_channels, half, 1)
        self.conv2 = ConvBnAct(in_channels, half, 1)
        self.conv3 = ConvBnAct(2 * half, out_channels, 1)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut=shortcut, unit=unit) for _ in range(depth)))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        branches = (self.m(self.conv1(features_BCHW)), self.conv2(features_BCHW))
        return self.conv3(torch.cat(branches, dim=1))


class SpatialPyramidPooling(nn.Module):
    """Max-pool over windows of 5, 9 and 13 cells, stacked beside the features themselves.

    Windows of 9 and 13 are pooled as 5 over 5 and 5 over 5 over 5: the same maxima for less work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBnAct(channels, channels // 2, 1)
        self.conv2 = ConvBnAct(2 * channels, channels, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        windows = [self.conv1(features_BCHW)]
        for _ in range(3):
            windows.append(self.pool(windows[-1]))
        return self.conv2(torch.cat(windows, dim=1))
