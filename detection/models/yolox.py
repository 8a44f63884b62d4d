"""The YOLOX family: anchor-free detectors with a decoupled head, under the original project's weight names.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", https://arxiv.org/abs/2107.08430

Shape suffixes: B = images, H W = input pixels, P = priors, K = 4 box offsets + 1 objectness + classes,
C = channels or classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from detection.boxes import cxcywh_to_xyxy
from detection.families.yolox import YoloxAssignerConfig, YoloxLossConfig
from detection.layers.conv import ConvBnAct, ConvUnit, DepthwiseConvBnAct, fuse_conv_bn
from detection.layers.csp import CspLayer, Focus, SpatialPyramidPooling
from detection.losses.yolox import YoloxLoss
from detection.models.detector import Detector, TrainingMoment, input_size_hw
from detection.models.layer_constants import initialise_layers
from detection.models.registry import MODELS, config_of
from detection.priors import decode_offsets, grid_priors
from detection.targets import Targets
from detection.training.config import AssignerConfig, LossConfig

PRIOR_PROBABILITY = 0.01
"""What an untrained network answers for objectness and for every class, so that background is cheap."""

Pyramid = tuple[Tensor, Tensor, Tensor]
"""Feature maps of strides 8, 16 and 32."""


@dataclass(frozen=True, slots=True)
class YoloxSize:
    """What tells the members of the family apart."""

    depth: float
    width: float
    depthwise: bool = False

    def channels(self, base: int) -> int:
        return int(base * self.width)

    def blocks(self, base: int) -> int:
        return round(base * self.depth)

    @property
    def unit(self) -> ConvUnit:
        """The unit for all 3x3 convolutions but the stem's."""
        return DepthwiseConvBnAct if self.depthwise else ConvBnAct


SIZES = {
    "yolox-nano": YoloxSize(0.33, 0.25, depthwise=True),
    "yolox-tiny": YoloxSize(0.33, 0.375),
    "yolox-s": YoloxSize(0.33, 0.50),
    "yolox-m": YoloxSize(0.67, 0.75),
    "yolox-l": YoloxSize(1.00, 1.00),
    "yolox-x": YoloxSize(1.33, 1.25),
}


class CspDarknet(nn.Module):
    """The backbone: a stem and four stages, each of half the resolution of the one before."""

    def __init__(self, size: YoloxSize) -> None:
        super().__init__()
        base, depth, unit = size.channels(64), max(size.blocks(3), 1), size.unit
        layer = partial(CspLayer, unit=unit)
        self.stem = Focus(3, base)
        self.dark2 = nn.Sequential(
            unit(base, 2 * base, 3, stride=2), layer(2 * base, 2 * base, depth, shortcut=True)
        )
        self.dark3 = nn.Sequential(
            unit(2 * base, 4 * base, 3, stride=2), layer(4 * base, 4 * base, 3 * depth, shortcut=True)
        )
        self.dark4 = nn.Sequential(
            unit(4 * base, 8 * base, 3, stride=2), layer(8 * base, 8 * base, 3 * depth, shortcut=True)
        )
        self.dark5 = nn.Sequential(
            unit(8 * base, 16 * base, 3, stride=2),
            SpatialPyramidPooling(16 * base),
            layer(16 * base, 16 * base, depth, shortcut=False),
        )

    def forward(self, images_BCHW: Tensor) -> Pyramid:
        fine = self.dark3(self.dark2(self.stem(images_BCHW)))
        middle = self.dark4(fine)
        return fine, middle, self.dark5(middle)


def neck_layers(size: YoloxSize) -> dict[str, nn.Module]:
    """Return the layers of a `PathAggregation` by name."""
    fine, middle, coarse = (size.channels(base) for base in (256, 512, 1024))
    layer = partial(CspLayer, depth=size.blocks(3), shortcut=False, unit=size.unit)
    return {
        "lateral_conv0": ConvBnAct(coarse, middle, 1),
        "C3_p4": layer(2 * middle, middle),
        "reduce_conv1": ConvBnAct(middle, fine, 1),
        "C3_p3": layer(2 * fine, fine),
        "bu_conv2": size.unit(fine, fine, 3, stride=2),
        "C3_n3": layer(2 * fine, middle),
        "bu_conv1": size.unit(middle, middle, 3, stride=2),
        "C3_n4": layer(2 * middle, coarse),
    }


class PathAggregation(nn.ModuleDict):
    """The neck: context flows from coarse to fine levels, then detail from fine to coarse.

    Liu et al., "Path Aggregation Network for Instance Segmentation", https://arxiv.org/abs/1803.01534
    """

    def forward(self, features: Pyramid) -> Pyramid:
        fine, middle, coarse = features
        lateral_coarse = self["lateral_conv0"](coarse)
        lateral_middle = self["reduce_conv1"](self["C3_p4"](_beside_upsampled(lateral_coarse, middle)))
        out_fine = self["C3_p3"](_beside_upsampled(lateral_middle, fine))
        out_middle = self["C3_n3"](torch.cat((self["bu_conv2"](out_fine), lateral_middle), dim=1))
        out_coarse = self["C3_n4"](torch.cat((self["bu_conv1"](out_middle), lateral_coarse), dim=1))
        return out_fine, out_middle, out_coarse


def _beside_upsampled(coarse_BCHW: Tensor, fine_BCHW: Tensor) -> Tensor:
    return torch.cat(
        (functional.interpolate(coarse_BCHW, scale_factor=2.0, mode="nearest"), fine_BCHW), dim=1
    )


class DecoupledHead(nn.Module):
    """Per level two towers, one for classes and one for box and objectness; nothing is shared by levels."""

    def __init__(self, size: YoloxSize, num_classes: int) -> None:
        super().__init__()
        hidden, unit = size.channels(256), size.unit
        levels = [size.channels(base) for base in (256, 512, 1024)]

        def tower() -> nn.Sequential:
            return nn.Sequential(unit(hidden, hidden, 3), unit(hidden, hidden, 3))

        def predictions(channels: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(hidden, channels, 1) for _ in levels)

        self.cls_convs = nn.ModuleList(tower() for _ in levels)
        self.reg_convs = nn.ModuleList(tower() for _ in levels)
        self.cls_preds = predictions(num_classes)
        self.reg_preds = predictions(4)
        self.obj_preds = predictions(1)
        self.stems = nn.ModuleList(ConvBnAct(channels, hidden, 1) for channels in levels)
        self._assume_background()

    def _assume_background(self) -> None:
        """Lin et al., "Focal Loss for Dense Object Detection", section 3.3, https://arxiv.org/abs/1708.02002"""
        bias = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        for conv in (*self.cls_preds, *self.obj_preds):
            nn.init.constant_(conv.get_parameter("bias"), bias)

    def forward(self, features: Pyramid) -> Tensor:
        """Return the raw predictions [B, P, K]."""
        levels = [self._level(index, each).flatten(2) for index, each in enumerate(features)]
        return torch.cat(levels, dim=2).transpose(1, 2)

    def _level(self, index: int, features_BCHW: Tensor) -> Tensor:
        stem = self.stems[index](features_BCHW)
        class_logits = self.cls_preds[index](self.cls_convs[index](stem))
        box_features = self.reg_convs[index](stem)
        return torch.cat(
            (self.reg_preds[index](box_features), self.obj_preds[index](box_features), class_logits), dim=1
        )


class YoloX(Detector):
    """A YOLOX detector of any size. Inputs [B, 3, H, W] are as the input convention prepares them.

    `loss_statistics` holds, after each loss, "assigned": foreground priors per ground-truth box of the
    batch, a scalar that stays on the device until somebody reads it.
    """

    strides: ClassVar[tuple[int, ...]] = (8, 16, 32)

    def __init__(
        self, size: YoloxSize, *, num_classes: int, assigner: YoloxAssignerConfig, loss: YoloxLossConfig
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        # The original keeps the backbone inside the neck, and the names of its weights say so.
        self.backbone = PathAggregation({"backbone": CspDarknet(size), **neck_layers(size)})
        self.head = DecoupledHead(size, num_classes)
        self.criterion = YoloxLoss(assigner, loss)
        self.loss_statistics: dict[str, Tensor] = {}
        initialise_layers(self)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = self.backbone["backbone"](images_BCHW)
        return self.head(self.backbone(features))

    def loss_of_outputs(
        self,
        outputs: tuple[Tensor, ...],
        targets: Targets,
        moment: TrainingMoment,
        *,
        size_hw: tuple[int, int],
    ) -> dict[str, Tensor]:
        (raw_BPK,) = outputs
        priors = grid_priors(size_hw, self.strides, device=raw_BPK.device)
        terms, self.loss_statistics = self.criterion(raw_BPK, priors, targets, tail=moment.tail)
        return terms

    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        raw_BPK = self(images_BCHW).float()
        priors = grid_priors(input_size_hw(images_BCHW), self.strides, device=images_BCHW.device)
        boxes_BP4 = cxcywh_to_xyxy(decode_offsets(raw_BPK[..., :4], priors))
        return boxes_BP4, raw_BPK[..., 4:5].sigmoid() * raw_BPK[..., 5:].sigmoid()

    def parts(self) -> Mapping[str, nn.Module]:
        neck = PathAggregation({name: part for name, part in self.backbone.items() if name != "backbone"})
        return {"backbone": self.backbone["backbone"], "neck": neck, "head": self.head}

    def fuse(self) -> None:
        fuse_conv_bn(self)


def build_yolox(
    size: YoloxSize, *, num_classes: int, assigner: AssignerConfig | None, loss: LossConfig | None
) -> YoloX:
    """Return a member of the family; None is the default configuration."""
    return YoloX(
        size,
        num_classes=num_classes,
        assigner=config_of(YoloxAssignerConfig, assigner),
        loss=config_of(YoloxLossConfig, loss),
    )


for _name, _size in SIZES.items():
    MODELS.add(_name, partial(build_yolox, _size))
