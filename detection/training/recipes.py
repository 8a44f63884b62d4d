"""Complete a configuration from the architecture's recipe and the size of the dataset. Plain Python.

The short-run rule: the published recipes are made for 300 epochs; a run of at most `SHORT_RUN_EPOCHS` needs
a larger step, a shorter warm-up and tail, and an average that spans a twentieth of the run.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

from detection.architectures import ARCHITECTURES, Architecture, DetectorArchitecture
from detection.device_choice import AUTO, CPU
from detection.errors import ConfigError, Fault
from detection.families import Family, family_of
from detection.input_convention import InputConvention
from detection.training.checks import COMMON_CHECKS, LARGEST_SIDE, SMALLEST_SIDE, Check
from detection.training.config import (
    KINDS_WITH_GAIN,
    RANDOM,
    WEIGHT_INIT_GAIN,
    AugmentationConfig,
    EmaConfig,
    EvaluationConfig,
    FreezeConfig,
    MeasuringConfig,
    OptimizerConfig,
    OptimizerKind,
    Precision,
    ScheduleConfig,
    ScheduleKind,
    TrainingConfig,
    WeightInitConfig,
    num_devices,
    num_processes,
)
from detection.training.schedules import (
    EPOCH_KINDS,
    epochwise_warmup_epochs,
    fitted_min_lr_ratio,
    fitted_peak,
    warmup_start,
)

C = TypeVar("C", bound=TrainingConfig)

LR_PER_IMAGE = 0.01 / 64
SHORT_RUN_LR_FACTOR = 4
ADAM_LR = 1e-3
WEIGHT_DECAY = 5e-4
NANODET_WARMUP_STEPS = 500


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of full batches that cover `num_images` once; the index stream is endless."""
    return max(math.ceil(num_images / batch_size), 1)


def checks_of(family: Family[Any]) -> tuple[Check, ...]:
    """Return everything that `resolve` looks for in a configuration of this family."""
    return *COMMON_CHECKS, *family.checks


def resolve(config: C, *, num_images: int) -> C:
    """Return `config` with all nulls filled in that the recipe decides, for that many training pictures.

    Raises:
        UnknownNameError: the architecture is not known.
        ConfigError: fields contradict each other; all faults are listed.
    """
    architecture, family = ARCHITECTURES[config.architecture], family_of(config.architecture)
    if not isinstance(config, family.config):
        problem = f"{architecture.name} needs a {family.config.__name__}, not a {type(config).__name__}"
        raise ConfigError([Fault("/architecture", problem)])
    if faults := _contradictions(config, architecture):
        raise ConfigError(faults)
    config = family.complete(config, architecture)
    if config.init == RANDOM:
        config = family.begin_with(config, architecture.convention)
    batch_size = _batch_size(config, num_images, family.images_per_device)
    steps = steps_per_epoch(num_images, batch_size)
    optimizer = _optimizer(config, batch_size)
    input_size = config.input_size or architecture.input_size
    resolved = replace(
        config,
        batch_size=batch_size,
        input_size=input_size,
        processes=num_processes(config),
        precision=_precision(config.precision, config.device),
        weight_init=_weight_init(config.weight_init),
        freeze=_freeze(config, batch_size),
        optimizer=optimizer,
        schedule=_schedule(config, optimizer, steps),
        ema=_ema(config, steps),
        augmentation=_augmentation(config.augmentation, input_size, architecture.input_multiple),
        evaluation=_evaluation(config, architecture),
    )
    if faults := _lone_cell_faults(resolved, architecture):
        raise ConfigError(faults)
    return resolved


def faults_of(config: TrainingConfig) -> list[Fault]:
    """Return what contradicts itself in a resolved configuration, some field of which was changed since."""
    architecture = ARCHITECTURES[config.architecture]
    return [*_contradictions(config, architecture), *_lone_cell_faults(config, architecture)]


def _contradictions(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    checks = checks_of(family_of(config.architecture))
    return [fault for check in checks for fault in check(config, architecture)]


def _lone_cell_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    """Tell where batch norm would see a single value per channel, of which it learns nothing."""
    sides = {"/input_size": config.input_size or architecture.input_size}
    if config.augmentation.multi_scale and config.augmentation.multi_scale_range:
        sides["/augmentation/multi_scale_range"] = config.augmentation.multi_scale_range[0]
    seen_together = 1 if config.sync_bn else num_processes(config)
    batch_sizes = (config.batch_size, config.freeze.batch_size)
    smallest_batch = min(size // seen_together for size in batch_sizes if isinstance(size, int))
    stride = architecture.coarsest_stride
    return [
        Fault(
            where,
            f"a side of {side} leaves one cell of the last feature map, too little to learn from with one"
            f" picture per step and process: more than {stride}, or a `batch_size` of at least"
            f" {2 * num_processes(config)}",
        )
        for where, side in sides.items()
        if smallest_batch == 1 and side <= stride
    ]


def begin_with(config: C, convention: InputConvention) -> C:
    """Return a resolved configuration with what follows from the weights that the training starts from.

    Args:
        convention: how those weights see pictures.
    """
    begun: C = family_of(config.architecture).begin_with(config, convention)
    return begun


def settle(config: C, *, device: str, threads: int) -> C:
    """Return a resolved configuration with what only the worker knows: where and how it computes.

    A precision and a number of threads that are settled stay so: a training that goes on elsewhere computes
    as it began.

    Args:
        device: `cpu`, or the accelerator's number.
        threads: that the job may use, over all of its processes.
    """
    share = max(threads // (config.processes or 1), 1)
    return replace(
        config,
        device=device,
        precision=_precision(config.precision, device),
        threads=config.threads or share,
    )


def _batch_size(config: TrainingConfig, num_images: int, images_per_device: int) -> int:
    if config.batch_size != "auto":
        return config.batch_size
    processes = num_processes(config)
    most = min(images_per_device * num_devices(config.device), num_images)
    return max(most // processes * processes, processes)


def _precision(chosen: Precision, device: str) -> Precision:
    """Return what `auto` means on a device, as far as that is known."""
    if chosen is not Precision.AUTO or device.strip() in ("", AUTO):
        return chosen
    return Precision.FP32 if device == CPU else Precision.AMP


def _weight_init(chosen: WeightInitConfig) -> WeightInitConfig:
    if chosen.kind not in KINDS_WITH_GAIN:
        return chosen
    return replace(chosen, gain=WEIGHT_INIT_GAIN if chosen.gain is None else chosen.gain)


def _freeze(config: TrainingConfig, batch_size: int) -> FreezeConfig:
    chosen = config.freeze
    if not chosen.parts:
        return chosen
    epochs = config.epochs if chosen.epochs is None else chosen.epochs
    return replace(chosen, epochs=epochs, batch_size=chosen.batch_size or batch_size)


def _optimizer(config: TrainingConfig, batch_size: int) -> OptimizerConfig:
    chosen = config.optimizer
    sgd = chosen.kind is OptimizerKind.SGD
    epochwise = config.schedule.kind in EPOCH_KINDS
    recipe_lr = LR_PER_IMAGE * batch_size * (SHORT_RUN_LR_FACTOR if config.is_short else 1)
    if not sgd:
        recipe_lr = ADAM_LR
    if epochwise and not config.is_short:
        recipe_lr = fitted_peak(batch_size, chosen.kind)
    lr = chosen.lr or (chosen.lr_per_image * batch_size if chosen.lr_per_image else recipe_lr)
    recipe_momentum = 0.937 if epochwise else 0.9
    momentum = chosen.momentum if chosen.momentum is not None else recipe_momentum
    decay = WEIGHT_DECAY if chosen.weight_decay is None else chosen.weight_decay
    return replace(chosen, lr=lr, lr_per_image=None, momentum=momentum, weight_decay=decay)


def _schedule(config: TrainingConfig, optimizer: OptimizerConfig, steps: int) -> ScheduleConfig:
    chosen, peak_lr = config.schedule, optimizer.lr or 0.0
    warmup = _recipe_warmup_steps(config, steps)
    if chosen.warmup_epochs is not None:
        warmup = round(chosen.warmup_epochs * steps)
    if chosen.warmup_steps is not None:
        warmup = chosen.warmup_steps
    ratio = chosen.min_lr_ratio if chosen.min_lr_ratio is not None else _recipe_min_lr_ratio(chosen.kind)
    start = chosen.warmup_start if chosen.warmup_start is not None else warmup_start(chosen.kind, peak_lr)
    return replace(
        chosen,
        warmup_epochs=None,
        warmup_steps=warmup,
        warmup_start=start,
        no_aug_epochs=chosen.no_aug_epochs or 0,
        min_lr_ratio=fitted_min_lr_ratio(ratio, chosen.kind, peak_lr=peak_lr, optimizer=optimizer.kind),
    )


def _recipe_warmup_steps(config: TrainingConfig, steps: int) -> int:
    match config.schedule.kind:
        case ScheduleKind.COS | ScheduleKind.MULTISTEP | ScheduleKind.EPOCH_STEP:
            return 0
        case ScheduleKind.EPOCH_COS:
            return round(epochwise_warmup_epochs(config.epochs) * steps)
        case ScheduleKind.NANODET:
            published = NANODET_WARMUP_STEPS
        case _:
            published = 5 * steps
    return min(published, config.epochs * steps // 10)


def _recipe_min_lr_ratio(kind: ScheduleKind) -> float:
    if kind in EPOCH_KINDS:
        return 0.01
    return 0.05 if kind in (ScheduleKind.YOLOXWARMCOS, ScheduleKind.NANODET) else 0.0


def _ema(config: TrainingConfig, steps: int) -> EmaConfig:
    total = config.epochs * steps
    decay, ramp = 0.9998, 2000.0
    if config.is_short:
        decay = max(min(decay, 1 - 1 / max(0.05 * total, 1)), 0.0)
        ramp = max(min(ramp, total / 10), 1e-3)
    chosen = config.ema
    return replace(
        chosen,
        decay=chosen.decay if chosen.decay is not None else decay,
        ramp_updates=chosen.ramp_updates if chosen.ramp_updates is not None else ramp,
    )


def _augmentation(chosen: AugmentationConfig, side: int, multiple: int) -> AugmentationConfig:
    around = max(side - 5 * multiple, SMALLEST_SIDE), min(side + 5 * multiple, LARGEST_SIDE)
    return replace(
        chosen,
        multi_scale=bool(chosen.multi_scale),
        multi_scale_range=chosen.multi_scale_range or around,
    )


def _evaluation(config: TrainingConfig, architecture: Architecture) -> MeasuringConfig:
    every_epochs = config.evaluation.every_epochs or (1 if config.is_short else 10)
    chosen = replace(config.evaluation, every_epochs=every_epochs)
    if not isinstance(chosen, EvaluationConfig) or not isinstance(architecture, DetectorArchitecture):
        return chosen
    threshold, nms_iou = chosen.score_threshold, chosen.nms_iou
    return replace(
        chosen,
        score_threshold=architecture.evaluation_score_threshold if threshold is None else threshold,
        nms_iou=architecture.nms_iou if nms_iou is None else nms_iou,
        max_detections=chosen.max_detections or architecture.evaluation_max_detections,
    )
