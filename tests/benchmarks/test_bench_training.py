"""How fast a training computes: the assignment alone, against its oracle, and whole steps."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from detection.assigners.simota import Predictions, SimOta
from detection.boxes import cxcywh_to_xyxy
from detection.families.yolox import YoloxAssignerConfig
from detection.models import create_model
from detection.models.detector import Detector, TrainingMoment
from detection.priors import Priors, decode_offsets, grid_priors
from detection.targets import Targets
from tests.benchmarks.conftest import DEVICES, Bench
from tests.simota_oracle import SlowSimOta

pytestmark = pytest.mark.benchmark

BATCH = 8
BOXES = 20
CLASSES = 80
SIDES = {"yolox-nano": 416, "yolox-s": 640}
Case = tuple[Predictions, Priors, Targets]


def random_targets(side: int, batch: int, random: torch.Generator) -> Targets:
    centre = torch.rand(batch, BOXES, 2, generator=random) * side
    extent = torch.rand(batch, BOXES, 2, generator=random) * side / 4 + 8
    labels = torch.randint(CLASSES, (batch, BOXES), generator=random)
    return Targets.from_lists(list(cxcywh_to_xyxy(torch.cat((centre, extent), dim=2))), list(labels))


def random_case(side: int, batch: int, device: str = "cpu") -> Case:
    """Return what an untrained network predicts, and boxes of all sizes."""
    random = torch.Generator().manual_seed(0)
    priors = grid_priors((side, side), (8, 16, 32))
    count = len(priors.corners_P2)
    boxes = cxcywh_to_xyxy(decode_offsets(torch.randn(batch, count, 4, generator=random), priors))
    logits = torch.randn(batch, count, 1 + CLASSES, generator=random).to(device)
    return (
        Predictions(boxes.to(device), logits[..., 0], logits[..., 1:]),
        Priors(priors.corners_P2.to(device), priors.strides_P1.to(device)),
        random_targets(side, batch, random).to(device),
    )


def test_simota(bench: Bench) -> None:
    """Milliseconds per picture with 20 boxes and 80 classes; the oracle does one pair at a time."""
    config = YoloxAssignerConfig()
    for device in DEVICES:
        for side in SIDES.values():
            run = partial(SimOta(config).assign, *random_case(side, BATCH, device))
            bench.measure(f"batch of {BATCH} at {side} on {device}", run, device=device, per_run=BATCH)
    small = random_case(96, 1)
    bench.measure("ours, one picture at 96", partial(SimOta(config).assign, *small))
    bench.measure("oracle, one picture at 96", lambda: SlowSimOta(*small, config, 0).assign())


@pytest.mark.parametrize("architecture", SIDES)
def test_training_step(bench: Bench, architecture: str) -> None:
    """Milliseconds per picture for loss and gradients, without the optimizer."""
    side = SIDES[architecture]
    for device in DEVICES:
        torch.manual_seed(0)
        detector = create_model(architecture, num_classes=CLASSES).to(device)
        images = torch.rand(BATCH, 3, side, side, device=device) * 255
        *_, targets = random_case(side, BATCH, device)
        run = partial(loss_and_gradients, detector, images, targets)
        bench.measure(f"{architecture} at {side} on {device}", run, device=device, per_run=BATCH)


def loss_and_gradients(detector: Detector, images: torch.Tensor, targets: Targets) -> None:
    detector.zero_grad(set_to_none=True)
    losses = detector.loss(images, targets, TrainingMoment(epoch=0, tail=False))
    torch.stack(list(losses.values())).sum().backward()
