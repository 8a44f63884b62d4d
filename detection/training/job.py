"""What is to be trained: configuration, pictures, and where it may write."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from detection.architectures import ARCHITECTURES
from detection.data.records import DatasetRecord, ImageRecord, Split
from detection.devices import device_name, select_devices
from detection.errors import ConfigError, Fault
from detection.evaluation.evaluate import ReadPicture
from detection.families import family_of
from detection.input_convention import InputConvention
from detection.model_record import ModelRecord
from detection.models.widths import Shapes, shapes_in
from detection.training.checkpoints import Identity
from detection.training.config import TrainingConfig
from detection.training.plan import TrainingPlan
from detection.training.provenance import config_fingerprint, dataset_fingerprint


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training, the same in every attempt at it."""

    config: TrainingConfig
    """Resolved for this dataset; see `detection.training.recipes.resolve`."""
    dataset: DatasetRecord
    read: ReadPicture
    """Returns the bytes of a picture's file; called from several threads."""
    folder: Path
    """Of this training alone; checkpoints and notes to the next attempt go there."""
    initial_weights: Path | None = None
    """A weights file to start from; None starts at random."""
    convention: InputConvention | None = None
    """Of the initial weights; None is the architecture's."""
    keep_zeros: bool = False
    """Weights of convolutions that are zero at the start do not learn: those of a pruned model."""
    notes: tuple[str, ...] = ()
    """Lines for the log about what is learnt from."""
    until_step: int | None = None
    """Train up to this step and take its weights; None is up to the end, and the best."""

    @cached_property
    def train_images(self) -> tuple[ImageRecord, ...]:
        return self.dataset.of_split(Split.TRAIN)

    @cached_property
    def val_images(self) -> tuple[ImageRecord, ...]:
        return self.dataset.of_split(Split.VAL)

    @cached_property
    def plan(self) -> TrainingPlan:
        return TrainingPlan(self.config, num_images=len(self.train_images))

    @cached_property
    def identity(self) -> Identity:
        return Identity(
            config_sha256=config_fingerprint(self.config), dataset_sha256=dataset_fingerprint(self.dataset)
        )

    @cached_property
    def initial_shapes(self) -> Shapes:
        """The shapes of the initial weights, if they are a model's of this architecture; else none."""
        return (
            {} if self.initial_weights is None else shapes_in(self.initial_weights, self.config.architecture)
        )

    @cached_property
    def devices(self) -> tuple[torch.device, ...]:
        """The devices that the configuration asks for.

        Raises:
            DeviceError: there is no such device.
        """
        return select_devices(self.config.device, batch_size=self.plan.batch_size)

    @property
    def evaluate_every_epochs(self) -> int | None:
        """None when there is nothing to measure on."""
        return (self.config.evaluation.every_epochs or 1) if self.val_images else None

    @property
    def num_ranks(self) -> int:
        """How many processes train together."""
        return self.config.processes or len(self.devices)

    def device_of(self, rank: int) -> torch.device:
        """Return the device of a rank: the CPU is shared, an accelerator is not."""
        return self.devices[rank % len(self.devices)]

    @property
    def input_size_hw(self) -> tuple[int, int]:
        side = self.config.input_size or ARCHITECTURES[self.config.architecture].input_size
        return side, side

    @property
    def record(self) -> ModelRecord:
        """The record of the model that this training makes."""
        family = family_of(self.config.architecture)
        inherited = self.convention or ARCHITECTURES[self.config.architecture].convention
        convention = family.convention(self.config, inherited)
        return family.record(self.config, self.dataset.classes, convention)

    def check(self, *, num_ranks: int = 1) -> None:
        """Raise ConfigError when this cannot be trained as it is, on so many ranks."""
        faults = []
        if not self.train_images:
            faults.append(Fault("/dataset_id", "the dataset has no picture in its split `train`"))
        if self.num_ranks != num_ranks:
            problem = f"the training is one of {self.num_ranks} processes, and here are {num_ranks}"
            faults.append(Fault("/processes", problem))
        if self.devices[0].type != "cpu" and self.num_ranks != len(self.devices):
            names = ",".join(map(device_name, self.devices))
            problem = (
                f"{self.num_ranks} processes cannot share accelerator {names}: each needs one of its own"
            )
            faults.append(Fault("/processes", problem))
        if self.config.sync_bn and self.num_ranks == 1:
            faults.append(Fault("/sync_bn", "there is nothing to synchronise with in one process"))
        if faults:
            raise ConfigError(faults)
