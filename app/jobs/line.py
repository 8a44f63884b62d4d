"""Who stands in line for which device of one worker, and whose turn it is.

The rule is one sentence: every device has a line, oldest job first; a job stands in the lines of all the
devices that it names, and begins when it is the first in each of them. `auto` takes the first accelerator
that nobody has and nobody older waits for; on a worker without accelerators it is `cpu`. So a job never
waits for a device that it does not need, and one that needs several is not overtaken for ever: those that
are free already are kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detection.device_choice import AUTO, CPU, DeviceChoice


@dataclass(frozen=True, slots=True)
class Begins:
    """It is a job's turn, on these devices."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waits:
    """A device that a job needs is taken."""

    device: str
    job_id: str
    """The job directly before it there."""
    running: bool
    """Whether that job has the device; otherwise it waits for it, too."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """This worker does not have what the job needs."""


Answer = Begins | Waits | Elsewhere


class Line:
    """The devices of one worker, and the jobs that have them or stand in line for them."""

    def __init__(
        self, accelerators: Iterable[str], taken: Mapping[str, str], *, cpu: Sequence[str], cpu_jobs: int
    ) -> None:
        """Begin with those who have something.

        Args:
            accelerators: their numbers, the one that `auto` prefers first.
            taken: by number, the job that has the accelerator.
            cpu: the jobs that compute on the worker's CPU.
            cpu_jobs: how many may do so at a time.
        """
        self._lines: dict[str, list[Waits]] = {
            number: [Waits(number, taken[number], running=True)] if number in taken else []
            for number in accelerators
        }
        self._cpu = [Waits(CPU, job_id, running=True) for job_id in cpu]
        self._cpu_jobs = cpu_jobs
        self._any: list[Waits] = []

    def join(self, job_id: str, choice: DeviceChoice) -> Answer:
        """Return whether it is the turn of the next older job, which then has its place in the lines."""
        if choice.word == CPU or (choice.word == AUTO and not self._lines):
            return self._join_cpu(job_id)
        if choice.word == AUTO:
            return self._join_any(job_id)
        return self._join_each(job_id, tuple(map(str, choice.numbers)))

    def _join_cpu(self, job_id: str) -> Answer:
        before = self._cpu[-1] if len(self._cpu) >= self._cpu_jobs else None
        self._cpu.append(Waits(CPU, job_id, running=False))
        return before or Begins((CPU,))

    def _join_any(self, job_id: str) -> Answer:
        for number, line in self._lines.items():
            if not line:
                line.append(Waits(number, job_id, running=False))
                return Begins((number,))
        before = self._any[-1] if self._any else min(self._lines.values(), key=len)[-1]
        self._any.append(Waits(AUTO, job_id, running=False))
        return before

    def _join_each(self, job_id: str, numbers: tuple[str, ...]) -> Answer:
        if any(number not in self._lines for number in numbers):
            return Elsewhere()
        before = [self._lines[number][-1] for number in numbers if self._lines[number]]
        for number in numbers:
            self._lines[number].append(Waits(number, job_id, running=False))
        if not before:
            return Begins(numbers)
        return next((each for each in before if not each.running), before[0])
