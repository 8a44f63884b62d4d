"""Retention: what the settings let go after a while, by the very rules by which a user would delete it.

A model, a ready dataset and whatever is queued or running never go by themselves. Each thing that goes leaves
a row in the audit, as a user's deletion does, and a line in the log. Several workers may do this at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from app.audit import Author
from app.database.tables import AuditRow, Dataset, Job, JobEvent, utc_now
from app.datasets.schemas import DatasetStatus
from app.datasets.service import delete_dataset, remove_files
from app.errors import ConflictError, NotFoundError
from app.jobs.service import delete_job
from app.jobs.states import ENDED, JobKind
from app.logs import get_logger
from app.videos.service import remove_results
from worker.context import WorkerContext

JANITOR = Author("janitor", "")
MOST_AT_ONCE = 100
"""Jobs or datasets that go in one round; the rest waits for the next, so that no user waits for this."""
ROWS_PER_DELETION = 5000
"""Rows of audit and events that go in one transaction: a long one would block every writer."""

log = get_logger(__name__)


class Retention:
    """Each method lets one kind of thing go; without its setting it does nothing."""

    def __init__(self, context: WorkerContext) -> None:
        self._context, self._settings = context, context.settings

    def forget_ended_jobs(self) -> None:
        """Delete jobs that ended long ago; but an import stays while its dataset is there, rejected."""
        if self._settings.keep_jobs_days is None:
            return
        rejected = select(Dataset.id).where(Dataset.status == DatasetStatus.REJECTED)
        explains = (Job.kind == JobKind.DATASET_IMPORT) & func.coalesce(Job.dataset_id, "").in_(rejected)
        old = select(Job.id).where(
            Job.status.in_(ENDED), Job.ended_at < _days_ago(self._settings.keep_jobs_days), ~explains
        )
        self._forget("jobs", old.order_by(Job.ended_at), self._delete_job)

    def forget_rejected_datasets(self) -> None:
        """Delete datasets that were rejected, and last renamed, long ago."""
        if self._settings.keep_rejected_days is None:
            return
        old = select(Dataset.id).where(
            Dataset.status == DatasetStatus.REJECTED,
            Dataset.updated_at < _days_ago(self._settings.keep_rejected_days),
        )
        self._forget("datasets", old.order_by(Dataset.updated_at), self._delete_dataset)

    def forget_audit(self) -> None:
        if self._settings.keep_audit_days is not None:
            old = select(AuditRow.id).where(AuditRow.at < _days_ago(self._settings.keep_audit_days))
            self._forget_rows(AuditRow, old.order_by(AuditRow.id))

    def forget_events(self) -> None:
        """Delete old events; the lines of logs are events, too, and stay as long as their job."""
        old = select(JobEvent.id).where(
            JobEvent.at < _days_ago(self._settings.keep_events_days), JobEvent.kind != "log"
        )
        self._forget_rows(JobEvent, old.order_by(JobEvent.id))

    def _forget(self, kind: str, old: Select[str], forget: Callable[[Session, str], None]) -> None:
        with self._context.sessions() as session:
            ids = session.scalars(old.limit(MOST_AT_ONCE)).all()
            session.rollback()  # on SQLite it would keep every writer waiting
        for each in ids:
            with self._context.sessions() as session:
                try:
                    forget(session, each)
                except (ConflictError, NotFoundError) as error:  # used again, or gone by another hand
                    log.info("kept_after_all", kind=kind, id=each, reason=error.detail)
                else:
                    log.info("retention_over", kind=kind, id=each)

    def _delete_job(self, session: Session, job_id: str) -> None:
        delete_job(session, self._settings, job_id, JANITOR)
        try:
            remove_results(self._context.storage, job_id)
        except OSError as error:  # as below
            log.warning("files_left", kind="jobs", id=job_id, error=str(error))

    def _delete_dataset(self, session: Session, dataset_id: str) -> None:
        delete_dataset(session, dataset_id, JANITOR)
        try:
            remove_files(self._context.storage, dataset_id)
        except OSError as error:  # the row is gone: the janitor finds its files when the storage is back
            log.warning("files_left", kind="datasets", id=dataset_id, error=str(error))

    def _forget_rows(self, table: type[AuditRow | JobEvent], old: Select[int]) -> None:
        num_rows = 0
        with self._context.sessions() as session:
            while ids := session.scalars(old.limit(ROWS_PER_DELETION)).all():
                session.execute(delete(table).where(table.id.in_(ids)))
                session.commit()
                num_rows += len(ids)
        if num_rows:
            log.info("retention_over", kind=table.__tablename__, rows=num_rows)


def _days_ago(days: float) -> datetime:
    return utc_now() - timedelta(days=days)
