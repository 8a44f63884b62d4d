"""What the jobs of a worker may compute on, and how their processes come to see the same as the worker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.jobs.protocol import Device
from app.jobs.states import Queue
from app.settings import Settings
from detection.device_choice import AUTO, CPU, read_choice
from detection.errors import DeviceError
from detection.processor import PROCESSORS, processor_name
from worker.memory import memory_limit_bytes
from worker.nvml import Gpu, used_memory_bytes, visible_gpus
from worker.slots import Slots


def open_slots(settings: Settings, queue: Queue, gpus: Sequence[Gpu]) -> Slots:
    """Return the devices that jobs of `queue` may use here.

    A worker of the queue `gpu` has the accelerators that the settings name, and the CPU for one job: that of
    whoever asks for `cpu`, or everybody's where there are no accelerators. Jobs of the queue `cpu` are short
    mostly; they share the CPU, so that a long one does not hold the others back.

    Args:
        gpus: what a process of this worker sees, in its order.

    Raises:
        DeviceError: the settings name a device that does not exist.
    """
    if queue is Queue.CPU:
        return Slots(cpu=processor(), cpu_jobs=settings.cpu_jobs)
    return Slots(_chosen(settings.device, gpus), cpu=processor())


def seen_gpus() -> list[Gpu]:
    """Return what a process that was started like this one sees."""
    return visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))


def device_environment(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Return variables with which a job process numbers the accelerators as its worker does.

    Without them CUDA puts the fastest first, and the driver the one that is first on the bus.
    """
    if not gpus:
        return {}
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def processor(path: Path = PROCESSORS) -> Device:
    """Return the CPU of this host, with the memory that processes here may use."""
    return Device(CPU, processor_name(path), memory_limit_bytes())


def describe_accelerators(devices: Iterable[Device]) -> list[dict[str, Any]]:
    """Return number, driver's name, name and memory of accelerators, all of them.

    A driver that does not answer once leaves none out: other workers would take it for one that nobody has,
    and refuse the jobs that wait for it.
    """
    return [_described(device) for device in devices]


def _described(device: Device) -> dict[str, Any]:
    return {
        "index": int(device.number),
        "uuid": device.uuid,
        "name": device.name,
        "memory_total_bytes": device.memory_bytes,
        "memory_used_bytes": None if device.uuid is None else used_memory_bytes(device.uuid),
    }


def _chosen(spec: str, gpus: Sequence[Gpu]) -> list[Device]:
    existing: Mapping[str, Device] = {
        str(number): Device(str(number), gpu.name, gpu.memory_total_bytes, gpu.uuid)
        for number, gpu in enumerate(gpus)
    }
    names = (AUTO, *existing, CPU)
    choice = read_choice(spec, names)
    if choice.word:
        return [] if choice.word == CPU else list(existing.values())
    for number in choice.numbers:
        if str(number) not in existing:
            raise DeviceError(spec, f"this host has no accelerator {number}", names)
    return [existing[str(number)] for number in choice.numbers]
