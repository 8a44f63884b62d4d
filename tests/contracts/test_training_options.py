"""Every option of a training does something: a few steps with every value that it can have, one by one.

Of the architectures, the smallest two of a family train; the others are the same code with other widths and
depths, and `test_detectors.py` builds each of them. What all families share is tried with one of them.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import pytest
import torch

from detection.errors import DeviceError
from detection.evaluation.evaluate import detect_in_all
from detection.families import DEFAULT_FAMILY, FAMILIES, family_of
from detection.families.reading import read_config
from detection.inference.backends.eager import EagerBackend
from detection.inference.predictor import Predictor
from detection.models import create_model
from detection.training.job import TrainingJob
from detection.training.recipes import resolve
from detection.training.run import TrainingResult, train
from detection.training.state import StopReason, StopRequest
from tests.small_job import NUM_TRAIN, Series, final_digest, small_job

ROOT = Path(__file__).resolve().parents[2]
DEFAULT, NANODET, CLASSIFIER = DEFAULT_FAMILY.name, "nanodet-plus", "classifier"
ARCHITECTURE = {DEFAULT: "yolox-nano", NANODET: "nanodet-plus-m", CLASSIFIER: "mobilenet_v3_small"}
BASE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 4,
    "input_size": 64,
    "device": "cpu",
    "schedule": {"warmup_steps": 0, "no_aug_epochs": 0},
}
"""Three steps in one epoch, the first one at the peak of the learning rate already."""
TAIL = {"schedule": {"no_aug_epochs": 1}}
MOSAIC = {"augmentation": {"mosaic": 1.0}}
MIXUP = {"augmentation": {"mixup": 1.0}}
COLOUR = {"augmentation": {"hsv": 1.0}}
CROWDED = {"seed": 1}
"""Draws pictures whose boxes compete for priors from the first step on."""
COLOURED = {"augmentation": {"colour": 1.0}}
WIDE = {"crop": {"margin": 0.0}}
"""The small pictures hold a little more than their boxes."""
DECAY = {"optimizer": {"weight_decay": 0.5}}
SIZES = {"augmentation": {"multi_scale": True, "multi_scale_range": [64, 160], "multi_scale_every": 1}}
FROZEN = {"freeze": {"parts": ["backbone"]}}
SLOW_START = {"schedule": {"warmup_steps": 2, "no_aug_epochs": 0}}
PLATEAUS = {"epochs": 4, "schedule": {"kind": "epoch_step", "step_num": 4}}
DROPS = {"epochs": 3, "schedule": {"kind": "multistep", "milestones": [1]}}
EVERYTHING = {"evaluation": {"score_threshold": 0.0}}
"""So early, nothing is sure."""
NEVER_BETTER = {"epochs": 3, "early_stopping": {"min_delta": 1.0}}
TO_THE_END = 10**6
ON_CPU_ALONE = not torch.cuda.is_available()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left of a training."""

    job: TrainingJob
    series: Series
    result: TrainingResult


Look = Callable[[Outcome], object]


def weights(outcome: Outcome) -> object:
    """Hash weights, average and momentum; without an average, say that there is none."""
    return final_digest(outcome.job) if outcome.job.config.ema.enabled else "no average"


def measured_steps(outcome: Outcome) -> object:
    return [step for step, row in outcome.series.rows.items() if "ap" in row]


def num_measured(outcome: Outcome) -> object:
    """Count what an evaluation of this training would look at, with weights that know nothing."""
    torch.manual_seed(0)
    detector = create_model(outcome.job.config.architecture, num_classes=2).eval()
    job = outcome.job
    predictor = Predictor(EagerBackend(detector, job.devices[0]), job.record)
    found = detect_in_all(predictor, job.val_images, job.read)
    assert found is not None
    return [len(each) for each in found]


def length(outcome: Outcome) -> object:
    return outcome.result.state.step


def saved_steps(outcome: Outcome) -> object:
    return outcome.series.checkpoints


def kernels(outcome: Outcome) -> object:
    """Tell which kernels the training asked for; those of a CPU are repeatable either way."""
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark


class Example(NamedTuple):
    """A value of an option, and what it takes to see that it does something."""

    value: Any
    along: Mapping[str, Any] = {}
    """Settings with which the value and the default are compared."""
    steps: int = 2
    shows: Look = weights
    """In what the value must differ from the default."""
    val: int = 0
    """Pictures to measure on."""
    needs: Mapping[str, Any] = {}
    """Settings that the value cannot do without, and the default cannot have."""
    same: bool = False
    """The value is what the default means here: nothing may differ."""


RUN, CALLBACKS = "tests/unit/detection/test_run.py::", "tests/unit/detection/test_callbacks.py::"
REPLICAS = "tests/unit/detection/test_replicas.py::"
ELSEWHERE = {
    "init": RUN + "test_weights_may_start_from_a_file",
    "init_exclude": RUN + "test_weights_may_start_from_a_file",
    "early_stopping.min_delta": CALLBACKS + "test_small_gains_add_up",
    "evaluation.tta": "tests/unit/detection/test_publish.py::"
    "test_augmentation_is_measured_beside_the_plain_look",
    "time_limit_s": "test_a_training_ends_at_its_time_limit",
    "processes": REPLICAS + "test_two_ranks_have_the_losses_and_weights_of_one_process",
    "sync_bn": REPLICAS + "test_two_ranks_have_the_losses_and_weights_of_one_process",
    "task": "tests/unit/detection/test_recipes.py::test_the_task_follows_from_the_architecture",
    "threads": "tests/unit/detection/test_recipes.py::"
    "test_the_worker_settles_the_threads_once_and_shares_them_among_processes",
    "attribute": "tests/unit/detection/test_crop_samples.py::test_or_of_its_attribute",
}
"""Options with a test of their own, and which."""
OF_ALL: dict[str, list[Example]] = {
    "architecture": [Example("yolox-tiny")],
    "weight_init.kind": [
        Example("normal"),
        Example("xavier"),
        Example("kaiming"),
        Example("orthogonal"),
    ],
    "weight_init.gain": [Example(0.5, {"weight_init": {"kind": "normal"}})],
    "freeze.parts": [Example(["backbone"]), Example(["neck"]), Example(["backbone", "neck"])],
    "freeze.epochs": [Example(1, {**FROZEN, "epochs": 2}, steps=4)],
    "freeze.batch_size": [Example(6, FROZEN)],
    "epochs": [Example(2)],
    "batch_size": [Example(2), Example("auto")],
    "input_size": [Example(96)],
    "device": [Example("auto", same=ON_CPU_ALONE)],
    "precision": [Example("amp"), Example("fp32", same=True)],
    "seed": [Example(1)],
    "deterministic": [Example(False, shows=kernels)],
    "optimizer.kind": [Example("adam"), Example("adamw")],
    "optimizer.lr": [Example(0.001)],
    "optimizer.lr_per_image": [Example(0.001)],
    "optimizer.momentum": [Example(0.5)],
    "optimizer.nesterov": [Example(False)],
    "optimizer.weight_decay": [Example(0.1)],
    "optimizer.decay_norms": [Example(True, DECAY)],
    "optimizer.decay_biases": [Example(True, DECAY)],
    "optimizer.clip_norm": [Example(0.1)],
    "schedule.kind": [
        Example("warmcos"),
        Example("cos"),
        Example("multistep", {"epochs": 2}, needs={"schedule": {"milestones": [1]}}),
        Example("epoch_cos"),
        Example("epoch_step", {"epochs": 2}, needs={"schedule": {"step_num": 2}}),
        Example("nanodet"),
    ],
    "schedule.warmup_epochs": [Example(0.5, {"schedule": {"warmup_steps": None}, "epochs": 2})],
    "schedule.warmup_steps": [Example(2)],
    "schedule.warmup_start": [Example(0.001, SLOW_START)],
    "schedule.no_aug_epochs": [Example(1)],
    "schedule.min_lr_ratio": [Example(0.5)],
    "schedule.milestones": [Example([2], DROPS, steps=4)],
    "schedule.gamma": [Example(0.5, DROPS, steps=4)],
    "schedule.step_num": [Example(3, PLATEAUS, steps=5)],
    "ema.enabled": [Example(False)],
    "ema.decay": [Example(0.5)],
    "ema.ramp_updates": [Example(100.0, {"ema": {"decay": 0.9}})],
    "ema.integer_buffers": [Example("keep")],
    "assigner.rule": [Example("center15")],
    "assigner.centre_radius": [Example(1.0, CROWDED)],
    "assigner.top_candidates": [Example(1, CROWDED)],
    "assigner.iou_cost_weight": [Example(0.0)],
    "loss.box": [Example("giou")],
    "loss.box_weight": [Example(1.0)],
    "loss.l1": [Example("always"), Example("never", TAIL)],
    "augmentation.mosaic": [Example(1.0)],
    "augmentation.mosaic_scale": [Example([0.3, 0.4], MOSAIC)],
    "augmentation.affine": [Example(0.0)],
    "augmentation.affine_scale": [Example([0.3, 0.4])],
    "augmentation.rotate_degrees": [Example(90.0, MOSAIC)],
    "augmentation.shear_degrees": [Example(30.0, MOSAIC)],
    "augmentation.translate": [Example(0.5, MOSAIC)],
    "augmentation.mixup": [Example(1.0)],
    "augmentation.mixup_scale": [Example([0.2, 0.3], MIXUP)],
    "augmentation.hsv": [Example(0.0)],
    "augmentation.hue": [Example(60, COLOUR)],
    "augmentation.saturation": [Example(200, COLOUR)],
    "augmentation.value": [Example(200, COLOUR)],
    "augmentation.flip": [Example(1.0)],
    "augmentation.multi_scale": [
        Example(True, {"augmentation": {"multi_scale_range": [96, 96], "multi_scale_every": 1}}),
        Example(False, same=True),
    ],
    "augmentation.multi_scale_range": [Example([96, 96], SIZES)],
    "augmentation.multi_scale_every": [Example(100, SIZES, steps=3)],
    "evaluation.every_epochs": [Example(2, {"epochs": 2}, TO_THE_END, measured_steps, val=4)],
    "evaluation.score_threshold": [Example(0.0, shows=num_measured, val=4)],
    "evaluation.nms_iou": [Example(0.01, EVERYTHING, shows=num_measured, val=4)],
    "evaluation.max_detections": [Example(1, EVERYTHING, shows=num_measured, val=4)],
    "early_stopping.patience": [Example(1, NEVER_BETTER, TO_THE_END, length, val=4)],
    "checkpoint_every": [Example(2, {"epochs": 2}, TO_THE_END, saved_steps)],
}
OF_NANODET: dict[str, list[Example]] = {
    "architecture": [Example("nanodet-plus-m-1.5x")],
    "optimizer.kind": [Example("sgd"), Example("adam")],
    "optimizer.decay_norms": [Example(False, DECAY)],
    "optimizer.decay_biases": [Example(False, DECAY)],
    "optimizer.clip_norm": [Example(0.1)],
    "schedule.kind": [Example("yoloxwarmcos")],
    "assigner.top_candidates": [Example(1)],
    "assigner.iou_cost_weight": [Example(0.0)],
    "assigner.soft_centre_prior": [Example(True, CROWDED)],
    "assigner.own_box_only": [Example(True)],
    "assigner.ignore_overlap": [Example(0.5, steps=3)],
    "assigner.self_assign_epoch": [Example(0)],
    "loss.qfl_weight": [Example(0.5)],
    "loss.giou_weight": [Example(1.0)],
    "loss.dfl_weight": [Example(1.0)],
    "loss.detach_epoch": [Example(0)],
    "augmentation.scale": [Example([0.3, 0.4])],
    "augmentation.stretch": [Example([0.5, 0.6])],
    "augmentation.translate": [Example(0.5)],
    "augmentation.rotate_degrees": [Example(90.0)],
    "augmentation.shear_degrees": [Example(30.0)],
    "augmentation.perspective": [Example(0.3)],
    "augmentation.flip": [Example(1.0)],
    "augmentation.colour": [Example(0.0)],
    "augmentation.brightness": [Example(1.0, COLOURED)],
    "augmentation.contrast": [Example([0.2, 0.3], COLOURED)],
    "augmentation.saturation": [Example([3.0, 4.0], COLOURED)],
    "augmentation.keep_ratio": [Example(True), Example(False, same=True)],
    "augmentation.multi_scale": [
        Example(True, {"augmentation": {"multi_scale_range": [96, 96], "multi_scale_every": 1}}),
        Example(False, same=True),
    ],
    "augmentation.multi_scale_range": [Example([96, 96], SIZES)],
    "augmentation.multi_scale_every": [Example(100, SIZES, steps=3)],
}
OF_CLASSIFIER: dict[str, list[Example]] = {
    "architecture": [Example("resnet18")],
    "epochs": [Example(2)],
    "optimizer.kind": [Example("sgd"), Example("adam")],
    "schedule.kind": [Example("yoloxwarmcos")],
    "loss.label_smoothing": [Example(0.5)],
    "crop.enlarge": [Example(3.0, WIDE)],
    "crop.margin": [Example(60.0)],
    "crop.detector_input_size": [Example(320, WIDE)],
    "augmentation.scale": [Example([0.3, 0.4])],
    "augmentation.translate": [Example(0.5)],
    "augmentation.flip": [Example(1.0)],
    "augmentation.colour": [Example(0.0)],
    "augmentation.hue": [Example(60, COLOURED)],
    "augmentation.saturation": [Example(200, COLOURED)],
    "augmentation.value": [Example(200, COLOURED)],
    "augmentation.multi_scale": [
        Example(True, {"augmentation": {"multi_scale_range": [96, 96], "multi_scale_every": 1}}),
        Example(False, same=True),
    ],
    "augmentation.multi_scale_range": [Example([96, 96], SIZES)],
    "augmentation.multi_scale_every": [Example(100, SIZES, steps=3)],
}
EXAMPLES = {DEFAULT: OF_ALL, NANODET: OF_NANODET, CLASSIFIER: OF_CLASSIFIER}
"""Of the default family every option; of another its own ones, and those with a default of its own."""
CASES = [
    (family, option, example)
    for family, examples in EXAMPLES.items()
    for option, its_examples in examples.items()
    for example in its_examples
]


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


def run(
    folder: Path, settings: Mapping[str, Any], steps: int, val: int = 0, series: Series | None = None
) -> Outcome:
    """Train a number of steps as `POST /train` would with these settings."""
    config = read_config({"architecture": ARCHITECTURE[DEFAULT], **settings})
    family = family_of(config.architecture).name
    job = replace(small_job(folder, val=val, family=family), config=resolve(config, num_images=NUM_TRAIN))
    series = series or Series()
    result = train(job, reporter=series, requests=lambda: StopRequest.DRAIN if steps in series.rows else None)
    return Outcome(job, series, result)


Usual = Callable[[Mapping[str, Any], Example], object]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Usual:
    """Train with settings that several options are compared with, once; return what an example looks at."""
    known: dict[str, object] = {}

    def look(settings: Mapping[str, Any], example: Example) -> object:
        key = json.dumps([settings, example.steps, example.val, example.shows.__name__], sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("usual")
            outcome = run(folder, settings, example.steps, example.val)
            known[key] = example.shows(outcome)
            shutil.rmtree(folder)
        return known[key]

    return look


def choices(annotation: Any) -> set[Any]:
    """Return the values of an option that has a handful of them; nothing for numbers and names."""
    if annotation is bool:
        return {True, False}
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return {member.value for member in annotation}
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return set(arguments)
    return {value for each in arguments if each not in (NoneType, ...) for value in choices(each)}


def options_with_choices(config: type, prefix: str = "") -> Iterator[tuple[str, set[Any]]]:
    for name, annotation in get_type_hints(config).items():
        if is_dataclass(annotation):
            yield from options_with_choices(annotation, f"{prefix}{name}.")
        elif found := choices(annotation):
            yield prefix + name, found


def defaults_of(family: str) -> dict[str, Any]:
    return dict(options(FAMILIES[family].config(architecture=ARCHITECTURE[family])))


def own_options(family: str) -> set[str]:
    """Return what a family must have examples of."""
    common = {} if family == DEFAULT else defaults_of(DEFAULT)
    return {
        name
        for name, default in defaults_of(family).items()
        if name.startswith(("assigner.", "loss.", "augmentation.")) or default != common.get(name, ...)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_has_an_example(family: str) -> None:
    assert own_options(family) - ELSEWHERE.keys() == EXAMPLES[family].keys()
    defaults = {**defaults_of(family), **BASE}
    for option, examples in EXAMPLES[family].items():
        assert defaults[option] not in [example.value for example in examples], option


CHOICES = [
    (family, name, values)
    for family in FAMILIES
    for name, values in options_with_choices(FAMILIES[family].config)
    if name in own_options(family) - ELSEWHERE.keys()
]


@pytest.mark.parametrize(("family", "option", "values"), CHOICES, ids=[f"{f}-{n}" for f, n, _ in CHOICES])
def test_every_value_of_a_choice_is_trained(family: str, option: str, values: set[Any]) -> None:
    tried = {defaults_of(family)[option]}
    shared = OF_ALL[option] if option == "schedule.kind" else []
    for example in [*EXAMPLES[family][option], *shared]:
        tried |= set(example.value) if isinstance(example.value, list) else {example.value}
    assert values <= tried


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_a_test_of_its_own_exists(test: str) -> None:
    file, _, name = test.rpartition("::")
    path = ROOT / file if file else Path(__file__)
    assert f"def {name}(" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("family", "option", "example"),
    CASES,
    ids=[f"{family}-{option}={example.value}" for family, option, example in CASES],
)
def test_a_value_trains_and_changes_what_it_should(
    tmp_path: Path, usual: Usual, family: str, option: str, example: Example
) -> None:
    base = merged(BASE, {"architecture": ARCHITECTURE[family]}, example.along)
    expected = usual(base, example)
    changed = merged(base, as_settings(option, example.value), example.needs)
    outcome = run(tmp_path, changed, example.steps, example.val)
    rows = outcome.series.rows
    assert len(rows) >= 2
    assert all(math.isfinite(row["loss"]) for row in rows.values())
    assert (example.shows(outcome) == expected) is example.same


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cpu"):
        run(tmp_path, merged(BASE, {"device": "99"}), steps=2)


class Slow(Series):
    """Takes its time to write a row down."""

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        super().on_metrics(step, epoch, values)
        time.sleep(0.6)


def test_a_training_ends_at_its_time_limit(tmp_path: Path) -> None:
    outcome = run(tmp_path, merged(BASE, {"time_limit_s": 1}), steps=3, series=Slow())
    assert (outcome.result.reason, outcome.result.state.step) == (StopReason.TIME_LIMIT, 2)
