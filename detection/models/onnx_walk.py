"""Walk an ONNX graph backwards along the layers of our own model, and take the weights of each on the way.

The names in an exported graph say little, so every convolution is known by what it is connected to. Batch
norms are folded in such graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from detection.errors import WeightsError
from detection.layers.conv import ConvBnAct
from detection.models.detector import Detector
from detection.models.onnx_graph import OnnxGraph

Network = TypeVar("Network", bound=Detector)

RESIZE_INPUTS = 4
"""With so many, the last is a size, which depends on the picture, and not a scale."""
CHANNELS = (1, -3)
DOUBLES_LINEAR = (b"half_pixel", b"pytorch_half_pixel")
DOUBLES_NEAREST = (
    (b"asymmetric", b"floor"),
    (b"asymmetric", b"round_prefer_floor"),
    (b"half_pixel", b"round_prefer_floor"),
    (b"half_pixel", b"round_prefer_ceil"),
)
"""Each is another way to write that every pixel becomes four. What is left out means the last but one; the
first operators of this kind could say nothing about centres."""


class BackwardWalk(ABC, Generic[Network]):
    """One walk through one graph; a value is the name of an edge. A family knows its own layers' insides."""

    family: ClassVar[str]
    network: ClassVar[type[Detector]]
    num_predictions: ClassVar[int]
    """How many convolutions such a graph ends in."""

    def __init__(self, graph: OnnxGraph, model: Network) -> None:
        self.graph, self.model = graph, model
        self.state: dict[str, Tensor] = {}
        self._names = {module: name for name, module in model.named_modules()}

    @classmethod
    @abstractmethod
    def num_classes(cls, rows: Sequence[int]) -> int:
        """Return how many classes there are, given the output channels of each last convolution."""

    @abstractmethod
    def walk(self, predictions: Sequence[str]) -> None:
        """Fill `state` on the way from what the last convolutions return, in their order, to the picture."""

    @singledispatchmethod
    def before(self, layer: nn.Module, value: str) -> str:
        """Return the value that enters `layer`, given the one that leaves it; keep the layer's weights."""
        raise TypeError(f"no way back through a {type(layer).__name__}")

    @before.register
    def _(self, layer: nn.Sequential, value: str) -> str:
        for each in reversed(layer):
            value = self.before(each, value)
        return value

    @before.register
    def _(self, layer: nn.Conv2d, value: str) -> str:
        node, name = self.graph.producer(value, "Conv"), self._names[layer]
        self._require_like(layer, node)
        self.state[f"{name}.weight"] = self.graph.numbers(node.input[1])
        # Exporters leave out a bias that is all zero.
        has_bias = len(node.input) > 2 and node.input[2]
        bias = self.graph.numbers(node.input[2]) if has_bias else torch.zeros(layer.out_channels)
        self.state[f"{name}.bias"] = bias
        return str(node.input[0])

    @before.register
    def _(self, layer: nn.BatchNorm2d | nn.Identity, value: str) -> str:
        return value

    @before.register
    def _(self, layer: ConvBnAct, value: str) -> str:
        return self.before(layer.conv, self.before(layer.act, value))

    @before.register
    def _(self, layer: nn.LeakyReLU, value: str) -> str:
        node = self.graph.producer(value, "LeakyRelu")
        slope = self.graph.options(node).get("alpha", 0.01)
        self.require(abs(slope - layer.negative_slope) < 1e-6, f"a leaky ReLU has the slope {slope:g}")
        return str(node.input[0])

    @before.register
    def _(self, layer: nn.SiLU, value: str) -> str:
        node = self.graph.producer(value, "Mul", "Swish")
        if node.op_type == "Swish":
            return str(node.input[0])
        for linear, gate in (node.input, node.input[::-1]):
            maker = self.graph.find_producer(gate)
            if maker is not None and maker.op_type == "Sigmoid" and maker.input[0] == linear:
                return str(linear)
        raise self.unlike("a product was expected to be x * sigmoid(x)")

    def joined(self, value: str, count: int) -> list[str]:
        """Return the branches that are concatenated to `value`."""
        node = self.graph.producer(value, "Concat")
        values = list(node.input)
        self.require(
            self.graph.options(node).get("axis") in CHANNELS, "it joins something else than channels"
        )
        self.require(len(values) == count, f"it joins {len(values)} branches where {count} belong")
        return values

    def before_doubling(self, value: str, *, mode: bytes) -> str:
        """Return the feature map that `value` is twice as large as, interpolated as `mode` says."""
        node = self.graph.producer(value, "Resize", "Upsample")
        given = self.graph.options(node)
        centres = given.get("coordinate_transformation_mode", b"half_pixel")
        rounding = given.get("nearest_mode", b"round_prefer_floor")
        scales = node.input[-1] if len(node.input) < RESIZE_INPUTS else ""
        agrees = [
            given.get("mode", b"nearest") == mode,
            (centres, rounding) in DOUBLES_NEAREST if mode == b"nearest" else centres in DOUBLES_LINEAR,
            not scales or self.graph.floats(scales) == [1, 1, 2, 2],
        ]
        self.require(all(agrees), f"it enlarges feature maps in another way than {mode.decode()} by 2")
        return str(node.input[0])

    def before_pooling(self, value: str, *, window: int, stride: int) -> str:
        """Return the feature map that `value` holds the largest neighbours of."""
        node = self.graph.producer(value, "MaxPool")
        given = self.graph.options(node)
        agrees = [
            given.get("kernel_shape") == [window, window],
            given.get("strides", [1, 1]) == [stride, stride],
            given.get("pads", [0, 0, 0, 0]) == [window // 2] * 4,
            given.get("dilations", [1, 1]) == [1, 1],
            given.get("ceil_mode", 0) == 0,
        ]
        self.require(all(agrees), f"a maximum is not over {window} x {window} cells")
        return str(node.input[0])

    def require_same(self, value: str, other: str) -> None:
        """Raise unless two branches meet."""
        self.require(value == other, "two branches that belong together start apart")

    def require(self, holds: bool, problem: str) -> None:
        if not holds:
            raise self.unlike(problem)

    def unlike(self, problem: str) -> WeightsError:
        return WeightsError(f"the graph is no {self.family}: {problem}")

    def _require_like(self, layer: nn.Conv2d, node: Any) -> None:
        given = self.graph.options(node)
        pads = [*layer.padding, *layer.padding]
        agrees = [
            self.graph.shape(node.input[1]) == tuple(layer.weight.shape),
            given.get("strides", [1, 1]) == list(layer.stride),
            given.get("pads", [0, 0, 0, 0]) == pads,
            given.get("dilations", [1, 1]) == list(layer.dilation),
            given.get("group", 1) == layer.groups,
        ]
        self.require(all(agrees), f"{self._names[layer]} has another shape")
