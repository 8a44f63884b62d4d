"""Retention: what is old enough goes by the users' own rules, and nothing else ever does."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.database.tables import AuditRow, Dataset, Job, JobEvent, JobMetric, Model, new_id, utc_now
from app.jobs import protocol
from app.jobs.protocol import Claim
from app.jobs.states import JobKind, JobStatus
from app.videos.files import VideoFile, result_key
from worker import retention as retention_module
from worker.context import WorkerContext
from worker.janitor import Janitor
from worker.retention import Retention

OLD = timedelta(days=40)
KEEP_ALL = {"keep_jobs_days": 30.0, "keep_rejected_days": 30.0, "keep_audit_days": 30.0}


def retention(context: WorkerContext, **days: float) -> Retention:
    settings = context.settings.model_copy(update=days)
    return Retention(replace(context, settings=settings))


@pytest.fixture
def everything(context: WorkerContext) -> Retention:
    return retention(context, **KEEP_ALL)


def add_job(context: WorkerContext, status: JobStatus, ended: datetime | None, **values: Any) -> str:
    """Put a job in place that has been in this state since `ended`."""
    kind = values.pop("kind", JobKind.TRAIN)
    with context.sessions() as session:
        job = protocol.add_job(session, kind, name="a job", **values)
        session.commit()
        session.execute(update(Job).where(Job.id == job.id).values(status=status, ended_at=ended))
        session.commit()
        return job.id


def add_dataset(context: WorkerContext, status: str, touched: datetime) -> str:
    with context.sessions() as session:
        dataset = Dataset(id=new_id(), name="d", sha256="0" * 64, status=status)
        dataset.storage_prefix, dataset.updated_at = f"datasets/{dataset.id}/1", touched
        session.add(dataset)
        session.commit()
        context.storage.write(f"{dataset.storage_prefix}/report.json", io.BytesIO(b"{}"))
        return dataset.id


def ids(context: WorkerContext, table: Any) -> set[str]:
    with context.sessions() as session:
        return set(session.scalars(select(table.id)))


def audit(context: WorkerContext) -> list[tuple[str, str, str]]:
    with context.sessions() as session:
        return [(row.actor, row.action, row.subject) for row in session.scalars(select(AuditRow))]


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_job_that_ended_long_ago_goes_with_all_it_has(
    context: WorkerContext, everything: Retention, status: JobStatus
) -> None:
    job_id = add_job(context, status, utc_now() - OLD)
    with context.sessions() as session:
        session.add(JobMetric(job_id=job_id, step=1, epoch=0, values={}))
        session.add(JobEvent(job_id=job_id, kind="log", data={"line": "x"}))
        session.commit()
    checkpoint = context.settings.checkpoints / job_id / "step-1"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    context.storage.write(result_key(job_id, 1, VideoFile.VIDEO), io.BytesIO(b"webm"))
    everything.forget_ended_jobs()
    assert ids(context, Job) == set()
    assert not checkpoint.parent.exists()
    assert list(context.storage.keys("videos/")) == []
    with context.sessions() as session:
        assert session.scalars(select(JobMetric)).all() == []
        assert session.scalars(select(JobEvent).where(JobEvent.job_id == job_id)).all() == []
    assert audit(context) == [("janitor", "job.delete", f"jobs/{job_id}")]


def test_what_ended_lately_or_has_not_ended_stays(
    context: WorkerContext, everything: Retention, claim: Claim
) -> None:
    with context.sessions() as session:
        session.execute(update(Job).values(created_at=utc_now() - OLD, started_at=utc_now() - OLD))
        session.commit()
    kept = {
        claim.job_id,
        add_job(context, JobStatus.QUEUED, None),
        add_job(context, JobStatus.QUEUED, utc_now() - OLD),  # resumed: it had ended once
        add_job(context, JobStatus.CANCELLING, None),
        add_job(context, JobStatus.FAILED, utc_now() - timedelta(days=29)),
    }
    everything.forget_ended_jobs()
    assert ids(context, Job) == kept
    assert audit(context) == []


def test_an_import_explains_its_rejected_dataset_as_long_as_there_is_one(
    context: WorkerContext, everything: Retention
) -> None:
    rejected = add_dataset(context, "rejected", utc_now())
    ready = add_dataset(context, "ready", utc_now() - OLD)
    explains = add_job(
        context, JobStatus.FAILED, utc_now() - OLD, kind=JobKind.DATASET_IMPORT, dataset_id=rejected
    )
    add_job(context, JobStatus.SUCCEEDED, utc_now() - OLD, kind=JobKind.DATASET_IMPORT, dataset_id=ready)
    add_job(context, JobStatus.FAILED, utc_now() - OLD, kind=JobKind.DATASET_IMPORT)  # its dataset is gone
    everything.forget_ended_jobs()
    assert ids(context, Job) == {explains}


def test_rejected_datasets_go_with_their_files_and_no_others(
    context: WorkerContext, everything: Retention
) -> None:
    old = add_dataset(context, "rejected", utc_now() - OLD)
    kept = {
        add_dataset(context, "rejected", utc_now()),
        add_dataset(context, "ready", utc_now() - OLD),
        add_dataset(context, "importing", utc_now() - OLD),
    }
    everything.forget_rejected_datasets()
    assert ids(context, Dataset) == kept
    assert {key.split("/")[1] for key in context.storage.keys("datasets/")} == kept
    assert audit(context) == [("janitor", "dataset.delete", f"datasets/{old}")]


def test_a_storage_that_is_away_stops_nothing(
    context: WorkerContext, everything: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [add_dataset(context, "rejected", utc_now() - OLD) for _ in range(2)]

    def refuse(prefix: str) -> None:
        raise OSError("the object store refused")

    with monkeypatch.context() as patch:
        patch.setattr(context.storage, "delete_all", refuse)
        everything.forget_rejected_datasets()
    assert ids(context, Dataset) == set()
    janitor = Janitor(replace(context, settings=context.settings.model_copy(update={"janitor_s": 0.0})))
    assert set(context.storage.folders("datasets/")) == set(old)
    janitor.remove_deleted_datasets()
    assert context.storage.folders("datasets/") == []


def test_a_dataset_that_a_job_uses_stays(context: WorkerContext, everything: Retention) -> None:
    dataset_id = add_dataset(context, "rejected", utc_now() - OLD)
    add_job(context, JobStatus.QUEUED, None, dataset_id=dataset_id)
    everything.forget_rejected_datasets()
    assert ids(context, Dataset) == {dataset_id}


def test_models_outlive_the_job_that_made_them(context: WorkerContext, everything: Retention) -> None:
    job_id = add_job(context, JobStatus.SUCCEEDED, utc_now() - OLD)
    with context.sessions() as session:
        model = Model(
            name="m",
            job_id=job_id,
            architecture="yolox-nano",
            classes=[],
            input_size=[64, 64],
            record={},
            parameters=1,
            storage_prefix="models/m/1",
            created_at=utc_now() - OLD,
        )
        session.add(model)
        session.commit()
        model_id = model.id
    everything.forget_ended_jobs()
    assert (ids(context, Job), ids(context, Model)) == (set(), {model_id})


def test_without_settings_nothing_goes(context: WorkerContext) -> None:
    add_job(context, JobStatus.SUCCEEDED, utc_now() - 100 * OLD)
    add_dataset(context, "rejected", utc_now() - 100 * OLD)
    with context.sessions() as session:
        session.add(AuditRow(actor="a", action="b", subject="c", at=utc_now() - 100 * OLD))
        session.commit()
    keeper = retention(context)
    for chore in (keeper.forget_ended_jobs, keeper.forget_rejected_datasets, keeper.forget_audit):
        chore()
    assert [len(ids(context, table)) for table in (Job, Dataset, AuditRow)] == [1, 1, 1]


def test_old_notes_of_who_did_what_go(context: WorkerContext, everything: Retention) -> None:
    with context.sessions() as session:
        for at in (utc_now() - OLD, utc_now()):
            session.add(AuditRow(actor="a", action="b", subject="c", at=at))
        session.commit()
    everything.forget_audit()
    assert len(audit(context)) == 1


@pytest.mark.parametrize("rows_at_once", [2, 5000])
def test_old_events_go_and_logs_stay(
    context: WorkerContext, claim: Claim, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(retention_module, "ROWS_PER_DELETION", rows_at_once)
    with context.sessions() as session:
        for kind in ("metric", "metric", "metric", "status", "log"):
            session.add(JobEvent(job_id=claim.job_id, kind=kind, data={}, at=utc_now() - OLD))
        session.add(JobEvent(job_id=claim.job_id, kind="metric", data={}, at=utc_now() - timedelta(days=6)))
        session.commit()
    retention(context).forget_events()
    with context.sessions() as session:
        days_ago = select(JobEvent.kind).where(JobEvent.at < utc_now() - timedelta(days=1))
        assert sorted(session.scalars(days_ago)) == ["log", "metric"]


def test_a_round_takes_only_so_many(
    context: WorkerContext, everything: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "MOST_AT_ONCE", 2)
    for days in range(5):
        add_job(context, JobStatus.FAILED, utc_now() - OLD - timedelta(days=days))
    left = []
    for _ in range(4):
        everything.forget_ended_jobs()
        left.append(len(ids(context, Job)))
    assert left == [3, 1, 0, 0]


def test_two_workers_may_do_it_at_once(
    context: WorkerContext, everything: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one was quicker, and the user resumed a job in between."""
    gone, resumed = (add_job(context, JobStatus.FAILED, utc_now() - OLD) for _ in range(2))
    original: Callable[..., None] = retention_module.delete_job

    def late(session: Any, settings: Any, job_id: str, author: Any) -> None:
        with context.sessions() as other:
            if job_id == gone:
                original(other, settings, job_id, author)
            else:
                protocol.resume(other, job_id)
        original(session, settings, job_id, author)

    monkeypatch.setattr(retention_module, "delete_job", late)
    everything.forget_ended_jobs()
    assert ids(context, Job) == {resumed}
