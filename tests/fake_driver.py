"""An NVIDIA driver that pretends: what `pynvml` answers, without an accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pynvml

MEMORY = SimpleNamespace(total=16 * 2**30, used=2**30)


@dataclass(frozen=True)
class FakeDriver:
    """Stands in for the module `pynvml`; `uuids` are the accelerators in the order of the bus."""

    uuids: Sequence[str]
    parts: Sequence[str] = ()
    """Found by their names only, as parts of accelerators are."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotFound = pynvml.NVMLError_NotFound

    def nvmlInit(self) -> None:
        if not self.uuids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in (*self.uuids, *self.parts):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:
        return f"Card of {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return MEMORY
