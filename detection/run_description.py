"""The first line in the log of whatever computes: which code, which torch, on which devices."""

from __future__ import annotations

import torch

from detection.devices import describe_devices
from detection.training.provenance import describe_source


def describe_run(devices: tuple[torch.device, ...]) -> str:
    """Return the git description of this code or else its date, torch's version, and the devices.

    A device is written as `CUDA:0 (name, 16384 MB)` or `CPU`; `describe_devices` does it.
    """
    return f"harrier {describe_source()}, torch {torch.__version__}, {describe_devices(devices)}"
