"""What computes in this process: code, libraries, devices, threads. A part of every model's provenance."""

from __future__ import annotations

import platform
from typing import Any

import torch

from detection.devices import CPU, describe_devices
from detection.processor import processor_name
from detection.training.provenance import describe_source, library_versions


def describe_environment(devices: tuple[torch.device, ...] = (CPU,)) -> dict[str, Any]:
    """Return all that may change the numbers which one and the same configuration computes.

    `source`, `versions`, `devices` as `describe_devices` writes them, `processor` and the `instructions` that
    torch's kernels use on it, `threads`, and `platform`.
    """
    return {
        "source": describe_source(),
        "versions": library_versions(),
        "devices": [describe_devices((device,)) for device in devices],
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
