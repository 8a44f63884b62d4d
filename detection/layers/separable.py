"""The depthwise-separable unit of NanoDet: a convolution per channel, then one across channels.

Howard et al., "MobileNets", https://arxiv.org/abs/1704.04861

Shape suffixes: B = images, C = channels, H W = cells of the feature map.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from detection.layers.conv import Activation, FusableLayer


class SeparableConv(FusableLayer):
    """Depthwise convolution, norm, activation, 1x1 convolution, norm, activation; same padding."""

    depthwise: nn.Conv2d
    pointwise: nn.Conv2d
    dwnorm: nn.BatchNorm2d | nn.Identity
    pwnorm: nn.BatchNorm2d | nn.Identity

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding=(kernel_size - 1) // 2,
            groups=in_channels,
            bias=False,
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dwnorm = nn.BatchNorm2d(in_channels)
        self.pwnorm = nn.BatchNorm2d(out_channels)
        self.act = activation()

    def forward(self, features_BCHW: Tensor) -> Tensor:
        features_BCHW = self.act(self.dwnorm(self.depthwise(features_BCHW)))
        return self.act(self.pwnorm(self.pointwise(features_BCHW)))

    def normed(self) -> Mapping[str, str]:
        return {"depthwise": "dwnorm", "pointwise": "pwnorm"}
