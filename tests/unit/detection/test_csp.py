"""The larger blocks of YOLOX, each against its definition."""

from __future__ import annotations

import torch
from torch import nn

from detection.layers.conv import ConvBnAct, DepthwiseConvBnAct
from detection.layers.csp import Bottleneck, CspLayer, Focus, SpatialPyramidPooling


def parts_of(module: nn.Module) -> dict[str, torch.Size]:
    return {name: each.shape for name, each in module.named_parameters() if name.endswith("conv.weight")}


def test_focus_stacks_the_sub_pictures_in_the_originals_order() -> None:
    focus = Focus(1, 4)
    focus.conv = nn.Identity()  # type: ignore[assignment]
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert focus(picture)[0, :, 0, 0].tolist() == [0.0, 4.0, 1.0, 5.0]
    assert focus(picture)[0, 1].tolist() == [[4.0, 6.0], [12.0, 14.0]]


def test_the_stem_is_dense() -> None:
    assert Focus(3, 16).conv.conv.weight.shape == (16, 12, 3, 3)


def test_a_bottleneck_adds_its_input_only_when_told() -> None:
    torch.manual_seed(0)
    plain = Bottleneck(4, shortcut=False, unit=ConvBnAct).eval()
    added = Bottleneck(4, shortcut=True, unit=ConvBnAct).eval()
    added.load_state_dict(plain.state_dict())
    features = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(added(features), plain(features) + features)


def test_a_csp_layer_joins_the_deep_branch_before_the_direct_one() -> None:
    torch.manual_seed(0)
    layer = CspLayer(6, 8, 2, shortcut=True, unit=DepthwiseConvBnAct).eval()
    features = torch.rand(1, 6, 5, 5)
    deep = layer.m[1](layer.m[0](layer.conv1(features)))
    expected = layer.conv3(torch.cat((deep, layer.conv2(features)), dim=1))
    torch.testing.assert_close(layer(features), expected)
    shapes = parts_of(layer)
    assert shapes["conv1.conv.weight"] == shapes["conv2.conv.weight"] == (4, 6, 1, 1)
    assert shapes["conv3.conv.weight"] == (8, 8, 1, 1)
    assert shapes["m.1.conv1.conv.weight"] == (4, 4, 1, 1)
    assert shapes["m.1.conv2.dconv.conv.weight"] == (4, 1, 3, 3)


def test_repeated_small_windows_pool_like_large_ones() -> None:
    torch.manual_seed(0)
    layer = SpatialPyramidPooling(8).eval()
    features = torch.randn(2, 8, 15, 14)
    plain = layer.conv1(features)
    windows = [nn.functional.max_pool2d(plain, size, stride=1, padding=size // 2) for size in (5, 9, 13)]
    assert torch.equal(layer(features), layer.conv2(torch.cat((plain, *windows), dim=1)))
