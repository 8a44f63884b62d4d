"""Measure a model on a split of a dataset, through the predictor that serves; classes are matched by name."""

from __future__ import annotations

from functools import partial

from detection.data.records import Split
from detection.evaluation.coco import measure_detections
from detection.evaluation.curves import detail_detections
from detection.evaluation.evaluate import detect_in_all
from detection.inference.predictor import DetectOptions, Predictor
from detection.tasks import Task
from worker.attempt import Attempt
from worker.jobs.device import take_device
from worker.jobs.evaluate_classifier import measure_classifier
from worker.jobs.measuring import MeasuringProgress, add_evaluation, classes_apart, matched_ids, with_ids
from worker.jobs.published import evaluation_row
from worker.pictures import open_dataset
from worker.stored_model import as_folder, open_model


def run(attempt: Attempt) -> None:
    config = attempt.job.config
    split = Split(config["split"])
    model, dataset = open_model(attempt), open_dataset(attempt)
    if model.record.task is Task.CLASSIFY:
        measure_classifier(attempt, model, dataset, split)
        return
    ids = matched_ids(dataset.record.classes, model.record.classes)
    images = [with_ids(image, ids) for image in dataset.record.of_split(split)]
    predictor = Predictor.from_folder(
        as_folder(model, attempt.scratch / "served"),
        device=take_device(attempt),
        max_pixels=attempt.settings.max_image_pixels,
    )
    attempt.report.stage("evaluating")
    attempt.report.line(f"measuring {len(ids)} classes on {len(images)} pictures of {split}")
    progress = MeasuringProgress(attempt, len(images))
    found = detect_in_all(predictor, images, dataset.pictures, saw=progress.saw)
    if found is None:
        raise RuntimeError("an evaluation that nobody interrupts has a result")
    classes = model.record.classes
    measured = measure_detections(images, found, classes)
    evaluation = evaluation_row(
        attempt,
        model.id,
        dataset_sha256=dataset.sha256,
        split=split.value,
        metrics={
            **measured.as_json(),
            "split": split.value,
            **classes_apart(dataset.record.classes, classes),
        },
        details=detail_detections(images, found, classes, score_threshold=DetectOptions().score_threshold),
    )
    attempt.succeed({"evaluation_id": evaluation.id}, partial(add_evaluation, evaluation))
