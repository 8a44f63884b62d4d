"""What users may do with jobs, and what they see of them."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.api.idempotency import Once
from app.audit import Author, note_write
from app.database.tables import Job, JobEvent, JobTransition
from app.database.turns import Turn, take_turn
from app.errors import (
    JobActiveError,
    JobEndedError,
    NotFinishableError,
    NotFoundError,
    NotResumableError,
    OverloadedError,
)
from app.jobs import protocol
from app.jobs.schemas import DeviceRead, FailureRead, JobRead, ProgressRead, TransitionRead
from app.jobs.states import ACTIVE, RESUMABLE, JobKind, JobStatus, Queue
from app.jobs.waiting import Place, places_of
from app.settings import Settings
from app.storage import folder_of
from app.task_queue import Bell, announce

RETRY_AFTER_S = 30
"""A full queue does not empty in a second."""
LOG_PAGE = 1000


def get_job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id}")
    return job


def check_queue_has_room(session: Session, settings: Settings) -> None:
    """Refuse new work while too much is waiting; an unbounded queue only hides the wait.

    Until the transaction ends nobody else can look: what fits once is not promised twice.
    """
    take_turn(session, Turn.QUEUE)
    waiting = session.scalar(select(func.count()).select_from(Job).where(Job.status == JobStatus.QUEUED)) or 0
    if waiting >= settings.max_queued_jobs:
        raise OverloadedError(f"{waiting} jobs are waiting already", retry_after_s=RETRY_AFTER_S)


def read_job(session: Session, job: Job) -> JobRead:
    """Return a job as users see it."""
    return read_jobs(session, [job])[0]


def read_jobs(session: Session, jobs: Sequence[Job]) -> list[JobRead]:
    """Return jobs as users see them, with the same few queries however many they are."""
    of_job: dict[str, list[TransitionRead]] = {job.id: [] for job in jobs}
    rows = session.scalars(
        select(JobTransition).where(JobTransition.job_id.in_(of_job)).order_by(JobTransition.id)
    )
    for row in rows:
        of_job[row.job_id].append(TransitionRead.model_validate(row))
    reasons = {job_id: steps[-1].reason for job_id, steps in of_job.items() if steps}
    places = places_of(session, jobs, reasons)
    return [_shown(job, of_job[job.id], places.get(job.id)) for job in jobs]


def etag_of(job: Job, shown: JobRead) -> str:
    """Return what changes with everything that is shown; what a job waits for changes without the job."""
    waits = f"{shown.queue_position}{shown.waiting_for}" if shown.waiting_for else ""
    return f'W/"{job.version}-{zlib.crc32(waits.encode()):x}"'


def _shown(job: Job, transitions: list[TransitionRead], place: Place | None) -> JobRead:
    return JobRead(
        id=job.id,
        kind=job.kind,
        queue=job.queue,
        name=job.name,
        status=job.status,
        stage=job.stage,
        progress=ProgressRead.model_validate(job.progress),
        eta_s=job.eta_s,
        timing=job.timing,
        metrics=job.metrics,
        attempt=job.attempt,
        failure=FailureRead.model_validate(job.failure) if job.failure else None,
        result=job.result,
        queue_position=place.position if place else None,
        waiting_for=place.waiting_for if place else None,
        devices=[DeviceRead.model_validate(device) for device in job.devices or ()],
        config=_config(job),
        dataset_id=job.dataset_id,
        model_id=job.model_id,
        reproduces=job.reproduces,
        transitions=transitions,
        created_at=job.created_at,
        updated_at=job.updated_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        links=links_of(job),
    )


def _config(job: Job) -> dict[str, Any]:
    """Return what really runs: the worker knows which device it is."""
    if job.device is None or "device" not in job.config:
        return job.config
    return {**job.config, "device": job.device}


def links_of(job: Job) -> dict[str, str]:
    """Return where to go from a job: only what is possible in its present state."""
    here = f"/jobs/{job.id}"
    links = {"self": here, "events": f"{here}/events", "log": f"{here}/log"}
    if job.kind == JobKind.TRAIN:
        links["metrics"] = f"{here}/metrics"
    if job.status in ACTIVE:
        links["cancel"] = f"{here}/cancel"
    if job.kind == JobKind.TRAIN and job.status == JobStatus.RUNNING:
        links["finish"] = f"{here}/finish"
    if job.kind == JobKind.TRAIN and job.status in RESUMABLE and job.dataset_id is not None:
        links["resume"] = f"{here}/resume"
    if job.kind == JobKind.DETECT_VIDEO and job.status == JobStatus.SUCCEEDED:
        links |= {name: f"{here}/{name}" for name in (job.result or {}).get("files", ())}
    return {**links, **_links_around(job)}


def _links_around(job: Job) -> dict[str, str]:
    """Return where the things are that a job reads and makes."""
    made = job.result or {}
    around = {
        "dataset": ("datasets", job.dataset_id),
        "reproduces": ("models", job.reproduces),
        "model": ("models", made.get("model_id")),
        "evaluation": ("evaluations", made.get("evaluation_id")),
    }
    return {name: f"/{kind}/{its_id}" for name, (kind, its_id) in around.items() if its_id}


def commit_and_announce(
    session: Session, bell: Bell, job: Job, *, action: str, author: Author, once: Once
) -> JobRead:
    """Commit a new job together with the answer to its request, then ring; the sweep finds a lost ring."""
    note_write(session, author, action, f"jobs/{job.id}")
    session.flush()
    shown = read_job(session, job)
    location = {"Location": f"/jobs/{job.id}"}
    once.answer(session, status_code=202, headers=location, body=shown)
    session.commit()
    announce(session, bell, job.id, Queue(job.queue))
    return shown


def cancel_job(session: Session, job_id: str, author: Author) -> JobRead:
    """Ask a job to stop; its last checkpoint is kept."""
    get_job(session, job_id)
    note_write(session, author, "job.cancel", f"jobs/{job_id}")
    if protocol.request_cancel(session, job_id) is None:
        raise JobEndedError("the job has ended already")
    return _fresh(session, job_id)


def upload_in_vain(session: Session, job_id: str) -> str | None:
    """Return the folder of what was sent for a job that was cancelled before anybody began with it.

    One that somebody owns is asked to stop, and its owner removes what was sent for it.
    """
    job = get_job(session, job_id)
    key = job.config.get("upload_key") if job.status == JobStatus.CANCELLED else None
    return None if key is None else folder_of(key)


def finish_job(session: Session, job_id: str, author: Author) -> JobRead:
    """Ask a running training to stop now and to publish the best weights so far."""
    job = get_job(session, job_id)
    if job.kind != JobKind.TRAIN:
        raise NotFinishableError(f"a job of kind {job.kind} cannot be finished early; cancel it")
    note_write(session, author, "job.finish", f"jobs/{job_id}")
    if not protocol.request_finish(session, job_id):
        session.rollback()
        raise NotFinishableError("only a running training can be finished early")
    return _fresh(session, job_id)


def resume_job(session: Session, bell: Bell, settings: Settings, job_id: str, author: Author) -> JobRead:
    """Put a failed or cancelled training back into the queue; it goes on from its last good checkpoint."""
    job = get_job(session, job_id)
    check_queue_has_room(session, settings)
    if job.kind == JobKind.TRAIN and job.dataset_id is None:
        raise NotResumableError("its dataset was deleted")
    note_write(session, author, "job.resume", f"jobs/{job_id}")
    if not protocol.resume(session, job_id):
        raise NotResumableError(f"only a failed or cancelled training can be resumed; this is {job.status}")
    announce(session, bell, job_id, Queue(job.queue))
    return _fresh(session, job_id)


def delete_job(session: Session, settings: Settings, job_id: str, author: Author) -> None:
    """Forget an ended job with its log and checkpoints; the model it made stays."""
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one_or_none()
    if job is None:
        raise NotFoundError(f"there is no job {job_id}")
    if job.status in ACTIVE:
        raise JobActiveError(f"the job is {job.status}; cancel it first")
    session.delete(job)
    note_write(session, author, "job.delete", f"jobs/{job_id}")
    protocol.note_change(session, f"jobs/{job_id}", {"status": "deleted"})
    session.commit()
    shutil.rmtree(settings.checkpoints / job_id, ignore_errors=True)
    (settings.job_logs / f"{job_id}.log").unlink(missing_ok=True)


def log_lines(session: Session, job_id: str) -> Iterator[str]:
    """Yield a job's log line by line, a page of rows at a time."""
    last = 0
    while True:
        rows = session.scalars(
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.kind == "log", JobEvent.id > last)
            .order_by(JobEvent.id)
            .limit(LOG_PAGE)
        ).all()
        for row in rows:
            yield f"{row.at.isoformat(timespec='seconds')} {row.data.get('line', '')}\n"
        if len(rows) < LOG_PAGE:
            return
        last = rows[-1].id


def _fresh(session: Session, job_id: str) -> JobRead:
    session.expire_all()
    return read_job(session, get_job(session, job_id))
