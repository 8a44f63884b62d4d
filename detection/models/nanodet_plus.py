"""The NanoDet-Plus family: light anchor-free detectors, guided in training by an auxiliary branch.

RangiLyu, "NanoDet-Plus", https://github.com/RangiLyu/nanodet; the weights keep the original project's names.

Shape suffixes: B = images, H W = input pixels, P = priors, K = classes + 4 x 8 distribution logits,
C = channels or classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from detection.distances import decode_distances, expected_distances
from detection.families.nanodet_plus import DETACH_EPOCH, NanoDetAssignerConfig, NanoDetLossConfig
from detection.layers.conv import fuse_conv_bn
from detection.layers.separable import SeparableConv
from detection.losses.nanodet import NanoDetLoss
from detection.models.detector import NOTHING, Detector, TrainingMoment, input_size_hw
from detection.models.registry import MODELS, config_of
from detection.models.shuffle_ghost import KERNEL, GhostPan, LeakyRelu, ShuffleNet
from detection.priors import grid_priors
from detection.targets import Targets
from detection.training.config import AssignerConfig, LossConfig

PRIOR_PROBABILITY = 0.01
"""What an untrained network answers for every class, so that background is cheap."""
REG_MAX = 7
"""Distances are expectations over 0..7 cells."""
BOX_LOGITS = 4 * (REG_MAX + 1)
"""One distribution per side."""
LEVELS = 4
BOXES_KEPT = "the head keeps the boxes of its last convolutions; their classes are others, at random"


@dataclass(frozen=True, slots=True)
class NanoDetSize:
    """What tells the members of the family apart."""

    stages: tuple[int, int, int]
    """Channels of the backbone's outputs."""
    width: int
    """Channels of neck and head."""


SIZES = {
    "nanodet-plus-m": NanoDetSize(stages=(116, 232, 464), width=96),
    "nanodet-plus-m-1.5x": NanoDetSize(stages=(176, 352, 704), width=128),
}


class NanoDetHead(nn.Module):
    """Per level a tower of separable convolutions and one 1x1 convolution; nothing is shared by levels."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()

        def tower() -> nn.Sequential:
            return nn.Sequential(
                *(SeparableConv(width, width, KERNEL, activation=LeakyRelu) for _ in range(2))
            )

        self.cls_convs = nn.ModuleList(tower() for _ in range(LEVELS))
        self.gfl_cls = nn.ModuleList(nn.Conv2d(width, num_classes + BOX_LOGITS, 1) for _ in range(LEVELS))
        self.distribution_project = _Projection()
        self.apply(_start_near_zero)
        for conv in self.gfl_cls:
            nn.init.constant_(conv.get_parameter("bias"), _background_bias())

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the raw predictions [B, P, K]."""
        levels = zip(self.cls_convs, self.gfl_cls, features, strict=True)
        maps = [predict(tower(each)).flatten(2) for tower, predict, each in levels]
        return torch.cat(maps, dim=2).transpose(1, 2)


class _Projection(nn.Module):
    """The distances 0..7 that the distribution is an expectation of, as the original stores them."""

    project: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("project", torch.arange(REG_MAX + 1, dtype=torch.float32))


class _ConvGroupNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(32, channels)
        self.act = LeakyRelu()

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.act(self.gn(self.conv(features_BCHW)))


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return features_BCHW * self.scale


class AuxiliaryHead(nn.Module):
    """A heavy head, shared by the levels, that exists in training only: it guides the assignment."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_convs = nn.Sequential(*(_ConvGroupNorm(channels) for _ in range(4)))
        self.reg_convs = nn.Sequential(*(_ConvGroupNorm(channels) for _ in range(4)))
        self.gfl_cls = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(channels, BOX_LOGITS, 3, padding=1)
        self.scales = nn.ModuleList(_Scale() for _ in range(LEVELS))
        self.apply(_start_near_zero)
        nn.init.constant_(self.gfl_cls.get_parameter("bias"), _background_bias())
        nn.init.zeros_(self.gfl_reg.get_parameter("bias"))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the raw predictions [B, P, K]."""
        maps = [
            self._level(scale, each).flatten(2) for scale, each in zip(self.scales, features, strict=True)
        ]
        return torch.cat(maps, dim=2).transpose(1, 2)

    def _level(self, scale: nn.Module, features_BCHW: Tensor) -> Tensor:
        """Return the predictions of a level; those of the boxes in float32 even under autocast."""
        logits_BCHW = self.gfl_cls(self.cls_convs(features_BCHW))
        refined_BCHW = self.reg_convs(features_BCHW)
        with torch.autocast(features_BCHW.device.type, enabled=False):
            bins_BRHW = scale(self.gfl_reg(refined_BCHW.to(self.gfl_reg.weight.dtype)))
        return torch.cat((logits_BCHW.to(bins_BRHW.dtype), bins_BRHW), dim=1)


def _start_near_zero(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, std=0.01)


def _background_bias() -> float:
    """Lin et al., "Focal Loss for Dense Object Detection", section 3.3, https://arxiv.org/abs/1708.02002"""
    return -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)


class NanoDetPlus(Detector):
    """A NanoDet-Plus of any size. Inputs [B, 3, H, W] are as the input convention prepares them.

    In training an auxiliary branch, a second neck and a heavy head, assigns priors for both heads. From
    `detach_epoch` on it no longer teaches backbone and neck; from `self_assign_epoch` on it does not run.

    `loss_statistics` holds, after each loss, "assigned": foreground priors per ground-truth box of the
    batch, and while the auxiliary branch runs "aux_teaches": 1 before `detach_epoch`, 0 from it on. Both are
    scalars that stay on the device until somebody reads them.
    """

    strides: ClassVar[tuple[int, ...]] = (8, 16, 32, 64)
    fixed_outputs: ClassVar[tuple[str, ...]] = ("backbone", "neck")

    aux_fpn: GhostPan | None
    aux_head: AuxiliaryHead | None

    def __init__(
        self,
        size: NanoDetSize,
        *,
        num_classes: int,
        assigner: NanoDetAssignerConfig,
        loss: NanoDetLossConfig,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = ShuffleNet(size.stages)
        self.fpn = GhostPan(size.stages, size.width)
        self.head = NanoDetHead(size.width, num_classes)
        self.aux_fpn = deepcopy(self.fpn)
        self.aux_head = AuxiliaryHead(2 * size.width, num_classes)
        self.criterion = NanoDetLoss(assigner, loss, num_classes=num_classes)
        self.detach_epoch = DETACH_EPOCH if loss.detach_epoch is None else loss.detach_epoch
        self.self_assign_epoch = (
            math.inf if assigner.self_assign_epoch is None else assigner.self_assign_epoch
        )
        self.loss_statistics: dict[str, Tensor] = {}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.head(self.fpn(self.backbone(images_BCHW)))

    def training_outputs(self, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
        """Return the raw predictions [B, P, K] of the main head, and of the auxiliary head if it guides."""
        features = self.backbone(images_BCHW)
        levels = self.fpn(features)
        raw_BPK = self.head(levels)
        if self.aux_fpn is None or self.aux_head is None or moment.epoch >= self.self_assign_epoch:
            return (raw_BPK,)
        if moment.epoch >= self.detach_epoch:
            features, levels = _detached(features), _detached(levels)
        pairs = zip(levels, self.aux_fpn(features), strict=True)
        return raw_BPK, self.aux_head([torch.cat(pair, dim=1) for pair in pairs])

    def loss_of_outputs(
        self,
        outputs: tuple[Tensor, ...],
        targets: Targets,
        moment: TrainingMoment,
        *,
        size_hw: tuple[int, int],
    ) -> dict[str, Tensor]:
        priors = grid_priors(size_hw, self.strides, device=outputs[0].device)
        terms, self.loss_statistics = self.criterion(outputs, priors, targets)
        if len(outputs) > 1:
            teaches = float(moment.epoch < self.detach_epoch)
            self.loss_statistics["aux_teaches"] = torch.full((), teaches, device=outputs[0].device)
        return terms

    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores as the interface says; no box reaches beyond the input."""
        height, width = input_size_hw(images_BCHW)
        logits_BPC, bins_BPR = self(images_BCHW).float().split((self.num_classes, BOX_LOGITS), dim=2)
        priors = grid_priors((height, width), self.strides, device=images_BCHW.device)
        distances_BP4 = expected_distances(bins_BPR.unflatten(2, (4, REG_MAX + 1)))
        corners_BP22 = decode_distances(distances_BP4, priors).unflatten(2, (2, 2))
        x_BP2, y_BP2 = corners_BP22[..., 0].clamp(0, width), corners_BP22[..., 1].clamp(0, height)
        return torch.stack((x_BP2, y_BP2), dim=3).flatten(2), logits_BPC.sigmoid()

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.backbone, "neck": self.fpn, "head": self.head}

    def fuse(self) -> None:
        self.drop_training_parts()
        fuse_conv_bn(self)

    def drop_training_parts(self) -> None:
        self.aux_fpn = self.aux_head = None

    def follow_widths(self) -> None:
        if self.aux_fpn is not None:
            self.aux_fpn = deepcopy(self.fpn)

    def begin_from(
        self, missing: Collection[str], mismatched: Mapping[str, Tensor] = NOTHING
    ) -> Mapping[str, tuple[str, ...]]:
        """Let the auxiliary neck begin as a copy of the neck, as it does in a new network.

        One convolution predicts classes and boxes. Where only its classes are others, its boxes are kept.
        """
        done = {}
        boxes = tuple(name for name, given in mismatched.items() if self._kept_boxes(name, given))
        if boxes:
            done[BOXES_KEPT] = boxes
        neck, head = (_with_prefix(self, prefix, missing) for prefix in ("aux_fpn.", "aux_head."))
        if neck and self.aux_fpn is not None:
            self.aux_fpn.load_state_dict(self.fpn.state_dict())
            done["the auxiliary neck starts as a copy of the neck"] = neck
        if head:
            done["the auxiliary head starts at random"] = head
        return done

    def _kept_boxes(self, name: str, given: Tensor) -> bool:
        """Take over the rows of the boxes, if it is a last convolution that they are in."""
        own = self.state_dict()[name]
        if not name.startswith("head.gfl_cls.") or given.shape[1:] != own.shape[1:]:
            return False
        own[-BOX_LOGITS:].copy_(given[-BOX_LOGITS:])
        return True


def _with_prefix(model: nn.Module, prefix: str, missing: Collection[str]) -> tuple[str, ...]:
    """Return the model's names that start so, if all of them are missing."""
    names = tuple(name for name in model.state_dict() if name.startswith(prefix))
    return names if set(names) <= set(missing) else ()


def _detached(features: Sequence[Tensor]) -> list[Tensor]:
    return [each.detach() for each in features]


def build_nanodet_plus(
    size: NanoDetSize, *, num_classes: int, assigner: AssignerConfig | None, loss: LossConfig | None
) -> NanoDetPlus:
    """Return a member of the family; None is the default configuration."""
    return NanoDetPlus(
        size,
        num_classes=num_classes,
        assigner=config_of(NanoDetAssignerConfig, assigner),
        loss=config_of(NanoDetLossConfig, loss),
    )


for _name, _size in SIZES.items():
    MODELS.add(_name, partial(build_nanodet_plus, _size))
