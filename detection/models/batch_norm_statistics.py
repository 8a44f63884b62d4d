"""Batch norms for weights whose own were folded into the convolutions, as in every ONNX graph.

Folding leaves conv(x) + b of what was norm(conv(x)). A neutral norm, which adds b and divides by 1, serves as
well, but a training divides by the deviation of the batch instead: every channel would at once be scaled by
another factor. So before the first step the norms get the statistics of the user's own pictures, and the
weights that undo them.

Shape suffixes: B = images, C = channels, H W = pixels of the input or cells of a feature map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from detection.layers.conv import FusableLayer
from detection.models.network import Network


@dataclass(frozen=True, slots=True)
class Recreated:
    """What `recreate_norms` did."""

    norms: int
    pictures: int


@dataclass(frozen=True, slots=True)
class NormedConv:
    """A convolution without bias and the batch norm that follows it."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d


class ChannelMoments:
    """Mean and variance of each channel of feature maps that come one batch at a time.

    Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983: batches are merged by the
    distance of their means, so nothing cancels out where a mean is large beside its deviation.
    """

    def __init__(self) -> None:
        self.count = 0
        """Cells seen per channel."""
        self.mean_C = torch.zeros((), dtype=torch.float64)
        self._squares_C = torch.zeros((), dtype=torch.float64)

    @property
    def variance_C(self) -> Tensor:
        """Float64, biased, as a batch norm divides in training."""
        return self._squares_C / self.count

    def add(self, features_BCHW: Tensor) -> None:
        """Take the feature maps of another batch into account."""
        count = features_BCHW.numel() // features_BCHW.shape[1]
        variance_C, mean_C = (
            each.cpu() for each in torch.var_mean(features_BCHW.double(), dim=(0, 2, 3), correction=0)
        )
        total, apart_C = self.count + count, mean_C - self.mean_C
        self._squares_C = (
            self._squares_C + variance_C * count + apart_C.square() * (self.count * count / total)
        )
        self.mean_C = self.mean_C + apart_C * (count / total)
        self.count = total


def neutral_norm(bias_C: Tensor, *, eps: float) -> dict[str, Tensor]:
    """Return the state of a batch norm that in eval mode adds a bias [C] and does nothing else.

    Mean 0 and variance 1 - eps make its divisor exactly 1.
    """
    return {
        "weight": torch.ones_like(bias_C),
        "bias": bias_C,
        "running_mean": torch.zeros_like(bias_C),
        "running_var": _neutral_variance(bias_C, eps),
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def recreate_norms(detector: Network, batches: Iterable[Tensor]) -> Recreated:
    """Give every neutral batch norm the statistics of what it sees in `batches`, in place.

    In eval mode the detector computes what it did before. In train mode it computes nearly the same for
    batches like these, as a network does that has its own batch norms. Norms that are not neutral, having
    learnt or being fresh, stay as they are; when there is none that is, no batch is asked for.

    A channel that is the same everywhere in `batches` has variance 0 and the weight sqrt(eps): eps keeps the
    divisor from 0 in both modes, and what little varies in a batch is not blown up.

    Args:
        batches: images [B, 3, H, W] as the input convention prepares them, on the detector's device.
    """
    pairs = tuple(_neutral_pairs(detector))
    if not pairs:
        return Recreated(norms=0, pictures=0)
    moments, pictures = _watch(detector, pairs, batches)
    seen = [(pair, each) for pair, each in zip(pairs, moments, strict=True) if each.count]
    for pair, each in seen:
        _set_statistics(pair.norm, each)
    return Recreated(norms=len(seen), pictures=pictures)


def _neutral_variance(like_C: Tensor, eps: float) -> Tensor:
    """Float32 whatever the weights are: 1 - eps is 1 in half precision."""
    return torch.full_like(like_C, 1 - eps, dtype=torch.float32)


def _neutral_pairs(detector: Network) -> Iterator[NormedConv]:
    for layer in detector.modules():
        if isinstance(layer, FusableLayer):
            for conv_name, norm_name in layer.normed().items():
                conv, norm = layer.get_submodule(conv_name), layer.get_submodule(norm_name)
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _is_neutral(norm):
                    yield NormedConv(conv, norm)


def _is_neutral(norm: nn.BatchNorm2d) -> bool:
    """A fresh norm has variance 1 and one that has learnt has any, so neither is taken for neutral."""
    mean_C, variance_C = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    return (
        torch.equal(variance_C, _neutral_variance(variance_C, norm.eps))
        and not mean_C.any()
        and torch.equal(norm.weight, torch.ones_like(norm.weight))
    )


def _watch(
    detector: Network, pairs: Iterable[NormedConv], batches: Iterable[Tensor]
) -> tuple[list[ChannelMoments], int]:
    """Run the detector in eval mode; return the moments after each convolution, and how many pictures.

    One pass is enough for all layers: none of the new norms will change what the next layer sees.
    """
    pictures, moments, was_training = 0, [], detector.training
    detector.eval()
    try:
        with ExitStack() as hooks, torch.no_grad():
            for pair in pairs:
                moments.append(ChannelMoments())
                hooks.enter_context(pair.conv.register_forward_hook(partial(_note, moments[-1])))
            for images_BCHW in batches:
                detector(images_BCHW)
                pictures += len(images_BCHW)
    finally:
        detector.train(was_training)
    return moments, pictures


def _note(moments: ChannelMoments, conv: nn.Module, inputs: tuple[Tensor, ...], output_BCHW: Tensor) -> None:
    moments.add(output_BCHW)


@torch.no_grad()
def _set_statistics(norm: nn.BatchNorm2d, moments: ChannelMoments) -> None:
    """Set mean and variance, and the weight and bias by which the norm still adds its bias and no more.

    Weight and bias are computed from the statistics as float32 rounds them.
    """
    mean_C, variance_C = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    mean_C.copy_(moments.mean_C)
    variance_C.copy_(moments.variance_C)
    norm.weight.copy_((variance_C.double() + norm.eps).sqrt())
    norm.bias.copy_(norm.bias.double() + mean_C.double())
