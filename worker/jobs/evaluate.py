"""Measure a model on a split of a dataset, through the predictor that serves; classes are matched by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from app.database.tables import Evaluation, Model
from app.jobs.protocol import note_change
from detection.data.records import ImageRecord, Split
from detection.errors import DatasetFormatError
from detection.evaluation.coco import CocoMetrics, measure_detections
from detection.evaluation.curves import detail_detections
from detection.evaluation.evaluate import detect_in_all
from detection.inference.predictor import DetectOptions, Predictor
from detection.training.reporting import ALL_SEEN
from worker.attempt import Attempt
from worker.jobs.device import begin_on_device
from worker.jobs.published import evaluation_row
from worker.pace import Pace
from worker.pictures import open_dataset
from worker.stored_model import as_folder, open_model


def run(attempt: Attempt) -> None:
    config, device = attempt.job.config, begin_on_device(attempt)
    split = Split(config["split"])
    model, dataset = open_model(attempt), open_dataset(attempt)
    ids = matched_ids(dataset.record.classes, model.record.classes)
    images = [with_ids(image, ids) for image in dataset.record.of_split(split)]
    predictor = Predictor.from_folder(
        as_folder(model, attempt.scratch / "served"),
        device=device,
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
        metrics=_metrics(measured, split, dataset.record.classes, classes),
        details=detail_detections(images, found, classes, score_threshold=DetectOptions().score_threshold),
    )
    attempt.succeed({"evaluation_id": evaluation.id}, partial(_add, evaluation))


class MeasuringProgress:
    """Shows how many pictures were measured, and how long the others will take at the same pace."""

    def __init__(
        self, attempt: Attempt, num_images: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._attempt, self._num_images, self._pace = attempt, num_images, Pace(clock=clock)
        self.saw(0)

    def saw(self, num_images: int) -> None:
        """Hear that so many pictures are done."""
        self._attempt.control.pulse()
        self._attempt.report.progress(
            {
                "step": num_images,
                "steps": self._num_images,
                "fraction": ALL_SEEN * num_images / max(self._num_images, 1),
            },
            eta_s=self._pace.eta_s(num_images, self._num_images - num_images),
        )


def matched_ids(of_dataset: Sequence[str], of_model: Sequence[str]) -> dict[int, int]:
    """Return the model's class index for each of the dataset's that has the same name.

    Raises:
        DatasetFormatError: there is none.
    """
    ids = {index: of_model.index(name) for index, name in enumerate(of_dataset) if name in of_model}
    if not ids:
        raise DatasetFormatError("the dataset", "", "it has no class in common with the model")
    return ids


def with_ids(image: ImageRecord, ids: Mapping[int, int]) -> ImageRecord:
    """Return a picture with the model's class indices; boxes that the model does not know are left out."""
    boxes = (replace(box, class_id=ids[box.class_id]) for box in image.boxes if box.class_id in ids)
    return replace(image, boxes=tuple(boxes))


def _metrics(
    measured: CocoMetrics, split: Split, of_dataset: Sequence[str], of_model: Sequence[str]
) -> dict[str, Any]:
    """Return what was measured, and the classes that it says nothing about."""
    return {
        **measured.as_json(),
        "split": split.value,
        "classes_unknown_to_model": [name for name in of_dataset if name not in of_model],
        "classes_not_in_dataset": [name for name in of_model if name not in of_dataset],
    }


def _add(evaluation: Evaluation, session: Session) -> None:
    """Add the evaluation; a model that was never measured shows its first one from now on."""
    session.merge(evaluation)
    model = session.get_one(Model, evaluation.model_id)
    if model.metrics is None:
        model.metrics = dict(evaluation.metrics)
    note_change(session, f"models/{model.id}", {"status": "evaluated", "evaluation_id": evaluation.id})
