"""The jobs that wait, oldest first, with what each of them asks for. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Job, OutboxRow
from app.jobs.protocol.rows import is_due
from app.jobs.states import JobStatus, Queue
from detection.device_choice import AUTO


@dataclass(frozen=True, slots=True)
class InLine:
    """A queued job, as far as it matters when it begins."""

    job_id: str
    device: str
    """As its configuration says; `auto` where it says nothing."""
    attempt: int
    created_at: datetime
    not_before: float | None
    """By the database's clock."""
    is_due: bool
    """Whether that time has come."""
    queued_at: datetime | None
    """Since when its bell is to be rung."""
    rung_at: float | None
    """When it was rung last, by the database's clock."""


def waiting_line(session: Session, queue: Queue) -> list[InLine]:
    """Return the due jobs of `queue`, oldest first."""
    return [job for job in whole_queues(session, [queue])[queue] if job.is_due]


def whole_queues(session: Session, queues: Iterable[Queue]) -> dict[Queue, list[InLine]]:
    """Return all jobs of these queues, due or not, oldest first: ids sort by time. One query."""
    lines: dict[Queue, list[InLine]] = {queue: [] for queue in queues}
    asked_for = Job.config["device"].as_string()
    facts = (Job.id, asked_for, Job.attempt, Job.created_at, Job.not_before, is_due())
    query = (
        select(Job.queue, *facts, OutboxRow.created_at, OutboxRow.rung_at)
        .join(OutboxRow, OutboxRow.job_id == Job.id, isouter=True)
        .where(Job.status == JobStatus.QUEUED, Job.queue.in_(list(lines)))
        .order_by(Job.id)
    )
    for queue, job_id, device, attempt, created_at, not_before, due, queued_at, rung_at in session.execute(
        query
    ):
        job = InLine(job_id, device or AUTO, attempt, created_at, not_before, bool(due), queued_at, rung_at)
        lines[Queue(queue)].append(job)
    return lines
