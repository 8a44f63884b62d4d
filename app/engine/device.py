"""What the engine computes on, and the shape of serving that fits it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch

from app.detect.wire import ServedModel
from app.engine.unusable_setting import UnusableSettingError
from app.settings import MIB, Settings
from detection.devices import describe_devices, select_devices
from detection.errors import BackendError, DeviceError, UnknownNameError
from detection.inference.backends import BACKENDS, check_use
from detection.inference.serving import Precision, ServingShape, executor_name, read_executor
from detection.processor import processor_name

ACCELERATOR_BATCH_SIZE = 64
"""Of how many pictures a batch on an accelerator is tried; how many it gets, the warm-up finds out."""
PROVEN: Mapping[str, tuple[tuple[str, Precision], ...]] = {
    "cpu": (("openvino", Precision.BF16),),
    "cuda": (("eager", Precision.FP16),),
}
"""By the kind of device what may take over: its AP is beside the reference's in docs/performance.md."""
MODEL_BYTES = 2048 * MIB
ANY_SIZE = "eager"
"""The backend for views of another size than the model's own: an exported graph takes that one only."""


@dataclass(frozen=True, slots=True)
class Device:
    """On a CPU single pictures on several streams beat batches; an accelerator wants batches, one by one."""

    torch_device: torch.device
    shape: ServingShape
    """Of models that no plan was pinned to."""
    model_bytes: int
    """Memory that models may take which are not held."""
    learns_batch_size: bool = False
    """Whether the batch size of the shape is only what is tried at most."""
    candidates: tuple[ServingShape, ...] = ()
    """What may take over from the shape, model by model, when it has proven itself; the best first."""

    @property
    def name(self) -> str:
        return describe_devices((self.torch_device,))

    @property
    def hardware(self) -> str:
        """What is called so computes alike: what was found out about a backend holds for all of it."""
        return processor_name() if self.on_cpu else torch.cuda.get_device_name(self.torch_device)

    @property
    def on_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    def shape_of(self, model: ServedModel) -> ServingShape:
        """Return how a model is served: as its plan says, unless that was made where more was possible."""
        pinned = model.shape
        if pinned is None or not _is_usable(pinned.backend, self.torch_device, pinned.precision):
            return self.shape
        streams = min(pinned.streams, num_cores())
        return replace(pinned, streams=streams, threads=max(min(pinned.threads, num_cores() // streams), 1))

    def any_size_shape(self, own: ServingShape) -> ServingShape:
        """Return how a model that is served in a shape looks at views of another size than its own."""
        if own.backend == ANY_SIZE:
            return own
        return replace(self.shape, backend=ANY_SIZE, precision=Precision.FP32, streams=1)


def choose_device(settings: Settings) -> Device:
    """Return the first device that the settings name, with the backend that is best on it.

    Raises:
        UnusableSettingError: there is no such device, or it has not that backend.
    """
    try:
        device = select_devices(settings.device)[0]
    except DeviceError as error:
        raise UnusableSettingError(f"HARRIER_DEVICE: {error}") from error
    on_cpu = device.type == "cpu"
    backend, precision = _read_backend(settings.backend or ("onnxruntime" if on_cpu else "eager"), device)
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
        model_bytes=settings.engine_model_bytes or _model_bytes(device),
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


def _model_bytes(device: torch.device) -> int:
    """Return the default: a model on an accelerator comes with batches and graphs that are larger than it."""
    if device.type != "cuda":
        return MODEL_BYTES
    total: int = torch.cuda.get_device_properties(device).total_memory
    return total // 4


def _candidates(shape: ServingShape, device: torch.device) -> tuple[ServingShape, ...]:
    return tuple(
        replace(shape, backend=backend, precision=precision)
        for backend, precision in PROVEN.get(device.type, ())
        if _is_usable(backend, device, precision)
    )


@cache
def _is_usable(backend: str, device: torch.device, precision: Precision) -> bool:
    try:
        check_use(backend, device, precision)
    except (BackendError, UnknownNameError):
        return False
    return True


def _read_backend(name: str, device: torch.device) -> tuple[str, Precision]:
    try:
        backend, precision = read_executor(name)
        check_use(backend, device, precision)
    except (BackendError, UnknownNameError) as error:
        usable = ", ".join(_usable_executors(device))
        raise UnusableSettingError(
            f"HARRIER_BACKEND={name}: {error}. What works here on {device}: {usable}"
        ) from error
    return backend, precision


def _usable_executors(device: torch.device) -> list[str]:
    return [
        executor_name(backend, precision)
        for backend in BACKENDS
        for precision in BACKENDS[backend].precisions(device)
    ]
