"""The janitor: removes files that belong to nothing, and rows that nobody will ask for again.

A process can be killed between writing a file and the commit that makes it visible, or between a commit and
the removal of what it made superfluous. Files are listed before the database is asked what they belong to, so
that what is made meanwhile is safe. Nothing here is needed for correctness, only for the disk.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, select

from app.database.tables import Dataset, IdempotencyKey, Job, Model, utc_now
from app.jobs.states import ACTIVE, OWNED, JobKind, JobStatus
from app.logs import get_logger
from app.storage import folder_of
from app.videos.files import FOLDER, results_prefix
from worker.context import WorkerContext
from worker.registration import forget_silent_workers
from worker.retention import Retention
from worker.rounds import Chore, Rounds
from worker.scratch import jobs_scratch, scratch_name

log = get_logger(__name__)


def janitor_rounds(context: WorkerContext) -> Rounds:
    """Return the thread that cleans up, not started yet."""
    janitor, retention = Janitor(context), Retention(context)
    chores = (
        janitor.remove_scratch,
        janitor.remove_files_of_lost_jobs,
        janitor.remove_unpublished_models,
        janitor.remove_answered_uploads,
        janitor.remove_deleted_datasets,
        janitor.remove_failed_imports,
        janitor.remove_forsaken_results,
        janitor.forget_old_rows,
        retention.forget_ended_jobs,
        retention.forget_rejected_datasets,
        retention.forget_audit,
        retention.forget_events,
    )
    return Rounds("janitor", [Chore(chore, every_s=context.settings.janitor_s) for chore in chores])


class Janitor:
    """Each method looks for one kind of leftover; all of them may run anywhere and at any time."""

    def __init__(self, context: WorkerContext) -> None:
        self._context, self._settings, self._storage = context, context.settings, context.storage
        self._tidied: set[str] = set()
        """Rejected datasets that have been looked at since their import ended: it never goes on."""

    def remove_scratch(self) -> None:
        """Remove the folders of attempts that have ended, and uploads that nobody writes to any more."""
        jobs = jobs_scratch(self._settings)
        folders = _entries(jobs)
        uploads = [path for path in self._settings.scratch.rglob("*") if jobs not in path.parents]
        with self._context.sessions() as session:
            rows = session.execute(select(Job.id, Job.fence).where(Job.status.in_(OWNED)))
            running = {scratch_name(row.id, row.fence) for row in rows}
        self._remove(path for path in folders if path.name not in running)
        self._remove(path for path in uploads if path.is_file())

    def remove_files_of_lost_jobs(self) -> None:
        """Remove checkpoints that no job can go on from, and logs of jobs that were deleted."""
        checkpoints = _entries(self._settings.checkpoints)
        logs = _entries(self._settings.job_logs)
        with self._context.sessions() as session:
            known = {row.id: row.status for row in session.execute(select(Job.id, Job.status))}
        resumable = {job_id for job_id, status in known.items() if status != JobStatus.SUCCEEDED}
        self._remove(path for path in checkpoints if path.name not in resumable)
        self._remove(path for path in logs if path.stem not in known)

    def remove_unpublished_models(self) -> None:
        """Remove the files of models whose row never came."""
        prefixes = {"/".join(key.split("/")[:3]) for key in self._storage.keys("models/")}
        with self._context.sessions() as session:
            publishing = select(Job.id).where(Job.status.in_(OWNED), Job.stage == "publishing")
            if session.scalars(publishing.limit(1)).first() is not None:
                return
            published = {prefix.rstrip("/") for prefix in session.scalars(select(Model.storage_prefix))}
        for prefix in prefixes - published:
            if self._is_old_id(prefix.split("/")[1]):
                self._remove_stored(f"{prefix}/")

    def remove_answered_uploads(self) -> None:
        """Remove uploaded files whose import has ended, or never came to be."""
        keys = list(self._storage.keys("uploads/"))
        with self._context.sessions() as session:
            configs = session.scalars(select(Job.config).where(Job.status.in_(ACTIVE)))
            wanted = {config.get("upload_key") for config in configs}
        for key in keys:
            if key not in wanted and self._is_old_id(key.split("/")[1]):
                self._remove_stored(folder_of(key))

    def remove_deleted_datasets(self) -> None:
        """Remove the files of datasets whose row is gone."""
        stored = self._storage.folders("datasets/")
        with self._context.sessions() as session:
            known = set(session.scalars(select(Dataset.id)))
        for dataset_id in stored:
            if dataset_id not in known and self._is_old_id(dataset_id):
                self._remove_stored(f"datasets/{dataset_id}/")

    def remove_failed_imports(self) -> None:
        """Remove what earlier attempts at an import have written; only the last one's report is shown."""
        with self._context.sessions() as session:
            query = (
                select(Dataset.id, Dataset.storage_prefix, Job.ended_at)
                .join(Job, Job.dataset_id == Dataset.id)
                .where(Dataset.status == "rejected", Job.kind == JobKind.DATASET_IMPORT)
            )
            rejected = session.execute(query).all()
        long_ago = utc_now() - timedelta(seconds=self._settings.janitor_s)
        self._tidied &= {row.id for row in rejected}
        for row in (each for each in rejected if each.id not in self._tidied):
            kept = (row.storage_prefix or "").rstrip("/")
            prefixes = [
                f"datasets/{row.id}/{fence}" for fence in self._storage.folders(f"datasets/{row.id}/")
            ]
            for prefix in (each for each in prefixes if each != kept):
                self._remove_stored(f"{prefix}/")
            if row.ended_at is not None and row.ended_at < long_ago:
                self._tidied.add(row.id)

    def remove_forsaken_results(self) -> None:
        """Remove what was made of videos by attempts that did not end well, or for jobs that were deleted."""
        stored = {
            job_id: self._storage.folders(results_prefix(job_id)) for job_id in self._storage.folders(FOLDER)
        }
        with self._context.sessions() as session:
            rows = session.execute(select(Job.id, Job.status, Job.fence).where(Job.id.in_(stored)))
            known = {row.id: row for row in rows}
        for job_id, fences in stored.items():
            job = known.get(job_id)
            if job is None and self._is_old_id(job_id):
                self._remove_stored(results_prefix(job_id))
            elif job is not None and job.status not in OWNED:
                shown = str(job.fence) if job.status == JobStatus.SUCCEEDED else None
                for fence in (each for each in fences if each != shown):
                    self._remove_stored(f"{results_prefix(job_id)}{fence}/")

    def forget_old_rows(self) -> None:
        with self._context.sessions() as session:
            forget_silent_workers(session)
            hours = timedelta(hours=self._settings.idempotency_hours)
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < utc_now() - hours))
            session.commit()

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove those of the files and folders that nobody has written to for a while."""
        for path in list(paths):
            try:
                if time.time() - path.stat().st_mtime < self._settings.janitor_s:
                    continue
            except FileNotFoundError:
                continue
            log.info("leftover_removed", path=path.name)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove_stored(self, prefix: str) -> None:
        log.info("leftover_removed", prefix=prefix)
        self._storage.delete_all(prefix)

    def _is_old_id(self, text: str) -> bool:
        """Return whether an id was made long ago: its first 48 bits are milliseconds since 1970.

        A name that is no id was not given by us, and what bears it is not ours to remove.
        """
        try:
            made_ms = uuid.UUID(text).int >> 80
        except ValueError:
            return False
        return time.time() - made_ms / 1000 >= self._settings.janitor_s


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
