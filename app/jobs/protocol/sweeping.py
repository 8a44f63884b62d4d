"""What every worker looks for: jobs whose owner is silent, and bells that nobody answered."""

from __future__ import annotations

from sqlalchemy import ColumnElement, case, literal, or_, select, update
from sqlalchemy.orm import Session

from app.database.clock import database_now
from app.database.tables import Job, OutboxRow
from app.jobs.protocol.facts import Failure
from app.jobs.protocol.rows import give_back, is_due, owned
from app.jobs.states import OWNED, JobStatus, Queue

SWEEP_LIMIT = 100
"""Rows one sweep touches, so that ten thousand stale rows do not stop the service."""
MAX_RING_DOUBLINGS = 6
"""The wait between two rings for one job doubles this often: a long queue must not flood the broker."""


def expired_jobs(session: Session) -> list[tuple[str, int]]:
    """Return (job id, fence) of jobs whose owner has been silent beyond its lease."""
    rows = session.execute(
        select(Job.id, Job.fence)
        .where(Job.status.in_(OWNED), Job.lease_until < database_now())
        .order_by(Job.lease_until)
        .limit(SWEEP_LIMIT)
    ).all()
    session.rollback()
    return [(row.id, row.fence) for row in rows]


def requeue_expired(session: Session, job_id: str, fence: int) -> JobStatus | None:
    """Take a job from a silent owner; None when the owner came back or another sweep was faster."""
    job = session.scalars(
        select(Job)
        .where(*owned(job_id, fence), Job.lease_until < database_now())
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        session.rollback()
        return None
    reason = Failure("worker_lost", f"the worker {job.lease_owner} was lost", retryable=True)
    status = give_back(session, job, reason, costs_attempt=True, delay_s=0.0)
    session.commit()
    return status


def unanswered_bells(session: Session, *, patience_s: float) -> list[tuple[str, Queue]]:
    """Return (job id, queue) of due jobs that were never rung for, or that nobody claimed since.

    The patience doubles with every ring for a job: most such jobs only wait their turn.
    """
    rows = session.execute(
        select(Job.id, Job.queue)
        .join(OutboxRow, OutboxRow.job_id == Job.id)
        .where(
            Job.status == JobStatus.QUEUED,
            is_due(),
            or_(OutboxRow.rung_at.is_(None), OutboxRow.rung_at < database_now() - _patience(patience_s)),
        )
        .order_by(OutboxRow.rung_at.nulls_first(), Job.id)
        .limit(SWEEP_LIMIT)
    ).all()
    session.rollback()
    return [(row.id, Queue(row.queue)) for row in rows]


def note_ring(session: Session, job_id: str) -> None:
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.job_id == job_id)
        .values(rung_at=database_now(), rings=OutboxRow.rings + 1)
    )
    session.commit()


def _patience(patience_s: float) -> ColumnElement[float]:
    """`patience_s` for the first ring, then twice as long for each, up to 2 ** MAX_RING_DOUBLINGS."""
    rings = OutboxRow.rings
    doublings = case((rings > MAX_RING_DOUBLINGS, MAX_RING_DOUBLINGS), (rings < 1, 0), else_=rings - 1)
    return literal(1).bitwise_lshift(doublings) * patience_s
