"""Publishing a model: all of it is visible or nothing, wherever the process dies."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.database.tables import Evaluation, Job, JobTransition, Model, ModelFile
from app.jobs import protocol
from app.jobs.protocol import Claim, LostLeaseError
from app.jobs.states import JobKind, JobStatus
from detection.analysis.complexity import Complexity
from detection.deploy.package import ModelFile as WrittenFile
from detection.evaluation.curves import detail_detections
from detection.model_record import ModelRecord
from tests.unit.worker.conftest import OpenAttempt
from worker import fault_points
from worker.attempt import Attempt, find_facts
from worker.context import WorkerContext
from worker.fault_points import fault_point
from worker.jobs import published
from worker.jobs.published import NewModel, evaluation_row, publish_model

NAMES = ("weights.safetensors", "model.onnx", "model.json")
POINTS = ("publish_begins", *(f"publish_stored_{name}" for name in NAMES), "publish_uncommitted")


class DiedError(BaseException):
    """Stands for `kill -9`: nothing of the process runs any more."""


@pytest.fixture
def attempt(open_attempt: OpenAttempt) -> Attempt:
    return open_attempt()


@pytest.fixture
def model(tmp_path: Path) -> NewModel:
    folder = tmp_path / "made"
    folder.mkdir()
    files = []
    for name in NAMES:
        content = f"content of {name}".encode()
        (folder / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        files.append(WrittenFile(name=name, sha256=sha256, size_bytes=len(content)))
    return NewModel(
        name="a model",
        origin="trained",
        record=ModelRecord(architecture="yolox-nano", classes=("a", "b"), input_size_hw=(64, 64)),
        complexity=Complexity(layers=1, parameters=2, gradients=2, gflops=0.5),
        metrics={"ap": 0.5, "split": "val"},
        provenance={"seed": 0},
        folder=folder,
        files=tuple(files),
    )


def publish(attempt: Attempt, model: NewModel) -> None:
    publish_model(
        attempt,
        model,
        add_rows=lambda session, model_id: session.add(
            evaluation_row(
                attempt,
                model_id,
                dataset_sha256="0" * 64,
                split="val",
                metrics=model.metrics or {},
                details=detail_detections([], [], ["a", "b"], score_threshold=0.3),
            )
        ),
        result={"ended_early": "finish"},
        reason="finished by its user",
    )


def counts(context: WorkerContext) -> list[int]:
    with context.sessions() as session:
        tables = (Model, ModelFile, Evaluation)
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


def test_a_model_becomes_visible_with_the_end_of_its_job(
    attempt: Attempt, model: NewModel, context: WorkerContext
) -> None:
    publish(attempt, model)
    assert counts(context) == [1, 2, 1]
    with context.sessions() as session:
        job, row = session.scalars(select(Job)).one(), session.scalars(select(Model)).one()
        assert job.status == JobStatus.SUCCEEDED
        assert job.result == {"model_id": row.id, "ended_early": "finish"}
        newest = select(JobTransition).order_by(JobTransition.id.desc()).limit(1)
        assert session.scalars(newest).one().reason == "finished by its user"
        assert (row.classes, row.input_size, row.parameters) == (["a", "b"], [64, 64], 2)
        for file in session.scalars(select(ModelFile)):
            with context.storage.open(file.key) as content:
                assert hashlib.sha256(content.read()).hexdigest() == file.sha256
    assert context.storage.exists(f"{row.storage_prefix}/model.json")


@pytest.mark.parametrize("point", POINTS)
def test_whatever_is_stored_nothing_is_visible_before_the_commit(
    attempt: Attempt,
    model: NewModel,
    context: WorkerContext,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    def die(name: str, fence: int) -> None:
        if name == point:
            raise DiedError

    monkeypatch.setattr(published, "fault_point", die)
    with pytest.raises(DiedError):
        publish(attempt, model)
    assert counts(context) == [0, 0, 0]
    with context.sessions() as session:
        assert session.scalars(select(Job.status)).one() == JobStatus.RUNNING


def test_a_death_after_the_commit_changes_nothing(
    attempt: Attempt, model: NewModel, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str, fence: int) -> None:
        if name == "publish_committed":
            raise DiedError

    monkeypatch.setattr(published, "fault_point", die)
    with pytest.raises(DiedError):
        publish(attempt, model)
    assert counts(context) == [1, 2, 1]


def test_an_attempt_that_lost_its_lease_publishes_nothing(
    attempt: Attempt, model: NewModel, context: WorkerContext
) -> None:
    with context.sessions() as session:
        row = session.scalars(select(Job)).one()
        row.fence += 1
        session.commit()
    with pytest.raises(LostLeaseError):
        publish(attempt, model)
    assert counts(context) == [0, 0, 0]


def test_an_attempt_reads_the_facts_of_its_own_job_only(context: WorkerContext, claim: Claim) -> None:
    with context.sessions() as session:
        facts = find_facts(session, claim.job_id, claim.fence)
        assert (facts.kind, facts.name) == (JobKind.TRAIN, "a training")
        with pytest.raises(LostLeaseError):
            find_facts(session, claim.job_id, claim.fence - 1)
        protocol.end_cancelled(session, claim.job_id, claim.fence)
        with pytest.raises(LostLeaseError):
            find_facts(session, claim.job_id, claim.fence)


def test_a_fault_point_is_for_one_attempt_only(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(fault_points.os, "kill", lambda pid, number: killed.append(number))
    fault_point("publish_begins", 1)
    monkeypatch.setenv(fault_points.VARIABLE, "publish_begins:1")
    fault_point("publish_begins", 3)
    fault_point("publish_committed", 1)
    assert killed == []
    fault_point("publish_begins", 1)
    assert killed == [9]
