"""What measurements of every task share: how they tell their way, classes by name, and their row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from app.database.tables import Evaluation, Model
from app.jobs.protocol import note_change
from detection.data.records import ImageRecord
from detection.errors import DatasetFormatError
from detection.training.reporting import ALL_SEEN
from worker.attempt import Attempt
from worker.pace import Pace


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


def classes_apart(of_dataset: Sequence[str], of_model: Sequence[str]) -> dict[str, list[str]]:
    """Return the classes that a measurement says nothing about."""
    return {
        "classes_unknown_to_model": [name for name in of_dataset if name not in of_model],
        "classes_not_in_dataset": [name for name in of_model if name not in of_dataset],
    }


def add_evaluation(evaluation: Evaluation, as_served: Mapping[str, Any], session: Session) -> None:
    """Add the evaluation; a model that was never measured shows its first one from now on, as it serves.

    Args:
        as_served: what was measured without anything that has to be asked for.
    """
    session.merge(evaluation)
    model = session.get_one(Model, evaluation.model_id)
    if model.metrics is None:
        model.metrics = dict(as_served)
    note_change(session, f"models/{model.id}", {"status": "evaluated", "evaluation_id": evaluation.id})
