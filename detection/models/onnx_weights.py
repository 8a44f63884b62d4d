"""Read YOLOX's weights out of an ONNX graph by its structure.

The names in an exported graph say little. So it is walked backwards from its outputs, along the layers of our
own model, and every convolution is known by what it is connected to. Batch norms are folded in such graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detection.errors import WeightsError
from detection.layers.conv import ConvBnAct, DepthwiseConvBnAct
from detection.layers.csp import Bottleneck, CspLayer, Focus, SpatialPyramidPooling
from detection.models import MODELS, create_model
from detection.models.onnx_graph import OnnxGraph
from detection.models.upstream_names import MAX_CLASSES
from detection.models.yolox import YoloX

NUM_LEVELS = 3
PREDICTIONS_PER_LEVEL = 3
"""Box, objectness and class, in this order."""
FOCUS_PARITIES = [(0, 0), (1, 0), (0, 1), (1, 1)]
"""First row and first column of each sub-picture that the stem stacks."""
MAX_SLICES = 8
"""More than any exporter writes one after the other."""


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Return the weights of a YOLOX graph by the names of our model, batch norms folded.

    The output may be raw, activated or decoded, in one tensor or several.

    Raises:
        WeightsError: the file is damaged, or the graph is not exactly a YOLOX of a known size.
    """
    graph = OnnxGraph.read(path)
    predictions = list(graph.convolutions_before(graph.outputs))
    if len(predictions) != NUM_LEVELS * PREDICTIONS_PER_LEVEL:
        raise WeightsError(f"the graph is no YOLOX: it ends in {len(predictions)} convolutions, not in nine")
    num_classes, *_ = graph.shape(predictions[PREDICTIONS_PER_LEVEL - 1].input[1])
    model = _matching_model(graph, num_classes)
    return BackwardWalk(graph, model).weights([node.output[0] for node in predictions])


def _matching_model(graph: OnnxGraph, num_classes: int) -> YoloX:
    """Return the model that has convolutions of the same shapes as the graph; its own are without numbers."""
    shapes = sorted(graph.shape(node.input[1]) for node in graph.convolutions)
    if not 1 <= num_classes <= MAX_CLASSES:
        raise WeightsError(f"the graph tells {num_classes} classes apart; 1 to {MAX_CLASSES} are possible")
    for name in MODELS:
        with torch.device("meta"):
            model = create_model(name, num_classes=num_classes)
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        if isinstance(model, YoloX) and sorted(tuple(each.weight.shape) for each in convolutions) == shapes:
            return model
    raise WeightsError(f"none of {', '.join(MODELS.names())} has these {len(shapes)} convolutions")


class BackwardWalk:
    """One walk through one graph; a value is the name of an edge."""

    def __init__(self, graph: OnnxGraph, model: YoloX) -> None:
        self.graph, self.model = graph, model
        self._names = {module: name for name, module in model.named_modules()}
        self._state: dict[str, Tensor] = {}

    def weights(self, predictions: Sequence[str]) -> dict[str, Tensor]:
        """Walk from the nine prediction maps, fine to coarse, to the picture."""
        pyramid = [self._head_level(level, predictions) for level in range(NUM_LEVELS)]
        self._backbone(*self._neck(*pyramid))
        return self._state

    def _head_level(self, level: int, predictions: Sequence[str]) -> str:
        head, first = self.model.head, level * PREDICTIONS_PER_LEVEL
        box, objectness, classes = predictions[first : first + PREDICTIONS_PER_LEVEL]
        box_tower = self.before(head.reg_preds[level], box)
        self._require_same(box_tower, self.before(head.obj_preds[level], objectness))
        class_tower = self.before(head.cls_preds[level], classes)
        stem = self.before(head.reg_convs[level], box_tower)
        self._require_same(stem, self.before(head.cls_convs[level], class_tower))
        return self.before(head.stems[level], stem)

    def _neck(self, out_fine: str, out_middle: str, out_coarse: str) -> tuple[str, str, str]:
        neck = self.model.backbone
        down, lateral_coarse = self._joined(self.before(neck["C3_n4"], out_coarse), 2)
        self._require_same(out_middle, self.before(neck["bu_conv1"], down))
        down, lateral_middle = self._joined(self.before(neck["C3_n3"], out_middle), 2)
        self._require_same(out_fine, self.before(neck["bu_conv2"], down))
        up, fine = self._joined(self.before(neck["C3_p3"], out_fine), 2)
        self._require_same(lateral_middle, self._before_upsampling(up))
        merged = self.before(neck["C3_p4"], self.before(neck["reduce_conv1"], lateral_middle))
        up, middle = self._joined(merged, 2)
        self._require_same(lateral_coarse, self._before_upsampling(up))
        return fine, middle, self.before(neck["lateral_conv0"], lateral_coarse)

    def _backbone(self, fine: str, middle: str, coarse: str) -> None:
        backbone = self.model.backbone["backbone"]
        self._require_same(middle, self.before(backbone.dark5, coarse))
        self._require_same(fine, self.before(backbone.dark4, middle))
        self.before(backbone.stem, self.before(backbone.dark2, self.before(backbone.dark3, fine)))

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
        self._state[f"{name}.weight"] = self.graph.numbers(node.input[1])
        # Exporters leave out a bias that is all zero.
        has_bias = len(node.input) > 2 and node.input[2]
        bias = self.graph.numbers(node.input[2]) if has_bias else torch.zeros(layer.out_channels)
        self._state[f"{name}.bias"] = bias
        return str(node.input[0])

    @before.register
    def _(self, layer: ConvBnAct, value: str) -> str:
        return self.before(layer.conv, self._before_silu(value))

    @before.register
    def _(self, layer: DepthwiseConvBnAct, value: str) -> str:
        return self.before(layer.dconv, self.before(layer.pconv, value))

    @before.register
    def _(self, layer: Bottleneck, value: str) -> str:
        if not layer.shortcut:
            return self.before(layer.conv1, self.before(layer.conv2, value))
        refined, passed = self.graph.producer(value, "Add").input
        entering = self.before(layer.conv1, self.before(layer.conv2, refined))
        self._require_same(passed, entering)
        return entering

    @before.register
    def _(self, layer: CspLayer, value: str) -> str:
        deep, direct = self._joined(self.before(layer.conv3, value), 2)
        entering = self.before(layer.conv1, self.before(layer.m, deep))
        self._require_same(entering, self.before(layer.conv2, direct))
        return entering

    @before.register
    def _(self, layer: SpatialPyramidPooling, value: str) -> str:
        plain, *pooled = self._joined(self.before(layer.conv2, value), 4)
        for each in pooled:
            for _ in pooled:  # windows of 9 and 13 may be written as two and three of 5
                if each != plain:
                    each = self.graph.producer(each, "MaxPool").input[0]
            self._require_same(plain, each)
        return self.before(layer.conv1, plain)

    @before.register
    def _(self, layer: Focus, value: str) -> str:
        corners = self._joined(self.before(layer.conv, value), len(FOCUS_PARITIES))
        if [self._parity(each) for each in corners] != FOCUS_PARITIES:
            raise WeightsError("the graph stacks the sub-pictures of its stem in another order than YOLOX")
        return corners[0]

    def _parity(self, value: str) -> tuple[int, int]:
        """Return from which row and column on every second pixel of the graph's input is taken."""
        start_by_axis = {2: 0, 3: 0}
        for _ in range(MAX_SLICES):
            if value in self.graph.inputs:
                return start_by_axis[2], start_by_axis[3]
            node = self.graph.producer(value, "Slice")
            starts, _, axes, steps = (self.graph.integers(each) for each in node.input[1:5])
            for start, axis, step in zip(starts, axes, steps, strict=True):
                if step == 2:
                    start_by_axis[axis % 4] = start
            value = node.input[0]
        raise WeightsError("the graph is no YOLOX: its stem slices the input too often")

    def _before_silu(self, value: str) -> str:
        node = self.graph.producer(value, "Mul", "Swish")
        if node.op_type == "Swish":
            return str(node.input[0])
        for linear, gate in (node.input, node.input[::-1]):
            maker = self.graph.find_producer(gate)
            if maker is not None and maker.op_type == "Sigmoid" and maker.input[0] == linear:
                return str(linear)
        raise WeightsError("the graph is no YOLOX: a product was expected to be x * sigmoid(x)")

    def _before_upsampling(self, value: str) -> str:
        return str(self.graph.producer(value, "Resize", "Upsample").input[0])

    def _joined(self, value: str, count: int) -> list[str]:
        values = list(self.graph.producer(value, "Concat").input)
        if len(values) != count:
            raise WeightsError(f"the graph is no YOLOX: it joins {len(values)} branches where {count} belong")
        return values

    def _require_same(self, value: str, other: str) -> None:
        if value != other:
            raise WeightsError("the graph is no YOLOX: two branches that belong together start apart")

    def _require_like(self, layer: nn.Conv2d, node: Any) -> None:
        given = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.attribute}
        pads = [*layer.padding, *layer.padding]
        faults = [
            self.graph.shape(node.input[1]) != tuple(layer.weight.shape),
            given.get("strides", [1, 1]) != list(layer.stride),
            given.get("pads", [0, 0, 0, 0]) != pads,
            given.get("dilations", [1, 1]) != list(layer.dilation),
            given.get("group", 1) != layer.groups,
        ]
        if any(faults):
            raise WeightsError(f"the graph is no YOLOX: {self._names[layer]} has another shape")
