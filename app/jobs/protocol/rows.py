"""How a job's row changes: under which condition, and with which notes beside it. For this package only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from app.database.clock import database_now
from app.database.tables import Dataset, Job, JobEvent, JobTransition, OutboxRow, utc_now
from app.jobs.protocol.facts import Failure, LostLeaseError, storable
from app.jobs.protocol.leasing import end_leases
from app.jobs.states import ENDED, OWNED, STAGE_OF, JobKind, JobStatus

MAX_NO_PROGRESS = 3
"""Attempts in a row without a new checkpoint that end a job as failed."""
MAX_ATTEMPTS = 10
"""Attempts that went wrong, with checkpoints or without, that end a job as failed."""
CANCELLED = Failure("cancelled", "the import was cancelled")


def is_due() -> ColumnElement[bool]:
    return or_(Job.not_before.is_(None), Job.not_before <= database_now())


def owned(job_id: str, fence: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.fence == fence, Job.status.in_(OWNED))


def write(session: Session, job_id: str, fence: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Change the job's row, and return what a stream shows of it."""
    shown = (Job.status, Job.stage, Job.progress, Job.eta_s)
    written = update(Job).where(*owned(job_id, fence)).values(**changes).returning(*shown)
    row = session.execute(written).one_or_none()
    if row is None:
        session.rollback()
        raise LostLeaseError(job_id)
    return dict(row._mapping)


def end(
    session: Session, job_id: str, fence: int, status: JobStatus, changes: dict[str, Any], reason: str = ""
) -> None:
    with session.no_autoflush:  # the caller's rows must not be sent when the lease is lost
        job = session.scalars(select(Job).where(*owned(job_id, fence)).with_for_update()).one_or_none()
    if job is None:
        session.rollback()
        raise LostLeaseError(job_id)
    for name, value in changes.items():
        setattr(job, name, value)
    release(session, job)
    job.ended_at = utc_now()
    move(session, job, status, reason)


def give_back(
    session: Session, job: Job, reason: Failure, *, costs_attempt: bool, delay_s: float
) -> JobStatus:
    if costs_attempt:
        job.no_progress += 1
        job.charged_attempts += 1
    release(session, job)
    job.fence += 1
    if job.status == JobStatus.CANCELLING:
        job.ended_at = utc_now()
        move(session, job, JobStatus.CANCELLED, "its owner was lost while it was being cancelled")
    elif job.no_progress >= MAX_NO_PROGRESS or job.charged_attempts >= MAX_ATTEMPTS:
        job.failure, job.ended_at = reason.as_json(), utc_now()
        move(session, job, JobStatus.FAILED, reason.message)
    else:
        job.not_before = database_now() + delay_s if delay_s else None
        move(session, job, JobStatus.QUEUED, reason.message)
        enqueue(session, job.id)
    return JobStatus(job.status)


def release(session: Session, job: Job) -> None:
    job.lease_owner, job.lease_until, job.cancel_requested = None, None, False
    end_leases(session, job.id)


def move(session: Session, job: Job, status: JobStatus, reason: str) -> None:
    """Put a job into another state; what was true of its running is not true of that."""
    job.status, job.eta_s = status, None
    job.stage = STAGE_OF.get(status, job.stage)
    job.version += 1
    if status is JobStatus.QUEUED:
        job.device, job.devices = None, []
    if status is JobStatus.SUCCEEDED:
        job.progress = {**job.progress, "fraction": 1.0}
    if status in ENDED and status != JobStatus.SUCCEEDED and job.kind == JobKind.DATASET_IMPORT:
        _reject_dataset(session, job)
    note_transition(session, job.id, status, job.attempt, reason)


def _reject_dataset(session: Session, job: Job) -> None:
    """However an import ends, its dataset is never left importing, and says why."""
    failure = job.failure or CANCELLED.as_json()
    rejected = (
        update(Dataset)
        .where(Dataset.id == job.dataset_id, Dataset.status == "importing")
        .values(status="rejected", failure={name: failure[name] for name in ("code", "message")})
        .returning(Dataset.id)
    )
    if session.scalars(rejected).one_or_none() is not None:
        note_change(session, f"datasets/{job.dataset_id}", {"status": "rejected"})


def enqueue(session: Session, job_id: str) -> None:
    session.merge(OutboxRow(job_id=job_id, rung_at=None, rings=0))


def note_change(session: Session, subject: str, data: Mapping[str, Any]) -> None:
    """Add a line to the stream of changes of datasets and models; the caller commits."""
    session.add(JobEvent(job_id=None, subject=subject, kind="status", data=dict(data)))


def note_transition(session: Session, job_id: str, status: JobStatus, attempt: int, reason: str) -> None:
    reason = storable(reason)
    session.add(JobTransition(job_id=job_id, status=status, attempt=attempt, reason=reason))
    note(session, job_id, "status", {"status": status.value, "attempt": attempt, "reason": reason})


def note_line(session: Session, job_id: str, line: str) -> None:
    """Add a line to the job's log; the caller commits."""
    note(session, job_id, "log", {"line": storable(line)})


def note(session: Session, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    session.add(JobEvent(job_id=job_id, subject=f"jobs/{job_id}", kind=kind, data=dict(data)))
