"""A detector of a few hundred weights and batches out of thin air, for tests of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from detection.families.yolox import YoloxConfig
from detection.layers.conv import ConvBnAct, fuse_conv_bn
from detection.models.detector import Detector, TrainingMoment
from detection.targets import Targets
from detection.training.config import ScheduleConfig
from detection.training.distributed import Ranks
from detection.training.ema import ModelEma
from detection.training.optimisation import Optimisation
from detection.training.optimizers import build_optimizer
from detection.training.plan import EpochPlan, TrainingPlan
from detection.training.recipes import resolve
from detection.training.replicas import Replicas
from detection.training.schedules import build_schedule
from detection.training.state import TrainingState
from detection.training.trainer import Callback, Trainer

SIDE = 32


class TinyDetector(Detector):
    """One prior per 8 x 8 pixels, whose box is the cell and whose classes are learnt by squared error."""

    strides: ClassVar[tuple[int, ...]] = (8,)

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = ConvBnAct(3, 4, 3, stride=4)
        self.top = ConvBnAct(4, 4, 3, stride=2)
        self.head = nn.Conv2d(4, num_classes, 1)
        self.moments: list[TrainingMoment] = []
        self.batch_sizes: list[int] = []
        self.loss_statistics: dict[str, Tensor] = {}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.head(self.top(self.body(images_BCHW))).flatten(2).transpose(1, 2)

    def training_outputs(self, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
        self.batch_sizes.append(len(images_BCHW))
        return super().training_outputs(images_BCHW, moment)

    def loss_of_outputs(
        self,
        outputs: tuple[Tensor, ...],
        targets: Targets,
        moment: TrainingMoment,
        *,
        size_hw: tuple[int, int],
    ) -> dict[str, Tensor]:
        self.moments.append(moment)
        scores_BPC = outputs[0].float().sigmoid()
        wanted_BC = torch.zeros(len(scores_BPC), self.num_classes)
        wanted_BC.scatter_(1, targets.labels_BG, targets.valid_BG.float())
        error = (scores_BPC.mean(dim=1) - wanted_BC).square().mean()
        self.loss_statistics = {"boxes": targets.valid_BG.sum()}
        return {"error": error, "size": 0.01 * scores_BPC.square().mean()}

    def predict(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        scores_BPC = self(images_BCHW).sigmoid()
        columns = images_BCHW.shape[3] // 8
        cells = torch.arange(scores_BPC.shape[1])
        corners = torch.stack((cells % columns, cells // columns), dim=1) * 8.0
        boxes = torch.cat((corners, corners + 8), dim=1)
        return boxes.expand(images_BCHW.shape[0], -1, -1), scores_BPC

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.body, "neck": self.top, "head": self.head}

    def fuse(self) -> None:
        fuse_conv_bn(self)


class DrawnBatches:
    """A batch source whose batches depend on the step only; pictures of class 1 are brighter."""

    def __init__(self, change: Callable[[int, Tensor], Tensor] = lambda step, images: images) -> None:
        """`change` may spoil the images of a step, counted from 0 over all epochs."""
        self._change = change
        self.given: list[int] = []

    def batches(self, plan: EpochPlan, *, start_step: int) -> Iterator[tuple[Tensor, Targets]]:
        for step in range(plan.first_step + start_step, plan.first_step + plan.steps):
            self.given.append(step)
            generator = torch.Generator().manual_seed(step)
            labels = torch.randint(0, 2, (plan.batch_size, 1), generator=generator)
            noise = torch.rand(plan.batch_size, 3, SIDE, SIDE, generator=generator)
            images = noise + labels[:, :, None, None]
            boxes = torch.tensor([4.0, 4.0, 20.0, 20.0]).expand(plan.batch_size, 1, 4)
            yield (
                self._change(step, images),
                Targets(boxes, labels, torch.ones_like(labels, dtype=torch.bool)),
            )


def tiny_config(**changes: object) -> YoloxConfig:
    """Return a resolved configuration of 3 epochs of 4 steps with 4 pictures each."""
    config = YoloxConfig(epochs=3, batch_size=4, device="cpu", schedule=ScheduleConfig(no_aug_epochs=1))
    return resolve(replace(config, **changes), num_images=16)  # type: ignore[arg-type]


def tiny_trainer(
    callbacks: Sequence[Callback] = (),
    *,
    config: YoloxConfig | None = None,
    source: DrawnBatches | None = None,
    state: TrainingState | None = None,
    detector: Detector | None = None,
    log: Callable[[str], None] = lambda line: None,
    ranks: Ranks | None = None,
) -> Trainer:
    """Return a trainer of a `TinyDetector`, wired like a real one."""
    config = config or tiny_config()
    plan = TrainingPlan(config, num_images=16)
    torch.manual_seed(0)
    detector = detector or TinyDetector()
    assert config.optimizer.lr is not None
    optimisation = Optimisation(
        detector=detector,
        replicas=Replicas(detector, ranks or Ranks(device=torch.device("cpu"))),
        average=ModelEma(detector, decay=0.9, ramp_updates=5) if config.ema.enabled else None,
        optimizer=build_optimizer(detector, config.optimizer),
        schedule=build_schedule(
            config.schedule,
            peak_lr=config.optimizer.lr,
            epochs=config.epochs,
            steps_per_epoch=plan.steps_per_epoch,
        ),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=torch.device("cpu"),
        clip_norm=config.optimizer.clip_norm,
    )
    return Trainer(optimisation, plan, source or DrawnBatches(), state or TrainingState(), callbacks, log=log)


def weights(trainer: Trainer) -> list[Tensor]:
    """Return copies of everything that a checkpoint must bring back: weights, average, momentum."""
    optimisation = trainer.optimisation
    average = [] if optimisation.average is None else [*optimisation.average.model.state_dict().values()]
    momentum = [
        value
        for state in optimisation.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    return [
        each.detach().clone() for each in (*optimisation.detector.state_dict().values(), *average, *momentum)
    ]


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Return whether two lists of tensors are equal to the bit."""
    return len(first) == len(second) and all(map(torch.equal, first, second))
