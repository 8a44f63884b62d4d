"""From pictures to feature maps, cheaply: ShuffleNetV2, and a neck of ghost bottlenecks.

Ma et al., "ShuffleNet V2", https://arxiv.org/abs/1807.11164; Han et al., "GhostNet",
https://arxiv.org/abs/1911.11907. The weights keep the names of NanoDet-Plus.

Shape suffixes: B = images, C = channels, H W = pixels of the input or cells of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from detection.layers.conv import ConvBnAct, ConvSequence
from detection.layers.ghost import GhostBottleneck
from detection.layers.separable import SeparableConv
from detection.layers.shuffle import ShuffleUnit

KERNEL = 5
"""Of every depthwise convolution but those inside ghost modules and shuffle units."""
LeakyRelu = partial(nn.LeakyReLU, 0.1)


class ShuffleNet(nn.Module):
    """The backbone: ShuffleNetV2 without its last layers; feature maps of strides 8, 16 and 32."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = ConvSequence(
            nn.Conv2d(3, 24, 3, 2, padding=1, bias=False), nn.BatchNorm2d(24), LeakyRelu()
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage2 = _stage(24, channels[0], units=4)
        self.stage3 = _stage(channels[0], channels[1], units=8)
        self.stage4 = _stage(channels[1], channels[2], units=4)
        self.apply(_start_small)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        fine = self.stage2(self.maxpool(self.conv1(images_BCHW)))
        middle = self.stage3(fine)
        return [fine, middle, self.stage4(middle)]


def _stage(in_channels: int, out_channels: int, *, units: int) -> nn.Sequential:
    first = ShuffleUnit(in_channels, out_channels, stride=2, activation=LeakyRelu)
    rest = (ShuffleUnit(out_channels, out_channels, stride=1, activation=LeakyRelu) for _ in range(units - 1))
    return nn.Sequential(first, *rest)


def _start_small(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, std=1 / layer.weight.shape[1])
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.constant_(layer.bias, 1e-4)


class GhostBlock(nn.Module):
    """One bottleneck, under the name that the original gives to a row of them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            GhostBottleneck(in_channels, out_channels, kernel_size=KERNEL, activation=LeakyRelu)
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.blocks(features_BCHW)


class GhostPan(nn.Module):
    """The neck: a path aggregation of ghost bottlenecks, and a fourth, coarser level."""

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        super().__init__()

        def halve() -> SeparableConv:
            return SeparableConv(width, width, KERNEL, stride=2, activation=LeakyRelu)

        self.reduce_layers = nn.ModuleList(
            ConvBnAct(channels, width, 1, activation=LeakyRelu, norm=nn.BatchNorm2d)
            for channels in in_channels
        )
        self.top_down_blocks = nn.ModuleList(GhostBlock(2 * width, width) for _ in in_channels[1:])
        self.downsamples = nn.ModuleList(halve() for _ in in_channels[1:])
        self.bottom_up_blocks = nn.ModuleList(GhostBlock(2 * width, width) for _ in in_channels[1:])
        self.extra_lvl_in_conv = nn.ModuleList([halve()])
        self.extra_lvl_out_conv = nn.ModuleList([halve()])
        for layer in self.reduce_layers:
            nn.init.kaiming_normal_(layer.get_parameter("conv.weight"), mode="fan_out")

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        reduced = [reduce(each) for reduce, each in zip(self.reduce_layers, features, strict=True)]
        fused = [reduced[-1]]
        for block, finer in zip(self.top_down_blocks, reversed(reduced[:-1]), strict=True):
            larger = functional.interpolate(fused[0], scale_factor=2.0, mode="bilinear", align_corners=False)
            fused.insert(0, block(torch.cat((larger, finer), dim=1)))
        levels = [fused[0]]
        for halve, block, coarser in zip(self.downsamples, self.bottom_up_blocks, fused[1:], strict=True):
            levels.append(block(torch.cat((halve(levels[-1]), coarser), dim=1)))
        extra = self.extra_lvl_in_conv[0](reduced[-1]) + self.extra_lvl_out_conv[0](levels[-1])
        return [*levels, extra]
