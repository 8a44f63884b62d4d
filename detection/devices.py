"""Choose the device that a training or a model runs on, or say which ones there are."""

from __future__ import annotations

import torch

from detection.device_choice import AUTO, read_choice
from detection.errors import DeviceError

CPU = torch.device("cpu")
MEBIBYTE = 1024 * 1024


def available_devices() -> tuple[torch.device, ...]:
    """Return the accelerators by number, and the CPU last."""
    accelerators = (torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return (*accelerators, CPU)


def select_devices(spec: str, *, batch_size: int | None = None) -> tuple[torch.device, ...]:
    """Return the devices that `spec` names; the first one is where a single process works.

    Args:
        spec: `auto` or empty (the first accelerator, else the CPU), `cpu`, or accelerators by number: `0`,
            `0,1`, `cuda:0`. Words in any case.
        batch_size: pictures per step over all devices; must divide evenly among several.

    Raises:
        DeviceError: there is no such device, or the batch cannot be divided.
    """
    devices = available_devices()
    choice = read_choice(spec, _names(devices))
    if choice.word == AUTO:
        return devices[:1]
    if choice.word == CPU.type:
        return (CPU,)
    chosen = tuple(_accelerator(number, spec, devices) for number in choice.numbers)
    if batch_size is not None and batch_size % len(chosen):
        problem = f"a batch of {batch_size} cannot be divided evenly among {len(chosen)} devices"
        raise DeviceError(spec, problem, _names(devices))
    return chosen


def device_name(device: torch.device) -> str:
    """Return a device as `select_devices` takes it: `cpu`, or the accelerator's number."""
    return str(device.index or 0) if device.type == "cuda" else device.type


def describe_devices(devices: tuple[torch.device, ...]) -> str:
    """Return `CUDA:0 (name, 16384 MB)` for every accelerator, or `CPU`."""
    return ", ".join(_describe(device) for device in devices)


def wait_for(device: torch.device) -> None:
    """Return when the device has done what this thread asked of it, so that a clock then tells the truth.

    Not all that anybody asked of it: to wait for that is an error while another thread captures a CUDA graph,
    and breaks the graph.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _accelerator(number: int, spec: str, devices: tuple[torch.device, ...]) -> torch.device:
    found = [device for device in devices if device.type == "cuda" and device.index == number]
    if not found:
        raise DeviceError(spec, f"there is no accelerator {number}", _names(devices))
    return found[0]


def _names(devices: tuple[torch.device, ...]) -> tuple[str, ...]:
    return (AUTO, *map(device_name, devices))


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return "CPU"
    facts = torch.cuda.get_device_properties(device)
    return f"CUDA:{device.index} ({facts.name}, {facts.total_memory // MEBIBYTE} MB)"
