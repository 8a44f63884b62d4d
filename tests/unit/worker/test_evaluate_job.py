"""How an evaluation matches classes by their names, and how it tells its way through the pictures."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.database.tables import Job
from app.jobs.states import JobKind
from detection.data.records import BoxRecord, ImageRecord, Split
from detection.errors import DatasetFormatError
from tests.unit.worker.conftest import OpenAttempt
from worker.context import WorkerContext
from worker.jobs.evaluate import MeasuringProgress, matched_ids, with_ids


def test_classes_are_matched_by_name() -> None:
    assert matched_ids(("dog", "owl", "cat"), ("cat", "dog", "horse")) == {0: 1, 2: 0}
    with pytest.raises(DatasetFormatError, match="no class in common"):
        matched_ids(("owl",), ("cat", "dog"))


def test_boxes_get_the_ids_of_the_model_and_unknown_ones_are_left_out() -> None:
    boxes = tuple(BoxRecord(class_id=each, x1=0, y1=0, x2=each + 1, y2=1) for each in (0, 1, 2))
    image = ImageRecord(id="1", file_name="1.jpg", width=8, height=8, split=Split.VAL, boxes=boxes)
    translated = with_ids(image, {0: 1, 2: 0})
    assert [(box.class_id, box.x2) for box in translated.boxes] == [(1, 1), (0, 3)]


def test_an_evaluation_counts_its_pictures_and_times_them(
    open_attempt: OpenAttempt, context: WorkerContext
) -> None:
    def shown() -> tuple[object, float | None]:
        attempt.report.flush()
        with context.sessions() as session:
            job = session.scalars(select(Job)).one()
        return job.progress, job.eta_s

    now = 0.0
    attempt = open_attempt(JobKind.EVALUATE)
    progress = MeasuringProgress(attempt, 4, clock=lambda: now)
    assert shown() == ({"step": 0, "steps": 4, "fraction": 0.0}, None)
    now = 6.0
    progress.saw(3)
    assert shown() == ({"step": 3, "steps": 4, "fraction": pytest.approx(0.7425)}, 2.0)
    progress.saw(4)
    assert shown() == ({"step": 4, "steps": 4, "fraction": 0.99}, None), "the figures are still to be made"
