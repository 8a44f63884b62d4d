"""A whole training in small: any family of detectors, a dozen made-up pictures, a few steps.

Run as a program with a folder and a family it trains there and says each step, so that a test can kill it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detection.data.crop_records import crop_dataset
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.families import DEFAULT_FAMILY, FAMILIES, architectures_of
from detection.families.classifier import ClassifierAugmentationConfig, ClassifierScheduleConfig
from detection.families.nanodet_plus import NanoDetAssignerConfig, NanoDetLossConfig, NanoDetScheduleConfig
from detection.families.yolox import YoloxAugmentationConfig
from detection.tasks import Task
from detection.training.checkpoints import Payload
from detection.training.config import ScheduleConfig, TrainingConfig
from detection.training.job import TrainingJob
from detection.training.recipes import resolve
from detection.training.reporting import Progress
from detection.training.run import open_checkpoints, train
from tests.pictures import jpeg

SIZE_WH = 96, 72
NUM_TRAIN, NUM_VAL = 12, 4
PATTERN = 3
"""Of so many pictures one has a crowd, if it is to train on, and one has two objects."""
COLOURS = {0: (40, 60, 220), 1: (220, 120, 30)}
COMMON: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 4,
    "input_size": 64,
    "device": "cpu",
    "schedule": ScheduleConfig(no_aug_epochs=1, warmup_steps=1),
}
SMALLEST = {"classifier": "mobilenet_v3_small"}
"""The members that train, where they are not the first of their family."""
OWN: dict[str, dict[str, Any]] = {
    "yolox": {
        "augmentation": YoloxAugmentationConfig(
            mosaic=0.5,
            affine=0.5,
            mixup=0.3,
            hsv=1.0,
            multi_scale=True,
            multi_scale_range=(64, 96),
            multi_scale_every=2,
        )
    },
    "nanodet-plus": {
        "schedule": NanoDetScheduleConfig(no_aug_epochs=1, warmup_steps=1),
        "assigner": NanoDetAssignerConfig(self_assign_epoch=2, ignore_overlap=0.5),
        "loss": NanoDetLossConfig(detach_epoch=1),
    },
    "classifier": {
        "schedule": ClassifierScheduleConfig(no_aug_epochs=1, warmup_steps=1),
        "augmentation": ClassifierAugmentationConfig(
            colour=1.0, multi_scale=True, multi_scale_range=(64, 96), multi_scale_every=2
        ),
    },
}
"""What families have that may depend on the moment; a new one is trained without."""


def small_job(
    folder: Path, *, val: int = NUM_VAL, family: str = DEFAULT_FAMILY.name, **changes: object
) -> TrainingJob:
    """Return a training of 9 steps; `changes` are fields of its configuration."""
    config = resolve(config_of(family, **changes), num_images=NUM_TRAIN)
    images = [_record(index, Split.TRAIN) for index in range(NUM_TRAIN)]
    images += [_record(NUM_TRAIN + index, Split.VAL) for index in range(val)]
    dataset = DatasetRecord(format="voc", classes=("cat", "dog"), images=tuple(images))
    if config.task is Task.CLASSIFY:
        dataset = crops_of(dataset)
    return TrainingJob(config=config, dataset=dataset, read=read_picture, folder=folder)


def crops_of(dataset: DatasetRecord) -> DatasetRecord:
    """Return the first box of each picture as a crop, so that an epoch is as long as that of a detector."""
    firsts = (replace(image, boxes=image.boxes[:1]) for image in dataset.images)
    return crop_dataset(replace(dataset, images=tuple(firsts)), None).record


def config_of(family: str, **changes: object) -> TrainingConfig:
    """Return a configuration of the family's first member, with as much as can be going on."""
    kind = FAMILIES[family].config
    architecture = SMALLEST.get(family, architectures_of(FAMILIES[family])[0])
    config: TrainingConfig = kind(architecture=architecture, **{**COMMON, **OWN.get(family, {}), **changes})
    return config


@cache
def picture(index: int) -> bytes:
    """Return a picture with coloured rectangles on noise."""
    random = np.random.default_rng(index)
    pixels = random.integers(100, 156, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
    for box in _boxes(index):
        pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = COLOURS[box.class_id]
    return jpeg(pixels)


def read_picture(image: ImageRecord) -> bytes:
    return picture(int(image.id))


def _record(index: int, split: Split) -> ImageRecord:
    width, height = SIZE_WH
    crowds = (_crowd(),) if split is Split.TRAIN and index % PATTERN == 0 else ()
    return ImageRecord(
        id=str(index),
        file_name=f"{index}.jpg",
        width=width,
        height=height,
        split=split,
        boxes=(*_boxes(index), *crowds),
    )


def _boxes(index: int) -> tuple[BoxRecord, ...]:
    return (_box(index),) if index % PATTERN != 1 else (_box(index), _box(index + 1000))


def _box(index: int) -> BoxRecord:
    random = np.random.default_rng((1, index))
    x, y = int(random.integers(4, 40)), int(random.integers(4, 24))
    width, height = (int(side) for side in random.integers(16, 40, 2))
    return BoxRecord(class_id=index % 2, x1=x, y1=y, x2=x + width, y2=y + height)


def _crowd() -> BoxRecord:
    """Return a region that is all of a picture but its left edge."""
    return BoxRecord(class_id=0, x1=4, y1=0, x2=SIZE_WH[0], y2=SIZE_WH[1], crowd=True)


def digest(payload: Payload | None) -> str:
    """Return one hash over weights, average and momentum of a checkpoint."""
    assert payload is not None
    momentum = [
        value
        for state in payload["optimizer"]["state"].values()
        for value in state.values()
        if torch.is_tensor(value)
    ]
    tensors = [*payload["model"].values(), *payload["average"]["model"].values(), *momentum]
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def final_digest(job: TrainingJob) -> str:
    return digest(open_checkpoints(job, log=lambda line: None).load_latest())


class Series:
    """A reporter that keeps the series as the service does: a row replaces, a start cuts."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.lines: list[str] = []
        self.stages: list[str] = []
        self.starts: list[int] = []
        self.checkpoints: list[int] = []

    def on_stage(self, stage: str) -> None:
        self.stages.append(stage)

    def on_start(self, step: int) -> None:
        self.starts.append(step)
        self.rows = {each: values for each, values in self.rows.items() if each <= step}

    def on_progress(self, progress: Progress) -> None:
        pass

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        timeless = {name: value for name, value in values.items() if name != "images_per_s"}
        self.rows[step] = {"epoch": epoch, **timeless}

    def on_checkpoint(self, step: int) -> None:
        self.checkpoints.append(step)

    def on_log(self, line: str) -> None:
        self.lines.append(line)


class Spoken(Series):
    """Says each step and each checkpoint on standard output."""

    def on_metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        sys.stdout.write(f"step {step}\n")
        sys.stdout.flush()

    def on_checkpoint(self, step: int) -> None:
        sys.stdout.write(f"checkpoint {step}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(small_job(Path(sys.argv[1]), family=sys.argv[2]), reporter=Spoken())
