"""Which device an attempt really runs on, told to the job as soon as it is known."""

from __future__ import annotations

import torch

from detection.devices import device_name, select_devices
from detection.training.config import AUTO
from worker.attempt import Attempt


def take_device(attempt: Attempt) -> torch.device:
    """Return the one device that the job runs on; see `take_devices`."""
    return take_devices(attempt)[0]


def take_devices(attempt: Attempt) -> tuple[torch.device, ...]:
    """Return the devices that the job asks for, or for `auto` the one that its worker gave it; and show them.

    Raises:
        DeviceError: there is no such device.
    """
    asked = str(attempt.job.config["device"])
    devices = select_devices(attempt.device)[:1] if asked == AUTO else select_devices(asked)
    attempt.report.device(names_of(devices))
    return devices


def names_of(devices: tuple[torch.device, ...]) -> str:
    """Return devices as a configuration names them: `cpu`, `0`, `0,1`."""
    return ",".join(map(device_name, devices))
