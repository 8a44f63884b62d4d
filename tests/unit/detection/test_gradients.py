"""A batch in parts has the gradients of the whole batch, whatever its loss is divided by."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from detection.models import create_model
from detection.models.detector import Detector, TrainingMoment
from detection.targets import Targets
from detection.training.gradients import compute_gradients
from detection.training.optimisation import Optimisation
from tests.tiny_training import TinyDetector, tiny_trainer

LATE = TrainingMoment(epoch=9, tail=True)
SIZE = 5


class Computed(NamedTuple):
    losses: dict[str, Tensor]
    statistics: dict[str, Tensor]
    gradients: list[Tensor]


def batch() -> tuple[Tensor, Targets]:
    """Pictures with very unequal numbers of boxes: means of means would be far off."""
    boxes = [
        torch.tensor([[4.0, 4, 40, 50], [50, 10, 90, 60], [0, 0, 20, 20], [30, 30, 62, 62]]),
        torch.zeros(0, 4),
        torch.tensor([[10.0, 10, 30, 30]]),
        torch.zeros(0, 4),
        torch.tensor([[2.0, 2, 62, 62], [8, 40, 24, 60]]),
    ]
    labels = [torch.arange(len(each)) % 3 for each in boxes]
    images = torch.rand(SIZE, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255
    return images, Targets.from_lists(boxes, labels)


def optimisation_of(detector: Detector) -> Optimisation:
    return tiny_trainer(detector=detector).optimisation


def computed(detector: Detector, parts: int, *, dtype: torch.dtype | None = None) -> Computed:
    optimisation = optimisation_of(detector)
    optimisation.autocast_dtype = dtype
    optimisation.optimizer.zero_grad(set_to_none=True)
    images, targets = batch()
    images = images.to(next(detector.parameters()).dtype)
    losses = compute_gradients(optimisation, images, targets, LATE, parts=parts)
    gradients = [each.grad for each in detector.parameters() if each.grad is not None]
    return Computed(losses, detector.loss_statistics, gradients)


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    detector = create_model("yolox-nano", num_classes=3)
    for module in detector.modules():  # so that one batch makes the statistics of eval mode
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        detector(batch()[0])
    return detector


@pytest.mark.parametrize("parts", [2, 3, 5, 8])
def test_parts_have_the_losses_and_gradients_of_the_whole(detector: Detector, parts: int) -> None:
    """With batch norm in eval mode, where no picture depends on another, and rounding far away."""
    detector.eval().double()
    whole, found = computed(detector, 1), computed(detector, parts)
    assert whole.losses.keys() == found.losses.keys()
    for name, loss in whole.losses.items():
        torch.testing.assert_close(found.losses[name], loss, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.statistics, whole.statistics)
    assert len(whole.gradients) == len(list(detector.parameters()))
    for expected, gradient in zip(whole.gradients, found.gradients, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6 * scale)


def test_parts_in_half_precision_are_near_the_whole_too(detector: Detector) -> None:
    detector.eval()
    whole, found = (computed(detector, parts, dtype=torch.bfloat16) for parts in (1, 3))
    for name, loss in whole.losses.items():
        torch.testing.assert_close(found.losses[name], loss, rtol=1e-2, atol=1e-3)
    similarity = torch.cosine_similarity(
        torch.cat([each.flatten() for each in whole.gradients]),
        torch.cat([each.flatten() for each in found.gradients]),
        dim=0,
    )
    assert similarity > 0.999


def test_no_loss_and_no_gradient_is_left_attached(detector: Detector) -> None:
    for parts in (1, 2):
        assert not any(loss.requires_grad for loss in computed(detector, parts).losses.values())


def test_batch_norm_counts_every_part_once() -> None:
    """The pass that only serves the loss leaves no trace in the statistics."""
    detector, twice = TinyDetector(num_classes=3), TinyDetector(num_classes=3)
    twice.load_state_dict(detector.state_dict())
    images, targets = batch()
    compute_gradients(optimisation_of(detector), images, targets, LATE, parts=2)
    with torch.no_grad():
        for part in (slice(0, 3), slice(3, 5)):
            twice(images[part])
    for found, expected in zip(detector.buffers(), twice.buffers(), strict=True):
        assert torch.equal(found, expected)


def test_every_head_has_its_share() -> None:
    """Two heads with normalisers of their own: no common factor could be put right afterwards."""

    class TwoHeads(TinyDetector):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(3, 1, 8, stride=8)

        def training_outputs(self, images_BCHW: Tensor, moment: TrainingMoment) -> tuple[Tensor, ...]:
            return self(images_BCHW), self.second(images_BCHW).flatten(1)

        def loss_of_outputs(
            self,
            outputs: tuple[Tensor, ...],
            targets: Targets,
            moment: TrainingMoment,
            *,
            size_hw: tuple[int, int],
        ) -> dict[str, Tensor]:
            first, second = (each.float() for each in outputs)
            return {
                "first": first.square().sum() / first.detach().sigmoid().sum(),
                "second": second.abs().sum() / targets.valid_BG.sum(),
            }

    torch.manual_seed(0)
    detector = TwoHeads().eval()
    whole, found = computed(detector, 1), computed(detector, 2)
    for expected, gradient in zip(whole.gradients, found.gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
