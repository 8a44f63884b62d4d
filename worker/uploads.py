"""What was sent for a job goes when the job has ended in vain; one that succeeds removes it itself."""

from __future__ import annotations

from sqlalchemy import select

from app.database.tables import Job
from app.jobs.states import JobStatus
from app.logs import get_logger
from app.storage import folder_of
from worker.context import WorkerContext
from worker.lease import DATABASE_AWAY

USELESS = (JobStatus.FAILED, JobStatus.CANCELLED)
"""No job of which something was uploaded comes back from these."""

log = get_logger(__name__)


def remove_useless_upload(context: WorkerContext, job_id: str) -> None:
    """Remove what was uploaded for a job that will not be tried again; the janitor does it if we cannot."""
    ended = select(Job.config).where(Job.id == job_id, Job.status.in_(USELESS))
    try:
        with context.reading() as session:
            config = session.scalar(ended)
        key = None if config is None else config.get("upload_key")
        if key is not None:
            context.storage.delete_all(folder_of(key))
    except (*DATABASE_AWAY, OSError) as error:
        log.warning("upload_not_removed", job_id=job_id, error=type(error).__name__)
