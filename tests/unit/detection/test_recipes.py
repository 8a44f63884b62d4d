"""What a configuration becomes when the recipe fills it in, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from detection.errors import ConfigError, UnknownNameError
from detection.families.nanodet_plus import NanoDetAugmentationConfig, NanoDetConfig, NanoDetLossConfig
from detection.families.reading import read_config
from detection.families.yolox import YoloxAssignerConfig, YoloxAugmentationConfig, YoloxConfig
from detection.input_convention import (
    NANODET_KEEP_RATIO,
    NANODET_STRETCH,
    YOLOX_LEGACY,
    InputConvention,
    Resize,
)
from detection.tasks import Task
from detection.training.config import (
    FreezeConfig,
    OptimizerConfig,
    OptimizerKind,
    Precision,
    ScheduleConfig,
    ScheduleKind,
    WeightInitConfig,
    WeightInitKind,
)
from detection.training.recipes import begin_with, resolve, settle
from tests.small_job import small_job

CENTRED = replace(NANODET_KEEP_RATIO, resize=Resize.LETTERBOX_CENTRE)


def test_a_short_run_follows_the_short_run_rule() -> None:
    config = resolve(YoloxConfig(epochs=10, init="weights"), num_images=205)
    steps = 260
    assert (config.batch_size, config.input_size, config.optimizer.lr) == (8, 416, pytest.approx(0.005))
    assert (config.schedule.warmup_steps, config.schedule.no_aug_epochs) == (steps // 10, 2)
    assert config.ema.decay == pytest.approx(1 - 1 / (0.05 * steps))
    assert config.ema.ramp_updates == pytest.approx(steps / 10)
    assert (config.augmentation.mosaic, config.augmentation.multi_scale) == (0.0, False)


def test_a_full_run_follows_the_published_recipe() -> None:
    config = resolve(YoloxConfig(architecture="yolox-s", batch_size=64), num_images=6400)
    assert config.optimizer.lr == pytest.approx(0.01)
    assert (config.schedule.warmup_steps, config.schedule.no_aug_epochs) == (500, 15)
    assert (config.schedule.min_lr_ratio, config.evaluation.every_epochs) == (0.05, 10)
    assert (config.ema.decay, config.ema.ramp_updates) == (0.9998, 2000.0)
    augmentation = config.augmentation
    assert (augmentation.mosaic, augmentation.mixup, augmentation.mosaic_scale) == (1.0, 1.0, (0.1, 2.0))
    assert (augmentation.multi_scale, augmentation.multi_scale_range) == (True, (480, 800))


def test_a_short_run_of_nanodet_follows_the_short_run_rule() -> None:
    config = resolve(NanoDetConfig(architecture="nanodet-plus-m", epochs=10), num_images=205)
    steps = 260
    optimizer, schedule = config.optimizer, config.schedule
    assert (config.batch_size, config.input_size) == (8, 416)
    assert (optimizer.kind, optimizer.lr, optimizer.weight_decay, optimizer.clip_norm) == (
        "adamw",
        1e-3,
        0.05,
        35,
    )
    assert (schedule.kind, schedule.warmup_steps, schedule.no_aug_epochs) == ("nanodet", steps // 10, 0)
    assert (schedule.warmup_start, schedule.min_lr_ratio) == (pytest.approx(1e-7), 0.05)
    assert config.ema.decay == pytest.approx(1 - 1 / (0.05 * steps))
    assert (config.loss.detach_epoch, config.evaluation.every_epochs) == (5, 1)
    assert (config.augmentation.multi_scale, config.augmentation.keep_ratio) == (False, False)


@pytest.mark.parametrize(
    ("epochs", "scale", "stretch", "translate"),
    [(50, (0.8, 1.2), (1.0, 1.0), 0.1), (51, (0.6, 1.4), (0.8, 1.2), 0.2)],
)
def test_a_short_run_of_nanodet_moves_things_less(
    epochs: int, scale: tuple[float, float], stretch: tuple[float, float], translate: float
) -> None:
    config = NanoDetConfig(architecture="nanodet-plus-m", epochs=epochs)
    found = resolve(config, num_images=100).augmentation
    assert (found.scale, found.stretch, found.translate) == (scale, stretch, translate)
    still = replace(config, augmentation=NanoDetAugmentationConfig(translate=0.0, scale=(1.0, 1.0)))
    chosen = resolve(still, num_images=100).augmentation
    assert (chosen.scale, chosen.translate) == ((1.0, 1.0), 0.0)


def test_a_run_never_warms_up_for_more_than_a_tenth_of_it() -> None:
    config = resolve(NanoDetConfig(architecture="nanodet-plus-m", epochs=60, batch_size=96), num_images=291)
    assert config.schedule.warmup_steps == 60 * 4 // 10


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"input_size": 64, "batch_size": 1}, "/input_size"),
        ({"input_size": 64, "freeze": FreezeConfig(parts=("backbone",), batch_size=1)}, "/input_size"),
        (
            {
                "batch_size": 1,
                "augmentation": NanoDetAugmentationConfig(multi_scale=True, multi_scale_range=(64, 128)),
            },
            "/augmentation/multi_scale_range",
        ),
        ({"input_size": 96, "batch_size": 1}, None),
        ({"input_size": 64, "batch_size": 2}, None),
    ],
)
def test_batch_norm_never_sees_a_single_value(changes: dict[str, Any], pointer: str | None) -> None:
    config = NanoDetConfig(architecture="nanodet-plus-m", **changes)
    if pointer is None:
        resolve(config, num_images=9)
        return
    with pytest.raises(ConfigError, match="leaves one cell") as caught:
        resolve(config, num_images=9)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_full_run_of_nanodet_follows_the_published_recipe() -> None:
    config = resolve(NanoDetConfig(architecture="nanodet-plus-m-1.5x", batch_size=96), num_images=9600)
    assert (config.optimizer.lr, config.schedule.warmup_steps) == (1e-3, 500)
    assert (config.ema.decay, config.ema.ramp_updates) == (0.9998, 2000.0)
    assert (config.loss.detach_epoch, config.evaluation.every_epochs) == (10, 10)
    assert (config.evaluation.score_threshold, config.evaluation.nms_iou) == (0.05, 0.6)


@pytest.mark.parametrize(
    ("epochs", "given", "resolved"), [(1, None, 1), (2, None, 1), (15, None, 8), (50, None, 10), (2, 7, 7)]
)
def test_the_auxiliary_branch_teaches_at_most_half_of_a_short_run(
    epochs: int, given: int | None, resolved: int
) -> None:
    loss = NanoDetLossConfig(detach_epoch=given)
    config = NanoDetConfig(architecture="nanodet-plus-m", epochs=epochs, loss=loss)
    assert resolve(config, num_images=8).loss.detach_epoch == resolved


@pytest.mark.parametrize(
    ("init", "chosen", "start", "seen"),
    [
        ("random", None, None, NANODET_STRETCH),
        ("random", True, None, NANODET_KEEP_RATIO),
        ("a-model", None, NANODET_KEEP_RATIO, NANODET_KEEP_RATIO),
        ("a-model", None, NANODET_STRETCH, NANODET_STRETCH),
        ("a-model", False, NANODET_KEEP_RATIO, NANODET_STRETCH),
        ("a-model", False, YOLOX_LEGACY, replace(YOLOX_LEGACY, resize=Resize.STRETCH, pad_value=0.0)),
        ("a-model", True, CENTRED, CENTRED),
        ("a-model", None, CENTRED, CENTRED),
    ],
)
def test_proportions_are_those_of_the_start_unless_chosen(
    tmp_path: Path,
    init: str,
    chosen: bool | None,
    start: InputConvention | None,
    seen: InputConvention,
) -> None:
    config = NanoDetConfig(
        architecture="nanodet-plus-m", init=init, augmentation=NanoDetAugmentationConfig(keep_ratio=chosen)
    )
    config = resolve(config, num_images=10)
    job = replace(small_job(tmp_path), config=config, convention=start)
    assert job.record.input_convention == seen
    if start is not None:
        config = begin_with(config, start)
    assert config.augmentation.keep_ratio is (seen.resize is not Resize.STRETCH)
    assert replace(job, config=config).record.input_convention == seen


def test_a_given_value_is_kept() -> None:
    given = YoloxConfig(
        epochs=10,
        batch_size=4,
        optimizer=OptimizerConfig(lr_per_image=0.001, momentum=0.5),
        schedule=ScheduleConfig(warmup_epochs=2, no_aug_epochs=0),
        augmentation=YoloxAugmentationConfig(hsv=0.0, mosaic=0.25),
    )
    config = resolve(given, num_images=40)
    assert (config.optimizer.lr, config.optimizer.momentum) == (pytest.approx(0.004), 0.5)
    assert (config.schedule.warmup_steps, config.schedule.no_aug_epochs) == (20, 0)
    assert (config.augmentation.hsv, config.augmentation.mosaic) == (0.0, 0.25)


def test_a_resolved_configuration_stays_as_it_is() -> None:
    once = resolve(YoloxConfig(epochs=10), num_images=100)
    assert resolve(once, num_images=100) == once


@pytest.mark.parametrize("device", ["", " ", "auto", "cpu", "0"])
def test_a_small_dataset_gets_a_small_batch(device: str) -> None:
    assert resolve(YoloxConfig(device=device), num_images=3).batch_size == 3


def test_an_unknown_architecture_lists_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="yolox-nano"):
        resolve(YoloxConfig(architecture="yolox-nan"), num_images=10)


@pytest.mark.parametrize(
    ("config", "pointers"),
    [
        (YoloxConfig(input_size=100), ["/input_size"]),
        (YoloxConfig(optimizer=OptimizerConfig(lr=1.0, lr_per_image=1.0)), ["/optimizer/lr_per_image"]),
        (YoloxConfig(optimizer=OptimizerConfig(momentum=0.0)), ["/optimizer/nesterov"]),
        (YoloxConfig(schedule=ScheduleConfig(kind=ScheduleKind.MULTISTEP)), ["/schedule/milestones"]),
        (
            YoloxConfig(epochs=5, schedule=ScheduleConfig(kind=ScheduleKind.EPOCH_STEP)),
            ["/schedule/step_num"],
        ),
        (YoloxConfig(epochs=5, schedule=ScheduleConfig(no_aug_epochs=6)), ["/schedule/no_aug_epochs"]),
        (
            YoloxConfig(init="x", weight_init=WeightInitConfig(kind=WeightInitKind.XAVIER)),
            ["/weight_init/kind"],
        ),
        (YoloxConfig(weight_init=WeightInitConfig(gain=5.0)), ["/weight_init/gain"]),
        (YoloxConfig(init="x", weight_init=WeightInitConfig(gain=3.0)), ["/weight_init/gain"]),
        (
            YoloxConfig(weight_init=WeightInitConfig(kind=WeightInitKind.KAIMING, gain=0.02)),
            ["/weight_init/gain"],
        ),
        (
            YoloxConfig(epochs=5, schedule=ScheduleConfig(kind=ScheduleKind.MULTISTEP, milestones=(2, 5))),
            ["/schedule/milestones"],
        ),
        (YoloxConfig(schedule=ScheduleConfig(milestones=(2,))), ["/schedule/milestones"]),
        (YoloxConfig(init="x", init_exclude=("",)), ["/init_exclude"]),
        (YoloxConfig(init_exclude=("head",)), ["/init_exclude"]),
        (YoloxConfig(freeze=FreezeConfig(epochs=2)), ["/freeze/parts"]),
        (
            YoloxConfig(
                augmentation=YoloxAugmentationConfig(affine_scale=(0.5, 11.0), mixup_scale=(2.0, 1.0))
            ),
            ["/augmentation/affine_scale", "/augmentation/mixup_scale"],
        ),
        (
            YoloxConfig(augmentation=YoloxAugmentationConfig(multi_scale_range=(32, 64))),
            ["/augmentation/multi_scale_range"],
        ),
        (YoloxConfig(device="0,1", batch_size=3), ["/batch_size"]),
    ],
)
def test_contradictions_are_refused_with_their_place(config: YoloxConfig, pointers: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(config, num_images=100)
    assert [fault.pointer for fault in refused.value.faults] == pointers


def test_multi_scale_stays_within_what_a_network_can_take() -> None:
    tiny = resolve(YoloxConfig(input_size=64), num_images=10).augmentation.multi_scale_range
    huge = resolve(YoloxConfig(input_size=2048), num_images=10).augmentation.multi_scale_range
    assert (tiny, huge) == ((64, 224), (1888, 2048))


@pytest.mark.parametrize("kind", OptimizerKind)
@pytest.mark.parametrize("schedule", ScheduleKind)
def test_every_kind_of_schedule_and_optimizer_is_filled_in(
    kind: OptimizerKind, schedule: ScheduleKind
) -> None:
    config = YoloxConfig(
        epochs=60,
        optimizer=OptimizerConfig(kind=kind),
        schedule=ScheduleConfig(kind=schedule, milestones=(3,) if schedule is ScheduleKind.MULTISTEP else ()),
    )
    config = resolve(config, num_images=80)
    assert None not in (config.optimizer.lr, config.optimizer.momentum, config.schedule.warmup_steps)
    assert None not in (config.schedule.warmup_start, config.schedule.min_lr_ratio)
    assert resolve(config, num_images=80) == config


def test_what_a_rule_decides_is_filled_in() -> None:
    def radius(rule: Literal["inbox25", "center15"]) -> float | None:
        config = YoloxConfig(assigner=YoloxAssignerConfig(rule=rule))
        return resolve(config, num_images=10).assigner.centre_radius

    assert (radius("inbox25"), radius("center15")) == (2.5, 1.5)
    drawn = YoloxConfig(weight_init=WeightInitConfig(kind=WeightInitKind.XAVIER))
    assert resolve(drawn, num_images=10).weight_init.gain == 0.02
    frozen = YoloxConfig(epochs=7, batch_size=4, freeze=FreezeConfig(parts=("neck",)))
    assert resolve(frozen, num_images=10).freeze == FreezeConfig(parts=("neck",), epochs=7, batch_size=4)


@pytest.mark.parametrize(("chosen", "start"), [(None, 0.001), (0.0, 0.0), (0.002, 0.002)])
def test_the_first_rate_of_the_epochwise_cosine_is_shown_and_may_be_nothing(
    chosen: float | None, start: float
) -> None:
    schedule = ScheduleConfig(kind=ScheduleKind.EPOCH_COS, warmup_start=chosen)
    config = YoloxConfig(optimizer=OptimizerConfig(lr=0.01), schedule=schedule)
    assert resolve(config, num_images=10).schedule.warmup_start == pytest.approx(start)


@pytest.mark.parametrize("kind", [ScheduleKind.EPOCH_COS, ScheduleKind.EPOCH_STEP])
@pytest.mark.parametrize(("chosen", "real"), [(0.0, 0.0005), (0.02, 0.02), (0.9, 0.05), (None, 0.01)])
def test_the_floor_of_the_epochwise_kinds_is_shown_as_it_is(
    kind: ScheduleKind, chosen: float | None, real: float
) -> None:
    schedule = ScheduleConfig(kind=kind, min_lr_ratio=chosen)
    config = YoloxConfig(optimizer=OptimizerConfig(lr=0.01), schedule=schedule)
    assert resolve(config, num_images=10).schedule.min_lr_ratio == pytest.approx(real)


@pytest.mark.parametrize(
    ("precision", "device", "settled"),
    [("auto", "cpu", "fp32"), ("auto", "1", "amp"), ("fp32", "0", "fp32"), ("amp", "cpu", "amp")],
)
def test_the_worker_settles_device_and_precision(precision: str, device: str, settled: str) -> None:
    config = resolve(YoloxConfig(precision=Precision(precision)), num_images=10)
    assert (config.device, config.precision) == ("auto", precision)
    there = settle(config, device=device, threads=4)
    assert (there.device, there.precision) == (device, settled)
    assert settle(there, device="0", threads=4).precision == settled


def test_the_worker_settles_the_threads_once_and_shares_them_among_processes() -> None:
    config = resolve(YoloxConfig(), num_images=10)
    assert config.threads is None
    there = settle(config, device="cpu", threads=4)
    assert there.threads == 4
    assert settle(there, device="cpu", threads=16).threads == 4
    shared = [settle(replace(config, processes=each), device="cpu", threads=4).threads for each in (2, 3, 8)]
    assert shared == [2, 1, 1]
    assert settle(replace(config, threads=3), device="cpu", threads=4).threads == 3


def test_the_task_follows_from_the_architecture() -> None:
    assert read_config({"architecture": "resnet18"}).task is Task.CLASSIFY
    assert read_config({"task": "classify"}).architecture == "resnet101"
    assert read_config({}).task is Task.DETECT
    for written in (
        {"task": "classify", "architecture": "yolox-nano"},
        {"task": "detect", "architecture": "resnet18"},
    ):
        with pytest.raises(ConfigError) as refusal:
            resolve(read_config(written), num_images=10)
        assert [fault.pointer for fault in refusal.value.faults] == ["/task"]


def test_classifiers_begin_gently_where_weights_know_something_already() -> None:
    from_nothing = resolve(read_config({"architecture": "resnet18"}), num_images=1000)
    from_weights = resolve(read_config({"architecture": "resnet18", "init": "pretrained"}), num_images=1000)
    assert (from_nothing.optimizer.lr, from_weights.optimizer.lr) == (1e-3, 2e-4)
    assert (from_nothing.optimizer.weight_decay, from_nothing.batch_size) == (0.05, 32)
    sgd = read_config({"architecture": "resnet18", "optimizer": {"kind": "sgd"}})
    assert resolve(sgd, num_images=1000).optimizer.weight_decay == 5e-4
    chosen = read_config({"architecture": "resnet18", "optimizer": {"lr_per_image": 1e-4}})
    assert resolve(chosen, num_images=1000).optimizer.lr == pytest.approx(32e-4)
