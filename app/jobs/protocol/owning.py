"""What the owner of a job may do: claim it, keep it, report on it, and end it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Float, case, cast, delete, select, update
from sqlalchemy.orm import Session

from app.database.clock import database_now
from app.database.tables import Job, JobMetric, OutboxRow, utc_now
from app.jobs.protocol.facts import Claim, Device, Failure, LostLeaseError, Orders
from app.jobs.protocol.leasing import lease, may_lease
from app.jobs.protocol.rows import end, give_back, is_due, note, note_line, note_transition, owned, write
from app.jobs.protocol.series import SeriesRow, replace_series
from app.jobs.states import ENDED, JobKind, JobStatus


def claim_job(
    session: Session,
    job_id: str,
    *,
    owner: str,
    lease_s: float,
    host: str = "",
    devices: Sequence[Device] = (),
) -> Claim | None:
    """Move a queued job to running, on these devices; None if somebody else has it or one of them.

    One UPDATE decides the winner, so a message delivered twice trains once.

    Args:
        host: where the devices are, for people.
        devices: what the job will compute on; the accelerators among them are leased to it.
    """
    if not may_lease(session, devices):
        session.rollback()
        return None
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED, is_due())
        .values(
            status=JobStatus.RUNNING,
            stage="preparing",
            device=",".join(device.number for device in devices) or None,
            devices=[device.as_json() for device in devices],
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
    lease(session, job_id, row.fence, devices, host=host)
    session.execute(delete(OutboxRow).where(OutboxRow.job_id == job_id))
    note_transition(session, job_id, JobStatus.RUNNING, row.attempt, f"claimed by {owner}")
    session.commit()
    return Claim(job_id, JobKind(row.kind), row.fence, row.attempt)


def renew_lease(session: Session, job_id: str, fence: int, *, lease_s: float) -> Orders:
    """Keep the job for another `lease_s` seconds and learn what its user wants.

    Raises:
        LostLeaseError: a newer attempt owns the job, or it has ended.
    """
    row = session.execute(
        update(Job)
        .where(*owned(job_id, fence))
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
    query = select(Job.cancel_requested, Job.finish_requested).where(*owned(job_id, fence))
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
    device: str | None = None,
    series: Iterable[SeriesRow] = (),
    log_lines: Iterable[str] = (),
) -> None:
    """Write what an attempt has to say: where it is, and the series' new (step, epoch, values) rows.

    Every row is kept. The stream hears of the newest and of those with an AP only: as often as a report is
    written, however fast the steps are.

    Raises:
        LostLeaseError: the attempt is not the newest; nothing was written.
    """
    given = {"progress": progress, "metrics": metrics, "timing": timing, "config": config}
    changes: dict[str, Any] = {name: dict(value) for name, value in given.items() if value is not None}
    if stage is not None:
        changes["stage"] = stage
    if device is not None:
        changes["device"] = device
    if eta_s is not None or progress is not None:  # nobody waits for the end of what is being cancelled
        changes["eta_s"] = case((Job.status == JobStatus.RUNNING, cast(eta_s, Float)))
    now = write(session, job_id, fence, {**changes, "version": Job.version + 1})
    for step, epoch, values in replace_series(session, job_id, series):
        note(session, job_id, "metric", {"step": step, "epoch": epoch, **values})
    for line in log_lines:
        note_line(session, job_id, line)
    if stage is not None or progress is not None:
        note(session, job_id, "status", now)
    session.commit()


def begin_attempt_at(session: Session, job_id: str, fence: int, step: int) -> None:
    """Forget the series beyond `step`, where this attempt goes on: no row is double, none is missing."""
    write(session, job_id, fence, {"version": Job.version + 1})
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
    write(session, job_id, fence, changes)
    session.commit()


def succeed(
    session: Session, job_id: str, fence: int, result: Mapping[str, Any], *, reason: str = ""
) -> None:
    """End the job; rows added to `session` before (the model, the dataset) become visible with it."""
    end(session, job_id, fence, JobStatus.SUCCEEDED, {"result": dict(result)}, reason)
    session.commit()


def fail(session: Session, job_id: str, fence: int, failure: Failure) -> None:
    end(session, job_id, fence, JobStatus.FAILED, {"failure": failure.as_json()}, failure.message)
    session.commit()


def end_cancelled(session: Session, job_id: str, fence: int) -> None:
    end(session, job_id, fence, JobStatus.CANCELLED, {})
    session.commit()


def requeue(
    session: Session, job_id: str, fence: int, reason: Failure, *, costs_attempt: bool, delay_s: float = 0.0
) -> JobStatus:
    """Put an attempt's job back into the queue, or end it when it has failed too often.

    Args:
        costs_attempt: False for a drain or a deploy, which is nobody's fault.
        delay_s: how long the job must wait before it may be claimed again.
    """
    job = session.scalars(select(Job).where(*owned(job_id, fence)).with_for_update()).one_or_none()
    if job is None:
        session.rollback()
        raise LostLeaseError(job_id)
    status = give_back(session, job, reason, costs_attempt=costs_attempt, delay_s=delay_s)
    session.commit()
    return status
