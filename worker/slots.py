"""The devices of a worker: an accelerator is given to one job at a time, the CPU to a number of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from app.jobs.line import Line
from app.jobs.protocol import Device
from detection.device_choice import CPU


class Slots:
    """What this worker has, and which of its jobs has it; other workers are heard of from the database."""

    def __init__(
        self,
        accelerators: Iterable[Device] = (),
        *,
        cpu: Device = Device(CPU, CPU, None),  # noqa: B008 - it cannot change
        cpu_jobs: int = 1,
    ) -> None:
        self.accelerators = tuple(accelerators)
        self.cpu_jobs = cpu_jobs
        self.size = len(self.accelerators) + cpu_jobs
        """The most jobs that there can be at a time."""
        self.sharing = len(self.accelerators) or cpu_jobs
        """Among how many jobs the cores are shared: with accelerators one on the CPU is the exception."""
        self._devices = {device.number: device for device in (*self.accelerators, cpu)}
        self._taken: list[tuple[str, str]] = []
        """Device and job, in the order in which they were given."""
        self._lock = threading.Lock()

    def devices(self, numbers: Sequence[str]) -> list[Device]:
        """Return what these numbers stand for."""
        return [self._devices[number] for number in numbers]

    def take(self, numbers: Sequence[str], job_id: str) -> bool:
        """Give all of these devices to a job; False, and nothing is given, when one of them is taken."""
        with self._lock:
            if not all(self._is_free(number) for number in numbers):
                return False
            self._taken.extend((number, job_id) for number in numbers)
            return True

    def give_back(self, numbers: Sequence[str], job_id: str) -> None:
        with self._lock:
            for number in numbers:
                self._taken.remove((number, job_id))

    def line(self, leased: Mapping[str, str]) -> Line:
        """Return the lines for these devices, still without anybody who waits.

        Args:
            leased: the job that has an accelerator, by the driver's name of it, whichever worker's job it is.
        """
        with self._lock:
            mine = list(self._taken)
        taken = {
            device.number: leased[device.uuid]
            for device in self.accelerators
            if device.uuid is not None and device.uuid in leased
        }
        taken |= {number: job_id for number, job_id in mine if number != CPU}
        return Line(
            [device.number for device in self.accelerators],
            taken,
            cpu=[job_id for number, job_id in mine if number == CPU],
            cpu_jobs=self.cpu_jobs,
        )

    @property
    def all_free(self) -> bool:
        return not self._taken

    def _is_free(self, number: str) -> bool:
        users = sum(number == taken for taken, _ in self._taken)
        return users < (self.cpu_jobs if number == CPU else 1)
