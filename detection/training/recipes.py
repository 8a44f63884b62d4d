"""Complete a configuration from the architecture's recipe and the size of the dataset. Plain Python.

The short-run rule: the published recipes are made for 300 epochs; a run of at most `SHORT_RUN_EPOCHS` needs
a larger step, a shorter warm-up and tail, and an average that spans a twentieth of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from detection.architectures import ARCHITECTURES, Architecture
from detection.errors import ConfigError, Fault
from detection.training.config import (
    AUTO,
    CENTRE_RADIUS,
    CPU,
    KINDS_WITH_GAIN,
    WEIGHT_INIT_GAIN,
    AugmentationConfig,
    EmaConfig,
    EvaluationConfig,
    FreezeConfig,
    OptimizerConfig,
    OptimizerKind,
    Precision,
    ScheduleConfig,
    ScheduleKind,
    TrainingConfig,
    WeightInitConfig,
    YoloxAssignerConfig,
)
from detection.training.schedules import (
    EPOCH_KINDS,
    epochwise_warmup_epochs,
    fitted_min_lr_ratio,
    fitted_peak,
    warmup_start,
)

SHORT_RUN_EPOCHS = 50
LR_PER_IMAGE = 0.01 / 64
SHORT_RUN_LR_FACTOR = 4
IMAGES_PER_DEVICE = 8
"""The published batch of 64 is spread over 8 devices."""
SMALLEST_SIDE = 64
"""Pixels; on a smaller input the coarsest level is one cell, which batch norm cannot learn from."""
LARGEST_SIDE = 2048
MOST_ZOOM = 10.0
"""A picture zoomed further has no memory to be drawn in, and nothing left to be seen."""

Check = Callable[[TrainingConfig, Architecture], list[Fault]]
"""Looks for one contradiction between the fields of a configuration."""


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of full batches that cover `num_images` once; the index stream is endless."""
    return max(math.ceil(num_images / batch_size), 1)


def resolve(config: TrainingConfig, *, num_images: int) -> TrainingConfig:
    """Return `config` with every null filled in for a training split of `num_images` pictures.

    Raises:
        UnknownNameError: the architecture is not known.
        ConfigError: fields contradict each other; all faults are listed.
    """
    architecture = ARCHITECTURES[config.architecture]
    faults = [fault for check in CHECKS for fault in check(config, architecture)]
    if faults:
        raise ConfigError(faults)
    batch_size = _batch_size(config, num_images)
    steps = steps_per_epoch(num_images, batch_size)
    optimizer = _optimizer(config, batch_size)
    return replace(
        config,
        batch_size=batch_size,
        input_size=config.input_size or architecture.input_size,
        processes=config.processes or _num_devices(config.device),
        precision=_precision(config.precision, config.device),
        weight_init=_weight_init(config.weight_init),
        freeze=_freeze(config, batch_size),
        optimizer=optimizer,
        schedule=_schedule(config, optimizer, steps),
        ema=_ema(config, steps),
        assigner=_assigner(config.assigner),
        augmentation=_augmentation(config, architecture),
        evaluation=_evaluation(config),
    )


def settle(config: TrainingConfig, *, device: str) -> TrainingConfig:
    """Return a resolved configuration with what only the worker knows: where it runs, and in which precision.

    A precision that is settled stays so: a training that goes on elsewhere computes as it began.

    Args:
        device: `cpu`, or the accelerator's number.
    """
    return replace(config, device=device, precision=_precision(config.precision, device))


def is_short(config: TrainingConfig) -> bool:
    """Return whether a run is too short for the recipe, which was made for 300 epochs."""
    return config.epochs <= SHORT_RUN_EPOCHS


def _num_devices(device: str) -> int:
    return max(len([part for part in device.split(",") if part.strip()]), 1)


def _batch_size(config: TrainingConfig, num_images: int) -> int:
    if config.batch_size != "auto":
        return config.batch_size
    devices = _num_devices(config.device)
    return max(min(IMAGES_PER_DEVICE * devices, num_images // devices * devices), devices)


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


def _assigner(chosen: YoloxAssignerConfig) -> YoloxAssignerConfig:
    return replace(chosen, centre_radius=chosen.centre_radius or CENTRE_RADIUS[chosen.rule])


def _optimizer(config: TrainingConfig, batch_size: int) -> OptimizerConfig:
    chosen = config.optimizer
    sgd = chosen.kind is OptimizerKind.SGD
    epochwise = config.schedule.kind in EPOCH_KINDS
    recipe_lr = LR_PER_IMAGE * batch_size * (SHORT_RUN_LR_FACTOR if is_short(config) else 1)
    if not sgd:
        recipe_lr = 1e-3
    if epochwise and not is_short(config):
        recipe_lr = fitted_peak(batch_size, chosen.kind)
    lr = chosen.lr or (chosen.lr_per_image * batch_size if chosen.lr_per_image else recipe_lr)
    recipe_momentum = 0.937 if epochwise else 0.9
    momentum = chosen.momentum if chosen.momentum is not None else recipe_momentum
    return replace(chosen, lr=lr, lr_per_image=None, momentum=momentum)


def _schedule(config: TrainingConfig, optimizer: OptimizerConfig, steps: int) -> ScheduleConfig:
    chosen, peak_lr = config.schedule, optimizer.lr or 0.0
    tail = max(1, round(0.15 * config.epochs)) if is_short(config) else 15
    no_aug_epochs = (
        chosen.no_aug_epochs if chosen.no_aug_epochs is not None else min(tail, 15, config.epochs - 1)
    )
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
        no_aug_epochs=no_aug_epochs,
        min_lr_ratio=fitted_min_lr_ratio(ratio, chosen.kind, peak_lr=peak_lr, optimizer=optimizer.kind),
    )


def _recipe_warmup_steps(config: TrainingConfig, steps: int) -> int:
    match config.schedule.kind:
        case ScheduleKind.COS | ScheduleKind.MULTISTEP | ScheduleKind.EPOCH_STEP:
            return 0
        case ScheduleKind.EPOCH_COS:
            return round(epochwise_warmup_epochs(config.epochs) * steps)
        case _:
            return min(5 * steps, config.epochs * steps // 10) if is_short(config) else 5 * steps


def _recipe_min_lr_ratio(kind: ScheduleKind) -> float:
    if kind in EPOCH_KINDS:
        return 0.01
    return 0.05 if kind is ScheduleKind.YOLOXWARMCOS else 0.0


def _ema(config: TrainingConfig, steps: int) -> EmaConfig:
    total = config.epochs * steps
    decay, ramp = 0.9998, 2000.0
    if is_short(config):
        decay = max(min(decay, 1 - 1 / max(0.05 * total, 1)), 0.0)
        ramp = max(min(ramp, total / 10), 1e-3)
    chosen = config.ema
    return replace(
        chosen,
        decay=chosen.decay if chosen.decay is not None else decay,
        ramp_updates=chosen.ramp_updates if chosen.ramp_updates is not None else ramp,
    )


def _augmentation(config: TrainingConfig, architecture: Architecture) -> AugmentationConfig:
    """Fill in the steps; a short run has no mosaic and a gentle affine step instead."""
    chosen, short = config.augmentation, is_short(config)

    def pick(value: float | None, short_run: float, full_run: float) -> float:
        return value if value is not None else (short_run if short else full_run)

    return replace(
        chosen,
        mosaic=pick(chosen.mosaic, 0.0, architecture.mosaic_probability),
        mosaic_scale=chosen.mosaic_scale or architecture.mosaic_scale,
        affine=pick(chosen.affine, 1.0, 0.0),
        mixup=pick(chosen.mixup, 0.0, architecture.mixup_probability),
        hsv=chosen.hsv if chosen.hsv is not None else 1.0,
        multi_scale=chosen.multi_scale if chosen.multi_scale is not None else not short,
        multi_scale_range=chosen.multi_scale_range or _multi_scale_range(config, architecture),
    )


def _multi_scale_range(config: TrainingConfig, architecture: Architecture) -> tuple[int, int]:
    side = config.input_size or architecture.input_size
    if side == architecture.input_size:
        return architecture.multi_scale
    multiple = architecture.input_multiple
    return max(side - 5 * multiple, SMALLEST_SIDE), min(side + 5 * multiple, LARGEST_SIDE)


def _evaluation(config: TrainingConfig) -> EvaluationConfig:
    every = config.evaluation.every_epochs or (1 if is_short(config) else 10)
    return replace(config.evaluation, every_epochs=every)


def _size_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    multiple = architecture.input_multiple
    if config.input_size is not None and config.input_size % multiple:
        return [Fault("/input_size", f"{config.input_size} is not a multiple of {multiple}")]
    return []


def _multi_scale_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    multiple = architecture.input_multiple
    sides = config.augmentation.multi_scale_range or ()
    if any(side % multiple or not SMALLEST_SIDE <= side <= LARGEST_SIDE for side in sides):
        problem = (
            f"sides must be multiples of {multiple} from {SMALLEST_SIDE} to {LARGEST_SIDE}, not {list(sides)}"
        )
        return [Fault("/augmentation/multi_scale_range", problem)]
    return []


def _rate_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if config.optimizer.lr is not None and config.optimizer.lr_per_image is not None:
        return [Fault("/optimizer/lr_per_image", "give `lr` or `lr_per_image`, not both")]
    return []


def _momentum_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    chosen = config.optimizer
    if chosen.kind is OptimizerKind.SGD and chosen.nesterov and chosen.momentum == 0:
        problem = "Nesterov needs a momentum above 0; set `nesterov` to false"
        return [Fault("/optimizer/nesterov", problem)]
    return []


def _warmup_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if config.schedule.warmup_epochs is not None and config.schedule.warmup_steps is not None:
        return [Fault("/schedule/warmup_steps", "give `warmup_epochs` or `warmup_steps`, not both")]
    return []


def _kind_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    schedule = config.schedule
    if schedule.kind is ScheduleKind.MULTISTEP and not schedule.milestones:
        return [Fault("/schedule/milestones", "`multistep` needs at least one milestone")]
    if schedule.kind is ScheduleKind.EPOCH_STEP and config.epochs < schedule.step_num:
        problem = f"{schedule.step_num} plateaus do not fit into {config.epochs} epochs"
        return [Fault("/schedule/step_num", problem)]
    return []


def _length_check(name: str) -> Check:
    def check(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
        epochs = getattr(config.schedule, name)
        if epochs is not None and epochs > config.epochs:
            return [Fault(f"/schedule/{name}", f"must be at most `epochs` ({config.epochs})")]
        return []

    return check


def _milestone_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    milestones = config.schedule.milestones
    if not milestones:
        return []
    if config.schedule.kind is not ScheduleKind.MULTISTEP:
        return [Fault("/schedule/milestones", "only `kind: multistep` has milestones")]
    late = [milestone for milestone in milestones if milestone >= config.epochs]
    if late:
        problem = f"each must be less than `epochs` ({config.epochs}): after epoch {late[0]} no step is left"
        return [Fault("/schedule/milestones", problem)]
    return []


def _gain_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    chosen = config.weight_init
    if chosen.gain is None:
        return []
    if chosen.kind not in KINDS_WITH_GAIN:
        return [Fault("/weight_init/gain", f"only with `kind` {', '.join(KINDS_WITH_GAIN)}")]
    return []


def _weight_init_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if config.weight_init.kind != "default" and config.init != "random":
        return [Fault("/weight_init/kind", 'only with `init: "random"`')]
    return []


def _exclude_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if not config.init_exclude:
        return []
    if config.init == "random":
        return [Fault("/init_exclude", 'only with an `init` other than "random"')]
    if "" in config.init_exclude:
        problem = "an empty text is part of every name and excludes all weights"
        return [Fault("/init_exclude", problem)]
    return []


def _freeze_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    freeze = config.freeze
    if not freeze.parts and (freeze.epochs is not None or freeze.batch_size is not None):
        return [Fault("/freeze/parts", "name what is frozen: `backbone`, `neck` or both")]
    return []


def _range_check(name: str, most: float) -> Check:
    def check(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
        given = getattr(config.augmentation, name)
        if given is not None and not 0 < given[0] <= given[1] <= most:
            problem = f"must be [low, high] with 0 < low <= high <= {most}, not {list(given)}"
            return [Fault(f"/augmentation/{name}", problem)]
        return []

    return check


def _device_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    devices = _num_devices(config.device)
    ranks = config.processes or devices
    if config.batch_size != "auto" and config.batch_size % max(ranks, 1):
        return [Fault("/batch_size", f"{config.batch_size} cannot be divided evenly among {ranks} devices")]
    return []


CHECKS: tuple[Check, ...] = (
    _size_faults,
    _multi_scale_faults,
    _rate_faults,
    _momentum_faults,
    _warmup_faults,
    _kind_faults,
    _length_check("no_aug_epochs"),
    _length_check("warmup_epochs"),
    _milestone_faults,
    _weight_init_faults,
    _gain_faults,
    _exclude_faults,
    _freeze_faults,
    _range_check("mosaic_scale", MOST_ZOOM),
    _range_check("affine_scale", MOST_ZOOM),
    _range_check("mixup_scale", MOST_ZOOM),
    _range_check("multi_scale_range", LARGEST_SIDE),
    _device_faults,
)
"""What `resolve` refuses. Each check reads no more fields than those that contradict one another."""
