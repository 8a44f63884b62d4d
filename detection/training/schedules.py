"""Learning-rate schedules as pure functions of the step. Plain Python.

`yoloxwarmcos`, `warmcos`, `cos` and `multistep` change with every step, as Megvii's trainer does;
`epoch_cos` and `epoch_step` change with every epoch, as bubbliiiing's does; `nanodet` changes with every step
of its warm-up, and with every epoch after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from detection.training.config import OptimizerKind, ScheduleConfig, ScheduleKind

NOMINAL_BATCH = 64
NOMINAL_LR = {OptimizerKind.SGD: 1e-2, OptimizerKind.ADAM: 1e-3, OptimizerKind.ADAMW: 1e-3}
LR_LIMITS = {
    OptimizerKind.SGD: (5e-4, 5e-2),
    OptimizerKind.ADAM: (3e-4, 1e-3),
    OptimizerKind.ADAMW: (3e-4, 1e-3),
}
"""Lowest and highest peak of the epoch-wise schedules; their floors end at a hundredth of these."""

NANODET_WARMUP_RATIO = 1e-4

EPOCH_KINDS = (ScheduleKind.EPOCH_COS, ScheduleKind.EPOCH_STEP)

Curve = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of every step of a run."""

    curve: Curve
    """Learning rate by time, where time is counted in ticks."""
    steps_per_tick: int = 1

    def lr_at(self, step: int) -> float:
        """Return the rate for the step of this number, counted from 0."""
        return self.curve(step // self.steps_per_tick)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """From `start` to `peak` within `length` ticks, then another curve."""

    start: float
    peak: float
    length: float
    power: int
    then: Curve

    def __call__(self, time: float) -> float:
        if self.length == 0 or time > self.length:
            return self.then(time)
        return self.start + (self.peak - self.start) * (time / self.length) ** self.power


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """Half a cosine from `peak` at `begin` to `floor` at `end`, where it stays."""

    peak: float
    floor: float
    begin: float
    end: float

    def __call__(self, time: float) -> float:
        if time >= self.end:
            return self.floor
        phase = math.pi * (time - self.begin) / (self.end - self.begin)
        return self.floor + (self.peak - self.floor) / 2 * (1 + math.cos(phase))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerEpoch:
    """Another curve, whose time is counted in epochs, in ticks: it stands still within an epoch.

    Differs from the reference: that computes each epoch's rate from the last one, so that a warm-up which
    ends within an epoch shifts all that follows. This is the closed form.
    """

    curve: Curve
    ticks_per_epoch: int

    def __call__(self, time: float) -> float:
        return self.curve(time // self.ticks_per_epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStep:
    """`peak`, multiplied with `gamma` at every milestone, down to `floor`."""

    peak: float
    floor: float
    gamma: float
    milestones: tuple[float, ...]

    def __call__(self, time: float) -> float:
        passed = sum(milestone <= time for milestone in self.milestones)
        return max(self.peak * self.gamma**passed, self.floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateaus:
    """`count` plateaus of equal length, in equal ratios from `peak` to `floor`."""

    peak: float
    floor: float
    count: int
    total: float

    def __call__(self, time: float) -> float:
        ratio = (self.floor / self.peak) ** (1 / (self.count - 1))
        return self.peak * ratio ** math.floor(time * self.count / self.total)


def build_schedule(config: ScheduleConfig, *, peak_lr: float, epochs: int, steps_per_epoch: int) -> Schedule:
    """Return the schedule of a resolved configuration.

    The constant end of `epoch_cos` is a twentieth of the run, at least 1 and at most 15 epochs, whatever
    `no_aug_epochs` is.

    Raises:
        ValueError: the configuration is not resolved.
    """
    warmup_steps, start, ratio = config.warmup_steps, config.warmup_start, config.min_lr_ratio
    if warmup_steps is None or start is None or ratio is None or config.no_aug_epochs is None:
        raise ValueError(
            "the schedule is not resolved: warmup_steps, warmup_start, min_lr_ratio, no_aug_epochs are needed"
        )
    steps_per_tick = steps_per_epoch if config.kind in EPOCH_KINDS else 1
    ticks_per_epoch = steps_per_epoch // steps_per_tick
    warmup_ticks = warmup_steps / steps_per_tick
    body = _body(
        config,
        peak=peak_lr,
        floor=ratio * peak_lr,
        begin=warmup_ticks,
        epochs=epochs,
        ticks_per_epoch=ticks_per_epoch,
    )
    quadratic = config.kind in (ScheduleKind.YOLOXWARMCOS, ScheduleKind.EPOCH_COS)
    warmup = Warmup(start=start, peak=peak_lr, length=warmup_ticks, power=2 if quadratic else 1, then=body)
    return Schedule(warmup, steps_per_tick)


def _body(
    config: ScheduleConfig, *, peak: float, floor: float, begin: float, epochs: int, ticks_per_epoch: int
) -> Curve:
    """Return the curve after the warm-up."""
    match config.kind:
        case ScheduleKind.MULTISTEP:
            milestones = tuple(float(epoch * ticks_per_epoch) for epoch in config.milestones)
            return MultiStep(peak=peak, floor=floor, gamma=config.gamma, milestones=milestones)
        case ScheduleKind.EPOCH_STEP:
            return Plateaus(peak=peak, floor=floor, count=config.step_num, total=epochs)
        case ScheduleKind.NANODET:
            cosine = Cosine(peak=peak, floor=floor, begin=0, end=epochs)
            return PerEpoch(curve=cosine, ticks_per_epoch=ticks_per_epoch)
        case _:
            end = (epochs - _constant_epochs(config, epochs)) * ticks_per_epoch
            return Cosine(peak=peak, floor=floor, begin=begin, end=end)


def _constant_epochs(config: ScheduleConfig, epochs: int) -> float:
    """Return how many epochs at the end run at the floor."""
    if config.kind is ScheduleKind.YOLOXWARMCOS:
        return config.no_aug_epochs or 0
    return clipped(0.05 * epochs, 1, 15) if config.kind is ScheduleKind.EPOCH_COS else 0


def epochwise_warmup_epochs(epochs: int) -> float:
    """Return the published warm-up of `epoch_cos`."""
    return clipped(0.05 * epochs, 1, 3)


def warmup_start(kind: ScheduleKind, peak_lr: float) -> float:
    """Return the published rate of the first step."""
    if kind is ScheduleKind.EPOCH_COS:
        return max(0.1 * peak_lr, 1e-6)
    return NANODET_WARMUP_RATIO * peak_lr if kind is ScheduleKind.NANODET else 0.0


def fitted_min_lr_ratio(
    ratio: float, schedule: ScheduleKind, *, peak_lr: float, optimizer: OptimizerKind
) -> float:
    """Return the ratio of the floor that a schedule really has: the epoch-wise ones limit it."""
    floor = ratio * peak_lr
    if schedule not in EPOCH_KINDS:
        return ratio
    fitted = min(fitted_floor(floor, optimizer), peak_lr)
    return ratio if fitted == floor else fitted / peak_lr


def fitted_peak(batch_size: int, kind: OptimizerKind) -> float:
    """Return the published peak of the epoch-wise schedules for a batch of this size."""
    return clipped(batch_size / NOMINAL_BATCH * NOMINAL_LR[kind], *LR_LIMITS[kind])


def fitted_floor(floor: float, kind: OptimizerKind) -> float:
    """Return the floor as the epoch-wise schedules limit it."""
    lowest, highest = LR_LIMITS[kind]
    return clipped(floor, lowest / 100, highest / 100)


def clipped(value: float, lowest: float, highest: float) -> float:
    """Return the nearest value that is not outside the bounds."""
    return min(max(value, lowest), highest)
