"""Contradictions between the fields of a configuration, each found by a check of its own. Plain Python."""

from __future__ import annotations

from collections.abc import Callable

from detection.architectures import Architecture, names_for
from detection.device_choice import AUTO, CPU
from detection.errors import Fault
from detection.training.config import (
    KINDS_WITH_GAIN,
    RANDOM,
    OptimizerKind,
    ScheduleKind,
    TrainingConfig,
    num_devices,
    num_processes,
)

SMALLEST_SIDE = 64
"""Pixels; at least one cell of the coarsest feature map of any architecture."""
LARGEST_SIDE = 2048
MOST_ZOOM = 10.0
"""A picture zoomed further has no memory to be drawn in, and nothing left to be seen."""

Check = Callable[[TrainingConfig, Architecture], list[Fault]]
"""Looks for one contradiction between the fields of a configuration."""


def _task_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if config.task is not architecture.task:
        there_are = ", ".join(names_for(config.task))
        problem = (
            f"{architecture.name} is a network to {architecture.task}; to {config.task} there are {there_are}"
        )
        return [Fault("/task", problem)]
    return []


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
    if config.weight_init.kind != "default" and config.init != RANDOM:
        return [Fault("/weight_init/kind", 'only with `init: "random"`')]
    return []


def _exclude_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if not config.init_exclude:
        return []
    if config.init == RANDOM:
        return [Fault("/init_exclude", 'only with an `init` other than "random"')]
    if "" in config.init_exclude:
        problem = "an empty text is part of every name and excludes all weights"
        return [Fault("/init_exclude", problem)]
    return []


def _freeze_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    freeze = config.freeze
    if not freeze.parts and (freeze.epochs is not None or freeze.batch_size is not None):
        return [Fault("/freeze/parts", "name the parts that are frozen")]
    return []


def range_check(name: str, most: float) -> Check:
    """Return a check of a range among the options of the augmentation."""

    def check(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
        given = getattr(config.augmentation, name)
        if given is not None and not 0 < given[0] <= given[1] <= most:
            problem = f"must be [low, high] with 0 < low <= high <= {most}, not {list(given)}"
            return [Fault(f"/augmentation/{name}", problem)]
        return []

    return check


def _batch_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    return _division_faults("/batch_size", config.batch_size, num_processes(config))


def _frozen_batch_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    return _division_faults("/freeze/batch_size", config.freeze.batch_size, num_processes(config))


def _division_faults(pointer: str, batch_size: int | str | None, processes: int) -> list[Fault]:
    if not isinstance(batch_size, int) or batch_size % processes == 0:
        return []
    return [Fault(pointer, f"{batch_size} cannot be divided evenly among {processes} processes")]


def _process_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    devices = num_devices(config.device)
    if config.device.strip().lower() in (AUTO, CPU) or config.processes in (None, devices):
        return []
    problem = f"each accelerator has one process: {devices} for the device `{config.device}`"
    return [Fault("/processes", problem)]


def _sync_faults(config: TrainingConfig, architecture: Architecture) -> list[Fault]:
    if config.sync_bn and num_processes(config) == 1:
        problem = "there is nothing to synchronise with in one process; give `processes` or several devices"
        return [Fault("/sync_bn", problem)]
    return []


COMMON_CHECKS: tuple[Check, ...] = (
    _task_faults,
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
    range_check("multi_scale_range", LARGEST_SIDE),
    _batch_faults,
    _frozen_batch_faults,
    _process_faults,
    _sync_faults,
)
"""What every training refuses. Each check reads no more fields than those that contradict one another."""
