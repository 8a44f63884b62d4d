"""What a job's function is given: facts, the ways to files and database, and how the job may end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Job
from app.jobs import protocol
from app.jobs.protocol import Failure, LostLeaseError
from app.jobs.states import OWNED, JobKind
from app.settings import Settings
from app.storage import Storage
from worker.control import Control
from worker.lease import Lease
from worker.report import JobReport

AddRows = Callable[[Session], None]
"""Adds rows that become visible in the moment in which the job ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What was asked for; none of it changes while the job runs."""

    id: str
    kind: JobKind
    name: str
    config: Mapping[str, Any]
    dataset_id: str | None
    model_id: str | None
    reproduces: str | None
    timing: Mapping[str, float]
    fence: int

    @classmethod
    def of(cls, job: Job) -> JobFacts:
        return cls(
            id=job.id,
            kind=JobKind(job.kind),
            name=job.name,
            config=job.config,
            dataset_id=job.dataset_id,
            model_id=job.model_id,
            reproduces=job.reproduces,
            timing=job.timing,
            fence=job.fence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one job, in this process."""

    job: JobFacts
    device: str
    """What is this attempt's to compute on: `cpu`, or the numbers of the accelerators leased to it."""
    settings: Settings
    storage: Storage
    lease: Lease
    control: Control
    report: JobReport
    scratch: Path
    """A folder of this attempt alone; it is removed afterwards."""

    def read(self, query: Callable[[Session], Any]) -> Any:
        """Return what `query` finds, waiting for the database if it is away."""
        return self.lease.write(query)

    def succeed(self, result: Mapping[str, Any], add_rows: AddRows, *, reason: str = "") -> None:
        """End the job well, together with the rows that it made: all of it becomes visible, or nothing."""

        def transaction(session: Session) -> None:
            add_rows(session)
            protocol.succeed(session, self.job.id, self.job.fence, result, reason=reason)

        self.report.flush(time_too=True)
        self.control.last_word()
        self.lease.end(transaction)

    def fail(self, failure: Failure, add_rows: AddRows = lambda session: None) -> None:
        """End the job with a reason that another try would not change."""

        def transaction(session: Session) -> None:
            add_rows(session)
            protocol.fail(session, self.job.id, self.job.fence, failure)

        self.report.flush(time_too=True)
        self.control.last_word()
        self.lease.end(transaction)

    def try_again(self, failure: Failure, *, delay_s: float) -> None:
        """Give the job back to the queue; after too many tries without progress this ends it."""
        self.report.flush(time_too=True)
        self.control.last_word()
        self.lease.write(
            lambda session: protocol.requeue(
                session, self.job.id, self.job.fence, failure, costs_attempt=True, delay_s=delay_s
            )
        )


def find_facts(session: Session, job_id: str, fence: int) -> JobFacts:
    """Return the facts of a job that attempt `fence` owns.

    Raises:
        LostLeaseError: it does not, or no longer.
    """
    query = select(Job).where(Job.id == job_id, Job.fence == fence, Job.status.in_(OWNED))
    job = session.scalars(query).one_or_none()
    if job is None:
        raise LostLeaseError(job_id)
    return JobFacts.of(job)
