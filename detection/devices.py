"""Choose the device that a training or a model runs on, or say which ones there are."""

from __future__ import annotations

import torch

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
    wanted = spec.strip().lower()
    devices = available_devices()
    if wanted in ("", "auto"):
        return devices[:1]
    if wanted == "cpu":
        return (CPU,)
    chosen = tuple(_accelerator(part, spec) for part in wanted.split(","))
    if len(set(chosen)) != len(chosen):
        raise _error(spec, "a device is named twice")
    if batch_size is not None and batch_size % len(chosen):
        raise _error(spec, f"a batch of {batch_size} cannot be divided evenly among {len(chosen)} devices")
    return chosen


def device_name(device: torch.device) -> str:
    """Return a device as `select_devices` takes it: `cpu`, or the accelerator's number."""
    return str(device.index or 0) if device.type == "cuda" else device.type


def describe_devices(devices: tuple[torch.device, ...]) -> str:
    """Return `CUDA:0 (name, 16384 MB)` for every accelerator, or `CPU`."""
    return ", ".join(_describe(device) for device in devices)


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that was asked of it, so that a clock read next tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _accelerator(part: str, spec: str) -> torch.device:
    number = part.strip().removeprefix("cuda:")
    if not (number.isascii() and number.isdigit()):
        raise _error(spec, f"{part.strip()!r} is neither a number nor `auto` or `cpu`")
    device = torch.device("cuda", min(int(number), 127))
    if device not in available_devices():
        raise _error(spec, f"there is no accelerator {number}")
    return device


def _error(spec: str, problem: str) -> DeviceError:
    return DeviceError(spec, problem, ("auto", *map(device_name, available_devices())))


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return "CPU"
    facts = torch.cuda.get_device_properties(device)
    return f"CUDA:{device.index} ({facts.name}, {facts.total_memory // MEBIBYTE} MB)"
