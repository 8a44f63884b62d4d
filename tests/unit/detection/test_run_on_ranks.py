"""A whole training on two ranks: they stop together, go back together, and fail together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detection.data.records import ImageRecord
from detection.errors import ConfigError, DamagedImageError, DetectionError, DeviceMemoryError
from detection.models.yolox import YoloX
from detection.targets import Targets
from detection.training import run
from detection.training.checkpoints import CheckpointStore
from detection.training.distributed import Ranks
from detection.training.feed import TrainingFeed
from detection.training.job import TrainingJob
from detection.training.plan import EpochPlan
from detection.training.run import MEMORY_NOTE, train
from detection.training.state import StopReason, StopRequest
from tests.ranks import RankTestError, on_ranks
from tests.small_job import Series, final_digest, read_picture, small_job

NEVER = 10**6


def a_job(folder: Path) -> TrainingJob:
    """Return a training of 6 steps on two ranks, measured after each epoch."""
    return small_job(folder, val=2, processes=2, epochs=2)


def outcome(ranks: Ranks, folder: Path, drain_at: int) -> list[Any]:
    """Train until a step is told, or to the end; return where this rank stands and what it has said."""
    series = Series()
    job = a_job(folder)
    result = train(
        job,
        reporter=series,
        requests=lambda: StopRequest.DRAIN if drain_at in series.rows else None,
        ranks=ranks,
    )
    state = result.state
    return [result.reason.value, state.step, state.recoveries, state.micro_batches, len(series.rows)]


def from_different_checkpoints(ranks: Ranks, folder: Path) -> str:
    """Hide the checkpoint from the second rank."""
    if ranks.rank == 1:
        CheckpointStore.load_latest = lambda self: None  # type: ignore[method-assign]
    try:
        train(a_job(folder), ranks=ranks)
    except DetectionError as error:
        return str(error)
    return "trained"


def test_ranks_stop_together_and_a_training_that_goes_on_ends_the_same(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert on_ranks(outcome, whole, NEVER) == [["completed", 6, 0, 1, 6], ["completed", 6, 0, 1, 0]]
    assert on_ranks(outcome, parts, 4) == [["drained", 4, 0, 1, 4], ["drained", 4, 0, 1, 0]]

    expected = "the ranks read checkpoints of different steps: [4, 0]"
    assert on_ranks(from_different_checkpoints, parts) == [expected, expected]

    assert on_ranks(outcome, parts, NEVER) == [["completed", 6, 0, 1, 2], ["completed", 6, 0, 1, 0]]
    assert final_digest(a_job(whole)) == final_digest(a_job(parts))


class SpoiltFeed(TrainingFeed):
    """Gives the second rank a picture of nothing but NaN, once."""

    spoils = True

    def batches(self, plan: EpochPlan, *, start_step: int) -> Iterator[tuple[Tensor, Targets]]:
        for step, (images, targets) in enumerate(super().batches(plan, start_step=start_step), start_step):
            if self.spoils and (self._ranks.rank, plan.epoch, step) == (1, 1, 1):
                self.spoils = False
                images = images * float("nan")
            yield images, targets


def with_a_spoilt_batch(ranks: Ranks, folder: Path) -> list[Any]:
    run.TrainingFeed = SpoiltFeed  # type: ignore[misc]
    return outcome(ranks, folder, NEVER)


def test_a_loss_that_is_not_finite_on_one_rank_takes_all_back_to_the_checkpoint(tmp_path: Path) -> None:
    first, second = on_ranks(with_a_spoilt_batch, tmp_path)
    assert first[:4] == second[:4] == ["completed", 6, 1, 1]


def with_a_damaged_picture(ranks: Ranks, folder: Path) -> str:
    """Have one picture be unreadable, and every rank see another one in the first step."""

    def read(image: ImageRecord) -> bytes:
        if image.id == "7":
            raise DamagedImageError(f"picture {image.id} cannot be decoded")
        return read_picture(image)

    job = replace(a_job(folder), read=read)
    try:
        train(job, ranks=ranks)
    except DetectionError as error:
        return f"{type(error).__name__}: {error}"
    return "trained"


def test_a_picture_that_one_rank_cannot_read_ends_the_training_of_all(tmp_path: Path) -> None:
    expected = "DamagedImageError: picture 7 cannot be decoded"
    assert on_ranks(with_a_damaged_picture, tmp_path) == [expected, expected]


def with_little_memory(ranks: Ranks, folder: Path) -> list[Any]:
    """Let the second rank run out of memory with a whole batch."""
    whole_loss = YoloX.loss

    def loss(self: YoloX, *arguments: Any) -> dict[str, Tensor]:
        if ranks.rank == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole_loss(self, *arguments)

    YoloX.loss = loss  # type: ignore[method-assign]
    return outcome(ranks, folder, drain_at=1)


def test_a_rank_without_memory_ends_all_and_the_next_start_computes_in_parts(tmp_path: Path) -> None:
    with pytest.raises(RankTestError, match=f"rank 1: DeviceMemoryError: {DeviceMemoryError(2, 1)}"):
        on_ranks(with_little_memory, tmp_path)
    assert (tmp_path / MEMORY_NOTE).exists()
    first, second = on_ranks(with_little_memory, tmp_path)
    assert first[:4] == second[:4] == [StopReason.DRAINED.value, 1, 0, 2]


def test_a_training_of_two_is_no_training_of_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of 2 processes, and here are 1"):
        train(a_job(tmp_path))
    with pytest.raises(ConfigError, match="/processes"):
        train(small_job(tmp_path), ranks=Ranks(device=torch.device("cpu"), rank=0, world=2))
