"""Convolution units and their fusing, by the original's numbers and where those are wrong."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detection.layers.conv import ConvBnAct, DepthwiseConvBnAct, fuse_conv_bn, fused_conv
from tests.npz import read_npz


def with_random_statistics(module: nn.Module) -> nn.Module:
    """Give every batch norm the look of a trained one."""
    random = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -1, 1),
                (layer.running_mean, -1, 1),
                (layer.running_var, 0.2, 3),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=random)
    return module


def test_a_unit_is_convolution_norm_and_silu_with_the_originals_constants() -> None:
    unit = with_random_statistics(ConvBnAct(4, 6, 3, stride=2)).eval()
    assert isinstance(unit, ConvBnAct)
    assert isinstance(unit.bn, nn.BatchNorm2d)
    assert (unit.bn.eps, unit.bn.momentum, unit.conv.bias) == (1e-3, 0.03, None)
    pictures = torch.rand(2, 4, 9, 8)
    convolved = nn.functional.conv2d(pictures, unit.conv.weight, stride=2, padding=1)
    mean, variance = unit.bn.running_mean, unit.bn.running_var
    assert mean is not None
    assert variance is not None
    scale = unit.bn.weight / (variance + 1e-3).sqrt()
    linear = (convolved - mean[:, None, None]) * scale[:, None, None] + unit.bn.bias[:, None, None]
    torch.testing.assert_close(unit(pictures), linear * linear.sigmoid())


def test_a_depthwise_unit_works_per_channel_and_then_across() -> None:
    unit = DepthwiseConvBnAct(4, 6, 3, stride=2)
    assert (unit.dconv.conv.groups, unit.dconv.conv.stride, unit.dconv.conv.out_channels) == (4, (2, 2), 4)
    assert (unit.pconv.conv.kernel_size, unit.pconv.conv.out_channels) == ((1, 1), 6)
    assert unit(torch.rand(1, 4, 8, 8)).shape == (1, 6, 4, 4)


@pytest.mark.parametrize("unit", [ConvBnAct, DepthwiseConvBnAct])
def test_fusing_does_not_change_the_output_and_ends_learning(unit: type[nn.Module]) -> None:
    layer = with_random_statistics(unit(4, 6, 3)).eval()
    fused = copy.deepcopy(layer)
    fuse_conv_bn(fused)
    pictures = torch.rand(2, 4, 7, 7)
    torch.testing.assert_close(fused(pictures), layer(pictures), rtol=1e-4, atol=1e-5)
    assert not [name for name in fused.state_dict() if "bn" in name]
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    before = copy.deepcopy(fused.state_dict())
    fuse_conv_bn(fused)
    assert all(torch.equal(value, before[name]) for name, value in fused.state_dict().items())


def test_layers_in_train_mode_are_not_fused() -> None:
    unit = ConvBnAct(2, 2, 1)
    with pytest.raises(ValueError, match="eval mode"):
        unit.fuse()
    assert isinstance(unit.bn, nn.BatchNorm2d)


@pytest.mark.parametrize(
    "options", [{"dilation": 2}, {"padding_mode": "reflect"}, {"groups": 2}, {"bias": False}]
)
def test_a_fused_convolution_keeps_how_it_moves(options: dict[str, Any]) -> None:
    conv = nn.Conv2d(4, 4, 3, padding=2, **options).double()
    bn = with_random_statistics(nn.BatchNorm2d(4)).double()
    assert isinstance(bn, nn.BatchNorm2d)
    pictures = torch.rand(1, 4, 9, 9, dtype=torch.float64)
    fused = fused_conv(conv.eval(), bn.eval())
    torch.testing.assert_close(fused(pictures), bn(conv(pictures)))
    for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(fused, name) == getattr(conv, name)
    assert fused.weight.dtype == torch.float64


def layers_of(case: Any, prefix: str, **options: Any) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return the convolution and batch norm of one golden case, in eval mode."""
    weight = torch.from_numpy(case[f"{prefix}_conv_w"])
    groups = options.get("groups", 1)
    conv = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], weight.shape[2], **options).eval()
    bn = nn.BatchNorm2d(weight.shape[0], eps=float(case.get(f"{prefix}_eps", 1e-3))).eval()
    conv.weight.data = weight
    if conv.bias is not None:
        conv.bias.data = torch.from_numpy(case[f"{prefix}_conv_b"])
    state = {"weight": "w", "bias": "b", "running_mean": "mean", "running_var": "var"}
    bn.load_state_dict(
        {name: torch.from_numpy(case[f"{prefix}_bn_{short}"]) for name, short in state.items()}, strict=False
    )
    return conv, bn


def test_fused_convolutions_have_the_originals_numbers(numbers: Path) -> None:
    case = read_npz(numbers / "fuse_conv_bn.npz")
    names = [name.removesuffix("_fused_w") for name in case if name.endswith("_fused_w")]
    assert names
    for name in names:
        _, _, _, stride, padding, groups = case[f"{name}_cin_cout_k_s_p_g"].tolist()
        bias = case[f"{name}_conv_b"].size > 0
        conv, bn = layers_of(case, name, stride=stride, padding=padding, groups=groups, bias=bias)
        fused = fused_conv(conv, bn)
        assert fused.bias is not None
        np.testing.assert_allclose(fused.weight, case[f"{name}_fused_w"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fused.bias, case[f"{name}_fused_b"], rtol=1e-5, atol=1e-5)
        outputs = fused(torch.from_numpy(case[f"{name}_x"]))
        np.testing.assert_allclose(outputs, case[f"{name}_y_fused"], rtol=1e-4, atol=2e-3)
        np.testing.assert_allclose(outputs, case[f"{name}_y_unfused"], rtol=1e-4, atol=2e-3)


def test_dilation_survives_where_the_original_loses_it(numbers: Path) -> None:
    case = read_npz(numbers / "fuse_conv_bn.npz")
    for eps in (1e-3, 1e-5):
        conv, bn = layers_of(case, "dil", padding=2, dilation=2, bias=False)
        bn.eps = eps
        pictures = torch.from_numpy(case["dil_x"])
        if np.allclose(bn(conv(pictures)).detach(), case["dil_y_unfused"], rtol=1e-4, atol=1e-4):
            break
    outputs = fused_conv(conv, bn)(pictures)
    np.testing.assert_allclose(outputs, case["dil_y_unfused"], rtol=1e-4, atol=2e-3)


def test_the_log_counts_the_norms_that_were_folded(caplog: pytest.LogCaptureFixture) -> None:
    layer = DepthwiseConvBnAct(4, 6, 3).eval()
    with caplog.at_level(logging.INFO):
        fuse_conv_bn(layer)
        fuse_conv_bn(layer)
    assert caplog.messages == [
        "fused: 2 batch norms folded into their convolutions",
        "fused: 0 batch norms folded into their convolutions",
    ]
