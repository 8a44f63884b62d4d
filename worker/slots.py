"""The devices of a worker: a job takes one, and a worker without a free one takes no job."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Slots:
    """Devices by name, given to one job at a time."""

    def __init__(self, devices: Iterable[str]) -> None:
        self._free = list(devices)
        self._lock = threading.Lock()
        self.size = len(self._free)

    def take(self) -> str | None:
        """Return a free device, which is then taken; None when there is none."""
        with self._lock:
            return self._free.pop(0) if self._free else None

    def give_back(self, device: str) -> None:
        with self._lock:
            self._free.append(device)

    @property
    def any_free(self) -> bool:
        return bool(self._free)

    @property
    def all_free(self) -> bool:
        return len(self._free) == self.size
