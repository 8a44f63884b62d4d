"""Convolution units: convolution, batch norm and activation as one layer that can fuse itself.

Shape suffixes: B = images, C = channels, H W = cells of the feature map.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

logger = logging.getLogger(__name__)

BN_EPS = 1e-3
BN_MOMENTUM = 0.03
"""The constants that YOLOX was trained with; the framework's own (1e-5, 0.1) give other results."""

Activation = Callable[[], nn.Module]
Norm = Callable[[int], nn.BatchNorm2d]
"""Builds the batch norm of so many channels."""

ConvUnit = Callable[..., nn.Module]
"""`ConvBnAct` or `DepthwiseConvBnAct`, built from (in_channels, out_channels, kernel_size, stride=)."""


class FusableLayer(nn.Module, ABC):
    """A layer with convolutions and batch norms that can become convolutions alone."""

    @abstractmethod
    def normed(self) -> Mapping[str, str]:
        """Return the name of each convolution, and that of the batch norm which directly follows it."""

    def fuse(self) -> None:
        """Fold the batch norms into the convolutions. Eval mode only; the output does not change."""
        for conv_name, norm_name in self.normed().items():
            conv, norm = self.get_submodule(conv_name), self.get_submodule(norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                self.add_module(conv_name, fused_conv(conv, norm))
                self.add_module(norm_name, nn.Identity())


def yolox_norm(channels: int) -> nn.BatchNorm2d:
    """Return the batch norm of YOLOX."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ConvBnAct(FusableLayer):
    """Convolution without bias and with same padding, batch norm, activation."""

    conv: nn.Conv2d
    bn: nn.BatchNorm2d | nn.Identity
    act: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = nn.SiLU,
        norm: Norm = yolox_norm,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=(kernel_size - 1) // 2,
            groups=groups,
            bias=False,
        )
        self.bn = norm(out_channels)
        self.act = activation()

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(features_BCHW)))

    def normed(self) -> Mapping[str, str]:
        return {"conv": "bn"}


class DepthwiseConvBnAct(nn.Module):
    """A unit per channel, then a 1x1 unit across the channels."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.dconv = ConvBnAct(in_channels, in_channels, kernel_size, stride=stride, groups=in_channels)
        self.pconv = ConvBnAct(in_channels, out_channels, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.pconv(self.dconv(features_BCHW))


class ConvSequence(nn.Sequential, FusableLayer):
    """Convolutions without bias, each followed by its batch norm, and activations, in any order of units."""

    def normed(self) -> Mapping[str, str]:
        return {
            conv_name: norm_name
            for (conv_name, conv), (norm_name, norm) in pairwise(self.named_children())
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        }


def fused_conv(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution that computes bn(conv(x)) as in eval mode; it no longer learns.

    Kernel, stride, padding and its mode, dilation, groups, dtype and device stay the same.

    Differs from the reference: dilation and padding mode are kept.

    Raises:
        ValueError: one of the two is in train mode, where batch norm depends on the batch.
    """
    if conv.training or bn.training:
        raise ValueError("only layers in eval mode can be fused; call eval() first")
    return fuse_conv_bn_eval(conv, bn).requires_grad_(False)


def fuse_conv_bn(module: nn.Module) -> None:
    """Fuse every fusable layer inside `module`, in place. Eval mode only; outputs do not change."""
    before = _count_norms(module)
    for layer in module.modules():
        if isinstance(layer, FusableLayer):
            layer.fuse()
    logger.info("fused: %d batch norms folded into their convolutions", before - _count_norms(module))


def _count_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
