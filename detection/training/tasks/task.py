"""What the trainings of one task are made of, as the training loop and the publication see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from detection.data.dataset import Samples
from detection.errors import Fault
from detection.evaluation.metrics import Details, Metrics
from detection.models.network import Network
from detection.training.job import TrainingJob
from detection.training.progress import Seen


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on the validation split."""

    metrics: Metrics
    details: Details | None
    """Only where they were asked for, and not with too many classes."""
    tta: Mapping[str, Any] | None = None
    """What test-time augmentation changed; only beside details, where the configuration asks for it."""


class TaskTraining(ABC):
    """Network, samples and measurement of one task."""

    def faults(self, job: TrainingJob) -> list[Fault]:
        """Return why the pictures of a job cannot be learnt from."""
        return []

    @abstractmethod
    def build_network(self, job: TrainingJob) -> Network:
        """Return the job's network with its weights as the framework draws them."""

    @abstractmethod
    def open_samples(self, job: TrainingJob, *, cache_bytes: int) -> Samples:
        """Return the augmented samples of the training split.

        Args:
            cache_bytes: so much memory may hold decoded pictures.
        """

    @abstractmethod
    def measure(
        self,
        job: TrainingJob,
        network: Network,
        *,
        interrupted: Callable[[], bool],
        saw: Seen,
        detailed: bool = False,
    ) -> Measured | None:
        """Measure weights on the validation split exactly as they would serve; None when interrupted.

        Args:
            interrupted: asked before every batch.
            saw: told how many pictures, of a classifier crops, are done.
        """
