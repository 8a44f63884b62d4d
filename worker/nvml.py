"""The accelerators of this host, asked of the driver: a worker never imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

PART = "MIG-"
"""Begins the name of a part of an accelerator, which the driver does not count among the accelerators."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator, or a part of one, as the driver describes it."""

    uuid: str
    """Its name in every process and container, and nowhere else in the world."""
    name: str
    memory_total_bytes: int
    memory_used_bytes: int


def installed_gpus() -> list[Gpu]:
    """Return every accelerator in the order of the bus; an empty list where there is no driver."""
    with _driver() as is_there:
        if not is_there:
            return []
        return [_gpu(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())]


def visible_gpus(wanted: str | None) -> list[Gpu]:
    """Return the accelerators that a process sees, in its order, with `wanted` in CUDA_VISIBLE_DEVICES.

    CUDA's rules: entries are numbers in the order of the bus, or names, which may be cut short; whatever
    follows an entry that names nothing is not seen; a list that names one twice shows nothing.

    Args:
        wanted: the variable's value; None where it is not set, and everything is seen.
    """
    gpus = installed_gpus()
    if wanted is None:
        return gpus
    seen: dict[str, Gpu] = {}
    for entry in wanted.split(","):
        gpu = _named(entry.strip(), gpus)
        if gpu is None:
            break
        if gpu.uuid in seen:
            return []
        seen[gpu.uuid] = gpu
    return list(seen.values())


def find_gpu(uuid: str) -> Gpu | None:
    """Return the accelerator, or the part of one, that the driver calls so; None where there is none."""
    with _driver() as is_there:
        if not is_there:
            return None
        try:
            return _gpu(pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except pynvml.NVMLError_NotFound:
            return None


def used_memory_bytes(uuid: str) -> int | None:
    """Return how much memory of an accelerator is in use; None where the driver does not say."""
    with _driver() as is_there:
        if not is_there:
            return None
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        except pynvml.NVMLError:
            return None


def _named(entry: str, gpus: list[Gpu]) -> Gpu | None:
    if entry.isascii() and entry.isdigit():
        return gpus[int(entry)] if int(entry) < len(gpus) else None
    if entry.startswith(PART):
        return find_gpu(entry)
    found = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
    return found[0] if len(found) == 1 else None


@contextmanager
def _driver() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: Any) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total_bytes=int(memory.total),
        memory_used_bytes=int(memory.used),
    )
