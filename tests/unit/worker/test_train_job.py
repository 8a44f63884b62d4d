"""How a training ends, for every reason that it may have."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import select

from app.database.tables import Job, JobEvent
from app.jobs.states import JobStatus
from detection.errors import DatasetFormatError, WeightsError
from detection.families.yolox import YoloxConfig
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
    config = asdict(resolve(YoloxConfig(epochs=1, input_size=64, time_limit_s=60), num_images=4))
    return open_attempt(config=config, dataset_id=add_tiny_dataset(context))


def ending(monkeypatch: pytest.MonkeyPatch, reason: StopReason) -> list[Any]:
    """Have the training end at once for `reason`; return what it was given."""
    given: list[Any] = []

    def train(job: Any, **_: Any) -> TrainingResult:
        given.append(job)
        return TrainingResult(reason=reason, state=TrainingState(step=7), saw=lambda num_images: None)

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
    assert (training.config.device, training.config.precision) == ("cpu", "fp32")
    assert (job.device, job.config["device"], job.config["precision"]) == ("cpu", "auto", "fp32")


def test_a_publication_that_is_interrupted_is_no_success(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, StopReason.COMPLETED)
    monkeypatch.setattr(train_job, "publish", lambda *_, **__: None)
    with pytest.raises(StoppedError):
        train_job.run(attempt)


def test_a_dataset_or_model_that_is_gone_is_said(open_attempt: OpenAttempt, context: WorkerContext) -> None:
    config = asdict(resolve(YoloxConfig(epochs=1, input_size=64), num_images=4))
    with pytest.raises(DatasetFormatError, match="gone"):
        train_job.run(open_attempt(config=config))
    lost = open_attempt(config=config, dataset_id=add_tiny_dataset(context), model_id="no such model")
    with pytest.raises(WeightsError, match="gone"):
        train_job.run(lost)


@pytest.mark.parametrize(
    ("reason", "epochs", "early"),
    [
        (StopReason.FINISHED, 2, "finish"),
        (StopReason.EARLY_STOPPED, 2, "early_stopping"),
        (StopReason.FINISHED, 5, None),
        (StopReason.COMPLETED, 5, None),
    ],
)
def test_an_early_end_leaves_its_trace(
    open_attempt: OpenAttempt,
    context: WorkerContext,
    monkeypatch: pytest.MonkeyPatch,
    reason: StopReason,
    epochs: int,
    early: str | None,
) -> None:
    """A training that was asked to finish in its last epoch has not ended early."""
    config = resolve(YoloxConfig(epochs=5, batch_size=2, input_size=64), num_images=4)
    attempt = open_attempt(config=asdict(config), dataset_id=add_tiny_dataset(context))
    state = TrainingState(epoch=epochs, step=2 * epochs)
    result = TrainingResult(reason=reason, state=state, saw=lambda num_images: None)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(train_job, "train", lambda *_, **__: result)
    monkeypatch.setattr(train_job, "publish", lambda *_, **__: Mock(provenance={"dataset_sha256": "0"}))
    monkeypatch.setattr(
        train_job,
        "publish_model",
        lambda attempt, model, **options: made.append({"provenance": model.provenance, **options}),
    )
    train_job.run(attempt)
    attempt.report.flush()
    assert made[0]["result"] == {"ended_early": early}
    provenance = made[0]["provenance"]
    assert (provenance["epochs_done"], provenance["epochs_planned"]) == (epochs, 5)
    assert provenance["ended_early"] == early
    with context.sessions() as session:
        log = [row.data["line"] for row in session.scalars(select(JobEvent).where(JobEvent.kind == "log"))]
    assert log == ([made[0]["reason"]] if early else [])
    assert ("after 2 of 5 epochs (step 4 of 10)" in made[0]["reason"]) == (early is not None)
