"""What the engine computes on, and the shape of serving that fits it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from app.settings import Settings
from detection.devices import describe_devices, select_devices
from detection.errors import UnknownNameError
from detection.inference.backends import BACKENDS

ACCELERATOR_BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class Device:
    """On a CPU single pictures on several streams beat batches; an accelerator wants batches, one by one."""

    torch_device: torch.device
    backend: str
    streams: int
    """Batches that run side by side."""
    batch_size: int
    """Most pictures in one batch."""

    @property
    def name(self) -> str:
        return describe_devices((self.torch_device,))


def choose_device(settings: Settings) -> Device:
    """Return the first device that the settings name, with the backend that is best on it.

    Raises:
        DeviceError: there is no such device.
        UnknownNameError: there is no such backend.
    """
    device = select_devices(settings.device)[0]
    on_cpu = device.type == "cpu"
    backend = settings.backend or ("onnxruntime" if on_cpu else "eager")
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, BACKENDS.names())
    return Device(
        torch_device=device,
        backend=backend,
        streams=num_cores() if on_cpu and BACKENDS[backend].side_by_side else 1,
        batch_size=settings.engine_batch_size or (1 if on_cpu else ACCELERATOR_BATCH_SIZE),
    )


def num_cores() -> int:
    """Return the cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0))
