"""The rules of videos: what an upload becomes, and when its results may be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from app.api.idempotency import Once
from app.audit import Author
from app.database.tables import Job, Model, new_id
from app.datasets.service import upload_prefix
from app.errors import FileNotMadeError, HarrierError, JobActiveError, NotFoundError
from app.jobs.protocol import add_job
from app.jobs.schemas import JobRead
from app.jobs.service import check_queue_has_room, commit_and_announce, get_job
from app.jobs.states import ACTIVE, JobKind, JobStatus
from app.settings import Settings
from app.storage import Storage
from app.task_queue import Bell
from app.usage.service import take_room
from app.videos.files import KINDS, VideoFile, result_key, results_prefix
from detection.device_choice import AUTO

if TYPE_CHECKING:
    from app.api.uploads import UploadedFile
    from app.videos.schemas import VideoParameters


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A file that a job made."""

    key: str
    size_bytes: int
    sha256: str
    file_name: str
    media_type: str


def queue_video(
    session: Session,
    storage: Storage,
    settings: Settings,
    bell: Bell,
    file: UploadedFile,
    wish: VideoParameters,
    model_id: str,
    *,
    author: Author,
    once: Once,
) -> JobRead:
    """Take an uploaded video into the storage and queue the job that looks at it with this very model."""
    job_id = new_id()
    key = f"{upload_prefix(job_id)}video"
    storage.adopt(key, file.path)
    try:
        check_queue_has_room(session, settings)
        take_room(session, settings, file.size_bytes)
        model = session.get(Model, model_id)
        if model is None:  # deleted while the video was on its way
            raise NotFoundError(f"there is no model {model_id}")
        job = add_job(
            session,
            JobKind.DETECT_VIDEO,
            name=f"{file.shown_name or 'video'} by {model.name}"[:200],
            config=_config(key, file, wish, model_id),
            model_id=model_id,
            job_id=job_id,
        )
        return commit_and_announce(session, bell, job, action="video.detect", author=author, once=once)
    except HarrierError:  # of any other error it is not sure that nothing was committed: the janitor looks
        session.rollback()
        storage.delete_all(upload_prefix(job_id))
        raise


def find_result(session: Session, job_id: str, wanted: VideoFile) -> StoredResult:
    """Return a file that a job has made of its video.

    Raises:
        NotFoundError: there is no such job, or it looked at no video.
        JobActiveError: it has not ended yet.
        FileNotMadeError: it made no such file.
    """
    job = get_job(session, job_id)
    if job.kind != JobKind.DETECT_VIDEO:
        raise NotFoundError(f"a job of kind {job.kind} makes no {wanted}")
    if job.status in ACTIVE:
        raise JobActiveError(f"the job is {job.status}; its files can be had when it has succeeded")
    file = made_files(job).get(wanted)
    if file is None:
        raise FileNotMadeError(_why_not_made(job, wanted))
    kind = KINDS[wanted]
    return StoredResult(
        key=result_key(job.id, job.fence, wanted),
        size_bytes=file["size_bytes"],
        sha256=file["sha256"],
        file_name=f"{job.id}.{kind.suffix}",
        media_type=kind.media_type,
    )


def made_files(job: Job) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of the files that a job has made of a video."""
    found: dict[str, dict[str, Any]] = (job.result or {}).get("files", {})
    return found if job.kind == JobKind.DETECT_VIDEO else {}


def remove_results(storage: Storage, job_id: str) -> None:
    """Remove what a deleted job has made; what a crash leaves is found by the janitor."""
    storage.delete_all(results_prefix(job_id))


def _why_not_made(job: Job, wanted: VideoFile) -> str:
    if job.status != JobStatus.SUCCEEDED:
        return f"the job {job.status}, so it made no {wanted}"
    return "the job was asked for no annotated video (`annotate`)"


def _config(key: str, file: UploadedFile, wish: VideoParameters, model_id: str) -> dict[str, Any]:
    return {
        "model_id": model_id,
        **wish.model_dump(mode="json", exclude={"model", "tta", "classifier"}),
        "device": AUTO,
        "upload_key": key,
        "file_name": file.file_name[:300],
        "sha256": file.sha256,
        "size_bytes": file.size_bytes,
    }
