"""How a training ends, for every reason that it may have."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import select

from app.database.tables import Job
from app.jobs.states import JobStatus
from detection.errors import DatasetFormatError, WeightsError
from detection.training.config import TrainingConfig
from detection.training.recipes import resolve
from detection.training.run import TrainingResult
from detection.training.state import StopReason, StopRequest, TrainingState
from tests.tiny_dataset import add_tiny_dataset
from tests.unit.worker.conftest import OpenAttempt
from worker.attempt import Attempt
from worker.context import WorkerContext
from worker.control import StoppedError
from worker.jobs import train as train_job


@pytest.fixture
def attempt(context: WorkerContext, open_attempt: OpenAttempt) -> Attempt:
    """An attempt at a training of the tiny dataset."""
    config = asdict(resolve(TrainingConfig(epochs=1, input_size=64, time_limit_s=60), num_images=4))
    return open_attempt(config=config, dataset_id=add_tiny_dataset(context))


def ending(monkeypatch: pytest.MonkeyPatch, reason: StopReason) -> list[Any]:
    """Have the training end at once for `reason`; return what it was given."""
    given: list[Any] = []

    def train(job: Any, **_: Any) -> TrainingResult:
        given.append(job)
        return TrainingResult(reason=reason, state=TrainingState(step=7))

    monkeypatch.setattr(train_job, "train", train)
    return given


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [(StopReason.CANCELLED, StopRequest.CANCEL), (StopReason.DRAINED, StopRequest.DRAIN)],
    ids=["cancelled", "drained"],
)
def test_a_stopped_training_publishes_nothing(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, reason: StopReason, wanted: StopRequest
) -> None:
    ending(monkeypatch, reason)
    with pytest.raises(StoppedError) as stopped:
        train_job.run(attempt)
    assert stopped.value.request is wanted


def test_a_training_out_of_time_fails_but_can_be_resumed(
    attempt: Attempt, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ending(monkeypatch, StopReason.TIME_LIMIT)
    train_job.run(attempt)
    with context.sessions() as session:
        job = session.scalars(select(Job)).one()
    assert job.status == JobStatus.FAILED
    assert job.failure is not None
    assert (job.failure["code"], job.failure["retryable"]) == ("time_limit", True)
    assert "step 7" in job.failure["message"]
    training = given[0]
    assert training.folder == context.settings.checkpoints / job.id / str(attempt.job.fence)
    assert training.config.device == "cpu", "auto is this worker's device"


def test_a_publication_that_is_interrupted_is_no_success(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, StopReason.COMPLETED)
    monkeypatch.setattr(train_job, "publish", lambda *_, **__: None)
    with pytest.raises(StoppedError):
        train_job.run(attempt)


def test_a_dataset_or_model_that_is_gone_is_said(open_attempt: OpenAttempt, context: WorkerContext) -> None:
    config = asdict(resolve(TrainingConfig(epochs=1, input_size=64), num_images=4))
    with pytest.raises(DatasetFormatError, match="gone"):
        train_job.run(open_attempt(config=config))
    lost = open_attempt(config=config, dataset_id=add_tiny_dataset(context), model_id="no such model")
    with pytest.raises(WeightsError, match="gone"):
        train_job.run(lost)
