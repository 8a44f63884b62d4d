"""Read NanoDet-Plus's weights out of an ONNX graph by its structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod
from typing import ClassVar

import torch
from torch import nn

from detection.layers.ghost import GhostBottleneck, GhostModule
from detection.layers.separable import SeparableConv
from detection.layers.shuffle import ShuffleUnit
from detection.models.detector import Detector
from detection.models.nanodet_plus import BOX_LOGITS, LEVELS, REG_MAX, NanoDetPlus
from detection.models.onnx_walk import BackwardWalk
from detection.models.shuffle_ghost import GhostBlock

SHUFFLED = [0, 2, 1, 3, 4]
"""Images, then channels and groups in turn, then rows and columns."""
MOST_ARITHMETIC = 4
"""Operations one after the other from the number of channels to its half; exporters need three."""


class NanoDetWalk(BackwardWalk[NanoDetPlus]):
    """The output may be raw, activated or decoded."""

    family: ClassVar[str] = "NanoDet-Plus"
    network: ClassVar[type[Detector]] = NanoDetPlus
    num_predictions: ClassVar[int] = LEVELS

    @classmethod
    def num_classes(cls, rows: Sequence[int]) -> int:
        return rows[0] - BOX_LOGITS

    def walk(self, predictions: Sequence[str]) -> None:
        head = self.model.head
        levels = [
            self.before(tower, self.before(predict, value))
            for tower, predict, value in zip(head.cls_convs, head.gfl_cls, predictions, strict=True)
        ]
        reduced = self._neck(*levels)
        pairs = zip(self.model.fpn.reduce_layers, reduced, strict=True)
        self._backbone(*(self.before(reduce, value) for reduce, value in pairs))
        # A constant that no graph stores under a name.
        self.state["head.distribution_project.project"] = torch.arange(REG_MAX + 1, dtype=torch.float32)

    def _neck(self, fine: str, middle: str, coarse: str, extra: str) -> list[str]:
        """Return what the reducing layers made, fine to coarse."""
        neck = self.model.fpn
        from_reduced, from_coarse = self.graph.producer(extra, "Add").input
        reduced_coarse = self.before(neck.extra_lvl_in_conv[0], from_reduced)
        self.require_same(coarse, self.before(neck.extra_lvl_out_conv[0], from_coarse))
        fused_coarse = self._bottom_up(1, coarse, middle)
        self.require_same(reduced_coarse, fused_coarse)
        fused_middle = self._bottom_up(0, middle, fine)
        reduced_fine = self._top_down(1, fine, fused_middle)
        reduced_middle = self._top_down(0, fused_middle, fused_coarse)
        return [reduced_fine, reduced_middle, reduced_coarse]

    def _bottom_up(self, index: int, value: str, finer: str) -> str:
        neck = self.model.fpn
        halved, coarser = self.joined(self.before(neck.bottom_up_blocks[index], value), 2)
        self.require_same(finer, self.before(neck.downsamples[index], halved))
        return coarser

    def _top_down(self, index: int, value: str, coarser: str) -> str:
        doubled, finer = self.joined(self.before(self.model.fpn.top_down_blocks[index], value), 2)
        self.require_same(coarser, self.before_doubling(doubled, mode=b"linear"))
        return finer

    def _backbone(self, fine: str, middle: str, coarse: str) -> None:
        backbone = self.model.backbone
        self.require_same(middle, self.before(backbone.stage4, coarse))
        self.require_same(fine, self.before(backbone.stage3, middle))
        pooled = self.before_pooling(self.before(backbone.stage2, fine), window=3, stride=2)
        picture = self.before(backbone.conv1, pooled)
        self.require(picture in self.graph.inputs, "something is done to the picture before the first layer")

    @singledispatchmethod
    def before(self, layer: nn.Module, value: str) -> str:
        return super().before(layer, value)

    @before.register
    def _(self, layer: SeparableConv, value: str) -> str:
        between = self.before(layer.pointwise, self.before(layer.act, value))
        return self.before(layer.depthwise, self.before(layer.act, between))

    @before.register
    def _(self, layer: GhostBlock, value: str) -> str:
        return self.before(layer.blocks, value)

    @before.register
    def _(self, layer: GhostBottleneck, value: str) -> str:
        refined, passed = self.graph.producer(value, "Add").input
        entering = self.before(layer.ghost1, self.before(layer.ghost2, refined))
        self.require_same(entering, self.before(layer.shortcut, passed))
        return entering

    @before.register
    def _(self, layer: GhostModule, value: str) -> str:
        primary, cheap = self.joined(value, 2)
        self.require_same(primary, self.before(layer.cheap_operation, cheap))
        return self.before(layer.primary_conv, primary)

    @before.register
    def _(self, layer: ShuffleUnit, value: str) -> str:
        first, second = self.joined(self._before_shuffle(value), 2)
        worked_on = self.before(layer.branch2, second)
        if not layer.splits:
            self.require_same(worked_on, self.before(layer.branch1, first))
            return worked_on
        channels = 2 * self._first_conv(layer).in_channels
        entering = self._before_split(first, channels, half=0)
        self.require_same(entering, self._before_split(worked_on, channels, half=1))
        return entering

    @staticmethod
    def _first_conv(layer: ShuffleUnit) -> nn.Conv2d:
        conv = layer.branch2[0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    def _before_shuffle(self, value: str) -> str:
        node = self.graph.producer(self.graph.producer(value, "Reshape").input[0], "Transpose")
        order = self.graph.options(node).get("perm")
        grouped = self.graph.producer(node.input[0], "Reshape")
        self.require(
            order == SHUFFLED and self._groups(grouped.input[1]) == 2,
            "it interleaves channels in another way",
        )
        return str(grouped.input[0])

    def _groups(self, shape: str) -> int:
        """Return the second number of a shape whose others may depend on the picture."""
        node = self.graph.find_producer(shape)
        parts = [shape] if node is None or node.op_type == "Constant" else list(node.input)
        if len(parts) == 1:
            return self.graph.integers(parts[0])[1]
        (groups,) = self.graph.integers(self.graph.producer(shape, "Concat").input[1])
        return groups

    def _before_split(self, value: str, channels: int, *, half: int) -> str:
        """Return what `value` is the first or second half of the channels of."""
        node = self.graph.producer(value, "Split", "Slice")
        if node.op_type == "Split":
            axes = [self.graph.options(node).get("axis", 0)]
            found = list(node.output).index(value) * channels // len(node.output)
        else:
            axes = self.graph.integers(node.input[3])
            found = self._whole_number(node.input[1], channels)
        self.require(axes == [1] and found == half * channels // 2, "it splits channels in another way")
        return str(node.input[0])

    def _whole_number(self, value: str, channels: int, depth: int = 0) -> int:
        """Return a constant, or what is computed from the number of channels, as older exporters write it."""
        self.require(depth <= MOST_ARITHMETIC, "it splits channels by way of too much arithmetic")
        node = self.graph.find_producer(value)
        if node is None or node.op_type == "Constant":
            (number,) = self.graph.integers(value)
            return number
        if node.op_type == "Gather":
            self.graph.producer(node.input[0], "Shape")
            self.require(self.graph.integers(node.input[1]) == [1], "it splits something else than channels")
            return channels
        first, second = (self._whole_number(each, channels, depth + 1) for each in node.input)
        match node.op_type:
            case "Add":
                return first + second
            case "Mul":
                return first * second
            case "Div":
                return first // second
        raise self.unlike(f"it splits channels by way of {node.op_type}")
