"""Trainings of detectors: boxed pictures, average precision."""

from __future__ import annotations

from collections.abc import Callable

from detection.data.dataset import TrainingDataset
from detection.evaluation.curves import detail_detections
from detection.evaluation.tta import detect_plain_and_augmented
from detection.inference.backends.eager import EagerBackend
from detection.inference.passes import DEFAULT_PASSES
from detection.inference.predictor import DetectOptions, Predictor
from detection.models import create_model
from detection.models.detector import Detector
from detection.models.network import Network
from detection.training.config import DetectorConfig
from detection.training.job import TrainingJob
from detection.training.progress import Seen
from detection.training.tasks.task import Measured, TaskTraining


class DetectTraining(TaskTraining):
    """See `TaskTraining`."""

    def build_network(self, job: TrainingJob) -> Detector:
        """As narrow as the model that the training starts from, if that was pruned."""
        config = job.config
        assert isinstance(config, DetectorConfig)
        return create_model(
            config.architecture,
            num_classes=len(job.dataset.classes),
            assigner=config.assigner,
            loss=config.loss,
            shapes=job.initial_shapes,
        )

    def open_samples(self, job: TrainingJob, *, cache_bytes: int) -> TrainingDataset:
        return TrainingDataset(
            job.train_images,
            job.read,
            input_size_hw=job.input_size_hw,
            augmentation=job.config.augmentation,
            seed=job.config.seed,
            cache_bytes=cache_bytes,
            convention=job.record.input_convention,
        )

    def measure(
        self,
        job: TrainingJob,
        network: Network,
        *,
        interrupted: Callable[[], bool],
        saw: Seen,
        detailed: bool = False,
    ) -> Measured | None:
        config = job.config
        assert isinstance(config, DetectorConfig)
        passes = DEFAULT_PASSES if detailed and config.evaluation.tta else ()
        predictor = Predictor(EagerBackend(network, job.devices[0]), job.record)
        images, classes = job.val_images, job.record.classes
        found = detect_plain_and_augmented(
            predictor, images, job.read, passes, interrupted=interrupted, saw=saw
        )
        if found is None:
            return None
        details, threshold = None, DetectOptions().score_threshold
        if detailed:
            details = detail_detections(images, found.plain, classes, score_threshold=threshold)
        measured = found.measure(images, classes)
        return Measured(measured.plain, details, measured.comparison)
