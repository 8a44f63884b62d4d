"""Which devices an attempt computes on, told to the job as soon as they are known."""

from __future__ import annotations

import torch

from detection.devices import device_name, select_devices
from detection.run_description import describe_run
from worker.attempt import Attempt


def take_devices(attempt: Attempt, *, batch_size: int | None = None) -> tuple[torch.device, ...]:
    """Return the devices that the worker leased for this attempt, and show them.

    The first becomes the current one, so that nothing reaches for another job's without naming it.

    Args:
        batch_size: pictures per step over all devices; must divide evenly among several.

    Raises:
        DeviceError: the process does not see a device that its worker saw, or the batch cannot be divided.
    """
    devices = select_devices(attempt.device, batch_size=batch_size)
    if devices[0].type == "cuda":
        torch.cuda.set_device(devices[0])
    attempt.report.device(names_of(devices))
    return devices


def names_of(devices: tuple[torch.device, ...]) -> str:
    """Return devices as a configuration names them: `cpu`, `0`, `0,1`."""
    return ",".join(map(device_name, devices))


def take_device(attempt: Attempt) -> torch.device:
    """Return the device of a job that computes on one, as `take_devices` does."""
    return take_devices(attempt)[0]


def begin_on_device(attempt: Attempt) -> torch.device:
    """Take the device, and say in the job's log with which code and on what it computes."""
    device = take_device(attempt)
    attempt.report.line(describe_run((device,)))
    return device
