"""What a job has made of a video, over HTTP."""

from __future__ import annotations

from fastapi import Request, Response
from sqlalchemy.orm import Session

from app.api.dependencies import Id, ReadingDep, StorageDep, answers, create_router, needs
from app.api.downloads import Download, send
from app.errors import FileNotMadeError, JobActiveError, NotFoundError, RangeNotSatisfiableError
from app.keys.service import Scope
from app.storage import Storage
from app.videos.files import VideoFile
from app.videos.schemas import LINES_EXAMPLE
from app.videos.service import find_result

router = create_router("jobs")

ERRORS = (NotFoundError, JobActiveError, FileNotMadeError, RangeNotSatisfiableError)
LINES = {"application/x-ndjson": {"schema": {"type": "string"}, "example": LINES_EXAMPLE}}
VIDEO = {"video/webm": {"schema": {"type": "string", "format": "binary"}}}
RANGE = "The range that was asked for."
UNCHANGED = {"description": "The client has this file already."}


@router.get(
    "/jobs/{job_id}/detections",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses={
        200: {"description": "One JSON object a line.", "content": LINES},
        206: {"description": RANGE, "content": LINES},
        304: UNCHANGED,
        **answers(*ERRORS),
    },
)
def download_detections(job_id: Id, request: Request, session: ReadingDep, storage: StorageDep) -> object:
    """Download what was detected in a video: first a line about the video, then one for each frame.

    `ETag` and one `Range` are honoured.
    """
    return _send(job_id, VideoFile.DETECTIONS, request, session, storage)


@router.get(
    "/jobs/{job_id}/video",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses={
        200: {"description": "The video.", "content": VIDEO},
        206: {"description": RANGE, "content": VIDEO},
        304: UNCHANGED,
        **answers(*ERRORS),
    },
)
def download_video(job_id: Id, request: Request, session: ReadingDep, storage: StorageDep) -> object:
    """Download the video with its detections drawn, as WebM (VP8). `ETag` and one `Range` are honoured."""
    return _send(job_id, VideoFile.VIDEO, request, session, storage)


def _send(job_id: str, wanted: VideoFile, request: Request, session: Session, storage: Storage) -> Response:
    file = find_result(session, job_id, wanted)
    download = Download(file.key, file.size_bytes, file.sha256, file.file_name, file.media_type)
    return send(storage, download, request.headers)
