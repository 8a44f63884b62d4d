"""Trainings of detectors: boxed pictures, average precision."""

from __future__ import annotations

from collections.abc import Callable

from detection.data.dataset import TrainingDataset
from detection.detections import Detections
from detection.evaluation.coco import measure_detections
from detection.evaluation.curves import detail_detections
from detection.evaluation.evaluate import detect_in_all
from detection.inference.backends.eager import EagerBackend
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
        found = detect_in_validation(job, network, interrupted=interrupted, saw=saw)
        if found is None:
            return None
        images, classes, details = job.val_images, job.record.classes, None
        if detailed:
            threshold = DetectOptions().score_threshold
            details = detail_detections(images, found, classes, score_threshold=threshold)
        return Measured(measure_detections(images, found, classes), details)


def detect_in_validation(
    job: TrainingJob, detector: Network, *, interrupted: Callable[[], bool], saw: Seen
) -> list[Detections] | None:
    """Return what the serving predictor finds in each validation picture; None when interrupted."""
    predictor = Predictor(EagerBackend(detector, job.devices[0]), job.record)
    return detect_in_all(
        predictor,
        job.val_images,
        job.read,
        interrupted=interrupted,
        saw=saw,
    )
