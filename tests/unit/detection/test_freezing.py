"""Parts that do not learn for a while."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import nn

from detection.models.detector import Detector
from detection.training.config import FreezeConfig, OptimizerConfig, OptimizerKind
from detection.training.freezing import FreezeParts, freeze
from detection.training.plan import EpochPlan
from detection.training.state import TrainingState
from detection.training.trainer import Callback, StepResult, Trainer
from tests.tiny_training import TinyDetector, tiny_config, tiny_trainer


class Snapshots(Callback):
    """Keeps a copy of the detector after every step."""

    def __init__(self) -> None:
        self.after: dict[int, Detector] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        self.after[0] = copy.deepcopy(trainer.optimisation.detector)

    def on_step_end(self, trainer: Trainer, step: StepResult) -> None:
        self.after[step.step] = copy.deepcopy(trainer.optimisation.detector)


def frozen_trainer(
    freezing: FreezeConfig, *, kind: OptimizerKind = OptimizerKind.SGD
) -> tuple[Trainer, Snapshots]:
    config = tiny_config(freeze=freezing, optimizer=OptimizerConfig(kind=kind))
    detector = TinyDetector()
    freeze(detector, freezing.parts)
    snapshots = Snapshots()
    callbacks = [FreezeParts(freezing.parts, config.optimizer), snapshots]
    return tiny_trainer(
        callbacks, config=config, detector=detector, state=TrainingState(frozen=True)
    ), snapshots


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_a_frozen_part_keeps_weights_and_statistics_while_the_rest_learns() -> None:
    trainer, snapshots = frozen_trainer(FreezeConfig(parts=("backbone",), epochs=1))
    trainer.fit()
    start, frozen, later = (snapshots.after[step] for step in (0, 4, 8))
    assert equal(start.parts()["backbone"], frozen.parts()["backbone"])
    assert not equal(start.parts()["neck"], frozen.parts()["neck"])
    assert not equal(frozen.parts()["backbone"], later.parts()["backbone"])
    assert not trainer.state.frozen


def test_the_average_covers_frozen_parts_too() -> None:
    trainer, _ = frozen_trainer(FreezeConfig(parts=("backbone", "neck"), epochs=1))
    trainer.fit()
    average = trainer.optimisation.average
    assert average is not None
    assert not equal(average.model.parts()["backbone"], TinyDetector().parts()["backbone"])


@pytest.mark.parametrize("kind", list(OptimizerKind))
def test_frozen_parts_enter_the_optimizer_when_they_learn_and_others_keep_their_momentum(
    kind: OptimizerKind,
) -> None:
    trainer, _ = frozen_trainer(FreezeConfig(parts=("backbone",), epochs=1), kind=kind)
    counts: list[int] = []
    carried: list[bool] = []

    class Watch(Callback):
        def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
            optimizer = trainer.optimisation.optimizer
            counts.append(sum(len(group["params"]) for group in optimizer.param_groups))
            head = trainer.optimisation.detector.get_parameter("head.weight")
            carried.append(head in optimizer.state)

    trainer.callbacks = (*trainer.callbacks, Watch())
    trainer.fit()
    everything = len(list(trainer.optimisation.detector.parameters()))
    assert counts == [everything - 3, everything, everything]
    assert carried == [False, True, True]


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("backbone", "neck"), "backbone and neck learn from epoch 3 on"),
        (("neck",), "neck learns from epoch 3 on"),
    ],
)
def test_the_log_says_when_parts_begin_to_learn(
    parts: tuple[Literal["backbone", "neck"], ...], line: str
) -> None:
    lines: list[str] = []
    trainer, _ = frozen_trainer(FreezeConfig(parts=parts, epochs=2))
    trainer.log = lines.append
    trainer.fit()
    assert lines == [line]
