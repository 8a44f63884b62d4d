"""What computes in this process: code, libraries, devices, threads. A part of every model's provenance."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from detection.devices import CPU, describe_devices
from detection.training.provenance import describe_source, library_versions

PROCESSORS = Path("/proc/cpuinfo")


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


def processor_name(processors: Path = PROCESSORS) -> str:
    """Return the name of the CPU, or its kind where the system does not tell more."""
    try:
        lines = processors.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()
