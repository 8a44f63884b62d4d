"""Synchronised batch norm against `nn.BatchNorm2d` on the whole batch, over real ranks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection.layers.conv import ConvBnAct, fuse_conv_bn
from detection.layers.sync_norm import SyncedBatchNorm2d, convert_to_synced
from detection.models import create_model
from detection.training.distributed import Ranks
from tests.ranks import RankTestError, on_ranks

CHANNELS = 5
SPLITS = [(2, 2), (3, 1), (4, 0), (1, 1, 2)]


def norm(**options: Any) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    made = nn.BatchNorm2d(CHANNELS, eps=1e-3, dtype=torch.float64, **options)
    nn.init.normal_(made.weight, 1)
    nn.init.normal_(made.bias)
    return made


def batch(size: int, *, seed: int = 0) -> Tensor:
    """Return features whose means are large beside their deviations, and other on every picture."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(size, CHANNELS, 4, 3, generator=generator, dtype=torch.float64)
    return pictures + 30 + torch.arange(size)[:, None, None, None]


def passed(norm: nn.BatchNorm2d, features: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return all that two forward passes and a backward pass leave behind."""
    features = features.clone().requires_grad_()
    norm(features.detach() * 0.5)
    output = norm(features)
    (output.square() * weights).sum().backward()
    assert features.grad is not None
    return {
        "output": output.detach(),
        "features": features.grad,
        **{name: each.grad for name, each in norm.named_parameters() if each.grad is not None},
        **{name: each.clone() for name, each in norm.named_buffers()},
    }


def own_part(ranks: Ranks, split: tuple[int, ...], options: Mapping[str, Any]) -> dict[str, Tensor]:
    start = sum(split[: ranks.rank])
    own = slice(start, start + split[ranks.rank])
    synced = convert_to_synced(norm(**options))
    assert isinstance(synced, SyncedBatchNorm2d)
    size = sum(split)
    return passed(synced, batch(size)[own], batch(size, seed=2)[own])


@pytest.mark.parametrize("options", [{"momentum": 0.03}, {"momentum": None}], ids=["decaying", "cumulative"])
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_it_computes_what_one_norm_computes_of_all_pictures(
    split: tuple[int, ...], options: dict[str, Any]
) -> None:
    size = sum(split)
    whole = passed(norm(**options), batch(size), batch(size, seed=2))
    parts = on_ranks(own_part, split, options, world=len(split))
    for name in ("output", "features"):
        together = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(together, whole[name])
    for name in ("weight", "bias"):  # each rank has the gradient of its own pictures
        summed = torch.stack([part[name] for part in parts]).sum(dim=0)
        torch.testing.assert_close(summed, whole[name])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for part in parts:
            torch.testing.assert_close(part[name], whole[name])


def lone_values(ranks: Ranks) -> None:
    convert_to_synced(norm())(torch.zeros(1 - ranks.rank, CHANNELS, 1, 1).double())


def test_one_value_has_no_deviation_on_any_rank() -> None:
    with pytest.raises(RankTestError, match=r"(?s)rank 0: ValueError: .*rank 1: ValueError: "):
        on_ranks(lone_values)


def at_half_precision(ranks: Ranks) -> tuple[str, bool, bool]:
    """Compare bfloat16 in with float32 in."""
    synced = convert_to_synced(norm().float())
    own = batch(2).float()[ranks.rank :][:1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = synced(own.bfloat16())
    expected = synced(own.bfloat16().float())
    close = torch.allclose(output.float(), expected, atol=0.05)
    laid_out = synced(own.contiguous(memory_format=torch.channels_last))
    return str(output.dtype), close, laid_out.is_contiguous(memory_format=torch.channels_last)


def test_it_keeps_precision_and_layout_of_its_input() -> None:
    assert on_ranks(at_half_precision) == [("torch.bfloat16", True, True)] * 2


def test_alone_and_in_eval_mode_it_is_the_ordinary_norm() -> None:
    ordinary, features = norm(), batch(3)
    synced = convert_to_synced(copy.deepcopy(ordinary))
    assert torch.equal(synced(features), ordinary(features))
    assert torch.equal(synced.eval()(features), ordinary.eval()(features))


def test_a_converted_detector_is_the_same_but_for_its_norms() -> None:
    detector = create_model("yolox-nano", num_classes=2)
    detector.parts()["backbone"].requires_grad_(False).eval()
    before = {name: each.data_ptr() for name, each in detector.state_dict().items()}
    learning = [each.requires_grad for each in detector.parameters()]
    names = [name for name, _ in detector.named_modules()]
    assert convert_to_synced(detector) is detector
    assert {name: each.data_ptr() for name, each in detector.state_dict().items()} == before
    assert [each.requires_grad for each in detector.parameters()] == learning
    assert [name for name, _ in detector.named_modules()] == names
    norms = [each for each in detector.modules() if isinstance(each, nn.BatchNorm2d)]
    assert {type(each) for each in norms} == {SyncedBatchNorm2d}
    assert {each.training for each in detector.parts()["backbone"].modules()} == {False}
    assert {each.training for each in detector.head.modules()} == {True}


def test_a_synchronised_norm_is_folded_like_any_other() -> None:
    unit = convert_to_synced(ConvBnAct(3, CHANNELS, 3)).eval()
    images = torch.rand(1, 3, 8, 8)
    expected = unit(images)
    fuse_conv_bn(unit)
    assert not [each for each in unit.modules() if isinstance(each, nn.BatchNorm2d)]
    torch.testing.assert_close(unit(images), expected)


def test_a_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        convert_to_synced(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))
