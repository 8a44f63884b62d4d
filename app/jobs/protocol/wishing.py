"""What may happen to a job that nobody owns: it is added, refused, cancelled, or begun again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.database.tables import Job, OutboxRow, new_id, utc_now
from app.jobs.protocol.facts import Failure
from app.jobs.protocol.rows import enqueue, move, note_transition
from app.jobs.states import ENDED, QUEUE_OF, JobKind, JobStatus


def add_job(
    session: Session,
    kind: JobKind,
    *,
    name: str = "",
    config: Mapping[str, Any] | None = None,
    dataset_id: str | None = None,
    model_id: str | None = None,
    job_id: str | None = None,
) -> Job:
    """Add a queued job, its outbox row and its first transition; the caller commits, then rings.

    Args:
        job_id: given when something was named after the job before it existed.
    """
    job = Job(
        id=job_id or new_id(),
        kind=kind,
        queue=QUEUE_OF[kind],
        name=name,
        config=dict(config or {}),
        dataset_id=dataset_id,
        model_id=model_id,
        status=JobStatus.QUEUED,
        attempt=0,
        version=0,
    )
    session.add(job)
    session.flush()
    enqueue(session, job.id)
    note_transition(session, job.id, JobStatus.QUEUED, 0, "")
    return job


def request_cancel(session: Session, job_id: str) -> JobStatus | None:
    """Cancel a queued job at once, ask a running one to stop; None when it has ended already."""
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
    if job.status in ENDED:
        session.rollback()
        return None
    if job.status == JobStatus.QUEUED:
        job.fence += 1
        move(session, job, JobStatus.CANCELLED, "cancelled while queued")
        job.ended_at = utc_now()
        session.execute(delete(OutboxRow).where(OutboxRow.job_id == job_id))
    elif job.status == JobStatus.RUNNING:
        job.cancel_requested = True
        move(session, job, JobStatus.CANCELLING, "cancel requested")
    status = JobStatus(job.status)
    session.commit()
    return status


def refuse(session: Session, job_id: str, failure: Failure) -> bool:
    """End a queued job that no worker can ever do; False when it is queued no longer."""
    job = session.scalars(
        select(Job).where(Job.id == job_id, Job.status == JobStatus.QUEUED).with_for_update()
    ).one_or_none()
    if job is None:
        session.rollback()
        return False
    job.fence += 1
    job.failure, job.ended_at = failure.as_json(), utc_now()
    move(session, job, JobStatus.FAILED, failure.message)
    session.execute(delete(OutboxRow).where(OutboxRow.job_id == job_id))
    session.commit()
    return True


def request_finish(session: Session, job_id: str) -> bool:
    """Ask a running training to stop now and publish its best weights; False when it is not running."""
    done = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.RUNNING, Job.kind == JobKind.TRAIN)
        .values(finish_requested=True, version=Job.version + 1)
        .returning(Job.id)
    ).one_or_none()
    session.commit()
    return done is not None


def resume(session: Session, job_id: str) -> bool:
    """Put a failed or cancelled training back into the queue; False when it is in another state."""
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED) or job.kind != JobKind.TRAIN:
        session.rollback()
        return False
    job.cancel_requested = job.finish_requested = False
    job.failure, job.ended_at, job.not_before = None, None, None
    job.no_progress = job.charged_attempts = 0
    job.lease_owner, job.lease_until = None, None
    move(session, job, JobStatus.QUEUED, "resumed by its user")
    enqueue(session, job_id)
    session.commit()
    return True
