"""A clock that tells the truth about work on a device: it waits for the work before it is read."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from detection.devices import CPU, wait_for

Clock = Callable[[], float]
"""Seconds from an arbitrary point; never goes back."""


def synchronised_time(device: torch.device = CPU, *, clock: Clock = time.perf_counter) -> float:
    """Return monotonic seconds from an arbitrary point, once the device has done all that was asked of it.

    An accelerator works behind the program's back: without waiting, a clock tells how long it took to ask.
    """
    wait_for(device)
    return clock()


class Stopwatch:
    """Measures laps of work on one device. Each lap begins where the one before ended."""

    def __init__(self, device: torch.device = CPU, *, clock: Clock = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._lap_from = synchronised_time(device, clock=clock)

    def lap_s(self) -> float:
        """Return the seconds that the lap took, with the device's work, and begin another."""
        now = synchronised_time(self._device, clock=self._clock)
        took_s, self._lap_from = now - self._lap_from, now
        return took_s

    def lap_ms(self) -> float:
        """Return the same in milliseconds."""
        return self.lap_s() * 1000

    def passed_s(self) -> float:
        """Return how long the lap has lasted so far. It asks nothing of the device, so it costs nothing."""
        return self._clock() - self._lap_from
