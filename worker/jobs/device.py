"""Which device an attempt really runs on, told to the job as soon as it is known."""

from __future__ import annotations

import torch

from detection.devices import device_name, select_devices
from detection.training.config import AUTO
from worker.attempt import Attempt


def take_device(attempt: Attempt) -> torch.device:
    """Return the device that the job asks for, or for `auto` the one that its worker gave it; and show it.

    Raises:
        DeviceError: there is no such device.
    """
    asked = str(attempt.job.config["device"])
    device = select_devices(attempt.device if asked == AUTO else asked)[0]
    attempt.report.device(device_name(device))
    return device
