"""Which epoch, batch size and point of the schedule a step has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detection.families.yolox import YoloxConfig
from detection.training.config import FreezeConfig, ScheduleConfig
from detection.training.plan import TrainingPlan
from detection.training.recipes import resolve, steps_per_epoch


def plan_of(num_images: int = 20, **changes: object) -> TrainingPlan:
    config = YoloxConfig(**{"epochs": 10, "batch_size": 8, "device": "cpu", **changes})  # type: ignore[arg-type]
    return TrainingPlan(resolve(config, num_images=num_images), num_images=num_images)


def test_epochs_cover_the_pictures_in_full_batches() -> None:
    plan = plan_of()
    assert plan.total_steps == 30
    assert [epoch.first_step for epoch in plan] == list(range(0, 30, 3))
    assert {epoch.steps for epoch in plan} == {3}


def test_the_tail_is_exactly_the_last_epochs() -> None:
    plan = plan_of(schedule=ScheduleConfig(no_aug_epochs=3))
    assert [epoch.tail for epoch in plan] == [False] * 7 + [True] * 3
    assert not any(epoch.tail for epoch in plan_of(schedule=ScheduleConfig(no_aug_epochs=0)))


def test_a_frozen_stage_has_its_own_batch_and_covers_the_same_stretch_of_the_schedule() -> None:
    plan = plan_of(freeze=FreezeConfig(parts=("backbone",), epochs=2, batch_size=20))
    assert [epoch.steps for epoch in plan][:4] == [1, 1, 3, 3]
    assert [epoch.frozen for epoch in plan][:4] == [True, True, False, False]
    assert [epoch.first_step for epoch in plan][:4] == [0, 1, 2, 5]
    assert plan.total_steps == 2 + 24
    assert [plan.schedule_step(plan.epoch(index), 0) for index in range(4)] == [0, 3, 6, 9]
    assert plan.lr_factor(plan.epoch(0)) == 2.5
    assert plan.lr_factor(plan.epoch(2)) == 1.0


def test_more_steps_in_a_frozen_epoch_share_the_schedule_of_one() -> None:
    plan = plan_of(freeze=FreezeConfig(parts=("neck",), epochs=1, batch_size=4))
    frozen = plan.epoch(0)
    assert [plan.schedule_step(frozen, step) for step in range(frozen.steps)] == [0, 0, 1, 1, 2]


def test_frozen_for_the_whole_run_unless_epochs_are_given() -> None:
    assert all(epoch.frozen for epoch in plan_of(freeze=FreezeConfig(parts=("backbone",))))
    assert not any(epoch.frozen for epoch in plan_of(freeze=FreezeConfig()))


def test_a_configuration_that_is_not_resolved_is_refused() -> None:
    config = YoloxConfig(epochs=2, batch_size=2)
    with pytest.raises(ValueError, match="not resolved"):
        TrainingPlan(config, num_images=4)
    with pytest.raises(ValueError, match="not resolved"):
        TrainingPlan(replace(config, batch_size="auto"), num_images=4)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"), [(10, 4, 3), (8, 4, 2), (1, 8, 1), (101, 10, 11), (3, 8, 1)]
)
def test_an_epoch_has_as_many_full_batches_as_cover_the_pictures(
    num_images: int, batch_size: int, expected: int
) -> None:
    assert steps_per_epoch(num_images, batch_size) == expected
