"""Which accelerators this host has, asked of the driver: a worker never imports torch."""

from __future__ import annotations

import os
from typing import Any

import pynvml

from app.jobs.states import Queue
from app.settings import Settings

CPU = "cpu"


def accelerators() -> list[dict[str, Any]]:
    """Return index, name and memory of every accelerator; an empty list where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_accelerator(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def slot_devices(settings: Settings, queue: Queue) -> list[str]:
    """Return the devices that jobs of `queue` may use here; a worker runs as many jobs as there are entries.

    A host without an accelerator serves the queue `gpu` on its CPU, one job at a time. Jobs of the queue
    `cpu` are short mostly; they share the CPU, so that a long one does not hold the others back.
    """
    if queue is Queue.CPU:
        return [CPU] * settings.cpu_jobs
    if settings.device == CPU:
        return [CPU]
    if settings.device != "auto":
        return [part.strip() for part in settings.device.split(",") if part.strip()]
    return [str(index) for index in range(_num_visible())] or [CPU]


def _num_visible() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(accelerators())
    if visible is None:
        return found
    return min(found, len([part for part in visible.split(",") if part.strip()]))


def _accelerator(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "index": index,
        "name": pynvml.nvmlDeviceGetName(handle),
        "memory_total_bytes": int(memory.total),
        "memory_used_bytes": int(memory.used),
    }
