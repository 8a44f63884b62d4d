"""Learning rates: the originals' curves, through the configuration a user writes, and short runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.families.nanodet_plus import NanoDetConfig, NanoDetScheduleConfig
from detection.families.yolox import YoloxConfig
from detection.training.config import OptimizerConfig, OptimizerKind, ScheduleConfig, ScheduleKind
from detection.training.recipes import resolve
from detection.training.schedules import Plateaus, Schedule, build_schedule, fitted_floor, fitted_peak
from tests.npz import read_npz


def schedule_of(
    *, lr: float, epochs: int, steps_per_epoch: int, kind: str = "yoloxwarmcos", **options: Any
) -> Schedule:
    """Return the schedule of a configuration with just these fields, all others from the recipe."""
    config = YoloxConfig(
        epochs=epochs,
        batch_size=1,
        optimizer=OptimizerConfig(lr=lr),
        schedule=ScheduleConfig(kind=ScheduleKind(kind), **options),
    )
    resolved = resolve(config, num_images=steps_per_epoch).schedule
    return build_schedule(resolved, peak_lr=lr, epochs=epochs, steps_per_epoch=steps_per_epoch)


def curve(schedule: Schedule, last: int, every: int = 1) -> list[float]:
    return [schedule.lr_at(step * every) for step in range(last + 1)]


def test_per_iteration_curves_are_the_originals(numbers: Path) -> None:
    case = read_npz(numbers / "lr_curves.npz")
    described = json.loads(bytes(case["meta_json"]))
    names = [name for name in described if name.startswith("iter")]
    assert len(names) == 6
    for name in names:
        meta = described[name]
        options = {
            ours: meta[theirs]
            for ours, theirs in {
                "warmup_epochs": "warmup_epochs",
                "warmup_start": "warmup_lr_start",
                "no_aug_epochs": "no_aug_epochs",
                "min_lr_ratio": "min_lr_ratio",
                "milestones": "milestones",
                "gamma": "gamma",
            }.items()
            if theirs in meta
        }
        schedule = schedule_of(
            lr=meta["lr"], epochs=meta["ep"], steps_per_epoch=meta["ipe"], kind=meta["name"], **options
        )
        found = curve(schedule, meta["ep"] * meta["ipe"])
        np.testing.assert_allclose(found, case[f"{name}_lr"], rtol=1e-9, atol=1e-18, err_msg=name)


def test_per_epoch_curves_are_the_originals(numbers: Path) -> None:
    case = read_npz(numbers / "lr_curves.npz")
    described = json.loads(bytes(case["meta_json"]))
    names = [name for name in described if name.startswith("epoch")]
    assert len(names) == 6
    for name in names:
        meta = described[name]
        schedule = schedule_of(
            lr=meta["lr"], epochs=meta["total_epochs"], steps_per_epoch=20, kind=f"epoch_{meta['type']}"
        )
        found = curve(schedule, meta["total_epochs"], every=20)
        np.testing.assert_allclose(found, case[f"{name}_lr"], rtol=1e-9, err_msg=name)


def test_steps_of_warmup_then_epochs_are_the_closed_form(numbers: Path) -> None:
    case = read_npz(numbers / "lr_curves.npz")
    described = json.loads(bytes(case["meta_json"]))
    names = [name for name in described if name.startswith("nanodet")]
    assert len(names) == 2
    for name in names:
        meta = described[name]
        config = NanoDetConfig(
            architecture="nanodet-plus-m",
            epochs=meta["epochs"],
            batch_size=1,
            schedule=NanoDetScheduleConfig(warmup_steps=meta["warmup_steps"]),
        )
        resolved = resolve(config, num_images=meta["iters_per_epoch"])
        assert resolved.optimizer.lr == meta["lr"]
        schedule = build_schedule(
            resolved.schedule,
            peak_lr=meta["lr"],
            epochs=meta["epochs"],
            steps_per_epoch=meta["iters_per_epoch"],
        )
        expected = case[f"{name}_closed_form_lr"]
        np.testing.assert_allclose(curve(schedule, len(expected) - 1), expected, rtol=1e-9, err_msg=name)


def test_epochwise_rates_fit_the_batch_like_the_originals(numbers: Path) -> None:
    rows = read_npz(numbers / "lr_curves.npz")["epochwise_bs_fit_opt_bs_init_min"]
    for is_adam, batch_size, peak, floor in rows:
        kind = OptimizerKind.ADAM if is_adam else OptimizerKind.SGD
        nominal_floor = 1e-4 if kind is OptimizerKind.SGD else 1e-5
        assert fitted_peak(int(batch_size), kind) == pytest.approx(peak, rel=1e-9)
        assert fitted_floor(batch_size / 64 * nominal_floor, kind) == pytest.approx(floor, rel=1e-9)


@pytest.mark.parametrize("kind", ["epoch_cos", "epoch_step"])
def test_epochwise_recipes_bring_their_own_peak_and_momentum(kind: str) -> None:
    config = YoloxConfig(epochs=100, batch_size=32, schedule=ScheduleConfig(kind=ScheduleKind(kind)))
    optimizer = resolve(config, num_images=64).optimizer
    assert (optimizer.lr, optimizer.momentum) == (0.005, 0.937)


@pytest.mark.parametrize("kind", ["epoch_cos", "epoch_step"])
def test_epochwise_rates_stand_still_within_an_epoch(kind: str) -> None:
    schedule = schedule_of(lr=0.01, epochs=20, steps_per_epoch=7, kind=kind)
    for epoch in range(20):
        assert len({schedule.lr_at(epoch * 7 + step) for step in range(7)}) == 1


def test_a_plateau_begins_exactly_in_its_epoch() -> None:
    """A third of 27 epochs is 7 of 21 plateaus, though 9 / (27 / 21) is a little less than 7."""
    plateaus = Plateaus(peak=1.0, floor=2.0**-20, count=21, total=27)
    assert plateaus(9) == pytest.approx(2.0**-7)


def test_the_first_step_runs_at_the_start_and_the_last_at_the_floor() -> None:
    schedule = schedule_of(lr=0.01, epochs=10, steps_per_epoch=26, warmup_start=0.001)
    assert schedule.lr_at(0) == 0.001
    assert schedule.lr_at(26) == pytest.approx(0.01)
    tail = curve(schedule, 260)[260 - 2 * 26 :]
    assert tail == pytest.approx([0.0005] * len(tail))


@pytest.mark.parametrize("kind", list(ScheduleKind))
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (2, 1), (3, 2), (10, 26), (51, 3)])
@pytest.mark.parametrize("warmup", [None, 0, 1000])
def test_no_run_is_too_short(kind: ScheduleKind, epochs: int, steps: int, warmup: int | None) -> None:
    """Even when warm-up and tail overlap or fill the run."""
    config = ScheduleConfig(
        kind=kind,
        warmup_steps=warmup if warmup is not None else epochs * steps // 10,
        warmup_start=0.0,
        no_aug_epochs=max(epochs - 1, 1),
        min_lr_ratio=0.05,
        milestones=(1,),
    )
    schedule = build_schedule(config, peak_lr=0.01, epochs=epochs, steps_per_epoch=steps)
    rates = curve(schedule, epochs * steps)
    assert all(math.isfinite(rate) and 0 <= rate <= 0.01 * (1 + 1e-12) for rate in rates)


@pytest.mark.parametrize(
    ("kind", "options", "step", "expected"),
    [
        ("cos", {"warmup_steps": 10}, 5, 0.005),
        ("multistep", {"milestones": (1,), "warmup_start": 0.002, "warmup_steps": 10}, 0, 0.002),
        ("multistep", {"milestones": (1, 2), "min_lr_ratio": 0.05}, 35, 0.0005),
        ("warmcos", {"min_lr_ratio": 0.5}, 40, 0.005),
        ("epoch_cos", {"warmup_start": 0.003}, 0, 0.003),
        ("epoch_cos", {"warmup_start": 0.0}, 0, 0.0),
        ("epoch_cos", {}, 0, 0.001),
        ("epoch_step", {"step_num": 2}, 39, 0.0001),
    ],
)
def test_no_field_is_ignored_by_a_kind_that_could_use_it(
    kind: str, options: dict[str, Any], step: int, expected: float
) -> None:
    schedule = schedule_of(lr=0.01, epochs=4, steps_per_epoch=10, kind=kind, **options)
    assert schedule.lr_at(step) == pytest.approx(expected)


@pytest.mark.parametrize("missing", ["warmup_steps", "warmup_start", "min_lr_ratio", "no_aug_epochs"])
def test_an_unresolved_configuration_is_refused(missing: str) -> None:
    fields = {"warmup_steps": 1, "warmup_start": 0.0, "min_lr_ratio": 0.1, "no_aug_epochs": 1} | {
        missing: None
    }
    with pytest.raises(ValueError, match="not resolved"):
        build_schedule(ScheduleConfig(**fields), peak_lr=0.01, epochs=2, steps_per_epoch=2)  # type: ignore[arg-type]
