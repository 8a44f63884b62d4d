"""Finding the model that a job reproduces, before anything is computed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import select

from app.database.tables import JobEvent
from detection.errors import DatasetFormatError, WeightsError
from detection.families.yolox import YoloxConfig
from detection.training.job import TrainingJob
from detection.training.recipes import resolve
from tests.small_job import small_job
from tests.tiny_dataset import add_tiny_dataset
from tests.unit.worker.conftest import OpenAttempt
from worker.context import WorkerContext
from worker.jobs import train as train_job
from worker.jobs.reproduction import Original, announce_reproduction, open_original


def original_of(training: TrainingJob, **provenance: object) -> Original:
    told = {"step": 6, "dataset_content_sha256": training.identity.dataset_sha256, **provenance}
    return Original(id="m1", name="cells", provenance=told, metrics={"ap": 0.5}, weights=Path("weights"))


def test_an_ordinary_training_has_no_original(open_attempt: OpenAttempt) -> None:
    assert open_original(open_attempt()) is None


def test_an_original_that_is_gone_is_missed_before_anything_is_trained(
    open_attempt: OpenAttempt, context: WorkerContext
) -> None:
    config = asdict(resolve(YoloxConfig(epochs=1, batch_size=2, input_size=64), num_images=4))
    attempt = open_attempt(config=config, dataset_id=add_tiny_dataset(context), reproduces="m0")
    with pytest.raises(WeightsError, match="the model m0, which this training reproduces, is gone"):
        train_job.run(attempt)


def test_a_dataset_with_other_pictures_is_refused(open_attempt: OpenAttempt, tmp_path: Path) -> None:
    training = small_job(tmp_path)
    attempt = open_attempt()
    with pytest.raises(DatasetFormatError, match="are not those that the model m1 was trained on"):
        announce_reproduction(attempt, original_of(training, dataset_content_sha256="0" * 64), training)


@pytest.mark.parametrize(("step", "extent"), [(6, "up to step 6 of 9"), (9, "to its end")])
def test_the_log_says_what_is_repeated_and_how_far(
    open_attempt: OpenAttempt, context: WorkerContext, tmp_path: Path, step: int, extent: str
) -> None:
    training = small_job(tmp_path)
    attempt = open_attempt()
    announce_reproduction(attempt, original_of(training, step=step), training)
    attempt.report.flush()
    with context.sessions() as session:
        (line,) = session.scalars(select(JobEvent).where(JobEvent.kind == "log"))
        assert line.data["line"].startswith("this reproduces the model m1 (cells): ")
        assert extent in line.data["line"]
