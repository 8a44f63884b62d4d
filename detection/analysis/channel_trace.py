"""Follow every channel of a detector from the convolutions that make it to those that read it.

The detector's own forward pass runs once on a picture of channel numbers instead of colours. A convolution
gives its outputs new numbers, and notes which it was given; a depthwise one hands them on. What only moves
channels (joining, cutting, enlarging, pooling) moves the numbers as well. Where two maps are added, the
numbers that meet belong together from then on: such channels go together or not at all. Where channels are
divided by their position, as a channel shuffle does, they are fixed: a hole would move all that come after.

Shape suffixes: B = images, C = channels, H W = pixels of the input or cells of a feature map.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from detection.models.detector import Detector

SIDE = 64
"""Every family's coarsest level has a cell of so small a picture."""

Channels = tuple[int, ...]
"""For each channel of a map the number of the group that it belongs to."""

TensorMethod = torch.Tensor
SUMS = frozenset({torch.add, TensorMethod.add, TensorMethod.__add__, TensorMethod.__iadd__})
DIVIDING = frozenset(
    {torch.chunk, TensorMethod.chunk, TensorMethod.view, TensorMethod.reshape, TensorMethod.split}
)
MOVING = frozenset(
    {
        torch.cat,
        torch.flatten,
        TensorMethod.flatten,
        TensorMethod.transpose,
        TensorMethod.dim,
        TensorMethod.__getitem__,
        TensorMethod.shape.__get__,  # type: ignore[attr-defined]
        functional.interpolate,
        functional.max_pool2d,
        torch._C._set_grad_enabled,
    }
)
KEEPING = frozenset(
    {functional.silu, functional.leaky_relu, functional.relu, functional.relu6, functional.hardswish}
)
"""What changes the values of a map, but no channel's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTrace:
    """Which channels each convolution and batch norm makes and reads, by the module's name."""

    inputs: Mapping[str, Channels]
    outputs: Mapping[str, Channels]
    fixed: frozenset[int]
    """Groups of channels that cannot be taken away."""


def trace_channels(detector: Detector) -> ChannelTrace:
    """Return where the channels of a detector's forward pass come from and go to.

    The picture's own channels, the predictions and the outputs of `fixed_outputs` are fixed.

    Raises:
        ValueError: the forward pass does something to its channels that is not understood.
    """
    follower, was_training = _Follower(detector), detector.training
    picture, fixed = follower.new_map(3, SIDE, SIDE, fixed=True), list[Tensor]()
    detector.eval()
    try:
        with ExitStack() as stack, torch.no_grad():
            for part in detector.fixed_outputs:
                hook = partial(_keep_outputs, fixed)
                stack.callback(detector.parts()[part].register_forward_hook(hook).remove)
            stack.enter_context(follower)
            predictions = detector(picture)
    finally:
        detector.train(was_training)
    for maps in (*fixed, predictions):
        follower.fix(maps)
    return follower.trace()


def _keep_outputs(kept: list[Tensor], part: nn.Module, inputs: object, outputs: Sequence[Tensor]) -> None:
    kept.extend(outputs)


class _Follower(TorchFunctionMode):
    """Stands between the detector and torch while numbers flow instead of features."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self._names = {
            id(module.weight): name
            for name, module in detector.named_modules()
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
        }
        self._groups = _Groups()
        self._fixed: set[int] = set()
        self._inputs: dict[str, list[int]] = {}
        self._outputs: dict[str, list[int]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return self._convolve(*args, **kwargs)
        if func is functional.batch_norm:
            return self._normalise(*args, **kwargs)
        if func in SUMS:
            return self._add(*args)
        if func in KEEPING:
            return args[0]
        if func in DIVIDING:
            self.fix(args[0])
        elif func not in MOVING:
            raise ValueError(f"channels cannot be followed through {getattr(func, '__name__', func)}")
        return func(*args, **kwargs)

    def new_map(self, channels: int, height: int, width: int, *, fixed: bool = False) -> Tensor:
        """Return a map [1, C, H, W] of new numbers, one per channel."""
        numbers = self._groups.new(channels)
        if fixed:
            self._fixed.update(numbers)
        return _as_map(numbers, height, width)

    def fix(self, features: Tensor) -> None:
        """Let no channel of a map, however it lies, be taken away."""
        self._fixed.update(features.round().long().unique().tolist())

    def trace(self) -> ChannelTrace:
        """Return what was seen, with one number per group."""

        def groups(of: Mapping[str, list[int]]) -> dict[str, Channels]:
            return {name: tuple(map(self._groups.group, numbers)) for name, numbers in of.items()}

        return ChannelTrace(
            inputs=groups(self._inputs),
            outputs=groups(self._outputs),
            fixed=frozenset(map(self._groups.group, self._fixed)),
        )

    def _convolve(
        self,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        name, given = self._names[id(weight)], _numbers_of(maps)
        self._note(self._inputs, name, given)
        height, width = (
            (size + 2 * pad - step * (kernel - 1) - 1) // each + 1
            for size, pad, step, kernel, each in zip(
                maps.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
            )
        )
        depthwise = groups == len(given) == len(weight)
        if groups > 1 and not depthwise:  # a group reads its channels by their position
            self._fixed.update(given)
        known = self._outputs.get(name)
        made = given if depthwise and groups > 1 else known or self._groups.new(len(weight))
        self._note(self._outputs, name, made)
        return _as_map(made, height, width)

    def _normalise(
        self, maps: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, *rest: object, **more: object
    ) -> Tensor:
        self._note(self._outputs, self._names[id(weight)], _numbers_of(maps))
        return maps

    def _add(self, one: Tensor, other: Tensor) -> Tensor:
        for pair in zip(_numbers_of(one), _numbers_of(other), strict=True):
            self._groups.unite(*pair)
        return one

    def _note(self, of: dict[str, list[int]], name: str, numbers: list[int]) -> None:
        """Remember the channels of a module; those of one that is used twice belong together."""
        for pair in zip(of.setdefault(name, numbers), numbers, strict=True):
            self._groups.unite(*pair)


class _Groups:
    """Numbers that belong together, by the number that speaks for them."""

    def __init__(self) -> None:
        self._spoken_for_by: list[int] = []

    def new(self, count: int) -> list[int]:
        first = len(self._spoken_for_by)
        self._spoken_for_by.extend(range(first, first + count))
        return list(range(first, first + count))

    def group(self, number: int) -> int:
        while self._spoken_for_by[number] != number:
            number = self._spoken_for_by[number]
        return number

    def unite(self, one: int, other: int) -> None:
        self._spoken_for_by[self.group(other)] = self.group(one)


def _as_map(numbers: Iterable[int], height: int, width: int) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)[None, :, None, None].repeat(1, 1, height, width)


def _numbers_of(maps: Tensor) -> list[int]:
    return [int(number) for number in maps[0, :, 0, 0].round().tolist()]


def makers(trace: ChannelTrace, dense: Callable[[str], bool]) -> dict[int, frozenset[str]]:
    """Return for each group of channels the convolutions that make one of it, of those that `dense` names."""
    found: dict[int, set[str]] = defaultdict(set)
    for name, channels in trace.outputs.items():
        if dense(name):
            for each in channels:
                found[each].add(name)
    return {group: frozenset(names) for group, names in found.items()}
