"""Every option of a training does something: two steps with a value that is not the default, one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import TypeAdapter

from detection.training.config import TrainingConfig
from detection.training.job import TrainingJob
from detection.training.recipes import resolve
from detection.training.run import TrainingResult, train
from detection.training.state import StopRequest
from tests.small_job import NUM_TRAIN, Series, final_digest, small_job

BASE: dict[str, Any] = {
    "architecture": "yolox-nano",
    "epochs": 1,
    "batch_size": 4,
    "input_size": 64,
    "device": "cpu",
    "schedule": {"warmup_steps": 0, "no_aug_epochs": 0},
}
"""Three steps in one epoch, the first one at the peak of the learning rate already."""
MOSAIC = {"augmentation": {"mosaic": 1.0}}
MIXUP = {"augmentation": {"mixup": 1.0}}
COLOUR = {"augmentation": {"hsv": 1.0}}
SIZES = {"augmentation": {"multi_scale": True, "multi_scale_range": [64, 160], "multi_scale_every": 1}}
FROZEN = {"freeze": {"parts": ["backbone"]}}
SLOW_START = {"schedule": {"warmup_steps": 2, "no_aug_epochs": 0}}
PLATEAUS = {"epochs": 4, "schedule": {"kind": "epoch_step", "step_num": 4, "no_aug_epochs": 0}}
DROPS = {"epochs": 3, "schedule": {"kind": "multistep", "milestones": [1], "no_aug_epochs": 0}}


class Example(NamedTuple):
    """A value of an option that is not its default, and what it needs to be of use."""

    value: Any
    along: Mapping[str, Any] = {}
    changes: bool = True
    """Whether the weights after the steps must differ; false where the option acts elsewhere."""
    steps: int = 2


ELSEWHERE = "tried by a test of its own"
EXAMPLES: dict[str, Example | str] = {
    "architecture": Example("yolox-tiny"),
    "init": ELSEWHERE,
    "init_exclude": ELSEWHERE,
    "weight_init.kind": Example("xavier"),
    "weight_init.gain": Example(0.5, {"weight_init": {"kind": "normal"}}),
    "freeze.parts": Example(["backbone", "neck"]),
    "freeze.epochs": Example(1, {**FROZEN, "epochs": 2}, steps=4),
    "freeze.batch_size": Example(6, FROZEN),
    "epochs": Example(2),
    "batch_size": Example(2),
    "input_size": Example(96),
    "device": Example("auto", changes=torch.cuda.is_available()),
    "precision": Example("amp"),
    "seed": Example(1),
    "deterministic": Example(False, changes=torch.cuda.is_available()),
    "processes": Example(1, changes=False),
    "sync_bn": Example(True, changes=False),
    "optimizer.kind": Example("adamw"),
    "optimizer.lr": Example(0.001),
    "optimizer.lr_per_image": Example(0.001),
    "optimizer.momentum": Example(0.5),
    "optimizer.nesterov": Example(False),
    "optimizer.weight_decay": Example(0.1),
    "optimizer.clip_norm": Example(0.1),
    "schedule.kind": Example("warmcos"),
    "schedule.warmup_epochs": Example(0.5, {"schedule": {"warmup_steps": None}, "epochs": 2}),
    "schedule.warmup_steps": Example(2),
    "schedule.warmup_start": Example(0.001, SLOW_START),
    "schedule.no_aug_epochs": Example(1),
    "schedule.min_lr_ratio": Example(0.5),
    "schedule.milestones": Example([2], DROPS, steps=4),
    "schedule.gamma": Example(0.5, DROPS, steps=4),
    "schedule.step_num": Example(3, PLATEAUS, steps=5),
    "ema.enabled": Example(False),
    "ema.decay": Example(0.5),
    "ema.ramp_updates": Example(100.0, {"ema": {"decay": 0.9}}),
    "ema.integer_buffers": Example("keep"),
    "assigner.rule": Example("center15"),
    "assigner.centre_radius": Example(1.0),
    "assigner.top_candidates": Example(1),
    "assigner.iou_cost_weight": Example(0.0),
    "loss.box": Example("giou"),
    "loss.box_weight": Example(1.0),
    "loss.l1": Example("always"),
    "augmentation.mosaic": Example(1.0),
    "augmentation.mosaic_scale": Example([0.3, 0.4], MOSAIC),
    "augmentation.affine": Example(0.0),
    "augmentation.affine_scale": Example([0.3, 0.4]),
    "augmentation.rotate_degrees": Example(90.0, MOSAIC),
    "augmentation.shear_degrees": Example(30.0, MOSAIC),
    "augmentation.translate": Example(0.5, MOSAIC),
    "augmentation.mixup": Example(1.0),
    "augmentation.mixup_scale": Example([0.2, 0.3], MIXUP),
    "augmentation.hsv": Example(0.0),
    "augmentation.hue": Example(60, COLOUR),
    "augmentation.saturation": Example(200, COLOUR),
    "augmentation.value": Example(200, COLOUR),
    "augmentation.flip": Example(1.0),
    "augmentation.multi_scale": Example(
        True, {"augmentation": {"multi_scale_range": [96, 96], "multi_scale_every": 1}}
    ),
    "augmentation.multi_scale_range": Example([96, 96], SIZES),
    "augmentation.multi_scale_every": Example(100, SIZES, steps=3),
    "evaluation.every_epochs": ELSEWHERE,
    "evaluation.score_threshold": ELSEWHERE,
    "evaluation.nms_iou": ELSEWHERE,
    "evaluation.max_detections": ELSEWHERE,
    "early_stopping.patience": ELSEWHERE,
    "early_stopping.min_delta": ELSEWHERE,
    "checkpoint_every": ELSEWHERE,
    "time_limit_s": ELSEWHERE,
}


def options(config: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every option with its default, nested ones with a dotted name."""
    assert is_dataclass(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings, the later over the earlier."""
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, Mapping) and isinstance(whole.get(name), Mapping)
            whole[name] = merged(whole[name], value) if both else value
    return whole


def as_settings(option: str, value: Any) -> dict[str, Any]:
    name, _, rest = option.partition(".")
    return {name: as_settings(rest, value) if rest else value}


def run(folder: Path, settings: Mapping[str, Any], steps: int) -> tuple[TrainingJob, Series, TrainingResult]:
    """Train a number of steps as `POST /train` would with these settings."""
    config = TypeAdapter(TrainingConfig).validate_python(dict(settings))
    job = replace(small_job(folder, val=0), config=resolve(config, num_images=NUM_TRAIN))
    series = Series()
    result = train(job, reporter=series, requests=lambda: StopRequest.DRAIN if steps in series.rows else None)
    return job, series, result


def digest_of(job: TrainingJob) -> str:
    """Hash weights and average; without an average, that there is none."""
    return final_digest(job) if job.config.ema.enabled else "no average"


@pytest.fixture(scope="module")
def usual_digest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, Any], int], str]:
    """Train with settings that several options are compared with, once."""
    known: dict[str, str] = {}

    def digest(settings: Mapping[str, Any], steps: int) -> str:
        key = json.dumps([settings, steps], sort_keys=True)
        if key not in known:
            job, _, _ = run(tmp_path_factory.mktemp("usual"), settings, steps)
            known[key] = digest_of(job)
        return known[key]

    return digest


def test_every_option_has_an_example() -> None:
    defaults = dict(options(TrainingConfig()))
    assert EXAMPLES.keys() == defaults.keys()
    for name, example in EXAMPLES.items():
        if isinstance(example, Example) and name != "device":
            assert example.value != defaults[name], name


@pytest.mark.parametrize(
    "option", [name for name, example in EXAMPLES.items() if isinstance(example, Example)]
)
def test_an_option_trains_and_changes_what_it_should(
    tmp_path: Path, usual_digest: Callable[[Mapping[str, Any], int], str], option: str
) -> None:
    example = EXAMPLES[option]
    assert isinstance(example, Example)
    usual = merged(BASE, example.along)
    other = merged(usual, as_settings(option, example.value))
    job, series, result = run(tmp_path, other, example.steps)
    assert result.state.step == example.steps
    assert all(math.isfinite(value) for row in series.rows.values() for value in row.values())
    assert (digest_of(job) != usual_digest(usual, example.steps)) is example.changes
