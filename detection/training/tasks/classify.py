"""Trainings of classifiers: crops of labelled boxes, accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from detection.data.crop_samples import CropSamples
from detection.errors import Fault
from detection.evaluation.classification import (
    ClassConfusion,
    classify_all,
    count_answers,
    measure_answers,
)
from detection.families.classifier import ClassifierConfig
from detection.inference.backends.eager import EagerBackend
from detection.inference.second_stage import CropClassifier
from detection.model_record import PUBLISHED_CROP
from detection.models.classifier import CLASSIFIERS, Classifier
from detection.models.network import Network
from detection.training.job import TrainingJob
from detection.training.progress import Seen
from detection.training.tasks.task import Measured, TaskTraining

MOST_NAMED = 10


class ClassifyTraining(TaskTraining):
    """See `TaskTraining`; the pictures of such a job are crops, as `crop_dataset` makes them."""

    def faults(self, job: TrainingJob) -> list[Fault]:
        classes, where = job.dataset.classes, _where(job)
        if len(classes) < 2:
            return [Fault(where, f"there is nothing to tell apart: the only class is {', '.join(classes)}")]
        counts = Counter(crop.boxes[0].class_id for crop in job.train_images)
        empty = [name for class_id, name in enumerate(classes) if not counts[class_id]]
        if not empty:
            return []
        named = ", ".join(map(repr, empty[:MOST_NAMED])) + (", …" if len(empty) > MOST_NAMED else "")
        problem = f"the split `train` has no crop of {named}: drop or merge it when the dataset is imported"
        return [Fault(where, problem)]

    def build_network(self, job: TrainingJob) -> Classifier:
        config = _config(job)
        return CLASSIFIERS[config.architecture](num_classes=len(job.dataset.classes), loss=config.loss)

    def open_samples(self, job: TrainingJob, *, cache_bytes: int) -> CropSamples:
        config, record = _config(job), job.record
        return CropSamples(
            job.train_images,
            job.read,
            input_size_hw=job.input_size_hw,
            rule=record.crop or PUBLISHED_CROP,
            augmentation=config.augmentation,
            seed=config.seed,
            cache_bytes=cache_bytes,
            convention=record.input_convention,
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
        classifier = CropClassifier(EagerBackend(network, job.devices[0]), job.record)
        said = classify_all(classifier, job.val_images, job.read, interrupted=interrupted, saw=saw)
        if said is None:
            return None
        classes = job.record.classes
        counts_CC = count_answers(job.val_images, said, len(classes))
        details = ClassConfusion(classes, counts_CC) if detailed else None
        return Measured(measure_answers(counts_CC, classes), details)


def _config(job: TrainingJob) -> ClassifierConfig:
    assert isinstance(job.config, ClassifierConfig)
    return job.config


def _where(job: TrainingJob) -> str:
    return "/dataset_id" if _config(job).attribute is None else "/attribute"
