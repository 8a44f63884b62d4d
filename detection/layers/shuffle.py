"""The unit of ShuffleNetV2: half of the channels are worked on, then the halves are interleaved.

Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
https://arxiv.org/abs/1807.11164

Shape suffixes: B = images, C = channels, H W = cells of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detection.layers.conv import Activation, ConvSequence


class ShuffleUnit(nn.Module):
    """With stride 1 half of the channels pass unchanged; with stride 2 both branches see all of them."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, activation: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.branch1 = nn.Sequential() if stride == 1 else _reduce(in_channels, half, stride, activation)
        self.branch2 = _transform(in_channels if stride > 1 else half, half, stride, activation)
        self.splits = stride == 1

    def forward(self, features_BCHW: Tensor) -> Tensor:
        first, second = features_BCHW.chunk(2, dim=1) if self.splits else (features_BCHW, features_BCHW)
        return shuffle_channels(torch.cat((self.branch1(first), self.branch2(second)), dim=1))


def shuffle_channels(features_BCHW: Tensor, groups: int = 2) -> Tensor:
    """Interleave the channels of `groups` equal groups: a1 a2 b1 b2 becomes a1 b1 a2 b2."""
    batch, channels, height, width = features_BCHW.shape
    grouped = features_BCHW.view(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


def _reduce(in_channels: int, out_channels: int, stride: int, activation: Activation) -> ConvSequence:
    return ConvSequence(
        *_depthwise(in_channels, stride), *_pointwise(in_channels, out_channels), activation()
    )


def _transform(in_channels: int, out_channels: int, stride: int, activation: Activation) -> ConvSequence:
    return ConvSequence(
        *_pointwise(in_channels, out_channels),
        activation(),
        *_depthwise(out_channels, stride),
        *_pointwise(out_channels, out_channels),
        activation(),
    )


def _pointwise(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)


def _depthwise(channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return conv, nn.BatchNorm2d(channels)
