"""Measure a model on a split of a dataset, through the predictor that serves; classes are matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from detection.data.records import Split
from detection.evaluation.coco import CocoMetrics
from detection.evaluation.curves import detail_detections
from detection.evaluation.tta import MeasuredPasses, detect_plain_and_augmented
from detection.inference.passes import TtaPass, describe_passes, passes_of
from detection.inference.predictor import DetectOptions, Predictor
from detection.tasks import Task
from worker.attempt import Attempt
from worker.jobs.device import begin_on_device
from worker.jobs.evaluate_classifier import measure_classifier
from worker.jobs.measuring import MeasuringProgress, add_evaluation, classes_apart, matched_ids, with_ids
from worker.jobs.published import evaluation_row
from worker.jobs.score import SCORE_OF_TASK, shown
from worker.pictures import open_dataset
from worker.stored_model import as_folder, open_model


def run(attempt: Attempt) -> None:
    config, device = attempt.job.config, begin_on_device(attempt)
    split = Split(config["split"])
    model, dataset = open_model(attempt), open_dataset(attempt)
    if model.record.task is Task.CLASSIFY:
        measure_classifier(attempt, model, dataset, split, device=device)
        return
    ids = matched_ids(dataset.record.classes, model.record.classes)
    images = [with_ids(image, ids) for image in dataset.record.of_split(split)]
    predictor = Predictor.from_folder(
        as_folder(model, attempt.scratch / "served"),
        device=device,
        max_pixels=attempt.settings.max_image_pixels,
    )
    attempt.report.stage("evaluating")
    attempt.report.line(f"measuring {len(ids)} classes on {len(images)} pictures of {split}")
    passes = _passes(config)
    if passes:
        attempt.report.line(describe_passes(passes))
    progress = MeasuringProgress(attempt, len(images))
    found = detect_plain_and_augmented(predictor, images, dataset.pictures, passes, saw=progress.saw)
    if found is None:
        raise RuntimeError("an evaluation that nobody interrupts has a result")
    classes = model.record.classes
    measured = found.measure(images, classes)
    attempt.report.line(_outcome(measured))
    as_metrics = partial(_metrics, split=split, of_dataset=dataset.record.classes, of_model=classes)
    evaluation = evaluation_row(
        attempt,
        model.id,
        dataset_sha256=dataset.sha256,
        split=split.value,
        metrics=as_metrics(measured.asked_for),
        details=detail_detections(
            images, found.asked_for, classes, score_threshold=DetectOptions().score_threshold
        ),
        tta=measured.comparison,
    )
    result = {"evaluation_id": evaluation.id, **({"tta": measured.comparison} if passes else {})}
    attempt.succeed(result, partial(add_evaluation, evaluation, as_metrics(measured.plain)))


def _outcome(measured: MeasuredPasses) -> str:
    """Return the AP in a line for the log: as the model serves, and what augmentation changes about it."""
    plain = SCORE_OF_TASK[Task.DETECT].told(measured.plain.ap)
    comparison = measured.comparison
    if comparison is None:
        return plain
    difference = comparison["difference"]["ap"]
    change = "" if difference is None else f", {difference:+.4f}"
    return f"{plain}, augmented {shown(comparison['augmented']['ap'])}{change}"


def _passes(config: Mapping[str, Any]) -> tuple[TtaPass, ...]:
    """Return the passes of the augmentation that was asked for; none when it was not."""
    tta = config.get("tta")  # jobs of older versions know nothing of it
    return () if tta is None else passes_of(tta["scales"], tta["flips"])


def _metrics(
    measured: CocoMetrics, *, split: Split, of_dataset: Sequence[str], of_model: Sequence[str]
) -> dict[str, Any]:
    """Return what was measured, and the classes that it says nothing about."""
    return {**measured.as_json(), "split": split.value, **classes_apart(of_dataset, of_model)}
