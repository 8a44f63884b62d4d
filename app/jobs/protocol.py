"""The job protocol: who owns a job, and what may be written about it.

The row is the truth and the broker only a bell. A job is claimed by one UPDATE that raises its fence and sets
a lease; every later write of that attempt carries the fence and is refused when it is old, so a worker that
was paused beyond its lease can wake and write nothing. Each function is one transaction and commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, delete, literal, or_, select, update
from sqlalchemy.orm import Session

from app.database.clock import database_now
from app.database.tables import Dataset, Job, JobEvent, JobMetric, JobTransition, OutboxRow, new_id, utc_now
from app.jobs.states import ENDED, OWNED, QUEUE_OF, JobKind, JobStatus, Queue

MAX_NO_PROGRESS = 3
"""Attempts in a row without a new checkpoint that end a job as failed."""
MAX_ATTEMPTS = 10
SWEEP_LIMIT = 100
"""Rows one sweep touches, so that ten thousand stale rows do not stop the service."""
MAX_RING_DOUBLINGS = 6
"""The wait between two rings for one job doubles this often: a long queue must not flood the broker."""


class LostLeaseError(Exception):
    """Somebody else owns the job now, or it has ended: write nothing more and stop."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job, until the lease runs out."""

    job_id: str
    kind: JobKind
    fence: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Orders:
    """What a heartbeat brings back."""

    cancel: bool
    finish: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, for people and for programs."""

    code: str
    message: str
    retryable: bool = False
    details: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            **({"details": dict(self.details)} if self.details else {}),
        }


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
    _enqueue(session, job.id)
    _note_transition(session, job.id, JobStatus.QUEUED, 0, "")
    return job


def claim_job(session: Session, job_id: str, *, owner: str, lease_s: float) -> Claim | None:
    """Move a queued job to running; None if somebody else already has it.

    One UPDATE decides the winner, so a message delivered twice trains once.
    """
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED, _is_due())
        .values(
            status=JobStatus.RUNNING,
            stage="preparing",
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            lease_owner=owner,
            lease_until=database_now() + lease_s,
            not_before=None,
            started_at=utc_now(),
            ended_at=None,
            version=Job.version + 1,
        )
        .returning(Job.kind, Job.fence, Job.attempt)
    ).one_or_none()
    if row is None:
        session.rollback()
        return None
    session.execute(delete(OutboxRow).where(OutboxRow.job_id == job_id))
    _note_transition(session, job_id, JobStatus.RUNNING, row.attempt, f"claimed by {owner}")
    session.commit()
    return Claim(job_id, JobKind(row.kind), row.fence, row.attempt)


def renew_lease(session: Session, job_id: str, fence: int, *, lease_s: float) -> Orders:
    """Keep the job for another `lease_s` seconds and learn what its user wants.

    Raises:
        LostLeaseError: a newer attempt owns the job, or it has ended.
    """
    row = session.execute(
        update(Job)
        .where(*_owned(job_id, fence))
        .values(lease_until=database_now() + lease_s, updated_at=Job.updated_at)
        .returning(Job.cancel_requested, Job.finish_requested)
    ).one_or_none()
    session.commit()
    if row is None:
        raise LostLeaseError(job_id)
    return Orders(cancel=row.cancel_requested, finish=row.finish_requested)


def read_orders(session: Session, job_id: str, fence: int) -> Orders:
    """Learn what the job's user wants between two heartbeats; writes nothing.

    Raises:
        LostLeaseError: a newer attempt owns the job, or it has ended.
    """
    query = select(Job.cancel_requested, Job.finish_requested).where(*_owned(job_id, fence))
    row = session.execute(query).one_or_none()
    session.rollback()
    if row is None:
        raise LostLeaseError(job_id)
    return Orders(cancel=row.cancel_requested, finish=row.finish_requested)


def ended_as(session: Session, job_id: str, fence: int) -> JobStatus | None:
    """Return how the attempt `fence` ended its job; None when it did not.

    This settles a commit whose answer was lost: the attempt reads instead of writing a second time.
    """
    query = select(Job.status).where(Job.id == job_id, Job.fence == fence, Job.status.in_(ENDED))
    status = session.scalars(query).one_or_none()
    session.rollback()
    return JobStatus(status) if status is not None else None


def report(
    session: Session,
    job_id: str,
    fence: int,
    *,
    stage: str | None = None,
    progress: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    timing: Mapping[str, Any] | None = None,
    eta_s: float | None = None,
    config: Mapping[str, Any] | None = None,
    series: Sequence[tuple[int, int, Mapping[str, Any]]] = (),
    log_lines: Iterable[str] = (),
) -> None:
    """Write what an attempt has to say: where it is, and the series' new (step, epoch, values) rows.

    Raises:
        LostLeaseError: the attempt is not the newest; nothing was written.
    """
    given = {"progress": progress, "metrics": metrics, "timing": timing, "config": config}
    changes: dict[str, Any] = {name: dict(value) for name, value in given.items() if value is not None}
    if stage is not None:
        changes["stage"] = stage
    if eta_s is not None or progress is not None:
        changes["eta_s"] = eta_s
    now = _write(session, job_id, fence, {**changes, "version": Job.version + 1})
    for step, epoch, values in series:
        session.merge(JobMetric(job_id=job_id, step=step, epoch=epoch, values=dict(values)))
        _note(session, job_id, "metric", {"step": step, "epoch": epoch, **values})
    for line in log_lines:
        _note(session, job_id, "log", {"line": line})
    if stage is not None or progress is not None:
        _note(session, job_id, "status", now)
    session.commit()


def begin_attempt_at(session: Session, job_id: str, fence: int, step: int) -> None:
    """Forget the series beyond `step`, where this attempt goes on: no row is double, none is missing."""
    _write(session, job_id, fence, {"version": Job.version + 1})
    session.execute(delete(JobMetric).where(JobMetric.job_id == job_id, JobMetric.step > step))
    session.commit()


def note_checkpoint(session: Session, job_id: str, fence: int, step: int) -> None:
    """Record that work up to `step` is safe; when that is further than ever, failed attempts are forgiven.

    A job that always fails between the same two checkpoints makes no progress, however often it saves.
    """
    further = Job.checkpoint_step < step
    changes = {
        "checkpoint_step": case((further, step), else_=Job.checkpoint_step),
        "no_progress": case((further, 0), else_=Job.no_progress),
        "version": Job.version + 1,
    }
    _write(session, job_id, fence, changes)
    session.commit()


def succeed(session: Session, job_id: str, fence: int, result: Mapping[str, Any]) -> None:
    """End the job; rows added to `session` before (the model, the dataset) become visible with it."""
    _end(session, job_id, fence, JobStatus.SUCCEEDED, {"result": dict(result), "stage": "done", "eta_s": 0.0})
    session.commit()


def fail(session: Session, job_id: str, fence: int, failure: Failure) -> None:
    _end(session, job_id, fence, JobStatus.FAILED, {"failure": failure.as_json()}, failure.message)
    session.commit()


def end_cancelled(session: Session, job_id: str, fence: int) -> None:
    _end(session, job_id, fence, JobStatus.CANCELLED, {})
    session.commit()


def requeue(
    session: Session, job_id: str, fence: int, reason: Failure, *, costs_attempt: bool, delay_s: float = 0.0
) -> JobStatus:
    """Put an attempt's job back into the queue, or end it when it has failed too often.

    Args:
        costs_attempt: False for a drain or a deploy, which is nobody's fault.
        delay_s: how long the job must wait before it may be claimed again.
    """
    job = session.scalars(select(Job).where(*_owned(job_id, fence)).with_for_update()).one_or_none()
    if job is None:
        session.rollback()
        raise LostLeaseError(job_id)
    status = _give_back(session, job, reason, costs_attempt=costs_attempt, delay_s=delay_s)
    session.commit()
    return status


def request_cancel(session: Session, job_id: str) -> JobStatus | None:
    """Cancel a queued job at once, ask a running one to stop; None when it has ended already."""
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
    if job.status in ENDED:
        session.rollback()
        return None
    if job.status == JobStatus.QUEUED:
        job.fence += 1
        _move(session, job, JobStatus.CANCELLED, "cancelled while queued")
        job.ended_at = utc_now()
        session.execute(delete(OutboxRow).where(OutboxRow.job_id == job_id))
    elif job.status == JobStatus.RUNNING:
        job.cancel_requested = True
        _move(session, job, JobStatus.CANCELLING, "cancel requested")
    status = JobStatus(job.status)
    session.commit()
    return status


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
    job.no_progress = job.attempt = 0
    job.lease_owner, job.lease_until = None, None
    _move(session, job, JobStatus.QUEUED, "resumed by its user")
    job.stage = "queued"
    _enqueue(session, job_id)
    session.commit()
    return True


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
        .where(*_owned(job_id, fence), Job.lease_until < database_now())
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        session.rollback()
        return None
    reason = Failure("worker_lost", f"the worker {job.lease_owner} was lost", retryable=True)
    status = _give_back(session, job, reason, costs_attempt=True, delay_s=0.0)
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
            _is_due(),
            or_(OutboxRow.rung_at.is_(None), OutboxRow.rung_at < database_now() - _patience(patience_s)),
        )
        .order_by(OutboxRow.rung_at.nulls_first(), Job.id)
        .limit(SWEEP_LIMIT)
    ).all()
    session.rollback()
    return [(row.id, Queue(row.queue)) for row in rows]


def head_of_queue(session: Session, queue: Queue) -> str | None:
    """Return the due job that has waited longest in `queue`; None when none waits."""
    query = select(Job.id).where(Job.queue == queue, Job.status == JobStatus.QUEUED, _is_due())
    head = session.scalars(query.order_by(Job.id).limit(1)).one_or_none()
    session.rollback()
    return head


def note_ring(session: Session, job_id: str) -> None:
    session.execute(
        update(OutboxRow)
        .where(OutboxRow.job_id == job_id)
        .values(rung_at=database_now(), rings=OutboxRow.rings + 1)
    )
    session.commit()


def note_change(session: Session, subject: str, data: Mapping[str, Any]) -> None:
    """Add a line to the stream of changes of datasets and models; the caller commits."""
    session.add(JobEvent(job_id=None, subject=subject, kind="status", data=dict(data)))


def _is_due() -> ColumnElement[bool]:
    return or_(Job.not_before.is_(None), Job.not_before <= database_now())


def _patience(patience_s: float) -> ColumnElement[float]:
    """`patience_s` for the first ring, then twice as long for each, up to 2 ** MAX_RING_DOUBLINGS."""
    rings = OutboxRow.rings
    doublings = case((rings > MAX_RING_DOUBLINGS, MAX_RING_DOUBLINGS), (rings < 1, 0), else_=rings - 1)
    return literal(1).bitwise_lshift(doublings) * patience_s


def _owned(job_id: str, fence: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.fence == fence, Job.status.in_(OWNED))


def _write(session: Session, job_id: str, fence: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Change the job's row, and return what a stream shows of it."""
    shown = (Job.status, Job.stage, Job.progress, Job.eta_s)
    written = update(Job).where(*_owned(job_id, fence)).values(**changes).returning(*shown)
    row = session.execute(written).one_or_none()
    if row is None:
        session.rollback()
        raise LostLeaseError(job_id)
    return dict(row._mapping)


def _end(
    session: Session, job_id: str, fence: int, status: JobStatus, changes: dict[str, Any], reason: str = ""
) -> None:
    with session.no_autoflush:  # the caller's rows must not be sent when the lease is lost
        job = session.scalars(select(Job).where(*_owned(job_id, fence)).with_for_update()).one_or_none()
    if job is None:
        session.rollback()
        raise LostLeaseError(job_id)
    for name, value in changes.items():
        setattr(job, name, value)
    _release(job)
    job.ended_at = utc_now()
    _move(session, job, status, reason)


def _give_back(
    session: Session, job: Job, reason: Failure, *, costs_attempt: bool, delay_s: float
) -> JobStatus:
    if costs_attempt:
        job.no_progress += 1
    else:
        job.attempt -= 1
    _release(job)
    job.fence += 1
    if job.status == JobStatus.CANCELLING:
        job.ended_at = utc_now()
        _move(session, job, JobStatus.CANCELLED, "its owner was lost while it was being cancelled")
    elif job.no_progress >= MAX_NO_PROGRESS or job.attempt >= MAX_ATTEMPTS:
        job.failure, job.ended_at = reason.as_json(), utc_now()
        _move(session, job, JobStatus.FAILED, reason.message)
    else:
        job.not_before = database_now() + delay_s if delay_s else None
        job.stage, job.eta_s = "queued", None
        _move(session, job, JobStatus.QUEUED, reason.message)
        _enqueue(session, job.id)
    return JobStatus(job.status)


def _release(job: Job) -> None:
    job.lease_owner, job.lease_until, job.cancel_requested = None, None, False


def _move(session: Session, job: Job, status: JobStatus, reason: str) -> None:
    job.status = status
    job.version += 1
    if status in ENDED and status != JobStatus.SUCCEEDED and job.kind == JobKind.DATASET_IMPORT:
        _reject_dataset(session, job)
    _note_transition(session, job.id, status, job.attempt, reason)


def _reject_dataset(session: Session, job: Job) -> None:
    """However an import ends, its dataset is never left importing."""
    rejected = (
        update(Dataset)
        .where(Dataset.id == job.dataset_id, Dataset.status == "importing")
        .values(status="rejected")
        .returning(Dataset.id)
    )
    if session.scalars(rejected).one_or_none() is not None:
        note_change(session, f"datasets/{job.dataset_id}", {"status": "rejected"})


def _note_transition(session: Session, job_id: str, status: JobStatus, attempt: int, reason: str) -> None:
    at: datetime = utc_now()
    session.add(JobTransition(job_id=job_id, status=status, attempt=attempt, reason=reason, at=at))
    _note(session, job_id, "status", {"status": status.value, "attempt": attempt, "reason": reason})


def _note(session: Session, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    session.add(JobEvent(job_id=job_id, subject=f"jobs/{job_id}", kind=kind, data=dict(data)))


def _enqueue(session: Session, job_id: str) -> None:
    session.merge(OutboxRow(job_id=job_id, rung_at=None, rings=0))
