"""Measure a classifier on the labelled boxes of a split, cut and looked at exactly as behind a detector."""

from __future__ import annotations

from functools import partial

import torch

from detection.data.crop_records import crop_dataset
from detection.data.records import Split
from detection.evaluation.classification import (
    ClassConfusion,
    classify_all,
    count_answers,
    measure_answers,
)
from detection.inference.second_stage import CropClassifier
from detection.tasks import Task
from worker.attempt import Attempt
from worker.jobs.measuring import MeasuringProgress, add_evaluation, classes_apart, matched_ids, with_ids
from worker.jobs.published import evaluation_row
from worker.jobs.score import SCORE_OF_TASK
from worker.pictures import StoredDataset
from worker.stored_model import StoredModel, as_folder


def measure_classifier(
    attempt: Attempt, model: StoredModel, dataset: StoredDataset, split: Split, *, device: torch.device
) -> None:
    """Measure a model of the task `classify` and end the job with the evaluation."""
    classes = model.record.classes
    labelled = crop_dataset(dataset.record, model.record.attribute).record
    ids = matched_ids(labelled.classes, classes)
    crops = [with_ids(crop, ids) for crop in labelled.of_split(split) if crop.boxes[0].class_id in ids]
    folder = as_folder(model, attempt.scratch / "served")
    classifier = CropClassifier.from_folder(folder, device=device)
    attempt.report.stage("evaluating")
    attempt.report.line(f"measuring {len(ids)} classes on {len(crops)} crops of {split}")
    said = classify_all(
        classifier,
        crops,
        dataset.pictures,
        max_pixels=attempt.settings.max_image_pixels,
        saw=MeasuringProgress(attempt, len(crops)).saw,
    )
    if said is None:
        raise RuntimeError("an evaluation that nobody interrupts has a result")
    counts = count_answers(crops, said, len(classes))
    measured = measure_answers(counts, classes)
    attempt.report.line(SCORE_OF_TASK[Task.CLASSIFY].told(measured.accuracy))
    evaluation = evaluation_row(
        attempt,
        model.id,
        dataset_sha256=dataset.sha256,
        split=split.value,
        metrics={
            **measured.as_json(),
            "split": split.value,
            **classes_apart(labelled.classes, classes),
        },
        details=ClassConfusion(classes, counts),
    )
    attempt.succeed({"evaluation_id": evaluation.id}, partial(add_evaluation, evaluation, evaluation.metrics))
