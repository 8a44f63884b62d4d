"""Read YOLOX's weights out of an ONNX graph by its structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod
from typing import ClassVar

from torch import nn

from detection.layers.conv import DepthwiseConvBnAct
from detection.layers.csp import Bottleneck, CspLayer, Focus, SpatialPyramidPooling
from detection.models.detector import Detector
from detection.models.onnx_walk import BackwardWalk
from detection.models.yolox import YoloX

NUM_LEVELS = 3
PREDICTIONS_PER_LEVEL = 3
"""Box, objectness and class, in this order."""
FOCUS_PARITIES = [(0, 0), (1, 0), (0, 1), (1, 1)]
"""First row and first column of each sub-picture that the stem stacks."""
MAX_SLICES = 8
"""More than any exporter writes one after the other."""
WINDOWS = (5, 9, 13)
"""Cells across of the maxima in the spatial pyramid."""


class YoloxWalk(BackwardWalk[YoloX]):
    """The output may be raw, activated or decoded, in one tensor or several."""

    family: ClassVar[str] = "YOLOX"
    network: ClassVar[type[Detector]] = YoloX
    num_predictions: ClassVar[int] = NUM_LEVELS * PREDICTIONS_PER_LEVEL

    @classmethod
    def num_classes(cls, rows: Sequence[int]) -> int:
        return rows[PREDICTIONS_PER_LEVEL - 1]

    def walk(self, predictions: Sequence[str]) -> None:
        pyramid = [self._head_level(level, predictions) for level in range(NUM_LEVELS)]
        self._backbone(*self._neck(*pyramid))

    def _head_level(self, level: int, predictions: Sequence[str]) -> str:
        head, first = self.model.head, level * PREDICTIONS_PER_LEVEL
        box, objectness, classes = predictions[first : first + PREDICTIONS_PER_LEVEL]
        box_tower = self.before(head.reg_preds[level], box)
        self.require_same(box_tower, self.before(head.obj_preds[level], objectness))
        class_tower = self.before(head.cls_preds[level], classes)
        stem = self.before(head.reg_convs[level], box_tower)
        self.require_same(stem, self.before(head.cls_convs[level], class_tower))
        return self.before(head.stems[level], stem)

    def _neck(self, out_fine: str, out_middle: str, out_coarse: str) -> tuple[str, str, str]:
        neck = self.model.backbone
        down, lateral_coarse = self.joined(self.before(neck["C3_n4"], out_coarse), 2)
        self.require_same(out_middle, self.before(neck["bu_conv1"], down))
        down, lateral_middle = self.joined(self.before(neck["C3_n3"], out_middle), 2)
        self.require_same(out_fine, self.before(neck["bu_conv2"], down))
        up, fine = self.joined(self.before(neck["C3_p3"], out_fine), 2)
        self.require_same(lateral_middle, self.before_doubling(up, mode=b"nearest"))
        merged = self.before(neck["C3_p4"], self.before(neck["reduce_conv1"], lateral_middle))
        up, middle = self.joined(merged, 2)
        self.require_same(lateral_coarse, self.before_doubling(up, mode=b"nearest"))
        return fine, middle, self.before(neck["lateral_conv0"], lateral_coarse)

    def _backbone(self, fine: str, middle: str, coarse: str) -> None:
        backbone = self.model.backbone["backbone"]
        self.require_same(middle, self.before(backbone.dark5, coarse))
        self.require_same(fine, self.before(backbone.dark4, middle))
        self.before(backbone.stem, self.before(backbone.dark2, self.before(backbone.dark3, fine)))

    @singledispatchmethod
    def before(self, layer: nn.Module, value: str) -> str:
        return super().before(layer, value)

    @before.register
    def _(self, layer: DepthwiseConvBnAct, value: str) -> str:
        return self.before(layer.dconv, self.before(layer.pconv, value))

    @before.register
    def _(self, layer: Bottleneck, value: str) -> str:
        if not layer.shortcut:
            return self.before(layer.conv1, self.before(layer.conv2, value))
        refined, passed = self.graph.producer(value, "Add").input
        entering = self.before(layer.conv1, self.before(layer.conv2, refined))
        self.require_same(passed, entering)
        return entering

    @before.register
    def _(self, layer: CspLayer, value: str) -> str:
        deep, direct = self.joined(self.before(layer.conv3, value), 2)
        entering = self.before(layer.conv1, self.before(layer.m, deep))
        self.require_same(entering, self.before(layer.conv2, direct))
        return entering

    @before.register
    def _(self, layer: SpatialPyramidPooling, value: str) -> str:
        plain, *pooled = self.joined(self.before(layer.conv2, value), 4)
        for window, each in zip(WINDOWS, pooled, strict=True):
            self.require_same(plain, self._before_window(each, window, plain))
        return self.before(layer.conv1, plain)

    @before.register
    def _(self, layer: Focus, value: str) -> str:
        corners = self.joined(self.before(layer.conv, value), len(FOCUS_PARITIES))
        if [self._parity(each) for each in corners] != FOCUS_PARITIES:
            raise self.unlike("its stem stacks the sub-pictures in another order")
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
        raise self.unlike("its stem slices the input too often")

    def _before_window(self, value: str, window: int, plain: str) -> str:
        """Return what a maximum over `window` cells is of; it may be written as two or three over fewer."""
        reach = 1
        for _ in WINDOWS:
            if value != plain:
                (side, _) = self.graph.options(self.graph.producer(value, "MaxPool"))["kernel_shape"]
                value = self.before_pooling(value, window=side, stride=1)
                reach += side - 1
        self.require(reach == window, f"a maximum is over {reach} cells where {window} belong")
        return value
