"""What executes a model, as a predictor sees it, and the kinds of backend by name.

Shape suffixes: B = images, H W = input pixels, P = priors, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from detection.errors import BackendError
from detection.inference.serving import Precision
from detection.model_record import ModelRecord
from detection.registry import Registry


class Backend(Protocol):
    """A loaded model."""

    @property
    def device(self) -> torch.device:
        """Where outputs lie."""

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return what the model's task asks for, float32.

        Of a detector boxes [B, P, 4] (xyxy, pixels of the input) and scores [B, P, C] in [0, 1], of a
        classifier probabilities [B, C]. They are the caller's: no later call changes them.

        Args:
            images_BCHW: float32 on the CPU, as the model's input convention prepares them.
        """


@dataclass(frozen=True, slots=True)
class NeededFile:
    """The file of a model that a backend reads."""

    format: str
    """As the files of a model are listed."""
    name: str
    """That it must have in the folder."""


class BackendKind(Protocol):
    """One way to execute models: what it needs, what it can do here, and how it loads one."""

    @property
    def file(self) -> NeededFile:
        """The file that `load` reads beside the record."""

    @property
    def side_by_side(self) -> bool:
        """Whether several threads may call one loaded model at once, each with threads of its own."""

    @property
    def package(self) -> str:
        """What `pip` installs, and whose version is that of the backend."""

    def is_available(self) -> bool:
        """Return whether the library behind it is installed here."""

    def precisions(self, device: torch.device) -> tuple[Precision, ...]:
        """Return what it computes with on a device, the exact one first; none when it cannot use it."""

    def load(
        self,
        folder: Path,
        record: ModelRecord,
        *,
        device: torch.device,
        threads: int | None,
        precision: Precision = Precision.FP32,
        cache: Path | None = None,
    ) -> Backend:
        """Load a published model from its folder.

        Args:
            threads: that one call may use; None is the backend's own choice.
            precision: what it computes with.
            cache: a folder for what takes minutes to compile for this machine; None compiles anew.

        Raises:
            BackendError: it is not installed here, or has not this precision on this device.
        """


BACKENDS: Registry[BackendKind] = Registry("backend")


def check_size(size_hw: Sequence[object], images_BCHW: Tensor) -> None:
    """Check that images have the height and width of a graph; what is no number there is free.

    Raises:
        ValueError: they have others.
    """
    given = images_BCHW.shape[2:]
    if any(isinstance(own, int) and own != side for own, side in zip(size_hw, given, strict=True)):
        raise ValueError(
            f"this graph takes images of {list(size_hw)} pixels, not of {list(given)}; "
            "the eager backend takes any size"
        )


def check_use(name: str, device: torch.device, precision: Precision) -> None:
    """Check that a backend can compute here, on a device and in a precision.

    Raises:
        UnknownNameError: there is no such backend.
        BackendError: it cannot; the message says what it can.
    """
    kind = BACKENDS[name]
    if not kind.is_available():
        raise BackendError(
            f"the backend {name} is not installed here; `.venv/bin/pip install {kind.package}` installs it"
        )
    precisions = kind.precisions(device)
    if not precisions:
        raise BackendError(f"the backend {name} cannot use {device}")
    if precision not in precisions:
        has = ", ".join(precisions)
        raise BackendError(f"the backend {name} does not compute in {precision} on {device}; it has {has}")
