"""Structured pruning: whole channels of convolutions go, so that a detector becomes smaller and faster.

Li et al., "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710: the filters with the
smallest L1 norm go, with their batch norms and with the weights of all layers that read them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detection.analysis.channel_trace import Channels, ChannelTrace, makers, trace_channels
from detection.layers.conv import FusableLayer
from detection.models.detector import Detector
from detection.models.widths import fit_widths, is_depthwise, shapes_of

logger = logging.getLogger(__name__)

MULTIPLES = {64: 16, 32: 8, 1: 1}
"""From so many channels on, of how many their number stays a multiple: kernels work on 8 or 16 at a time, and
would compute the rest for nothing. Small layers lose exactly what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedChannels:
    """What was taken away."""

    layers: Mapping[str, tuple[int, int]]
    """Output channels before and after, of each convolution that lost some, by its name."""
    parameters: tuple[int, int]
    """Before and after."""

    @property
    def removed(self) -> float:
        """The fraction of all parameters that is gone."""
        before, after = self.parameters
        return 1 - after / before


def prune_channels(detector: Detector, amount: float = 0.3) -> PrunedChannels:
    """Take the least important channels out of every layer that can lose some, in place.

    A channel's importance is the L1 norm of its filters as they are after fusing, relative to the others of
    its layer. Channels that are added to each other go together. Of a layer with at least 32 channels a
    multiple of 8 stays, from 64 on of 16, the nearest to what was asked for; of every layer at least one.

    Args:
        detector: as it is served; its weights need not be fused.
        amount: of the channels of each layer, 0 to below 1.

    Raises:
        ValueError: the amount is no such fraction.
    """
    if not 0 <= amount < 1:
        raise ValueError(f"an amount of {amount} is no fraction of the channels: 0 to below 1 is")
    trace = trace_channels(detector)
    gone = frozenset(_least_important(detector, trace, amount))
    before, outputs = _count(detector), _output_channels(detector)
    state = dict(_without(detector, trace, gone))
    fit_widths(detector, shapes_of(state))
    detector.load_state_dict(state, strict=False)
    after = _output_channels(detector)
    pruned = PrunedChannels(
        layers={name: (outputs[name], after[name]) for name in after if after[name] < outputs[name]},
        parameters=(before, _count(detector)),
    )
    logger.info(
        "channels pruned by %g in %d layers: %d of %d parameters stay",
        amount,
        len(pruned.layers),
        pruned.parameters[1],
        before,
    )
    return pruned


def channels_to_keep(channels: int, amount: float) -> int:
    """Return how many of a layer's channels stay."""
    if amount == 0:
        return channels
    multiple = next(multiple for least, multiple in MULTIPLES.items() if channels >= least)
    return min(max(round(channels * (1 - amount) / multiple), 1) * multiple, channels)


def _least_important(detector: Detector, trace: ChannelTrace, amount: float) -> Iterator[int]:
    """Yield the groups of channels to take away: `amount` of those that the same layers make."""
    importance = _importance(detector, trace)
    together: dict[frozenset[str], list[int]] = defaultdict(list)
    for group, names in makers(trace, dense=importance.__contains__).items():
        if group not in trace.fixed:
            together[names].append(group)
    for names, groups in together.items():
        worth: dict[int, float] = defaultdict(float)
        for name in names:
            for group, value in zip(trace.outputs[name], importance[name].tolist(), strict=True):
                worth[group] += value
        groups.sort(key=worth.__getitem__)
        yield from groups[: len(groups) - channels_to_keep(len(groups), amount)]


def _importance(detector: Detector, trace: ChannelTrace) -> dict[str, Tensor]:
    """Return for each dense convolution the L1 norm of each filter after fusing, 1 on average."""
    norms = dict(_norms(detector))
    importance = {}
    for name in trace.inputs:
        conv = detector.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        if is_depthwise(conv):
            continue
        filters_C = conv.weight.detach().double().abs().sum(dim=(1, 2, 3))
        norm = norms.get(name)
        if norm is not None:
            filters_C = filters_C * _scale(norm)
        importance[name] = filters_C / filters_C.mean().clamp(min=torch.finfo(torch.float64).tiny)
    return importance


def _norms(detector: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Yield the batch norm of each convolution by the convolution's name."""
    for name, layer in detector.named_modules():
        if isinstance(layer, FusableLayer):
            for conv, norm in layer.normed().items():
                module = layer.get_submodule(norm)
                if isinstance(module, nn.BatchNorm2d):
                    yield f"{name}.{conv}", module


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    variance_C = norm.get_buffer("running_var").double()
    return norm.weight.detach().double().abs() / (variance_C + norm.eps).sqrt()


def _without(detector: nn.Module, trace: ChannelTrace, gone: frozenset[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield the entries of the state of all traced layers, without the channels that are gone."""
    for name, channels in trace.outputs.items():
        module, outputs = detector.get_submodule(name), _kept(channels, gone)
        for entry, value in module.state_dict().items():
            if value.ndim:
                value = value[outputs]
            if value.ndim == 4 and value.shape[1] == len(trace.inputs[name]):
                value = value[:, _kept(trace.inputs[name], gone)]
            yield f"{name}.{entry}", value


def _kept(channels: Channels, gone: frozenset[int]) -> list[int]:
    return [place for place, group in enumerate(channels) if group not in gone]


def _count(detector: nn.Module) -> int:
    return sum(each.numel() for each in detector.parameters())


def _output_channels(detector: nn.Module) -> dict[str, int]:
    return {
        name: module.out_channels
        for name, module in detector.named_modules()
        if isinstance(module, nn.Conv2d)
    }
