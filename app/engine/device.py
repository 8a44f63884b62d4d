"""What the engine computes on, and the shape of serving that fits it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache

import torch

from app.detect.wire import ServedModel
from app.settings import Settings
from detection.devices import describe_devices, select_devices
from detection.errors import BackendError, UnknownNameError
from detection.inference.backends import BACKENDS, check_use
from detection.inference.serving import Precision, ServingShape, read_executor

ACCELERATOR_BATCH_SIZE = 64
"""Of how many pictures a batch on an accelerator is tried; how many it gets, the warm-up finds out."""
PROVEN = (("openvino", Precision.BF16),)
"""Backends that may take over: their AP is published beside the reference's, in docs/performance.md."""
ANY_SIZE = "eager"
"""The backend for views of another size than the model's own: an exported graph takes that one only."""


@dataclass(frozen=True, slots=True)
class Device:
    """On a CPU single pictures on several streams beat batches; an accelerator wants batches, one by one."""

    torch_device: torch.device
    shape: ServingShape
    """Of models that no plan was pinned to."""
    learns_batch_size: bool = False
    """Whether the batch size of the shape is only what is tried at most."""
    candidates: tuple[ServingShape, ...] = ()
    """What may take over from the shape, model by model, when it has proven itself; the best first."""

    @property
    def name(self) -> str:
        return describe_devices((self.torch_device,))

    @property
    def on_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    def shape_of(self, model: ServedModel) -> ServingShape:
        """Return how a model is served: as its plan says, unless that was made where more was possible."""
        pinned = model.shape
        if pinned is None or not _is_usable(pinned.backend, self.torch_device, pinned.precision):
            return self.shape
        return replace(pinned, streams=min(pinned.streams, num_cores()))

    @property
    def any_size_shape(self) -> ServingShape:
        """How a model is served to views of another size than its own."""
        if self.shape.backend == ANY_SIZE:
            return self.shape
        # torch computes with one set of threads for the whole process
        return replace(self.shape, backend=ANY_SIZE, precision=Precision.FP32, streams=1)


def choose_device(settings: Settings) -> Device:
    """Return the first device that the settings name, with the backend that is best on it.

    Raises:
        DeviceError: there is no such device.
        UnknownNameError: there is no such backend.
        BackendError: it cannot be used on this device, or not in that precision.
    """
    device = select_devices(settings.device)[0]
    on_cpu = device.type == "cpu"
    backend, precision = read_executor(settings.backend or ("onnxruntime" if on_cpu else "eager"))
    check_use(backend, device, precision)
    streams = num_cores() if on_cpu and BACKENDS[backend].side_by_side else 1
    shape = ServingShape(
        backend=backend,
        precision=precision,
        streams=streams,
        threads=max(num_cores() // streams, 1),
        batch_size=settings.engine_batch_size or (1 if on_cpu else ACCELERATOR_BATCH_SIZE),
    )
    return Device(
        device,
        shape,
        learns_batch_size=not on_cpu and settings.engine_batch_size is None,
        candidates=() if settings.backend else _candidates(shape, device),
    )


def num_cores() -> int:
    """Return the cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def num_callers() -> int:
    """Return the threads that keep as many streams as cores busy.

    A backend that computes on threads of its own, like OpenVINO, leaves its caller waiting, and a core idle
    until one of them has been woken: a tenth of the pictures a second, on two cores. A thread more for every
    four cores fills that; who computes on the caller's thread loses nothing by it.
    """
    return num_cores() + max(num_cores() // 4, 1)


def _candidates(shape: ServingShape, device: torch.device) -> tuple[ServingShape, ...]:
    return tuple(
        replace(shape, backend=backend, precision=precision)
        for backend, precision in PROVEN
        if _is_usable(backend, device, precision)
    )


@cache
def _is_usable(backend: str, device: torch.device, precision: Precision) -> bool:
    try:
        check_use(backend, device, precision)
    except (BackendError, UnknownNameError):
        return False
    return True
