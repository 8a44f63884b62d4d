"""Two ranks that train together do what one process does with the whole batch, step by step.

Networks compute in float64 here: a network that knows nothing yet and sees a few cells turns the rounding of
float32 into per cents within three steps, in one process as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection.data.importing import read_dataset
from detection.data.synthetic import write_synthetic_dataset
from detection.families import DEFAULT_FAMILY
from detection.families.nanodet_plus import NanoDetAssignerConfig
from detection.models.detector import TrainingMoment
from detection.targets import Targets
from detection.training.config import FreezeConfig
from detection.training.distributed import Ranks
from detection.training.feed import TrainingFeed
from detection.training.freezing import FreezeParts
from detection.training.gradients import compute_gradients
from detection.training.job import TrainingJob
from detection.training.plan import EpochPlan
from detection.training.recipes import resolve
from detection.training.replicas import Replicas
from detection.training.report import Report
from detection.training.session import open_session
from detection.training.tasks import training_of
from detection.training.trainer import Callback, Trainer
from tests.ranks import alone, on_ranks
from tests.small_job import Series, config_of

NANODET = "nanodet-plus"
STEPS = 4
Rows = dict[int, dict[str, float]]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_synthetic_dataset(folder, num_images=10, size=96)
    return folder


def shapes_job(shapes: Path, family: str, **changes: Any) -> TrainingJob:
    """Return a training of two epochs of two steps with 4 pictures each."""
    imported = read_dataset(shapes)
    return TrainingJob(
        config=resolve(config_of(family, epochs=2, **changes), num_images=8),
        dataset=imported.dataset,
        read=lambda image: imported.paths[image.id].read_bytes(),
        folder=shapes,
    )


class FreezeStatistics(Callback):
    """Keeps every batch norm in eval mode, those of the head too."""

    def on_epoch_start(self, trainer: Trainer, plan: EpochPlan) -> None:
        for module in trainer.optimisation.detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class PreciseFeed(TrainingFeed):
    """Yields pictures in float64."""

    def batches(self, plan: EpochPlan, *, start_step: int) -> Iterator[tuple[Tensor, Targets]]:
        for images, targets in super().batches(plan, start_step=start_step):
            yield images.double(), targets


def precise_trainer(ranks: Ranks, job: TrainingJob, callbacks: list[Callback]) -> Trainer:
    optimisation, state = open_session(job, None, ranks, log=lambda line: None)
    optimisation.detector.double()
    optimisation.replicas = Replicas(optimisation.detector, ranks)
    samples = training_of(job).open_samples(job, cache_bytes=0)
    feed = PreciseFeed(job, samples, ranks)
    return Trainer(optimisation, job.plan, feed, state, callbacks, log=lambda line: None)


def trained(ranks: Ranks, shapes: Path, family: str, options: Any, frozen: bool) -> tuple[Rows, Any]:
    """Train; return what the first rank reports, and what every rank ends with."""
    synced = ranks.world > 1 and not frozen
    job = shapes_job(shapes, family, processes=ranks.world, sync_bn=synced, **options)
    series = Series()
    callbacks: list[Callback] = [FreezeParts(job.config.freeze.parts, job.config.optimizer)]
    callbacks += [FreezeStatistics()] if frozen else []
    callbacks += [Report(series)] if ranks.is_first else []
    trainer = precise_trainer(ranks, job, callbacks)
    trainer.fit()
    return series.rows, dict(trainer.optimisation.detector.state_dict())


FROZEN_FIRST = {"freeze": FreezeConfig(parts=("backbone",), epochs=1, batch_size=4)}
"""Other parameters learn in the second epoch than in the first."""
SOON_UNGUIDED = {"assigner": NanoDetAssignerConfig(self_assign_epoch=1)}
"""The auxiliary branch gets no gradient in the second epoch."""


@pytest.mark.parametrize(
    ("family", "options", "frozen"),
    [
        (DEFAULT_FAMILY.name, {}, True),
        (DEFAULT_FAMILY.name, FROZEN_FIRST, False),
        (NANODET, SOON_UNGUIDED, False),
    ],
    ids=["yolox-frozen-norms", "yolox-synced", "nanodet-synced"],
)
def test_two_ranks_have_the_losses_and_weights_of_one_process(
    shapes: Path, family: str, options: dict[str, Any], frozen: bool
) -> None:
    expected_rows, expected = trained(alone(), shapes, family, options, frozen)
    (rows, first), (nothing, second) = on_ranks(trained, shapes, family, options, frozen)
    assert nothing == {}, "only the first rank reports"
    assert rows.keys() == expected_rows.keys() == set(range(1, STEPS + 1))
    for step, values in expected_rows.items():
        assert rows[step] == pytest.approx(values, rel=1e-5, abs=1e-7), f"step {step}"
    assert first.keys() == expected.keys()
    for name, weights in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], weights, rtol=1e-5, atol=1e-7, msg=name)


def computed_in_parts(ranks: Ranks, shapes: Path, parts: int) -> dict[str, Any]:
    """Compute one batch with batch norms in eval mode, in which no picture depends on another."""
    job = shapes_job(shapes, NANODET, processes=ranks.world)
    trainer = precise_trainer(ranks, job, [])
    optimisation = trainer.optimisation
    optimisation.detector.eval()
    images, targets = next(trainer.source.batches(job.plan.epoch(0), start_step=0))
    moment = TrainingMoment(epoch=0, tail=False)
    losses = compute_gradients(optimisation, images, targets, moment, parts=parts)
    gradients = {name: each.grad for name, each in optimisation.detector.named_parameters()}
    return {"losses": losses, "gradients": gradients}


def test_parts_on_two_ranks_have_the_gradients_of_the_whole(shapes: Path) -> None:
    expected = computed_in_parts(alone(), shapes, parts=1)
    for found in on_ranks(computed_in_parts, shapes, 2):
        torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=1e-7)
        for name, gradient in expected["gradients"].items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def with_own_norms(ranks: Ranks) -> list[Tensor]:
    """Share a loss after each rank has seen other pictures; return mean, variance and loss."""
    detector = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0), nn.BatchNorm2d(1).eval())
    replicas = Replicas(detector, ranks)  # type: ignore[arg-type]
    detector(torch.tensor([0.0, 2.0 + 2 * ranks.rank]).reshape(2, 1, 1, 1))
    shared = replicas.share({"loss": torch.tensor(1.0 + ranks.rank)})
    return [shared["loss"], *(each for each in detector.buffers() if each.is_floating_point())]


def test_ranks_with_norms_of_their_own_share_the_mean_of_their_statistics() -> None:
    """Means 1 and 2, unbiased variances 2 and 8; the norm in eval mode stays at 0 and 1."""
    for found in on_ranks(with_own_norms):
        assert [float(each) for each in found] == [1.5, 1.5, 5.0, 0.0, 1.0]
