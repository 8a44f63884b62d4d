"""The one task: its message is only a bell, so it may be lost, late or doubled."""

from __future__ import annotations

from app.task_queue import RUN_JOB
from worker.celery_app import celery_app
from worker.context import get_context
from worker.taking import take_jobs


@celery_app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """Look for jobs to do, whichever these are: the one that the bell was rung for may have to wait."""
    take_jobs(get_context())
